//! Attempts that die, and attempts that are taken over and do not know it yet.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use mainstay_idempotency::leased::{Claimed, Completer, Lease, Leases, Work};
use mainstay_idempotency::{Recorded, StripeV1};
use uuid::Uuid;

use super::app::App;
use super::stores::{TestStore, on_each_store};

on_each_store!(
    a_killed_holder_is_taken_over_when_its_lease_is_over,
    a_holder_that_lives_is_not_taken_over,
    whoever_was_taken_over_answers_what_the_key_stands_for,
    whoever_was_taken_over_by_one_that_is_at_work_is_told_later,
    a_completer_answers_for_a_client_that_does_not_come_back
);

const BRIEF: Duration = Duration::from_millis(400);

fn brief<S: TestStore>(store: S) -> App<S> {
    let leases = Leases::new(store).lease_time(BRIEF);
    App::over(leases, &Uuid::new_v4().to_string(), |layer| layer)
}

async fn a_killed_holder_is_taken_over_when_its_lease_is_over<S: TestStore>(store: S) {
    let app = brief(store.clone());
    let leases = Leases::new(store).lease_time(BRIEF);
    let killed = app
        .claimed_elsewhere(&leases, "k", "ok", &Work::default())
        .await;
    assert!(matches!(killed, Claimed::Run(_)), "{killed:?}");
    drop(killed);
    assert_eq!(
        app.post("k", "ok").await.code(),
        "idempotency_key_in_flight"
    );
    assert_eq!(
        app.post("k", "other").await.code(),
        "idempotency_key_reused"
    );
    let answer = app.post_until_settled("k", "ok").await;
    assert_eq!(
        (answer.status, answer.replayed()),
        (StatusCode::CREATED, false)
    );
    assert_eq!((app.runs(), app.effects("ok").await), (1, 1));
}

async fn a_holder_that_lives_is_not_taken_over<S: TestStore>(store: S) {
    let app = brief(store.clone());
    let there = app.beside(Leases::new(store).lease_time(BRIEF), |layer| layer);
    let first = tokio::spawn({
        let app = app.clone();
        async move { app.post("k", "wait").await }
    });
    app.world.entered.notified().await;
    let since = tokio::time::Instant::now();
    while since.elapsed() < 3 * BRIEF {
        let answer = there.post("k", "wait").await;
        assert_eq!(answer.code(), "idempotency_key_in_flight");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    app.world.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::CREATED);
    assert_eq!((there.runs(), app.effects("wait").await), (0, 1));
}

/// Holds `k` in a handler that is then taken over: its lease is ended under it, as if it had been frozen.
async fn taken_over<S: TestStore>(
    app: &App<S>,
    body: &str,
) -> (tokio::task::JoinHandle<crate::app::Answer>, Lease<S>) {
    let held = tokio::spawn({
        let (app, body) = (app.clone(), body.to_owned());
        async move { app.post("k", &body).await }
    });
    app.world.entered.notified().await;
    let leases = Leases::new(app.world.store.clone());
    // A lease of no length is over at once: whoever renews it so has not renewed it.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let holder = app.world.holder.lock().unwrap().clone().unwrap();
        _ = app.world.store.renew(&holder, Duration::ZERO).await;
        let found = app
            .claimed_elsewhere(&leases, "k", body, &Work::default())
            .await;
        if let Claimed::Run(lease) = found {
            return (held, lease);
        }
        assert!(tokio::time::Instant::now() < deadline, "{found:?}");
    }
}

/// Whatever its handler says, and whatever the policy makes of that.
async fn whoever_was_taken_over_answers_what_the_key_stands_for<S: TestStore>(store: S) {
    for body in [
        "! heedless 201",
        "! heedless 422",
        "! heedless 500",
        "! late 201",
    ] {
        for stripe in [false, true] {
            let app = App::with(store.clone(), |layer| {
                if stripe {
                    layer.policy(StripeV1)
                } else {
                    layer
                }
            });
            let (held, lease) = taken_over(&app, body).await;
            lease.complete(answer("theirs")).await.unwrap();
            app.world.gate.add_permits(1);
            let answer = held.await.unwrap();
            assert_eq!(
                (answer.status, answer.replayed(), &answer.body[..]),
                (StatusCode::ACCEPTED, true, &b"theirs"[..]),
                "{body}"
            );
            assert_eq!(app.effects(body).await, 0, "{body}");
        }
    }
}

async fn whoever_was_taken_over_by_one_that_is_at_work_is_told_later<S: TestStore>(store: S) {
    for body in ["! heedless 201", "! heedless 500", "! late 201"] {
        let app = App::new(store.clone());
        let (held, lease) = taken_over(&app, body).await;
        app.world.gate.add_permits(1);
        let answer = held.await.unwrap();
        assert_eq!(answer.code(), "idempotency_key_in_flight", "{body}");
        lease.complete(self::answer("theirs")).await.unwrap();
        assert_eq!(app.post("k", body).await.body, "theirs");
        assert_eq!(app.effects(body).await, 0, "{body}");
    }
}

fn answer(body: &'static str) -> Recorded {
    Recorded {
        status: 202,
        headers: HeaderMap::new(),
        body: body.into(),
    }
}

async fn a_completer_answers_for_a_client_that_does_not_come_back<S: TestStore>(store: S) {
    let handler = format!("pay {}", Uuid::new_v4());
    let leases = Leases::new(store).lease_time(BRIEF);
    let app = App::over(leases.clone(), &Uuid::new_v4().to_string(), |layer| {
        layer.completed_by(handler.as_str())
    });
    // The process goes down with its request, which is at the gate behind its step.
    let call = app.call(crate::app::request(Some("k"), "wait"));
    let abandoned = tokio::spawn({
        let world = std::sync::Arc::clone(&app.world);
        async move {
            tokio::select! {
                _ = call => panic!("the gate is shut"),
                () = world.entered.notified() => {}
            }
        }
    });
    abandoned.await.unwrap();
    let holder = app.world.holder.lock().unwrap().clone().unwrap();
    let completer =
        Completer::new(leases.clone()).on(handler.as_str(), |lease: Lease<S>, input| async move {
            assert_eq!(input, "wait");
            lease.complete(answer("theirs")).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        // Frozen for good: what it renews is over at once.
        app.world
            .store
            .renew(&holder, Duration::ZERO)
            .await
            .unwrap();
        if completer.run_once().await.unwrap() == 1 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "taken up");
    }
    app.world.gate.add_permits(1);
    app.idle().await;
    let replay = app.post("k", "wait").await;
    assert_eq!(
        (replay.replayed(), &replay.body[..]),
        (true, &b"theirs"[..])
    );
    assert_eq!((app.runs(), app.effects("wait").await), (1, 1));
}
