//! What a race measured, kept for the report as a line of JSON each, in the file that `RACES_RECORD` names.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

/// One figure of one contestant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// The race, such as `retry`; set by [`keep`].
    #[serde(default)]
    pub race: String,
    /// The table it stands in.
    pub table: String,
    /// The contestant. The first of a table is what the ratios are to.
    pub name: String,
    /// A median, unless the table says something else.
    pub value: f64,
    pub unit: String,
    /// The distance of the quartiles, as a share of the median.
    #[serde(default)]
    pub spread: Option<f64>,
    /// Allocations for one call.
    #[serde(default)]
    pub allocations: Option<u64>,
    /// Where a table has columns (threads, clients, depth) or a plot has points: which.
    #[serde(default)]
    pub at: Option<f64>,
}

impl Measure {
    pub fn new(table: &str, name: &str, value: f64, unit: &str) -> Self {
        Self {
            table: table.to_owned(),
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
            ..Self::default()
        }
    }

    pub fn at(mut self, at: f64) -> Self {
        self.at = Some(at);
        self
    }

    pub fn spread(mut self, spread: f64) -> Self {
        self.spread = Some(spread);
        self
    }

    pub fn allocations(mut self, count: u64) -> Self {
        self.allocations = Some(count);
        self
    }
}

static RACE: Mutex<String> = Mutex::new(String::new());

/// What is kept from now on is of this race.
pub fn begin(race: &str) {
    race.clone_into(&mut RACE.lock().unwrap());
}

/// Keeps the figure, if there is a file for it.
pub fn keep(mut measure: Measure) {
    let Some(path) = std::env::var_os("RACES_RECORD") else {
        return;
    };
    RACE.lock().unwrap().clone_into(&mut measure.race);
    let mut line = serde_json::to_string(&measure).unwrap();
    line.push('\n');
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap().write_all(line.as_bytes()).unwrap();
}
