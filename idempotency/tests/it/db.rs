//! A database per test: a SQLite file, or a Postgres or MariaDB database of its own. Each is looked over when the test is done.

use std::env;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use futures_util::FutureExt;
use mainstay_idempotency::IdempotencyDb;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Connection, MySql, PgConnection, Pool, Postgres, Sqlite};
use uuid::Uuid;

pub trait TestDb: IdempotencyDb {
    type Home: Send;

    fn open() -> impl Future<Output = (Pool<Self>, Self::Home)> + Send;
    fn close(pool: Pool<Self>, home: Self::Home) -> impl Future<Output = ()> + Send;

    /// Writes a row that no constraint protects: a second effect shows as a second row.
    fn effect(
        conn: &mut Self::Connection,
        name: &str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
    fn effects(pool: &Pool<Self>, name: &str) -> impl Future<Output = i64> + Send;
    fn raw(
        conn: &mut Self::Connection,
        sql: &'static str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
    /// Connections that came back inside a transaction, and locks that outlived theirs.
    fn left_behind(pool: &Pool<Self>) -> impl Future<Output = i64> + Send;
}

/// Runs a test on a fresh database, and cleans up whatever comes of it.
pub async fn on<D: TestDb, F>(test: impl FnOnce(Pool<D>) -> F)
where
    F: Future<Output = ()>,
{
    let (pool, home) = D::open().await;
    mainstay_idempotency::migrate(&pool).await.unwrap();
    let outcome = AssertUnwindSafe(test(pool.clone())).catch_unwind().await;
    let mut left_behind = i64::MAX;
    if outcome.is_ok() {
        // A rollback that a drop has queued may still be on its way.
        for _ in 0..500 {
            left_behind = D::left_behind(&pool).await;
            if left_behind == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    D::close(pool, home).await;
    match outcome {
        Ok(()) => assert_eq!(left_behind, 0, "open transactions and locks left behind"),
        Err(panic) => resume_unwind(panic),
    }
}

/// One test, on each database.
macro_rules! on_each {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() { crate::db::on::<sqlx::Sqlite, _>(super::$name).await; })*
        }
        mod postgres {
            $(#[tokio::test] #[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
            async fn $name() { crate::db::on::<sqlx::Postgres, _>(super::$name).await; })*
        }
        mod mariadb {
            $(#[tokio::test] #[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
            async fn $name() { crate::db::on::<sqlx::MySql, _>(super::$name).await; })*
        }
    };
}
pub(crate) use on_each;

impl TestDb for Sqlite {
    type Home = PathBuf;

    async fn open() -> (Pool<Sqlite>, PathBuf) {
        let home = env::temp_dir().join(format!("mainstay-idempotency-{}", Uuid::new_v4()));
        std::fs::create_dir(&home).unwrap();
        let options = SqliteConnectOptions::new()
            .filename(home.join("test.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_millis(200));
        let pool = SqlitePoolOptions::new()
            .max_connections(6)
            .connect_with(options)
            .await
            .unwrap();
        sqlx::query("create table effect (name text not null)")
            .execute(&pool)
            .await
            .unwrap();
        (pool, home)
    }

    async fn close(pool: Pool<Sqlite>, home: PathBuf) {
        pool.close().await;
        std::fs::remove_dir_all(home).unwrap();
    }

    async fn effect(conn: &mut sqlx::SqliteConnection, name: &str) -> sqlx::Result<()> {
        sqlx::query("insert into effect values ($1)")
            .bind(name)
            .execute(conn)
            .await
            .map(|_| ())
    }

    async fn effects(pool: &Pool<Sqlite>, name: &str) -> i64 {
        sqlx::query_scalar("select count(*) from effect where name = $1")
            .bind(name)
            .fetch_one(pool)
            .await
            .unwrap()
    }

    async fn raw(conn: &mut sqlx::SqliteConnection, sql: &'static str) -> sqlx::Result<()> {
        sqlx::raw_sql(sql).execute(conn).await.map(|_| ())
    }

    async fn left_behind(pool: &Pool<Sqlite>) -> i64 {
        // Whoever sits in a write transaction keeps this one from beginning.
        match Sqlite::begin(pool).await {
            Ok(tx) => {
                tx.rollback().await.unwrap();
                0
            }
            Err(_) => 1,
        }
    }
}

impl TestDb for Postgres {
    type Home = String;

    async fn open() -> (Pool<Postgres>, String) {
        let name = format!("mainstay_idempotency_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect_with(&admin_options()).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name}")))
            .execute(&mut admin)
            .await
            .unwrap();
        let pool = PgPoolOptions::new()
            .max_connections(6)
            .connect_with(admin_options().database(&name))
            .await
            .unwrap();
        sqlx::query("create table effect (name text not null)")
            .execute(&pool)
            .await
            .unwrap();
        (pool, name)
    }

    async fn close(pool: Pool<Postgres>, name: String) {
        pool.close().await;
        let mut admin = PgConnection::connect_with(&admin_options()).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "drop database {name} with (force)"
        )))
        .execute(&mut admin)
        .await
        .unwrap();
    }

    async fn effect(conn: &mut PgConnection, name: &str) -> sqlx::Result<()> {
        sqlx::query("insert into effect values ($1)")
            .bind(name)
            .execute(conn)
            .await
            .map(|_| ())
    }

    async fn effects(pool: &Pool<Postgres>, name: &str) -> i64 {
        sqlx::query_scalar("select count(*) from effect where name = $1")
            .bind(name)
            .fetch_one(pool)
            .await
            .unwrap()
    }

    async fn raw(conn: &mut PgConnection, sql: &'static str) -> sqlx::Result<()> {
        sqlx::raw_sql(sql).execute(conn).await.map(|_| ())
    }

    async fn left_behind(pool: &Pool<Postgres>) -> i64 {
        sqlx::query_scalar(
            "select (select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%') \
             + (select count(*) from pg_locks l join pg_database d on d.oid = l.database where d.datname = current_database() and locktype = 'advisory')",
        )
        .fetch_one(pool)
        .await
        .unwrap()
    }
}

impl TestDb for MySql {
    type Home = String;

    async fn open() -> (Pool<MySql>, String) {
        let name = format!("mainstay_idempotency_{}", Uuid::new_v4().simple());
        let admin = mariadb_options().await;
        let mut conn = MySqlConnection::connect_with(&admin).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name}")))
            .execute(&mut conn)
            .await
            .unwrap();
        let pool = MySqlPoolOptions::new()
            .max_connections(6)
            .connect_with(admin.database(&name))
            .await
            .unwrap();
        sqlx::raw_sql("create table effect (name varbinary(255) not null)")
            .execute(&pool)
            .await
            .unwrap();
        (pool, name)
    }

    async fn close(pool: Pool<MySql>, name: String) {
        pool.close().await;
        let mut conn = MySqlConnection::connect_with(&mariadb_options().await)
            .await
            .unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("drop database {name}")))
            .execute(&mut conn)
            .await
            .unwrap();
    }

    async fn effect(conn: &mut MySqlConnection, name: &str) -> sqlx::Result<()> {
        sqlx::query("insert into effect values (?)")
            .bind(name)
            .execute(conn)
            .await
            .map(|_| ())
    }

    async fn effects(pool: &Pool<MySql>, name: &str) -> i64 {
        sqlx::query_scalar("select count(*) from effect where name = ?")
            .bind(name)
            .fetch_one(pool)
            .await
            .unwrap()
    }

    async fn raw(conn: &mut MySqlConnection, sql: &'static str) -> sqlx::Result<()> {
        sqlx::raw_sql(sql).execute(conn).await.map(|_| ())
    }

    async fn left_behind(pool: &Pool<MySql>) -> i64 {
        // Named locks, transactions and changed settings are a connection's own business: ask each of them.
        let mut idle = Vec::new();
        while let Some(conn) = pool.try_acquire() {
            idle.push(conn);
        }
        let mut left = i64::from(pool.size()) - i64::try_from(idle.len()).unwrap();
        for conn in &mut idle {
            left += sqlx::query_scalar::<_, i64>(
                "select cast(@@in_transaction + (is_used_lock(@mainstay_key) <=> connection_id()) + (is_used_lock(@mainstay_request) <=> connection_id()) \
                 + (@@session.wait_timeout <> @@global.wait_timeout) as signed)",
            )
            .fetch_one(&mut **conn)
            .await
            .unwrap();
        }
        left
    }
}

/// By the server's socket, where it is on this machine: sqlx leaves Nagle's algorithm on, so that over TCP each
/// statement that is prepared waits 40 ms for an acknowledgement.
pub async fn mariadb_options() -> MySqlConnectOptions {
    let url = env::var("MAINSTAY_TEST_MARIADB_URL")
        .expect("MAINSTAY_TEST_MARIADB_URL must name a MariaDB server where databases may be created; tests/run provides one");
    let options = MySqlConnectOptions::from_str(&url).unwrap();
    let mut conn = MySqlConnection::connect_with(&options).await.unwrap();
    let socket: String = sqlx::query_scalar("select @@socket")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
    let near = options.clone().socket(socket);
    match MySqlConnection::connect_with(&near).await {
        Ok(_) => near,
        Err(_) => options,
    }
}

pub fn admin_options() -> PgConnectOptions {
    let url = env::var("MAINSTAY_TEST_POSTGRES_URL")
        .expect("MAINSTAY_TEST_POSTGRES_URL must name a Postgres server where databases may be created; tests/run provides one");
    PgConnectOptions::from_str(&url)
        .unwrap()
        .ssl_mode(sqlx::postgres::PgSslMode::Disable)
}
