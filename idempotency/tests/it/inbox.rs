//! A consumer's inbox: redelivery after every kind of end.

use futures_util::future::join_all;
use mainstay_idempotency::{ErrorKind, Inbox, Seen, dead_letters};
use sqlx::{Connection, Pool, Transaction};

use crate::db::{TestDb, on_each};

on_each!(
    a_crash_before_the_commit_runs_again,
    a_crash_after_the_commit_is_skipped,
    two_consumers_each_apply_a_message_once,
    copies_at_once_have_one_effect,
    poison_is_buried_outside_the_transaction_that_was_rolled_back
);

/// Applies `message` as a consumer does, up to its commit.
async fn apply<D: TestDb>(
    pool: &Pool<D>,
    consumer: &str,
    message: &str,
) -> Result<(Transaction<'static, D>, Seen), mainstay_idempotency::Error>
where
    D::Connection: Connection<Database = D>,
{
    let mut tx = D::begin(pool).await?;
    let seen = match Inbox::once(&mut *tx, consumer, message).await {
        Ok(seen) => seen,
        Err(error) => {
            D::rollback(tx).await;
            return Err(error);
        }
    };
    if seen == Seen::First {
        D::effect(&mut tx, message).await.unwrap();
    }
    Ok((tx, seen))
}

async fn a_crash_before_the_commit_runs_again<D: TestDb>(pool: Pool<D>) {
    for expected in [Seen::First, Seen::First] {
        let (tx, seen) = apply(&pool, "billing", "m").await.unwrap();
        assert_eq!(seen, expected);
        D::rollback(tx).await;
    }
    assert_eq!(D::effects(&pool, "m").await, 0);
    let (tx, seen) = apply(&pool, "billing", "m").await.unwrap();
    D::commit(tx).await.unwrap();
    assert_eq!((seen, D::effects(&pool, "m").await), (Seen::First, 1));
}

async fn a_crash_after_the_commit_is_skipped<D: TestDb>(pool: Pool<D>) {
    for expected in [Seen::First, Seen::Duplicate, Seen::Duplicate] {
        let (tx, seen) = apply(&pool, "billing", "m").await.unwrap();
        D::commit(tx).await.unwrap();
        // Here the consumer dies: its acknowledgement is never sent.
        assert_eq!(seen, expected);
    }
    assert_eq!(D::effects(&pool, "m").await, 1);
}

async fn two_consumers_each_apply_a_message_once<D: TestDb>(pool: Pool<D>) {
    for consumer in ["billing", "shipping", "billing", "shipping"] {
        let (tx, _) = apply(&pool, consumer, "m").await.unwrap();
        D::commit(tx).await.unwrap();
    }
    assert_eq!(D::effects(&pool, "m").await, 2);
}

async fn copies_at_once_have_one_effect<D: TestDb>(pool: Pool<D>) {
    let copies = (0..8).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            loop {
                match apply(&pool, "billing", "m").await {
                    Ok((tx, _)) => return D::commit(tx).await.unwrap(),
                    // A deadlock's victim, or a writer's place that was not had in time: the broker delivers again.
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
                }
            }
        })
    });
    for copy in join_all(copies).await {
        copy.unwrap();
    }
    assert_eq!(D::effects(&pool, "m").await, 1);
}

async fn poison_is_buried_outside_the_transaction_that_was_rolled_back<D: TestDb>(pool: Pool<D>) {
    for _attempt in 0..3 {
        let (tx, seen) = apply(&pool, "billing", "poison").await.unwrap();
        assert_eq!(seen, Seen::First);
        D::rollback(tx).await;
    }
    for _again in 0..2 {
        let mut tx = D::begin(&pool).await.unwrap();
        Inbox::bury(&mut *tx, "billing", "poison").await.unwrap();
        D::commit(tx).await.unwrap();
    }
    let (tx, seen) = apply(&pool, "billing", "poison").await.unwrap();
    D::rollback(tx).await;
    assert_eq!(
        (seen, D::effects(&pool, "poison").await),
        (Seen::Duplicate, 0)
    );
    // It is among the dead letters of this consumer, and of no other.
    for (consumer, expected) in [("billing", Seen::Duplicate), ("shipping", Seen::First)] {
        let mut tx = D::begin(&pool).await.unwrap();
        let seen = Inbox::once(&mut *tx, dead_letters(consumer), "poison").await;
        assert_eq!(seen.unwrap(), expected);
        D::rollback(tx).await;
    }
}
