//! Who hears of a change: logs, metrics, subscribers, and services that wait for it.

use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, broadcast, futures::OwnedNotified};

use super::state::{State, Transition};
use crate::{error::Name, policy::TARGET};

/// One change of a breaker's state.
///
/// Every change makes exactly one event. Changes made at the same moment by different threads may arrive out of
/// order; [`generation`](Self::generation) is the order in which they happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerEvent {
    /// The name the breaker was built with.
    pub breaker: Arc<str>,
    /// What it was.
    pub from: State,
    /// What it is now.
    pub to: State,
    /// Which period has begun; it only grows.
    pub generation: u64,
}

impl BreakerEvent {
    /// Whether this is no change, but a breaker that only counts which says that it would have opened.
    pub fn would_open(&self) -> bool {
        self.from == State::MetricsOnly && self.to == State::MetricsOnly
    }
}

/// The changes of one breaker from now on. Made by [`BreakerHandle::subscribe`](super::BreakerHandle::subscribe).
///
/// A subscriber has room for 64 events. When it falls further behind it misses the oldest, which
/// [`missed`](Self::missed) counts; it cannot slow the breaker down.
#[derive(Debug)]
pub struct BreakerEvents {
    receiver: broadcast::Receiver<BreakerEvent>,
    missed: u64,
}

const EVENTS_MAX: usize = 64;

impl BreakerEvents {
    /// The next change. `None` when the breaker and everything it was given to are gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<BreakerEvent> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(events)) => {
                    self.missed = self.missed.saturating_add(events);
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next change, if it has already happened.
    pub fn try_next(&mut self) -> Option<BreakerEvent> {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(broadcast::error::TryRecvError::Lagged(events)) => {
                    self.missed = self.missed.saturating_add(events);
                }
                Err(_) => return None,
            }
        }
    }

    /// How many events were dropped because this subscriber was too slow.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

/// The listeners of one breaker. Both slots are empty until somebody asks, and looked at only when something changes.
#[derive(Default)]
pub(super) struct News {
    events: OnceLock<broadcast::Sender<BreakerEvent>>,
    room: OnceLock<Arc<Notify>>,
}

impl News {
    pub(super) fn subscribe(&self) -> BreakerEvents {
        let sender = self
            .events
            .get_or_init(|| broadcast::Sender::new(EVENTS_MAX));
        BreakerEvents {
            receiver: sender.subscribe(),
            missed: 0,
        }
    }

    /// Resolves at the next change of state, or when a probe makes room for another: counted from this call, not
    /// from the first poll.
    pub(super) fn next_room(&self) -> OwnedNotified {
        Arc::clone(self.room.get_or_init(Arc::default)).notified_owned()
    }

    pub(super) fn tell_room(&self) {
        if let Some(room) = self.room.get() {
            room.notify_waiters();
        }
    }

    /// Called without the machine's lock: whoever listens may ask the breaker something.
    #[cold]
    pub(super) fn tell(&self, name: &Name, change: Transition) {
        let Transition {
            from,
            to,
            generation,
        } = change;
        // Those whose work waits come first; a log or a recorder may be slow, or panic.
        self.tell_room();
        if let Some(events) = self.events.get() {
            // An error means that nobody listens any more.
            let _ = events.send(BreakerEvent {
                breaker: Arc::clone(&**name),
                from,
                to,
                generation,
            });
        }
        let would_open = from == State::MetricsOnly && to == State::MetricsOnly;
        let (breaker, from) = (&***name, from.as_str());
        let state = if would_open {
            "would_open"
        } else {
            to.as_str()
        };
        if would_open || matches!(to, State::Open | State::ForcedOpen) {
            tracing::warn!(target: TARGET, breaker, from, state, generation, "circuit opened");
        } else {
            tracing::info!(target: TARGET, breaker, from, state, generation, "circuit changed");
        }
        #[cfg(feature = "metrics")]
        metrics::counter!(
            "mainstay.breaker.transitions", "breaker" => name.to_string(), "from" => from, "to" => state,
        )
        .increment(1);
    }
}
