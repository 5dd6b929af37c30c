//! Webhooks are applied once, and acknowledged only when they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;
use mainstay_errors::{Category, Error, Outcome, Problem};
use mainstay_idempotency::webhook::{
    Received, STRIPE_REDELIVERS, Secret, StripeSecret, StripeVerifier, Verifier, Webhooks, sign,
};
use mainstay_idempotency::{INBOX_RETENTION, reap_inbox};
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
    a_sender_that_hangs_up_does_not_stop_the_effect,
    stripe_and_standard_webhooks_share_one_engine,
    a_mark_outlives_the_longest_redelivery
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

/// A schedule of redeliveries: five attempts over three days, each signed anew, in its own format.
async fn stripe_and_standard_webhooks_share_one_engine<D: TestDb>(pool: Pool<D>) {
    use hmac::{KeyInit, Mac};
    const TEXT: &str = "whsec_a_secret_of_stripe";
    const EVENT: &str = r#"{"id":"evt_1","type":"charge.succeeded"}"#;
    let secret = StripeSecret::new(TEXT).unwrap();
    let webhooks = Webhooks::new(pool.clone())
        .redelivers("stripe", STRIPE_REDELIVERS)
        .unwrap();
    let verifier = StripeVerifier::new(secret);
    let deliver = async |hours: u64, body: &'static str, source: &str| {
        let seconds = at(hours).duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(TEXT.as_bytes()).unwrap();
        mac.update(format!("{seconds}.{body}").as_bytes());
        let bytes = mac.finalize().into_bytes();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut headers = HeaderMap::new();
        let value = format!("t={seconds},v1={hex}").parse().unwrap();
        headers.insert("stripe-signature", value);
        let effect = |mut tx: mainstay_idempotency::IdemTx<D>,
                      delivery: mainstay_idempotency::webhook::Delivery| async move {
            D::effect(&mut tx, &delivery.id)
                .await
                .map_err(Error::internal)
        };
        webhooks
            .receive(&verifier, source, &headers, body.into(), at(hours), effect)
            .await
    };
    assert_eq!(
        deliver(0, EVENT, "stripe").await.unwrap(),
        Received::First(())
    );
    for hours in [1, 8, 24, 72] {
        assert_eq!(
            deliver(hours, EVENT, "stripe").await.unwrap(),
            Received::Duplicate
        );
    }
    assert_eq!(
        deliver(0, EVENT, "stripe live").await.unwrap(),
        Received::First(())
    );
    let nameless = deliver(0, "{}", "stripe").await.unwrap_err();
    assert_eq!(nameless.code(), "webhook_body_invalid");
    assert_eq!(D::effects(&pool, "evt_1").await, 2);
}

/// 75 h 35 min is how long the schedule goes that Standard Webhooks gives as an example.
async fn a_mark_outlives_the_longest_redelivery<D: TestDb>(pool: Pool<D>) {
    let horizon = Duration::from_mins(75 * 60 + 35);
    let webhooks = Webhooks::new(pool.clone());
    let webhooks = webhooks.redelivers("provider", horizon).unwrap();
    for (retention, time) in [
        (Duration::from_mins(5), horizon),
        (INBOX_RETENTION, INBOX_RETENTION),
        (Duration::ZERO, Duration::ZERO),
    ] {
        let refused = webhooks.clone().retention(retention);
        let refused = refused.redelivers("provider", time).unwrap_err();
        assert_eq!((refused.retention, refused.redelivers), (retention, time));
        assert!(refused.to_string().contains("provider redelivers for"));
    }
    let sender = sender();
    assert_eq!(
        sender.deliver(&webhooks, "msg_1", 0).await.unwrap(),
        Received::First("applied")
    );
    reap_inbox(&pool, INBOX_RETENTION, 100).await.unwrap();
    assert_eq!(
        sender.deliver(&webhooks, "msg_1", 75).await.unwrap(),
        Received::Duplicate
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
