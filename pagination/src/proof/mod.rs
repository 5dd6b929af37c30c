//! The proof for one's own tests: EXPLAIN, read.

use std::fmt;

use crate::database::PageDb;
use crate::keyset::OrderColumn;
use crate::plan::PagePlan;

#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

/// Checks that the page's statement seeks: that the database goes to the page's place by an index, reads about
/// what it returns, and sorts nothing else.
///
/// Postgres runs the statement under EXPLAIN ANALYZE, once with a custom and once with a generic plan, and with
/// sequential scans, sorts and hash and merge joins switched off for the while: what is proven is that the indexes
/// *can* serve, so that a test's few rows are enough. SQLite and MariaDB run EXPLAIN only. MariaDB must find the index
/// worth its while: give it a few thousand rows and `ANALYZE TABLE`. (MySQL is read by the same rules, which were tried
/// on MariaDB only.)
///
/// ```
/// use mainstay_pagination::{Column, CursorCodec, Key, KeysetDef, seeks};
/// use sqlx::{Connection, Executor, QueryBuilder, Sqlite, SqliteConnection};
///
/// const NEWEST: KeysetDef = KeysetDef::new("payments.newest")
///     .desc(Column::timestamptz("created_at").not_null())
///     .unique_desc(Column::i64("id").not_null());
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut connection = SqliteConnection::connect("sqlite::memory:").await?;
/// connection.execute("CREATE TABLE payment (id INTEGER PRIMARY KEY, tenant TEXT, created_at INT NOT NULL);
///     CREATE INDEX payment_newest ON payment (tenant, created_at, id)").await?;
/// let list = NEWEST.select(|q: &mut QueryBuilder<Sqlite>| {
///     q.push("SELECT id, created_at FROM payment WHERE tenant = ").push_bind("acme");
/// }).unbound();
/// // Every statement that this list ever sends.
/// for plan in list.statements(&[Key::Micros(0), Key::I64(1)]) {
///     seeks(&mut connection, plan).await?;
/// }
/// connection.execute("DROP INDEX payment_newest").await?;
/// let plan = list.statements(&[Key::Micros(0), Key::I64(1)]).pop().unwrap();
/// let error = seeks(&mut connection, plan).await.unwrap_err();
/// assert!(error.to_string().contains("SCAN payment"));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
/// [`SeekError::Scans`] with what is wrong and the whole plan; [`SeekError::Database`].
///
/// # Cancel safety
/// On Postgres, a dropped future leaves the session with its planner settings changed and a prepared statement
/// `mainstay_proof`: close such a connection. An error does not, nor a verdict.
pub async fn seeks<D: PageDb>(
    connection: &mut D::Connection,
    plan: PagePlan<D>,
) -> Result<(), SeekError> {
    let claim = Claim {
        keys: plan.order().columns().map(OrderColumn::name).collect(),
        joined: plan.order().columns().any(OrderColumn::is_joined),
        anchored: plan.is_anchored(),
        rows: u64::from(plan.rows()) + 1,
        nulls_alone: plan.nulls_alone,
    };
    let sql = plan.sql();
    let verdict = D::judge(connection, plan.into_query(), claim)
        .await
        .map_err(SeekError::Database)?;
    if verdict.faults.is_empty() {
        return Ok(());
    }
    Err(SeekError::Scans(Box::new(Scans {
        faults: verdict.faults,
        plan: verdict.plan,
        sql,
    })))
}

/// [`seeks`], for tests.
///
/// # Panics
/// With what is wrong, the plan and the SQL, if it does not seek; if the database fails.
#[expect(clippy::panic, reason = "an assertion")]
pub async fn assert_seeks<D: PageDb>(connection: &mut D::Connection, plan: PagePlan<D>) {
    if let Err(error) = seeks(connection, plan).await {
        panic!("{error}");
    }
}

/// Why a page's statement is not known to seek.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeekError {
    /// It does not.
    #[error("{0}")]
    Scans(Box<Scans>),
    /// EXPLAIN failed.
    #[error("the statement could not be explained: {0}")]
    Database(#[source] sqlx::Error),
}

/// A statement that does not seek.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scans {
    /// What is wrong, in sentences.
    pub faults: Vec<String>,
    /// The plan's lines.
    pub plan: Vec<String>,
    /// The statement.
    pub sql: String,
}

impl fmt::Display for Scans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the page does not seek:")?;
        for fault in &self.faults {
            writeln!(f, "- {fault}")?;
        }
        writeln!(f, "its plan:")?;
        for line in &self.plan {
            writeln!(f, "  {line}")?;
        }
        write!(f, "of: {}", self.sql)
    }
}

/// What a statement promises.
#[derive(Debug)]
#[allow(dead_code, reason = "each database asks for some of it")]
pub struct Claim {
    /// The key columns, by their output names.
    pub(crate) keys: Vec<&'static str>,
    /// Whether there is a key of another table than the unique one's.
    pub(crate) joined: bool,
    /// Whether it begins at a cursor.
    pub(crate) anchored: bool,
    /// How many rows it reads at most, per select.
    pub(crate) rows: u64,
    /// How many of its selects read a block of NULLs and nothing else.
    pub(crate) nulls_alone: usize,
}

/// What EXPLAIN says of that.
#[derive(Debug, Default)]
pub struct Verdict {
    pub(crate) faults: Vec<String>,
    pub(crate) plan: Vec<String>,
}

impl Claim {
    /// Whether a condition, as the database prints it, is about a key.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn names_key(&self, condition: &str) -> bool {
        let mut words = condition.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        words.any(|word| self.keys.contains(&word))
    }
}
