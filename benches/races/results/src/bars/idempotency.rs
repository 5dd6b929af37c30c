//! An effect once per key, on Postgres.

use super::row::{Row, at_least, at_most};
use super::{OURS, fact, peers, per, ratio};
use crate::measures::Measures;

pub fn idempotency(m: &Measures) -> Vec<Row> {
    let trips = |what| fact(m, &format!("round trips: {what}"));
    // The pool's ping of what it takes back is counted with each.
    let over = |what, base| Some(trips(what)? - trips(base)?);
    let more = |what| over(what, "bare transaction");
    let rate = |name| m.get("facts", "idempotency on Postgres", name, "requests/s");
    let races = ("idempotency", "first run");
    let first = |name| m.at(races.0, races.1, name, 8.0);
    let replay = ("idempotency", "replay");
    let replayed = |name| m.at(replay.0, replay.1, name, 1.0);
    let alone = m.at(races.0, races.1, "bare transaction", 1.0);
    vec![
        at_most(
            "idempotency: first run over its bare transaction",
            2.0,
            "round trips",
        )
        .of(more("first run")),
        at_most(
            "idempotency: first run that claims last over its bare transaction",
            1.0,
            "round trips",
        )
        .of(more("first run, claimed last")),
        at_most("idempotency: replay", 1.0, "round trips")
            .of(over("replay", "SELECT").map(|more| 1.0 + more)),
        at_most("idempotency: log of a first run", 900.0, "bytes")
            .of(fact(m, "WAL: first run"))
            .beside(fact(m, "WAL: bare transaction")),
        at_most("idempotency: log of a replay", 0.0, "bytes").of(fact(m, "WAL: replay")),
        at_least(
            "idempotency: first run beside its statements by hand",
            0.95,
            "x by hand",
        )
        .of(ratio(rate("Local"), rate("ByHand")))
        .beside(Some(1.0)),
        at_least(
            "idempotency: first run beside two commits, 8 clients",
            1.0,
            "x two commits",
        )
        .of(ratio(first(OURS), first("two commits")))
        .beside(ratio(first("bare transaction"), first("two commits")))
        .peer(per(
            first("two commits"),
            peers(m, races, "requests/s", Some(8.0)),
        )),
        at_least(
            "idempotency: replay beside a bare transaction, 1 client",
            1.9,
            "x bare",
        )
        .of(ratio(replayed(OURS), alone))
        .beside(ratio(replayed("by hand: SELECT by primary key"), alone))
        .peer(per(alone, peers(m, replay, "requests/s", Some(1.0)))),
        at_most("idempotency: request without a key", 135.0, "instructions").of(no_key(m)),
        at_least(
            "idempotency: inbox beside its INSERT by hand",
            0.95,
            "x by hand",
        )
        .of(ratio(rate("Inbox"), rate("InboxByHand")))
        .beside(Some(1.0)),
        at_most(
            "idempotency: takeover after SIGKILL, the longest of 30",
            100.0,
            "ms",
        )
        .of(fact(m, "takeover after SIGKILL, the longest of 30")),
    ]
}

/// What the layer adds to a request that it has nothing to do with.
fn no_key(m: &Measures) -> Option<f64> {
    let ops = |name| m.counted("mainstay-idempotency", name);
    Some(ops("no key")? - ops("bare")?)
}
