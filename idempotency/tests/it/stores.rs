//! The conformance suite, on both databases.

use std::time::Duration;

use mainstay_idempotency::{ErrorKind, Inbox, Seen, conformance, store};
use sqlx::Pool;

use crate::app::App;
use crate::db::{TestDb, on_each};

on_each!(
    passes_the_conformance_suite,
    check_open_tells_a_transaction_that_was_ended_from_one_that_was_not,
    what_is_kept_for_ever_is_never_reaped,
    an_inbox_takes_no_empty_and_no_endless_names,
    two_crates_and_the_users_own_migrations_share_a_database,
    a_database_of_the_first_version_is_brought_up_with_its_records
);

async fn passes_the_conformance_suite<D: TestDb>(pool: Pool<D>) {
    conformance::all(&pool).await.unwrap();
}

async fn check_open_tells_a_transaction_that_was_ended_from_one_that_was_not<D: TestDb>(
    pool: Pool<D>,
) {
    for end in ["rollback", "commit"] {
        let mut tx = D::begin(&pool).await.unwrap();
        D::effect(&mut tx, end).await.unwrap();
        D::raw(&mut tx, end).await.unwrap();
        let error = D::check_open(&mut tx).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TransactionEnded, "{end}");
        D::rollback(tx).await;
    }
}

async fn what_is_kept_for_ever_is_never_reaped<D: TestDb>(pool: Pool<D>) {
    use mainstay_idempotency::{reap, reap_inbox};
    assert_eq!(reap(&pool, Duration::MAX, 100).await.unwrap(), 0);
    assert_eq!(reap_inbox(&pool, Duration::MAX, 100).await.unwrap(), 0);
}

async fn an_inbox_takes_no_empty_and_no_endless_names<D: TestDb>(pool: Pool<D>) {
    let mut tx = D::begin(&pool).await.unwrap();
    let (longest_consumer, longest_message) = (
        "c".repeat(store::CONSUMER_BYTES_MAX),
        "m".repeat(store::MESSAGE_BYTES_MAX),
    );
    for (consumer, message) in [
        ("", "m"),
        ("c", ""),
        (&*format!("{longest_consumer}c"), "m"),
        ("c", &*format!("{longest_message}m")),
    ] {
        assert_eq!(
            Inbox::once(&mut *tx, consumer, message)
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::InvalidId
        );
    }
    assert_eq!(
        Inbox::once(&mut *tx, &longest_consumer, &longest_message)
            .await
            .unwrap(),
        Seen::First
    );
    tx.commit().await.unwrap();
}

async fn two_crates_and_the_users_own_migrations_share_a_database<D: TestDb>(pool: Pool<D>) {
    let mut conn = pool.acquire().await.unwrap();
    D::raw(&mut conn, "create table _sqlx_migrations (version bigint)")
        .await
        .unwrap();
    drop(conn);
    mainstay_idempotency::migrate(&pool).await.unwrap();
    mainstay_idempotency::migrate(&pool).await.unwrap();
}

/// Migrations are forward only: what version 1 wrote is replayed by this one.
async fn a_database_of_the_first_version_is_brought_up_with_its_records<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool.clone());
    assert!(!app.post("k", "ok").await.replayed());
    let mut conn = pool.acquire().await.unwrap();
    for undone in [
        "drop table mainstay_lease",
        "delete from mainstay_idempotency_migrations where version > 1",
    ] {
        D::raw(&mut conn, undone).await.unwrap();
    }
    if D::NAME == "PostgreSQL" {
        D::raw(
            &mut conn,
            "do $$ begin for n in 0..15 loop execute format('drop table %I', 'mainstay_key_day_' || lpad(n::text, 2, '0')); end loop; end $$; \
             drop function mainstay_keep; drop function mainstay_empty_day; drop function mainstay_key_has; \
             drop function mainstay_claim(bigint, bigint, bytea, bytea, text); \
             drop function mainstay_claim(bigint, bigint, bytea, bytea, int, text)",
        )
        .await
        .unwrap();
    }
    drop(conn);
    mainstay_idempotency::migrate(&pool).await.unwrap();
    assert!(app.post("k", "ok").await.replayed());
    assert!(!app.post("new", "ok").await.replayed());
}
