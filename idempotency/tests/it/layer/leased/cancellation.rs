//! The caller leaves at every possible moment.

use std::pin::pin;

use http::StatusCode;

use super::app::App;
use super::stores::{TestStore, on_each_store};
use crate::app::request;
use crate::cancellation::drop_after;

on_each_store!(
    dropped_at_every_poll_a_request_is_done_or_never_was,
    dropped_at_every_poll_a_request_that_fails_goes_on_behind_its_step,
    a_client_that_left_does_not_stop_the_request
);

async fn dropped_at_every_poll_a_request_is_done_or_never_was<S: TestStore>(store: S) {
    let app = App::new(store);
    for polls in 0.. {
        let (key, body) = (format!("k{polls}"), format!("ok {polls}"));
        let answer = drop_after(polls, app.call(request(Some(&key), &body))).await;
        app.idle().await;
        let before = app.effects(&body).await;
        let again = app.post(&key, &body).await;
        assert_eq!(again.status, StatusCode::CREATED, "after {polls} polls");
        assert_eq!(
            again.replayed(),
            before == 1,
            "after {polls} polls: once begun it runs to its end"
        );
        assert_eq!(app.effects(&body).await, 1, "after {polls} polls");
        if answer.is_some() {
            assert!(polls > 1, "the future was dropped at least once");
            return;
        }
    }
}

async fn dropped_at_every_poll_a_request_that_fails_goes_on_behind_its_step<S: TestStore>(
    store: S,
) {
    let app = App::new(store);
    for polls in 0.. {
        let (key, body) = (format!("k{polls}"), format!("status 503 {polls}"));
        let answer = drop_after(polls, app.call(request(Some(&key), &body))).await;
        app.idle().await;
        let runs = app.runs();
        let again = app.post(&key, &body).await;
        assert_eq!(again.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(app.runs(), runs + 1, "after {polls} polls it runs at once");
        assert_eq!(app.effects(&body).await, 1, "after {polls} polls");
        if answer.is_some() {
            assert!(polls > 1, "the future was dropped at least once");
            return;
        }
    }
}

async fn a_client_that_left_does_not_stop_the_request<S: TestStore>(store: S) {
    let app = App::new(store);
    {
        let mut call = pin!(app.call(request(Some("k"), "wait")));
        tokio::select! {
            _ = &mut call => panic!("the gate is shut"),
            () = app.world.entered.notified() => {}
        }
    }
    assert_eq!(
        app.post("k", "wait").await.code(),
        "idempotency_key_in_flight"
    );
    app.world.gate.add_permits(1);
    app.idle().await;
    assert!(app.post("k", "wait").await.replayed());
    assert_eq!((app.runs(), app.effects("wait").await), (1, 1));
}
