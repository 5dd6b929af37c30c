//! A sink that remembers, for tests of code that publishes.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{LaneRef, Outcome, Outcomes, Sink, SinkDown, publish_each};
use crate::{event::EventId, message::Message};

type Script = dyn Fn(&Message) -> Outcome + Send + Sync;

/// Keeps every message it is offered, in order of arrival, and answers as it is told.
///
/// Clones share everything. For tests: it never forgets, so it grows without bound.
#[derive(Clone)]
pub struct MemorySink {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    arrived: watch::Sender<usize>,
}

struct State {
    acked: Vec<Message>,
    offered: Vec<Message>,
    script: Arc<Script>,
    down: bool,
}

impl MemorySink {
    /// Acks everything.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            acked: Vec::new(),
            offered: Vec::new(),
            script: Arc::new(|_| Outcome::Acked),
            down: false,
        };
        let inner = Inner {
            state: Mutex::new(state),
            arrived: watch::Sender::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// From now on, answers what `script` says of each message.
    #[must_use]
    pub fn respond(self, script: impl Fn(&Message) -> Outcome + Send + Sync + 'static) -> Self {
        self.state().script = Arc::new(script);
        self
    }

    /// From now on the sink is down, or up again.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// What was acked so far, duplicates included, in order.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.state().acked.clone()
    }

    /// What was offered so far, whatever the answer, in order. Not what met the sink down.
    #[must_use]
    pub fn offered(&self) -> Vec<Message> {
        self.state().offered.clone()
    }

    /// Waits until at least `count` messages were acked, and gives them.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; wrap it in a timeout.
    pub async fn wait_for(&self, count: usize) -> Vec<Message> {
        let mut arrived = self.inner.arrived.subscribe();
        // The sender lives as long as `self`, so this only ends when the count is there.
        let _ = arrived.wait_for(|seen| *seen >= count).await;
        self.messages()
    }

    /// Waits until the event with this id was acked, and gives its first copy.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; wrap it in a timeout.
    pub async fn wait_for_event(&self, id: EventId) -> Message {
        let mut arrived = self.inner.arrived.subscribe();
        loop {
            arrived.mark_unchanged();
            let known = self.messages().into_iter().find(|of| of.id() == id);
            if let Some(message) = known {
                return message;
            }
            // The sender lives as long as `self`.
            let _ = arrived.changed().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, message: &Message) -> Result<Outcome, SinkDown> {
        let script = {
            let state = self.state();
            if state.down {
                return Err(SinkDown::new("told to be down"));
            }
            Arc::clone(&state.script)
        };
        // Outside the lock: a script may look at the sink, or panic.
        let outcome = script(message);
        let mut state = self.state();
        state.offered.push(message.clone());
        if outcome == Outcome::Acked {
            state.acked.push(message.clone());
            // Under the lock: told in another order than counted, the last of several lanes could be forgotten.
            self.inner.arrived.send_replace(state.acked.len());
        }
        Ok(outcome)
    }
}

impl Default for MemorySink {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemorySink")
            .field("acked", &state.acked.len())
            .field("down", &state.down)
            .finish_non_exhaustive()
    }
}

impl Sink for MemorySink {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        publish_each(&lane, batch, 1, async |message: &Message| {
            self.take(message)
        })
        .await
    }
}
