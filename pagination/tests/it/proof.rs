//! What does not seek is told, also where a plan looks harmless.

use mainstay_pagination::{Column, Key, KeysetDef, PageDb, PageQuery, seeks};
use sqlx::{Postgres, QueryBuilder, Sqlite};

use crate::support::{Scratch, TestDb, sqlite};

const MIXED: KeysetDef = KeysetDef::new("mixed")
    .desc(Column::i64("score").not_null())
    .unique_asc(Column::i64("id").not_null());

fn query<D: PageDb>(sql: &'static str) -> PageQuery<'static, D> {
    MIXED
        .select(move |q: &mut QueryBuilder<D>| {
            q.push(sql);
        })
        .unbound()
}

/// 3,000 rows, of which one in 30 shares its score.
async fn fill<D: TestDb>(connection: &mut D::Connection, table: &str) {
    D::run(
        connection,
        format!(
            "CREATE TABLE {table} (id bigint PRIMARY KEY, tenant bigint NOT NULL, score bigint NOT NULL);
             INSERT INTO {table}
             WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < 3000)
             SELECT i, i % 2, i % 100 FROM n"
        ),
    )
    .await;
}

/// Every statement of the list is told, for one of these reasons.
async fn all_are_told<D: TestDb>(connection: &mut D::Connection, sql: &'static str, says: &[&str]) {
    let plans = query::<D>(sql).statements(&[Key::I64(50), Key::I64(1_050)]);
    assert_eq!(plans.len(), 8);
    for plan in plans {
        let (text, anchored) = (plan.sql(), plan.is_anchored());
        match seeks(connection, plan).await {
            Err(error) => {
                let told = error.to_string();
                assert!(says.iter().any(|says| told.contains(says)), "{told}");
            }
            Ok(()) => panic!("not told (anchored: {anchored}): {text}"),
        }
    }
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn postgres_tells_of_ties_that_are_sorted() {
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    fill::<Postgres>(&mut connection, "t").await;
    // Without the directions, and without the column that breaks ties.
    for index in ["tenant, score, id", "tenant, score DESC"] {
        Postgres::run(
            &mut connection,
            format!("CREATE INDEX one ON t ({index}); ANALYZE t"),
        )
        .await;
        let sql = "SELECT id, score FROM t WHERE tenant = 0";
        all_are_told::<Postgres>(&mut connection, sql, &["are sorted", "a key is a filter"]).await;
        Postgres::run(&mut connection, "DROP INDEX one".into()).await;
    }
    drop(connection);
    scratch.drop_database().await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn postgres_tells_of_a_query_that_is_kept_aside_first() {
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    // So few that no number of rows gives it away.
    Postgres::run(
        &mut connection,
        "CREATE TABLE t (id bigint PRIMARY KEY, tenant bigint NOT NULL, score bigint NOT NULL);
         INSERT INTO t SELECT i, 0, i FROM generate_series(1, 12) AS i;
         CREATE INDEX ON t (tenant, score DESC, id); ANALYZE t"
            .into(),
    )
    .await;
    for sql in [
        "WITH kept AS MATERIALIZED (SELECT id, score FROM t WHERE tenant = 0) SELECT id, score FROM kept",
        "SELECT id, score, row_number() OVER (ORDER BY score DESC, id) AS nr FROM t WHERE tenant = 0",
    ] {
        for plan in query::<Postgres>(sql).statements(&[Key::I64(6), Key::I64(6)]) {
            if plan.is_anchored() {
                let text = plan.sql();
                assert!(seeks(&mut connection, plan).await.is_err(), "{text}");
            }
        }
    }
    drop(connection);
    scratch.drop_database().await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_statement_that_fails_leaves_the_postgres_session_as_it_was() {
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    // It fails when it runs, not when it is prepared.
    let sql = "SELECT i AS id, i / 0 AS score FROM generate_series(1::bigint, 2) AS i";
    for plan in query::<Postgres>(sql).statements(&[Key::I64(1), Key::I64(1)]) {
        seeks(&mut connection, plan).await.unwrap_err();
        for (setting, value) in [("enable_seqscan", "on"), ("plan_cache_mode", "auto")] {
            let found: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_eq!(found, value, "{setting}");
        }
    }
    drop(connection);
    scratch.drop_database().await;
}

#[tokio::test]
async fn sqlite_tells_of_a_table_that_is_called_like_a_subselect_of_ours() {
    let mut connection = sqlite().await;
    fill::<Sqlite>(&mut connection, "page").await;
    let sql = "SELECT id, score FROM page";
    let told = &["a table is read from its start", "are sorted"];
    all_are_told::<Sqlite>(&mut connection, sql, told).await;
    for plan in query::<Sqlite>(sql).statements(&[Key::I64(50), Key::I64(1_050)]) {
        if plan.is_anchored() {
            let told = seeks(&mut connection, plan).await.unwrap_err().to_string();
            assert!(
                told.contains("a table is read from its start: SCAN page"),
                "{told}"
            );
        }
    }
    // And lets it pass with its index.
    Sqlite::run(
        &mut connection,
        "CREATE INDEX i ON page (score DESC, id)".into(),
    )
    .await;
    for plan in query::<Sqlite>(sql).statements(&[Key::I64(50), Key::I64(1_050)]) {
        seeks(&mut connection, plan).await.unwrap();
    }
}

#[tokio::test]
async fn sqlite_tells_of_an_index_that_is_made_for_the_statement() {
    let mut connection = sqlite().await;
    fill::<Sqlite>(&mut connection, "t").await;
    Sqlite::run(
        &mut connection,
        "CREATE TABLE other (tenant INT, score INT);
         INSERT INTO other SELECT tenant, score FROM t; CREATE INDEX i ON t (score DESC, id)"
            .into(),
    )
    .await;
    let sql =
        "SELECT t.id, t.score FROM t JOIN other ON other.score = t.score AND other.tenant = t.id";
    for plan in query::<Sqlite>(sql).statements(&[Key::I64(50), Key::I64(1_050)]) {
        let told = seeks(&mut connection, plan).await.unwrap_err().to_string();
        assert!(told.contains("AUTOMATIC"), "{told}");
    }
}
