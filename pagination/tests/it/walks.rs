//! The property: whatever the order, the data and the page sizes, pages are slices of one full ORDER BY.
//!
//! `MAINSTAY_PAGINATION_SPECS` sets how many random orders are tried per database (default 300).

use std::sync::atomic::{AtomicU32, Ordering};

use mainstay_pagination::{
    Column, Cursor, Key, KeysetBuilder, KeysetDef, Page, PageRequest, Probe, PushKey, UnixMicros,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::{Database, FromRow, Postgres, QueryBuilder, Sqlite};
use uuid::Uuid;

use crate::support::{Scratch, TestDb, codec, sqlite};

#[derive(Clone, Debug)]
struct ColumnSpec {
    kind: &'static str,
    nullable: bool,
    descending: bool,
    nulls_first: bool,
}

#[derive(Clone, Debug)]
struct Spec {
    columns: Vec<ColumnSpec>,
    /// The tie-breaker: a rowid alias, a plain integer or a UUID.
    id: &'static str,
    id_descending: bool,
    /// Per row, a small number per column: few values make many ties.
    rows: Vec<[u8; 3]>,
    index: bool,
    moves: Vec<Move>,
}

#[derive(Clone, Copy, Debug)]
struct Move {
    forward: bool,
    limit: u32,
    exact: bool,
    from_end: bool,
}

#[derive(FromRow)]
struct Item {
    tag: i64,
}

const NAMES: [&str; 3] = ["c0", "c \"1\"", "order"];

fn specs() -> impl Strategy<Value = Spec> {
    let kind = prop::sample::select(vec![
        "bool",
        "i64",
        "i32",
        "f64",
        "f32",
        "text",
        "text_nocase",
        "bytes",
        "uuid",
        "timestamptz",
        "timestamp",
    ]);
    let column =
        (kind, any::<[bool; 3]>()).prop_map(|(kind, [nullable, descending, nulls_first])| {
            ColumnSpec {
                kind,
                nullable,
                descending,
                nulls_first,
            }
        });
    let a_move =
        (any::<[bool; 3]>(), 1..12_u32).prop_map(|([forward, exact, from_end], limit)| Move {
            forward,
            limit,
            exact,
            from_end,
        });
    (
        prop::collection::vec(column, 0..=3),
        prop::sample::select(vec!["rowid", "i64", "uuid"]),
        any::<bool>(),
        prop::collection::vec(any::<[u8; 3]>(), 0..40),
        any::<bool>(),
        prop::collection::vec(a_move, 4..16),
    )
        .prop_map(|(columns, id, id_descending, rows, index, moves)| Spec {
            columns,
            id,
            id_descending,
            rows,
            index,
            moves,
        })
}

fn order(spec: &Spec) -> KeysetDef {
    let mut builder = KeysetDef::new("random");
    for (column, name) in spec.columns.iter().zip(NAMES) {
        builder = add(builder, column, name);
    }
    let id = if spec.id == "uuid" {
        Column::uuid("id")
    } else {
        Column::i64("id")
    }
    .not_null();
    if spec.id_descending {
        builder.unique_desc(id)
    } else {
        builder.unique_asc(id)
    }
}

fn add(builder: KeysetBuilder, spec: &ColumnSpec, name: &'static str) -> KeysetBuilder {
    let column = match spec.kind {
        "bool" => Column::bool(name),
        "i64" | "i32" => Column::i64(name),
        "f64" | "f32" => Column::f64(name),
        "text" | "text_nocase" => Column::text(name),
        "bytes" => Column::bytes(name),
        "uuid" => Column::uuid(name),
        "timestamptz" => Column::timestamptz(name),
        _ => Column::timestamp(name),
    };
    match (spec.nullable, spec.nulls_first, spec.descending) {
        (false, _, false) => builder.asc(column.not_null()),
        (false, _, true) => builder.desc(column.not_null()),
        (true, true, false) => builder.asc(column.nulls_first()),
        (true, true, true) => builder.desc(column.nulls_first()),
        (true, false, false) => builder.asc(column.nulls_last()),
        (true, false, true) => builder.desc(column.nulls_last()),
    }
}

fn value<D: TestDb>(spec: &ColumnSpec, draw: u8) -> Key {
    let n = i64::from(draw % 6);
    if spec.nullable && n == 5 {
        return Key::Null;
    }
    let pick = usize::try_from(n).unwrap();
    match spec.kind {
        "bool" => Key::Bool(n % 2 == 0),
        "i64" => Key::I64([i64::MIN, -1, 0, 1, 9_007_199_254_740_993, i64::MAX][pick]),
        "i32" => Key::I64(n - 2),
        "f64" => {
            let nan = if D::NULLS_SMALLEST { 2.5 } else { f64::NAN };
            Key::from([f64::NEG_INFINITY, -0.0, 0.0, 0.1, nan, f64::INFINITY][pick])
        }
        "f32" => Key::from(f64::from([-1.5_f32, 0.1, 0.2, 3.0, 3.5, 1e30][pick])),
        "text" | "text_nocase" => Key::from(["", "a", "A", "b", "á", "a b"][pick]),
        "bytes" => Key::from([&b""[..], b"\0", b"a", b"\xff", b"a\0", b"aa"][pick]),
        "uuid" => Key::from(Uuid::from_u128([0, 1, 2, u128::MAX, 1 << 127, 7][pick])),
        // Neighbouring microseconds: any rounding would merge them.
        _ => Key::from(UnixMicros(
            [
                0,
                -1,
                1_700_000_000_123_456,
                1_700_000_000_123_457,
                1_700_000_000_123_458,
                5,
            ][pick],
        )),
    }
}

/// The identifier as the database wants it written.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn check<D: TestDb>(connection: &mut D::Connection, spec: &Spec)
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    // A new name each time: prepared statements are cached by text, and the column types differ.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let table = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
    fill::<D>(connection, &table, spec).await;
    let clauses = order_by(spec);
    let expected = D::integers(
        connection,
        format!("SELECT tag FROM {table} ORDER BY {clauses}"),
    )
    .await;

    let list = List {
        table: &table,
        order: order(spec),
    };
    for &step in &spec.moves {
        walk::<D>(connection, &list, step, &expected).await;
    }
    zigzag::<D>(connection, &list, &spec.moves, &expected).await;
    deleted_anchor::<D>(connection, &list, spec.moves[0], &expected).await;
    D::run(connection, format!("DROP TABLE {table}")).await;
}

async fn fill<D: TestDb>(connection: &mut D::Connection, table: &str, spec: &Spec) {
    let mut columns = String::new();
    for (column, name) in spec.columns.iter().zip(NAMES) {
        let null = if column.nullable { "" } else { " NOT NULL" };
        columns += &format!("{} {}{null}, ", quoted(name), D::column_type(column.kind));
    }
    let unique = if spec.id == "rowid" { "" } else { " UNIQUE" };
    let id = D::column_type(spec.id);
    D::run(
        connection,
        format!("CREATE TABLE {table} ({columns}id {id}{unique} NOT NULL, tag bigint NOT NULL)"),
    )
    .await;
    if spec.index {
        let names: String = spec
            .columns
            .iter()
            .zip(NAMES)
            .map(|(_, name)| quoted(name) + ", ")
            .collect();
        D::run(
            connection,
            format!("CREATE INDEX ON_{table} ON {table} ({names}id)"),
        )
        .await;
    }
    if spec.rows.is_empty() {
        return;
    }
    let mut insert = QueryBuilder::<D>::new(format!("INSERT INTO {table} VALUES "));
    for (tag, draws) in (0_i64..).zip(&spec.rows) {
        insert.push(if tag == 0 { "(" } else { ", (" });
        for (column, draw) in spec.columns.iter().zip(draws) {
            insert.push_key(value::<D>(column, *draw)).push(", ");
        }
        // Ids in another order than tags.
        let id = (tag * 37 + 11) % 101;
        match spec.id {
            "uuid" => insert.push_key(Uuid::from_u128(id.unsigned_abs().into())),
            _ => insert.push_key(id),
        };
        insert.push(", ").push_key(tag).push(")");
    }
    D::execute(connection, insert).await;
}

fn order_by(spec: &Spec) -> String {
    let mut clauses = String::new();
    for (column, name) in spec.columns.iter().zip(NAMES) {
        let direction = if column.descending { "DESC" } else { "ASC" };
        let nulls = if column.nulls_first { "FIRST" } else { "LAST" };
        clauses += &format!("{} {direction} NULLS {nulls}, ", quoted(name));
    }
    clauses
        + if spec.id_descending {
            "id DESC"
        } else {
            "id ASC"
        }
}

struct List<'a> {
    table: &'a str,
    order: KeysetDef,
}

async fn fetch<D: TestDb>(
    connection: &mut D::Connection,
    list: &List<'_>,
    request: &PageRequest,
    exact: bool,
) -> Page<i64>
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let select = list.order.select(|q: &mut QueryBuilder<D>| {
        q.push("SELECT * FROM ")
            .push(list.table)
            .push(" WHERE tag >= ")
            .push_key(0_i64)
            .push(" OR tag = -1 -- all");
    });
    let query = select
        .bind_to(list.table)
        .previous(if exact { Probe::Exact } else { Probe::Lazy });
    let page: Page<Item> = query.fetch(connection, request, &codec()).await.unwrap();
    page.map(|item| item.tag)
}

/// Checks a page against the slice of the full order that it must be, and returns it.
async fn expect<D: TestDb>(
    connection: &mut D::Connection,
    list: &List<'_>,
    request: &PageRequest,
    step: Move,
    expected: &[i64],
    slice: std::ops::Range<usize>,
) -> Page<i64>
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let page = fetch::<D>(connection, list, request, step.exact).await;
    assert_eq!(
        page.items,
        expected[slice.clone()],
        "{slice:?} of {expected:?} by {request:?}"
    );
    let (previous, next) = (slice.start > 0, slice.end < expected.len());
    let lazy = request.anchor().is_some() && !step.exact;
    let forward = request.direction() == mainstay_pagination::PageDirection::Forward;
    assert_eq!(
        page.info.has_next,
        next && (forward || !lazy),
        "has_next of {slice:?}"
    );
    assert_eq!(
        page.info.has_previous,
        previous && (!forward || !lazy),
        "has_previous of {slice:?}"
    );
    assert_eq!(page.info.start_cursor.is_some(), !slice.is_empty());
    page
}

fn request(forward: bool, limit: u32, anchor: Option<Cursor>) -> PageRequest {
    match (forward, anchor) {
        (true, None) => PageRequest::first(limit),
        (true, Some(cursor)) => PageRequest::first(limit).after(cursor),
        (false, None) => PageRequest::last(limit),
        (false, Some(cursor)) => PageRequest::last(limit).before(cursor),
    }
}

/// From one end to the other, and one page beyond.
async fn walk<D: TestDb>(
    connection: &mut D::Connection,
    list: &List<'_>,
    step: Move,
    expected: &[i64],
) where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let (len, limit) = (expected.len(), step.limit as usize);
    let mut done = 0;
    let mut anchor = None;
    loop {
        let until = (done + limit).min(len);
        let slice = if step.forward {
            done..until
        } else {
            len - until..len - done
        };
        let request = request(step.forward, step.limit, anchor);
        let page = expect::<D>(connection, list, &request, step, expected, slice).await;
        if page.items.is_empty() {
            return;
        }
        done = until;
        anchor = if step.forward {
            page.info.end_cursor
        } else {
            page.info.start_cursor
        };
    }
}

/// To and fro, from either end of the page before.
async fn zigzag<D: TestDb>(
    connection: &mut D::Connection,
    list: &List<'_>,
    moves: &[Move],
    expected: &[i64],
) where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let mut at: Option<(std::ops::Range<usize>, Page<i64>)> = None;
    for &step in moves {
        let limit = step.limit as usize;
        // The anchor's position, and the slice after or before it.
        let (anchor, slice) = match at.take().filter(|(slice, _)| !slice.is_empty()) {
            Some((slice, page)) => {
                let position = if step.from_end {
                    slice.end - 1
                } else {
                    slice.start
                };
                let cursor = if step.from_end {
                    page.info.end_cursor
                } else {
                    page.info.start_cursor
                };
                let next = if step.forward {
                    position + 1..(position + 1 + limit).min(expected.len())
                } else {
                    position.saturating_sub(limit)..position
                };
                (cursor, next)
            }
            None if step.forward => (None, 0..limit.min(expected.len())),
            None => (None, expected.len().saturating_sub(limit)..expected.len()),
        };
        let request = request(step.forward, step.limit, anchor);
        let page = expect::<D>(connection, list, &request, step, expected, slice.clone()).await;
        at = Some((slice, page));
    }
}

/// A cursor stays good when its row is gone.
async fn deleted_anchor<D: TestDb>(
    connection: &mut D::Connection,
    list: &List<'_>,
    step: Move,
    expected: &[i64],
) where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let limit = step.limit as usize;
    let first = fetch::<D>(connection, list, &PageRequest::first(step.limit), false).await;
    let Some(cursor) = first.info.end_cursor else {
        return;
    };
    let gone = limit.min(expected.len()) - 1;
    D::run(
        connection,
        format!("DELETE FROM {} WHERE tag = {}", list.table, expected[gone]),
    )
    .await;
    let mut rest = expected.to_vec();
    rest.remove(gone);
    let (after, before) = (
        gone..(gone + limit).min(rest.len()),
        gone.saturating_sub(limit)..gone,
    );
    let forward = request(true, step.limit, Some(cursor.clone()));
    let _ = expect::<D>(connection, list, &forward, step, &rest, after).await;
    let backward = request(false, step.limit, Some(cursor));
    let _ = expect::<D>(connection, list, &backward, step, &rest, before).await;
}

fn run<D: TestDb>(runtime: &tokio::runtime::Runtime, connection: &mut <D as Database>::Connection)
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let cases = std::env::var("MAINSTAY_PAGINATION_SPECS").map_or(300, |n| n.parse().unwrap());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let connection = std::cell::RefCell::new(connection);
    TestRunner::new(config)
        .run(&specs(), |spec| {
            runtime.block_on(check::<D>(&mut connection.borrow_mut(), &spec));
            Ok(())
        })
        .unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn sqlite_pages_are_slices_of_the_full_order() {
    let runtime = runtime();
    let mut connection = runtime.block_on(sqlite());
    run::<Sqlite>(&runtime, &mut connection);
}

#[test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
fn postgres_pages_are_slices_of_the_full_order() {
    let runtime = runtime();
    let scratch = runtime.block_on(Scratch::create());
    let mut connection = runtime.block_on(scratch.connect());
    run::<Postgres>(&runtime, &mut connection);
    runtime.block_on(scratch.drop_database());
}
