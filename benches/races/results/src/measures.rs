//! All that was kept in one run, and how to find a figure in it.

use std::fs;
use std::path::Path;

use results::Measure;

use crate::facts;

pub struct Measures(pub Vec<Measure>);

impl Measures {
    /// Lines of JSON from `*.jsonl`, and what the crates' own tests and the drill print, from `*.log`.
    pub fn read(folder: &Path) -> Self {
        let mut all = Vec::new();
        let mut files: Vec<_> = fs::read_dir(folder)
            .expect("the folder is there")
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).unwrap_or_default();
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("jsonl") => all.extend(text.lines().map(|line| {
                    serde_json::from_str::<Measure>(line).expect("a line that was kept")
                })),
                Some("log") => all.extend(facts::read(&text)),
                _ => {}
            }
        }
        Self(all)
    }

    /// The rows of a table, in the order they were kept.
    pub fn table<'a>(&'a self, race: &'a str, table: &'a str) -> impl Iterator<Item = &'a Measure> {
        self.0
            .iter()
            .filter(move |measure| measure.race == race && measure.table == table)
    }

    /// A figure without a column.
    pub fn get(&self, race: &str, table: &str, name: &str, unit: &str) -> Option<f64> {
        self.table(race, table)
            .find(|m| m.name == name && m.unit == unit && m.at.is_none())
            .map(|m| m.value)
    }

    /// A figure in a column.
    pub fn at(&self, race: &str, table: &str, name: &str, at: f64) -> Option<f64> {
        self.table(race, table)
            .find(|m| m.name == name && m.at == Some(at))
            .map(|m| m.value)
    }

    pub fn nanos(&self, race: &str, table: &str, name: &str) -> Option<f64> {
        self.get(race, table, name, "ns")
    }

    pub fn allocations(&self, race: &str, table: &str, name: &str) -> Option<f64> {
        self.table(race, table)
            .find(|m| m.name == name && m.unit == "ns")
            .and_then(|m| m.allocations)
            .map(|count| count as f64)
    }

    /// Instructions of an operation of a crate's own program.
    pub fn counted(&self, crate_name: &str, operation: &str) -> Option<f64> {
        self.get("instructions", crate_name, operation, "instructions")
    }
}
