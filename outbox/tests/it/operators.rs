//! What operators' commands cost those who work meanwhile.

use std::time::Duration;

use mainstay_outbox::{
    Admin, Bulk, DeadCause, ErrorKind, Event, Filter, KeyPolicy, MemorySink, OutboxDb, Outcome,
};
use sqlx::{AssertSqlSafe, Executor, Pool};
use tokio_util::sync::CancellationToken;

use crate::support::{outbox, put, quick, sqlite, until};

/// There is one lock to write, which producers want too: it is not held while somebody looks for what is meant.
#[tokio::test]
async fn sqlite_is_not_locked_while_an_operator_looks() {
    let database = sqlite().await;
    outbox(&database.pool, 2).await;
    let options = database.pool.connect_options().as_ref().clone();
    let impatient = sqlx::sqlite::SqlitePoolOptions::new()
        .connect_with(options.busy_timeout(Duration::ZERO))
        .await
        .unwrap();
    let admin = Admin::new(impatient);
    let writer = database.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(admin.replay(Filter::key("k")).await.unwrap(), 0);
    assert_eq!(admin.redrive(Filter::key("k")).await.unwrap(), 0);
    let none = admin.discard(Filter::key("k")).await.unwrap();
    assert_eq!((none.discarded, none.released), (0, 0));
    drop(writer);
}

/// A key's first letter has gone back, and dies again while an operator has seen only those after it.
/// `key` is how the database writes the name of that column; `waits` says whether somebody there waits for a lock.
async fn a_letter_that_dies_after_the_look_is_not_overtaken<Db: OutboxDb>(
    pool: Pool<Db>,
    key: &str,
    mut waits: impl AsyncFnMut() -> bool,
) where
    for<'c> &'c mut Db::Connection: Executor<'c, Database = Db>,
{
    let outbox = outbox(&pool, 1).await;
    let sink = MemorySink::new().respond(|message| match message.subject() {
        Some("1") => Outcome::reject("no"),
        _ => Outcome::Acked,
    });
    let relay = quick(&pool, &outbox)
        .key_policy(KeyPolicy::Park)
        .sink("*", sink)
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let event = |name: &str| Event::new("t").key("k").subject(name);
    put(&pool, &outbox, ["1", "2", "3"].map(event).to_vec()).await;
    let admin = Admin::new(pool.clone());
    until("the key is parked with what followed", async || {
        admin.lag().await.unwrap().dead == 3
    })
    .await;
    relay.drain(Duration::from_secs(5)).await;

    for (which, back) in [(Filter::cause(DeadCause::Parked), 0), (Filter::all(), 3)] {
        let first = Filter::cause(DeadCause::Rejected);
        assert_eq!(admin.redrive(first).await.unwrap(), 1);
        let mut relay = pool.begin().await.unwrap();
        let dies = format!(
            "INSERT INTO mainstay_outbox_dead
                 (id, lane, event_id, source, type, topic, subject, time, {key}, ordered, headers, payload, enqueued_at,
                  attempts, cause, reason, failures, died_at)
             SELECT id, lane, event_id, source, type, topic, subject, time, {key}, ordered, headers, payload, enqueued_at,
                 1, 'rejected', 'no', '[]', enqueued_at
             FROM mainstay_outbox_message"
        );
        for step in [
            "UPDATE mainstay_outbox_lane SET epoch = epoch + 1",
            &dies,
            "DELETE FROM mainstay_outbox_message",
        ] {
            relay.execute(AssertSqlSafe(step)).await.unwrap();
        }
        let operator = tokio::spawn({
            let admin = admin.clone();
            async move { admin.redrive(which).await }
        });
        until("the operator waits for the lane", &mut waits).await;
        relay.commit().await.unwrap();
        assert_eq!(operator.await.unwrap().unwrap(), back);
    }
}

mod postgres {
    use sqlx::{PgPool, postgres::PgPoolOptions};

    use super::*;
    use crate::support::postgres;

    const ROWS: i64 = 300;

    /// Kept deliveries and dead letters, `ROWS` of each, of the topics `a.1` to `a.300`, in four lanes.
    async fn furnished(pool: &PgPool) {
        outbox(pool, 4).await;
        sqlx::raw_sql(
            "INSERT INTO mainstay_outbox_delivered
                 (id, lane, event_id, source, type, topic, time, ordered, headers, payload, enqueued_at, attempts,
                  delivered_at)
             SELECT n, n % 4, gen_random_uuid(), '/', 't', 'a.' || n, now(), true, '[]', '', now(), 1,
                 now() - (400 - n) * interval '1 second'
             FROM generate_series(1, 300) n;
             INSERT INTO mainstay_outbox_dead
                 (id, lane, event_id, source, type, topic, time, headers, payload, enqueued_at, attempts, cause, reason,
                  died_at)
             SELECT 1000 + n, n % 4, gen_random_uuid(), '/', 't', 'a.' || n, now(), '[]', '', now(), 1, 'rejected', 'no',
                 now() - interval '1 second'
             FROM generate_series(1, 300) n",
        )
        .execute(pool)
        .await
        .unwrap();
    }

    async fn waits(pool: &PgPool) -> bool {
        sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')",
        )
        .fetch_one(pool)
        .await
        .unwrap()
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn a_letter_that_dies_after_the_look_is_not_overtaken() {
        let database = postgres().await;
        let pool = database.pool.clone();
        let waits = async || waits(&database.pool).await;
        super::a_letter_that_dies_after_the_look_is_not_overtaken(pool, "key", waits).await;
        database.gone().await;
    }

    /// A pool whose statements call a function of the test's own for each row that they compare with the beginning of a
    /// topic. It counts, and it counts apart what is looked at while its transaction has lanes locked.
    async fn watched(pool: &PgPool) -> PgPool {
        sqlx::raw_sql(
            "CREATE SCHEMA watch;
             CREATE SEQUENCE watch.looked;
             CREATE SEQUENCE watch.under_lock;
             CREATE FUNCTION watch.starts_with(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$
             BEGIN
                 PERFORM nextval('watch.looked');
                 IF EXISTS (
                     SELECT FROM pg_locks WHERE pid = pg_backend_pid()
                         AND relation = 'mainstay_outbox_lane'::regclass AND mode = 'RowShareLock')
                 THEN
                     PERFORM nextval('watch.under_lock');
                 END IF;
                 RETURN left(a, length(b)) = b;
             END $$",
        )
        .execute(pool)
        .await
        .unwrap();
        let options = pool.connect_options().as_ref().clone();
        PgPoolOptions::new()
            .max_connections(2)
            .connect_with(options.options([("search_path", "watch,public,pg_catalog")]))
            .await
            .unwrap()
    }

    /// How many rows were looked at since, and how many of them while lanes were locked.
    async fn looks(pool: &PgPool) -> (i64, i64) {
        let count = async |sequence: &'static str| -> i64 {
            let (last, called): (i64, bool) =
                sqlx::query_as(sequence).fetch_one(pool).await.unwrap();
            if called { last } else { 0 }
        };
        let looks = (
            count("SELECT last_value, is_called FROM watch.looked").await,
            count("SELECT last_value, is_called FROM watch.under_lock").await,
        );
        sqlx::raw_sql(
            "ALTER SEQUENCE watch.looked RESTART; ALTER SEQUENCE watch.under_lock RESTART",
        )
        .execute(pool)
        .await
        .unwrap();
        looks
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn lanes_are_not_locked_while_an_operator_looks() {
        let database = postgres().await;
        let pool = database.pool.clone();
        furnished(&pool).await;
        let own = watched(&pool).await;
        let admin = Admin::new(own.clone());
        // `a.7`, `a.70` to `a.79`; two a batch.
        let some = || Bulk::of(Filter::topic("a.7*")).per_second(20);

        assert_eq!(admin.replay(some()).await.unwrap(), 11);
        let (looked, under_lock) = looks(&pool).await;
        assert_eq!(under_lock, 0);
        // One is the topic itself, which is not compared so.
        assert!(
            (ROWS - 1..ROWS + 5).contains(&looked),
            "once in all: {looked}"
        );

        // Where nobody is asked nothing is counted first.
        let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_mainstay-outbox"));
        let url = format!(
            "{}?options[search_path]=watch,public,pg_catalog",
            database.url()
        );
        program
            .args(["replay", "--topic", "a.8*", "--yes"])
            .env("DATABASE_URL", url);
        assert!(program.status().await.unwrap().success());
        let looked = looks(&pool).await.0;
        assert!((ROWS - 20..ROWS).contains(&looked), "once in all: {looked}");

        assert_eq!(admin.redrive(some()).await.unwrap(), 11);
        assert_eq!(looks(&pool).await.1, 0);
        assert_eq!(
            admin
                .discard(Filter::topic("a.9*"))
                .await
                .unwrap()
                .discarded,
            11
        );
        assert_eq!(looks(&pool).await.1, 0);
        own.close().await;
        database.gone().await;
    }

    /// Whoever holds lanes holds up relays.
    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn what_holds_lanes_is_bounded_by_the_server() {
        let database = postgres().await;
        let pool = database.pool.clone();
        furnished(&pool).await;
        sqlx::raw_sql(
            "CREATE FUNCTION unbounded() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF '0' IN (current_setting('statement_timeout'), current_setting('lock_timeout')) THEN
                     RAISE 'a statement without a bound';
                 END IF;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER unbounded AFTER INSERT ON mainstay_outbox_message EXECUTE FUNCTION unbounded();
             CREATE TRIGGER unbounded AFTER DELETE ON mainstay_outbox_dead EXECUTE FUNCTION unbounded();
             CREATE TRIGGER unbounded AFTER INSERT OR UPDATE ON mainstay_outbox_audit EXECUTE FUNCTION unbounded()",
        )
        .execute(&pool)
        .await
        .unwrap();
        let admin = Admin::new(pool.clone());
        let some = || Filter::topic("a.7*");
        assert_eq!(admin.replay(some()).await.unwrap(), 11);
        assert_eq!(admin.redrive(some()).await.unwrap(), 11);
        assert_eq!(admin.discard(Filter::all()).await.unwrap().discarded, 289);
        assert!(admin.pause("a.*").await.unwrap());
        assert!(admin.resume("a.*").await.unwrap());
        let left: String = sqlx::query_scalar("SELECT current_setting('statement_timeout')")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(left, "0", "the application's connection is as it was");
        database.gone().await;
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn an_operator_waits_for_a_lock_but_not_for_long() {
        let database = postgres().await;
        let pool = database.pool.clone();
        outbox(&pool, 2).await;
        let admin = Admin::new(pool.clone());
        let mut other = pool.begin().await.unwrap();
        sqlx::query("INSERT INTO mainstay_outbox_pause (pattern, actor) VALUES ('t', 'another')")
            .execute(&mut *other)
            .await
            .unwrap();
        let paused = tokio::time::timeout(Duration::from_secs(20), admin.pause("t"));
        let refused = paused.await.expect("it gives up").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LockTimeout, "{refused:?}");
        other.rollback().await.unwrap();
        assert!(admin.pause("t").await.unwrap());
        database.gone().await;
    }

    /// Above READ COMMITTED a lane that somebody settled meanwhile could not be locked any more.
    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn a_stricter_isolation_of_the_application_does_not_matter() {
        let database = postgres().await;
        let pool = database.pool.clone();
        furnished(&pool).await;
        let options = pool.connect_options().as_ref().clone();
        let strict = PgPoolOptions::new()
            .connect_with(options.options([("default_transaction_isolation", "serializable")]))
            .await
            .unwrap();
        for redrive in [true, false] {
            let mut relay = pool.begin().await.unwrap();
            sqlx::query("UPDATE mainstay_outbox_lane SET settled_at = now()")
                .execute(&mut *relay)
                .await
                .unwrap();
            let admin = Admin::new(strict.clone());
            let operator = tokio::spawn(async move {
                if redrive {
                    admin.redrive(Filter::all()).await
                } else {
                    admin.replay(Filter::all()).await
                }
            });
            until("the operator waits for lanes", async || waits(&pool).await).await;
            relay.commit().await.unwrap();
            assert_eq!(operator.await.unwrap().unwrap(), ROWS as u64);
            sqlx::raw_sql("DELETE FROM mainstay_outbox_message")
                .execute(&pool)
                .await
                .unwrap();
        }
        strict.close().await;
        database.gone().await;
    }
}

#[cfg(feature = "mysql")]
mod mariadb {
    use sqlx::{MySqlPool, mysql::MySqlPoolOptions};

    use tokio::time::sleep;

    use super::*;
    use crate::support::mariadb;

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
    async fn a_letter_that_dies_after_the_look_is_not_overtaken() {
        let database = mariadb().await;
        let pool = database.pool.clone();
        let waits = async || {
            // Asked more often than ten times a second, InnoDB says the same as before.
            sleep(Duration::from_millis(150)).await;
            sqlx::query_scalar(
                "SELECT EXISTS (
                     SELECT 1 FROM information_schema.innodb_trx t
                     JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
                     WHERE t.trx_state = 'LOCK WAIT' AND p.db = database())",
            )
            .fetch_one(&database.pool)
            .await
            .unwrap()
        };
        super::a_letter_that_dies_after_the_look_is_not_overtaken(pool, "`key`", waits).await;
        database.gone().await;
    }

    const ROWS: i64 = 300;

    async fn furnished(pool: &MySqlPool) {
        outbox(pool, 4).await;
        sqlx::raw_sql(
            "INSERT INTO mainstay_outbox_delivered
                 (id, lane, event_id, source, type, topic, time, ordered, headers, payload, enqueued_at, attempts,
                  delivered_at)
             SELECT n.seq, n.seq % 4, unhex(md5(n.seq)), '/', 't', concat('a.', n.seq), utc_timestamp(6), true, '[]', '',
                 utc_timestamp(6), 1, utc_timestamp(6) - INTERVAL 400 - n.seq SECOND
             FROM seq_1_to_300 n;
             INSERT INTO mainstay_outbox_dead
                 (id, lane, event_id, source, type, topic, time, ordered, headers, payload, enqueued_at, attempts, cause,
                  reason, died_at)
             SELECT 1000 + n.seq, n.seq % 4, unhex(md5(n.seq)), '/', 't', concat('a.', n.seq), utc_timestamp(6), true, '[]',
                 '', utc_timestamp(6), 1, 'rejected', 'no', utc_timestamp(6) - INTERVAL 1 SECOND
             FROM seq_1_to_300 n",
        )
        .execute(pool)
        .await
        .unwrap();
    }

    /// Rows that the one connection of this pool has read in the order of some index.
    async fn read(own: &MySqlPool) -> i64 {
        let (_, count): (String, String) =
            sqlx::query_as("SHOW SESSION STATUS LIKE 'Handler_read_next'")
                .fetch_one(own)
                .await
                .unwrap();
        count.parse().unwrap()
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
    async fn an_operator_who_replays_looks_once() {
        let database = mariadb().await;
        furnished(&database.pool).await;
        let options = database.pool.connect_options().as_ref().clone();
        let own = MySqlPoolOptions::new().max_connections(1);
        let own = own.connect_with(options).await.unwrap();
        let admin = Admin::new(own.clone());
        let before = read(&own).await;
        // Two a batch.
        let some = Bulk::of(Filter::topic("a.7*")).per_second(20);
        assert_eq!(admin.replay(some).await.unwrap(), 11);
        let looked = read(&own).await - before;
        // The first of each batch is found by its key.
        assert!(
            (ROWS - 10..ROWS + 30).contains(&looked),
            "once in all: {looked}"
        );
        own.close().await;
        database.gone().await;
    }

    /// Whoever holds lanes holds up relays. MySQL has no bound for statements that write.
    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
    async fn what_holds_lanes_is_bounded_by_the_server() {
        let database = mariadb().await;
        furnished(&database.pool).await;
        let bounded = "BEGIN
                 IF @@max_statement_time = 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no bound'; END IF;
             END";
        for (name, when) in [
            ("a", "INSERT ON mainstay_outbox_message"),
            ("b", "DELETE ON mainstay_outbox_dead"),
            ("c", "INSERT ON mainstay_outbox_audit"),
        ] {
            let trigger = format!("CREATE TRIGGER {name} BEFORE {when} FOR EACH ROW {bounded}");
            sqlx::raw_sql(AssertSqlSafe(trigger))
                .execute(&database.pool)
                .await
                .unwrap();
        }
        let options = database.pool.connect_options().as_ref().clone();
        let own = MySqlPoolOptions::new().max_connections(1);
        let own = own.connect_with(options).await.unwrap();
        for wanted in [0.0, 3.0] {
            sqlx::query("SET max_statement_time = ?")
                .bind(wanted)
                .execute(&own)
                .await
                .unwrap();
            let admin = Admin::new(own.clone());
            let some = || Bulk::of(Filter::topic("a.*")).limit(5);
            assert_eq!(admin.replay(some()).await.unwrap(), 5);
            assert_eq!(admin.redrive(some()).await.unwrap(), 5);
            assert_eq!(admin.discard(some()).await.unwrap().discarded, 5);
            let after: f64 = sqlx::query_scalar("SELECT CAST(@@max_statement_time AS DOUBLE)")
                .fetch_one(&own)
                .await
                .unwrap();
            assert_eq!(after, wanted, "the application's connection is as it was");
        }
        own.close().await;
        database.gone().await;
    }
}
