//! Errors of real databases, classified.

use mainstay_errors::db::{Condition, DbFault, DbResultExt};
use mainstay_errors::{Error, Fault, Violations};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, SqlitePool};

#[derive(Debug, thiserror::Error, Fault)]
enum UserError {
    #[error("no such user")]
    #[fault(not_found, public)]
    UserNotFound,
    #[error("e-mail taken")]
    #[fault(
        already_exists,
        public,
        constraint = "users_email_key",
        pointer = "/email"
    )]
    EmailTaken,
    #[error(transparent)]
    #[fault(delegate)]
    Database(#[from] DbFault),
    #[error(transparent)]
    #[fault(delegate)]
    Invalid(#[from] Violations),
}

async fn sqlite() -> (tempfile::TempDir, SqlitePool) {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("test.db"))
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .busy_timeout(std::time::Duration::ZERO);
    let pool = SqlitePoolOptions::new()
        .max_connections(2)
        .connect_with(options)
        .await
        .unwrap();
    pool.execute(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, age INTEGER CHECK (age > 0)) STRICT;
         CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users);
         INSERT INTO users VALUES (1, 'a@example.com', 1); INSERT INTO orders VALUES (1, 1)",
    )
    .await
    .unwrap();
    (folder, pool)
}

#[tokio::test]
async fn sqlite_conditions_are_recognised() {
    let (_folder, pool) = sqlite().await;
    for (sql, condition) in [
        (
            "INSERT INTO users VALUES (2, 'a@example.com', 1)",
            Condition::UniqueViolation,
        ),
        (
            "INSERT INTO users VALUES (1, 'b@example.com', 1)",
            Condition::UniqueViolation,
        ),
        (
            "INSERT INTO users VALUES (2, NULL, 1)",
            Condition::NotNullViolation,
        ),
        (
            "INSERT INTO users VALUES (2, 'b@example.com', 0)",
            Condition::CheckViolation,
        ),
        (
            "INSERT INTO orders VALUES (2, 77)",
            Condition::ForeignKeyViolation,
        ),
        (
            "DELETE FROM users WHERE id = 1",
            Condition::ForeignKeyViolation,
        ),
        ("SELECT * FROM nothing", Condition::Other),
    ] {
        let error = pool.execute(sql).await.unwrap_err();
        assert_eq!(DbFault::from(error).condition(), condition, "{sql}");
    }
}

#[tokio::test]
async fn sqlite_lock_and_stale_snapshot_are_conflicts() {
    let (_folder, pool) = sqlite().await;
    let mut reader = pool.acquire().await.unwrap();
    let mut writer = pool.acquire().await.unwrap();
    reader
        .execute("BEGIN; SELECT count(*) FROM users")
        .await
        .unwrap();
    writer
        .execute("BEGIN IMMEDIATE; UPDATE users SET age = 2")
        .await
        .unwrap();
    let busy = DbFault::from(
        reader
            .execute("UPDATE users SET age = 3")
            .await
            .unwrap_err(),
    );
    assert_eq!(busy.condition(), Condition::LockTimeout);
    writer.execute("COMMIT").await.unwrap();
    let stale = DbFault::from(
        reader
            .execute("UPDATE users SET age = 3")
            .await
            .unwrap_err(),
    );
    assert_eq!(stale.condition(), Condition::SerializationFailure);
    assert!(busy.is_transaction_conflict() && stale.is_transaction_conflict());
    assert_eq!(stale.to_problem().retry_after_seconds(), Some(1));
}

#[tokio::test]
async fn the_call_site_says_what_an_error_means_there() {
    let (_folder, pool) = sqlite().await;
    let insert = || async {
        pool.execute("INSERT INTO users VALUES (2, 'a@example.com', 1)")
            .await
    };
    let taken = insert().await.on_unique(UserError::EmailTaken).unwrap_err();
    assert_eq!(taken.to_problem().errors()[0].pointer(), "/email");
    // SQLite names no constraint, so a mapping by name falls back to the general answer.
    let general = insert().await.by_constraint::<UserError>().unwrap_err();
    assert_eq!(general.to_problem().code(), "already_exists");
    let missing = sqlx::query("SELECT id FROM users WHERE id = 9")
        .fetch_one(&pool)
        .await;
    assert_eq!(
        missing
            .or_not_found(UserError::UserNotFound)
            .unwrap_err()
            .to_problem()
            .status(),
        404
    );
}

#[tokio::test]
async fn an_exhausted_pool_did_nothing() {
    let (_folder, pool) = sqlite().await;
    let (_a, _b) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    assert!(pool.try_acquire().is_none());
    pool.close_event();
    let closing = tokio::spawn({
        let pool = pool.clone();
        async move { pool.close().await }
    });
    let error = Error::from(pool.acquire().await.map(drop).unwrap_err());
    assert_eq!(
        (error.code(), error.outcome().as_str()),
        ("database_unavailable", "not_applied")
    );
    drop((_a, _b));
    closing.await.unwrap();
}

/// A database of its own on the server that `tests/run` starts.
struct Database {
    name: String,
    admin: String,
    pool: PgPool,
}

impl Database {
    async fn create() -> Self {
        let admin = std::env::var("MAINSTAY_TEST_POSTGRES_URL")
            .expect("MAINSTAY_TEST_POSTGRES_URL must name an admin database; tests/run sets it");
        let name = format!("errors_{}", uuid::Uuid::now_v7().simple());
        let mut connection = PgConnection::connect(&admin).await.unwrap();
        connection
            .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .await
            .unwrap();
        let options: PgConnectOptions = admin.parse().unwrap();
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .connect_with(options.database(&name))
            .await
            .unwrap();
        pool.execute(
            "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL CONSTRAINT users_email_key UNIQUE,
                                 age smallint CONSTRAINT users_age_check CHECK (age > 0));
             CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users);
             INSERT INTO users VALUES (1, 'a@example.com', 1), (2, 'b@example.com', 1); INSERT INTO orders VALUES (1, 1)",
        )
        .await
        .unwrap();
        Self { name, admin, pool }
    }

    async fn drop(self) {
        self.pool.close().await;
        let mut connection = PgConnection::connect(&self.admin).await.unwrap();
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        connection.execute(AssertSqlSafe(drop)).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn postgres_conditions_are_recognised() {
    let database = Database::create().await;
    let pool = &database.pool;
    for (sql, condition) in [
        (
            "INSERT INTO users VALUES (3, 'a@example.com', 1)",
            Condition::UniqueViolation,
        ),
        (
            "INSERT INTO users VALUES (3, NULL, 1)",
            Condition::NotNullViolation,
        ),
        (
            "INSERT INTO users VALUES (3, 'c@example.com', 0)",
            Condition::CheckViolation,
        ),
        (
            "INSERT INTO orders VALUES (2, 77)",
            Condition::ForeignKeyViolation,
        ),
        (
            "DELETE FROM users WHERE id = 1",
            Condition::ForeignKeyViolation,
        ),
        ("SELECT 'hunter2'::int", Condition::DataException),
        ("SELECT 70000::smallint", Condition::DataException),
        ("SELECT 1/0", Condition::Other),
        ("SELECT * FROM nothing", Condition::Other),
        (
            "DO $$ BEGIN RAISE EXCEPTION 'no'; END $$",
            Condition::Raised,
        ),
        (
            "SET statement_timeout = 1; SELECT pg_sleep(5)",
            Condition::StatementTimeout,
        ),
        (
            "BEGIN READ ONLY; UPDATE users SET age = 2",
            Condition::ReadOnly,
        ),
        (
            "SELECT pg_terminate_backend(pg_backend_pid())",
            Condition::ConnectionLost,
        ),
    ] {
        // A connection for each, because some of these spoil it.
        let mut connection = pool.acquire().await.unwrap().detach();
        let fault = DbFault::from(connection.execute(sql).await.unwrap_err());
        assert_eq!(fault.condition(), condition, "{sql}");
        let chain = Error::from(fault).chain().join(": ");
        assert!(
            !chain.contains("hunter2") && !chain.contains("example.com"),
            "{chain}"
        );
    }
    database.drop().await;
}

#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn postgres_conflicts_are_transaction_conflicts() {
    let database = Database::create().await;
    let mut a = database.pool.acquire().await.unwrap();
    let mut b = database.pool.acquire().await.unwrap();

    for connection in [&mut a, &mut b] {
        connection
            .execute("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(age) FROM users")
            .await
            .unwrap();
    }
    a.execute("UPDATE users SET age = 5 WHERE id = 1; COMMIT")
        .await
        .unwrap();
    let error = b
        .execute("UPDATE users SET age = 6 WHERE id = 1")
        .await
        .unwrap_err();
    assert_eq!(
        DbFault::from(error).condition(),
        Condition::SerializationFailure
    );
    let error = b.execute("SELECT 1").await.unwrap_err();
    assert_eq!(
        DbFault::from(error).condition(),
        Condition::TransactionAborted
    );
    b.execute("ROLLBACK").await.unwrap();

    a.execute("BEGIN; UPDATE users SET age = 7 WHERE id = 1")
        .await
        .unwrap();
    let error = b
        .execute("SET lock_timeout = 1; UPDATE users SET age = 8 WHERE id = 1")
        .await
        .unwrap_err();
    assert_eq!(DbFault::from(error).condition(), Condition::LockTimeout);
    b.execute("RESET lock_timeout; BEGIN; UPDATE users SET age = 8 WHERE id = 2")
        .await
        .unwrap();
    // Each now wants the other's row; Postgres picks one of them.
    let (first, second) = tokio::join!(
        a.execute("UPDATE users SET age = 9 WHERE id = 2"),
        b.execute("UPDATE users SET age = 9 WHERE id = 1")
    );
    let victim = first.err().or(second.err()).unwrap();
    assert_eq!(DbFault::from(victim).condition(), Condition::Deadlock);
    drop((a, b));
    database.drop().await;
}

#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn postgres_names_the_constraint() {
    let database = Database::create().await;
    let insert = || async {
        database
            .pool
            .execute("INSERT INTO users VALUES (3, 'a@example.com', 1)")
            .await
    };
    let taken = insert().await.by_constraint::<UserError>().unwrap_err();
    assert_eq!(taken.to_problem().code(), "email_taken");
    let taken = insert()
        .await
        .on_constraint("users_email_key", UserError::EmailTaken)
        .unwrap_err();
    assert_eq!(taken.to_problem().code(), "email_taken");
    let other = insert()
        .await
        .on_constraint("users_pkey", UserError::EmailTaken)
        .unwrap_err();
    assert_eq!(
        other.to_string(),
        "unique violation (23505) on table users by constraint users_email_key"
    );
    assert_eq!(
        format!("{:?}", other),
        "Database(DbFault(unique violation (23505) on table users by constraint users_email_key))"
    );
    database.drop().await;
}
