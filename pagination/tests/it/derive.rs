//! A derived order pages through a table, and a row's own keys make the cursor that the page made.

use mainstay_pagination::{Fingerprint, Keyset, PageRequest, Probe, UnixMicros};
use sqlx::{FromRow, QueryBuilder, Sqlite};

use crate::support::{TestDb, codec, sqlite};

#[derive(Debug, PartialEq, FromRow, Keyset)]
#[keyset(
    name = "tickets.by_priority",
    order = "priority desc nulls last, created_at desc, id",
    unique = "id"
)]
#[keyset(name = "tickets.by_title", order = "title, id desc")]
struct Ticket {
    id: i64,
    priority: Option<i32>,
    created_at: UnixMicros,
    #[sqlx(rename = "title_key")]
    title: String,
}

#[tokio::test]
async fn a_derived_order_pages_through_its_table() {
    let mut connection = sqlite().await;
    Sqlite::run(
        &mut connection,
        "CREATE TABLE ticket (id INTEGER PRIMARY KEY, priority INT, created_at INT NOT NULL, title TEXT NOT NULL);
         INSERT INTO ticket VALUES (1, NULL, 5, 'd'), (2, 1, 5, 'C'), (3, 2, 5, 'b'), (4, 2, 6, 'A'), (5, NULL, 5, 'a')"
            .into(),
    )
    .await;
    for (order, expected) in [
        (Ticket::BY_PRIORITY, [4, 3, 2, 1, 5]),
        (Ticket::BY_TITLE, [5, 4, 3, 2, 1]),
    ] {
        for limit in 1..=5 {
            let mut request = PageRequest::first(limit);
            let mut seen = Vec::new();
            loop {
                let page = order
                    .select(|q: &mut QueryBuilder<Sqlite>| {
                        q.push("SELECT id, priority, created_at, lower(title) AS title_key FROM ticket");
                    })
                    .bind_to("tickets")
                    .previous(Probe::Exact)
                    .fetch::<Ticket, _>(&mut connection, &request, &codec())
                    .await
                    .unwrap();
                seen.extend(page.items.iter().map(|ticket| ticket.id));
                // The same cursor, made of the row alone.
                let last = page.items.last().unwrap();
                let keys = match order.name() {
                    "tickets.by_title" => last.by_title_keys(),
                    _ => last.keys(),
                };
                let list = Fingerprint::of(&order, "tickets");
                let made = codec().encode(&keys, list, std::time::UNIX_EPOCH).unwrap();
                assert_eq!(page.info.end_cursor.as_ref(), Some(&made));
                if !page.info.has_next {
                    break;
                }
                request = PageRequest::first(limit).after(made);
            }
            assert_eq!(seen, expected, "{} by {limit}", order.name());
        }
    }
}
