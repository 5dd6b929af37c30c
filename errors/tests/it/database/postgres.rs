//! Postgres, in a database of its own on the server that `tests/run` starts.

use std::rc::Rc;

use mainstay_errors::Fault;
use mainstay_errors::db::{Condition, DbFault, DbResultExt};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Postgres};

use super::{Answer, Case, SECRET, TestDatabase, UserError, until};

struct Server {
    /// The name of the database, and the beginning of the name of every role.
    name: String,
    options: PgConnectOptions,
}

impl Server {
    /// Runs a test on a database that is gone afterwards.
    async fn with<T: Future<Output = ()> + 'static>(test: impl FnOnce(Rc<Self>) -> T) {
        let admin: PgConnectOptions = std::env::var("MAINSTAY_TEST_POSTGRES_URL")
            .expect("MAINSTAY_TEST_POSTGRES_URL must name an admin database; tests/run sets it")
            .parse()
            .unwrap();
        let name = super::unique_name();
        let mut connection = admin.connect().await.unwrap();
        let create = format!(
            "CREATE DATABASE {name};
             CREATE ROLE {name}_full LOGIN CONNECTION LIMIT 0"
        );
        for statement in create.split(';') {
            connection
                .execute(AssertSqlSafe(statement.to_owned()))
                .await
                .unwrap();
        }
        let server = Rc::new(Self {
            options: admin.database(&name),
            name,
        });
        let body = test(Rc::clone(&server));
        let test = {
            let server = Rc::clone(&server);
            async move {
                server.prepare().await;
                body.await;
            }
        };
        super::and_then_clean_up(test, async {
            let name = &server.name;
            for statement in [
                format!("DROP DATABASE {name} WITH (FORCE)"),
                format!("DROP ROLE {name}_full"),
            ] {
                connection.execute(AssertSqlSafe(statement)).await.unwrap();
            }
        })
        .await;
    }

    async fn prepare(&self) {
        self.connect()
            .await
            .execute(AssertSqlSafe(format!(
                "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL CONSTRAINT users_email_key UNIQUE,
                                     age smallint CONSTRAINT users_age_check CHECK (age > 0),
                                     name varchar(8), CONSTRAINT users_name_excl EXCLUDE (name WITH =));
                 CREATE TABLE orders (id int PRIMARY KEY, email text NOT NULL REFERENCES users (email));
                 CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN RAISE EXCEPTION 'stopped %', OLD.email; END $$;
                 CREATE TRIGGER stop BEFORE UPDATE OF email ON users FOR EACH ROW EXECUTE FUNCTION stop();
                 INSERT INTO users VALUES (1, '{SECRET}', 1, '{SECRET}'), (2, 'b@example.com', 1, 'b');
                 INSERT INTO orders VALUES (1, '{SECRET}')"
            )))
            .await
            .unwrap();
    }

    async fn connect(&self) -> PgConnection {
        self.options.connect().await.unwrap()
    }

    /// Runs on a connection of its own, because some statements spoil it.
    async fn fails(&self, sql: impl Into<String>) -> Answer {
        let mut connection = self.connect().await;
        connection.execute(AssertSqlSafe(sql.into())).await.into()
    }

    /// A statement at which `function` was aimed while it ran, and the connection that it ran on.
    async fn struck_at_work(&self, function: &str) -> (sqlx::Error, PgConnection) {
        let mut victim = self.connect().await;
        let pid = pid(&mut victim).await;
        let strike = async {
            let mut other = self.connect().await;
            until(async || {
                let asleep = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep')";
                sqlx::query_scalar(asleep)
                    .bind(pid)
                    .fetch_one(&mut other)
                    .await
                    .unwrap()
            })
            .await;
            let strike = format!("SELECT {function}({pid})");
            other.execute(AssertSqlSafe(strike)).await.unwrap();
        };
        let (result, ()) = tokio::join!(victim.execute("SELECT pg_sleep(60)"), strike);
        (result.unwrap_err(), victim)
    }
}

async fn pid(connection: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(connection)
        .await
        .unwrap()
}

impl TestDatabase for Server {
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
            Case::Exclusion => {
                self.fails(format!(
                    "INSERT INTO users VALUES (3, '{SECRET}3', 1, '{SECRET}')"
                ))
                .await
            }
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
                    "INSERT INTO users VALUES (3, NULL, 1, '{SECRET}3')"
                ))
                .await
            }
            Case::Check => {
                self.fails(format!("INSERT INTO users VALUES (3, '{SECRET}3', 0)"))
                    .await
            }
            Case::Serialization => {
                let (mut a, mut b) = (self.connect().await, self.connect().await);
                for connection in [&mut a, &mut b] {
                    let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(age) FROM users";
                    connection.execute(begin).await.unwrap();
                }
                a.execute("UPDATE users SET age = 5 WHERE id = 1; COMMIT")
                    .await
                    .unwrap();
                b.execute("UPDATE users SET age = 6 WHERE id = 1")
                    .await
                    .into()
            }
            Case::Deadlock => {
                let (mut a, mut b) = (self.connect().await, self.connect().await);
                a.execute(
                    "SET deadlock_timeout = '10ms'; BEGIN; UPDATE users SET age = 7 WHERE id = 1",
                )
                .await
                .unwrap();
                b.execute(
                    "SET deadlock_timeout = '10ms'; BEGIN; UPDATE users SET age = 8 WHERE id = 2",
                )
                .await
                .unwrap();
                // Each now wants the other's row, and one of them is picked.
                let (first, second) = tokio::join!(
                    a.execute("UPDATE users SET age = 9 WHERE id = 2"),
                    b.execute("UPDATE users SET age = 9 WHERE id = 1")
                );
                first.and(second).into()
            }
            Case::LockTimeout => {
                let mut holder = self.connect().await;
                holder
                    .execute("BEGIN; UPDATE users SET age = 7 WHERE id = 1")
                    .await
                    .unwrap();
                self.fails("SET lock_timeout = '10ms'; UPDATE users SET age = 8 WHERE id = 1")
                    .await
            }
            Case::NoWait => {
                let mut holder = self.connect().await;
                holder
                    .execute("BEGIN; UPDATE users SET age = 7 WHERE id = 1")
                    .await
                    .unwrap();
                self.fails(format!(
                    "SELECT * FROM users WHERE email = '{SECRET}' FOR UPDATE NOWAIT"
                ))
                .await
            }
            Case::StatementTimeout => {
                self.fails("SET statement_timeout = '10ms'; SELECT pg_sleep(60)")
                    .await
            }
            Case::Cancelled => self.struck_at_work("pg_cancel_backend").await.0.into(),
            Case::ReadOnly => {
                self.fails("BEGIN READ ONLY; UPDATE users SET age = 2")
                    .await
            }
            Case::Refused => self
                .options
                .clone()
                .port(super::closed_port())
                .connect()
                .await
                .into(),
            Case::Full => self
                .options
                .clone()
                .username(&format!("{}_full", self.name))
                .connect()
                .await
                .into(),
            Case::KilledAtWork => self.struck_at_work("pg_terminate_backend").await.0.into(),
            Case::NextUseOfKilledAtWork => {
                let (_, mut victim) = self.struck_at_work("pg_terminate_backend").await;
                victim.execute("SELECT 1").await.into()
            }
            Case::KilledIdle => {
                let (mut victim, mut other) = (self.connect().await, self.connect().await);
                let pid = pid(&mut victim).await;
                let kill = format!("SELECT pg_terminate_backend({pid}, 20000)");
                other.execute(AssertSqlSafe(kill)).await.unwrap();
                victim.execute("SELECT 1").await.into()
            }
            Case::CommitUnknown => {
                Answer::Cannot("the server always knows; 08007 is for what stands before it")
            }
            Case::OutOfResources => {
                Answer::Cannot("a full disk or memory of the server that others use")
            }
            Case::TooLong => {
                self.fails(format!(
                    "INSERT INTO users VALUES (3, 'c', 1, '{SECRET}{SECRET}')"
                ))
                .await
            }
            Case::OutOfRange => {
                self.fails(format!("INSERT INTO users VALUES (3, '{SECRET}3', 70000)"))
                    .await
            }
            Case::Malformed => {
                self.fails(format!("INSERT INTO users VALUES (3, 'c', '{SECRET}')"))
                    .await
            }
            Case::AbortedTransaction => {
                let mut connection = self.connect().await;
                connection.execute("BEGIN; SELECT 1/0").await.unwrap_err();
                connection.execute("SELECT 1").await.into()
            }
            Case::Raised => {
                self.fails("UPDATE users SET email = 'c' WHERE id = 1")
                    .await
            }
            Case::Corruption => Answer::Cannot("damaged files of the server that others use"),
            Case::PoolTimedOut => super::pool_timed_out::<Postgres>(self.options.clone())
                .await
                .into(),
            Case::PoolClosed => super::pool_closed::<Postgres>(self.options.clone())
                .await
                .into(),
            Case::RowNotFound => {
                let query =
                    sqlx::query("SELECT * FROM users WHERE email = $1 AND id = 9").bind(SECRET);
                query.fetch_one(&mut self.connect().await).await.into()
            }
            Case::MissingTable => self.fails("SELECT * FROM nothing").await,
            // The argument of a function, reported as a syntax error.
            Case::SyntaxError => {
                let query = sqlx::query("SELECT to_tsquery($1)").bind(format!("{SECRET} {SECRET}"));
                query.execute(&mut self.connect().await).await.into()
            }
            Case::DivisionByZero => self.fails("SELECT 1/0").await,
            Case::AccessDenied => self
                .options
                .clone()
                .username(&format!("{}_nobody", self.name))
                .connect()
                .await
                .into(),
            Case::Undecodable => {
                let row = sqlx::query("SELECT $1")
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
#[ignore = "needs Postgres; tests/run provides it"]
async fn every_case_is_recognised() {
    Server::with(async |server| {
        let report = super::report(&*server).await;
        // Whether the farewell is still read depends on the network between.
        let report = report.replace(
            "KilledIdle: connection lost (57P01)",
            "KilledIdle: connection lost",
        );
        insta::assert_snapshot!("postgres", report);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Postgres; tests/run provides it"]
async fn the_call_site_says_what_an_error_means_there() {
    Server::with(async |server| {
        super::the_call_site_says_what_an_error_means_there(&*server).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Postgres; tests/run provides it"]
async fn the_constraint_is_named() {
    Server::with(async |server| {
        let unique = async || match server.provoke(Case::Unique).await {
            Answer::Failed(error) => Err::<(), _>(error),
            Answer::Cannot(because) => panic!("{because}"),
        };
        let taken = unique().await.by_constraint::<UserError>().unwrap_err();
        assert_eq!(taken.to_problem().code(), "email_taken");
        let taken = unique()
            .await
            .on_constraint("users_email_key", UserError::EmailTaken)
            .unwrap_err();
        assert_eq!(taken.to_problem().code(), "email_taken");
        let other = unique()
            .await
            .on_constraint("users_pkey", UserError::EmailTaken)
            .unwrap_err();
        let said = "unique violation (23505) on table users by constraint users_email_key";
        assert_eq!(other.to_string(), said);
        assert_eq!(format!("{other:?}"), format!("Database(DbFault({said}))"));
    })
    .await;
}

/// As documented: Postgres takes nothing but a rollback after a lock that was not to be had.
#[tokio::test]
#[ignore = "needs Postgres; tests/run provides it"]
async fn a_lock_that_was_not_to_be_had_ends_the_transaction() {
    Server::with(async |server| {
        let (mut first, mut second) = (server.connect().await, server.connect().await);
        first
            .execute("BEGIN; UPDATE users SET age = 7 WHERE id = 1")
            .await
            .unwrap();
        second
            .execute("BEGIN; UPDATE users SET age = 8 WHERE id = 2")
            .await
            .unwrap();
        let nowait = "SELECT * FROM users WHERE id = 1 FOR UPDATE NOWAIT";
        let locked = second.execute(nowait).await.unwrap_err();
        assert_eq!(Condition::of(&locked), Condition::LockTimeout);
        let refused = DbFault::from(second.execute("SELECT 1").await.unwrap_err());
        assert_eq!(refused.condition(), Condition::TransactionAborted);
    })
    .await;
}
