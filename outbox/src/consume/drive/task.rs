//! One delivery from its first attempt until it is settled.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::RwLock,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Delivery, Item};
use crate::{
    TARGET,
    consume::{Consumed, ConsumerConfig, Handled, Handler},
    sink::{Reason, cloudevents::Received},
};

/// How long a dead letter waits for the next try when it could not be written.
const BURY_AGAIN: Duration = Duration::from_secs(5);
const AFTER_MAX: Duration = Duration::from_hours(1);
/// How often a delivery whose attempts are spent, as the broker counts, is handled alone. More than once, because it may be
/// the machine that dies.
const ALONE_MAX: u32 = 3;

/// The handler, and who may use it, for as long as the consumer runs.
pub(in crate::consume) struct Handling<H> {
    handler: H,
    /// Held alone for a delivery whose attempts are spent before it was ever answered: it may have killed its consumers, or
    /// it was under way beside one that did.
    turn: RwLock<()>,
    /// Whether one was given up on the broker's count alone.
    gave_up: AtomicBool,
}

impl<H> Handling<H> {
    pub(in crate::consume) fn new(handler: H) -> Arc<Self> {
        Arc::new(Self {
            handler,
            turn: RwLock::new(()),
            gave_up: AtomicBool::new(false),
        })
    }
}

/// Whether the broker knows what became of a delivery, and what was done.
pub(super) enum Settled {
    Yes(Consumed),
    /// Everything is to end.
    No(Consumed),
}

/// One delivery on its way to being settled.
pub(super) struct Task<D, H> {
    pub(super) item: Arc<Item<D>>,
    pub(super) config: ConsumerConfig,
    pub(super) working: Option<Duration>,
    pub(super) handling: Arc<Handling<H>>,
    pub(super) ending: CancellationToken,
}

impl<D: Delivery, H: Handler> Task<D, H> {
    pub(super) async fn run(self) -> Settled {
        let mut consumed = Consumed::default();
        let mut event = match &self.item.event {
            Ok(event) => event.clone(),
            Err(unreadable) => {
                let reason = Reason::new(&unreadable.to_string());
                return self.bury(&reason, consumed).await;
            }
        };
        let before = self.item.delivery.deliveries_before();
        if self.kills(before) {
            let reason = Reason::from("every attempt ended without an answer");
            return self.bury(&reason, consumed).await;
        }
        let mut attempt = before.saturating_add(1);
        let mut wait = Duration::ZERO;
        loop {
            event.set_attempt(attempt);
            let alone = attempt > self.config.attempts_max;
            let Some(handled) = self.handle(event.clone(), alone).await else {
                return Settled::No(consumed);
            };
            let (after, reason) = match handled {
                Handled::Done => {
                    self.item.delivery.ack().await;
                    consumed.done += 1;
                    return Settled::Yes(consumed);
                }
                Handled::Dead { reason } => return self.bury(&reason, consumed).await,
                Handled::Retry { reason, .. } if attempt >= self.config.attempts_max => {
                    return self.bury(&reason, consumed).await;
                }
                Handled::Retry { after, reason } => (after, reason),
            };
            consumed.retried += 1;
            wait = self
                .config
                .backoff
                .delay(attempt, wait, &mut rand::rng())
                .max(after.unwrap_or_default())
                .min(AFTER_MAX);
            tracing::warn!(
                target: TARGET,
                event = event.id(),
                attempt,
                delay_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                reason = reason.as_str(),
                "an event could not be handled and is tried again"
            );
            if event.key().is_none() && self.item.delivery.can_be_delayed() {
                self.item.delivery.give_back(Some(wait)).await;
                return Settled::Yes(consumed);
            }
            if self.meanwhile(sleep(wait)).await.is_none() {
                return Settled::No(consumed);
            }
            attempt = attempt.saturating_add(1);
        }
    }

    /// Whether it is given up on the broker's count alone: it did not answer when nothing else was under way either.
    ///
    /// Only one is for as long as the consumer runs. What waited for its turn when that one killed the process was delivered as
    /// often, and must have its turn first.
    fn kills(&self, before: u32) -> bool {
        before >= self.config.attempts_max.saturating_add(ALONE_MAX)
            && !self.handling.gave_up.swap(true, Ordering::Relaxed)
    }

    /// Handles it in its turn; none if everything is to end before that.
    async fn handle(&self, event: Received, alone: bool) -> Option<Handled> {
        let turn = &self.handling.turn;
        if alone {
            let _turn = self.meanwhile(turn.write()).await?;
            Some(self.answer(event).await)
        } else {
            let _turn = self.meanwhile(turn.read()).await?;
            Some(self.answer(event).await)
        }
    }

    /// The handler's answer; a panic and silence are answers too.
    async fn answer(&self, event: Received) -> Handled {
        let handler = &self.handling.handler;
        let handled = AssertUnwindSafe(async { handler.handle(event).await }).catch_unwind();
        let mut handled = pin!(timeout(self.config.handler_timeout, handled));
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut handled => break answer,
                () = self.say_working() => {}
            }
        };
        match answer {
            Ok(Ok(handled)) => handled,
            Ok(Err(_)) => Handled::retry("the handler panicked"),
            Err(_) => Handled::retry("the handler took too long"),
        }
    }

    /// Waits, and tells the broker meanwhile; none once everything is to end.
    async fn meanwhile<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let mut wait: Pin<&mut _> = pin!(wait);
        loop {
            tokio::select! {
                biased;
                waited = &mut wait => return Some(waited),
                () = self.ending.cancelled() => return None,
                () = self.say_working() => {}
            }
        }
    }

    /// Tells the broker, after a while, that the delivery is being worked on.
    async fn say_working(&self) {
        match self.working {
            Some(every) => {
                sleep(every).await;
                self.item.delivery.working().await;
            }
            None => std::future::pending().await,
        }
    }

    async fn bury(&self, reason: &Reason, mut consumed: Consumed) -> Settled {
        let id = self.item.event.as_ref().map_or("", Received::id);
        while !self.item.delivery.bury(reason).await {
            tracing::error!(
                target: TARGET,
                event = id,
                reason = reason.as_str(),
                "a dead letter could not be written and holds up its key"
            );
            if self.meanwhile(sleep(BURY_AGAIN)).await.is_none() {
                return Settled::No(consumed);
            }
        }
        consumed.dead += 1;
        tracing::error!(
            target: TARGET,
            event = id,
            reason = reason.as_str(),
            "an event is given up as a dead letter"
        );
        Settled::Yes(consumed)
    }
}
