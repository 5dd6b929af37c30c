//! Policies by topic, parked keys, pauses, retention, delayed and unordered events: what the relay makes of them.

use std::time::Duration;

use mainstay_outbox::{
    Admin, Event, Filter, KeyPolicy, MemorySink, Message, OutboxDb, Outcome, Retention,
    store::Claim,
};
use sqlx::{AssertSqlSafe, Executor, IntoArguments, Pool};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::{on_each, outbox, put, quick, until};

on_each![
    a_parked_key_waits_for_an_operator_and_other_topics_do_not,
    policies_differ_by_topic,
    a_paused_topic_is_left_alone_until_it_is_resumed,
    what_is_delivered_is_kept_for_as_long_as_it_should_be,
    a_sink_that_comes_back_is_not_given_everything_at_once,
];

const SOON: Duration = Duration::from_secs(15);

fn event(topic: &str, name: &str) -> Event {
    Event::new("t").topic(topic).subject(name).key("k")
}

fn names(messages: &[Message]) -> Vec<&str> {
    messages.iter().filter_map(Message::subject).collect()
}

/// A statement without parameters, whatever the database.
async fn run<Db>(pool: &Pool<Db>, sql: &str)
where
    Db: OutboxDb,
    for<'c> &'c mut Db::Connection: Executor<'c, Database = Db>,
    Db::Arguments: IntoArguments<Db>,
{
    let mut conn = pool.acquire().await.unwrap();
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(&mut *conn).await.unwrap();
}

async fn a_parked_key_waits_for_an_operator_and_other_topics_do_not<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    let sink = MemorySink::new().respond(|message| match message.subject() {
        Some("1") => Outcome::reject("no such account"),
        _ => Outcome::Acked,
    });
    let relay = quick(&pool, &outbox)
        .key_policy(KeyPolicy::Park)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    put(
        &pool,
        &outbox,
        ["1", "2", "3"].map(|n| event("a", n)).to_vec(),
    )
    .await;
    put(&pool, &outbox, vec![event("b", "x")]).await;
    let admin = Admin::new(pool.clone());
    until("the key's messages are set aside", async || {
        admin.lag().await.unwrap().dead == 3
    })
    .await;
    put(&pool, &outbox, vec![event("a", "4"), event("b", "y")]).await;
    until("what follows is set aside as well", async || {
        admin.lag().await.unwrap().dead == 4
    })
    .await;
    timeout(SOON, sink.wait_for(2)).await.unwrap();
    relay.drain(SOON).await;
    assert_eq!(names(&sink.messages()), ["x", "y"]);
    let dead = admin.dead(Filter::all(), 10).await.unwrap();
    let causes: Vec<_> = dead
        .iter()
        .map(|letter| (letter.message().subject().unwrap(), letter.cause().as_str()))
        .collect();
    assert_eq!(
        causes,
        [
            ("1", "rejected"),
            ("2", "parked"),
            ("3", "parked"),
            ("4", "parked")
        ]
    );
}

async fn policies_differ_by_topic<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 1).await;
    let sink = MemorySink::new().respond(|message| {
        let first = message.subject().is_some_and(|name| name.ends_with('1'));
        if first && message.attempt() < 3 {
            return Outcome::Retry {
                after: Some(Duration::from_millis(100)),
                reason: "later".into(),
            };
        }
        Outcome::Acked
    });
    let relay = quick(&pool, &outbox)
        .topic_policy("hooks.*", KeyPolicy::Skip)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let of = |topic: &str, key: &str, names: [&str; 2]| {
        names.map(|name| Event::new("t").topic(topic).subject(name).key(key))
    };
    let mut events = of("hooks.a", "h", ["h1", "h2"]).to_vec();
    events.extend(of("orders", "o", ["o1", "o2"]));
    put(&pool, &outbox, events).await;
    let messages = timeout(SOON, sink.wait_for(4)).await.unwrap();
    relay.drain(SOON).await;
    let names = names(&messages);
    let at = |name| names.iter().position(|known| *known == name).unwrap();
    assert!(at("h2") < at("h1"), "hooks overtake: {names:?}");
    assert!(at("o1") < at("o2"), "orders wait: {names:?}");
}

async fn a_paused_topic_is_left_alone_until_it_is_resumed<Db>(pool: Pool<Db>)
where
    Db: OutboxDb,
    for<'c> &'c mut Db::Connection: Executor<'c, Database = Db>,
    Db::Arguments: IntoArguments<Db>,
{
    let outbox = outbox(&pool, 1).await;
    let since = match Db::NAME {
        "SQLite" => "0",
        "MySQL" => "utc_timestamp(6)",
        _ => "now()",
    };
    run(
        &pool,
        &format!(
            "INSERT INTO mainstay_outbox_pause (pattern, actor, since) VALUES ('hooks.*', 'tests', {since})"
        ),
    )
    .await;
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let batch = ["hooks.a", "orders", "hooks.b"].map(|topic| Event::new("t").topic(topic));
    for _ in 0..3 {
        put(&pool, &outbox, batch.to_vec()).await;
    }
    let messages = timeout(SOON, sink.wait_for(3)).await.unwrap();
    assert!(messages.iter().all(|message| message.topic() == "orders"));
    run(&pool, "DELETE FROM mainstay_outbox_pause").await;
    timeout(SOON, sink.wait_for(9)).await.unwrap();
    relay.drain(SOON).await;
}

async fn what_is_delivered_is_kept_for_as_long_as_it_should_be<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 4).await;
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .retention(Retention::Keep(Duration::from_secs(3_600)))
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    put(&pool, &outbox, (0..10).map(|_| Event::new("t")).collect()).await;
    timeout(SOON, sink.wait_for(10)).await.unwrap();
    relay.drain(SOON).await;
    let kept = <Db as Claim>::forget(pool.clone(), Duration::ZERO, 100);
    assert_eq!(kept.await.unwrap(), 10);
}

async fn a_sink_that_comes_back_is_not_given_everything_at_once<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, 8).await;
    let sink = MemorySink::new();
    sink.set_down(true);
    let relay = quick(&pool, &outbox)
        .max_attempts(1)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let events = |n: u32| (0..n).map(|n| Event::new("t").key(n.to_be_bytes()));
    put(&pool, &outbox, events(200).collect()).await;
    until("it was found down", async || relay.stats().lanes == 8).await;
    sink.set_down(false);
    timeout(SOON, sink.wait_for(200)).await.unwrap();
    relay.drain(SOON).await;
    let admin = Admin::new(pool);
    assert_eq!(admin.lag().await.unwrap().dead, 0, "no attempt was spent");
}
