//! SQLite, in a file of its own.

use std::time::Duration;

use mainstay_errors::db::{Condition, DbFault};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Sqlite, SqliteConnection};

use super::{Answer, Case, SECRET, TestDatabase};

struct File {
    options: SqliteConnectOptions,
    /// Open all the time, because the last connection that closes locks the file to tidy up.
    _open: SqliteConnection,
    folder: tempfile::TempDir,
}

impl File {
    async fn create() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(folder.path().join("test.db"));
        let create = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let mut open = create.connect().await.unwrap();
        open.execute(AssertSqlSafe(format!(
            "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, age INTEGER CHECK (age > 0)) STRICT;
             CREATE TABLE orders (id INTEGER PRIMARY KEY, email TEXT NOT NULL REFERENCES users (email));
             CREATE TRIGGER stop BEFORE UPDATE OF email ON users BEGIN SELECT RAISE(ABORT, 'stopped ' || OLD.email); END;
             INSERT INTO users VALUES (1, '{SECRET}', 1);
             INSERT INTO orders VALUES (1, '{SECRET}')"
        )))
        .await
        .unwrap();
        Self {
            options,
            _open: open,
            folder,
        }
    }

    async fn connect(&self) -> SqliteConnection {
        self.options.connect().await.unwrap()
    }

    /// A connection that waits for no lock.
    async fn connect_impatient(&self) -> SqliteConnection {
        let options = self.options.clone().busy_timeout(Duration::ZERO);
        options.connect().await.unwrap()
    }

    /// Runs on a connection of its own, because some statements spoil it.
    async fn fails(&self, sql: impl Into<String>) -> Answer {
        let mut connection = self.connect().await;
        connection.execute(AssertSqlSafe(sql.into())).await.into()
    }
}

impl TestDatabase for File {
    async fn provoke(&self, case: Case) -> Answer {
        match case {
            Case::Unique => {
                self.fails(format!("INSERT INTO users VALUES (3, '{SECRET}', 1)"))
                    .await
            }
            Case::PrimaryKey => {
                self.fails(format!("INSERT INTO users VALUES (1, '{SECRET}3', 1)"))
                    .await
            }
            Case::Exclusion => Answer::Cannot("no exclusion constraints"),
            Case::ForeignKeyChild => {
                self.fails(format!("INSERT INTO orders VALUES (2, '{SECRET}3')"))
                    .await
            }
            Case::ForeignKeyParent => {
                self.fails(format!("DELETE FROM users WHERE email = '{SECRET}'"))
                    .await
            }
            Case::NotNull => {
                self.fails(format!(
                    "INSERT INTO orders SELECT 2, NULL FROM users WHERE email = '{SECRET}'"
                ))
                .await
            }
            Case::Check => {
                self.fails(format!("INSERT INTO users VALUES (3, '{SECRET}3', 0)"))
                    .await
            }
            Case::Serialization => {
                let (mut reader, mut writer) = (self.connect().await, self.connect().await);
                reader
                    .execute("BEGIN; SELECT count(*) FROM users")
                    .await
                    .unwrap();
                writer.execute("UPDATE users SET age = 2").await.unwrap();
                reader.execute("UPDATE users SET age = 3").await.into()
            }
            Case::Deadlock => {
                Answer::Cannot("one writer; the second is told at once that the database is busy")
            }
            Case::LockTimeout => {
                let mut writer = self.connect().await;
                let mut reader = self.connect_impatient().await;
                writer.execute("BEGIN IMMEDIATE").await.unwrap();
                reader.execute("UPDATE users SET age = 3").await.into()
            }
            Case::NoWait => Answer::Cannot("no row locks; busy_timeout decides for all statements"),
            Case::StatementTimeout => {
                Answer::Cannot("no timeout; only the program can stop a statement")
            }
            Case::Cancelled => {
                let mut connection = self.connect().await;
                connection
                    .lock_handle()
                    .await
                    .unwrap()
                    .set_progress_handler(1, || false);
                connection
                    .execute("SELECT count(*) FROM users, orders")
                    .await
                    .into()
            }
            Case::ReadOnly => {
                self.fails(format!(
                    "PRAGMA query_only = ON; INSERT INTO users VALUES (3, '{SECRET}3', 1)"
                ))
                .await
            }
            Case::Refused => SqliteConnectOptions::new()
                .filename(self.folder.path().join("none.db"))
                .connect()
                .await
                .into(),
            Case::Full => Answer::Cannot("no connections to run out of"),
            Case::KilledAtWork | Case::NextUseOfKilledAtWork | Case::KilledIdle => {
                Answer::Cannot("no server")
            }
            Case::CommitUnknown => {
                Answer::Cannot("a commit that fails leaves the transaction open")
            }
            Case::OutOfResources => {
                // Clamped to the pages there are.
                self.fails("PRAGMA max_page_count = 1; INSERT INTO orders SELECT 2, hex(zeroblob(1000000))").await
            }
            Case::TooLong => {
                self.fails(format!("SELECT '{SECRET}' || zeroblob(2000000000)"))
                    .await
            }
            Case::OutOfRange => Answer::Cannot(
                "an integer that overflows is the code of any mistake of the program",
            ),
            Case::Malformed => Answer::Cannot("any column takes any value, or is STRICT"),
            Case::AbortedTransaction => Answer::Cannot("a transaction goes on after an error"),
            Case::Raised => self.fails("UPDATE users SET email = 'b@example.com'").await,
            Case::Corruption => {
                let path = self.folder.path().join("damaged.db");
                std::fs::write(&path, SECRET.repeat(1000)).unwrap();
                let connected = SqliteConnectOptions::new().filename(path).connect().await;
                match connected {
                    Ok(mut connection) => connection.execute("SELECT * FROM users").await.into(),
                    Err(error) => error.into(),
                }
            }
            Case::PoolTimedOut => super::pool_timed_out::<Sqlite>(self.options.clone())
                .await
                .into(),
            Case::PoolClosed => super::pool_closed::<Sqlite>(self.options.clone())
                .await
                .into(),
            Case::RowNotFound => {
                let query =
                    sqlx::query("SELECT * FROM users WHERE email = ? AND id = 9").bind(SECRET);
                query.fetch_one(&mut self.connect().await).await.into()
            }
            Case::MissingTable => self.fails("SELECT * FROM nothing").await,
            // The one text that is kept and quotes: see the documentation of the module.
            Case::SyntaxError => self.fails("SELEC").await,
            Case::DivisionByZero => Answer::Cannot("it is NULL"),
            Case::AccessDenied => Answer::Cannot("no users"),
            Case::Undecodable => {
                let row = sqlx::query("SELECT ?")
                    .bind(SECRET)
                    .fetch_one(&mut self.connect().await)
                    .await
                    .unwrap();
                super::undecodable(&row).into()
            }
        }
    }
}

#[tokio::test]
async fn every_case_is_recognised() {
    insta::assert_snapshot!("sqlite", super::report(&File::create().await).await);
}

#[tokio::test]
async fn the_call_site_says_what_an_error_means_there() {
    super::the_call_site_says_what_an_error_means_there(&File::create().await).await;
}

#[tokio::test]
async fn no_constraint_is_named() {
    super::no_constraint_is_named(&File::create().await).await;
}

/// As documented: with the transaction open, its earlier statements would be committed.
#[tokio::test]
async fn a_lock_that_was_not_to_be_had_leaves_the_transaction_open() {
    let file = File::create().await;
    let mut first = file.connect().await;
    let mut second = file.connect_impatient().await;
    first.execute("BEGIN IMMEDIATE").await.unwrap();
    second.execute("BEGIN; SELECT * FROM users").await.unwrap();
    let busy = second
        .execute("UPDATE users SET age = 3")
        .await
        .unwrap_err();
    assert_eq!(Condition::of(&busy), Condition::LockTimeout);
    second
        .execute("ROLLBACK")
        .await
        .expect("an open transaction");
}

/// SQLite is asked for its types only by STRICT tables, and a statement that sends another is a mistake of the program.
#[tokio::test]
async fn a_strict_column_refuses_without_a_value_in_its_text() {
    let file = File::create().await;
    let sql = format!("INSERT INTO users VALUES (3, 'c', '{SECRET}')");
    let Answer::Failed(error) = file.fails(sql).await else {
        panic!("a text in an integer column");
    };
    let fault = DbFault::from(error);
    assert_eq!(fault.code().as_deref(), Some("3091"));
    assert_eq!(fault.condition(), Condition::Other);
    let chain = mainstay_errors::Error::from(fault).chain().join(": ");
    assert!(
        chain.contains("users.age") && !chain.contains(SECRET),
        "{chain}"
    );
}
