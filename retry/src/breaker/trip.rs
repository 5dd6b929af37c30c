//! When a closed circuit opens: the rules, as data.

use std::time::Duration;

use super::{
    state::CONSECUTIVE_MAX,
    window::{CountWindow, EwmaWindow},
};

/// When a closed circuit opens: one rule, or up to four of which any is enough.
///
/// ```
/// use std::time::Duration;
/// use mainstay_retry::{Trip, breaker::Window};
///
/// const TRIP: Trip = Trip::consecutive(5)
///     .or(Trip::failure_rate(0.5).window(Window::time(Duration::from_secs(10))).min_calls(20))
///     .or(Trip::slow_calls(0.8, Duration::from_secs(2)).window(Window::count(50)));
/// # let _ = TRIP;
/// ```
///
/// # What each costs
///
/// | rule | per healthy call | memory |
/// |-|-|-|
/// | `consecutive` | reads one word, writes nothing | none |
/// | a rate over `Window::count(n)` | one atomic write, no clock | 4 bytes for each of `n` |
/// | a rate over `Window::time(..)` | one atomic write, one look at the clock | ten buckets |
/// | a rate over `Window::ewma(n)` | reads one word, writes nothing once the average is at rest | one word |
/// | `slow_calls` | its window, two more writes, two looks at the clock | ten words and its window |
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "a rule does nothing until a breaker has it"]
pub struct Trip {
    rules: [Option<Rule>; RULES_MAX],
    misuse: Option<&'static str>,
}

/// Most rules of one breaker: each is asked about every call.
const RULES_MAX: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule {
    Consecutive(u32),
    Rate(RateRule),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RateRule {
    pub(super) rate: f64,
    /// A call that runs for this long is a hit; without it, a failure is.
    pub(super) slow: Option<Duration>,
    pub(super) window: Window,
    min_calls: Option<u32>,
}

/// Which calls a rate is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub(super) span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Count(u32),
    Time(Duration),
    Ewma(u32),
}

impl Window {
    /// The last `calls` calls, exactly; 1 to 65,535. An old success does not dilute new failures: after a million
    /// successes a rate of 0.5 over 10 calls is met by the fifth failure in a row.
    pub const fn count(calls: u32) -> Self {
        Self {
            span: Span::Count(calls),
        }
    }

    /// The calls that ended in the last `length`, in ten buckets: what is older than `length` never counts, and what is
    /// younger than nine tenths of it always does. 10 ms to one day.
    pub const fn time(length: Duration) -> Self {
        Self {
            span: Span::Time(length),
        }
    }

    /// An exponentially weighted average: each call weighs `2 / (calls + 1)`, and less with every call after it; 1 to 4,095.
    ///
    /// The cheapest under contention, for a healthy client only reads it. But a burst fades instead of falling out: it reacts to fewer
    /// failures in a row than a window of `calls` and holds them against the service for longer. Prefer `count` or
    /// `time` when the number has to be explained.
    pub const fn ewma(calls: u32) -> Self {
        Self {
            span: Span::Ewma(calls),
        }
    }
}

impl Trip {
    /// After this many failures without a success between them.
    pub const fn consecutive(failures: u32) -> Self {
        Self::one(Rule::Consecutive(failures))
    }

    /// When this share of the calls in the [window](Self::window) has failed, 0.5 for half of them; and not before
    /// there were [enough calls](Self::min_calls).
    pub const fn failure_rate(rate: f64) -> Self {
        Self::one(Rule::Rate(RateRule {
            rate,
            slow: None,
            window: Window::count(100),
            min_calls: None,
        }))
    }

    /// When this share of the calls in the [window](Self::window) has run for `longer_than` or more, whatever came of
    /// them.
    ///
    /// A call that has not ended counts as soon as it has run for so long, or up to an eighth of that later: it is seen when the next call
    /// comes or another ends. So does a call that is given up after that time, by its
    /// deadline or by a caller who leaves; one that is given up earlier does not count. A half-open circuit takes a slow probe
    /// for a failed one.
    pub const fn slow_calls(rate: f64, longer_than: Duration) -> Self {
        Self::one(Rule::Rate(RateRule {
            rate,
            slow: Some(longer_than),
            window: Window::count(100),
            min_calls: None,
        }))
    }

    /// What the rate is taken over. Default [`Window::count(100)`](Window::count).
    pub const fn window(self, window: Window) -> Self {
        match self.rules {
            [Some(Rule::Rate(rule)), None, ..] => Self {
                misuse: self.misuse,
                ..Self::one(Rule::Rate(RateRule { window, ..rule }))
            },
            _ => self.misused(),
        }
    }

    /// The rate says nothing before this many calls are in the window. Default 20, or the whole window if that is smaller.
    pub const fn min_calls(self, calls: u32) -> Self {
        match self.rules {
            [Some(Rule::Rate(rule)), None, ..] => {
                let min_calls = Some(calls);
                Self {
                    misuse: self.misuse,
                    ..Self::one(Rule::Rate(RateRule { min_calls, ..rule }))
                }
            }
            _ => self.misused(),
        }
    }

    /// Either of the two is enough. Four rules at most.
    #[expect(
        clippy::indexing_slicing,
        reason = "both indices are below the bound of the loop; iterators are not const"
    )]
    pub const fn or(mut self, other: Self) -> Self {
        let mut i = 0;
        while i < RULES_MAX {
            if let Some(rule) = other.rules[i] {
                let mut free = 0;
                while free < RULES_MAX && self.rules[free].is_some() {
                    free += 1;
                }
                if free == RULES_MAX {
                    self.misuse = Some("it has more than four rules");
                    return self;
                }
                self.rules[free] = Some(rule);
            }
            i += 1;
        }
        if self.misuse.is_none() {
            self.misuse = other.misuse;
        }
        self
    }

    const fn one(rule: Rule) -> Self {
        Self {
            rules: [Some(rule), None, None, None],
            misuse: None,
        }
    }

    const fn misused(self) -> Self {
        Self {
            misuse: Some(
                "`window` and `min_calls` belong to one rate, before it is combined with `or`",
            ),
            ..self
        }
    }

    /// The smallest of the consecutive rules.
    pub(super) fn failures_in_a_row(&self) -> Option<u32> {
        let rules = self.rules.iter().flatten();
        rules
            .filter_map(|rule| match rule {
                Rule::Consecutive(failures) => Some(*failures),
                Rule::Rate(_) => None,
            })
            .min()
    }

    pub(super) fn rates(&self) -> impl Iterator<Item = &RateRule> {
        let rules = self.rules.iter().flatten();
        rules.filter_map(|rule| match rule {
            Rule::Rate(rule) => Some(rule),
            Rule::Consecutive(_) => None,
        })
    }

    /// Everything that is wrong with it, for the builder.
    pub(super) fn faults(&self) -> impl Iterator<Item = &'static str> {
        let in_a_row = self.failures_in_a_row().map_or(Vec::new(), |failures| {
            wrong([
                (failures == 0, "it would trip without a failure"),
                (
                    failures > CONSECUTIVE_MAX,
                    "it would trip at more than 1048575 consecutive failures",
                ),
            ])
        });
        let rates: Vec<_> = self.rates().flat_map(RateRule::faults).collect();
        self.misuse.into_iter().chain(in_a_row).chain(rates)
    }
}

const DAY: Duration = Duration::from_secs(86_400);

impl RateRule {
    pub(super) fn min_calls(&self) -> u32 {
        match (self.min_calls, self.window.span) {
            (Some(calls), _) => calls,
            (None, Span::Count(size) | Span::Ewma(size)) => size.min(20),
            (None, Span::Time(_)) => 20,
        }
    }

    fn faults(&self) -> Vec<&'static str> {
        let min = self.min_calls();
        let slow = self.slow;
        let mut faults = wrong([
            (
                !(self.rate > 0.0 && self.rate <= 1.0),
                "a rate is above 0 and at most 1",
            ),
            (min == 0, "a rate needs at least one call"),
            (
                slow.is_some_and(|limit| limit < Duration::from_millis(1) || limit > DAY),
                "a call is slow after 1 ms at least and a day at most",
            ),
        ]);
        faults.extend(match self.window.span {
            Span::Count(size) => wrong([
                (
                    size == 0 || size > CountWindow::SIZE_MAX,
                    "a count window holds 1 to 65535 calls",
                ),
                (
                    size > 0 && min > size,
                    "the window never holds as many calls as the rate needs",
                ),
                (false, ""),
            ]),
            Span::Time(length) => wrong([
                (
                    length < Duration::from_millis(10) || length > DAY,
                    "a time window is 10 ms to a day long",
                ),
                (false, ""),
                (false, ""),
            ]),
            Span::Ewma(size) => wrong([
                (
                    size == 0 || size > EwmaWindow::SIZE_MAX,
                    "an average is over 1 to 4095 calls",
                ),
                (
                    min > EwmaWindow::SIZE_MAX,
                    "an average counts no more than 4095 calls",
                ),
                (self.rate >= 1.0, "an average never reaches a rate of 1"),
            ]),
        });
        faults
    }
}

fn wrong<const N: usize>(checks: [(bool, &'static str); N]) -> Vec<&'static str> {
    let checks = checks.into_iter();
    checks
        .filter_map(|(wrong, fault)| wrong.then_some(fault))
        .collect()
}
