//! Walks while others insert, delete and update: each row that stays is seen exactly once, in order.
//!
//! The writes happen between pages, through a second connection, at random places of the order (before, at
//! and after the cursor). A page is one statement, so there is no finer interleaving to see.

use std::collections::BTreeSet;

use mainstay_pagination::{Column, Cursor, KeysetDef, Page, PageDirection, PageRequest, Probe};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection, FromRow, MySql, Postgres, QueryBuilder, Sqlite};

use crate::support::{Maria, Scratch, TestDb, codec};

const BY_RANK: KeysetDef = KeysetDef::new("by_rank")
    .desc(Column::i64("place").nulls_last())
    .unique_asc(Column::i64("id").not_null());

/// Rows with these ids stay for the whole walk.
const STABLE: std::ops::Range<i64> = 100..140;

#[derive(FromRow, Debug)]
struct Row {
    id: i64,
    place: Option<i64>,
}

/// What happens between two pages.
#[derive(Clone, Copy, Debug)]
enum Write {
    /// A row that was not there; few ranks, so that many tie with stable rows.
    Insert { id: i64, rank: Option<i64> },
    /// A row that is not stable, if there is one by this id.
    Delete { id: i64 },
    /// The row the cursor was made from, unless it is stable.
    DeleteAnchor,
    /// Moves a row that is not stable to another place: it may be seen twice or not at all.
    Update { id: i64, rank: Option<i64> },
}

fn writes() -> impl Strategy<Value = Vec<Vec<Write>>> {
    let id = prop_oneof![0..100_i64, 140..240_i64];
    let rank = prop::option::weighted(0.8, 0..5_i64);
    let write = prop_oneof![
        3 => (id.clone(), rank.clone()).prop_map(|(id, rank)| Write::Insert { id, rank }),
        2 => (id.clone(), rank).prop_map(|(id, rank)| Write::Update { id, rank }),
        2 => id.prop_map(|id| Write::Delete { id }),
        1 => Just(Write::DeleteAnchor),
    ];
    prop::collection::vec(prop::collection::vec(write, 0..12), 1..8)
}

async fn apply<D: TestDb>(writer: &mut D::Connection, write: Write, anchor: Option<i64>) {
    let null = |rank: Option<i64>| rank.map_or("NULL".into(), |rank| rank.to_string());
    let sql = match write {
        Write::Insert { id, rank } => {
            let row = format!(
                "SELECT {id} AS id, CAST({} AS {}) AS place",
                null(rank),
                D::BIGINT
            );
            format!(
                "INSERT INTO t SELECT n.id, n.place FROM ({row}) AS n WHERE NOT EXISTS (SELECT 1 FROM t WHERE t.id = n.id)"
            )
        }
        Write::Update { id, rank } => {
            format!("UPDATE t SET place = {} WHERE id = {id}", null(rank))
        }
        Write::Delete { id } => format!("DELETE FROM t WHERE id = {id}"),
        Write::DeleteAnchor => match anchor.filter(|id| !STABLE.contains(id)) {
            Some(id) => format!("DELETE FROM t WHERE id = {id}"),
            None => return,
        },
    };
    D::run(writer, sql).await;
}

/// The order, as Rust compares it: values from the largest, then NULLs, then ids.
fn position(row: &Row) -> (bool, i64, i64) {
    (row.place.is_none(), -row.place.unwrap_or(0), row.id)
}

async fn walk<D: TestDb>(
    reader: &mut D::Connection,
    writer: &mut D::Connection,
    direction: PageDirection,
    limit: u32,
    storms: &[Vec<Write>],
) -> Vec<Row>
where
    Row: for<'r> FromRow<'r, D::Row>,
{
    D::run(writer, "DELETE FROM t".into()).await;
    for id in STABLE.chain(200..230) {
        let rank = Some(id % 7).filter(|rank| *rank < 5);
        apply::<D>(writer, Write::Insert { id, rank }, None).await;
    }
    let forward = direction == PageDirection::Forward;
    let mut seen: Vec<Row> = Vec::new();
    let mut cursor: Option<Cursor> = None;
    // Writes ahead of the cursor could go on for ever; ids and places are few, so a walk ends.
    for page in 0.. {
        assert!(page < 2_000, "the walk does not end");
        let request = match (cursor.take(), forward) {
            (None, true) => PageRequest::first(limit),
            (None, false) => PageRequest::last(limit),
            (Some(cursor), true) => PageRequest::first(limit).after(cursor),
            (Some(cursor), false) => PageRequest::last(limit).before(cursor),
        };
        let select = BY_RANK.select(|q: &mut QueryBuilder<D>| {
            q.push("SELECT id, place FROM t");
        });
        let probe = if page % 2 == 0 {
            Probe::Exact
        } else {
            Probe::Lazy
        };
        let got: Page<Row> = select
            .unbound()
            .previous(probe)
            .fetch(&mut *reader, &request, &codec())
            .await
            .unwrap();
        let (more, next) = if forward {
            (got.info.has_next, got.info.end_cursor)
        } else {
            (got.info.has_previous, got.info.start_cursor)
        };
        let mut items = got.items;
        if !forward {
            items.reverse();
        }
        seen.extend(items);
        if !more {
            break;
        }
        cursor = next;
        for write in &storms[page % storms.len()] {
            apply::<D>(writer, *write, seen.last().map(|row| row.id)).await;
        }
    }
    seen
}

const TABLE: &str =
    "CREATE TABLE t (id bigint PRIMARY KEY, place bigint); CREATE INDEX by_place ON t (place, id)";

/// Many walks, each among other writes.
fn check<D: TestDb>(
    runtime: &tokio::runtime::Runtime,
    reader: D::Connection,
    writer: D::Connection,
    walks: u32,
) where
    Row: for<'r> FromRow<'r, D::Row>,
{
    let connections = std::cell::RefCell::new((reader, writer));
    let config = Config {
        cases: walks,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(
        &(writes(), 1..9_u32, any::<bool>()),
        |(storms, limit, forward)| {
            let direction = if forward {
                PageDirection::Forward
            } else {
                PageDirection::Backward
            };
            let mut connections = connections.borrow_mut();
            let (reader, writer) = &mut *connections;
            let seen = runtime.block_on(walk::<D>(reader, writer, direction, limit, &storms));
            for pair in seen.windows(2) {
                let (before, after) = (position(&pair[0]), position(&pair[1]));
                let in_order = if forward {
                    before < after
                } else {
                    before > after
                };
                prop_assert!(in_order, "{:?}", pair);
            }
            // Those that stay once each, by the order of their keys; the others at most once per place.
            let ids: BTreeSet<i64> = seen.iter().map(|row| row.id).collect();
            let missed: Vec<i64> = STABLE.filter(|id| !ids.contains(id)).collect();
            prop_assert!(missed.is_empty(), "missed {:?}", missed);
            let stable = seen.iter().filter(|row| STABLE.contains(&row.id)).count();
            prop_assert_eq!(stable, STABLE.count());
            Ok(())
        },
    );
    let (reader, writer) = connections.into_inner();
    runtime.block_on(async {
        reader.close().await.unwrap();
        writer.close().await.unwrap();
    });
    result.unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_walk_among_writers_sees_every_stable_row_once_and_in_order() {
    let runtime = runtime();
    let file = std::env::temp_dir().join(format!("mainstay_walk_{}.db", std::process::id()));
    let _ = std::fs::remove_file(&file);
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Memory)
        .pragma("synchronous", "OFF");
    let (reader, writer) = runtime.block_on(async {
        let mut writer = options.connect().await.unwrap();
        Sqlite::run(&mut writer, TABLE.into()).await;
        (options.connect().await.unwrap(), writer)
    });
    check::<Sqlite>(&runtime, reader, writer, 100);
    std::fs::remove_file(&file).unwrap();
}

#[test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
fn a_walk_among_writers_on_postgres_sees_every_stable_row_once_and_in_order() {
    let runtime = runtime();
    let scratch = runtime.block_on(Scratch::create());
    let (reader, writer) = runtime.block_on(async {
        let mut writer = scratch.connect().await;
        Postgres::run(&mut writer, TABLE.into()).await;
        (scratch.connect().await, writer)
    });
    check::<Postgres>(&runtime, reader, writer, 100);
    runtime.block_on(scratch.drop_database());
}

#[test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
fn a_walk_among_writers_on_mariadb_sees_every_stable_row_once_and_in_order() {
    let runtime = runtime();
    let maria = runtime.block_on(Maria::create());
    let (reader, writer) = runtime.block_on(async {
        let mut writer = maria.connect().await;
        MySql::run(&mut writer, TABLE.into()).await;
        (maria.connect().await, writer)
    });
    check::<MySql>(&runtime, reader, writer, 100);
    runtime.block_on(maria.drop_database());
}
