//! Pages of many parents in one statement are the pages that each parent's own list has.

use mainstay_pagination::{
    Column, Cursor, Key, KeysetDef, PARENTS_MAX, Page, PageError, PageRequest, Parent,
    ParentsQuery, PushIndexHint,
};
use sqlx::{
    AssertSqlSafe, Connection, Database, Execute, FromRow, MySql, Postgres, QueryBuilder, Row,
    Sqlite,
};

use crate::support::{Maria, Scratch, TestDb, codec, sqlite};

/// The second has three states of a cursor: none, with a rank, without.
const ORDERS: [KeysetDef; 2] = [
    KeysetDef::new("by_score")
        .desc(Column::i64("score").not_null())
        .unique_desc(Column::i64("id").not_null()),
    KeysetDef::new("by_rank")
        .asc(Column::i64("rank_").nulls_last())
        .unique_desc(Column::i64("id").not_null()),
];

#[derive(FromRow)]
struct Item {
    id: i64,
    parent: i64,
}

fn children<D: TestDb>(order: &KeysetDef) -> ParentsQuery<'static, D> {
    let index = if order.name() == "by_score" {
        "scored"
    } else {
        "ranked"
    };
    order
        .per_parent(move |q: &mut QueryBuilder<D>, parent: Parent<'_>| {
            q.push("SELECT id, parent, score, rank_ FROM child")
                .push_index_hint(index)
                .push(" WHERE parent = ");
            parent.push(q);
        })
        .bind_to("children")
}

async fn fill<D: TestDb>(connection: &mut D::Connection, parents: i64) {
    D::run(
        connection,
        "CREATE TABLE child (id bigint PRIMARY KEY, parent bigint NOT NULL, score int NOT NULL, rank_ int);
         CREATE INDEX scored ON child (parent, score, id);
         CREATE INDEX ranked ON child (parent, rank_, id DESC)"
            .into(),
    )
    .await;
    // Parent 3 has one child, parent 4 none, and the others up to 60.
    let tuples: Vec<String> = (0..parents * 60)
        .filter(|i| match i % parents {
            3 => i / parents == 0,
            4 => false,
            parent => i / parents < 30 + parent % 31,
        })
        .map(|i| {
            let rank = match i * 7 / 3 % 4 {
                0 => "NULL".into(),
                n => n.to_string(),
            };
            format!("({i}, {}, {}, {rank})", i % parents, i * 13 / 7 % 5)
        })
        .collect();
    D::run(
        connection,
        format!("INSERT INTO child VALUES {}", tuples.join(", ")),
    )
    .await;
}

/// A parent's own list.
async fn list<D: TestDb>(
    connection: &mut D::Connection,
    order: &KeysetDef,
    parent: i64,
    request: &PageRequest,
) -> Page<Item>
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    order
        .select(|q: &mut QueryBuilder<D>| {
            use mainstay_pagination::PushKey;
            q.push("SELECT id, parent, score, rank_ FROM child WHERE parent = ")
                .push_key(parent);
        })
        .bind_to(("children", Key::from(parent)))
        .fetch(connection, request, &codec())
        .await
        .unwrap()
}

async fn check<D: TestDb>(connection: &mut D::Connection)
where
    Item: for<'r> FromRow<'r, D::Row>,
{
    let parents = 40;
    fill::<D>(connection, parents).await;
    for order in ORDERS {
        let mut cursors: Vec<(i64, Option<Cursor>)> =
            (0..parents).rev().map(|parent| (parent, None)).collect();
        // Each parent goes on from its own place, and some from none.
        for step in 0..12_u32 {
            let limit = 1 + step % 7;
            let pages: Vec<Page<Item>> = children::<D>(&order)
                .fetch(&mut *connection, cursors.clone(), limit, &codec())
                .await
                .unwrap();
            assert_eq!(pages.len(), cursors.len());
            for ((parent, cursor), page) in cursors.iter_mut().zip(pages) {
                let request = match cursor.clone() {
                    Some(cursor) => PageRequest::first(limit).after(cursor),
                    None => PageRequest::first(limit),
                };
                let own = list::<D>(connection, &order, *parent, &request).await;
                let ids = |page: &Page<Item>| page.items.iter().map(|i| i.id).collect::<Vec<_>>();
                assert_eq!(ids(&page), ids(&own), "{parent} {request:?}");
                assert_eq!(page.info, own.info);
                assert!(page.items.iter().all(|item| item.parent == *parent));
                *cursor = page
                    .info
                    .end_cursor
                    .filter(|_| (*parent + i64::from(step)) % 5 > 0);
            }
        }
    }

    // Nothing to ask, nobody's children, one parent twice, and a cursor of another parent.
    let query = children::<D>(&ORDERS[0]);
    let none: [(i64, Option<Cursor>); 0] = [];
    let pages: Vec<Page<Item>> = query
        .fetch(&mut *connection, none, 3, &codec())
        .await
        .unwrap();
    assert!(pages.is_empty());
    let nobody = [(Key::Null, None), (Key::I64(1), None), (Key::I64(1), None)];
    let pages: Vec<Page<Item>> = query
        .fetch(&mut *connection, nobody, 3, &codec())
        .await
        .unwrap();
    assert_eq!(
        pages
            .iter()
            .map(|page| page.items.len())
            .collect::<Vec<_>>(),
        [0, 3, 3]
    );
    let foreign = [(2, pages[1].info.end_cursor.clone())];
    let pages: Result<Vec<Page<Item>>, _> =
        query.fetch(&mut *connection, foreign, 3, &codec()).await;
    assert!(matches!(pages, Err(PageError::Cursor { .. })));
    D::run(connection, "DROP TABLE child".into()).await;

    // One statement per hundred.
    let many = i64::try_from(PARENTS_MAX).unwrap() + 20;
    fill::<D>(connection, many).await;
    let all = (0..many).map(|parent| (parent, None));
    assert_eq!(query.plans(all.clone(), 5, &codec()).unwrap().len(), 2);
    let pages: Vec<Page<Item>> = query
        .fetch(&mut *connection, all, 5, &codec())
        .await
        .unwrap();
    assert_eq!(
        pages.iter().map(|page| page.items.len()).sum::<usize>(),
        118 * 5 + 1
    );
}

#[tokio::test]
async fn sqlite_gives_each_parent_its_own_page() {
    check::<Sqlite>(&mut sqlite().await).await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn postgres_gives_each_parent_its_own_page() {
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    check::<Postgres>(&mut connection).await;
    connection.close().await.unwrap();
    scratch.drop_database().await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn mariadb_gives_each_parent_its_own_page() {
    let maria = Maria::create().await;
    let mut connection = maria.connect().await;
    check::<MySql>(&mut connection).await;
    connection.close().await.unwrap();
    maria.drop_database().await;
}

/// The cost is parents × rows: not the children that there are.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn postgres_reads_no_more_of_a_hundred_parents_than_it_returns() {
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    Postgres::run(
        &mut connection,
        "CREATE TABLE child (id bigint PRIMARY KEY, parent bigint NOT NULL, score int NOT NULL, rank_ int);
         INSERT INTO child SELECT i, i % 100, i % 1000, i % 7 FROM generate_series(1, 200000) AS i;
         CREATE INDEX scored ON child (parent, score, id)"
            .into(),
    )
    .await;
    Postgres::run(&mut connection, "VACUUM ANALYZE child".into()).await;
    let query = children::<Postgres>(&ORDERS[0]);
    let all = (0..100).map(|parent| (parent, None));
    let plan = query.plans(all, 5, &codec()).unwrap().pop().unwrap();
    let mut query = plan.into_query().unwrap();
    let sql = format!(
        "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {}",
        query.sql().as_str()
    );
    let arguments: <Postgres as Database>::Arguments =
        query.build().take_arguments().unwrap().unwrap();
    let rows = sqlx::query_with(AssertSqlSafe(sql), arguments)
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(!plan.contains("Seq Scan"), "{plan}");
    assert!(plan.contains("actual rows=6 loops=100"), "{plan}");
    let number = |word: &str| -> u64 {
        let digits = plan.split_once(word).map_or("0", |(_, rest)| rest);
        let digits = digits.split(|c: char| !c.is_ascii_digit()).next();
        digits.unwrap().parse().unwrap()
    };
    let buffers = number("shared hit=") + number(" read=");
    println!("100 parents × 5 rows of 200,000 children: {buffers} buffers");
    assert!(buffers <= 100 * (6 + 4), "{plan}");
    connection.close().await.unwrap();
    scratch.drop_database().await;
}

/// The query may call its own tables as it likes.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn postgres_finds_the_parent_behind_a_table_of_that_name() {
    #[derive(FromRow)]
    struct Node {
        id: i64,
    }
    let scratch = Scratch::create().await;
    let mut connection = scratch.connect().await;
    Postgres::run(
        &mut connection,
        "CREATE TABLE node (id bigint PRIMARY KEY, parent bigint);
         INSERT INTO node VALUES (1, NULL), (2, 1), (3, 1), (4, 2), (5, NULL)"
            .into(),
    )
    .await;
    let nodes = KeysetDef::new("nodes")
        .unique_asc(Column::i64("id").not_null())
        .per_parent(|q: &mut QueryBuilder<Postgres>, parent: Parent<'_>| {
            q.push("SELECT parent.id FROM node AS parent WHERE parent.parent = ");
            parent.push(q);
        })
        .bind_to("nodes");
    let pages: Vec<Page<Node>> = nodes
        .fetch(&mut connection, [(1_i64, None), (2, None)], 5, &codec())
        .await
        .unwrap();
    let ids = |page: &Page<Node>| page.items.iter().map(|node| node.id).collect::<Vec<_>>();
    assert_eq!(
        pages.iter().map(ids).collect::<Vec<_>>(),
        [vec![2, 3], vec![4]]
    );
    drop(connection);
    scratch.drop_database().await;
}
