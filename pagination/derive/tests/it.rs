//! What the derive writes, and what it refuses.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use mainstay_pagination::{
    Column, CursorCodec, Fingerprint, Key, KeyKind, KeyRing, KeyValue, Keyset, KeysetDef,
    OrderColumn, UnixMicros,
};
use uuid::Uuid;

#[derive(Keyset)]
#[keyset(
    name = "tickets.by_priority",
    order = "priority desc nulls last, created_at desc, id",
    unique = "id"
)]
#[keyset(name = "tickets.by_title", order = "title, type nulls first, id desc")]
#[keyset(name = "oldest", order = "opened, id")]
struct Ticket {
    id: Uuid,
    priority: Option<i32>,
    created_at: UnixMicros,
    #[keyset(column = "title_key")]
    title: String,
    r#type: Option<String>,
    #[keyset(kind = timestamptz)]
    opened: i64,
}

fn ticket() -> Ticket {
    Ticket {
        id: Uuid::from_u128(1),
        priority: None,
        created_at: UnixMicros(5),
        title: "a".into(),
        r#type: Some("bug".into()),
        opened: 7,
    }
}

/// The order as it enters every fingerprint.
fn same(derived: &KeysetDef, written: &KeysetDef) {
    assert_eq!(Fingerprint::of(derived, ()), Fingerprint::of(written, ()));
    assert_eq!(
        derived.columns().collect::<Vec<_>>(),
        written.columns().collect::<Vec<_>>()
    );
}

#[test]
fn a_derived_order_is_the_one_written_by_hand() {
    same(
        &Ticket::BY_PRIORITY,
        &KeysetDef::new("tickets.by_priority")
            .desc(Column::i64("priority").nulls_last())
            .desc(Column::timestamptz("created_at").not_null())
            .unique_asc(Column::uuid("id").not_null()),
    );
    same(
        &Ticket::OLDEST,
        &KeysetDef::new("oldest")
            .asc(Column::timestamptz("opened").not_null())
            .unique_asc(Column::uuid("id").not_null()),
    );
    same(&<Ticket as Keyset>::ORDER, &Ticket::BY_PRIORITY);
}

#[test]
fn columns_may_be_called_otherwise_than_their_fields() {
    same(
        &Ticket::BY_TITLE,
        &KeysetDef::new("tickets.by_title")
            .asc(Column::text("title_key").not_null())
            .asc(Column::text("type").nulls_first())
            .unique_desc(Column::uuid("id").not_null()),
    );
}

#[test]
fn a_row_knows_its_keys_in_each_order() {
    let id = Key::Uuid(Uuid::from_u128(1));
    assert_eq!(
        *ticket().by_priority_keys(),
        [Key::Null, Key::Micros(5), id.clone()]
    );
    assert_eq!(
        *ticket().by_title_keys(),
        [Key::from("a"), Key::from("bug"), id.clone()]
    );
    assert_eq!(*ticket().oldest_keys(), [Key::Micros(7), id]);
    assert_eq!(ticket().keys(), ticket().by_priority_keys());
}

#[test]
fn the_cursor_of_a_row_is_one_of_its_list() {
    let codec = CursorCodec::hmac_sha256(KeyRing::new(1, [7; 32]).unwrap());
    let list = Fingerprint::of(&Ticket::ORDER, "tickets");
    let now = std::time::UNIX_EPOCH;
    let cursor = codec.encode(&ticket().keys(), list, now).unwrap();
    assert_eq!(
        codec.decode(&cursor, &Ticket::ORDER, list, now).unwrap(),
        ticket().keys()
    );
}

#[derive(Keyset)]
#[keyset(name = "by_rank", order = "rank, id", unique = "id")]
struct Generic<T>
where
    T: KeyValue,
{
    id: i64,
    rank: T,
}

#[test]
fn a_row_may_be_generic() {
    let row = Generic { id: 1, rank: true };
    assert_eq!(*row.keys(), [Key::Bool(true), Key::I64(1)]);
    let kinds: Vec<_> = Generic::<String>::BY_RANK
        .columns()
        .map(OrderColumn::kind)
        .collect();
    assert_eq!(kinds, [KeyKind::Text, KeyKind::I64]);
}

/// What is written there needs nothing in scope.
mod without_prelude {
    #![no_implicit_prelude]

    #[derive(::mainstay_pagination::Keyset)]
    #[keyset(name = "newest", order = "rank desc nulls last, id", unique = "id")]
    pub(crate) struct Bare {
        pub(crate) id: i64,
        pub(crate) rank: ::core::option::Option<i64>,
    }
}

#[test]
fn a_derived_order_needs_no_prelude() {
    let row = without_prelude::Bare { id: 1, rank: None };
    assert_eq!(*row.newest_keys(), [Key::Null, Key::I64(1)]);
}

#[test]
fn mistakes_are_refused_with_a_message_to_act_on() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
