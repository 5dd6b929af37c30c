//! A database of its own on each server, and pools that do not ping before each use.

use std::str::FromStr;

use results::Measure;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, MySqlPool, PgPool};
use uuid::Uuid;

/// A database that is dropped with [`drop`](Self::drop).
pub struct Postgres {
    admin: PgPool,
    pub name: String,
    pub options: PgConnectOptions,
    pub url: String,
}

impl Postgres {
    /// None where no server is given, which is said.
    pub async fn create() -> Option<Self> {
        let url = url("POSTGRES")?;
        let options = PgConnectOptions::from_str(&url).unwrap();
        let admin = PgPool::connect_with(options.clone()).await.unwrap();
        let name = name();
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&admin).await.unwrap();
        let (server, _) = url.rsplit_once('/').unwrap();
        let url = format!("{server}/{name}");
        Some(Self {
            admin,
            options: options.database(&name),
            name,
            url,
        })
    }

    pub async fn pool(&self, connections: u32) -> PgPool {
        let options = PgPoolOptions::new().max_connections(connections);
        let options = options
            .min_connections(connections)
            .test_before_acquire(false);
        options.connect_with(self.options.clone()).await.unwrap()
    }

    /// Bytes of its log so far.
    pub async fn log(&self) -> f64 {
        let query = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
        sqlx::query_scalar(query)
            .fetch_one(&self.admin)
            .await
            .unwrap()
    }

    pub async fn drop(self) {
        let drop = AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name));
        sqlx::raw_sql(drop).execute(&self.admin).await.unwrap();
    }
}

pub struct MariaDb {
    admin: MySqlPool,
    name: String,
    pub url: String,
    pub options: MySqlConnectOptions,
}

impl MariaDb {
    pub async fn create() -> Option<Self> {
        let url = url("MARIADB")?;
        let options = MySqlConnectOptions::from_str(&url).unwrap();
        let admin = MySqlPool::connect_with(options.clone()).await.unwrap();
        let name = name();
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&admin).await.unwrap();
        let (server, _) = url.rsplit_once('/').unwrap();
        let url = format!("{server}/{name}");
        Some(Self {
            admin,
            options: options.database(&name),
            name,
            url,
        })
    }

    pub async fn pool(&self, connections: u32) -> MySqlPool {
        let options = MySqlPoolOptions::new().max_connections(connections);
        let options = options.test_before_acquire(false);
        options.connect_with(self.options.clone()).await.unwrap()
    }

    pub async fn drop(self) {
        let drop = AssertSqlSafe(format!("DROP DATABASE {}", self.name));
        sqlx::raw_sql(drop).execute(&self.admin).await.unwrap();
    }
}

fn name() -> String {
    format!("mainstay_race_{}", Uuid::new_v4().simple())
}

fn url(server: &str) -> Option<String> {
    let variable = format!("MAINSTAY_TEST_{server}_URL");
    let url = std::env::var(&variable).ok();
    if url.is_none() {
        println!("{variable} is not set: what needs it is left out\n");
    }
    url
}

/// For the page of results.
pub async fn keep_versions() {
    results::begin("servers");
    let mut versions = Vec::new();
    if let Some(url) = url("POSTGRES") {
        let pool = PgPool::connect(&url).await.unwrap();
        let say = "SELECT current_setting('server_version') || ' (fsync ' || current_setting('fsync') || ', jit ' || current_setting('jit') || ')'";
        let version: String = sqlx::query_scalar(say).fetch_one(&pool).await.unwrap();
        versions.push(format!("PostgreSQL {version}"));
    }
    if let Some(url) = url("MARIADB") {
        let pool = MySqlPool::connect(&url).await.unwrap();
        let version: String = sqlx::query_scalar("SELECT version()")
            .fetch_one(&pool)
            .await
            .unwrap();
        versions.push(format!("MariaDB {version}"));
    }
    let sqlite = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(&sqlite)
        .await
        .unwrap();
    versions.push(format!("SQLite {version}"));
    for version in versions {
        println!("{version}");
        results::keep(Measure::new("version", &version, 0.0, ""));
    }
    println!();
}
