//! What it costs to write a page's statement.

use mainstay_pagination::{
    Column, CursorCodec, Fingerprint, Key, KeysetDef, PageQuery, PageRequest, PushKey,
};
use sqlx::{MySql, Postgres, QueryBuilder, Sqlite};

use crate::support::TestDb;

const NEWEST: KeysetDef = KeysetDef::new("newest")
    .desc(Column::timestamptz("created_at").not_null())
    .unique_desc(Column::i64("id").not_null());
/// Three ranges on Postgres and SQLite.
const RANKED: KeysetDef = KeysetDef::new("ranked")
    .desc(Column::i64("rank").nulls_last())
    .unique_asc(Column::i64("id").not_null());

fn query<D: TestDb>(order: &KeysetDef) -> PageQuery<'static, D> {
    order
        .select(|q: &mut QueryBuilder<D>| {
            q.push("SELECT id, created_at, rank FROM payment WHERE tenant = 1");
        })
        .unbound()
}

/// The heap allocations of the statement's text alone: those of a plan, less those of the same parameters bound to a
/// statement that was there before.
fn allocations<D: TestDb>(order: &KeysetDef, row: &[Key]) -> i64 {
    let codec = CursorCodec::unsigned();
    let cursor = codec
        .encode(row, Fingerprint::of(order, ()), std::time::UNIX_EPOCH)
        .unwrap();
    let request = PageRequest::first(20).after(cursor);
    let query = query::<D>(order).now(std::time::UNIX_EPOCH);
    let plan = || query.plan(&request, &codec).unwrap();
    let sql = plan().sql();
    let whole = allocation_counter::measure(|| drop(plan()));

    // As many of the keys as the text has parameters: the driver's buffers are theirs.
    let parameters = sql.matches(['$', '?']).count();
    let mut bound = QueryBuilder::<D>::new(String::with_capacity(4_096));
    let arguments = allocation_counter::measure(|| {
        for key in row.iter().cycle().take(parameters) {
            bound.push_key(key.clone());
        }
    });
    println!(
        "{} on {}: {} allocations, {} of them the driver's parameters, {} bytes of SQL",
        order.name(),
        D::NAME,
        whole.count_total,
        arguments.count_total,
        sql.len(),
    );
    i64::try_from(whole.count_total).unwrap() - i64::try_from(arguments.count_total).unwrap()
}

#[test]
fn writing_a_statement_takes_no_more_than_three_allocations() {
    let newest = [Key::Micros(5), Key::I64(1)];
    let ranked = [Key::I64(5), Key::I64(1)];
    for (order, row) in [(NEWEST, &newest), (RANKED, &ranked)] {
        assert!(allocations::<Postgres>(&order, row) <= 3);
        assert!(allocations::<Sqlite>(&order, row) <= 3);
        assert!(allocations::<MySql>(&order, row) <= 3);
    }
}
