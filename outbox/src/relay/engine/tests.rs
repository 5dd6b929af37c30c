//! The engine where the database is not asked.

use std::time::UNIX_EPOCH;

use sqlx::{Sqlite, SqlitePool};
use tokio::time::advance;

use super::*;
use crate::{
    event::Event,
    gate::{Pass, Stamp},
    message::Message,
    plan::{KeyPolicy, Tried, Way},
    relay::{Relay, publish},
    sink::{MemorySink, Outcome, SinkDown},
    store::Candidate,
};

/// An engine that holds lane 0 of a database that it is never to ask.
fn engine() -> Engine<Sqlite> {
    let pool = SqlitePool::connect_lazy("sqlite::memory:").unwrap();
    let second = Duration::from_secs(1);
    let built = Relay::builder(pool.clone())
        .sink("*", MemorySink::new())
        .sink_backoff(Backoff::constant(second));
    let (relay, tally) = (Uuid::now_v7(), Arc::default());
    let mut engine = Engine::new(pool, relay, built.config, 1, built.routes, None, tally);
    let slot = Slot {
        epoch: 1,
        lease: Arc::new(Lease::new(Instant::now(), second)),
        rewinds: 0,
        busy: false,
        rest_until: None,
    };
    engine.lanes.insert(0, slot);
    engine
}

fn candidate(id: i64, topic: &str) -> Candidate {
    let event = Event::new("t").topic(topic).key("k");
    Candidate {
        lane: 0,
        id,
        attempts: 0,
        suspect: false,
        parked: false,
        failures: None,
        age: Duration::ZERO,
        message: Message::from_event(event, "/s", UNIX_EPOCH),
    }
}

impl Engine<Sqlite> {
    /// Takes in what came of a batch that was sent just before.
    /// These tests say themselves when a probe is sent.
    fn judges(&mut self, mut result: publish::Result, now: Instant) {
        result.stamp = self.routes.get_mut(0).unwrap().gate.stamp();
        self.judge(&result, now);
    }
}

fn result(crashed: bool, suspect: bool, down: Option<SinkDown>) -> publish::Result {
    let tried = Tried {
        id: 1,
        attempts: 0,
        policy: KeyPolicy::Block,
        failures: None,
        age: Duration::ZERO,
    };
    publish::Result {
        route: 0,
        stamp: Stamp::default(),
        outcomes: vec![(tried, Outcome::retry("crashed"))],
        bytes: 0,
        crashed,
        suspect,
        down,
        looked: Instant::now(),
        took: Duration::ZERO,
    }
}

fn pass(engine: &Engine<Sqlite>) -> Pass {
    match engine.routes.way("any", usize::MAX, Instant::now()) {
        Way::Route { pass, .. } => pass,
        Way::None => panic!("there is a sink for all"),
    }
}

/// The earlier message of the key was passed over in the database, by its topic; the later one's was not known yet.
#[tokio::test(start_paused = true)]
async fn a_gate_that_opens_during_a_look_stays_shut_for_that_look() {
    let mut engine = engine();
    let down = || result(false, false, Some(SinkDown::new("gone")));
    engine.judges(down(), Instant::now());
    engine.shut.met.insert("earlier".to_owned());
    let looked = Instant::now();
    assert_eq!(engine.topics_met(looked).shut, ["earlier"]);
    advance(Duration::from_secs(2)).await;
    assert_eq!(pass(&engine), Pass::Probe);

    let (cuts, _) = engine.cut(vec![candidate(2, "later")], looked);
    assert!(cuts.iter().all(|(_, cut)| cut.publish.is_empty()));
    assert!(engine.topics_met(Instant::now()).shut.is_empty());
    let due = vec![candidate(1, "earlier"), candidate(2, "later")];
    let (cuts, _) = engine.cut(due, Instant::now());
    assert_eq!(cuts[0].1.publish[0].2.id, 1);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_never_answers_counts_as_down_unless_a_suspect_hung_it() {
    let hung = |suspect| result(true, suspect, Some(SinkDown::new("no answer")));
    let mut engine = engine();
    engine.judges(hung(true), Instant::now());
    assert_eq!(pass(&engine), Pass::Open);
    engine.judges(hung(false), Instant::now());
    assert_eq!(pass(&engine), Pass::Shut);
    advance(Duration::from_secs(1)).await;
    assert_eq!(pass(&engine), Pass::Probe);
    engine.routes.get_mut(0).unwrap().gate.sent();
    engine.judges(hung(true), Instant::now());
    assert_eq!(pass(&engine), Pass::Shut, "a probe that hangs is no answer");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_does_not_end_an_outage() {
    let mut engine = engine();
    let down = || result(false, false, Some(SinkDown::new("gone")));
    engine.judges(down(), Instant::now());
    advance(Duration::from_secs(1)).await;
    engine.routes.get_mut(0).unwrap().gate.sent();
    engine.judges(result(true, false, None), Instant::now());
    assert_eq!(pass(&engine), Pass::Shut);
}

#[tokio::test]
async fn a_lane_whose_release_may_yet_come_to_pass_is_worked_on_no_longer() {
    let mut engine = engine();
    let held = engine.held(|_| true);
    assert!(
        !engine.give_back(held).await,
        "there are no tables: it fails"
    );
    assert!(engine.lanes.is_empty());
}

#[tokio::test]
async fn a_batch_that_nobody_tried_frees_its_lane_in_its_own_epoch_only() {
    for (epoch, busy) in [(0, true), (1, false)] {
        let mut engine = engine();
        engine.lanes.get_mut(&0).unwrap().busy = true;
        engine.flight.unsettled.push(Settlement {
            held: Held { lane: 0, epoch },
            batch: 1,
            acked: Vec::new(),
            failed: Vec::new(),
            dead: Vec::new(),
        });
        engine.free_untried();
        assert_eq!(engine.lanes[&0].busy, busy);
    }
}

/// What is skipped beside a topic of the same sink must not go either: its key's earlier message may be among that.
#[tokio::test(start_paused = true)]
async fn while_what_returns_is_held_nothing_of_its_sink_goes() {
    let mut engine = engine();
    let now = Instant::now();
    engine.judges(result(false, false, Some(SinkDown::new("gone"))), now);
    engine.judges(result(false, false, None), now);
    assert_eq!(pass(&engine), Pass::Paced(1));
    engine.shut.met.insert("earlier".to_owned());
    for (held, goes) in [(Holds::Probes, true), (Holds::Returning, false)] {
        engine.shut.held = held;
        let met = engine.topics_met(now);
        assert_eq!(met.closed, ["earlier"]);
        assert_eq!(met.shut.is_empty(), goes);
        let (cuts, _) = engine.cut(vec![candidate(2, "later")], now);
        assert_eq!(!cuts[0].1.publish.is_empty(), goes);
    }
}

#[tokio::test(start_paused = true)]
async fn marks_are_of_the_server_that_they_were_read_from() {
    let server = |name: &str, started_micros| {
        Some(Server {
            name: name.to_owned(),
            started_micros,
            blur_micros: 1,
        })
    };
    let [a, again, b] = [server("a", 10), server("a", 20), server("b", 20)];
    let mut engine = engine();
    engine.marks.ids_in_order = true;
    for (nth, (answers, forgets)) in [
        (None, false),
        (a.clone(), false),
        (a.clone(), false),
        (server("a", 11), false),
        (server("a", 12), false),
        (None, false),
        (server("a", 12), false),
        (again.clone(), true),
        (again, false),
        (None, false),
        (b.clone(), true),
        (b, false),
        (a.clone(), true),
    ]
    .into_iter()
    .enumerate()
    {
        let now = Instant::now();
        engine.marks.fell = false;
        engine.marks.horizon.saw(1, 1, now);
        engine.clock.poll = now + Duration::from_secs(1);
        engine.answered(answers);
        let looks = engine.clock.poll == now;
        let knows_nothing = engine.marks.fell && engine.marks.horizon.seeks();
        assert_eq!((knows_nothing, looks), (forgets, forgets), "answer {nth}");
    }
    // Where there are no marks every look begins at the head.
    engine.marks.ids_in_order = false;
    engine.marks.fell = false;
    engine.answered(server("c", 10));
    assert!(!engine.marks.fell);
    engine.marks.ids_in_order = true;
    engine.answered(a);
    assert!(engine.marks.fell);
}

/// The engine against a database, turn by turn.
mod postgres {
    use sqlx::{
        AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, postgres::PgPoolOptions,
    };

    use super::*;
    use crate::{Outbox, OutboxConfig, mark::GRACE, migrate_with_lanes};

    struct World {
        engine: Engine<Postgres>,
        pool: PgPool,
        outbox: Outbox<Postgres>,
        sink: MemorySink,
        admin: PgConnection,
        name: String,
    }

    impl World {
        async fn new() -> Self {
            let url = std::env::var("MAINSTAY_TEST_POSTGRES_URL")
                .expect("MAINSTAY_TEST_POSTGRES_URL must name a Postgres server");
            let name = format!("outbox_{}", Uuid::now_v7().simple());
            let mut admin = PgConnection::connect(&url).await.unwrap();
            let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
            sqlx::raw_sql(create).execute(&mut admin).await.unwrap();
            let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
            let pool = PgPoolOptions::new().connect_with(options.database(&name));
            let pool = pool.await.unwrap();
            migrate_with_lanes(&pool, 1).await.unwrap();
            let sink = MemorySink::new();
            let built = Relay::builder(pool.clone())
                .sink("*", sink.clone())
                .sweep_interval(Duration::from_secs(3_600));
            let mut engine = Engine::new(
                pool.clone(),
                Uuid::now_v7(),
                built.config,
                1,
                built.routes,
                None,
                Arc::default(),
            );
            engine.clock.sweep = Instant::now() + Duration::from_secs(3_600);
            Self {
                engine,
                pool,
                outbox: Outbox::new(OutboxConfig::default()),
                sink,
                admin,
                name,
            }
        }

        /// Everything that a relay does until it would wait.
        async fn turn(&mut self) {
            let now = Instant::now();
            (
                self.engine.clock.poll,
                self.engine.clock.heads,
                self.engine.clock.survey,
            ) = (now, now, now);
            self.engine.step().await;
            while let Some(joined) = self.engine.flight.publishing.join_next().await {
                self.engine.collect(joined);
            }
        }

        async fn turns_until(&mut self, what: &str, mut so: impl FnMut(&Self) -> bool) {
            let deadline = Instant::now() + Duration::from_secs(10);
            while !so(self) {
                assert!(Instant::now() < deadline, "waited in vain until {what}");
                self.turn().await;
            }
        }

        async fn put(&self, subject: &str) {
            let mut tx = self.pool.begin().await.unwrap();
            let event = Event::new("t").subject(subject);
            self.outbox.enqueue(&mut tx, event).await.unwrap();
            tx.commit().await.unwrap();
        }

        /// Those of relays, the one of the pool that they were given among them.
        async fn connections(&mut self) -> i64 {
            sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'a relay'",
            )
            .bind(&self.name)
            .fetch_one(&mut self.admin)
            .await
            .unwrap()
        }

        /// Throws out whoever is connected to the database first.
        async fn without_connections(&mut self, then: &str) {
            sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
            )
            .bind(&self.name)
            .execute(&mut self.admin)
            .await
            .unwrap();
            let then = AssertSqlSafe(then.to_owned());
            sqlx::raw_sql(then).execute(&mut self.admin).await.unwrap();
        }

        fn mark(&self) -> i64 {
            self.engine.marks.layers.marks(0)[0].0
        }

        fn has(&self, subject: &str) -> bool {
            let messages = self.sink.messages();
            messages
                .iter()
                .any(|message| message.subject() == Some(subject))
        }

        async fn gone(mut self) {
            drop(self.engine);
            self.pool.close().await;
            let drop = AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name));
            sqlx::raw_sql(drop).execute(&mut self.admin).await.unwrap();
        }
    }

    /// G1, and what comes after it.
    #[tokio::test]
    #[ignore = "needs Postgres; tests/run provides it"]
    async fn an_open_writer_stalls_neither_delivery_nor_the_mark_and_is_found_when_it_commits() {
        let mut world = World::new().await;
        let pool = world.pool.clone();
        let began = Instant::now();
        let mut late = pool.begin().await.unwrap();
        let event = Event::new("t").subject("late");
        world.outbox.enqueue(&mut late, event).await.unwrap();
        world.put("other").await;
        world
            .turns_until("the other is delivered", |world| world.has("other"))
            .await;
        for _ in 0..3 {
            world.turn().await;
            let waited = began.elapsed();
            assert!(
                world.mark() < 1 || waited > GRACE,
                "it may commit at any moment"
            );
        }
        world
            .turns_until("the writer is passed", |world| world.mark() >= 2)
            .await;
        world.put("more").await;
        world
            .turns_until("more is delivered", |world| world.has("more"))
            .await;

        late.commit().await.unwrap();
        world.turn().await;
        assert!(world.has("late"), "found at the next look");
        world
            .turns_until("the mark has passed all", |world| world.mark() >= 3)
            .await;
        world.gone().await;
    }

    #[tokio::test]
    #[ignore = "needs Postgres; tests/run provides it"]
    async fn a_held_snapshot_does_not_hold_the_mark() {
        let mut world = World::new().await;
        let pool = world.pool.clone();
        let mut reader = pool.begin().await.unwrap();
        sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1")
            .execute(&mut *reader)
            .await
            .unwrap();
        for n in 0..5 {
            world.put(&n.to_string()).await;
        }
        world
            .turns_until("the mark has passed all", |world| world.mark() == 5)
            .await;
        drop(reader);
        world.gone().await;
    }

    #[tokio::test]
    #[ignore = "needs Postgres; tests/run provides it"]
    async fn rows_put_back_are_found_when_told_of_and_by_the_sweep_when_not() {
        let mut world = World::new().await;
        for n in 0..5 {
            world.put(&n.to_string()).await;
        }
        world
            .turns_until("the mark has passed all", |world| world.mark() == 5)
            .await;
        for (id, told) in [(1_i64, true), (2, false)] {
            sqlx::query(
                "WITH told AS (UPDATE mainstay_outbox_lane SET rewinds = rewinds + 1 WHERE $2)
                 INSERT INTO mainstay_outbox_message
                     (lane, id, event_id, source, type, topic, subject, time, headers, payload)
                 VALUES (0, $1, gen_random_uuid(), '/', 't', 't', 'back ' || $1, now(), '[]', '')",
            )
            .bind(id)
            .bind(told)
            .execute(&world.pool)
            .await
            .unwrap();
            let name = format!("back {id}");
            // The first look finds out that the lane's rows are others than it knew, the second takes them.
            world.turn().await;
            world.turn().await;
            assert_eq!(world.has(&name), told, "{name}");
            world.engine.clock.sweep = Instant::now();
            world
                .turns_until("it is found", |world| world.has(&name))
                .await;
            world
                .turns_until("the mark has passed all", |world| world.mark() == 5)
                .await;
        }
        world.gone().await;
    }

    /// As a restore is put in place: a copy from before the last events takes the database's name. Whoever was connected is
    /// thrown out, and the pool, which tests its connections, opens others: no statement fails.
    #[tokio::test]
    #[ignore = "needs Postgres; tests/run provides it"]
    async fn a_database_that_took_anothers_name_unnoticed_is_looked_at_from_its_beginning() {
        let mut world = World::new().await;
        let limit = Duration::from_secs(5);
        world.engine.connections = Connections::new(world.pool.clone(), true, limit);
        world.put("before").await;
        world
            .turns_until("it is delivered", |world| world.mark() == 1)
            .await;
        let [name, copy, left] = ["", "_copy", "_left"].map(|end| format!("{}{end}", world.name));
        world
            .without_connections(&format!("CREATE DATABASE {copy} TEMPLATE {name}"))
            .await;
        for n in 0..5 {
            world.put(&n.to_string()).await;
        }
        world
            .turns_until("the mark has passed all", |world| world.mark() == 6)
            .await;

        world
            .without_connections(&format!("ALTER DATABASE {name} RENAME TO {left}"))
            .await;
        world
            .without_connections(&format!("ALTER DATABASE {copy} RENAME TO {name}"))
            .await;
        world.put("behind the mark").await;
        world
            .turns_until("it is found", |world| world.has("behind the mark"))
            .await;
        assert_eq!(world.engine.database.failures, 0);
        world
            .turns_until("the mark has passed it", |world| world.mark() == 2)
            .await;
        world
            .without_connections(&format!("DROP DATABASE {left}"))
            .await;
        world.gone().await;
    }

    /// What waits for a sink that is down, or is paused, is stepped over once; what goes elsewhere is found between and behind.
    #[tokio::test]
    #[ignore = "needs Postgres; tests/run provides it"]
    async fn what_may_not_go_is_passed_and_comes_back_whole() {
        let mut world = World::new().await;
        let pool = world.pool.clone();
        let operator = crate::Admin::new(pool.clone());
        operator.pause("paused").await.unwrap();
        world.turn().await;
        let of = |topic: &str, subject: &str| Event::new("t").topic(topic).subject(subject);
        let mut late = pool.begin().await.unwrap();
        for (topic, name) in [("paused", "late paused"), ("other", "late")] {
            let event = of(topic, name);
            world.outbox.enqueue(&mut late, event).await.unwrap();
        }
        for n in 0..1_500 {
            let mut conn = pool.acquire().await.unwrap();
            let event = of("paused", &n.to_string());
            world.outbox.enqueue(&mut conn, event).await.unwrap();
        }
        let passed = |world: &World| world.engine.marks.layers.above(0);
        world
            .turns_until("what waits is passed, but for what came last", |world| {
                passed(world) > 1_400
            })
            .await;
        assert_eq!(world.mark(), 0, "nothing is done");
        late.commit().await.unwrap();
        world.put("now").await;
        world
            .turns_until("what was late is found", |world| {
                world.has("late") && world.has("now")
            })
            .await;
        assert!(!world.has("late paused"));
        world
            .turns_until("it is passed again", |world| passed(world) > 1_400)
            .await;

        // The sweep begins before what was passed, and finds nothing there.
        world.engine.clock.sweep = Instant::now();
        world.turn().await;
        world
            .turns_until("it is passed again", |world| passed(world) > 1_400)
            .await;
        operator.resume("paused").await.unwrap();
        world
            .turns_until("all are delivered", |world| {
                world.sink.messages().len() == 1_503
            })
            .await;
        world
            .turns_until("all is done", |world| world.mark() >= 1_503)
            .await;
        world.gone().await;
    }

    #[tokio::test]
    #[ignore = "needs Postgres; tests/run provides it"]
    async fn connections_of_a_relays_own_end_with_it_and_there_are_none_where_it_shares() {
        let mut world = World::new().await;
        for (nth, shares) in [false, true].into_iter().enumerate() {
            let options = world.pool.connect_options().as_ref().clone();
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .connect_with(options.application_name("a relay"))
                .await
                .unwrap();
            let mut relay = Relay::builder(pool.clone()).sink("*", world.sink.clone());
            if shares {
                relay = relay.shared_connections();
            }
            let relay = relay.build().await.unwrap();
            let relay = relay.spawn(CancellationToken::new());
            world.put("event").await;
            world.sink.wait_for(nth + 1).await;
            assert_eq!(world.connections().await == 1, shares);
            relay.drain(Duration::from_secs(5)).await;
            let deadline = Instant::now() + Duration::from_secs(5);
            while world.connections().await > 1 {
                assert!(Instant::now() < deadline, "the relay's own are left open");
            }
            assert!(!pool.is_closed());
            pool.close().await;
        }
        world.gone().await;
    }

    /// One message that waits for its retry, and many of its key behind it.
    #[tokio::test]
    #[ignore = "needs Postgres; tests/run provides it"]
    async fn what_waits_behind_a_retry_is_passed_and_goes_in_its_time() {
        let mut world = World::new().await;
        sqlx::query(
            "INSERT INTO mainstay_outbox_message
                 (lane, event_id, source, type, topic, subject, time, key, headers, payload, retry_at)
             SELECT 0, gen_random_uuid(), '/', 't', 't', n::text, now(), 'hot', '[]', '',
                 CASE WHEN n = 1 THEN now() + interval '3 s' END
             FROM generate_series(1, 1500) n",
        )
        .execute(&world.pool)
        .await
        .unwrap();
        world.put("other").await;
        world.engine.hints.walks = true;
        world
            .turns_until("what waits is passed, but for what came last", |world| {
                world.engine.marks.layers.above(0) > 1_400
            })
            .await;
        assert_eq!(world.mark(), 0, "nothing is done");
        assert!(world.has("other") && !world.has("1"));
        world
            .turns_until("all are delivered", |world| {
                world.sink.messages().len() == 1_501
            })
            .await;
        let hot = world
            .sink
            .messages()
            .into_iter()
            .filter(|one| one.key().is_some());
        let order: Vec<u32> = hot
            .map(|one| one.subject().unwrap().parse().unwrap())
            .collect();
        assert!(order.is_sorted());
        world
            .turns_until("all is done", |world| world.mark() >= 1_501)
            .await;
        world.gone().await;
    }

    /// A look may take longer than the lease.
    #[tokio::test]
    #[ignore = "needs Postgres; tests/run provides it"]
    async fn lanes_are_renewed_beside_a_statement_that_takes_long() {
        let mut world = World::new().await;
        world
            .turns_until("the lane is held", |world| !world.engine.lanes.is_empty())
            .await;
        let pool = world.pool.clone();
        for (what, renews) in [("claim", true), ("release", false)] {
            let due: f64 = sqlx::query_scalar(
                "UPDATE mainstay_outbox_lane SET lease_until = clock_timestamp() + interval '100 ms'
                 RETURNING extract(epoch FROM lease_until)::float8",
            )
            .fetch_one(&pool)
            .await
            .unwrap();
            world.engine.clock.beat = Instant::now();
            // Ends when the lease was extended, or has run out long ago.
            let statement = async {
                loop {
                    let (until, now): (f64, f64) = sqlx::query_as(
                        "SELECT extract(epoch FROM lease_until)::float8, extract(epoch FROM clock_timestamp())::float8
                         FROM mainstay_outbox_lane",
                    )
                    .fetch_one(&pool)
                    .await?;
                    if until > due || now > due + 0.2 {
                        return Ok(until > due);
                    }
                }
            };
            assert_eq!(
                world.engine.ask(what, statement).await,
                Some(renews),
                "{what}"
            );
            assert_eq!(world.engine.clock.beat > Instant::now(), renews);
        }
        world.gone().await;
    }

    /// G5: the sequence hands out ids that sessions keep for later.
    #[tokio::test]
    #[ignore = "needs Postgres; tests/run provides it"]
    async fn a_cached_sequence_has_no_marks() {
        let mut world = World::new().await;
        sqlx::query("ALTER TABLE mainstay_outbox_message ALTER COLUMN id SET CACHE 32")
            .execute(&world.pool)
            .await
            .unwrap();
        let (mut one, mut two) = (
            world.pool.acquire().await.unwrap(),
            world.pool.acquire().await.unwrap(),
        );
        for n in 0..5 {
            for conn in [&mut one, &mut two] {
                let event = Event::new("t").subject(n.to_string());
                world.outbox.enqueue(conn, event).await.unwrap();
            }
            let due = (n + 1) * 2;
            world
                .turns_until("all are delivered", |world| {
                    world.sink.messages().len() == due
                })
                .await;
        }
        assert_eq!(world.mark(), 0);
        drop((one, two));
        world.gone().await;
    }
}
