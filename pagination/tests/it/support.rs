//! Databases for tests, and the little that differs between them.

use std::sync::atomic::{AtomicU32, Ordering};

use mainstay_pagination::{CursorCodec, KeyRing, PageDb};
use sqlx::{
    AssertSqlSafe, Connection, Database, Executor, PgConnection, Postgres, Sqlite, SqliteConnection,
};

pub fn codec() -> CursorCodec {
    CursorCodec::hmac_sha256(KeyRing::new(1, [7; 32]).unwrap())
}

/// A database of a test's own.
pub trait TestDb: PageDb {
    const NULLS_SMALLEST: bool;

    /// The column type of a kind's name.
    fn column_type(kind: &str) -> &'static str;

    /// Runs statements without parameters.
    fn run(connection: &mut Self::Connection, sql: String) -> impl Future<Output = ()>;

    /// Runs a query built with parameters.
    fn execute(
        connection: &mut Self::Connection,
        query: sqlx::QueryBuilder<Self>,
    ) -> impl Future<Output = ()>;

    /// Reads one column of integers.
    fn integers(connection: &mut Self::Connection, sql: String) -> impl Future<Output = Vec<i64>>;
}

macro_rules! test_db {
    ($db:ty, $nulls_smallest:expr, [$($kind:pat => $column:expr),* $(,)?]) => {
        impl TestDb for $db {
            const NULLS_SMALLEST: bool = $nulls_smallest;

            fn column_type(kind: &str) -> &'static str {
                match kind {
                    $($kind => $column,)*
                    other => panic!("no column type for {other}"),
                }
            }

            async fn run(connection: &mut <$db as Database>::Connection, sql: String) {
                connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
            }

            async fn execute(connection: &mut <$db as Database>::Connection, mut query: sqlx::QueryBuilder<$db>) {
                query.build().execute(connection).await.unwrap();
            }

            async fn integers(connection: &mut <$db as Database>::Connection, sql: String) -> Vec<i64> {
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap()
            }
        }
    };
}

test_db!(Sqlite, true, [
    "bool" | "i64" | "i32" | "timestamptz" | "timestamp" => "INTEGER",
    "f64" | "f32" => "REAL",
    "text" => "TEXT",
    "text_nocase" => "TEXT COLLATE NOCASE",
    "bytes" | "uuid" => "BLOB",
    "rowid" => "INTEGER PRIMARY KEY",
]);

test_db!(Postgres, false, [
    "bool" => "bool",
    "i64" | "rowid" => "int8",
    "i32" => "int4",
    "f64" => "float8",
    "f32" => "float4",
    "text" => "text",
    "text_nocase" => "varchar COLLATE \"C\"",
    "bytes" => "bytea",
    "uuid" => "uuid",
    "timestamptz" => "timestamptz",
    "timestamp" => "timestamp",
]);

/// One connection, so that a database in memory is safe.
pub async fn sqlite() -> SqliteConnection {
    SqliteConnection::connect("sqlite::memory:").await.unwrap()
}

/// A Postgres database of the test's own; dropped by [`Scratch::drop_database`].
pub struct Scratch {
    pub url: String,
    admin: String,
    name: String,
}

impl Scratch {
    pub async fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let admin = std::env::var("MAINSTAY_TEST_POSTGRES_URL")
            .expect("set MAINSTAY_TEST_POSTGRES_URL to an admin URL, or run tests/run");
        let name = format!(
            "pagination_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let (server, _) = admin.rsplit_once('/').expect("the URL names a database");
        let url = format!("{server}/{name}");
        let scratch = Self { url, admin, name };
        scratch
            .admin(format!("CREATE DATABASE {}", scratch.name))
            .await;
        scratch
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    pub async fn drop_database(self) {
        self.admin(format!("DROP DATABASE {} WITH (FORCE)", self.name))
            .await;
    }

    async fn admin(&self, sql: String) {
        let mut connection = PgConnection::connect(&self.admin).await.unwrap();
        Postgres::run(&mut connection, sql).await;
        connection.close().await.unwrap();
    }
}
