//! Handlers that fail, and stores that do.

use std::time::Duration;

use futures_util::FutureExt;
use http::StatusCode;
use mainstay_errors::{Outcome, Retry};
use sqlx::{Pool, Postgres, Sqlite};
use tokio::time::Instant;

use crate::app::{App, request};
use crate::db::{self, TestDb, on_each};

on_each!(
    a_panic_rolls_everything_back_and_frees_the_key,
    a_failure_rolls_everything_back_and_frees_the_key,
    a_refusal_is_recorded_with_its_effects_rolled_back,
    a_hook_that_panics_does_not_undo_the_commit,
    a_store_that_is_gone_runs_nothing
);

async fn a_panic_rolls_everything_back_and_frees_the_key<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| layer.required(false));
    for key in [Some("k"), None] {
        let panicked = std::panic::AssertUnwindSafe(app.send(request(key, "panic")))
            .catch_unwind()
            .await;
        let message = panicked
            .err()
            .expect("the panic reaches the layers outside");
        assert_eq!(message.downcast_ref::<&str>(), Some(&"as asked"));
    }
    app.idle().await;
    assert_eq!((app.effects("panic").await, app.commits()), (0, 0));
    assert_eq!(
        app.post("k", "ok").await.status,
        StatusCode::CREATED,
        "free, even for another request"
    );
}

async fn a_failure_rolls_everything_back_and_frees_the_key<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
    for run in 1..=3 {
        let answer = app.post("k", "status 500").await;
        assert_eq!(
            (answer.status, answer.replayed(), app.runs()),
            (StatusCode::INTERNAL_SERVER_ERROR, false, run)
        );
    }
    assert_eq!((app.effects("status 500").await, app.commits()), (0, 0));
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
}

async fn a_refusal_is_recorded_with_its_effects_rolled_back<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
    let first = app.post("k", "status 422").await;
    assert_eq!(
        (first.status, first.headers["x-run"].to_str().unwrap()),
        (StatusCode::UNPROCESSABLE_ENTITY, "1")
    );
    assert_eq!((app.effects("status 422").await, app.commits()), (0, 0));
    let again = app.post("k", "status 422").await;
    assert_eq!(
        (again.status, again.replayed(), &again.body),
        (first.status, true, &first.body)
    );
    assert_eq!(app.runs(), 1);
}

async fn a_hook_that_panics_does_not_undo_the_commit<D: TestDb>(pool: Pool<D>) {
    let app = App::with(pool, |layer| {
        layer.required(false).on_commit(|| panic!("the hook"))
    });
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
    let keyless = app.send(request(None, "ok")).await;
    assert_eq!(keyless.status, StatusCode::CREATED);
    assert_eq!(app.effects("ok").await, 2);
}

async fn a_store_that_is_gone_runs_nothing<D: TestDb>(pool: Pool<D>) {
    let (other, home) = D::open().await;
    let app = App::with(other.clone(), |layer| layer.required(false));
    // The tables are missing: a mistake of the operator.
    let answer = app.post("k", "ok").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            "idempotency_store_failed"
        )
    );
    D::close(other, home).await;
    for key in [Some("k"), None] {
        let answer = app.send(request(key, "ok")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "idempotency_store_unavailable"
            )
        );
        assert_eq!(
            (
                answer.problem().outcome(),
                answer.headers["retry-after"].to_str().unwrap()
            ),
            (Outcome::NotApplied, "1")
        );
        assert!(matches!(answer.problem().retry(), Retry::After(_)));
    }
    assert_eq!(app.runs(), 0);
    drop(pool);
}

#[tokio::test]
async fn sqlite_replays_past_a_writer_and_refuses_the_rest() {
    db::on::<Sqlite, _>(|pool| async move {
        let app = App::new(pool.clone());
        assert_eq!(app.post("done", "ok").await.status, StatusCode::CREATED);
        let writer = pool.begin_with("begin immediate").await.unwrap();
        assert!(app.post("done", "ok").await.replayed());
        assert_eq!(
            app.post("done", "other").await.code(),
            "idempotency_key_reused"
        );
        let answer = app.post("new", "ok").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "idempotency_store_busy")
        );
        assert_eq!(answer.problem().outcome(), Outcome::NotApplied);
        writer.rollback().await.unwrap();
        assert_eq!(app.post("new", "ok").await.status, StatusCode::CREATED);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn a_backend_killed_under_the_handler_leaves_nothing_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let app = App::new(pool.clone());
        let cut = tokio::spawn({
            let app = app.clone();
            async move { app.post("k", "wait").await }
        });
        app.world.entered.notified().await;
        let killed: i64 = sqlx::query_scalar(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        assert_eq!(killed, 1);
        app.world.gate.add_permits(1);
        let answer = cut.await.unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "idempotency_store_unavailable"));
        assert_eq!((answer.problem().outcome(), app.effects("wait").await), (Outcome::NotApplied, 0));
        app.world.gate.add_permits(1);
        assert_eq!(app.post("k", "wait").await.status, StatusCode::CREATED);
        assert_eq!(app.effects("wait").await, 1);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs DATABASE_URL_POSTGRES; tests/run provides it"]
async fn a_statement_that_hangs_delays_neither_the_answer_nor_another_key_on_postgres() {
    db::on::<Postgres, _>(|pool| async move {
        let app = App::with(pool.clone(), |layer| {
            layer.handler_time_max(Duration::from_millis(100))
        });
        let asked = Instant::now();
        assert_eq!(
            app.post("k", "slow-statement").await.status,
            StatusCode::GATEWAY_TIMEOUT
        );
        assert_eq!(app.post("other", "ok").await.status, StatusCode::CREATED);
        assert!(
            asked.elapsed() < Duration::from_millis(4000),
            "{:?}",
            asked.elapsed()
        );
        // The key is the hanging statement's until the server has ended it.
        assert_eq!(
            app.post("k", "slow-statement").await.code(),
            "idempotency_key_in_flight"
        );
        app.idle().await;
        assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
        assert_eq!(app.effects("slow-statement").await, 0);
    })
    .await;
}
