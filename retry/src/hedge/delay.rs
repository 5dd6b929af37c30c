//! How long to wait for the first attempt before another is sent.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::latencies::{Latencies, Settings};

/// How long an attempt may take before it is hedged. Clones share what has been learned.
///
/// The default is the 95th [percentile](Self::percentile): about one request in twenty is sent twice, and only if the
/// budget pays for it.
#[derive(Clone)]
pub struct HedgeDelay {
    source: Source,
}

#[derive(Clone)]
enum Source {
    Fixed(Duration),
    Percentile(Arc<Latencies>),
}

impl HedgeDelay {
    /// Always the same. Zero sends both at once.
    pub const fn fixed(delay: Duration) -> Self {
        Self {
            source: Source::Fixed(delay),
        }
    }

    /// What this share of the recent first attempts took at most: 0.95 for the 95th percentile.
    ///
    /// It is learned from first attempts that were answered. One that was overtaken by a hedge counts with the time
    /// it had taken until then, for it would have taken longer; else hedging would by and by lower its own delay.
    /// Failures and calls that were dropped by the caller teach nothing.
    pub const fn percentile(share: f64) -> PercentileBuilder {
        PercentileBuilder {
            settings: DEFAULT.with_share(share),
        }
    }

    /// The delay now; none while too little is known.
    pub(super) fn now(&self) -> Option<Duration> {
        match &self.source {
            Source::Fixed(delay) => Some(*delay),
            Source::Percentile(latencies) => latencies.delay(),
        }
    }

    /// Whether it wants to be told latencies.
    pub(super) const fn learns(&self) -> bool {
        matches!(self.source, Source::Percentile(_))
    }

    pub(super) fn record(&self, latency: Duration, now: Instant) {
        if let Source::Percentile(latencies) = &self.source {
            latencies.record(latency, now);
        }
    }
}

impl Default for HedgeDelay {
    fn default() -> Self {
        Self {
            source: Source::Percentile(Arc::new(Latencies::new(DEFAULT))),
        }
    }
}

impl From<Duration> for HedgeDelay {
    fn from(delay: Duration) -> Self {
        Self::fixed(delay)
    }
}

impl fmt::Debug for HedgeDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeDelay")
            .field("learns", &self.learns())
            .field("now", &self.now())
            .finish()
    }
}

const DEFAULT: Settings = Settings {
    share: 0.95,
    at_least: Duration::from_millis(10),
    min_samples: 100,
    window: Duration::from_secs(120),
};

impl Settings {
    const fn with_share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }
}

/// Settings of [`HedgeDelay::percentile`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct PercentileBuilder {
    settings: Settings,
}

/// A delay that could not work as written; every fault is listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hedge delay: {}", faults.join("; "))]
pub struct InvalidHedgeDelay {
    faults: Vec<&'static str>,
}

impl InvalidHedgeDelay {
    /// What is wrong, one sentence each.
    pub fn faults(&self) -> &[&'static str] {
        &self.faults
    }
}

impl PercentileBuilder {
    /// The least delay. Default 10 ms: where most answers come within a millisecond, the slow ones are not worth twice
    /// the work, and a timer is not finer than that.
    pub const fn at_least(mut self, delay: Duration) -> Self {
        self.settings.at_least = delay;
        self
    }

    /// How many latencies it takes before the first hedge. Default 100: fewer have no 95th percentile to speak of.
    pub const fn min_samples(mut self, samples: u32) -> Self {
        self.settings.min_samples = samples;
        self
    }

    /// How old a latency may be to count. Default 2 minutes. When there are too few as young as that, what was known
    /// before holds.
    pub const fn window(mut self, window: Duration) -> Self {
        self.settings.window = window;
        self
    }

    /// Makes the delay.
    ///
    /// # Errors
    /// [`InvalidHedgeDelay`] lists all of: a share that is not at least 0.5 and below 1, for more than half of all
    /// requests is no tail; no window.
    pub fn build(self) -> Result<HedgeDelay, InvalidHedgeDelay> {
        let checks = [
            (
                !(0.5..1.0).contains(&self.settings.share),
                "the share must be at least 0.5 and below 1",
            ),
            (self.settings.window.is_zero(), "the window is empty"),
        ];
        let faults: Vec<_> = checks
            .into_iter()
            .filter_map(|(wrong, fault)| wrong.then_some(fault))
            .collect();
        if faults.is_empty() {
            Ok(HedgeDelay {
                source: Source::Percentile(Arc::new(Latencies::new(self.settings))),
            })
        } else {
            Err(InvalidHedgeDelay { faults })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_percentile_is_listed() {
        for share in [0.0, 0.49, 1.0, 95.0, -1.0, f64::NAN] {
            let error = HedgeDelay::percentile(share).build().unwrap_err();
            assert_eq!(error.faults().len(), 1, "{share}");
        }
        let error = HedgeDelay::percentile(2.0).window(Duration::ZERO).build();
        assert_eq!(error.unwrap_err().faults().len(), 2);
        assert!(HedgeDelay::percentile(0.99).build().is_ok());
    }
}
