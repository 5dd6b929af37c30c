//! Failures of messages, of sinks and of the process in the middle of an attempt.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mainstay_outbox::{
    Admin, DeadCause, Event, Filter, KeyPolicy, LaneRef, MemorySink, Message, OutboxDb, Outcome,
    Outcomes, Sink, SinkDown,
};
use sqlx::Pool;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{on_each, outbox, put, quick, until};

on_each![
    a_rejected_message_is_dead_before_its_key_goes_on,
    a_waiting_message_holds_back_its_key_and_no_other,
    skipping_lets_the_key_overtake,
    attempts_end_in_the_dead_letters_and_a_redrive_brings_them_back,
    an_outage_spends_no_attempt,
    an_outage_of_one_sink_leaves_the_others_alone,
    a_message_that_panics_the_sink_dies_alone,
    a_sink_that_panics_before_it_has_a_future_strands_no_lane,
    a_sink_that_never_returns_is_cut_off,
];

const SOON: Duration = Duration::from_secs(15);

fn named(name: &str, key: &str) -> Event {
    Event::new("t").subject(name).key(key)
}

fn names(messages: &[Message]) -> Vec<&str> {
    messages.iter().filter_map(Message::subject).collect()
}

/// O1: never 2, 3, 1.
async fn a_rejected_message_is_dead_before_its_key_goes_on<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    let sink = MemorySink::new().respond(|message| match message.subject() {
        Some("1") => Outcome::reject("too large"),
        _ => Outcome::Acked,
    });
    put(
        &pool,
        &outbox,
        vec![named("1", "k"), named("2", "k"), named("3", "k")],
    )
    .await;
    let relay = quick(&pool, &outbox)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    timeout(SOON, sink.wait_for(2)).await.unwrap();
    relay.drain(SOON).await;
    assert_eq!(names(&sink.offered()), ["1", "2", "3"]);
    let dead = Admin::new(pool).dead(Filter::all(), 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].cause(), dead[0].reason()),
        (DeadCause::Rejected, "too large")
    );
}

async fn a_waiting_message_holds_back_its_key_and_no_other<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    let release = Arc::new(AtomicBool::new(false));
    let released = Arc::clone(&release);
    let sink = MemorySink::new().respond(move |message| match message.subject() {
        Some("1") if !released.load(Ordering::SeqCst) => Outcome::retry("not yet"),
        _ => Outcome::Acked,
    });
    put(
        &pool,
        &outbox,
        vec![
            named("1", "k"),
            named("2", "k"),
            named("x", "o"),
            named("3", "k"),
            named("y", "o"),
        ],
    )
    .await;
    let relay = quick(&pool, &outbox)
        .max_attempts(u32::MAX)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    timeout(SOON, sink.wait_for(2)).await.unwrap();
    until("the message failed a few times", async || {
        sink.offered().len() > 5
    })
    .await;
    assert_eq!(names(&sink.messages()), ["x", "y"]);
    release.store(true, Ordering::SeqCst);
    timeout(SOON, sink.wait_for(5)).await.unwrap();
    relay.drain(SOON).await;
    assert_eq!(names(&sink.messages()), ["x", "y", "1", "2", "3"]);
}

async fn skipping_lets_the_key_overtake<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    let sink = MemorySink::new().respond(|message| match (message.subject(), message.attempt()) {
        (Some("1"), ..3) => Outcome::Retry {
            after: Some(Duration::from_millis(200)),
            reason: "later".into(),
        },
        _ => Outcome::Acked,
    });
    put(
        &pool,
        &outbox,
        vec![named("1", "k"), named("2", "k"), named("3", "k")],
    )
    .await;
    let relay = quick(&pool, &outbox)
        .key_policy(KeyPolicy::Skip)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    timeout(SOON, sink.wait_for(3)).await.unwrap();
    relay.drain(SOON).await;
    assert_eq!(names(&sink.messages()), ["2", "3", "1"]);
}

async fn attempts_end_in_the_dead_letters_and_a_redrive_brings_them_back<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let outbox = outbox(&pool, 2).await;
    let mended = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&mended);
    let sink = MemorySink::new().respond(move |_| {
        if well.load(Ordering::SeqCst) {
            Outcome::Acked
        } else {
            Outcome::retry("broken")
        }
    });
    let relay = quick(&pool, &outbox)
        .max_attempts(3)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    put(&pool, &outbox, vec![named("1", "k"), named("2", "k")]).await;
    let admin = Admin::new(pool.clone());
    until("both are dead", async || {
        admin.lag().await.unwrap().dead == 2
    })
    .await;
    let dead = admin.dead(Filter::all(), 10).await.unwrap();
    assert_eq!(dead[0].cause(), DeadCause::Exhausted);
    assert_eq!(dead[0].message().attempt(), 3);
    assert_eq!(names(&sink.offered()), ["1", "1", "1", "2", "2", "2"]);

    mended.store(true, Ordering::SeqCst);
    assert_eq!(admin.redrive(Filter::all()).await.unwrap(), 2);
    let messages = timeout(SOON, sink.wait_for(2)).await.unwrap();
    assert_eq!(names(&messages), ["1", "2"]);
    assert_eq!(messages[0].attempt(), 1);
    let stats = relay.stats();
    assert_eq!((stats.dead, stats.retried), (2, 4));
    relay.drain(SOON).await;
}

/// A sink that counts how often it was asked while down.
#[derive(Clone, Default)]
struct Flaky {
    memory: MemorySink,
    down: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    batches: Arc<Mutex<Vec<usize>>>,
}

impl Sink for Flaky {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        if self.down.load(Ordering::SeqCst) {
            self.asked.fetch_add(1, Ordering::SeqCst);
            return Err(SinkDown::new("no route"));
        }
        self.batches.lock().unwrap().push(batch.len());
        self.memory.publish(lane, batch).await
    }
}

/// B1.
async fn an_outage_spends_no_attempt<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 4).await;
    let sink = Flaky::default();
    sink.down.store(true, Ordering::SeqCst);
    let relay = quick(&pool, &outbox)
        .max_attempts(3)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let events = (0..40)
        .map(|n| named(&n.to_string(), &format!("k{}", n % 7)))
        .collect();
    put(&pool, &outbox, events).await;
    until("the sink was probed well past the attempts", async || {
        sink.asked.load(Ordering::SeqCst) > 20
    })
    .await;
    sink.down.store(false, Ordering::SeqCst);
    let messages = timeout(SOON, sink.memory.wait_for(40)).await.unwrap();
    assert!(messages.iter().all(|message| message.attempt() == 1));
    assert_eq!(
        sink.batches.lock().unwrap()[0],
        1,
        "one message probes the sink that returns"
    );
    let stats = relay.stats();
    assert_eq!((stats.dead, stats.retried), (0, 0));
    relay.drain(SOON).await;
}

async fn an_outage_of_one_sink_leaves_the_others_alone<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    let (broken, well) = (MemorySink::new(), MemorySink::new());
    broken.set_down(true);
    // More for the broken sink than a batch holds, all before the others in the same lane.
    let mut events: Vec<Event> = (0..20)
        .map(|n| named(&n.to_string(), "b").topic("broken"))
        .collect();
    events.extend((0..20).map(|n| named(&n.to_string(), "w").topic("well")));
    put(&pool, &outbox, events).await;
    let relay = quick(&pool, &outbox)
        .batch(5)
        .sink("broken", broken.clone())
        .sink("well", well.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    timeout(SOON, well.wait_for(20)).await.unwrap();
    broken.set_down(false);
    timeout(SOON, broken.wait_for(20)).await.unwrap();
    relay.drain(SOON).await;
    assert_eq!(broken.messages().len(), 20);
}

async fn a_message_that_panics_the_sink_dies_alone<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    let sink = MemorySink::new().respond(|message| {
        assert_ne!(message.subject(), Some("poison"), "boom");
        Outcome::Acked
    });
    let mut events: Vec<Event> = (0..10)
        .map(|n| named(&n.to_string(), &n.to_string()))
        .collect();
    events.insert(4, named("poison", "p"));
    put(&pool, &outbox, events).await;
    let relay = quick(&pool, &outbox)
        .max_attempts(3)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let admin = Admin::new(pool.clone());
    until("the poison is dead and the rest delivered", async || {
        let lag = admin.lag().await.unwrap();
        (lag.pending, lag.dead) == (0, 1)
    })
    .await;
    assert_eq!(
        admin.dead(Filter::all(), 10).await.unwrap()[0]
            .message()
            .subject(),
        Some("poison")
    );
    relay.drain(SOON).await;
}

/// Panics while it makes its future, not while the future runs.
struct Hasty(MemorySink);

impl Sink for Hasty {
    fn publish(
        &self,
        lane: LaneRef,
        batch: &[Message],
    ) -> impl Future<Output = Result<Outcomes, SinkDown>> + Send {
        assert!(
            batch
                .iter()
                .all(|message| message.subject() != Some("poison")),
            "boom"
        );
        self.0.publish(lane, batch)
    }
}

async fn a_sink_that_panics_before_it_has_a_future_strands_no_lane<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    let sink = MemorySink::new();
    put(
        &pool,
        &outbox,
        vec![named("1", "a"), named("poison", "p"), named("2", "b")],
    )
    .await;
    let relay = quick(&pool, &outbox)
        .max_attempts(3)
        .sink("*", Hasty(sink.clone()))
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let admin = Admin::new(pool.clone());
    until("the poison is dead and the rest delivered", async || {
        let lag = admin.lag().await.unwrap();
        (lag.pending, lag.dead) == (0, 1)
    })
    .await;
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
    assert_eq!(names(&sink.messages()), ["1", "2"]);
}

/// Never answers for one message, at once for the others.
#[derive(Clone, Default)]
struct Stuck(MemorySink);

impl Sink for Stuck {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        if batch
            .iter()
            .any(|message| message.subject() == Some("stuck"))
        {
            std::future::pending::<()>().await;
        }
        self.0.publish(lane, batch).await
    }
}

async fn a_sink_that_never_returns_is_cut_off<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    let sink = Stuck::default();
    put(
        &pool,
        &outbox,
        vec![named("1", "a"), named("stuck", "b"), named("2", "c")],
    )
    .await;
    let relay = quick(&pool, &outbox)
        .publish_timeout(Duration::from_millis(30))
        .max_attempts(2)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    timeout(SOON, sink.0.wait_for(2)).await.unwrap();
    let admin = Admin::new(pool.clone());
    until("the stuck one is dead", async || {
        admin.lag().await.unwrap().dead == 1
    })
    .await;
    relay.drain(SOON).await;
}
