//! Fresh databases, and the cases of this binary on each kind.

use std::{path::PathBuf, time::Duration};

use mainstay_outbox::{
    Event, Outbox, OutboxConfig, OutboxDb, Relay, RelayBuilder, migrate_with_lanes,
};
use mainstay_retry::Backoff;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, Pool, Postgres, Sqlite,
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
#[cfg(feature = "mysql")]
use sqlx::{
    MySql, MySqlConnection,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// A database of a test's own.
pub struct Fresh<Db: OutboxDb> {
    pub pool: Pool<Db>,
    cleanup: Cleanup,
}

enum Cleanup {
    Folder(PathBuf),
    Database { admin: String, name: String },
}

impl<Db: OutboxDb> Fresh<Db> {
    /// Its address, for other processes.
    pub fn url(&self) -> String {
        match &self.cleanup {
            Cleanup::Folder(folder) => format!("sqlite://{}", folder.join("outbox.db").display()),
            Cleanup::Database { admin, name } => {
                let server = admin
                    .rsplit_once('/')
                    .map_or(admin.as_str(), |(server, _)| server);
                format!("{server}/{name}")
            }
        }
    }

    /// Takes it away again.
    pub async fn gone(self) {
        self.pool.close().await;
        match &self.cleanup {
            Cleanup::Folder(_) => {}
            #[cfg(feature = "mysql")]
            Cleanup::Database { admin, name } if admin.starts_with("mysql:") => {
                let mut admin = MySqlConnection::connect(admin).await.unwrap();
                let drop = AssertSqlSafe(format!("DROP DATABASE {name}"));
                sqlx::raw_sql(drop).execute(&mut admin).await.unwrap();
            }
            Cleanup::Database { admin, name } => {
                let mut admin = PgConnection::connect(admin).await.unwrap();
                let drop = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
                sqlx::raw_sql(drop).execute(&mut admin).await.unwrap();
            }
        }
    }
}

impl<Db: OutboxDb> Drop for Fresh<Db> {
    fn drop(&mut self) {
        if let Cleanup::Folder(folder) = &self.cleanup {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

pub async fn sqlite() -> Fresh<Sqlite> {
    let folder = std::env::temp_dir().join(format!("mainstay-outbox-{}", Uuid::now_v7().simple()));
    std::fs::create_dir_all(&folder).unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.join("outbox.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(10));
    let pool = SqlitePoolOptions::new()
        .max_connections(6)
        .connect_with(options)
        .await
        .unwrap();
    Fresh {
        pool,
        cleanup: Cleanup::Folder(folder),
    }
}

pub async fn postgres() -> Fresh<Postgres> {
    let admin = std::env::var("MAINSTAY_TEST_POSTGRES_URL").expect(
        "MAINSTAY_TEST_POSTGRES_URL must name a Postgres server where databases may be created",
    );
    let name = format!("outbox_{}", Uuid::now_v7().simple());
    let mut connection = PgConnection::connect(&admin).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(create)
        .execute(&mut connection)
        .await
        .unwrap();
    let options: sqlx::postgres::PgConnectOptions = admin.parse().unwrap();
    let options = options.database(&name);
    let pool = PgPoolOptions::new()
        .max_connections(6)
        .connect_with(options)
        .await
        .unwrap();
    Fresh {
        pool,
        cleanup: Cleanup::Database { admin, name },
    }
}

#[cfg(feature = "mysql")]
pub async fn mariadb() -> Fresh<MySql> {
    let admin = std::env::var("MAINSTAY_TEST_MARIADB_URL").expect(
        "MAINSTAY_TEST_MARIADB_URL must name a MariaDB or MySQL server where databases may be created",
    );
    let name = format!("outbox_{}", Uuid::now_v7().simple());
    let mut connection = MySqlConnection::connect(&admin).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(create)
        .execute(&mut connection)
        .await
        .unwrap();
    let options: MySqlConnectOptions = admin.parse().unwrap();
    let options = options.database(&name);
    let pool = MySqlPoolOptions::new()
        .max_connections(6)
        .connect_with(options)
        .await
        .unwrap();
    Fresh {
        pool,
        cleanup: Cleanup::Database { admin, name },
    }
}

/// Runs each generic case on SQLite always, and on the servers when ignored tests are included.
macro_rules! on_each {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test] async fn $case() {
                let database = crate::support::sqlite().await;
                super::$case(database.pool.clone()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
            async fn $case() {
                let database = crate::support::postgres().await;
                super::$case(database.pool.clone()).await;
                database.gone().await;
            })+
        }
        #[cfg(feature = "mysql")]
        mod mariadb {
            $(#[tokio::test]
            #[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
            async fn $case() {
                let database = crate::support::mariadb().await;
                super::$case(database.pool.clone()).await;
                database.gone().await;
            })+
        }
    };
}
pub(crate) use on_each;

/// Migrates, and gives an outbox.
pub async fn outbox<Db: OutboxDb>(pool: &Pool<Db>, lanes: u16) -> Outbox<Db> {
    migrate_with_lanes(pool, lanes).await.unwrap();
    Outbox::new(OutboxConfig::default().source("/tests"))
}

/// A relay that wakes with the outbox, looks often and retries at once.
pub fn quick<Db: OutboxDb>(pool: &Pool<Db>, outbox: &Outbox<Db>) -> RelayBuilder<Db> {
    let soon = Backoff::constant(Duration::from_millis(5));
    Relay::builder(pool.clone())
        .outbox(outbox)
        .lease(Duration::from_secs(1))
        .poll_interval(Duration::from_millis(20))
        .retry(soon)
        .sink_backoff(soon)
}

/// Enqueues in a transaction of its own, commits and wakes.
pub async fn put<Db: OutboxDb>(pool: &Pool<Db>, outbox: &Outbox<Db>, events: Vec<Event>) {
    let mut tx = pool.begin_immediately().await;
    outbox.enqueue_many(&mut tx, events).await.unwrap();
    tx.commit().await.unwrap();
    outbox.waker().notify_after_commit();
}

/// BEGIN in a way that a writer on SQLite needs: with the write lock from the start.
pub trait BeginImmediately<Db: OutboxDb> {
    fn begin_immediately(&self) -> impl Future<Output = sqlx::Transaction<'static, Db>>;
}

impl<Db: OutboxDb> BeginImmediately<Db> for Pool<Db> {
    async fn begin_immediately(&self) -> sqlx::Transaction<'static, Db> {
        if Db::NAME == "SQLite" {
            self.begin_with("BEGIN IMMEDIATE").await.unwrap()
        } else {
            self.begin().await.unwrap()
        }
    }
}

/// Asks until it is so; for what only the database knows.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !so().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
