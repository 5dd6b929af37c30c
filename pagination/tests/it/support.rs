//! Databases for tests, and the little that differs between them.

use std::sync::atomic::{AtomicU32, Ordering};

use mainstay_pagination::{CursorCodec, KeyRing, PageDb};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Database, Executor, MySql, MySqlConnection,
    PgConnection, Postgres, Sqlite, SqliteConnection,
};

pub fn codec() -> CursorCodec {
    CursorCodec::hmac_sha256(KeyRing::new(1, [7; 32]).unwrap())
}

/// A database of a test's own.
pub trait TestDb: PageDb {
    /// Whether it has floats that are not finite.
    const NOT_FINITE: bool;

    /// What gathers statistics on the table `t`.
    const ANALYZE: &'static str;

    /// What CAST calls an integer of 64 bits.
    const BIGINT: &'static str;

    /// The column type of a kind's name.
    fn column_type(kind: &str) -> &'static str;

    /// The identifier as the database wants it written.
    fn quoted(name: &str) -> String;

    /// A column of a full ORDER BY, its NULLs where they are wanted.
    fn order_by(name: &str, descending: bool, nulls_first: bool) -> String {
        let direction = if descending { "DESC" } else { "ASC" };
        let nulls = if nulls_first { "FIRST" } else { "LAST" };
        format!("{} {direction} NULLS {nulls}", Self::quoted(name))
    }

    /// What DROP INDEX needs besides the index's name.
    fn on(_table: &str) -> String {
        String::new()
    }

    /// Empties a table, fast.
    fn truncate(table: &str) -> String {
        format!("DELETE FROM {table}")
    }

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

macro_rules! runs {
    ($db:ty) => {
        async fn run(connection: &mut <$db as Database>::Connection, sql: String) {
            if let Err(error) = connection
                .execute(sqlx::raw_sql(AssertSqlSafe(sql.clone())))
                .await
            {
                panic!("{error}\n{sql}");
            }
        }

        async fn execute(
            connection: &mut <$db as Database>::Connection,
            mut query: sqlx::QueryBuilder<$db>,
        ) {
            query
                .build()
                .persistent(false)
                .execute(connection)
                .await
                .unwrap();
        }

        async fn integers(connection: &mut <$db as Database>::Connection, sql: String) -> Vec<i64> {
            sqlx::query_scalar(AssertSqlSafe(sql))
                .persistent(false)
                .fetch_all(connection)
                .await
                .unwrap()
        }
    };
}

impl TestDb for Sqlite {
    const NOT_FINITE: bool = true;
    const ANALYZE: &'static str = "ANALYZE t";
    const BIGINT: &'static str = "bigint";

    fn column_type(kind: &str) -> &'static str {
        match kind {
            "bool" | "i64" | "i32" | "u64" | "timestamptz" | "timestamp" | "date" | "time" => {
                "INTEGER"
            }
            "f64" | "f32" => "REAL",
            "decimal" => "DECIMAL(10, 2)",
            "text" => "TEXT",
            "text_nocase" => "TEXT COLLATE NOCASE",
            "bytes" | "uuid" => "BLOB",
            "rowid" => "INTEGER PRIMARY KEY",
            other => panic!("no column type for {other}"),
        }
    }

    fn quoted(name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    runs!(Sqlite);
}

impl TestDb for Postgres {
    const NOT_FINITE: bool = true;
    const ANALYZE: &'static str = "ANALYZE t";
    const BIGINT: &'static str = "bigint";

    fn column_type(kind: &str) -> &'static str {
        match kind {
            "bool" => "bool",
            "i64" | "u64" | "rowid" => "int8",
            "i32" => "int4",
            "f64" => "float8",
            "f32" => "float4",
            "decimal" => "numeric",
            "text" => "text",
            "text_nocase" => "varchar COLLATE \"C\"",
            "bytes" => "bytea",
            "uuid" => "uuid",
            "timestamptz" => "timestamptz",
            "timestamp" => "timestamp",
            "date" => "date",
            "time" => "time",
            other => panic!("no column type for {other}"),
        }
    }

    fn quoted(name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    fn truncate(table: &str) -> String {
        format!("TRUNCATE {table}")
    }

    runs!(Postgres);
}

impl TestDb for MySql {
    const NOT_FINITE: bool = false;
    const ANALYZE: &'static str = "ANALYZE TABLE t";
    const BIGINT: &'static str = "SIGNED";

    fn column_type(kind: &str) -> &'static str {
        match kind {
            "bool" => "boolean",
            "i64" => "bigint",
            "rowid" => "bigint PRIMARY KEY",
            "u64" => "bigint unsigned",
            "i32" => "int",
            "f64" => "double",
            "f32" => "float",
            "decimal" => "decimal(40, 12)",
            "text" => "varchar(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            // 'a' = 'A' = 'á' = 'a ' there.
            "text_nocase" => "varchar(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
            "bytes" => "varbinary(40)",
            "uuid" => "binary(16)",
            "timestamptz" => "timestamp(6)",
            "timestamp" => "datetime(6)",
            "date" => "date",
            "time" => "time(6)",
            other => panic!("no column type for {other}"),
        }
    }

    fn quoted(name: &str) -> String {
        format!("`{}`", name.replace('`', "``"))
    }

    fn order_by(name: &str, descending: bool, nulls_first: bool) -> String {
        let direction = if descending { "DESC" } else { "ASC" };
        let nulls = if nulls_first { "DESC" } else { "ASC" };
        let name = Self::quoted(name);
        format!("{name} IS NULL {nulls}, {name} {direction}")
    }

    fn on(table: &str) -> String {
        format!(" ON {table}")
    }

    runs!(MySql);
}

/// One connection, so that a database in memory is safe.
pub async fn sqlite() -> SqliteConnection {
    SqliteConnection::connect("sqlite::memory:").await.unwrap()
}

fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "pagination_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A Postgres database of the test's own; dropped by [`Scratch::drop_database`].
pub struct Scratch {
    pub url: String,
    admin: String,
    name: String,
}

impl Scratch {
    pub async fn create() -> Self {
        let admin = std::env::var("MAINSTAY_TEST_POSTGRES_URL")
            .expect("set MAINSTAY_TEST_POSTGRES_URL to an admin URL, or run tests/run");
        let name = unique_name();
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

/// A MariaDB database of the test's own; dropped by [`Maria::drop_database`].
pub struct Maria {
    pub options: MySqlConnectOptions,
    admin: MySqlConnectOptions,
    name: String,
}

impl Maria {
    pub async fn create() -> Self {
        let admin: MySqlConnectOptions = std::env::var("MAINSTAY_TEST_MARIADB_URL")
            .expect("set MAINSTAY_TEST_MARIADB_URL to an admin URL, or run tests/run")
            .parse()
            .unwrap();
        let admin = Self::near(admin).await;
        let name = unique_name();
        let maria = Self {
            options: admin.clone().database(&name),
            admin,
            name,
        };
        maria
            .run(format!(
                "CREATE DATABASE {} CHARACTER SET utf8mb4",
                maria.name
            ))
            .await;
        maria
    }

    /// By the server's socket, where it is on this machine: sqlx leaves Nagle's algorithm on, so that over TCP each
    /// statement that is prepared waits 40 ms for an acknowledgement.
    async fn near(admin: MySqlConnectOptions) -> MySqlConnectOptions {
        let mut connection = admin.connect().await.unwrap();
        let socket: String = sqlx::query_scalar("SELECT @@socket")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        let local = admin.clone().socket(socket);
        match local.connect().await {
            Ok(connection) => {
                connection.close().await.unwrap();
                local
            }
            Err(_) => admin,
        }
    }

    pub async fn connect(&self) -> MySqlConnection {
        self.options.connect().await.unwrap()
    }

    pub async fn drop_database(self) {
        self.run(format!("DROP DATABASE {}", self.name)).await;
    }

    async fn run(&self, sql: String) {
        let mut connection = self.admin.connect().await.unwrap();
        MySql::run(&mut connection, sql).await;
        connection.close().await.unwrap();
    }
}
