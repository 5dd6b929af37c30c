//! The settings of an adaptive throttle, checked once.

use std::time::Duration;

use super::AdaptiveThrottle;

/// Settings of an [`AdaptiveThrottle`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct AdaptiveThrottleBuilder {
    name: String,
    pub(super) settings: Settings,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) k: f64,
    pub(super) window: Duration,
    pub(super) min_requests: u32,
    pub(super) max_rejection: f64,
    pub(super) seed: Option<u64>,
}

/// A throttle that could not work as written; every fault is listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("throttle `{name}`: {}", faults.join("; "))]
pub struct InvalidThrottle {
    name: String,
    faults: Vec<&'static str>,
}

impl InvalidThrottle {
    /// What is wrong, one sentence each.
    pub fn faults(&self) -> &[&'static str] {
        &self.faults
    }
}

/// More could not be told apart in a slot of less than a millisecond, and what is counted in more than ten minutes
/// might not fit: it would take seven million attempts a second.
const WINDOW: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(16)..=Duration::from_secs(600);

impl AdaptiveThrottleBuilder {
    pub(super) fn new(name: String) -> Self {
        let settings = Settings {
            k: 2.0,
            window: Duration::from_secs(120),
            min_requests: 20,
            max_rejection: 0.9,
            seed: None,
        };
        Self { name, settings }
    }

    /// How many attempts may go for each that is accepted. Default 2, from the SRE book: half of what the other side
    /// gets is then refused by it at most, and it is soon noticed when it accepts more. 1.1 spares a server for which
    /// refusing is nearly as dear as doing.
    pub const fn k(mut self, k: f64) -> Self {
        self.settings.k = k;
        self
    }

    /// Over how long attempts are counted, in sixteen slots. Default 2 minutes, from the SRE book. After a long outage it
    /// takes up to two windows until everything is sent again.
    pub const fn window(mut self, window: Duration) -> Self {
        self.settings.window = window;
        self
    }

    /// Nothing is refused while fewer attempts than this are in the window. Default 20: two refusals in a quiet hour
    /// are no overload.
    pub const fn min_requests(mut self, requests: u32) -> Self {
        self.settings.min_requests = requests;
        self
    }

    /// The greatest share of attempts that is refused here. Default 0.9: one in ten goes however bad it is, and finds
    /// out when it is better. The rule alone would after a long outage let nearly nothing through for many minutes.
    /// It is also the end of the promise of [`k`](Self::k): beyond an overload of K/(1 − this), twentyfold by default,
    /// more is sent.
    pub const fn max_rejection(mut self, share: f64) -> Self {
        self.settings.max_rejection = share;
        self
    }

    /// Draws the same numbers each time, for tests. Default: another seed for each throttle.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Makes the throttle.
    ///
    /// # Errors
    /// [`InvalidThrottle`] lists all of: an empty name; a K that is below 1, above 1,000 or not a number; a window of
    /// less than 16 ms or more than 10 minutes; a greatest share that is not above 0 and below 1.
    pub fn build(self) -> Result<AdaptiveThrottle, InvalidThrottle> {
        let Settings {
            k,
            window,
            max_rejection,
            ..
        } = self.settings;
        let checks = [
            (self.name.is_empty(), "the name is empty"),
            (
                !(1.0..=1_000.0).contains(&k),
                "K must be between 1 and 1000",
            ),
            (
                !WINDOW.contains(&window),
                "the window must be between 16 ms and 10 minutes",
            ),
            (
                !(max_rejection > 0.0 && max_rejection < 1.0),
                "the greatest share of rejections must be above 0 and below 1",
            ),
        ];
        let faults: Vec<_> = checks
            .into_iter()
            .filter_map(|(wrong, fault)| wrong.then_some(fault))
            .collect();
        if faults.is_empty() {
            Ok(AdaptiveThrottle::new(
                std::sync::Arc::new(self.name.into()),
                self.settings,
            ))
        } else {
            Err(InvalidThrottle {
                name: self.name,
                faults,
            })
        }
    }
}
