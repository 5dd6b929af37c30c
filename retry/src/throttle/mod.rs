//! Sends less to a server that refuses much: client-side throttling as in Google's SRE book.
//!
//! A server that is overloaded says so with 429 or 503, but saying so is work as well: clients that send ten times too
//! much keep it busy with refusing. Each client therefore counts, over two minutes, the attempts it made and those that
//! were accepted, and refuses attempts itself with the probability that
//! [`rejection_probability`] gives. The server gets about K times what it accepts, however much the client is asked for.
//!
//! *Accepted* is every answer but "throttled" and "overloaded", a 500 too. *Refused* are those two, and what was refused
//! here. Attempts without an answer, attempts that were dropped and refusals by a breaker count neither way: when
//! nothing answers, that is for a [circuit breaker](crate::breaker).
//!
//! Put it below retry and hedging, which multiply attempts, and above the breaker, which would else hide that nobody was
//! asked. A refusal, [`SelfThrottled`], is final for the retry layer and is not charged to its budget: the other side
//! was not asked, and to try again at once would only roll the dice once more.
//!
//! | | throttle | breaker | budget |
//! |---|---|---|---|
//! | acts on | answers that say "too much" | failures and silence | failures of this client's calls |
//! | limits | all attempts | all attempts | further attempts |
//! | by | degrees | all or nothing | a stock |

mod builder;
mod future;
mod layer;
mod rule;
mod service;
mod window;

use std::{fmt, sync::Arc, time::Instant};

use self::{
    builder::Settings,
    rule::accepted,
    window::{Counts, Window},
};
pub use self::{
    builder::{AdaptiveThrottleBuilder, InvalidThrottle},
    future::ThrottleFuture,
    layer::AdaptiveThrottleLayer,
    rule::rejection_probability,
    service::Throttle,
};
use crate::{
    classify::HttpClassify,
    dice::Dice,
    error::{Name, SelfThrottled},
    policy::TARGET,
    verdict::Verdict,
};

/// A throttle for one dependency. Clones share its counts. See the [module docs](crate::throttle).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use mainstay_retry::{AdaptiveThrottle, Kind, Verdict};
///
/// let throttle = AdaptiveThrottle::builder("search").seed(1).build().unwrap();
/// let layer = throttle.layer(); // every service it wraps shares the counts
/// # let _ = layer;
///
/// // In plain code: ask before each attempt, and tell what came of it.
/// for _ in 0..100 {
///     if throttle.admit().is_ok() {
///         throttle.record(Verdict::Retryable(Kind::Overloaded, None));
///     }
/// }
/// assert!(throttle.rejection() > 0.8);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AdaptiveThrottle {
    shared: Arc<Shared>,
}

impl AdaptiveThrottle {
    /// Starts a throttle. The name is what errors, logs and metrics call it.
    pub fn builder(name: impl Into<String>) -> AdaptiveThrottleBuilder {
        AdaptiveThrottleBuilder::new(name.into())
    }

    fn new(name: Name, settings: Settings) -> Self {
        let seed = settings.seed.unwrap_or_else(rand::random);
        Self {
            shared: Arc::new(Shared {
                #[cfg(feature = "metrics")]
                rejections: metrics::Key::from_parts(
                    "mainstay.throttle.rejections",
                    vec![metrics::Label::new("throttle", name.to_string())],
                ),
                name,
                settings,
                window: Window::new(settings.window),
                dice: Dice::new(seed),
            }),
        }
    }

    /// A layer for HTTP clients, which judges outcomes with [`HttpClassify`].
    pub fn layer(&self) -> AdaptiveThrottleLayer<HttpClassify> {
        self.layer_with(HttpClassify)
    }

    /// A layer that judges outcomes with `classify`.
    pub fn layer_with<C>(&self, classify: C) -> AdaptiveThrottleLayer<C> {
        AdaptiveThrottleLayer::new(Arc::clone(&self.shared), classify)
    }

    /// Leave to make one attempt. While the other side accepts enough, this is a load and a comparison.
    ///
    /// # Errors
    /// [`SelfThrottled`] when the attempt must not be made. It has been counted.
    pub fn admit(&self) -> Result<(), SelfThrottled> {
        self.shared.admit()
    }

    /// Counts the outcome of an attempt that was admitted.
    pub fn record(&self, verdict: Verdict) {
        self.shared.record(verdict);
    }

    /// The share of attempts that is refused now, from 0 to the greatest.
    pub fn rejection(&self) -> f64 {
        self.shared.rejection(self.shared.window.counts(now()))
    }
}

struct Shared {
    name: Name,
    settings: Settings,
    window: Window,
    dice: Dice,
    #[cfg(feature = "metrics")]
    rejections: metrics::Key,
}

impl Shared {
    fn admit(&self) -> Result<(), SelfThrottled> {
        // Counts that are a while old say "healthy" only if nothing has been refused since: every record turns the ring.
        if self.rejection(self.window.last_counts()) == 0.0 || self.admit_at(now()) {
            Ok(())
        } else {
            self.tell();
            Err(SelfThrottled::new(Arc::clone(&self.name)))
        }
    }

    fn admit_at(&self, now: Instant) -> bool {
        let share = self.rejection(self.window.counts(now));
        let admitted = share == 0.0 || self.dice.roll() >= share;
        if !admitted {
            self.window.record(false, now);
        }
        admitted
    }

    fn record(&self, verdict: Verdict) {
        if let Some(accepted) = accepted(verdict) {
            self.window.record(accepted, now());
        }
    }

    fn rejection(&self, Counts { requests, accepts }: Counts) -> f64 {
        if requests < u64::from(self.settings.min_requests) {
            return 0.0;
        }
        rejection_probability(requests, accepts, self.settings.k).min(self.settings.max_rejection)
    }

    fn tell(&self) {
        tracing::debug!(target: TARGET, throttle = &**self.name, "attempt held back");
        #[cfg(feature = "metrics")]
        metrics::with_recorder(|recorder| {
            static METADATA: metrics::Metadata<'static> =
                metrics::Metadata::new(TARGET, metrics::Level::INFO, Some(module_path!()));
            recorder
                .register_counter(&self.rejections, &METADATA)
                .increment(1);
        });
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { requests, accepts } = self.window.last_counts();
        f.debug_struct("AdaptiveThrottle")
            .field("name", &self.name)
            .field("requests", &requests)
            .field("accepts", &accepts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod simulation;
