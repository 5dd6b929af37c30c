//! MariaDB, in a database of its own on the server that `tests/run` starts.

use std::rc::Rc;

use mainstay_errors::db::{Condition, DbFault};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, MySql, MySqlConnection};

use super::{Answer, Case, SECRET, TestDatabase, until};

struct Server {
    /// The name of the database, and the beginning of the name of every user.
    name: String,
    options: MySqlConnectOptions,
}

impl Server {
    /// Runs a test on a database that is gone afterwards.
    async fn with<T: Future<Output = ()> + 'static>(test: impl FnOnce(Rc<Self>) -> T) {
        let admin: MySqlConnectOptions = std::env::var("MAINSTAY_TEST_MARIADB_URL")
            .expect("MAINSTAY_TEST_MARIADB_URL must name a database of an administrator; tests/run sets it")
            .parse()
            .unwrap();
        let name = super::unique_name();
        let mut connection = admin.connect().await.unwrap();
        // From localhost too: a new server has a nameless user there, who goes before one from anywhere.
        let create = format!(
            "CREATE DATABASE {name} CHARACTER SET utf8mb4;
             CREATE USER {name}_full, {name}_full@localhost WITH MAX_USER_CONNECTIONS 1;
             GRANT SELECT ON {name}.* TO {name}_full, {name}_full@localhost"
        );
        connection.execute(AssertSqlSafe(create)).await.unwrap();
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
            let drop =
                format!("DROP DATABASE {name}; DROP USER {name}_full, {name}_full@localhost");
            connection.execute(AssertSqlSafe(drop)).await.unwrap();
        })
        .await;
    }

    async fn prepare(&self) {
        self.connect()
            .await
            .execute(AssertSqlSafe(format!(
                "CREATE TABLE users (id int PRIMARY KEY, email varchar(60) NOT NULL, age smallint, name varchar(8), born date,
                                     UNIQUE KEY users_email_key (email), CONSTRAINT users_age_check CHECK (age > 0));
                 CREATE TABLE orders (id int PRIMARY KEY, email varchar(60) NOT NULL,
                                      CONSTRAINT orders_email_fkey FOREIGN KEY (email) REFERENCES users (email));
                 INSERT INTO users VALUES (1, '{SECRET}', 1, '{SECRET}', NULL), (2, 'b@example.com', 1, 'b', NULL);
                 INSERT INTO orders VALUES (1, '{SECRET}');
                 CREATE TRIGGER stop BEFORE DELETE ON orders FOR EACH ROW BEGIN
                    SET @stopped = CONCAT('stopped ', OLD.email);
                    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = @stopped;
                 END"
            )))
            .await
            .unwrap();
    }

    async fn connect(&self) -> MySqlConnection {
        self.options.connect().await.unwrap()
    }

    /// Runs on a connection of its own, because some statements spoil it.
    async fn fails(&self, sql: impl Into<String>) -> Answer {
        let mut connection = self.connect().await;
        connection.execute(AssertSqlSafe(sql.into())).await.into()
    }

    /// A statement that was killed while it ran, alone or with its connection, and that connection.
    async fn killed_at_work(&self, kill: &str) -> (sqlx::Error, MySqlConnection) {
        let mut victim = self.connect().await;
        let id = id(&mut victim).await;
        let strike = async {
            let mut other = self.connect().await;
            until(async || {
                let asleep = "SELECT EXISTS (SELECT 1 FROM information_schema.processlist WHERE id = ? AND state = 'User sleep')";
                sqlx::query_scalar(asleep)
                    .bind(id)
                    .fetch_one(&mut other)
                    .await
                    .unwrap()
            })
            .await;
            let kill = format!("{kill} {id}");
            other.execute(AssertSqlSafe(kill)).await.unwrap();
        };
        let (result, ()) = tokio::join!(victim.execute("SELECT SLEEP(60)"), strike);
        (result.unwrap_err(), victim)
    }

    /// The two connections of a deadlock, the victim first, and what it was told.
    async fn deadlock(&self) -> (sqlx::Error, MySqlConnection, MySqlConnection) {
        let (mut a, mut b) = (self.connect().await, self.connect().await);
        a.execute("START TRANSACTION; UPDATE users SET age = 7 WHERE id = 1")
            .await
            .unwrap();
        b.execute("START TRANSACTION; UPDATE users SET age = 8 WHERE id = 2")
            .await
            .unwrap();
        // Each now wants the other's row, and one of them is picked.
        let (first, second) = tokio::join!(
            a.execute("UPDATE users SET age = 9 WHERE id = 2"),
            b.execute("UPDATE users SET age = 9 WHERE id = 1")
        );
        match (first, second) {
            (Err(error), Ok(_)) => (error, a, b),
            (Ok(_), Err(error)) => (error, b, a),
            both => panic!("one victim: {both:?}"),
        }
    }
}

async fn id(connection: &mut MySqlConnection) -> u64 {
    sqlx::query_scalar("SELECT CONNECTION_ID()")
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn in_transaction(connection: &mut MySqlConnection) -> bool {
    sqlx::query_scalar("SELECT @@in_transaction")
        .fetch_one(connection)
        .await
        .unwrap()
}

impl TestDatabase for Server {
    async fn provoke(&self, case: Case) -> Answer {
        match case {
            Case::Unique => self.fails(format!("INSERT INTO users (id, email) VALUES (3, '{SECRET}')")).await,
            Case::PrimaryKey => self.fails(format!("INSERT INTO users (id, email) VALUES (1, '{SECRET}3')")).await,
            Case::Exclusion => Answer::Cannot("no exclusion constraints"),
            Case::ForeignKeyChild => self.fails(format!("INSERT INTO orders VALUES (2, '{SECRET}3')")).await,
            Case::ForeignKeyParent => self.fails(format!("DELETE FROM users WHERE email = '{SECRET}'")).await,
            Case::NotNull => self.fails(format!("INSERT INTO users (id, email, name) VALUES (3, NULL, '{SECRET}')")).await,
            Case::Check => self.fails(format!("INSERT INTO users (id, email, age) VALUES (3, '{SECRET}3', 0)")).await,
            Case::Serialization => {
                let (mut reader, mut writer) = (self.connect().await, self.connect().await);
                let begin = "SET innodb_snapshot_isolation = ON; START TRANSACTION; SELECT count(*) FROM users";
                reader.execute(begin).await.unwrap();
                writer.execute("UPDATE users SET age = age + 1").await.unwrap();
                reader.execute("UPDATE users SET age = age + 1").await.into()
            }
            Case::Deadlock => self.deadlock().await.0.into(),
            Case::LockTimeout => {
                let mut holder = self.connect().await;
                holder.execute("START TRANSACTION; UPDATE users SET age = 7 WHERE id = 1").await.unwrap();
                self.fails("SET innodb_lock_wait_timeout = 1; UPDATE users SET age = 8 WHERE id = 1").await
            }
            Case::NoWait => {
                let mut holder = self.connect().await;
                holder.execute("START TRANSACTION; UPDATE users SET age = 7 WHERE id = 1").await.unwrap();
                self.fails(format!("SELECT * FROM users WHERE email = '{SECRET}' FOR UPDATE NOWAIT")).await
            }
            Case::StatementTimeout => self.fails("SET max_statement_time = 0.01; SELECT SLEEP(60)").await,
            Case::Cancelled => self.killed_at_work("KILL QUERY").await.0.into(),
            Case::ReadOnly => self.fails("START TRANSACTION READ ONLY; UPDATE users SET age = 2").await,
            Case::Refused => self.options.clone().port(super::closed_port()).connect().await.into(),
            Case::Full => {
                let options = self.options.clone().username(&format!("{}_full", self.name));
                let _first = options.connect().await.unwrap();
                options.connect().await.into()
            }
            Case::KilledAtWork => self.killed_at_work("KILL CONNECTION").await.0.into(),
            Case::NextUseOfKilledAtWork => {
                let (_, mut victim) = self.killed_at_work("KILL CONNECTION").await;
                victim.execute("SELECT 1").await.into()
            }
            Case::KilledIdle => {
                let (mut victim, mut other) = (self.connect().await, self.connect().await);
                let id = id(&mut victim).await;
                other.execute(AssertSqlSafe(format!("KILL {id}"))).await.unwrap();
                until(async || {
                    let gone = "SELECT NOT EXISTS (SELECT 1 FROM information_schema.processlist WHERE id = ?)";
                    sqlx::query_scalar(gone).bind(id).fetch_one(&mut other).await.unwrap()
                })
                .await;
                victim.execute("SELECT 1").await.into()
            }
            Case::CommitUnknown => Answer::Cannot("an engine or a cluster that fails at its commit"),
            Case::OutOfResources => {
                self.fails(format!(
                    "SET max_heap_table_size = 16384; CREATE TEMPORARY TABLE small (t char(250)) ENGINE = MEMORY;
                     INSERT INTO small SELECT '{SECRET}' FROM seq_1_to_10000"
                ))
                .await
            }
            Case::TooLong => self.fails(format!("INSERT INTO users (id, email, name) VALUES (3, 'c', '{SECRET}{SECRET}')")).await,
            Case::OutOfRange => self.fails(format!("INSERT INTO users (id, email, age) VALUES (3, '{SECRET}3', 70000)")).await,
            Case::Malformed => self.fails(format!("INSERT INTO users (id, email, age) VALUES (3, 'c', '{SECRET}')")).await,
            Case::AbortedTransaction => Answer::Cannot("a transaction goes on after an error, or is gone"),
            Case::Raised => self.fails("DELETE FROM orders").await,
            Case::Corruption => Answer::Cannot("damaged files of the server that others use"),
            Case::PoolTimedOut => super::pool_timed_out::<MySql>(self.options.clone()).await.into(),
            Case::PoolClosed => super::pool_closed::<MySql>(self.options.clone()).await.into(),
            Case::RowNotFound => {
                let query = sqlx::query("SELECT * FROM users WHERE email = ? AND id = 9").bind(SECRET);
                query.fetch_one(&mut self.connect().await).await.into()
            }
            Case::MissingTable => self.fails("SELECT * FROM nothing").await,
            Case::SyntaxError => self.fails(format!("SELECT '{SECRET}' {SECRET} {SECRET}")).await,
            Case::DivisionByZero => self.fails("INSERT INTO users (id, email, age) VALUES (3, 'c', 1/0)").await,
            // A user that is not there would be told 1045 or 1698, at random, so that names cannot be guessed.
            Case::AccessDenied => {
                let options = self.options.clone().username(&format!("{}_full", self.name));
                options.password(SECRET).connect().await.into()
            }
            Case::Undecodable => {
                let row = sqlx::query("SELECT ?").bind(SECRET).fetch_one(&mut self.connect().await).await.unwrap();
                super::undecodable(&row).into()
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs MariaDB; tests/run provides it"]
async fn every_case_is_recognised() {
    Server::with(async |server| {
        insta::assert_snapshot!("mariadb", super::report(&*server).await);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs MariaDB; tests/run provides it"]
async fn the_call_site_says_what_an_error_means_there() {
    Server::with(async |server| {
        super::the_call_site_says_what_an_error_means_there(&*server).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs MariaDB; tests/run provides it"]
async fn no_constraint_is_named() {
    Server::with(async |server| super::no_constraint_is_named(&*server).await).await;
}

/// Further numbers for a value that does not fit, which the one list of cases has no place for.
#[tokio::test]
#[ignore = "needs MariaDB; tests/run provides it"]
async fn every_way_of_a_value_not_to_fit_is_a_data_exception() {
    Server::with(async |server| {
        for (values, number) in [
            (format!("3, 'c', '1{SECRET}', NULL, NULL"), "1265"),
            (format!("3, 'c', NULL, NULL, '{SECRET}'"), "1292"),
            (
                format!("3, _binary x'ff' || '{SECRET}', NULL, NULL, NULL"),
                "1366",
            ),
            (
                "3, 'c', 9223372036854775807 + 1, NULL, NULL".to_owned(),
                "1690",
            ),
        ] {
            let sql = format!("INSERT INTO users VALUES ({values})");
            let Answer::Failed(error) = server.fails(sql.clone()).await else {
                panic!("{sql}");
            };
            assert_eq!(
                DbFault::from(error).code().as_deref(),
                Some(number),
                "{sql}"
            );
            let Answer::Failed(error) = server.fails(sql).await else {
                panic!("{number}");
            };
            super::examined(Case::Malformed, error);
        }
    })
    .await;
}

/// One that another kills finds its socket closed; only one that kills itself is told the number.
#[tokio::test]
#[ignore = "needs MariaDB; tests/run provides it"]
async fn a_connection_that_kills_itself_is_lost_too() {
    Server::with(async |server| {
        let Answer::Failed(error) = server.fails("KILL CONNECTION_ID()").await else {
            panic!("a killed connection");
        };
        let fault = DbFault::from(error);
        assert_eq!(fault.to_string(), "connection lost (1927)");
        assert_eq!(fault.condition(), Condition::ConnectionLost);
    })
    .await;
}

/// As documented: with the transaction open, its earlier statements would be committed.
#[tokio::test]
#[ignore = "needs MariaDB; tests/run provides it"]
async fn a_lock_that_was_not_to_be_had_leaves_the_transaction_open() {
    Server::with(async |server| {
        let (mut first, mut second) = (server.connect().await, server.connect().await);
        first
            .execute("START TRANSACTION; UPDATE users SET age = 7 WHERE id = 1")
            .await
            .unwrap();
        second
            .execute("START TRANSACTION; UPDATE users SET age = 8 WHERE id = 2")
            .await
            .unwrap();
        let nowait = "SELECT * FROM users WHERE id = 1 FOR UPDATE NOWAIT";
        let locked = second.execute(nowait).await.unwrap_err();
        assert_eq!(Condition::of(&locked), Condition::LockTimeout);
        assert!(in_transaction(&mut second).await);
        second.execute("COMMIT").await.unwrap();
        let age = sqlx::query_scalar::<_, i16>("SELECT age FROM users WHERE id = 2");
        assert_eq!(age.fetch_one(&mut first).await.unwrap(), 8);
    })
    .await;
}

/// As documented: what the victim says next, it says outside of its transaction.
#[tokio::test]
#[ignore = "needs MariaDB; tests/run provides it"]
async fn a_deadlock_rolls_the_whole_transaction_back() {
    Server::with(async |server| {
        let (error, mut victim, mut winner) = server.deadlock().await;
        assert_eq!(Condition::of(&error), Condition::Deadlock);
        assert!(!in_transaction(&mut victim).await);
        winner.execute("COMMIT").await.unwrap();
        let ages = sqlx::query_scalar::<_, i16>("SELECT age FROM users");
        assert_eq!(
            ages.fetch_all(&mut victim)
                .await
                .unwrap()
                .iter()
                .filter(|age| **age == 9)
                .count(),
            1
        );
    })
    .await;
}
