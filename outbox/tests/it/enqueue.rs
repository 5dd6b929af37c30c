//! What enqueueing promises about order and about the connection it is given.

use mainstay_outbox::{EnqueueError, Event, Ordering, Outbox, OutboxConfig, migrate};
use sqlx::{Connection, Sqlite, SqliteConnection};

use crate::support::outbox;

fn of(key: &str) -> Event {
    Event::new("t").key(key)
}

fn strict(key: &str) -> Event {
    of(key).ordering(Ordering::PerKeyStrict)
}

#[tokio::test]
async fn sqlite_says_that_it_is_read_only() {
    let database = crate::support::sqlite().await;
    migrate(&database.pool).await.unwrap();
    let options = database.pool.connect_options().as_ref().clone();
    let mut conn = SqliteConnection::connect_with(&options.read_only(true))
        .await
        .unwrap();
    let outbox = Outbox::<Sqlite>::new(OutboxConfig::default());
    let refused = outbox.enqueue(&mut conn, of("k")).await.unwrap_err();
    assert!(matches!(refused, EnqueueError::ReadOnly(_)), "{refused:?}");
}

#[tokio::test]
async fn any_connection_to_sqlite_takes_events() {
    let database = crate::support::sqlite().await;
    let outbox = outbox(&database.pool, 4).await;
    let mut pooled = database.pool.acquire().await.unwrap();
    outbox.enqueue(&mut pooled, of("k")).await.unwrap();
    let mut tx = pooled.begin().await.unwrap();
    outbox.enqueue(&mut tx, strict("k")).await.unwrap();
    let mut savepoint = tx.begin().await.unwrap();
    outbox.enqueue(&mut savepoint, of("k")).await.unwrap();
    savepoint.commit().await.unwrap();
    tx.commit().await.unwrap();
    let options = database.pool.connect_options();
    let mut own = SqliteConnection::connect_with(&options).await.unwrap();
    outbox.enqueue(&mut own, of("k")).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM mainstay_outbox_message")
        .fetch_one(&mut own)
        .await
        .unwrap();
    assert_eq!(rows, 4);
}

mod postgres {
    use mainstay_outbox::{EventId, OutboxDb};
    use sqlx::{PgConnection, PgPool, Postgres, Transaction};
    use uuid::Uuid;

    use super::*;
    use crate::support::{postgres, until};

    async fn pid(conn: &mut PgConnection) -> i32 {
        sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(conn)
            .await
            .unwrap()
    }

    /// Until this backend waits for a lock.
    async fn waits(pool: &PgPool, pid: i32) {
        until("the other writer waits", async || {
            sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE pid = $1 AND NOT granted)",
            )
            .bind(pid)
            .fetch_one(pool)
            .await
            .unwrap()
        })
        .await;
    }

    /// The events in the order of their places.
    async fn places(pool: &PgPool) -> Vec<EventId> {
        let ids: Vec<Uuid> =
            sqlx::query_scalar("SELECT event_id FROM mainstay_outbox_message ORDER BY id")
                .fetch_all(pool)
                .await
                .unwrap();
        ids.into_iter().map(EventId::from).collect()
    }

    fn is_deadlock(error: &EnqueueError) -> bool {
        let EnqueueError::Database(sqlx::Error::Database(error)) = error else {
            return false;
        };
        error.code().as_deref() == Some("40P01")
    }

    /// Without the lock this is where order and commits part.
    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn a_strict_key_makes_the_second_writer_wait_for_the_first_commit() {
        let database = postgres().await;
        let pool = database.pool.clone();
        let outbox = outbox(&pool, 4).await;
        for many in [false, true] {
            sqlx::query("DELETE FROM mainstay_outbox_message")
                .execute(&pool)
                .await
                .unwrap();
            let mut first = pool.begin().await.unwrap();
            let mut second = pool.begin().await.unwrap();
            let a = outbox.enqueue(&mut first, strict("k")).await.unwrap();
            let other = outbox.enqueue(&mut second, strict("other")).await.unwrap();
            let loose = outbox.enqueue(&mut second, of("k")).await.unwrap();
            let waiting = pid(&mut second).await;
            let writer = tokio::spawn({
                let outbox = outbox.clone();
                async move {
                    let b = if many {
                        let both = [of("unlocked"), strict("k")];
                        outbox.enqueue_many(&mut second, both).await.unwrap()[1]
                    } else {
                        outbox.enqueue(&mut second, strict("k")).await.unwrap()
                    };
                    second.commit().await.unwrap();
                    b
                }
            });
            waits(&pool, waiting).await;
            // Drawn while the other waits: had that one its place already, it would be before this.
            let between = outbox.enqueue(&mut first, strict("k")).await.unwrap();
            first.commit().await.unwrap();
            let b = writer.await.unwrap();
            let places = places(&pool).await;
            assert_eq!(places[..4], [a, other, loose, between]);
            assert_eq!(
                places.last(),
                Some(&b),
                "its place is behind, as its commit is"
            );
        }
        database.gone().await;
    }

    /// G3: who would have to wait for a commit that waits for it is told to begin again.
    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn a_strict_key_and_a_row_lock_in_a_circle_end_in_the_order_of_the_commits() {
        let database = postgres().await;
        let pool = database.pool.clone();
        let outbox = outbox(&pool, 4).await;
        sqlx::raw_sql(
            "CREATE TABLE aggregate (id integer PRIMARY KEY); INSERT INTO aggregate VALUES (1)",
        )
        .execute(&pool)
        .await
        .unwrap();
        async fn impatient(pool: &PgPool) -> Transaction<'static, Postgres> {
            let mut tx = pool.begin().await.unwrap();
            sqlx::raw_sql("SET LOCAL deadlock_timeout = '20ms'")
                .execute(&mut *tx)
                .await
                .unwrap();
            tx
        }
        const LOCK_ROW: &str = "SELECT id FROM aggregate WHERE id = 1 FOR UPDATE";

        let mut a = impatient(&pool).await;
        let mut b = impatient(&pool).await;
        sqlx::query(LOCK_ROW).execute(&mut *b).await.unwrap();
        let of_a = outbox.enqueue(&mut a, strict("k1")).await.unwrap();
        let waiting = pid(&mut a).await;
        let a = tokio::spawn(async move {
            let row = sqlx::query(LOCK_ROW).execute(&mut *a).await;
            (a, row.is_ok())
        });
        waits(&pool, waiting).await;
        let of_b = outbox.enqueue(&mut b, strict("k1")).await;
        let committed = match of_b {
            // A was told: its transaction is gone, and with it its event. It begins again after B.
            Ok(of_b) => {
                let (lost, row) = a.await.unwrap();
                assert!(!row, "one of the two has to give way");
                lost.rollback().await.unwrap();
                b.commit().await.unwrap();
                let mut again = impatient(&pool).await;
                let of_a = outbox.enqueue(&mut again, strict("k1")).await.unwrap();
                again.commit().await.unwrap();
                [of_b, of_a]
            }
            Err(error) => {
                assert!(is_deadlock(&error), "{error:?}");
                b.rollback().await.unwrap();
                let (a, row) = a.await.unwrap();
                assert!(row);
                a.commit().await.unwrap();
                let mut again = impatient(&pool).await;
                let of_b = outbox.enqueue(&mut again, strict("k1")).await.unwrap();
                again.commit().await.unwrap();
                [of_a, of_b]
            }
        };
        assert_eq!(places(&pool).await, committed);
        database.gone().await;
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn locks_of_one_call_are_taken_in_one_order() {
        let database = postgres().await;
        let pool = database.pool.clone();
        let outbox = outbox(&pool, 4).await;
        let keys = ["a", "b", "c"];
        // Whichever key's lock is the first in order: while it is taken, nobody gets any of the others.
        let mut firsts = 0;
        for held in keys {
            let mut holder = pool.begin().await.unwrap();
            outbox.enqueue(&mut holder, strict(held)).await.unwrap();
            let mut writers = Vec::new();
            for order in [["a", "b", "c"], ["c", "b", "a"]] {
                let mut tx = pool.begin().await.unwrap();
                let pid = pid(&mut tx).await;
                let outbox = outbox.clone();
                let writer = tokio::spawn(async move {
                    outbox.enqueue_many(&mut tx, order.map(strict)).await?;
                    tx.commit().await.map_err(EnqueueError::Database)
                });
                writers.push((pid, writer));
            }
            let mut taken = 0;
            for (pid, _) in &writers {
                waits(&pool, *pid).await;
                taken += sqlx::query_scalar::<_, i64>(
                    "SELECT count(*) FROM pg_locks WHERE pid = $1 AND locktype = 'advisory' AND granted",
                )
                .bind(*pid)
                .fetch_one(&pool)
                .await
                .unwrap();
            }
            firsts += i32::from(taken == 0);
            holder.commit().await.unwrap();
            for (_, writer) in writers {
                writer.await.unwrap().unwrap();
            }
        }
        assert_eq!(firsts, 1, "exactly one of the keys is everybody's first");
        database.gone().await;
    }

    /// The premise of a relay's low-water mark: whoever has drawn an id had a transaction number before.
    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn a_writer_has_its_transaction_number_before_it_draws_an_id() {
        let database = postgres().await;
        let pool = database.pool.clone();
        let outbox = outbox(&pool, 4).await;
        // The first draw writes to the log and asks for a number itself; the next 31 do not.
        let mut warm = pool.acquire().await.unwrap();
        outbox.enqueue(&mut warm, of("k")).await.unwrap();
        drop(warm);
        for events in [vec![of("k")], vec![of("k"), of("l")], vec![strict("k")]] {
            // Whoever draws from the sequence stops here.
            let mut gate = pool.begin().await.unwrap();
            sqlx::raw_sql("ALTER SEQUENCE mainstay_outbox_message_id_seq CACHE 1")
                .execute(&mut *gate)
                .await
                .unwrap();
            let mut tx = pool.begin().await.unwrap();
            let pid = pid(&mut tx).await;
            let writer = tokio::spawn({
                let outbox = outbox.clone();
                async move {
                    if let [event] = events.as_slice() {
                        outbox.enqueue(&mut tx, event.clone()).await.unwrap();
                    } else {
                        outbox.enqueue_many(&mut tx, events).await.unwrap();
                    }
                    tx.commit().await.unwrap();
                }
            });
            waits(&pool, pid).await;
            let (sequence, number): (String, Option<String>) = sqlx::query_as(
                "SELECT l.relation::regclass::text, a.backend_xid::text
                 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE pid = $1 AND NOT granted",
            )
            .bind(pid)
            .fetch_one(&pool)
            .await
            .unwrap();
            assert_eq!(sequence, "mainstay_outbox_message_id_seq");
            assert!(
                number.is_some(),
                "it drew an id and can begin after those who saw it"
            );
            gate.rollback().await.unwrap();
            writer.await.unwrap();
        }
        database.gone().await;
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn a_read_only_transaction_says_so() {
        let database = postgres().await;
        let outbox = outbox(&database.pool, 4).await;
        let mut tx = database.pool.begin().await.unwrap();
        sqlx::raw_sql("SET TRANSACTION READ ONLY")
            .execute(&mut *tx)
            .await
            .unwrap();
        let refused = outbox.enqueue(&mut tx, of("k")).await.unwrap_err();
        assert!(matches!(refused, EnqueueError::ReadOnly(_)), "{refused:?}");
        drop(tx);
        database.gone().await;
    }

    async fn takes<Db: OutboxDb>(outbox: &Outbox<Db>, conn: &mut Db::Connection) {
        outbox.enqueue(conn, of("generic")).await.unwrap();
    }

    #[tokio::test]
    #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
    async fn any_connection_takes_events() {
        let database = postgres().await;
        let outbox = outbox(&database.pool, 4).await;
        let mut pooled = database.pool.acquire().await.unwrap();
        outbox.enqueue(&mut pooled, of("k")).await.unwrap();
        takes(&outbox, &mut pooled).await;
        let mut tx = pooled.begin().await.unwrap();
        outbox.enqueue(&mut tx, of("k")).await.unwrap();
        takes(&outbox, &mut tx).await;
        let mut savepoint = tx.begin().await.unwrap();
        outbox.enqueue(&mut savepoint, of("k")).await.unwrap();
        savepoint.commit().await.unwrap();
        tx.commit().await.unwrap();
        let options = database.pool.connect_options();
        let mut own = PgConnection::connect_with(&options).await.unwrap();
        outbox.enqueue(&mut own, of("k")).await.unwrap();
        assert_eq!(places(&database.pool).await.len(), 6);
        own.close().await.unwrap();
        drop(pooled);
        database.gone().await;
    }
}
