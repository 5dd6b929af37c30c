//! Webhooks are applied once, and acknowledged only when they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;
use mainstay_errors::{Category, Error, Outcome, Problem};
use mainstay_idempotency::webhook::{Received, Secret, Verifier, Webhooks, sign};
use sqlx::Pool;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::db::{TestDb, on_each};

on_each!(
    a_delivery_is_applied_once_however_late_it_comes_again,
    what_is_not_signed_is_not_applied,
    two_sources_may_use_one_id,
    an_effect_that_fails_runs_again,
    an_effect_that_panics_runs_again,
    an_effect_that_keeps_its_transaction_runs_again,
    an_effect_that_takes_too_long_is_rolled_back,
    a_delivery_in_progress_is_not_acknowledged,
    a_sender_that_hangs_up_does_not_stop_the_effect
);

struct Sender {
    secret: Secret,
    verifier: Verifier,
}

const BODY: &[u8] = b"{}";

fn sender() -> Sender {
    let secret = Secret::generate();
    Sender {
        verifier: Verifier::new(secret.clone()),
        secret,
    }
}

fn at(hours: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_hours(hours)
}

impl Sender {
    fn delivery(&self, id: &str, hours: u64) -> HeaderMap {
        sign(&self.secret, id, at(hours), BODY).unwrap()
    }

    async fn deliver<D: TestDb>(
        &self,
        webhooks: &Webhooks<D>,
        id: &str,
        hours: u64,
    ) -> Result<Received<&'static str>, Error> {
        webhooks
            .receive(
                &self.verifier,
                "provider",
                &self.delivery(id, hours),
                BODY.into(),
                at(hours),
                |mut tx, delivery| async move {
                    D::effect(&mut tx, &delivery.id)
                        .await
                        .map_err(Error::internal)?;
                    Ok::<_, Error>("applied")
                },
            )
            .await
    }
}

async fn a_delivery_is_applied_once_however_late_it_comes_again<D: TestDb>(pool: Pool<D>) {
    let (sender, commits) = (sender(), Arc::new(AtomicUsize::new(0)));
    let webhooks = Webhooks::new(pool.clone()).on_commit({
        let commits = Arc::clone(&commits);
        move || _ = commits.fetch_add(1, Ordering::SeqCst)
    });
    assert_eq!(
        sender.deliver(&webhooks, "msg_1", 0).await.unwrap(),
        Received::First("applied")
    );
    for hours in [0, 1, 76] {
        assert_eq!(
            sender.deliver(&webhooks, "msg_1", hours).await.unwrap(),
            Received::Duplicate,
            "after {hours} hours"
        );
    }
    assert_eq!(
        (
            D::effects(&pool, "msg_1").await,
            commits.load(Ordering::SeqCst)
        ),
        (1, 1)
    );
}

async fn what_is_not_signed_is_not_applied<D: TestDb>(pool: Pool<D>) {
    let (sender, webhooks) = (sender(), Webhooks::new(pool.clone()));
    let good = sender.delivery("msg_1", 0);
    let mut unsigned = good.clone();
    unsigned.remove("webhook-signature");
    let stranger = self::sender().delivery("msg_1", 0);
    for (headers, body, now, status) in [
        (&unsigned, BODY, at(0), 401),
        (&stranger, BODY, at(0), 401),
        (&good, b"{ }", at(0), 401),
        (&good, BODY, at(1), 401),
    ] {
        let received = webhooks
            .receive(
                &sender.verifier,
                "provider",
                headers,
                Bytes::from_static(body),
                now,
                |_tx, _| async { Ok::<_, Error>(()) },
            )
            .await;
        assert_eq!(Problem::from(received.unwrap_err()).status(), status);
    }
    assert_eq!(
        sender.deliver(&webhooks, "msg_1", 0).await.unwrap(),
        Received::First("applied")
    );
}

async fn two_sources_may_use_one_id<D: TestDb>(pool: Pool<D>) {
    let (sender, webhooks) = (sender(), Webhooks::new(pool));
    for source in ["one", "two", "One", "one "] {
        let received = webhooks
            .receive(
                &sender.verifier,
                source,
                &sender.delivery("msg_1", 0),
                BODY.into(),
                at(0),
                |_tx, _| async { Ok::<_, Error>(()) },
            )
            .await;
        assert_eq!(received.unwrap(), Received::First(()), "{source:?}");
    }
}

async fn an_effect_that_fails_runs_again<D: TestDb>(pool: Pool<D>) {
    let (sender, webhooks) = (sender(), Webhooks::new(pool.clone()));
    let failed = webhooks
        .receive(
            &sender.verifier,
            "provider",
            &sender.delivery("msg_1", 0),
            BODY.into(),
            at(0),
            |mut tx, delivery| async move {
                D::effect(&mut tx, &delivery.id)
                    .await
                    .map_err(Error::internal)?;
                Err::<(), _>(Problem::new(Category::Unavailable, "not_now"))
            },
        )
        .await;
    assert_eq!(failed.unwrap_err().code(), "not_now");
    assert_eq!(D::effects(&pool, "msg_1").await, 0);
    assert_eq!(
        sender.deliver(&webhooks, "msg_1", 0).await.unwrap(),
        Received::First("applied")
    );
    assert_eq!(D::effects(&pool, "msg_1").await, 1);
}

async fn an_effect_that_panics_runs_again<D: TestDb>(pool: Pool<D>) {
    let (sender, webhooks) = (sender(), Webhooks::new(pool.clone()));
    let panicked = tokio::spawn({
        let (webhooks, verifier, headers) = (
            webhooks.clone(),
            sender.verifier.clone(),
            sender.delivery("msg_1", 0),
        );
        async move {
            webhooks
                .receive(
                    &verifier,
                    "provider",
                    &headers,
                    BODY.into(),
                    at(0),
                    |mut tx, delivery| async move {
                        D::effect(&mut tx, &delivery.id).await.unwrap();
                        if delivery.body == BODY {
                            panic!("as asked");
                        }
                        Ok::<_, Error>(())
                    },
                )
                .await
        }
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(
        until_applied(&sender, &webhooks).await,
        Received::First("applied")
    );
    assert_eq!(D::effects(&pool, "msg_1").await, 1);
}

async fn an_effect_that_keeps_its_transaction_runs_again<D: TestDb>(pool: Pool<D>) {
    let (sender, webhooks) = (sender(), Webhooks::new(pool.clone()));
    let kept = Arc::new(std::sync::Mutex::new(None));
    let received = webhooks
        .receive(
            &sender.verifier,
            "provider",
            &sender.delivery("msg_1", 0),
            BODY.into(),
            at(0),
            {
                let kept = Arc::clone(&kept);
                |mut tx, delivery| async move {
                    D::effect(&mut tx, &delivery.id)
                        .await
                        .map_err(Error::internal)?;
                    *kept.lock().unwrap() = Some(tx);
                    Ok::<_, Error>(())
                }
            },
        )
        .await;
    assert_eq!(Problem::from(received.unwrap_err()).status(), 500);
    drop(kept.lock().unwrap().take());
    assert_eq!(
        until_applied(&sender, &webhooks).await,
        Received::First("applied")
    );
    assert_eq!(D::effects(&pool, "msg_1").await, 1);
}

/// A drop's rollback is on its way for a moment, in which the delivery still looks in flight.
async fn until_applied<D: TestDb>(
    sender: &Sender,
    webhooks: &Webhooks<D>,
) -> Received<&'static str> {
    for _ in 0..1000 {
        match sender.deliver(webhooks, "msg_1", 0).await {
            Ok(received) => return received,
            Err(error) => assert!(
                ["webhook_in_flight", "idempotency_store_busy"].contains(&error.code()),
                "{error:?}"
            ),
        }
        tokio::task::yield_now().await;
    }
    panic!("the rollback never came");
}

async fn an_effect_that_takes_too_long_is_rolled_back<D: TestDb>(pool: Pool<D>) {
    let sender = sender();
    let webhooks = Webhooks::new(pool.clone()).effect_time_max(Duration::from_millis(50));
    let headers = sender.delivery("msg_1", 0);
    let slow = webhooks.receive(
        &sender.verifier,
        "provider",
        &headers,
        BODY.into(),
        at(0),
        |mut tx, delivery| async move {
            D::effect(&mut tx, &delivery.id)
                .await
                .map_err(Error::internal)?;
            std::future::pending::<Result<(), Error>>().await
        },
    );
    let given_up = timeout(Duration::from_secs(5), slow).await.unwrap();
    let problem = Problem::from(given_up.unwrap_err());
    assert_eq!((problem.status(), problem.code()), (504, "webhook_timeout"));
    assert_eq!(problem.outcome(), Outcome::NotApplied);
    assert_eq!(D::effects(&pool, "msg_1").await, 0);
    let webhooks = Webhooks::new(pool.clone());
    assert_eq!(
        sender.deliver(&webhooks, "msg_1", 0).await.unwrap(),
        Received::First("applied")
    );
}

async fn a_delivery_in_progress_is_not_acknowledged<D: TestDb>(pool: Pool<D>) {
    let (sender, webhooks) = (sender(), Webhooks::new(pool.clone()));
    let (entered, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let first = tokio::spawn({
        let (webhooks, verifier, headers) = (
            webhooks.clone(),
            sender.verifier.clone(),
            sender.delivery("msg_1", 0),
        );
        let (entered, gate) = (Arc::clone(&entered), Arc::clone(&gate));
        async move {
            webhooks
                .receive(
                    &verifier,
                    "provider",
                    &headers,
                    BODY.into(),
                    at(0),
                    |mut tx, delivery| async move {
                        D::effect(&mut tx, &delivery.id)
                            .await
                            .map_err(Error::internal)?;
                        entered.notify_one();
                        gate.acquire().await.unwrap().forget();
                        Ok::<_, Error>(())
                    },
                )
                .await
        }
    });
    entered.notified().await;
    let problem = Problem::from(sender.deliver(&webhooks, "msg_1", 0).await.unwrap_err());
    assert!([409, 503].contains(&problem.status()));
    assert_eq!(problem.retry_after(), Some(Duration::from_secs(1)));
    gate.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap(), Received::First(()));
    assert_eq!(
        sender.deliver(&webhooks, "msg_1", 0).await.unwrap(),
        Received::Duplicate
    );
    assert_eq!(D::effects(&pool, "msg_1").await, 1);
}

async fn a_sender_that_hangs_up_does_not_stop_the_effect<D: TestDb>(pool: Pool<D>) {
    let tracker = TaskTracker::new();
    let (sender, webhooks) = (
        sender(),
        Webhooks::new(pool.clone()).tracker(tracker.clone()),
    );
    tokio::select! {
        biased;
        _ = sender.deliver(&webhooks, "msg_1", 0) => panic!("it takes more than one poll"),
        () = std::future::ready(()) => {}
    }
    tracker.close();
    tracker.wait().await;
    assert_eq!(
        sender.deliver(&webhooks, "msg_1", 0).await.unwrap(),
        Received::Duplicate
    );
    assert_eq!(D::effects(&pool, "msg_1").await, 1);
}
