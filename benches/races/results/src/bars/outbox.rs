//! Into the outbox within a transaction, and out of it in order.

use super::row::{Row, at_least, at_most};
use super::{OURS, peers, per, ratio};
use crate::measures::Measures;

pub fn enqueue(m: &Measures) -> Vec<Row> {
    let table = ("outbox", "enqueue");
    let enqueued = |name: &str, at: f64| m.at(table.0, table.1, name, at);
    // Time for one, beside that by hand.
    let cost = |name: &str, at: f64| ratio(enqueued("by hand: INSERT", at), enqueued(name, at));
    let hundred = ("outbox", "enqueue 100 at once");
    let many = |name| m.at(hundred.0, hundred.1, name, 1.0);
    let unnest = many("by hand: INSERT from UNNEST");
    vec![
        at_most(
            "outbox: enqueue beside the INSERT by hand, 1 client",
            1.1,
            "x time by hand",
        )
        .of(cost(OURS, 1.0))
        .beside(Some(1.0)),
        at_most(
            "outbox: enqueue beside the INSERT by hand, 32 clients",
            1.1,
            "x time by hand",
        )
        .of(cost(OURS, 32.0))
        .beside(Some(1.0))
        .peer(
            peers(m, table, "transactions/s", Some(32.0))
                .into_iter()
                .filter_map(|(name, _)| Some((name.clone(), cost(&name, 32.0)?)))
                .collect(),
        ),
        at_least("outbox: 100 events in one statement", 0.85, "x by hand")
            .of(ratio(many(OURS), unnest))
            .beside(Some(1.0))
            .peer(per(unnest, peers(m, hundred, "calls/s", Some(1.0)))),
        at_most(
            "outbox: notifications in the producer's transaction",
            0.0,
            "notifications",
        )
        .of(m.get("outbox", "relay", "notifications", "notifications")),
    ]
}

pub fn relay(m: &Measures) -> Vec<Row> {
    let drain = ("outbox", "drain");
    let drained = |name| m.get(drain.0, drain.1, name, "messages/s");
    let raw = drained("raw SELECT + DELETE, 1000");
    let others = peers(m, drain, "messages/s", None);
    let fastest = others.iter().map(|(_, rate)| *rate).reduce(f64::max);
    let relay = |name, unit| m.get("outbox", "relay", name, unit);
    let claim = |name, at| m.at("outbox", "drain by backlog", name, at);
    let largest = m
        .table("outbox", "drain by backlog")
        .filter_map(|row| row.at)
        .fold(0.0, f64::max);
    // How much longer for a message than with 10,000 waiting.
    let longer = |name| ratio(claim(name, 10_000.0), claim(name, largest));
    let latency = |name, what| m.get("outbox", name, what, "ms");
    vec![
        at_least(
            "relay, batch 1000, beside raw SELECT + DELETE",
            0.6,
            "x raw",
        )
        .of(ratio(drained("mainstay, batch 1000"), raw))
        .beside(Some(1.0))
        .peer(per(raw, others.clone())),
        at_least(
            "relay, batch 1000, beside the fastest peer",
            2.5,
            "x fastest peer",
        )
        .of(ratio(drained("mainstay, batch 1000"), fastest))
        .peer(per(fastest, others)),
        at_most("relay: statements", 0.01, "per message").of(relay("statements", "per message")),
        at_most("relay: log", 150.0, "bytes/message")
            .of(relay("log", "bytes/message"))
            .beside(relay("log, raw SELECT + DELETE", "bytes/message")),
        at_most(
            "relay: time for a message at the largest backlog (quick run 100,000, whole run 10 million)",
            1.5,
            "x at 10,000",
        )
        .of(longer(OURS))
        .beside(longer("raw SELECT + DELETE")),
        at_least("relay under a held snapshot", 0.85, "x undisturbed")
            .of(ratio(
                relay("under a held snapshot", "messages/s"),
                relay("undisturbed", "messages/s"),
            ))
            .beside(ratio(
                relay("raw SELECT + DELETE, under a held snapshot", "messages/s"),
                relay("raw SELECT + DELETE, undisturbed", "messages/s"),
            )),
        at_least("relay beside a stray writer", 0.85, "x undisturbed").of(ratio(
            relay("beside a stray writer", "messages/s"),
            relay("undisturbed", "messages/s"),
        )),
        at_most(
            "commit to publish at 1,000 a second, one process: p99",
            10.0,
            "ms",
        )
        .of(latency("latency, one process", "p99")),
        at_most(
            "commit to publish at 1,000 a second, two processes: p99",
            25.0,
            "ms",
        )
        .of(latency("latency, two processes", "p99")),
        at_most("idle wake", 1.5, "x by hand")
            .of(ratio(
                latency("idle wake", OURS),
                latency("idle wake", "by hand: LISTEN"),
            ))
            .beside(Some(1.0)),
    ]
}
