//! Tables between their marks in a page; what stands outside them is people's.

use std::collections::BTreeMap;
use std::fmt::Write;

use results::Measure;

use crate::bars::{Row, number};
use crate::measures::Measures;

pub const NOISE: &str = "Noise";

const BEGIN: &str = "<!-- figures: ";
const END: &str = "<!-- end -->";

/// The page with every table made anew whose figures there are. One that was not measured stays as it is.
pub fn renewed(page: &str, measures: &Measures, bars: &[Row], machine: &str) -> String {
    let mut new = String::with_capacity(page.len());
    let mut rest = page;
    while let Some(begin) = rest.find(BEGIN) {
        let body = begin
            + rest[begin..]
                .find('\n')
                .expect("a mark has a line of its own")
            + 1;
        let name = rest[begin + BEGIN.len()..body]
            .trim_end()
            .trim_end_matches("-->")
            .trim();
        let end = body
            + rest[body..]
                .find(END)
                .unwrap_or_else(|| panic!("{name} has no end"));
        let figures = match name {
            "machine" => Some(machine.to_owned()),
            "bars" => Some(bar_table(bars.iter())),
            "quoted" => {
                Some(bar_table(QUOTED.iter().filter_map(|name| {
                    bars.iter().find(|bar| bar.name == *name)
                })))
            }
            _ => {
                let (race, title) = name.split_once(" / ").expect("race / table");
                table(measures, race, title)
            }
        };
        new.push_str(&rest[..body]);
        new.push_str(figures.as_deref().unwrap_or(&rest[body..end]));
        rest = &rest[end..];
    }
    new + rest
}

/// What the README quotes: a bar or two of each crate, those that are short not spared.
const QUOTED: [&str; 12] = [
    "retry, success",
    "breaker closed, time window with 10 million calls",
    "breaker, two threads",
    "client stack, success",
    "storm, with a breaker",
    "page at 99.9 %, Postgres",
    "cursor, signed: time",
    "idempotency: first run beside two commits, 8 clients",
    "idempotency: takeover after SIGKILL, the longest of 30",
    "outbox: enqueue beside the INSERT by hand, 32 clients",
    "relay, batch 1000, beside the fastest peer",
    "commit to publish at 1,000 a second, one process: p99",
];

fn bar_table<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let mut text =
        "| bar | measured | asked | verdict | by hand | best peer |\n|---|--:|--:|---|--:|---|\n"
            .to_owned();
    for row in rows {
        let _ = writeln!(text, "| {} |", row.cells().join(" | "));
    }
    text
}

fn table(measures: &Measures, race: &str, title: &str) -> Option<String> {
    let rows: Vec<&Measure> = measures.table(race, title).collect();
    let (counts, timed): (Vec<&Measure>, Vec<&Measure>) =
        rows.into_iter().partition(|row| row.unit == "instructions");
    let first = *timed.first()?;
    if first.at.is_some() {
        Some(columns(race, title, &timed))
    } else {
        Some(medians(title, &timed, &counts))
    }
}

/// One figure a contestant: its median, the ratio to the first, what it was disturbed, allocations, instructions.
fn medians(title: &str, rows: &[&Measure], counts: &[&Measure]) -> String {
    let instructions = |name: &str| counts.iter().find(|count| count.name == name);
    let allocations = rows.iter().any(|row| row.allocations.is_some());
    let first = rows.first().map_or(1.0, |row| row.value);
    let unit = rows.first().map_or("", |row| &row.unit);
    let mut header = format!("| {} | {unit} | ratio | quartiles |", sentence(title));
    let mut line = "|---|--:|--:|--:|".to_owned();
    for (name, there) in [
        ("allocations", allocations),
        ("instructions", !counts.is_empty()),
    ] {
        if there {
            let _ = write!(header, " {name} |");
            line.push_str("--:|");
        }
    }
    let mut text = format!("{header}\n{line}\n");
    for row in rows {
        let spread = row
            .spread
            .map_or_else(|| "–".into(), |spread| format!("{:.0} %", spread * 100.0));
        let _ = write!(
            text,
            "| {} | {} | {} | {spread} |",
            contestant(&row.name),
            figure(row.value),
            ratio(row.value / first)
        );
        if allocations {
            let _ = write!(
                text,
                " {} |",
                row.allocations
                    .map_or_else(|| "–".into(), |count| count.to_string())
            );
        }
        if !counts.is_empty() {
            let count = instructions(&row.name)
                .map_or_else(|| "–".into(), |count| number(count.value.round()));
            let _ = write!(text, " {count} |");
        }
        text.push('\n');
    }
    text
}

/// A figure a contestant and column, and its ratio to the first contestant's.
fn columns(race: &str, title: &str, rows: &[&Measure]) -> String {
    let mut columns: Vec<f64> = rows.iter().filter_map(|row| row.at).collect();
    columns.sort_by(f64::total_cmp);
    columns.dedup();
    let mut names: Vec<&str> = Vec::new();
    let mut cells: BTreeMap<(&str, usize), f64> = BTreeMap::new();
    for row in rows {
        if !names.contains(&row.name.as_str()) {
            names.push(&row.name);
        }
        if let Some(at) = columns.iter().position(|at| Some(*at) == row.at) {
            cells.insert((&row.name, at), row.value);
        }
    }
    let unit = rows.first().map_or("", |row| &row.unit);
    let mut text = format!("| {} |", sentence(title));
    for at in &columns {
        let _ = write!(text, " {}, {unit} | ratio |", column(race, title, *at));
    }
    text.push_str("\n|---|");
    text.push_str(&"--:|--:|".repeat(columns.len()));
    text.push('\n');
    for name in &names {
        let _ = write!(text, "| {} |", contestant(name));
        for at in 0..columns.len() {
            let value = cells.get(&(*name, at));
            let first = names.first().and_then(|first| cells.get(&(*first, at)));
            let _ = write!(
                text,
                " {} | {} |",
                value.map_or_else(|| "–".into(), |value| figure(*value)),
                value
                    .zip(first)
                    .map_or_else(|| "–".into(), |(value, first)| ratio(value / first)),
            );
        }
        text.push('\n');
    }
    text
}

fn column(race: &str, title: &str, at: f64) -> String {
    let many = if at == 1.0 { "" } else { "s" };
    match (race, title) {
        ("threads", _) => format!("{at} thread{many}"),
        ("pages", _) if at == 0.0 => "page 1".to_owned(),
        ("pages", _) => format!("at {at} %"),
        (_, "drain by backlog") => format!("{} rows", number(at)),
        _ => format!("{at} client{many}"),
    }
}

fn contestant(name: &str) -> String {
    match name.strip_prefix("mainstay") {
        Some(rest) => match rest.split_once([',', '\'']) {
            Some((crate_name, _)) => {
                let at = "mainstay".len() + crate_name.len();
                format!("**{}**{}", &name[..at], &name[at..])
            }
            None => format!("**{name}**"),
        },
        None => name.to_owned(),
    }
}

fn sentence(title: &str) -> String {
    let mut letters = title.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

fn figure(value: f64) -> String {
    if value == 0.0 || value >= 100.0 {
        number(value.round())
    } else {
        format!("{value:.1}")
    }
}

fn ratio(ratio: f64) -> String {
    if ratio < 100.0 {
        format!("{ratio:.2}")
    } else {
        number(ratio.round())
    }
}
