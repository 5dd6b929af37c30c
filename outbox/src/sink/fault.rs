//! A sink that fails as it is told, for tests of what happens then.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};

use super::{LaneRef, Outcome, Outcomes, Sink, SinkDown, publish_each};
use crate::message::Message;

/// Wraps a sink and comes between it and the relay. Clones share everything.
///
/// Messages of a lane go to the wrapped sink one by one. Seeded, and on the runtime's clock: a test with paused time runs
/// the same each time.
///
/// ```
/// # async fn example() {
/// use std::time::Duration;
/// use mainstay_outbox::{MemorySink, Outcome, sink::FaultSink};
///
/// let sink = FaultSink::new(MemorySink::new(), 7)
///     .fail_nth(3, Outcome::reject("too large"))
///     .drop_acks(0.1);
/// sink.down_for(Duration::from_secs(30));
/// # }
/// ```
#[derive(Clone)]
pub struct FaultSink<S> {
    inner: S,
    state: Arc<Mutex<State>>,
}

struct State {
    rng: StdRng,
    offered: u64,
    nth: BTreeMap<u64, Outcome>,
    lose: f64,
    lost: u64,
    delay: Duration,
    down: bool,
    down_until: Option<Instant>,
}

impl<S> FaultSink<S> {
    /// Around this sink, without any fault yet.
    #[must_use]
    pub fn new(inner: S, seed: u64) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            offered: 0,
            nth: BTreeMap::new(),
            lose: 0.0,
            lost: 0,
            delay: Duration::ZERO,
            down: false,
            down_until: None,
        };
        Self {
            inner,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The nth message offered, from 1, has this outcome and never reaches the wrapped sink. Redeliveries count.
    #[must_use]
    pub fn fail_nth(self, nth: u64, outcome: Outcome) -> Self {
        self.state().nth.insert(nth, outcome);
        self
    }

    /// Of messages that the wrapped sink acks, this share (0 to 1) is said to be in need of a retry: a broker that stored
    /// the message and whose answer was lost.
    #[must_use]
    pub fn drop_acks(self, share: f64) -> Self {
        self.state().lose = share;
        self
    }

    /// Waits this long before each message.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        self.state().delay = delay;
        self
    }

    /// From now on the sink is down, or up again.
    pub fn set_down(&self, down: bool) {
        let mut state = self.state();
        state.down = down;
        state.down_until = None;
    }

    /// The sink is down for this long.
    pub fn down_for(&self, time: Duration) {
        self.state().down_until = Some(Instant::now() + time);
    }

    /// How many messages were offered, those met by a scripted failure among them, but not by an outage.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.state().offered
    }

    /// How many acks were dropped.
    #[must_use]
    pub fn acks_lost(&self) -> u64 {
        self.state().lost
    }

    /// The wrapped sink.
    #[must_use]
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self) -> Result<(), SinkDown> {
        let until = self.down_until.is_some_and(|until| Instant::now() < until);
        if self.down || until {
            return Err(SinkDown::new("told to be down"));
        }
        Ok(())
    }
}

impl<S: Sink> FaultSink<S> {
    async fn one(&self, lane: &LaneRef, message: &Message) -> Result<Outcome, SinkDown> {
        let delay = self.state().delay;
        if !delay.is_zero() {
            sleep(delay).await;
            if !lane.is_held() {
                return Ok(Outcome::NotTried);
            }
        }
        let scripted = {
            let mut state = self.state();
            state.check()?;
            state.offered += 1;
            let nth = state.offered;
            state.nth.remove(&nth)
        };
        if let Some(outcome) = scripted {
            return Ok(outcome);
        }
        let batch = std::slice::from_ref(message);
        let outcomes = self.inner.publish(lane.clone(), batch).await?;
        let outcome = outcomes.into_iter().next().unwrap_or(Outcome::NotTried);
        let mut state = self.state();
        let share = state.lose.clamp(0.0, 1.0);
        if outcome == Outcome::Acked && state.rng.random_bool(share) {
            state.lost += 1;
            return Ok(Outcome::retry("the ack was lost"));
        }
        Ok(outcome)
    }
}

impl<S: Sink> Sink for FaultSink<S> {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        publish_each(&lane, batch, 1, |message| self.one(&lane, message)).await
    }
}

impl<S: fmt::Debug> fmt::Debug for FaultSink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultSink")
            .field("inner", &self.inner)
            .field("offered", &self.offered())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{event::Event, sink::MemorySink};

    fn batch(count: usize) -> Vec<Message> {
        let message = |_| Message::from_event(Event::new("t"), "/s", UNIX_EPOCH);
        (0..count).map(message).collect()
    }

    async fn publish(sink: &impl Sink, batch: &[Message]) -> Result<Vec<Outcome>, SinkDown> {
        let outcomes = sink.publish(LaneRef::detached(), batch).await?;
        Ok(outcomes.into_iter().collect())
    }

    #[tokio::test]
    async fn the_nth_message_fails_and_does_not_arrive() {
        let memory = MemorySink::new();
        let sink = FaultSink::new(memory.clone(), 1).fail_nth(2, Outcome::reject("no"));
        let batch = batch(3);
        let outcomes = publish(&sink, &batch).await.unwrap();
        assert_eq!(
            outcomes,
            [Outcome::Acked, Outcome::reject("no"), Outcome::Acked]
        );
        assert_eq!(memory.messages().len(), 2);
        assert_eq!(
            publish(&sink, &batch[1..2]).await.unwrap(),
            [Outcome::Acked]
        );
    }

    #[tokio::test]
    async fn lost_acks_are_of_messages_that_arrived_and_the_same_each_time() {
        let run = async || {
            let memory = MemorySink::new();
            let sink = FaultSink::new(memory.clone(), 7).drop_acks(0.3);
            let outcomes = publish(&sink, &batch(200)).await.unwrap();
            assert_eq!(memory.messages().len(), 200);
            let kept = outcomes.iter().filter(|of| **of == Outcome::Acked).count();
            assert_eq!(kept as u64 + sink.acks_lost(), 200);
            kept
        };
        let kept = run().await;
        assert!((110..170).contains(&kept), "{kept}");
        assert_eq!(run().await, kept);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_down_for_a_while_and_slow() {
        let sink = FaultSink::new(MemorySink::new(), 1).delay(Duration::from_secs(2));
        sink.down_for(Duration::from_secs(5));
        let batch = batch(1);
        assert!(publish(&sink, &batch).await.is_err());
        assert!(publish(&sink, &batch).await.is_err());
        assert_eq!(publish(&sink, &batch).await.unwrap(), [Outcome::Acked]);
        sink.set_down(true);
        assert!(publish(&sink, &batch).await.is_err());
        assert_eq!(sink.offered(), 1);
    }
}
