//! A page at any depth, and the cursor it is asked for with.

use super::row::{Row, at_most};
use super::{BY_HAND, OURS, peers, per, ratio};
use crate::measures::Measures;

pub fn pages(m: &Measures) -> Vec<Row> {
    let mut rows = Vec::new();
    for database in ["Postgres", "MariaDB", "SQLite"] {
        let page = |name: &str, at: f64| m.at("pages", database, name, at);
        // How much dearer than its own first page.
        let deeper = |name: &str, at: f64| ratio(page(name, at), page(name, 0.0));
        for at in [50.0, 99.9] {
            let peers = peers(m, ("pages", database), "µs", Some(at))
                .into_iter()
                .filter_map(|(name, _)| Some((name.clone(), deeper(&name, at)?)))
                .collect();
            rows.push(
                at_most(format!("page at {at} %, {database}"), 1.1, "x page 1")
                    .of(deeper(OURS, at))
                    .beside(deeper("by hand", at))
                    .peer(peers),
            );
        }
        let by_hand = page("by hand", 50.0);
        rows.push(
            at_most(
                format!("page beside its SQL by hand, {database}"),
                1.02,
                "x by hand",
            )
            .of(ratio(page(OURS, 50.0), by_hand))
            .beside(Some(1.0))
            .peer(per(
                by_hand,
                peers(m, ("pages", database), "µs", Some(50.0)),
            )),
        );
    }
    rows.push(
        at_most("page: tests that every order seeks", 0.0, "failed")
            .of(suite(m, "every order seeks")),
    );
    rows
}

/// Failed tests of a suite; none where it ran nothing.
fn suite(m: &Measures, name: &str) -> Option<f64> {
    m.table("facts", "suite")
        .find(|suite| suite.name == name)
        .filter(|suite| suite.allocations.unwrap_or(0) > 0 || suite.value > 0.0)
        .map(|suite| suite.value)
}

pub fn cursors(m: &Measures) -> Vec<Row> {
    let ops = |name| m.counted("mainstay-pagination", name);
    let signed = ("cursors", "signed round trip");
    let ns = |name| m.nanos(signed.0, signed.1, name);
    vec![
        at_most("cursor, unsigned", 900.0, "instructions")
            .of(ops("unsigned"))
            .beside(m.get("cursors", "unsigned round trip", BY_HAND, "instructions"))
            .peer(peers(
                m,
                ("cursors", "unsigned round trip"),
                "instructions",
                None,
            )),
        at_most("cursor, signed: time", 1.15, "x by hand")
            .of(ratio(ns(OURS), ns(BY_HAND)))
            .beside(Some(1.0))
            .peer(per(ns(BY_HAND), peers(m, signed, "ns", None))),
        at_most("cursor, signed: allocations", 1.0, "allocations")
            .of(m.allocations(signed.0, signed.1, OURS)),
        at_most(
            "cursor of (timestamp, uuid), signed, with an expiry",
            75.0,
            "characters",
        )
        .of(m.get(
            "cursors",
            "length",
            "mainstay, signed, with an expiry",
            "characters",
        ))
        .peer(peers(m, ("cursors", "length"), "characters", None)),
    ]
}
