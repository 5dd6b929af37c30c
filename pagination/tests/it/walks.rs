//! The property: whatever the order, the data and the page sizes, pages are slices of one full ORDER BY.
//!
//! `MAINSTAY_PAGINATION_SPECS` sets how many random orders are tried per database (default 2 000). All are on the
//! same tables, which have a column of each kind for each place of an order, so that statements stay prepared.

use std::ops::Range;

use futures_util::TryStreamExt;
use mainstay_pagination::{
    Column, Cursor, Decided, Key, KeysetBuilder, KeysetDef, Page, PageDirection, PageRequest,
    Probe, PushKey, UnixMicros,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::{Database, FromRow, MySql, Postgres, QueryBuilder, Sqlite};
use uuid::Uuid;

use crate::support::{Maria, Scratch, TestDb, codec, sqlite};

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
    between: Vec<Between>,
}

/// A page, and where the next one is to be taken from.
#[derive(Clone, Copy, Debug)]
struct Move {
    forward: bool,
    limit: u32,
    exact: bool,
    from_end: bool,
}

/// A page between two rows, each named by its share of the list.
#[derive(Clone, Copy, Debug)]
struct Between {
    after: Option<u8>,
    before: Option<u8>,
    step: Move,
}

#[derive(FromRow)]
struct Item {
    tag: i64,
}

const KINDS: [&str; 15] = [
    "bool",
    "i64",
    "i32",
    "u64",
    "f64",
    "f32",
    "decimal",
    "text",
    "text_nocase",
    "bytes",
    "uuid",
    "timestamptz",
    "timestamp",
    "date",
    "time",
];
const IDS: [&str; 3] = ["rowid", "i64", "uuid"];

/// The name of a column: of a place in the order, of a kind, and of whether it may be NULL.
fn name(place: usize, spec: &ColumnSpec) -> &'static str {
    static NAMES: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let mut names = Vec::new();
        for prefix in ["c ", "b\"`", "order"] {
            for kind in KINDS {
                names.extend([format!("{prefix}{kind}"), format!("{prefix}{kind}_null")]);
            }
        }
        names
    });
    let kind = KINDS.iter().position(|kind| *kind == spec.kind).unwrap();
    &names[(place * KINDS.len() + kind) * 2 + usize::from(spec.nullable)]
}

fn specs() -> impl Strategy<Value = Spec> {
    let column = (prop::sample::select(KINDS.to_vec()), any::<[bool; 3]>()).prop_map(
        |(kind, [nullable, descending, nulls_first])| ColumnSpec {
            kind,
            nullable,
            descending,
            nulls_first,
        },
    );
    let a_move =
        (any::<[bool; 3]>(), 1..12_u32).prop_map(|([forward, exact, from_end], limit)| Move {
            forward,
            limit,
            exact,
            from_end,
        });
    let place = || prop::option::weighted(0.8, any::<u8>());
    let between = (place(), place(), a_move.clone()).prop_map(|(after, before, step)| Between {
        after,
        before,
        step,
    });
    (
        prop::collection::vec(column, 0..=3),
        prop::sample::select(IDS.to_vec()),
        any::<bool>(),
        prop::collection::vec(any::<[u8; 3]>(), 0..30),
        prop::bool::weighted(0.2),
        prop::collection::vec(a_move, 3..9),
        prop::collection::vec(between, 3),
    )
        .prop_map(
            |(columns, id, id_descending, rows, index, moves, between)| Spec {
                columns,
                id,
                id_descending,
                rows,
                index,
                moves,
                between,
            },
        )
}

fn order(spec: &Spec) -> KeysetDef {
    let mut builder = KeysetDef::new("random");
    for (place, column) in spec.columns.iter().enumerate() {
        builder = add(builder, column, name(place, column));
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
    fn with<N: Decided>(builder: KeysetBuilder, column: Column<N>, desc: bool) -> KeysetBuilder {
        if desc {
            builder.desc(column)
        } else {
            builder.asc(column)
        }
    }
    let column = match spec.kind {
        "bool" => Column::bool(name),
        "i64" | "i32" => Column::i64(name),
        "u64" => Column::u64(name),
        "f64" | "f32" => Column::f64(name),
        "decimal" => Column::decimal(name),
        "text" | "text_nocase" => Column::text(name),
        "bytes" => Column::bytes(name),
        "uuid" => Column::uuid(name),
        "timestamptz" => Column::timestamptz(name),
        "timestamp" => Column::timestamp(name),
        "date" => Column::date(name),
        _ => Column::time(name),
    };
    match (spec.nullable, spec.nulls_first) {
        (false, _) => with(builder, column.not_null(), spec.descending),
        (true, true) => with(builder, column.nulls_first(), spec.descending),
        (true, false) => with(builder, column.nulls_last(), spec.descending),
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
        "u64" => {
            let max = if D::NOT_FINITE {
                u64::MAX >> 1
            } else {
                u64::MAX
            };
            Key::U64([0, 1, 2, 9_007_199_254_740_993, max - 1, max][pick])
        }
        "f64" if D::NOT_FINITE => {
            // SQLite keeps NaN as NULL.
            let nan = if D::column_type("f64") == "REAL" {
                2.5
            } else {
                f64::NAN
            };
            Key::from([f64::NEG_INFINITY, -0.0, 0.0, 0.1, nan, f64::INFINITY][pick])
        }
        "f64" => Key::from([f64::MIN, -0.0, 0.0, 0.1, 0.1 + f64::EPSILON, f64::MAX][pick]),
        "f32" => Key::from(f64::from([-1.5_f32, 0.1, 0.2, 3.0, 3.5, 1e30][pick])),
        "decimal" => Key::Decimal(["-0.5", "0", "1.1", "1.10", "12.5", "900000"][pick].into()),
        "text" | "text_nocase" => Key::from(["", "a", "A", "b", "á", "a "][pick]),
        "bytes" => Key::from([&b""[..], b"\0", b"a", b"\xff", b"a\0", b"aa"][pick]),
        "uuid" => Key::from(Uuid::from_u128([0, 1, 2, u128::MAX, 1 << 127, 7][pick])),
        "date" => Key::Date([-1, 0, 1, 11_016, 20_000, 20_001][pick]),
        "time" => Key::Time([0, 1, 2, 86_399_999_999, 3_600_000_000, 5][pick]),
        // Neighbouring microseconds: any rounding would merge them.
        _ => Key::from(UnixMicros(
            [
                1_000_000,
                1_000_001,
                1_700_000_000_123_456,
                1_700_000_000_123_457,
                1_700_000_000_123_458,
                2_000_000,
            ][pick],
        )),
    }
}

/// A table per kind of tie-breaker.
async fn create<D: TestDb>(connection: &mut D::Connection) {
    for id in IDS {
        let mut columns = String::new();
        for place in 0..3 {
            for kind in KINDS {
                for nullable in [false, true] {
                    let spec = ColumnSpec {
                        kind,
                        nullable,
                        descending: false,
                        nulls_first: false,
                    };
                    let name = D::quoted(name(place, &spec));
                    columns += &format!("{name} {} NULL, ", D::column_type(kind));
                }
            }
        }
        let unique = if id == "rowid" { "" } else { " UNIQUE" };
        let kind = D::column_type(id);
        D::run(
            connection,
            format!(
                "CREATE TABLE t_{id} ({columns}id {kind}{unique} NOT NULL, tag bigint NOT NULL)"
            ),
        )
        .await;
    }
}

async fn check<D: TestDb>(connection: &mut D::Connection, spec: &Spec)
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let table = format!("t_{}", spec.id);
    fill::<D>(connection, &table, spec).await;
    let clauses = order_by::<D>(spec);
    let expected = D::integers(
        connection,
        format!("SELECT tag FROM {table} ORDER BY {clauses}"),
    )
    .await;

    let list = List {
        table: &table,
        order: order(spec),
    };
    let cursors = whole::<D>(connection, &list, &expected).await;
    for &step in &spec.moves[..2] {
        walk::<D>(connection, &list, step, &expected).await;
        stream::<D>(connection, &list, step, &cursors, &expected).await;
    }
    zigzag::<D>(connection, &list, &spec.moves, &expected).await;
    for &between in &spec.between {
        range::<D>(connection, &list, between, &cursors, &expected).await;
    }
    deleted_anchor::<D>(connection, &list, spec.moves[0], &expected).await;
}

async fn fill<D: TestDb>(connection: &mut D::Connection, table: &str, spec: &Spec) {
    let on = D::on(table);
    D::run(connection, format!("DROP INDEX IF EXISTS i{on}")).await;
    D::run(connection, D::truncate(table)).await;
    let names: String = (0..)
        .zip(&spec.columns)
        .map(|(place, column)| D::quoted(name(place, column)) + ", ")
        .collect();
    if spec.index {
        D::run(connection, format!("CREATE INDEX i ON {table} ({names}id)")).await;
    }
    if spec.rows.is_empty() {
        return;
    }
    let mut insert =
        QueryBuilder::<D>::new(format!("INSERT INTO {table} ({names}id, tag) VALUES "));
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

fn order_by<D: TestDb>(spec: &Spec) -> String {
    let mut clauses = String::new();
    for (place, column) in spec.columns.iter().enumerate() {
        clauses += &D::order_by(name(place, column), column.descending, column.nulls_first);
        clauses += ", ";
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

impl List<'_> {
    fn query<D: TestDb>(&self) -> mainstay_pagination::PageQuery<'_, D> {
        self.order
            .select(|q: &mut QueryBuilder<D>| {
                q.push("SELECT ");
                for column in self.order.columns() {
                    q.push(D::quoted(column.name())).push(", ");
                }
                q.push("tag FROM ")
                    .push(self.table)
                    .push(" WHERE tag >= ")
                    .push_key(0_i64)
                    .push(" OR tag = -1 -- all");
            })
            .bind_to(self.table)
    }
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
    let query = list
        .query::<D>()
        .previous(if exact { Probe::Exact } else { Probe::Lazy });
    let page: Page<Item> = query.fetch(connection, request, &codec()).await.unwrap();
    page.map(|item| item.tag)
}

/// The whole list as one page, and every row's cursor.
async fn whole<D: TestDb>(
    connection: &mut D::Connection,
    list: &List<'_>,
    expected: &[i64],
) -> Vec<Cursor>
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let request = PageRequest::first(100);
    let query = list.query::<D>().cursors();
    let page: Page<Item> = query.fetch(connection, &request, &codec()).await.unwrap();
    let tags: Vec<i64> = page.items.iter().map(|item| item.tag).collect();
    assert_eq!(tags, expected);
    assert_eq!(page.cursors.len(), tags.len());
    assert_eq!(page.cursors.last(), page.info.end_cursor.as_ref());
    page.cursors
}

/// A page between two rows, in whatever order they stand.
async fn range<D: TestDb>(
    connection: &mut D::Connection,
    list: &List<'_>,
    between: Between,
    cursors: &[Cursor],
    expected: &[i64],
) where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let place = |share: Option<u8>| {
        share
            .filter(|_| !cursors.is_empty())
            .map(|share| usize::from(share) % cursors.len())
    };
    let (after, before) = (place(between.after), place(between.before));
    let (start, end) = (
        after.map_or(0, |at| at + 1),
        before.unwrap_or(expected.len()),
    );
    let step = between.step;
    let mut request = if step.forward {
        PageRequest::first(step.limit)
    } else {
        PageRequest::last(step.limit)
    };
    if let Some(at) = after {
        request = request.after(cursors[at].clone());
    }
    if let Some(at) = before {
        request = request.before(cursors[at].clone());
    }
    let page = fetch::<D>(connection, list, &request, step.exact).await;
    let within = expected.get(start..end).unwrap_or_default();
    let limit = usize::try_from(step.limit).unwrap().min(within.len());
    let (slice, more) = if step.forward {
        (&within[..limit], within.len() > limit)
    } else {
        (&within[within.len() - limit..], within.len() > limit)
    };
    assert_eq!(page.items, slice, "{after:?}..{before:?} of {expected:?}");
    // The side it came from: the anchor's own row is there, if there is an anchor.
    let anchored = step.exact && if step.forward { after } else { before }.is_some();
    let flags = if step.forward {
        (anchored, more)
    } else {
        (more, anchored)
    };
    assert_eq!(
        (page.info.has_previous, page.info.has_next),
        flags,
        "{after:?}..{before:?} of {expected:?}"
    );
}

/// The rows from a place on, as a stream.
async fn stream<D: TestDb>(
    connection: &mut D::Connection,
    list: &List<'_>,
    step: Move,
    cursors: &[Cursor],
    expected: &[i64],
) where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let middle = cursors.len() / 2;
    let anchor = cursors.get(middle).filter(|_| step.from_end).cloned();
    let rest: Vec<i64> = match (&anchor, step.forward) {
        (None, true) => expected.to_vec(),
        (None, false) => expected.iter().rev().copied().collect(),
        (Some(_), true) => expected[middle + 1..].to_vec(),
        (Some(_), false) => expected[..middle].iter().rev().copied().collect(),
    };
    let request = request(step.forward, step.limit, anchor);
    let codec = codec();
    let rows = list.query::<D>().rows(connection, &request, &codec);
    let seen: Vec<Item> = rows.try_collect().await.unwrap();
    let seen: Vec<i64> = seen.iter().map(|item| item.tag).collect();
    assert_eq!(seen, rest);
}

/// Checks a page against the slice of the full order that it must be, and returns it.
async fn expect<D: TestDb>(
    connection: &mut D::Connection,
    list: &List<'_>,
    request: &PageRequest,
    step: Move,
    expected: &[i64],
    slice: Range<usize>,
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
    let forward = request.direction() == PageDirection::Forward;
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
    let mut at: Option<(Range<usize>, Page<i64>)> = None;
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
    let cases = std::env::var("MAINSTAY_PAGINATION_SPECS").map_or(2_000, |n| n.parse().unwrap());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 100,
        ..Config::default()
    };
    runtime.block_on(create::<D>(connection));
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
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
fn postgres_pages_are_slices_of_the_full_order() {
    let runtime = runtime();
    let scratch = runtime.block_on(Scratch::create());
    let mut connection = runtime.block_on(scratch.connect());
    run::<Postgres>(&runtime, &mut connection);
    runtime.block_on(scratch.drop_database());
}

#[test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
fn mariadb_pages_are_slices_of_the_full_order() {
    let runtime = runtime();
    let maria = runtime.block_on(Maria::create());
    let mut connection = runtime.block_on(maria.connect());
    run::<MySql>(&runtime, &mut connection);
    runtime.block_on(maria.drop_database());
}
