//! Walks while others insert and delete: each row that stays is seen exactly once, in order.
//!
//! The writes happen between pages, through a second connection, at random places of the order (before, at
//! and after the cursor). A page is one statement, so there is no finer interleaving to see.

use std::collections::BTreeSet;

use mainstay_pagination::{Column, Cursor, KeysetDef, Page, PageDirection, PageRequest, Probe};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, FromRow, QueryBuilder, Sqlite, SqliteConnection};

use crate::support::{TestDb, codec};

const BY_RANK: KeysetDef = KeysetDef::new("by_rank")
    .desc(Column::i64("rank").nulls_last())
    .unique_asc(Column::i64("id").not_null());

/// Rows with these ids stay for the whole walk.
const STABLE: std::ops::Range<i64> = 100..140;

#[derive(FromRow, Debug)]
struct Row {
    id: i64,
    rank: Option<i64>,
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
}

fn writes() -> impl Strategy<Value = Vec<Vec<Write>>> {
    let id = prop_oneof![0..100_i64, 140..240_i64];
    let rank = prop::option::weighted(0.8, 0..5_i64);
    let write = prop_oneof![
        3 => (id.clone(), rank).prop_map(|(id, rank)| Write::Insert { id, rank }),
        2 => id.prop_map(|id| Write::Delete { id }),
        1 => Just(Write::DeleteAnchor),
    ];
    prop::collection::vec(prop::collection::vec(write, 0..12), 1..8)
}

async fn apply(writer: &mut SqliteConnection, write: Write, anchor: Option<i64>) {
    let sql = match write {
        Write::Insert { id, rank } => {
            let rank = rank.map_or("NULL".into(), |rank| rank.to_string());
            format!("INSERT INTO t VALUES ({id}, {rank}) ON CONFLICT DO NOTHING")
        }
        Write::Delete { id } => format!("DELETE FROM t WHERE id = {id}"),
        Write::DeleteAnchor => match anchor.filter(|id| !STABLE.contains(id)) {
            Some(id) => format!("DELETE FROM t WHERE id = {id}"),
            None => return,
        },
    };
    Sqlite::run(writer, sql).await;
}

/// The order, as Rust compares it: values from the largest, then NULLs, then ids.
fn position(row: &Row) -> (bool, i64, i64) {
    (row.rank.is_none(), -row.rank.unwrap_or(0), row.id)
}

async fn walk(
    reader: &mut SqliteConnection,
    writer: &mut SqliteConnection,
    direction: PageDirection,
    limit: u32,
    storms: &[Vec<Write>],
) -> Vec<Row> {
    Sqlite::run(writer, "DELETE FROM t".into()).await;
    for id in STABLE.chain(200..230) {
        let rank = Some(id % 7).filter(|rank| *rank < 5);
        apply(writer, Write::Insert { id, rank }, None).await;
    }
    let forward = direction == PageDirection::Forward;
    let mut seen: Vec<Row> = Vec::new();
    let mut cursor: Option<Cursor> = None;
    // Inserts ahead of the cursor could go on for ever; ids are few, so a walk ends.
    for page in 0.. {
        assert!(page < 1_000, "the walk does not end");
        let request = match (cursor.take(), forward) {
            (None, true) => PageRequest::first(limit),
            (None, false) => PageRequest::last(limit),
            (Some(cursor), true) => PageRequest::first(limit).after(cursor),
            (Some(cursor), false) => PageRequest::last(limit).before(cursor),
        };
        let select = BY_RANK.select(|q: &mut QueryBuilder<Sqlite>| {
            q.push("SELECT id, rank FROM t");
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
            apply(writer, *write, seen.last().map(|row| row.id)).await;
        }
    }
    seen
}

#[test]
fn a_walk_among_writers_sees_every_stable_row_once_and_in_order() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let file = std::env::temp_dir().join(format!(
        "mainstay_walk_{}.db",
        uuid::Uuid::from_u128(std::process::id().into())
    ));
    let _ = std::fs::remove_file(&file);
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Memory)
        .pragma("synchronous", "OFF");
    let (reader, writer) = runtime.block_on(async {
        let mut writer = options.connect().await.unwrap();
        Sqlite::run(
            &mut writer,
            "CREATE TABLE t (id INTEGER PRIMARY KEY, rank INTEGER); CREATE INDEX by_rank ON t (rank DESC, id)".into(),
        )
        .await;
        (options.connect().await.unwrap(), writer)
    });
    let connections = std::cell::RefCell::new((reader, writer));
    let config = Config {
        cases: 60,
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
            let seen = runtime.block_on(walk(reader, writer, direction, limit, &storms));
            for pair in seen.windows(2) {
                let (before, after) = (position(&pair[0]), position(&pair[1]));
                let in_order = if forward {
                    before < after
                } else {
                    before > after
                };
                prop_assert!(in_order, "{:?}", pair);
            }
            let ids: BTreeSet<i64> = seen.iter().map(|row| row.id).collect();
            let missed: Vec<i64> = STABLE.filter(|id| !ids.contains(id)).collect();
            prop_assert!(missed.is_empty(), "missed {:?}", missed);
            Ok(())
        },
    );
    let _ = std::fs::remove_file(&file);
    result.unwrap();
}
