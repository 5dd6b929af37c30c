//! A cursor's round trip of a timestamp and a UUID, beside JSON in base64, and a page of a list in SQLite.
//!
//! ```sh
//! cargo bench --bench cursor_codec
//! ```
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;
use std::time::{Duration, UNIX_EPOCH};

use criterion::{Criterion, criterion_group, criterion_main};
use mainstay::pagination::{
    Column, CursorCodec, Fingerprint, Key, KeyRing, Keyset, KeysetDef, Page, PageRequest,
};
use sqlx::{QueryBuilder, Sqlite, SqlitePool, sqlite::SqlitePoolOptions};

const NEWEST: KeysetDef = KeysetDef::new("payments.newest")
    .desc(Column::timestamptz("created_at").not_null())
    .unique_desc(Column::i64("id").not_null());

fn codecs(c: &mut Criterion) {
    let mut group = c.benchmark_group("cursor");
    let signed = || CursorCodec::hmac_sha256(KeyRing::new(1, [7; 32]).unwrap());
    let keys = [Key::Micros(1_700_000_000_123_456), Key::I64(7)];
    let fingerprint = Fingerprint::of(&NEWEST, "payments");
    for (name, codec) in [
        ("unsigned", CursorCodec::unsigned()),
        ("signed", signed()),
        ("signed_with_ttl", signed().ttl(Duration::from_secs(60))),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let cursor = codec
                    .encode(black_box(&keys), fingerprint, UNIX_EPOCH)
                    .unwrap();
                codec
                    .decode(&cursor, &NEWEST, fingerprint, UNIX_EPOCH)
                    .unwrap()
            });
        });
    }
    group.bench_function("serde_json", |b| {
        b.iter(|| {
            let text =
                serde_json::to_string(black_box(&(1_700_000_000_123_456_i64, 7_i64))).unwrap();
            serde_json::from_str::<(i64, i64)>(&text).unwrap()
        });
    });
    group.finish();
}

#[derive(sqlx::FromRow, Keyset)]
#[keyset(name = "payments.oldest", order = "created_at, id", unique = "id")]
struct Payment {
    id: i64,
    created_at: i64,
}

const ROWS: i64 = 100_000;

/// A hundred thousand rows; the first page, and those in the middle and at the end, should cost the same.
async fn list() -> SqlitePool {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false);
    let pool = pool.connect("sqlite::memory:").await.unwrap();
    sqlx::raw_sql(
        "CREATE TABLE payment (id INTEGER PRIMARY KEY, created_at INTEGER NOT NULL); \
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000) \
         INSERT INTO payment SELECT n, n / 3 * 1000 FROM n; \
         CREATE INDEX payment_oldest ON payment (created_at, id); ANALYZE",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool
}

fn pages(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pool = runtime.block_on(list());
    let codec = CursorCodec::hmac_sha256(KeyRing::new(1, [7; 32]).unwrap());
    let mut group = c.benchmark_group("page_of_50");
    for (name, after) in [("first", 0), ("middle", ROWS / 2), ("end", ROWS - 100)] {
        let mut request = PageRequest::first(50);
        if after > 0 {
            let keys = [Key::I64(after / 3 * 1000), Key::I64(after)];
            let fingerprint = Fingerprint::of(&Payment::OLDEST, "payments");
            let now = std::time::SystemTime::UNIX_EPOCH;
            request = request.after(codec.encode(&keys, fingerprint, now).unwrap());
        }
        group.bench_function(name, |b| {
            b.iter(|| {
                let page: Page<Payment> = runtime
                    .block_on(async {
                        Payment::OLDEST
                            .select(|q: &mut QueryBuilder<Sqlite>| {
                                q.push("SELECT id, created_at FROM payment");
                            })
                            .bind_to("payments")
                            .fetch(&pool, &request, &codec)
                            .await
                    })
                    .unwrap();
                assert_eq!(page.items.len(), 50);
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = codecs, pages
}
criterion_main!(benches);
