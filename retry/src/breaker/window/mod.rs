//! What a breaker remembers of the past: how many of the last calls were hits.
//!
//! A *hit* is whatever the rule that owns the window looks for, a failure or a slow call. Every window takes the same
//! two rules: recording costs the same however much has been recorded, and a record is stamped with the *epoch* (the
//! machine's generation) that let its call in. A record of an epoch that is over changes nothing, even when its thread
//! was asleep half-way through while the window was reset.

mod count;
mod ewma;
mod overdue;
mod time;

pub(super) use self::{count::CountWindow, ewma::EwmaWindow, overdue::Overdue, time::TimeWindow};

/// What a window holds: `hits` in `of`, known from `calls` calls.
///
/// `of` is the number of calls in a window that counts, and a fixed denominator in one that weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) calls: u64,
    pub(super) hits: u64,
    pub(super) of: u64,
}

impl Reading {
    pub(super) const fn counted(calls: u64, hits: u64) -> Self {
        Self {
            calls,
            hits,
            of: calls,
        }
    }

    pub(super) fn rate(self) -> f64 {
        if self.of == 0 {
            0.0
        } else {
            self.hits as f64 / self.of as f64
        }
    }
}

/// One of the windows, without a virtual call on the way of every request.
pub(super) enum Counter {
    Count(CountWindow),
    Time(TimeWindow),
    Ewma(EwmaWindow),
}

impl Counter {
    /// Adds one call, and what the window holds then. `None` when the epoch is over. `now` in nanoseconds.
    #[inline]
    pub(super) fn record(&self, epoch: u32, now: u64, hit: bool) -> Option<Reading> {
        match self {
            Self::Count(window) => window.record(epoch, hit),
            Self::Time(window) => window.record(epoch, now, hit),
            Self::Ewma(window) => window.record(epoch, hit),
        }
    }

    /// What the window holds, for a decision that must not be wrong.
    pub(super) fn read(&self, epoch: u32, now: u64) -> Option<Reading> {
        match self {
            Self::Count(window) => window.read(epoch),
            Self::Time(window) => window.read(epoch, now),
            Self::Ewma(window) => window.read(epoch),
        }
    }

    /// Empties the window for a new epoch. Called by one thread at a time, before calls of that epoch exist.
    pub(super) fn reset(&self, epoch: u32) {
        match self {
            Self::Count(window) => window.reset(epoch),
            Self::Time(window) => window.reset(epoch),
            Self::Ewma(window) => window.reset(epoch),
        }
    }

    pub(super) const fn needs_clock(&self) -> bool {
        matches!(self, Self::Time(_))
    }
}

#[cfg(test)]
#[cfg(not(mainstay_loom))]
mod tests;
