//! Counters, through the `metrics` facade when that feature is on and nowhere otherwise.

use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "metrics")]
macro_rules! count {
    ($name:literal, $n:expr) => {
        metrics::counter!($name).increment($n)
    };
}

#[cfg(not(feature = "metrics"))]
macro_rules! count {
    ($name:literal, $n:expr) => {{
        let _: u64 = $n;
    }};
}

/// Events written in transactions; those that roll back are counted as well.
pub(crate) fn enqueued(n: u64) {
    count!("mainstay_outbox_enqueued_total", n);
}

/// Messages a sink acked and the database forgot.
pub(crate) fn delivered(n: u64) {
    count!("mainstay_outbox_delivered_total", n);
}

/// Attempts that failed and will be repeated.
pub(crate) fn retried(n: u64) {
    count!("mainstay_outbox_retried_total", n);
}

/// Messages moved to the dead letters.
pub(crate) fn died(n: u64) {
    count!("mainstay_outbox_dead_total", n);
}

/// Batches whose settlement came after the lane had changed hands: their messages may be delivered twice.
pub(crate) fn fenced(n: u64) {
    count!("mainstay_outbox_fenced_total", n);
}

/// Lanes leased: at the start, after another relay gave them back, or after its lease ran out.
pub(crate) fn acquired(n: u64) {
    count!("mainstay_outbox_lanes_acquired_total", n);
}

/// Times a sink was found down.
pub(crate) fn sink_down(n: u64) {
    count!("mainstay_outbox_sink_down_total", n);
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
}

#[cfg(feature = "sqlx")]
impl Tally {
    pub(crate) fn settled(&self, acked: usize, failed: usize, buried: usize) {
        for (slot, n, report) in [
            (&self.delivered, acked, delivered as fn(u64)),
            (&self.retried, failed, retried),
            (&self.dead, buried, died),
        ] {
            slot.fetch_add(n as u64, Ordering::Relaxed);
            report(n as u64);
        }
    }

    pub(crate) fn fenced(&self) {
        self.fenced.fetch_add(1, Ordering::Relaxed);
        fenced(1);
    }

    pub(crate) fn holds(&self, lanes: usize) {
        self.lanes.store(lanes as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> RelayStats {
        RelayStats {
            delivered: self.delivered.load(Ordering::Relaxed),
            retried: self.retried.load(Ordering::Relaxed),
            dead: self.dead.load(Ordering::Relaxed),
            fenced: self.fenced.load(Ordering::Relaxed),
            lanes: self.lanes.load(Ordering::Relaxed),
        }
    }
}
