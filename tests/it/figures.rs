//! What the README quotes is what was measured.

use std::fs;
use std::path::Path;

use serde_json::Value;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn results() -> Vec<Value> {
    serde_json::from_str(&read("benches/races/results.json")).unwrap()
}

/// Cells of the table's rows between the two marks.
fn quoted(readme: &str) -> Vec<Vec<String>> {
    let (_, table) = readme.split_once("<!-- figures: quoted -->").unwrap();
    let (table, _) = table.split_once("<!-- end -->").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

/// The number at the start, without its separators.
fn number(cell: &str) -> Option<f64> {
    let number = cell.trim_start_matches(['≤', '≥', ' ']).split(' ').next()?;
    number.replace(',', "").parse().ok()
}

/// What is wrong with a quoted row; nothing if it says what was measured.
fn wrong(row: &[String], results: &[Value]) -> Option<String> {
    let [name, measured, asked, verdict, by_hand, peer] = row else {
        return Some(format!("{row:?} has not six cells"));
    };
    let Some(result) = results.iter().find(|result| result["name"] == **name) else {
        return Some(format!("{name} was not measured"));
    };
    let figures = [
        (measured, "value"),
        (asked, "bar"),
        (by_hand, "lower_bound"),
        (peer, "best_peer_value"),
    ];
    for (cell, member) in figures {
        if number(cell) != result[member].as_f64() {
            return Some(format!("{name}: {cell}, and not {}", result[member]));
        }
    }
    let measured = !result["value"].is_null();
    let said = match result["verdict"].as_str() {
        Some("short") if !measured => "not measured",
        Some(verdict) => verdict,
        None => "no verdict",
    };
    (verdict != said).then(|| format!("{name} is said to be {verdict} and is {said}"))
}

#[test]
fn the_readme_quotes_what_was_measured() {
    let (rows, results) = (quoted(&read("README.md")), results());
    assert!(rows.len() >= 10, "{} rows", rows.len());
    let wrong: Vec<_> = rows.iter().filter_map(|row| wrong(row, &results)).collect();
    assert!(
        wrong.is_empty(),
        "benches/races/run writes both: {wrong:#?}"
    );
}

#[test]
fn another_figure_would_be_noticed() {
    let results = results();
    let mut row = quoted(&read("README.md")).remove(0);
    assert_eq!(wrong(&row, &results), None);
    row[2] = "≤ 12,345".to_owned();
    assert!(wrong(&row, &results).is_some());
}

#[test]
fn every_bar_has_a_figure_and_a_verdict_that_follows_from_it() {
    for result in results() {
        let name = &result["name"];
        let bar = result["bar"].as_f64().unwrap();
        let met = result["value"]
            .as_f64()
            .is_some_and(|value| match result["sense"].as_str() {
                Some("at most") => value <= bar,
                Some("at least") => value >= bar,
                _ => panic!("{name} has no sense"),
            });
        let verdict = if met { "met" } else { "short" };
        assert_eq!(result["verdict"], verdict, "{name}");
    }
}
