//! Errors of real databases, classified. There is one list of what can go wrong, and each database answers all
//! of it through real connections: a case that one of them leaves out does not compile, and one that
//! cannot happen there says why. What each database answered is in a snapshot.
#![expect(
    clippy::large_futures,
    reason = "one arm a case; they are built once and polled where they lie"
)]

mod mariadb;
mod postgres;
mod sqlite;

use std::error::Error as _;
use std::fmt::Write as _;
use std::future::Future;
use std::panic::resume_unwind;
use std::time::Duration;

use mainstay_errors::db::{Condition, DbFault, DbResultExt};
use mainstay_errors::{Error, Fault, Violations};
use sqlx::pool::{Pool, PoolOptions};
use sqlx::{Connection, Database, Row};

/// Planted in the values of whatever fails. It must not be found in what is logged and sent afterwards.
const SECRET: &str = "hunter2";

/// What a server is given to come to the point that a test waits for.
const DEADLINE: Duration = Duration::from_secs(20);

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Unique,
    PrimaryKey,
    Exclusion,
    ForeignKeyChild,
    ForeignKeyParent,
    NotNull,
    Check,
    Serialization,
    Deadlock,
    LockTimeout,
    NoWait,
    StatementTimeout,
    Cancelled,
    ReadOnly,
    Refused,
    Full,
    KilledAtWork,
    NextUseOfKilledAtWork,
    KilledIdle,
    CommitUnknown,
    OutOfResources,
    TooLong,
    OutOfRange,
    Malformed,
    AbortedTransaction,
    Raised,
    Corruption,
    PoolTimedOut,
    PoolClosed,
    RowNotFound,
    MissingTable,
    SyntaxError,
    DivisionByZero,
    AccessDenied,
    Undecodable,
}

impl Case {
    const ALL: [Self; 35] = [
        Self::Unique,
        Self::PrimaryKey,
        Self::Exclusion,
        Self::ForeignKeyChild,
        Self::ForeignKeyParent,
        Self::NotNull,
        Self::Check,
        Self::Serialization,
        Self::Deadlock,
        Self::LockTimeout,
        Self::NoWait,
        Self::StatementTimeout,
        Self::Cancelled,
        Self::ReadOnly,
        Self::Refused,
        Self::Full,
        Self::KilledAtWork,
        Self::NextUseOfKilledAtWork,
        Self::KilledIdle,
        Self::CommitUnknown,
        Self::OutOfResources,
        Self::TooLong,
        Self::OutOfRange,
        Self::Malformed,
        Self::AbortedTransaction,
        Self::Raised,
        Self::Corruption,
        Self::PoolTimedOut,
        Self::PoolClosed,
        Self::RowNotFound,
        Self::MissingTable,
        Self::SyntaxError,
        Self::DivisionByZero,
        Self::AccessDenied,
        Self::Undecodable,
    ];

    /// What it is called, on every database.
    fn condition(self) -> Condition {
        match self {
            Self::Unique | Self::PrimaryKey => Condition::UniqueViolation,
            Self::Exclusion => Condition::ExclusionViolation,
            Self::ForeignKeyChild | Self::ForeignKeyParent => Condition::ForeignKeyViolation,
            Self::NotNull => Condition::NotNullViolation,
            Self::Check => Condition::CheckViolation,
            Self::Serialization => Condition::SerializationFailure,
            Self::Deadlock => Condition::Deadlock,
            Self::LockTimeout | Self::NoWait => Condition::LockTimeout,
            Self::StatementTimeout | Self::Cancelled => Condition::StatementTimeout,
            Self::ReadOnly => Condition::ReadOnly,
            Self::Refused | Self::Full => Condition::CannotConnect,
            Self::KilledAtWork | Self::NextUseOfKilledAtWork | Self::KilledIdle => {
                Condition::ConnectionLost
            }
            Self::CommitUnknown => Condition::CommitUnknown,
            Self::OutOfResources => Condition::OutOfResources,
            Self::TooLong | Self::OutOfRange | Self::Malformed => Condition::DataException,
            Self::AbortedTransaction => Condition::TransactionAborted,
            Self::Raised => Condition::Raised,
            Self::Corruption => Condition::Corruption,
            Self::PoolTimedOut => Condition::PoolTimedOut,
            Self::PoolClosed => Condition::PoolClosed,
            Self::RowNotFound => Condition::RowNotFound,
            Self::MissingTable
            | Self::SyntaxError
            | Self::DivisionByZero
            | Self::AccessDenied
            | Self::Undecodable => Condition::Other,
        }
    }
}

/// What a database answers to a case.
enum Answer {
    Failed(sqlx::Error),
    /// It cannot happen here, or not in a test, because of this.
    Cannot(&'static str),
}

impl<T> From<Result<T, sqlx::Error>> for Answer {
    fn from(result: Result<T, sqlx::Error>) -> Self {
        match result {
            Ok(_) => panic!("this had to fail"),
            Err(error) => Self::Failed(error),
        }
    }
}

impl From<sqlx::Error> for Answer {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

/// A database of its own, with the tables `users` (a unique `email` that is [`SECRET`] in row 1) and `orders`,
/// which refers to `users` by the e-mail, so that the keys of every constraint are secrets.
trait TestDatabase {
    /// Makes it happen.
    async fn provoke(&self, case: Case) -> Answer;
}

/// Provokes every case; returns what each came to.
async fn report(database: &impl TestDatabase) -> String {
    let mut report = String::new();
    for case in Case::ALL {
        let line = match database.provoke(case).await {
            Answer::Failed(error) => examined(case, error),
            Answer::Cannot(because) => format!("– {because}"),
        };
        writeln!(report, "{case:?}: {line}").unwrap();
    }
    report
}

/// The error as it is logged and what a client is told, after a search for the secret.
fn examined(case: Case, error: sqlx::Error) -> String {
    let driver = format!("{error} {error:?}");
    let fault = DbFault::from(error);
    assert_eq!(fault.condition(), case.condition(), "{case:?}: {driver}");

    let mut logged = format!("{fault} {fault:?}");
    let mut source = fault.source();
    let text = if source.is_some() { "kept" } else { "withheld" };
    while let Some(cause) = source {
        write!(logged, " {cause} {cause:?}").unwrap();
        source = cause.source();
    }
    let shown = fault.to_string();
    let error = Error::from(fault);
    write!(logged, " {error:?} {}", error.chain().join(": ")).unwrap();
    assert!(!logged.contains(SECRET), "{case:?}: {logged}");
    let problem = error.to_problem();
    let sent = String::from_utf8(problem.to_bytes().to_vec()).unwrap();
    assert!(!sent.contains(SECRET), "{case:?}: {sent}");
    // What names the place of a failure is for the log as well.
    assert!(
        !sent.contains("users") && !sent.contains("orders"),
        "{sent}"
    );

    format!(
        "{shown} → {} {} {} {}; text {text}{}",
        problem.status(),
        problem.code(),
        problem.retry(),
        problem.outcome(),
        if driver.contains(SECRET) {
            ", it had the value"
        } else {
            ""
        }
    )
}

#[test]
fn every_condition_is_on_the_list() {
    for condition in Condition::ALL {
        let listed = Case::ALL.iter().any(|case| case.condition() == condition);
        assert!(listed, "{condition:?}");
    }
    for (at, case) in Case::ALL.into_iter().enumerate() {
        assert_eq!(case as usize, at);
    }
    assert_eq!(Case::Undecodable as usize + 1, Case::ALL.len());
}

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
    #[error("the user has orders")]
    #[fault(failed_precondition, public)]
    UserHasOrders,
    #[error(transparent)]
    #[fault(delegate)]
    Database(#[from] DbFault),
    #[error(transparent)]
    #[fault(delegate)]
    Invalid(#[from] Violations),
}

/// What works on every database: the words of a call site that need no name of a constraint.
async fn the_call_site_says_what_an_error_means_there(database: &impl TestDatabase) {
    let failed = async |case| match database.provoke(case).await {
        Answer::Failed(error) => Err::<(), _>(error),
        Answer::Cannot(because) => panic!("{case:?}: {because}"),
    };
    let taken = failed(Case::Unique).await.on_unique(UserError::EmailTaken);
    let taken = taken.unwrap_err().to_problem();
    assert_eq!(taken.code(), "email_taken");
    assert_eq!(taken.errors()[0].pointer(), "/email");

    let ordered = failed(Case::ForeignKeyParent).await;
    let ordered = ordered
        .on_foreign_key(UserError::UserHasOrders)
        .unwrap_err();
    assert_eq!(ordered.to_problem().code(), "user_has_orders");
    let nobody = failed(Case::ForeignKeyChild).await;
    let nobody = nobody.on_foreign_key(UserError::UserNotFound).unwrap_err();
    assert_eq!(nobody.to_problem().status(), 404);

    let missing = failed(Case::RowNotFound).await;
    let missing = missing.or_not_found(UserError::UserNotFound).unwrap_err();
    assert_eq!(missing.to_problem().status(), 404);

    // What was not meant keeps its own meaning.
    let other = failed(Case::Check).await.on_unique(UserError::EmailTaken);
    assert_eq!(other.unwrap_err().to_problem().code(), "internal");
    let other = failed(Case::Unique).await;
    let other = other.on_foreign_key(UserError::UserHasOrders).unwrap_err();
    assert_eq!(other.to_problem().code(), "already_exists");
}

/// What a mapping by name comes to where the database names no constraint: the general answer.
async fn no_constraint_is_named(database: &impl TestDatabase) {
    for _ in 0..2 {
        let Answer::Failed(error) = database.provoke(Case::Unique).await else {
            panic!("a duplicate key");
        };
        assert_eq!(DbFault::from(error).constraint(), None);
    }
    let unique = async || match database.provoke(Case::Unique).await {
        Answer::Failed(error) => Err::<(), _>(error),
        Answer::Cannot(because) => panic!("{because}"),
    };
    let general = unique().await.by_constraint::<UserError>().unwrap_err();
    assert_eq!(general.to_problem().code(), "already_exists");
    let general = unique()
        .await
        .on_constraint("users_email_key", UserError::EmailTaken)
        .unwrap_err();
    assert_eq!(general.to_problem().code(), "already_exists");
}

/// A pool of one connection, which somebody else has.
async fn pool_timed_out<DB: Database>(
    options: <DB::Connection as Connection>::Options,
) -> sqlx::Error {
    let mut patience = Duration::from_millis(100);
    loop {
        let pool: Pool<DB> = PoolOptions::new()
            .max_connections(1)
            .acquire_timeout(patience)
            .connect_lazy_with(options.clone());
        // To connect may take longer than that on a busy machine.
        if let Ok(_held) = pool.acquire().await {
            return pool.acquire().await.map(drop).unwrap_err();
        }
        patience *= 2;
        assert!(patience < DEADLINE, "the server lets nobody in");
    }
}

/// A pool whose process is shutting down.
async fn pool_closed<DB: Database>(
    options: <DB::Connection as Connection>::Options,
) -> sqlx::Error {
    let pool: Pool<DB> = PoolOptions::new().connect_lazy_with(options);
    pool.close().await;
    pool.acquire().await.map(drop).unwrap_err()
}

/// A text where one of a few words was expected.
#[derive(Debug, sqlx::Type)]
#[sqlx(rename_all = "lowercase")]
enum Mood {
    Happy,
}

fn undecodable<'r, R: Row>(row: &'r R) -> sqlx::Error
where
    usize: sqlx::ColumnIndex<R>,
    Mood: sqlx::Decode<'r, R::Database>,
{
    row.try_get_unchecked::<Mood, _>(0).unwrap_err()
}

/// A port of this machine that nobody listens on.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Asks until the answer is yes.
async fn until(mut yes: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !yes().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, asked)
        .await
        .expect("the server came to this point in time");
}

/// Runs a test and then `clean_up`, also after a test that failed.
async fn and_then_clean_up(
    test: impl Future<Output = ()> + 'static,
    clean_up: impl Future<Output = ()>,
) {
    let caught = async { tokio::task::spawn_local(test).await };
    let result = tokio::task::LocalSet::new().run_until(caught).await;
    clean_up.await;
    if let Err(failed) = result {
        resume_unwind(failed.into_panic());
    }
}

/// A name that no other run uses.
fn unique_name() -> String {
    format!("errors_{}", uuid::Uuid::now_v7().simple())
}
