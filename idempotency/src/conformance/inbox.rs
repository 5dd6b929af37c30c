//! Messages, once per consumer.

use std::time::Duration;

use sqlx::{Pool, Transaction};

use super::keys::{IDLE_MAX, LOOKALIKES};
use crate::store::IdempotencyDb;
use crate::{Error, ErrorKind, Seen};

async fn note<D: IdempotencyDb>(
    pool: &Pool<D>,
    consumer: &str,
    message: &str,
) -> Result<(Transaction<'static, D>, Seen), Error> {
    let mut tx = D::begin(pool).await?;
    let seen = D::inbox_once(&mut tx, consumer.as_bytes(), message.as_bytes()).await?;
    Ok((tx, seen))
}

pub(super) async fn a_message_is_first_once_per_consumer<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    for consumer in ["billing", "shipping"] {
        for expected in [Seen::First, Seen::Duplicate, Seen::Duplicate] {
            let (tx, seen) = note(pool, consumer, "m").await?;
            assert_eq!(seen, expected, "{consumer}");
            D::commit(tx).await?;
        }
        let mut tx = D::begin(pool).await?;
        assert_eq!(
            D::inbox_try(&mut tx, consumer.as_bytes(), b"m", IDLE_MAX).await?,
            Some(Seen::Duplicate)
        );
        assert_eq!(
            D::inbox_try(&mut tx, consumer.as_bytes(), b"n", IDLE_MAX).await?,
            Some(Seen::First)
        );
        D::commit(tx).await?;
    }
    Ok(())
}

pub(super) async fn a_rolled_back_message_is_first_again<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    for expected in [Seen::First, Seen::First] {
        let (tx, seen) = note(pool, "rolled back", "m").await?;
        assert_eq!(seen, expected);
        D::rollback(tx).await;
    }
    Ok(())
}

pub(super) async fn messages_that_look_alike_are_different_messages<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    for name in LOOKALIKES {
        for (consumer, message) in [("alike", *name), (*name, "alike")] {
            let (tx, seen) = note(pool, consumer, message).await?;
            assert_eq!(seen, Seen::First, "{consumer:?} {message:?}");
            D::commit(tx).await?;
        }
    }
    Ok(())
}

pub(super) async fn concurrent_deliveries_apply_one<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    let deliveries: Vec<_> = (0..8)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                loop {
                    match note(&pool, "concurrent", "m").await {
                        Ok((tx, seen)) => return D::commit(tx).await.map(|()| seen),
                        Err(busy) if busy.kind() == ErrorKind::Busy => {
                            tokio::task::yield_now().await;
                        }
                        Err(error) => return Err(error),
                    }
                }
            })
        })
        .collect();
    let mut first = 0;
    for delivery in deliveries {
        let seen = delivery
            .await
            .map_err(|error| Error::new(ErrorKind::Unavailable, error))??;
        first += u32::from(seen == Seen::First);
    }
    assert_eq!(first, 1, "eight deliveries at once");
    Ok(())
}

pub(super) async fn only_old_messages_are_reaped<D: IdempotencyDb>(
    pool: &Pool<D>,
) -> Result<(), Error> {
    let (tx, _) = note(pool, "reap", "m").await?;
    D::commit(tx).await?;
    assert_eq!(
        D::reap_inbox(pool, Duration::from_hours(1), 100).await?,
        0,
        "nothing is an hour old"
    );
    while D::reap_inbox(pool, Duration::ZERO, 5).await? > 0 {}
    loop {
        // The clock may stand where it stood at the insert.
        let (tx, seen) = note(pool, "reap", "m").await?;
        D::rollback(tx).await;
        if seen == Seen::First {
            return Ok(());
        }
        D::reap_inbox(pool, Duration::ZERO, 5).await?;
    }
}
