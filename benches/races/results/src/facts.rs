//! What the crates' own tests and the drill print, where a bar is held by one of them.

use results::Measure;

/// A line that contains the first part, and the name, unit and number of what follows a word in it.
///
/// The tests assert these figures; here they are only read.
const LINES: [(&str, &str, &str, &str); 14] = [
    ("log bytes: bare", "bare", "WAL: bare transaction", "bytes"),
    ("log bytes: bare", "first run", "WAL: first run", "bytes"),
    ("log bytes: bare", "replay", "WAL: replay", "bytes"),
    (
        "k: nothing",
        "bare",
        "round trips: bare transaction",
        "round trips",
    ),
    (
        "k: nothing",
        "first run",
        "round trips: first run",
        "round trips",
    ),
    ("k: nothing", "select", "round trips: SELECT", "round trips"),
    ("k: nothing", "replay", "round trips: replay", "round trips"),
    (
        "claimed last: nothing",
        "first run",
        "round trips: first run, claimed last",
        "round trips",
    ),
    (
        "idle in its transaction",
        "most",
        "takeover after SIGKILL, the longest of 30",
        "ms",
    ),
    ("  payments stored", "stored", "drill: payments", "payments"),
    ("  lost", "lost", "drill: lost", "effects"),
    ("  double", "double", "drill: double", "effects"),
    (
        "  out of order",
        "out of order",
        "drill: out of order",
        "effects",
    ),
    ("  unresolved", "unresolved", "drill: unresolved", "effects"),
];

/// The figures in what a test run wrote.
pub fn read(text: &str) -> Vec<Measure> {
    let mut found = Vec::new();
    for line in text.lines() {
        for (start, word, name, unit) in LINES {
            if let Some(value) = value(line, start, word) {
                found.push(fact("facts", name, value, unit));
            }
        }
        // As the idempotency crate's own bench on Postgres ends.
        if let Some((name, rest)) = line.split_once(": best ")
            && let Some((_, median)) = rest.split_once("median ")
            && let Ok(median) = median.trim().parse()
        {
            found.push(fact("idempotency on Postgres", name, median, "requests/s"));
        }
        // As `cargo test` ends: how many tests hold what is said of them.
        if let Some(name) = line.strip_prefix("== ") {
            found.push(fact("suite", name, 0.0, "failed"));
        }
        if let Some(rest) = line.strip_prefix("test result: ")
            && let Some(suite) = found.iter_mut().rev().find(|fact| fact.table == "suite")
        {
            // A suite that ran nothing holds nothing.
            let count = |what| number_before(rest, what).unwrap_or(0.0);
            suite.allocations = Some(suite.allocations.unwrap_or(0) + count(" passed") as u64);
            suite.value += count(" failed");
        }
    }
    found
}

fn fact(table: &str, name: &str, value: f64, unit: &str) -> Measure {
    Measure {
        race: "facts".to_owned(),
        ..Measure::new(table, name, value, unit)
    }
}

/// The first number after `word`, in a line with `start`.
fn value(line: &str, start: &str, word: &str) -> Option<f64> {
    let from = line.find(start)?;
    let after = &line[from..];
    let after = &after[after.find(word)? + word.len()..];
    let digits = after.find(|c: char| c.is_ascii_digit())?;
    let number: String = after[digits..]
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let value = number.trim_end_matches('.').parse::<f64>().ok()?;
    // Durations as `Debug` writes them.
    let unit = &after[digits + number.len()..];
    let scale = match () {
        () if unit.starts_with("µs") => 0.001,
        () if unit.starts_with("s,") || unit.starts_with("s ") => 1_000.0,
        () => 1.0,
    };
    Some(value * scale)
}

fn number_before(text: &str, what: &str) -> Option<f64> {
    let before = &text[..text.find(what)?];
    before
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}
