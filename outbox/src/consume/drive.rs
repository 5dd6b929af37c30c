//! The loop of every consumer: keys side by side, each key in order, until the source ends or the shutdown comes.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, Stream, StreamExt, future::join_all};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Consumed, ConsumerConfig, Handled, Handler};
use crate::{
    TARGET,
    sink::{
        Reason,
        cloudevents::{Received, Unreadable},
    },
};

/// One delivery of a broker, to be settled once.
pub(super) trait Delivery: Send + Sync + 'static {
    /// The event.
    fn read(&self) -> Result<Received, Unreadable>;

    /// How often it was delivered before, as far as the broker tells.
    fn deliveries_before(&self) -> u32;

    /// Whether the broker can wait with the next delivery, so that we need not.
    fn can_be_delayed(&self) -> bool;

    /// It has taken effect.
    fn ack(&self) -> impl Future<Output = ()> + Send;

    /// It is to be delivered again, where the broker can: after this time.
    fn give_back(&self, after: Option<Duration>) -> impl Future<Output = ()> + Send;

    /// Makes it a dead letter and settles it. False if that failed; it is then still unsettled.
    fn bury(&self, reason: &Reason) -> impl Future<Output = bool> + Send;

    /// It is still being worked on.
    fn working(&self) -> impl Future<Output = ()> + Send;
}

/// How long a dead letter waits for the next try when it could not be written.
const BURY_AGAIN: Duration = Duration::from_secs(5);
const AFTER_MAX: Duration = Duration::from_hours(1);

/// Handles what the source yields until it ends or the token is cancelled; then ends what is under way.
///
/// Once the token is cancelled the source must yield what the broker has sent already, and end. Only then is anything given
/// back, in the order of arrival: earlier, the broker could hand it straight back to us, or hand on what comes behind it.
///
/// `working` is how often the broker wants to hear that a delivery is still being worked on.
pub(super) async fn drive<D: Delivery, H: Handler>(
    source: impl Stream<Item = D> + Send,
    config: &ConsumerConfig,
    working: Option<Duration>,
    handler: &Arc<H>,
    shutdown: &CancellationToken,
) -> Consumed {
    let mut source = pin!(source.enumerate().map(Item::new));
    let mut keys = Keys::new();
    let mut total = Consumed::default();
    // Ends the waits of tasks as well when the source ends by itself.
    let ending = shutdown.child_token();
    let mut tasks = Tasks {
        set: JoinSet::new(),
        items: HashMap::new(),
    };
    let mut tick = interval(working.unwrap_or(Duration::from_hours(1)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = true;
    while open {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = tasks.set.join_next_with_id() => {
                let ended = tasks.ended(ended);
                total += ended.consumed;
                if let Some(next) = keys.next(ended.key) {
                    tasks.start(next, config, working, handler, &ending);
                }
            }
            item = source.next() => match item {
                Some(item) => {
                    if let Some(first) = keys.admit(item) {
                        tasks.start(first, config, working, handler, &ending);
                    }
                }
                None => open = false,
            },
            _ = tick.tick(), if working.is_some() => {
                join_all(keys.waiting().map(|item| item.delivery.working())).await;
            }
        }
    }
    ending.cancel();
    let mut back: Vec<Arc<Item<D>>> = keys.drain().map(Arc::new).collect();
    let mut drained = pin!(sleep(config.drain_timeout));
    while open || !tasks.set.is_empty() {
        tokio::select! {
            biased;
            Some(ended) = tasks.set.join_next_with_id() => {
                let ended = tasks.ended(ended);
                total += ended.consumed;
                back.extend(ended.unsettled);
            }
            () = &mut drained, if !tasks.set.is_empty() => tasks.set.shutdown().await,
            item = source.next(), if open => match item {
                Some(item) => back.push(Arc::new(item)),
                None => open = false,
            },
            _ = tick.tick(), if working.is_some() => {
                let held = back.iter().chain(tasks.cut_off());
                join_all(held.map(|item| item.delivery.working())).await;
            }
        }
    }
    back.extend(tasks.items.into_values());
    back.sort_by_key(|item| item.place);
    for item in back {
        item.delivery.give_back(None).await;
        total.given_back += 1;
    }
    total
}

type Key = Option<Vec<u8>>;

/// A delivery with its event.
struct Item<D> {
    /// Counts arrivals.
    place: usize,
    delivery: D,
    event: Result<Received, Unreadable>,
}

impl<D: Delivery> Item<D> {
    fn new((place, delivery): (usize, D)) -> Self {
        let event = delivery.read();
        Self {
            place,
            delivery,
            event,
        }
    }

    fn key(&self) -> Key {
        let event = self.event.as_ref().ok();
        event.and_then(Received::key).map(<[u8]>::to_vec)
    }
}

/// Who may start and who waits: one delivery of a key at a time, in order of arrival; those without a key at once.
struct Keys<D> {
    busy: HashMap<Vec<u8>, VecDeque<Item<D>>>,
}

impl<D: Delivery> Keys<D> {
    fn new() -> Self {
        Self {
            busy: HashMap::new(),
        }
    }

    /// Takes a delivery in, and gives it back if it may start now.
    fn admit(&mut self, item: Item<D>) -> Option<Item<D>> {
        let Some(key) = item.key() else {
            return Some(item);
        };
        if let Some(waiting) = self.busy.get_mut(&key) {
            waiting.push_back(item);
            return None;
        }
        self.busy.insert(key, VecDeque::new());
        Some(item)
    }

    /// The next of this key, now that one has ended.
    fn next(&mut self, key: Key) -> Option<Item<D>> {
        let key = key?;
        let next = self.busy.get_mut(&key)?.pop_front();
        if next.is_none() {
            self.busy.remove(&key);
        }
        next
    }

    fn waiting(&self) -> impl Iterator<Item = &Item<D>> {
        self.busy.values().flatten()
    }

    fn drain(&mut self) -> impl Iterator<Item = Item<D>> {
        self.busy.drain().flat_map(|(_, waiting)| waiting)
    }
}

/// The deliveries under way, each in a task. The items outlive tasks that are cut off.
struct Tasks<D> {
    set: JoinSet<Settled>,
    items: HashMap<Id, Arc<Item<D>>>,
}

/// A task that ended.
struct Ended<D> {
    key: Key,
    consumed: Consumed,
    /// To be given back.
    unsettled: Option<Arc<Item<D>>>,
}

impl<D: Delivery> Tasks<D> {
    fn start<H: Handler>(
        &mut self,
        item: Item<D>,
        config: &ConsumerConfig,
        working: Option<Duration>,
        handler: &Arc<H>,
        ending: &CancellationToken,
    ) {
        let item = Arc::new(item);
        let task = Task {
            item: Arc::clone(&item),
            config: config.clone(),
            working,
            handler: Arc::clone(handler),
            ending: ending.clone(),
        };
        let started = self.set.spawn(task.run());
        self.items.insert(started.id(), item);
    }

    fn ended(&mut self, ended: Result<(Id, Settled), JoinError>) -> Ended<D> {
        let (id, settled) = match ended {
            Ok(ended) => ended,
            // Handlers' panics are caught in the task; a delivery whose settling panics comes again.
            Err(error) => (error.id(), Settled::Yes(Consumed::default())),
        };
        let item = self.items.remove(&id);
        let key = item.as_ref().and_then(|item| item.key());
        let (consumed, unsettled) = match settled {
            Settled::Yes(consumed) => (consumed, None),
            Settled::No(consumed) => (consumed, item),
        };
        Ended {
            key,
            consumed,
            unsettled,
        }
    }

    /// What has no task any more, because the time of all is over.
    fn cut_off(&self) -> impl Iterator<Item = &Arc<Item<D>>> {
        let over = self.set.is_empty();
        self.items.values().filter(move |_| over)
    }
}

/// Whether the broker knows what became of a delivery, and what was done.
enum Settled {
    Yes(Consumed),
    /// Everything is to end.
    No(Consumed),
}

/// One delivery on its way to being settled.
struct Task<D, H> {
    item: Arc<Item<D>>,
    config: ConsumerConfig,
    working: Option<Duration>,
    handler: Arc<H>,
    ending: CancellationToken,
}

impl<D: Delivery, H: Handler> Task<D, H> {
    async fn run(self) -> Settled {
        let mut consumed = Consumed::default();
        let mut event = match &self.item.event {
            Ok(event) => event.clone(),
            Err(unreadable) => {
                let reason = Reason::new(&unreadable.to_string());
                return self.bury(&reason, consumed).await;
            }
        };
        let mut attempt = self.item.delivery.deliveries_before().saturating_add(1);
        let mut wait = Duration::ZERO;
        loop {
            if attempt > self.config.attempts_max {
                // Only by deliveries that ended without an answer: it has killed its consumer each time.
                let reason = Reason::from("every attempt ended without an answer");
                return self.bury(&reason, consumed).await;
            }
            event.set_attempt(attempt);
            let (after, reason) = match self.handle(event.clone()).await {
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
            if !self.meanwhile(sleep(wait)).await {
                return Settled::No(consumed);
            }
            attempt = attempt.saturating_add(1);
        }
    }

    /// The handler's answer; a panic and silence are answers too.
    async fn handle(&self, event: Received) -> Handled {
        let handled = AssertUnwindSafe(async { self.handler.handle(event).await }).catch_unwind();
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

    /// Waits, and tells the broker meanwhile; false once everything is to end.
    async fn meanwhile(&self, wait: impl Future<Output = ()>) -> bool {
        let mut wait: Pin<&mut _> = pin!(wait);
        loop {
            tokio::select! {
                biased;
                () = self.ending.cancelled() => return false,
                () = &mut wait => return true,
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
            if !self.meanwhile(sleep(BURY_AGAIN)).await {
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

#[cfg(test)]
mod tests;
