//! The judge: what the writers say committed, against what the broker says arrived.

use std::collections::{HashMap, HashSet};

use super::{broker::Arrival, writers::Committed};

/// What went on, in numbers.
#[derive(Debug)]
pub struct Verdict {
    pub committed: usize,
    pub dead: usize,
    pub repeated: usize,
}

/// O1 to O4 of an outbox: all of what committed is there or dead and nothing else is; the first deliveries of a key are in
/// the order of its commits.
pub fn judge(committed: &Committed, arrivals: &[Arrival], dead: &HashSet<String>) -> Verdict {
    let names: HashMap<&str, &str> = committed
        .iter()
        .map(|(id, name)| (id.as_str(), name.as_str()))
        .collect();
    assert_eq!(names.len(), committed.len(), "an id was given twice");
    let mut seen = HashSet::new();
    let mut last: HashMap<&str, u64> = HashMap::new();
    for (id, name) in arrivals {
        let known = names.get(id.as_str());
        assert_eq!(
            known,
            Some(&name.as_str()),
            "delivered, and never committed"
        );
        if !seen.insert(id.as_str()) {
            continue;
        }
        let (key, number) = name.split_once(' ').unwrap();
        let number: u64 = number.parse().unwrap();
        let before = last.insert(key, number).unwrap_or_default();
        assert!(before < number, "{name} was first delivered after {before}");
    }
    for (id, name) in committed {
        let delivered = seen.contains(id.as_str());
        assert!(
            delivered != dead.contains(id),
            "{name} was delivered: {delivered}, and is dead: {}",
            !delivered
        );
    }
    Verdict {
        committed: committed.len(),
        dead: dead.len(),
        repeated: arrivals.len() - seen.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(names: &[&str]) -> Vec<(String, String)> {
        names
            .iter()
            .map(|name| (format!("id of {name}"), (*name).to_owned()))
            .collect()
    }

    fn verdict(committed: &[&str], arrivals: &[&str], dead: &[&str]) -> Verdict {
        let dead = dead.iter().map(|name| format!("id of {name}")).collect();
        judge(&log(committed), &log(arrivals), &dead)
    }

    #[test]
    fn repeated_deliveries_are_counted_and_no_fault() {
        let verdict = verdict(&["a 1", "a 2", "b 1"], &["a 1", "b 1", "a 2", "a 1"], &[]);
        assert_eq!(verdict.repeated, 1);
    }

    #[test]
    fn each_broken_promise_is_found() {
        for (what, committed, arrivals, dead) in [
            ("lost", &["a 1", "a 2"][..], &["a 1"][..], &[][..]),
            ("from nowhere", &["a 1"], &["a 1", "a 2"], &[]),
            ("out of order", &["a 1", "a 2"], &["a 2", "a 1"], &[]),
            ("delivered and dead", &["a 1"], &["a 1"], &["a 1"]),
        ] {
            let judged = std::panic::catch_unwind(|| verdict(committed, arrivals, dead));
            assert!(judged.is_err(), "{what} was not found");
        }
    }
}
