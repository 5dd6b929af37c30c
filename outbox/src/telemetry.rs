//! Metrics, through the `metrics` facade when that feature is on and nowhere otherwise. No topics of messages, no keys: the
//! values of labels are those of a short list, or the topic patterns that the program gave its sinks.
#![cfg_attr(
    not(feature = "metrics"),
    expect(unused_variables, reason = "nobody listens")
)]

#[cfg(feature = "sqlx")]
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

#[cfg(feature = "sqlx")]
use crate::{admin::DeadCause, sink::Outcome, store::Settlement};

macro_rules! count {
    ($name:literal, $n:expr $(, $label:literal => $value:expr)*) => {
        #[cfg(feature = "metrics")]
        metrics::counter!($name $(, $label => $value)*).increment($n)
    };
}

/// A metric: its name, what is measured in which unit, what it means.
#[cfg(feature = "metrics")]
type Metric = (&'static str, Kind, &'static str);

#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Seconds,
    Histogram,
}

/// Every metric of this crate, as the crate's documentation lists them.
#[cfg(feature = "metrics")]
const METRICS: [Metric; 23] = [
    (
        "messaging.client.sent.messages",
        Kind::Counter,
        "Messages that sinks were given, by topics and error.type",
    ),
    (
        "messaging.client.operation.duration",
        Kind::Histogram,
        "How long a sink took for a batch, by topics",
    ),
    (
        "mainstay.outbox.delivery.duration",
        Kind::Histogram,
        "From the statement that wrote an event, or its due time, to the sink's ack, by topics",
    ),
    (
        "mainstay.outbox.enqueued",
        Kind::Counter,
        "Events written in transactions, rolled back ones included",
    ),
    (
        "mainstay.outbox.published",
        Kind::Counter,
        "Messages acked and settled",
    ),
    (
        "mainstay.outbox.attempts",
        Kind::Counter,
        "Attempts that were settled, by outcome",
    ),
    (
        "mainstay.outbox.dead",
        Kind::Counter,
        "Messages given up, by cause",
    ),
    (
        "mainstay.outbox.parked",
        Kind::Counter,
        "Messages set aside because their key is parked",
    ),
    (
        "mainstay.outbox.fenced",
        Kind::Counter,
        "Batches whose settlement came after their lane had changed hands",
    ),
    (
        "mainstay.outbox.duplicates_possible",
        Kind::Counter,
        "Messages that may have been delivered twice",
    ),
    (
        "mainstay.outbox.lanes.acquired",
        Kind::Counter,
        "Lanes leased",
    ),
    (
        "mainstay.outbox.sink_down",
        Kind::Counter,
        "Times a sink was found down, by topics",
    ),
    (
        "mainstay.outbox.wake_coalesced",
        Kind::Counter,
        "Commits that were announced to other processes together with another one",
    ),
    (
        "mainstay.outbox.pending",
        Kind::Gauge,
        "Messages not delivered yet, guessed when many",
    ),
    (
        "mainstay.outbox.oldest_age",
        Kind::Seconds,
        "Age of the oldest pending message",
    ),
    (
        "mainstay.outbox.later",
        Kind::Gauge,
        "Events whose time has not come",
    ),
    ("mainstay.outbox.dead_letters", Kind::Gauge, "Dead letters"),
    (
        "mainstay.outbox.parked_keys",
        Kind::Gauge,
        "Keys that are parked",
    ),
    (
        "mainstay.outbox.paused",
        Kind::Gauge,
        "Patterns of topics that are paused",
    ),
    ("mainstay.outbox.lanes", Kind::Gauge, "Lanes by verdict"),
    (
        "mainstay.outbox.lanes.held",
        Kind::Gauge,
        "Lanes that relays of this process hold",
    ),
    (
        "mainstay.outbox.health",
        Kind::Gauge,
        "0 ok, 1 degraded, 2 failing",
    ),
    (
        "mainstay.outbox.monitor.failures",
        Kind::Counter,
        "Times the gauges could not be refreshed",
    ),
];

/// Tells the recorder what the metrics of this crate mean. Relays and [`LagMonitor`](crate::LagMonitor) do so as they start;
/// call it if your recorder is installed later.
#[cfg(feature = "metrics")]
pub fn describe_metrics() {
    use metrics::Unit;
    for (name, kind, meaning) in METRICS {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, Unit::Count, meaning),
            Kind::Gauge => metrics::describe_gauge!(name, Unit::Count, meaning),
            Kind::Seconds => metrics::describe_gauge!(name, Unit::Seconds, meaning),
            Kind::Histogram => metrics::describe_histogram!(name, Unit::Seconds, meaning),
        }
    }
}

#[cfg(not(feature = "metrics"))]
pub(crate) const fn describe_metrics() {}

/// Events written in transactions; those that roll back are counted as well.
pub(crate) fn enqueued(n: u64) {
    count!("mainstay.outbox.enqueued", n);
}

/// Lanes leased: at the start, after another relay gave them back, or after its lease ran out.
pub(crate) fn acquired(n: u64) {
    count!("mainstay.outbox.lanes.acquired", n);
}

/// Messages of which nobody knows whether they were delivered: they are delivered again.
pub(crate) fn duplicates_possible(n: u64) {
    count!("mainstay.outbox.duplicates_possible", n);
}

/// Commits that were announced to other processes together with another one.
#[cfg(feature = "sqlx")]
pub(crate) fn wake_coalesced(n: u64) {
    count!("mainstay.outbox.wake_coalesced", n);
}

/// What a sink made of a batch, and how long it took. `down` when it said that it is.
#[cfg(feature = "sqlx")]
pub(crate) fn sent<'a>(
    topics: &str,
    outcomes: impl Iterator<Item = &'a Outcome>,
    down: bool,
    took: Duration,
) {
    #[cfg(feature = "metrics")]
    {
        let [mut acked, mut retry, mut rejected] = [0; 3];
        for outcome in outcomes {
            match outcome {
                Outcome::Acked => acked += 1,
                Outcome::Retry { .. } => retry += 1,
                Outcome::Reject { .. } => rejected += 1,
                Outcome::NotTried => {}
            }
        }
        let topics = topics.to_owned();
        for (n, error) in [(acked, ""), (retry, "retry"), (rejected, "rejected")] {
            if n > 0 {
                count!(
                    "messaging.client.sent.messages", n,
                    "messaging.operation.name" => "publish",
                    "messaging.destination.template" => topics.clone(),
                    "error.type" => error
                );
            }
        }
        let error = if down { "sink_down" } else { "" };
        metrics::histogram!(
            "messaging.client.operation.duration",
            "messaging.operation.name" => "publish",
            "messaging.destination.template" => topics,
            "error.type" => error
        )
        .record(took.as_secs_f64());
    }
}

/// A message was acked, so long after it was enqueued.
#[cfg(feature = "sqlx")]
pub(crate) fn delivered(topics: &str, age: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!(
        "mainstay.outbox.delivery.duration",
        "messaging.destination.template" => topics.to_owned()
    )
    .record(age.as_secs_f64());
}

/// What one relay has done, for its handle.
#[cfg(feature = "sqlx")]
#[derive(Debug, Default)]
pub(crate) struct Tally {
    delivered: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
    fenced: AtomicU64,
    lanes: AtomicU64,
    in_flight: AtomicU64,
    /// The topics of sinks that are down.
    down: Mutex<BTreeSet<String>>,
    /// Topics that were met and that no sink takes.
    unrouted: Mutex<BTreeSet<String>>,
}

/// What a relay has done since it was spawned.
#[cfg(feature = "sqlx")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStats {
    /// Messages acked and settled.
    pub delivered: u64,
    /// Attempts that failed and will be repeated.
    pub retried: u64,
    /// Messages moved to the dead letters.
    pub dead: u64,
    /// Batches settled too late: their lane had changed hands, so their messages may have been delivered twice.
    pub fenced: u64,
    /// Lanes held now.
    pub lanes: u64,
    /// Messages that sinks have now, or whose outcome is not written down yet.
    pub in_flight: u64,
}

#[cfg(feature = "sqlx")]
impl Tally {
    /// A settlement that was written down.
    pub(crate) fn settled(&self, settlement: &Settlement) {
        let died_of = |cause: DeadCause| {
            let buried = settlement.dead.iter();
            buried.filter(|one| one.cause == cause).count() as u64
        };
        for cause in [DeadCause::Rejected, DeadCause::Exhausted, DeadCause::NoSink] {
            count!("mainstay.outbox.dead", died_of(cause), "cause" => cause.as_str());
        }
        let (acked, failed) = (
            settlement.acked.len() as u64,
            settlement.failed.len() as u64,
        );
        let dead = settlement.dead.len() as u64;
        for (slot, n) in [
            (&self.delivered, acked),
            (&self.retried, failed),
            (&self.dead, dead),
        ] {
            slot.fetch_add(n, Ordering::Relaxed);
        }
        count!("mainstay.outbox.published", acked);
        count!("mainstay.outbox.parked", died_of(DeadCause::Parked));
        count!("mainstay.outbox.attempts", acked, "outcome" => "acked");
        count!("mainstay.outbox.attempts", failed, "outcome" => "retried");
        count!("mainstay.outbox.attempts", died_of(DeadCause::Rejected), "outcome" => "rejected");
        // Of those whose attempts were used up before, the last one ended with its relay: it was charged by who took over.
        let last = settlement.dead.iter().filter(|one| one.note.is_some());
        let last = last.filter(|one| one.cause == DeadCause::Exhausted);
        count!("mainstay.outbox.attempts", last.count() as u64, "outcome" => "exhausted");
    }

    /// A settlement that came too late.
    pub(crate) fn fenced(&self) {
        self.fenced.fetch_add(1, Ordering::Relaxed);
        // Its messages are among those that who took the lane has counted as possible duplicates.
        count!("mainstay.outbox.fenced", 1);
    }

    pub(crate) fn in_flight(&self, messages: usize) {
        self.in_flight.store(messages as u64, Ordering::Relaxed);
    }

    /// A topic was met that no sink takes.
    pub(crate) fn unrouted(&self, topic: &str) {
        let mut unrouted = self.unrouted.lock().unwrap_or_else(PoisonError::into_inner);
        unrouted.insert(topic.to_owned());
    }

    /// Those topics, in order.
    pub(crate) fn topics_without_sink(&self) -> Vec<String> {
        let unrouted = self.unrouted.lock().unwrap_or_else(PoisonError::into_inner);
        unrouted.iter().cloned().collect()
    }

    pub(crate) fn holds(&self, lanes: usize) {
        let before = self.lanes.swap(lanes as u64, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        #[expect(clippy::cast_precision_loss, reason = "there are 1024 lanes at most")]
        metrics::gauge!("mainstay.outbox.lanes.held").increment(lanes as f64 - before as f64);
    }

    /// A sink was found down.
    pub(crate) fn sink_down(&self, topics: &str) {
        count!("mainstay.outbox.sink_down", 1, "topics" => topics.to_owned());
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.insert(topics.to_owned());
    }

    /// A sink is up again, or nothing waits for it that would tell.
    pub(crate) fn sink_up(&self, topics: &str) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.remove(topics);
    }

    /// The topics of the sinks that are down, in order.
    pub(crate) fn sinks_down(&self) -> Vec<String> {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.iter().cloned().collect()
    }

    pub(crate) fn read(&self) -> RelayStats {
        RelayStats {
            delivered: self.delivered.load(Ordering::Relaxed),
            retried: self.retried.load(Ordering::Relaxed),
            dead: self.dead.load(Ordering::Relaxed),
            fenced: self.fenced.load(Ordering::Relaxed),
            lanes: self.lanes.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::store::{Buried, Held};

    #[test]
    fn the_documentation_lists_every_metric() {
        let lib = include_str!("lib.rs");
        for (name, ..) in METRICS {
            assert!(lib.contains(&format!("| `{name}` |")), "{name}");
        }
        let listed = lib.lines().filter(|line| {
            line.starts_with("//! | `mainstay.") || line.starts_with("//! | `messaging.")
        });
        assert_eq!(listed.count(), METRICS.len());
    }

    #[test]
    fn what_a_relay_does_is_counted() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let rendered = metrics::with_local_recorder(&recorder, || {
            describe_metrics();
            let outcomes = [
                Outcome::Acked,
                Outcome::Acked,
                Outcome::retry("no"),
                Outcome::NotTried,
            ];
            sent("hooks.*", outcomes.iter(), true, Duration::from_millis(250));
            for millis in [250, 1_500] {
                delivered("hooks.*", Duration::from_millis(millis));
            }
            let tally = Tally::default();
            let buried = |cause| Buried {
                id: 1,
                attempts: 1,
                cause,
                park: false,
                reason: String::new(),
                note: None,
            };
            let settlement = Settlement {
                held: Held { lane: 0, epoch: 1 },
                batch: 1,
                acked: vec![1, 2],
                failed: Vec::new(),
                dead: vec![buried(DeadCause::Rejected), buried(DeadCause::Parked)],
            };
            tally.settled(&settlement);
            tally.fenced();
            tally.holds(3);
            tally.holds(2);
            tally.sink_down("hooks.*");
            assert_eq!(tally.sinks_down(), ["hooks.*"]);
            tally.sink_up("hooks.*");
            assert!(tally.sinks_down().is_empty());
            assert_eq!((tally.read().delivered, tally.read().dead), (2, 2));
            recorder.handle().render()
        });
        for line in [
            r#"mainstay_outbox_published 2"#,
            r#"mainstay_outbox_delivery_duration_sum{messaging_destination_template="hooks.*"} 1.75"#,
            r#"mainstay_outbox_delivery_duration_count{messaging_destination_template="hooks.*"} 2"#,
            r#"mainstay_outbox_attempts{outcome="acked"} 2"#,
            r#"mainstay_outbox_attempts{outcome="rejected"} 1"#,
            r#"mainstay_outbox_dead{cause="rejected"} 1"#,
            r#"mainstay_outbox_parked 1"#,
            r#"mainstay_outbox_fenced 1"#,
            r#"mainstay_outbox_lanes_held 2"#,
            r#"mainstay_outbox_sink_down{topics="hooks.*"} 1"#,
        ] {
            assert!(
                rendered.lines().any(|one| one == line),
                "{line}\n{rendered}"
            );
        }
        let sent = r#"messaging_client_sent_messages{messaging_operation_name="publish",messaging_destination_template="hooks.*",error_type="retry"} 1"#;
        assert!(rendered.contains(sent), "{rendered}");
        assert!(
            rendered.contains("messaging_client_operation_duration"),
            "{rendered}"
        );
        assert!(rendered.contains("# HELP mainstay_outbox_published Messages acked and settled"));
    }
}
