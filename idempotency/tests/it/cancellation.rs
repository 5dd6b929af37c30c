//! The caller leaves at every possible moment.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http::StatusCode;
use sqlx::Pool;

use crate::app::{App, request};
use crate::db::{TestDb, on_each};

on_each!(
    dropped_at_every_poll_a_keyed_request_is_done_or_never_was,
    dropped_at_every_poll_a_request_without_a_key_leaves_no_half,
    a_client_that_left_does_not_stop_the_commit
);

/// Gives up after so many polls, and drops what it polled.
struct DropAfter<F> {
    future: Option<Pin<Box<F>>>,
    polls: usize,
}

impl<F: Future> Future for DropAfter<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            self.future = None;
            return Poll::Ready(None);
        }
        self.polls -= 1;
        let Some(future) = &mut self.future else {
            return Poll::Ready(None);
        };
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.polls == 0 => {
                self.future = None;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

fn drop_after<F: Future>(polls: usize, future: F) -> DropAfter<F> {
    DropAfter {
        future: Some(Box::pin(future)),
        polls,
    }
}

async fn dropped_at_every_poll_a_keyed_request_is_done_or_never_was<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
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
            "after {polls} polls: the record and the effect go together"
        );
        assert_eq!(app.effects(&body).await, 1, "after {polls} polls");
        if answer.is_some() {
            assert!(polls > 1, "the future was dropped at least once");
            return;
        }
    }
}

async fn dropped_at_every_poll_a_request_without_a_key_leaves_no_half<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| layer.required(false));
    for polls in 0.. {
        let body = format!("ok {polls}");
        let answer = drop_after(polls, app.call(request(None, &body))).await;
        app.idle().await;
        // A begin or a rollback that is still on its way in another task must not be in ours.
        assert_eq!(
            settled(&app).await,
            StatusCode::CREATED,
            "after {polls} polls the pool is sound"
        );
        let effects = app.effects(&body).await;
        assert!(
            effects == 0 || effects == 1,
            "{effects} effects after {polls} polls"
        );
        if answer.is_some() {
            assert_eq!(effects, 1);
            assert!(polls > 1, "the future was dropped at least once");
            return;
        }
    }
}

async fn settled<D: TestDb>(app: &App<D>) -> StatusCode {
    for _ in 0..50 {
        let status = app.send(request(None, "probe")).await.status;
        if status != StatusCode::SERVICE_UNAVAILABLE {
            return status;
        }
    }
    StatusCode::SERVICE_UNAVAILABLE
}

async fn a_client_that_left_does_not_stop_the_commit<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
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
    assert_eq!(
        (app.runs(), app.effects("wait").await, app.commits()),
        (1, 1, 1)
    );
}
