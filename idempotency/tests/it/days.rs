//! Postgres keeps the records of keys with a time of their own by day, and lets go of a day at once.

use std::time::Duration;

use mainstay_idempotency::{Reaped, Reaper, empty_days, migrate, reap};
use sqlx::{AssertSqlSafe, Pool, Postgres};
use tokio::time::Instant;
use uuid::{Builder, Uuid};

use crate::app::App;
use crate::db;

const DAY: Duration = Duration::from_hours(24);

/// A version 7 UUID of so many days ago.
fn key_of(days_ago: u64) -> String {
    let (now, _) = Uuid::now_v7().get_timestamp().unwrap().to_unix();
    let at = (now - days_ago * 86_400) * 1000;
    let random = *Uuid::new_v4().as_bytes().first_chunk().unwrap();
    Builder::from_unix_timestamp_millis(at, &random)
        .into_uuid()
        .to_string()
}

fn table_of(key: &str) -> String {
    let (seconds, _) = Uuid::parse_str(key)
        .unwrap()
        .get_timestamp()
        .unwrap()
        .to_unix();
    format!("mainstay_key_day_{:02}", seconds / 86_400 % 16)
}

async fn count(pool: &Pool<Postgres>, table: &str) -> i64 {
    let count = AssertSqlSafe(format!("select count(*) from only {table}"));
    sqlx::query_scalar(count).fetch_one(pool).await.unwrap()
}

async fn raw(pool: &Pool<Postgres>, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(pool)
        .await
        .unwrap();
}

/// As if the record of `key` had been written so many days ago.
async fn age(pool: &Pool<Postgres>, key: &str, days: i32) {
    let aged = sqlx::query(
        "update mainstay_key set created_at = now() - make_interval(days => $1) where key = $2",
    )
    .bind(days)
    .bind(key.as_bytes());
    assert_eq!(aged.execute(pool).await.unwrap().rows_affected(), 1);
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_record_stands_in_its_key_s_day_whenever_it_is_written_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let app = App::new(pool.clone());
        for (key, table) in [
            (key_of(0), None),
            (key_of(11), None),
            ("k".into(), Some("mainstay_key")),
        ] {
            let table = table.map_or_else(|| table_of(&key), str::to_owned);
            assert!(!app.post(&key, "ok").await.replayed());
            assert_eq!(count(&pool, &table).await, 1, "{key}");
            assert!(app.post(&key, "ok").await.replayed(), "{key}");
        }
        let all: i64 = sqlx::query_scalar("select count(*) from mainstay_key")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(all, 3, "who asks for all of them gets all of them");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_day_goes_when_the_youngest_of_its_records_is_old_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let app = App::new(pool.clone());
        let (old, late, young) = (key_of(3), key_of(3), key_of(0));
        for key in [&old, &late, &young] {
            app.post(key, "ok").await;
        }
        age(&pool, &old, 3).await;
        let reaper = Reaper::new(pool.clone()).keys(DAY);
        assert_eq!(
            reaper.run_once().await.unwrap(),
            Reaped::default(),
            "a record of today is with it"
        );
        assert!(app.post(&old, "ok").await.replayed());
        age(&pool, &late, 2).await;
        let one_day = Reaped {
            days: 1,
            ..Reaped::default()
        };
        assert_eq!(reaper.run_once().await.unwrap(), one_day);
        assert_eq!(
            reaper.run_once().await.unwrap(),
            Reaped::default(),
            "an empty day is no work"
        );
        assert!(!app.post(&late, "ok").await.replayed());
        assert!(app.post(&young, "ok").await.replayed());
    })
    .await;
}

/// A clock that is far off, or a retention of more than two weeks, puts young records beside old ones.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn what_is_overdue_in_a_day_that_stays_is_deleted_row_by_row_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let app = App::new(pool.clone());
        let (old, young) = (key_of(19), key_of(3));
        assert_eq!(table_of(&old), table_of(&young));
        for key in [&old, &young] {
            app.post(key, "ok").await;
        }
        age(&pool, &old, 2).await;
        assert_eq!(
            reap(&pool, DAY, 10).await.unwrap(),
            0,
            "it may go with its day yet"
        );
        age(&pool, &old, 4).await;
        assert_eq!(empty_days(&pool, DAY).await.unwrap(), 0);
        assert_eq!(reap(&pool, DAY, 10).await.unwrap(), 1);
        assert!(!app.post(&old, "ok").await.replayed());
        assert!(app.post(&young, "ok").await.replayed());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_day_in_use_is_left_for_the_next_time_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let app = App::new(pool.clone());
        let (old, today) = (key_of(3), key_of(0));
        for key in [&old, &today] {
            app.post(key, "ok").await;
        }
        age(&pool, &old, 3).await;
        // As a backup does.
        let mut backup = pool.begin().await.unwrap();
        sqlx::raw_sql("lock table mainstay_key in access share mode")
            .execute(&mut *backup)
            .await
            .unwrap();
        let since = Instant::now();
        assert_eq!(empty_days(&pool, DAY).await.unwrap(), 0);
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "nobody is waited for"
        );
        assert!(app.post(&old, "ok").await.replayed());
        backup.rollback().await.unwrap();
        let both = futures_util::future::join_all([(); 2].map(|()| empty_days(&pool, DAY))).await;
        let gone: u64 = both.into_iter().map(Result::unwrap).sum();
        // Two who come at once may both have been in the other's way.
        assert!(gone + empty_days(&pool, DAY).await.unwrap() == 1);
        assert!(app.post(&today, "ok").await.replayed());
    })
    .await;
}

/// Of a process of the version before, or of a time before there were days.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_record_from_before_the_days_is_replayed_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let app = App::new(pool.clone());
        let key = key_of(0);
        assert!(!app.post(&key, "ok").await.replayed());
        let day = table_of(&key);
        raw(
            &pool,
            format!(
                "insert into mainstay_key select * from {day}; set mainstay.reap = 'on'; delete from {day}; reset mainstay.reap"
            ),
        )
        .await;
        assert_eq!(
            (count(&pool, "mainstay_key").await, count(&pool, &day).await),
            (1, 0)
        );
        assert!(app.post(&key, "ok").await.replayed());
        assert_eq!(
            app.post(&key, "other").await.code(),
            "idempotency_key_reused"
        );
        // The claim looks again behind its locks: as if the record had committed between the two.
        let refused = sqlx::query(
            "select mainstay_claim(1, 2, scope, key, $1, '1000') from only mainstay_key",
        )
        .bind(day.rsplit('_').next().unwrap().parse::<i32>().unwrap())
        .execute(&pool)
        .await
        .unwrap_err();
        let code = refused.as_database_error().unwrap().code();
        assert_eq!(code.as_deref(), Some("MS002"));
    })
    .await;
}

/// Its statement reaches every day, by row numbers that are those of one table: a young row has the number of an old one.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_reaper_of_the_version_before_deletes_no_young_row_of_another_day_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let app = App::new(pool.clone());
        let (old, young, plain) = (key_of(9), key_of(0), "plain".to_owned());
        for key in [&old, &young, &plain] {
            app.post(key, "ok").await;
        }
        for key in [&old, &plain] {
            age(&pool, key, 9).await;
        }
        // An update gives a row a new number: then all three have one and the same.
        age(&pool, &young, 0).await;
        let numbers: i64 = sqlx::query_scalar("select count(distinct ctid) from mainstay_key")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(numbers, 1);
        let text = "delete from mainstay_key where ctid = any (array(select ctid from mainstay_key \
                    where created_at < now() - make_interval(secs => $1) limit $2 for update skip locked))";
        let deleted = sqlx::query(text)
            .bind(DAY.as_secs_f64())
            .bind(1000_i64)
            .execute(&pool)
            .await
            .unwrap();
        assert_eq!(deleted.rows_affected(), 1, "the key without a day");
        assert!(app.post(&young, "ok").await.replayed());
        assert!(!app.post(&plain, "ok").await.replayed());
        let reaped = Reaper::new(pool.clone()).keys(DAY).run_once().await.unwrap();
        assert_eq!(reaped.days, 1, "nor does a day need that reaper");
    })
    .await;
}

/// The role of the service owns nothing, and was granted its rights before the days came.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_role_with_rights_on_rows_only_runs_and_reaps_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let role = format!("mainstay_{}", Uuid::new_v4().simple());
        raw(
            &pool,
            format!(
                "do $$ begin for n in 0..15 loop execute format('drop table %I', 'mainstay_key_day_' || lpad(n::text, 2, '0')); end loop; end $$; \
                 drop function mainstay_keep; drop function mainstay_empty_day; drop function mainstay_claim(bigint, bigint, bytea, bytea, int, text); \
                 delete from mainstay_idempotency_migrations where version = 4; create role {role} login; \
                 grant select, insert, update, delete on mainstay_key, mainstay_lease, mainstay_inbox, effect to {role}"
            ),
        )
        .await;
        migrate(&pool).await.unwrap();
        let options = (*pool.connect_options()).clone().username(&role);
        let plain = Pool::<Postgres>::connect_with(options).await.unwrap();
        let app = App::new(plain.clone());
        let key = key_of(5);
        assert!(!app.post(&key, "ok").await.replayed());
        assert!(app.post(&key, "ok").await.replayed());
        age(&pool, &key, 2).await;
        let reaper = Reaper::new(plain.clone()).keys(DAY);
        assert_eq!(reaper.run_once().await.unwrap(), Reaped::default(), "it may not truncate");
        age(&pool, &key, 4).await;
        let one = Reaped { keys: 1, ..Reaped::default() };
        assert_eq!(reaper.run_once().await.unwrap(), one);
        plain.close().await;
        raw(&pool, format!("drop owned by {role}; drop role {role}")).await;
    })
    .await;
}

/// How long a claim takes while a day goes; `MAINSTAY_TEST_REAP_ROWS=10000000` for a day of that many rows.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn claims_do_not_notice_that_a_day_goes_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let rows: i64 = std::env::var("MAINSTAY_TEST_REAP_ROWS")
            .map_or(20_000, |rows| rows.parse().unwrap());
        let day = table_of(&key_of(9));
        let fill = |table: &str| {
            format!(
                "insert into {table} (scope, key, fingerprint, status, headers, body, created_at) \
                 select decode(repeat('00', 32), 'hex'), convert_to(n::text, 'UTF8'), decode(repeat('01', 33), 'hex'), 201, '\\x01', \
                 decode(repeat('78', 300), 'hex'), now() - interval '9 days' from generate_series(1, {rows}) n"
            )
        };
        raw(&pool, fill(&day)).await;
        raw(&pool, fill("mainstay_key")).await;
        raw(&pool, "vacuum analyze mainstay_key".to_owned()).await;
        raw(&pool, format!("vacuum analyze {day}")).await;
        raw(&pool, "checkpoint".to_owned()).await;
        let time = Duration::from_millis(if rows > 20_000 { 5000 } else { 500 });
        let quiet = claims(&pool, time).await;
        let (emptying, by_day) = futures_util::future::join(
            async {
                let since = Instant::now();
                let before = log_position(&pool).await;
                assert_eq!(empty_days(&pool, DAY).await.unwrap(), 1);
                (since.elapsed(), log_since(&pool, before).await)
            },
            claims(&pool, time),
        )
        .await;
        assert_eq!(count(&pool, &day).await, 0);
        let (deleting, by_row) = futures_util::future::join(
            async {
                let since = Instant::now();
                let before = log_position(&pool).await;
                while reap(&pool, DAY, 1000).await.unwrap() == 1000 {}
                (since.elapsed(), log_since(&pool, before).await)
            },
            claims(&pool, time),
        )
        .await;
        println!(
            "{rows} rows, claims' (median, p99): quiet {quiet:?}; a day emptied in {:?} {by_day:?}, log of everybody {} bytes; \
             as many deleted in {:?} {by_row:?}, {} bytes",
            emptying.0, emptying.1, deleting.0, deleting.1
        );
        assert!(emptying.0 < deleting.0, "{emptying:?} {deleting:?}");
    })
    .await;
}

async fn log_position(pool: &Pool<Postgres>) -> String {
    sqlx::query_scalar("select pg_current_wal_insert_lsn()::text")
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn log_since(pool: &Pool<Postgres>, before: String) -> i64 {
    sqlx::query_scalar(
        "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)::bigint",
    )
    .bind(before)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Four clients run keyed requests: the median and the 99th percentile of their times.
async fn claims(pool: &Pool<Postgres>, time: Duration) -> (Duration, Duration) {
    let app = App::new(pool.clone());
    let until = Instant::now() + time;
    let clients = (0..4).map(|_| {
        let app = app.clone();
        tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let key = Uuid::now_v7().to_string();
                let since = Instant::now();
                assert!(!app.post(&key, "ok").await.replayed());
                times.push(since.elapsed());
            }
            times
        })
    });
    let mut times = Vec::new();
    for client in futures_util::future::join_all(clients).await {
        times.extend(client.unwrap());
    }
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}
