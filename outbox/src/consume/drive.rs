//! The loop of every consumer: keys side by side, each key in order, until the source ends or the shutdown comes.

mod task;

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt, future::join_all};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

pub(super) use self::task::Handling;
use self::task::{Settled, Task};
use super::{Consumed, ConsumerConfig, Handler};
use crate::sink::{
    Reason,
    cloudevents::{Received, Unreadable},
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
    handling: &Arc<Handling<H>>,
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
                    tasks.start(next, config, working, handling, &ending);
                }
            }
            item = source.next() => match item {
                Some(item) => {
                    if let Some(first) = keys.admit(item) {
                        tasks.start(first, config, working, handling, &ending);
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
        handling: &Arc<Handling<H>>,
        ending: &CancellationToken,
    ) {
        let item = Arc::new(item);
        let task = Task {
            item: Arc::clone(&item),
            config: config.clone(),
            working,
            handling: Arc::clone(handling),
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

#[cfg(test)]
mod tests;
