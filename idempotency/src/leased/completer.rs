//! Takes up work that its attempt has left behind.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Claimed, Lease, LeasedStore, Leases};
use crate::Error;

/// Often enough that nobody waits for long behind a lease; rare enough to be no load.
const INTERVAL: Duration = Duration::from_secs(5);
/// Handlers at work at the same time.
const AT_ONCE_MAX: u32 = 8;

type Handler<S> = dyn Fn(Lease<S>, Bytes) -> BoxFuture<'static, Result<(), Box<dyn StdError + Send + Sync>>>
    + Send
    + Sync;

/// Looks for leases that are over, and runs the handler that their work names, as the next attempt: steps that are done
/// are not run again. Run one per process, or as many as you like: each key goes to one of them.
pub struct Completer<S: LeasedStore> {
    leases: Leases<S>,
    handlers: BTreeMap<String, Arc<Handler<S>>>,
    interval: Duration,
    at_once_max: u32,
}

impl<S: LeasedStore> Completer<S> {
    /// Knows no handlers yet.
    pub fn new(leases: Leases<S>) -> Self {
        Self {
            leases,
            handlers: BTreeMap::new(),
            interval: INTERVAL,
            at_once_max: AT_ONCE_MAX,
        }
    }

    /// Runs `handler` for work of this name. It gets the lease and [`Work::input`](super::Work::input), and must complete
    /// the lease as the first attempt would have; an error is logged, and leaves the rest to the next attempt, which comes
    /// when the lease is over.
    #[must_use]
    pub fn on<F, Fut, E>(mut self, name: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Lease<S>, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let handler = move |lease, input| -> BoxFuture<'static, _> {
            let running = handler(lease, input);
            Box::pin(async move { running.await.map_err(Into::into) })
        };
        self.handlers.insert(name.into(), Arc::new(handler));
        self
    }

    /// How long to rest between two looks. Default 5 s.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How many handlers may be at work at the same time. Default 8.
    #[must_use]
    pub fn at_once_max(mut self, at_once_max: u32) -> Self {
        self.at_once_max = at_once_max.max(1);
        self
    }

    /// Looks once, waits for the handlers, and says how many it ran.
    ///
    /// # Errors
    /// The store's. Handlers that were started are waited for.
    ///
    /// # Cancel safety
    /// Handlers are aborted by a drop, as by a crash: their keys are taken up again when their leases are over.
    pub async fn run_once(&self) -> Result<usize, Error> {
        let mut running = JoinSet::new();
        let mut ran = 0;
        let mut outcome = Ok(());
        for (name, handler) in &self.handlers {
            // By name, so that work whose handler is elsewhere is in nobody's way.
            let abandoned = match self.leases.store().abandoned(name, self.at_once_max).await {
                Ok(abandoned) => abandoned,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            for found in abandoned {
                while running.len() >= usize::try_from(self.at_once_max).unwrap_or(usize::MAX) {
                    _ = running.join_next().await;
                }
                match self.leases.claim(&found.claim, &found.work).await {
                    Ok(Claimed::Run(lease)) => {
                        ran += 1;
                        let (name, handler) = (name.clone(), Arc::clone(handler));
                        running.spawn(async move {
                            let key = lease.holder().key.clone();
                            tracing::info!(?key, handler = name, "taking up abandoned work");
                            if let Err(error) = handler(lease, found.work.input).await {
                                tracing::warn!(?key, handler = name, %error, "abandoned work failed again");
                            }
                        });
                    }
                    // Somebody was faster.
                    Ok(_) => {}
                    Err(error) => outcome = Err(error),
                }
            }
        }
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a handler of abandoned work panicked");
            }
        }
        outcome.map(|()| ran)
    }

    /// Looks again and again until `stop` is cancelled, and then returns when the handlers at work are done.
    ///
    /// # Cancel safety
    /// As [`run_once`](Self::run_once).
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(error) = self.run_once().await {
                tracing::warn!(%error, "looking for abandoned work failed");
            }
            _ = stop
                .run_until_cancelled(tokio::time::sleep(self.interval))
                .await;
        }
    }
}

impl<S: LeasedStore> fmt::Debug for Completer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completer")
            .field("handlers", &self.handlers.keys())
            .field("interval", &self.interval)
            .field("at_once_max", &self.at_once_max)
            .finish_non_exhaustive()
    }
}
