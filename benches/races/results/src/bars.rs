//! The bars: what was promised, and whether it is held.

use std::fmt::Write;

use serde::Serialize;

use crate::measures::Measures;

/// A promise with a number, and what was measured.
#[derive(Serialize)]
pub struct Row {
    pub name: &'static str,
    /// None when it was not measured in this run, which does not meet the bar.
    pub value: Option<f64>,
    pub unit: &'static str,
    pub bar: f64,
    pub sense: Sense,
    pub verdict: Verdict,
    /// The same of what is written by hand.
    pub lower_bound: Option<f64>,
    pub best_peer: Option<String>,
    pub best_peer_value: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Sense {
    #[serde(rename = "at most")]
    AtMost,
    #[serde(rename = "at least")]
    AtLeast,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Met,
    Short,
}

use Sense::{AtLeast, AtMost};

impl Row {
    fn new(
        name: &'static str,
        value: Option<f64>,
        unit: &'static str,
        sense: Sense,
        bar: f64,
    ) -> Self {
        let met = value.is_some_and(|value| match sense {
            AtMost => value <= bar,
            AtLeast => value >= bar,
        });
        Self {
            name,
            value: value.map(rounded),
            unit,
            bar,
            sense,
            verdict: if met { Verdict::Met } else { Verdict::Short },
            lower_bound: None,
            best_peer: None,
            best_peer_value: None,
        }
    }

    fn beside(mut self, lower_bound: Option<f64>) -> Self {
        self.lower_bound = lower_bound.map(rounded);
        self
    }

    fn peer(mut self, best: Option<(String, f64)>) -> Self {
        if let Some((name, value)) = best {
            self.best_peer = Some(name);
            self.best_peer_value = Some(rounded(value));
        }
        self
    }

    /// Who loses to a peer says so, even where the bar is met.
    pub fn loses(&self) -> bool {
        match (self.value, self.best_peer_value) {
            (Some(value), Some(peer)) => match self.sense {
                AtMost => value > peer,
                AtLeast => value < peer,
            },
            _ => false,
        }
    }
}

/// Three digits are what a measurement is good for.
fn rounded(value: f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let scale = 10_f64.powi(2 - value.abs().log10().floor() as i32);
    if value.abs() >= 1_000.0 {
        value.round()
    } else {
        (value * scale).round() / scale
    }
}

/// What stands in a table to be compared with, and is nobody's library.
const NOT_PEERS: [&str; 8] = [
    "mainstay",
    "hand-written",
    "by hand",
    "the service alone",
    "axum::Json",
    "reqwest-middleware",
    "raw",
    "bare",
];

/// The best of a table that is a peer's, in a column or without one.
fn best(
    m: &Measures,
    (race, table): (&str, &str),
    unit: &str,
    at: Option<f64>,
    sense: Sense,
) -> Option<(String, f64)> {
    m.table(race, table)
        .filter(|row| row.unit == unit && row.at == at)
        .filter(|row| !NOT_PEERS.iter().any(|start| row.name.starts_with(start)))
        .map(|row| (row.name.clone(), row.value))
        .min_by(|(_, a), (_, b)| match sense {
            AtMost => a.total_cmp(b),
            AtLeast => b.total_cmp(a),
        })
}

/// The same as a ratio to the first of its table.
fn best_ratio(
    m: &Measures,
    table: (&str, &str),
    unit: &str,
    at: Option<f64>,
    sense: Sense,
    first: Option<f64>,
) -> Option<(String, f64)> {
    let (name, value) = best(m, table, unit, at, sense)?;
    Some((name, value / first?))
}

fn ratio(over: Option<f64>, under: Option<f64>) -> Option<f64> {
    Some(over? / under?)
}

pub fn rows(m: &Measures) -> Vec<Row> {
    [
        retry(m),
        breaker(m),
        stack(m),
        pages(m),
        idempotency(m),
        outbox(m),
        errors(m),
    ]
    .concat_rows()
}

trait ConcatRows {
    fn concat_rows(self) -> Vec<Row>;
}

impl<const N: usize> ConcatRows for [Vec<Row>; N] {
    fn concat_rows(self) -> Vec<Row> {
        self.into_iter().flatten().collect()
    }
}

const OURS: &str = "mainstay";
const BUDGET: &str = "mainstay, token budget";
const BY_HAND: &str = "hand-written";
const UNNEST: &str = "by hand: INSERT from UNNEST";

fn retry(m: &Measures) -> Vec<Row> {
    let ops = |name| m.counted("mainstay-retry", name);
    let success = ("retry", "layer, ready at once");
    let failure = ("retry", "layer, one failure, no wait, success");
    let ns = |(race, table): (&str, &str), name: &str| m.nanos(race, table, name);
    let storm = |name| m.get("storm", "recovered at 850 calls a second", name, "s");
    vec![
        Row::new(
            "retry, success",
            ops("retry_success"),
            "instructions",
            AtMost,
            80.0,
        )
        .beside(ops("retry_hand_written"))
        .peer(best(m, success, "instructions", None, AtMost)),
        Row::new(
            "retry, success: time",
            ratio(ns(success, BUDGET), ns(success, BY_HAND)),
            "x by hand",
            AtMost,
            1.4,
        )
        .beside(Some(1.0))
        .peer(best_ratio(
            m,
            success,
            "ns",
            None,
            AtMost,
            ns(success, BY_HAND),
        )),
        Row::new(
            "retry, success: allocations",
            m.allocations(success.0, success.1, BUDGET),
            "allocations",
            AtMost,
            0.0,
        ),
        Row::new(
            "retry, one failure",
            ops("retry_one_failure"),
            "instructions",
            AtMost,
            150.0,
        )
        .beside(ops("retry_one_failure_hand_written"))
        .peer(best(m, failure, "instructions", None, AtMost)),
        Row::new(
            "retry, one failure: allocations",
            m.allocations(failure.0, failure.1, BUDGET),
            "allocations",
            AtMost,
            0.0,
        ),
        // A tick of tokio's timer is a million.
        Row::new(
            "retry, one failure: no tick of a timer",
            ns(failure, BUDGET),
            "ns",
            AtMost,
            1_000.0,
        )
        .beside(ns(failure, BY_HAND))
        .peer(best(m, failure, "ns", None, AtMost)),
        Row::new(
            "storm, with a budget",
            storm("a budget of successes"),
            "s",
            AtMost,
            15.0,
        )
        .beside(storm("no retries")),
        Row::new(
            "storm, with a breaker",
            storm("a budget and a breaker"),
            "s",
            AtMost,
            3.0,
        )
        .beside(storm("no retries")),
        Row::new(
            "storm, with deadlines",
            storm("a budget and deadlines"),
            "s",
            AtMost,
            1.0,
        )
        .beside(storm("no retries")),
    ]
}

fn breaker(m: &Measures) -> Vec<Row> {
    let ops = |name| m.counted("mainstay-retry", name);
    let counted = |table: &'static str| best(m, ("breaker", table), "instructions", None, AtMost);
    let by_hand = |table| m.get("breaker", table, BY_HAND, "instructions");
    let allocations = |table| m.allocations("breaker", table, OURS);
    let threads = |name| m.at("threads", "one breaker, half of 100", name, 2.0);
    let count = "layer, half of 100";
    let time = "layer, half within 10 s";
    let full = "layer, half within 1 h, full";
    let open = "layer, open";
    vec![
        Row::new(
            "breaker closed, count window",
            ops("breaker_count"),
            "instructions",
            AtMost,
            60.0,
        )
        .beside(by_hand(count))
        .peer(counted(count)),
        Row::new(
            "breaker closed, time window",
            ops("breaker_time"),
            "instructions",
            AtMost,
            100.0,
        )
        .beside(by_hand(time))
        .peer(counted(time)),
        Row::new(
            "breaker closed, time window with 10 million calls",
            ops("breaker_time_full"),
            "instructions",
            AtMost,
            100.0,
        )
        .beside(by_hand(full))
        .peer(counted(full)),
        Row::new(
            "breaker closed: allocations",
            allocations(count),
            "allocations",
            AtMost,
            0.0,
        ),
        Row::new(
            "breaker, two threads",
            ratio(threads(OURS), threads(BY_HAND)),
            "x by hand",
            AtMost,
            1.4,
        )
        .beside(Some(1.0))
        .peer(best_ratio(
            m,
            ("threads", "one breaker, half of 100"),
            "ns",
            Some(2.0),
            AtMost,
            threads(BY_HAND),
        )),
        Row::new(
            "breaker open",
            ops("breaker_reject_open"),
            "instructions",
            AtMost,
            70.0,
        )
        .beside(by_hand(open))
        .peer(counted(open)),
        Row::new(
            "breaker open: allocations",
            allocations(open),
            "allocations",
            AtMost,
            0.0,
        ),
    ]
}

fn stack(m: &Measures) -> Vec<Row> {
    let table = ("stack", "deadline, retry, breaker");
    vec![
        Row::new(
            "client stack, success",
            m.counted("mainstay-retry", "stack_generic_deadline"),
            "instructions",
            AtMost,
            300.0,
        )
        .beside(m.get(table.0, table.1, BY_HAND, "instructions"))
        .peer(best(m, table, "instructions", None, AtMost)),
        Row::new(
            "client stack, success: allocations",
            m.allocations(table.0, table.1, OURS),
            "allocations",
            AtMost,
            0.0,
        ),
    ]
}

fn pages(m: &Measures) -> Vec<Row> {
    const NAMES: [(&str, [&str; 3]); 3] = [
        (
            "Postgres",
            [
                "page at 50 %, Postgres",
                "page at 99.9 %, Postgres",
                "page beside its SQL by hand, Postgres",
            ],
        ),
        (
            "MariaDB",
            [
                "page at 50 %, MariaDB",
                "page at 99.9 %, MariaDB",
                "page beside its SQL by hand, MariaDB",
            ],
        ),
        (
            "SQLite",
            [
                "page at 50 %, SQLite",
                "page at 99.9 %, SQLite",
                "page beside its SQL by hand, SQLite",
            ],
        ),
    ];
    let mut rows = Vec::new();
    for (table, [half, end, by_hand]) in NAMES {
        let page = |name: &str, at: f64| m.at("pages", table, name, at);
        let first = page(OURS, 0.0);
        for (name, at) in [(half, 50.0), (end, 99.9)] {
            let peer = best(m, ("pages", table), "µs", Some(at), AtMost);
            let peer = peer.and_then(|(name, deep)| {
                let ratio = deep / page(&name, 0.0)?;
                Some((name, ratio))
            });
            rows.push(
                Row::new(name, ratio(page(OURS, at), first), "x page 1", AtMost, 1.1)
                    .beside(ratio(page("by hand", at), page("by hand", 0.0)))
                    .peer(peer),
            );
        }
        let at = Some(50.0);
        rows.push(
            Row::new(
                by_hand,
                ratio(page(OURS, 50.0), page("by hand", 50.0)),
                "x by hand",
                AtMost,
                1.02,
            )
            .beside(Some(1.0))
            .peer(best_ratio(
                m,
                ("pages", table),
                "µs",
                at,
                AtMost,
                page("by hand", 50.0),
            )),
        );
    }
    rows.push(Row::new(
        "page: tests that every order seeks",
        suite(m, "every order seeks"),
        "failed",
        AtMost,
        0.0,
    ));

    let ops = |name| m.counted("mainstay-pagination", name);
    let signed = ("cursors", "signed round trip");
    let ns = |name| m.nanos(signed.0, signed.1, name);
    rows.extend([
        Row::new(
            "cursor, unsigned",
            ops("unsigned"),
            "instructions",
            AtMost,
            900.0,
        )
        .beside(m.get("cursors", "unsigned round trip", BY_HAND, "instructions"))
        .peer(best(
            m,
            ("cursors", "unsigned round trip"),
            "instructions",
            None,
            AtMost,
        )),
        Row::new(
            "cursor, signed: time",
            ratio(ns(OURS), ns(BY_HAND)),
            "x by hand",
            AtMost,
            1.15,
        )
        .beside(Some(1.0))
        .peer(best_ratio(m, signed, "ns", None, AtMost, ns(BY_HAND))),
        Row::new(
            "cursor, signed: allocations",
            m.allocations(signed.0, signed.1, OURS),
            "allocations",
            AtMost,
            1.0,
        ),
        Row::new(
            "cursor of (timestamp, uuid), signed, with an expiry",
            m.get(
                "cursors",
                "length",
                "mainstay, signed, with an expiry",
                "characters",
            ),
            "characters",
            AtMost,
            75.0,
        )
        .peer(best(m, ("cursors", "length"), "characters", None, AtMost)),
    ]);
    rows
}

/// Failed tests of a suite; none where it ran nothing.
fn suite(m: &Measures, name: &str) -> Option<f64> {
    m.table("facts", "suite")
        .find(|suite| suite.name == name)
        .filter(|suite| suite.allocations.unwrap_or(0) > 0 || suite.value > 0.0)
        .map(|suite| suite.value)
}

fn fact(m: &Measures, name: &str) -> Option<f64> {
    m.table("facts", "facts")
        .filter(|fact| fact.name == name)
        .last()
        .map(|fact| fact.value)
}

fn idempotency(m: &Measures) -> Vec<Row> {
    let trips = |what| fact(m, &format!("round trips: {what}"));
    let more = |what| Some(trips(what)? - trips("bare transaction")?);
    let rate = |name| m.get("facts", "idempotency on Postgres", name, "requests/s");
    let races = ("idempotency", "first run");
    let first = |name| m.at(races.0, races.1, name, 8.0);
    let replay = ("idempotency", "replay");
    let replayed = |name| m.at(replay.0, replay.1, name, 1.0);
    let alone = m.at(races.0, races.1, "bare transaction", 1.0);
    vec![
        Row::new(
            "idempotency: first run over its bare transaction",
            more("first run"),
            "round trips",
            AtMost,
            2.0,
        ),
        Row::new(
            "idempotency: replay",
            trips("replay"),
            "round trips",
            AtMost,
            1.0,
        ),
        Row::new(
            "idempotency: log of a first run",
            fact(m, "WAL: first run"),
            "bytes",
            AtMost,
            900.0,
        )
        .beside(fact(m, "WAL: bare transaction")),
        Row::new(
            "idempotency: log of a replay",
            fact(m, "WAL: replay"),
            "bytes",
            AtMost,
            0.0,
        ),
        Row::new(
            "idempotency: first run beside its statements by hand",
            ratio(rate("Local"), rate("ByHand")),
            "x by hand",
            AtLeast,
            0.95,
        )
        .beside(Some(1.0)),
        Row::new(
            "idempotency: first run beside two commits, 8 clients",
            ratio(first(OURS), first("two commits")),
            "x two commits",
            AtLeast,
            1.0,
        )
        .beside(ratio(first("bare transaction"), first("two commits")))
        .peer(best_ratio(
            m,
            races,
            "requests/s",
            Some(8.0),
            AtLeast,
            first("two commits"),
        )),
        Row::new(
            "idempotency: replay beside a bare transaction, 1 client",
            ratio(replayed(OURS), alone),
            "x bare",
            AtLeast,
            1.9,
        )
        .beside(ratio(replayed("by hand: SELECT by primary key"), alone))
        .peer(best_ratio(
            m,
            replay,
            "requests/s",
            Some(1.0),
            AtLeast,
            alone,
        )),
        Row::new(
            "idempotency: request without a key",
            no_key(m),
            "instructions",
            AtMost,
            135.0,
        ),
        Row::new(
            "idempotency: inbox beside its INSERT by hand",
            ratio(rate("Inbox"), rate("InboxByHand")),
            "x by hand",
            AtLeast,
            0.95,
        )
        .beside(Some(1.0)),
        Row::new(
            "idempotency: takeover after SIGKILL, the longest of 30",
            fact(m, "takeover after SIGKILL, the longest of 30"),
            "ms",
            AtMost,
            100.0,
        ),
    ]
}

/// What the layer adds to a request that it has nothing to do with.
fn no_key(m: &Measures) -> Option<f64> {
    let ops = |name| m.counted("mainstay-idempotency", name);
    Some(ops("no key")? - ops("bare")?)
}

fn outbox(m: &Measures) -> Vec<Row> {
    let drain = ("outbox", "drain");
    let drained = |name| m.get(drain.0, drain.1, name, "messages/s");
    let raw = drained("raw SELECT + DELETE, 1000");
    let fastest = best(m, drain, "messages/s", None, AtLeast);
    let enqueue = ("outbox", "enqueue");
    let enqueued = |name: &str, at: f64| m.at(enqueue.0, enqueue.1, name, at);
    let by_hand = "by hand: INSERT";
    let cost = |name: &str, at: f64| {
        let bare = 1.0 / enqueued(name, at)?;
        Some(bare * enqueued(by_hand, at)?)
    };
    let many = |name| m.at("outbox", "enqueue 100 at once", name, 1.0);
    let relay = |name, unit| m.get("outbox", "relay", name, unit);
    let claim = |at| m.at("outbox", "drain by backlog", OURS, at);
    let largest = m
        .table("outbox", "drain by backlog")
        .filter_map(|row| row.at)
        .fold(0.0, f64::max);
    let latency = |name, what| m.get("outbox", name, what, "ms");
    vec![
        Row::new(
            "outbox: enqueue beside the INSERT by hand, 1 client",
            cost(OURS, 1.0),
            "x time by hand",
            AtMost,
            1.1,
        )
        .beside(Some(1.0)),
        Row::new(
            "outbox: enqueue beside the INSERT by hand, 32 clients",
            cost(OURS, 32.0),
            "x time by hand",
            AtMost,
            1.1,
        )
        .beside(Some(1.0))
        .peer(
            best(m, enqueue, "transactions/s", Some(32.0), AtLeast).and_then(|(name, _)| {
                let cost = cost(&name, 32.0)?;
                Some((name, cost))
            }),
        ),
        Row::new(
            "outbox: 100 events in one statement",
            ratio(many(OURS), many(UNNEST)),
            "x by hand",
            AtLeast,
            0.85,
        )
        .beside(Some(1.0))
        .peer(best_ratio(
            m,
            ("outbox", "enqueue 100 at once"),
            "calls/s",
            Some(1.0),
            AtLeast,
            many(UNNEST),
        )),
        Row::new(
            "outbox: notifications in the producer's transaction",
            relay("notifications", "notifications"),
            "notifications",
            AtMost,
            0.0,
        ),
        Row::new(
            "relay, batch 1000, beside raw SELECT + DELETE",
            ratio(drained("mainstay, batch 1000"), raw),
            "x raw",
            AtLeast,
            0.6,
        )
        .beside(Some(1.0))
        .peer(
            fastest
                .clone()
                .and_then(|(name, rate)| Some((name, rate / raw?))),
        ),
        Row::new(
            "relay, batch 1000, beside the fastest peer",
            ratio(
                drained("mainstay, batch 1000"),
                fastest.as_ref().map(|(_, rate)| *rate),
            ),
            "x fastest peer",
            AtLeast,
            2.5,
        )
        .peer(fastest.map(|(name, _)| (name, 1.0))),
        Row::new(
            "relay: statements",
            relay("statements", "per message"),
            "per message",
            AtMost,
            0.01,
        ),
        Row::new(
            "relay: log",
            relay("log", "bytes/message"),
            "bytes/message",
            AtMost,
            150.0,
        )
        .beside(relay("log, raw SELECT + DELETE", "bytes/message")),
        Row::new(
            "relay: time for a message at the largest backlog",
            ratio(claim(10_000.0), claim(largest)),
            "x at 10,000",
            AtMost,
            1.5,
        )
        .beside(ratio(
            m.at(
                "outbox",
                "drain by backlog",
                "raw SELECT + DELETE",
                10_000.0,
            ),
            m.at("outbox", "drain by backlog", "raw SELECT + DELETE", largest),
        )),
        Row::new(
            "relay under a held snapshot",
            ratio(
                relay("under a held snapshot", "messages/s"),
                relay("undisturbed", "messages/s"),
            ),
            "x undisturbed",
            AtLeast,
            0.85,
        )
        .beside(ratio(
            relay("raw SELECT + DELETE, under a held snapshot", "messages/s"),
            relay("raw SELECT + DELETE, undisturbed", "messages/s"),
        )),
        Row::new(
            "relay beside a stray writer",
            ratio(
                relay("beside a stray writer", "messages/s"),
                relay("undisturbed", "messages/s"),
            ),
            "x undisturbed",
            AtLeast,
            0.85,
        ),
        Row::new(
            "commit to publish at 1,000 a second, one process: p99",
            latency("latency, one process", "p99"),
            "ms",
            AtMost,
            10.0,
        ),
        Row::new(
            "commit to publish at 1,000 a second, two processes: p99",
            latency("latency, two processes", "p99"),
            "ms",
            AtMost,
            25.0,
        ),
        Row::new(
            "idle wake",
            ratio(
                latency("idle wake", OURS),
                latency("idle wake", "by hand: LISTEN"),
            ),
            "x by hand",
            AtMost,
            1.5,
        )
        .beside(Some(1.0)),
    ]
}

fn errors(m: &Measures) -> Vec<Row> {
    let encode = ("errors", "encode a document that is there");
    let first = m.nanos(encode.0, encode.1, "hand-written struct");
    let success = |name| m.allocations("errors", "a success under the layer", name);
    let layer = success("mainstay-errors, ProblemLayer")
        .zip(success("the service alone"))
        .map(|(layered, alone)| layered - alone);
    let faults: Option<f64> = ["lost", "double", "out of order", "unresolved"]
        .iter()
        .map(|what| fact(m, &format!("drill: {what}")))
        .sum();
    vec![
        Row::new(
            "error envelope: encode",
            ratio(m.nanos(encode.0, encode.1, "mainstay-errors"), first),
            "x by hand",
            AtMost,
            1.15,
        )
        .beside(Some(1.0))
        .peer(best_ratio(m, encode, "ns", None, AtMost, first)),
        Row::new(
            "error envelope: layer's success path",
            layer,
            "allocations",
            AtMost,
            0.0,
        ),
        Row::new(
            "faults: lost, double, out of order or unresolved in a drill",
            faults,
            "effects",
            AtMost,
            0.0,
        ),
    ]
}

/// The one table, for the terminal.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let header = [
        "bar",
        "measured",
        "asked",
        "verdict",
        "by hand",
        "best peer",
    ];
    let cells: Vec<[String; 6]> = rows.iter().map(Row::cells).collect();
    let mut widths = header.map(|cell| cell.chars().count());
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut line = |row: &[String; 6]| {
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = width - cell.chars().count();
            let (before, after) = if at == 0 || at == 5 {
                (0, gap)
            } else {
                (gap, 0)
            };
            let _ = write!(text, "{:before$}{cell}{:after$}  ", "", "");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    };
    line(&header.map(str::to_owned));
    cells.iter().for_each(&mut line);
    let met = rows
        .iter()
        .filter(|row| row.verdict == Verdict::Met)
        .count();
    let _ = writeln!(text, "\n{met} of {} bars met", rows.len());
    text
}

impl Row {
    pub fn cells(&self) -> [String; 6] {
        let sense = if self.sense == AtMost { "≤" } else { "≥" };
        let verdict = match (self.value, self.verdict) {
            (None, _) => "not measured",
            (_, Verdict::Met) => "met",
            (_, Verdict::Short) => "short",
        };
        let peer = self.best_peer.as_ref().zip(self.best_peer_value);
        let loses = if self.loses() { ", which is ahead" } else { "" };
        [
            self.name.to_owned(),
            self.value.map_or_else(
                || "–".into(),
                |value| format!("{} {}", number(value), self.unit),
            ),
            format!("{sense} {}", number(self.bar)),
            verdict.to_owned(),
            self.lower_bound.map_or_else(|| "–".into(), number),
            peer.map_or_else(
                || "–".into(),
                |(name, value)| format!("{} {name}{loses}", number(value)),
            ),
        ]
    }
}

/// With a separator for thousands, as in the tables.
pub fn number(value: f64) -> String {
    let text = if value.fract() == 0.0 || value.abs() >= 1_000.0 {
        format!("{value:.0}")
    } else {
        format!("{value}")
    };
    let (whole, rest) = text
        .split_once('.')
        .map_or((text.as_str(), String::new()), |(whole, rest)| {
            (whole, format!(".{rest}"))
        });
    let (sign, digits) = whole
        .strip_prefix('-')
        .map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}
