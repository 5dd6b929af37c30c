//! Pages: 50 rows in the order of (created_at, id), at the start of a list, in its middle and near its end.
//!
//! Ids and times of creation rise together, so that a contestant that orders by one column alone gives the same rows.

mod entity;
mod paginator;
mod sql;

use std::time::Duration;

use mainstay_pagination::{
    CursorCodec, KeyRing, Keyset, KeysetDef, Page, PageDb, PageQuery, PageRequest,
};
use results::Measure;
use sqlx::{AssertSqlSafe, QueryBuilder, SqlitePool};

use crate::servers::{MariaDb, Postgres};
use crate::turns::{Work, timed};

pub const LIMIT: u32 = 50;
/// Percent of the rows before the page.
const DEPTHS: [f64; 5] = [0.0, 10.0, 50.0, 90.0, 99.9];

/// What every page has of a row.
#[derive(Clone, Debug, PartialEq, serde::Serialize, sqlx::FromRow, Keyset)]
#[keyset(name = "payments.oldest", order = "created_at, id", unique = "id")]
pub struct Payment {
    pub id: i64,
    pub created_at: i64,
    pub amount: i64,
}

const SELECT: &str = "SELECT id, created_at, amount FROM payment";

/// The row after which the page begins; none at the start.
#[derive(Clone, Copy)]
pub struct Place {
    pub after: i64,
}

impl Place {
    /// Three rows of each moment.
    pub const fn created_at(self) -> i64 {
        self.after / 3 * 1000
    }
}

pub struct Contestant {
    name: &'static str,
    /// The ids of the page.
    page: Box<dyn Fn(Place) -> Work<Vec<i64>>>,
}

impl Contestant {
    pub fn new<F>(name: &'static str, page: impl Fn(Place) -> F + 'static) -> Self
    where
        F: Future<Output = Vec<i64>> + Send + 'static,
    {
        Self {
            name,
            page: Box::new(move |place| Box::pin(page(place))),
        }
    }
}

pub fn ids(payments: &[Payment]) -> Vec<i64> {
    payments.iter().map(|payment| payment.id).collect()
}

/// A cursor is read and two are made for each page, signed.
macro_rules! mainstay {
    ($pool:expr, $database:ty) => {{
        let (pool, codec) = ($pool.clone(), codec());
        Contestant::new("mainstay", move |place| {
            let (pool, codec) = (pool.clone(), codec.clone());
            async move {
                let request = request(&codec, place);
                let page: Page<Payment> = payments::<$database>()
                    .fetch(&pool, &request, &codec)
                    .await
                    .unwrap();
                assert!(page.info.end_cursor.is_some());
                ids(&page.items)
            }
        })
    }};
}
pub async fn race(quick: bool) {
    let rows = if quick { 100_000 } else { 1_000_000 };
    if let Some(database) = Postgres::create().await {
        let pool = database.pool(1).await;
        let fill = format!(
            "CREATE TABLE payment (id BIGINT PRIMARY KEY, created_at BIGINT NOT NULL, amount BIGINT NOT NULL); \
             INSERT INTO payment SELECT n, n / 3 * 1000, n % 100 FROM generate_series(1, {rows}) n; \
             CREATE INDEX payment_oldest ON payment (created_at, id)"
        );
        sqlx::raw_sql(AssertSqlSafe(fill))
            .execute(&pool)
            .await
            .unwrap();
        sqlx::raw_sql("VACUUM ANALYZE payment")
            .execute(&pool)
            .await
            .unwrap();
        let mut contestants = sql::postgres(&pool);
        contestants.insert(1, mainstay!(pool, sqlx::Postgres));
        contestants.push(entity::contestant(pool.clone().into()));
        contestants.push(paginator::postgres(&database.url).await);
        run("Postgres", rows, &contestants).await;
        drop(contestants);
        pool.close().await;
        database.drop().await;
    }
    if let Some(database) = MariaDb::create().await {
        let pool = database.pool(1).await;
        let fill = format!(
            "CREATE TABLE payment (id BIGINT PRIMARY KEY, created_at BIGINT NOT NULL, amount BIGINT NOT NULL); \
             INSERT INTO payment SELECT seq, seq DIV 3 * 1000, seq % 100 FROM seq_1_to_{rows}; \
             CREATE INDEX payment_oldest ON payment (created_at, id); \
             ANALYZE TABLE payment"
        );
        sqlx::raw_sql(AssertSqlSafe(fill))
            .execute(&pool)
            .await
            .unwrap();
        let mut contestants = sql::mariadb(&pool);
        contestants.insert(1, mainstay!(pool, sqlx::MySql));
        contestants.push(entity::contestant(pool.clone().into()));
        contestants.push(paginator::mariadb(&database.url).await);
        run("MariaDB", rows, &contestants).await;
        drop(contestants);
        pool.close().await;
        database.drop().await;
    }
    sqlite(rows).await;
}

async fn sqlite(rows: i64) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!(
        "sqlite://{}?mode=rwc",
        folder.path().join("race.db").display()
    );
    let options = sqlx::sqlite::SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false);
    let pool: SqlitePool = options.connect(&url).await.unwrap();
    let fill = format!(
        "CREATE TABLE payment (id INTEGER PRIMARY KEY, created_at INTEGER NOT NULL, amount INTEGER NOT NULL); \
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows}) \
         INSERT INTO payment SELECT n, n / 3 * 1000, n % 100 FROM n; \
         CREATE INDEX payment_oldest ON payment (created_at, id); ANALYZE"
    );
    sqlx::raw_sql(AssertSqlSafe(fill))
        .execute(&pool)
        .await
        .unwrap();
    let mut contestants = sql::sqlite(&pool);
    contestants.insert(1, mainstay!(pool, sqlx::Sqlite));
    contestants.push(entity::contestant(pool.clone().into()));
    contestants.push(paginator::sqlite(&url).await);
    run("SQLite", rows, &contestants).await;
}

/// The order of the list.
pub const ORDER: &KeysetDef = &Payment::OLDEST;

pub fn codec() -> CursorCodec {
    CursorCodec::hmac_sha256(KeyRing::new(1, [7; 32]).unwrap())
}

pub fn payments<D: PageDb>() -> PageQuery<'static, D> {
    ORDER
        .select(|q: &mut QueryBuilder<D>| {
            q.push(SELECT);
        })
        .bind_to("payments")
}

/// The request of a page, with the cursor that the row before it has.
pub fn request(codec: &CursorCodec, place: Place) -> PageRequest {
    let first = PageRequest::first(LIMIT);
    if place.after == 0 {
        return first;
    }
    let keys = [place.created_at().into(), place.after.into()];
    let fingerprint = mainstay_pagination::Fingerprint::of(ORDER, "payments");
    let cursor = codec.encode(&keys, fingerprint, std::time::SystemTime::now());
    first.after(cursor.unwrap())
}

/// All give the same rows at each depth; then each page is timed.
async fn run(title: &str, rows: i64, contestants: &[Contestant]) {
    println!("{title}, {rows} rows, µs");
    for depth in DEPTHS {
        let place = Place {
            after: (rows as f64 * depth / 100.0) as i64,
        };
        let expected: Vec<i64> = (place.after + 1..=place.after + i64::from(LIMIT)).collect();
        for contestant in contestants {
            let page = (contestant.page)(place).await;
            assert_eq!(page, expected, "{title}: {} at {depth} %", contestant.name);
        }
        let page = |contestant: &Contestant| {
            let page = (contestant.page)(place);
            async move { assert_eq!(page.await.len(), LIMIT as usize) }
        };
        let medians = timed(contestants, 401, Duration::from_secs(1), page).await;
        for (contestant, (median, spread)) in contestants.iter().zip(&medians) {
            println!(
                "  {depth:>5} %  {:<46} {median:>10.1} {:>7.2} {:>6.0} %",
                contestant.name,
                median / medians[0].0,
                spread * 100.0
            );
            results::keep(
                Measure::new(title, contestant.name, *median, "µs")
                    .at(depth)
                    .spread(*spread),
            );
        }
    }
    println!();
}
