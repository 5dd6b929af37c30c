//! Many requests, one key.

use std::collections::HashMap;

use futures_util::future::join_all;
use http::StatusCode;
use sqlx::Pool;

use crate::app::App;
use crate::db::{TestDb, on_each};

on_each!(
    sixteen_at_once_run_once_in_one_process,
    sixteen_at_once_run_once_across_processes,
    across_processes_a_running_key_is_a_409_for_its_request_and_a_422_for_another,
    when_the_holder_rolls_back_one_other_wins,
    all_who_want_an_answer_that_is_there_get_it,
    different_keys_all_run,
    a_refusal_loses_to_a_winner_that_took_the_key_meanwhile
);

/// Asks until there is an answer other than "later".
async fn answered<D: TestDb>(
    app: &App<D>,
    key: &str,
    body: &str,
) -> (StatusCode, bool, bytes::Bytes) {
    loop {
        let answer = app.post(key, body).await;
        match answer.status {
            StatusCode::CONFLICT => assert_eq!(answer.code(), "idempotency_key_in_flight"),
            // One writer's place: whoever waited for it in vain is told to come again.
            StatusCode::SERVICE_UNAVAILABLE => assert_eq!(answer.code(), "idempotency_store_busy"),
            status => {
                assert!(
                    !answer.body.starts_with(b"{"),
                    "a problem nobody caused: {:?}",
                    answer.body
                );
                return (status, answer.replayed(), answer.body);
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Nobody is told that the key is in flight because somebody else is being answered.
async fn all_who_want_an_answer_that_is_there_get_it<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
    let answers = join_all((0..8).map(|_| {
        let app = app.clone();
        async move { tokio::spawn(async move { app.post("k", "ok").await }).await }
    }));
    for answer in answers.await {
        let answer = answer.unwrap();
        assert_eq!(
            (answer.status, answer.replayed()),
            (StatusCode::CREATED, true)
        );
    }
    assert_eq!(app.runs(), 1);
}

async fn storm<D: TestDb>(apps: &[App<D>], body: &str) {
    let answers = join_all((0..16).map(|n| {
        let (app, body) = (apps[n % apps.len()].clone(), body.to_owned());
        async move {
            tokio::spawn(async move { answered(&app, "k", &body).await })
                .await
                .unwrap()
        }
    }))
    .await;
    let mut by_kind: HashMap<_, usize> = HashMap::new();
    for (status, replayed, body) in answers {
        *by_kind.entry((status, replayed)).or_default() += 1;
        assert_eq!(body, "run 1");
    }
    assert_eq!(
        by_kind,
        HashMap::from([
            ((StatusCode::CREATED, false), 1),
            ((StatusCode::CREATED, true), 15)
        ])
    );
    assert_eq!(
        apps.iter().map(App::runs).sum::<usize>(),
        1,
        "no attempt ran in vain"
    );
    assert_eq!(apps[0].effects(body).await, 1);
}

async fn sixteen_at_once_run_once_in_one_process<D: TestDb>(pool: Pool<D>) {
    storm(&[App::new(pool)], "ok").await;
}

/// Layers that know nothing of each other, as in different processes: only the database stands between them.
async fn sixteen_at_once_run_once_across_processes<D: TestDb>(pool: Pool<D>) {
    let apps: Vec<_> = (0..4).map(|_| App::new(pool.clone())).collect();
    storm(&apps, "ok").await;
}

async fn across_processes_a_running_key_is_a_409_for_its_request_and_a_422_for_another<
    D: TestDb,
>(
    pool: Pool<D>,
) {
    let [here, there] = [App::new(pool.clone()), App::new(pool)];
    let first = tokio::spawn({
        let here = here.clone();
        async move { here.post("k", "wait").await }
    });
    here.world.entered.notified().await;
    for (body, code) in [
        ("wait", "idempotency_key_in_flight"),
        ("other", "idempotency_key_reused"),
    ] {
        // SQLite cannot tell whose writer is in the way.
        let code = if D::NAME == "SQLite" {
            "idempotency_store_busy"
        } else {
            code
        };
        assert_eq!(there.post("k", body).await.code(), code, "{body}");
    }
    here.world.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::CREATED);
    assert!(there.post("k", "wait").await.replayed());
    assert_eq!(
        there.post("k", "other").await.code(),
        "idempotency_key_reused"
    );
}

async fn when_the_holder_rolls_back_one_other_wins<D: TestDb>(pool: Pool<D>) {
    let holder = App::new(pool.clone());
    let failing = tokio::spawn({
        let holder = holder.clone();
        async move {
            // Dropped by its timeout with the effect written.
            App::with(holder.world.pool.clone(), |layer| {
                layer.handler_time_max(std::time::Duration::from_millis(30))
            })
            .post("k", "forever")
            .await
        }
    });
    let others: Vec<_> = (0..4).map(|_| App::new(pool.clone())).collect();
    assert_eq!(failing.await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
    storm(&others, "ok").await;
    assert_eq!(holder.effects("forever").await, 0);
}

async fn different_keys_all_run<D: TestDb>(pool: Pool<D>) {
    let app = App::new(pool);
    let answers = join_all((0..16).map(|n| {
        let app = app.clone();
        async move {
            tokio::spawn(async move { answered(&app, &format!("k{n}"), "ok").await })
                .await
                .unwrap()
        }
    }))
    .await;
    assert!(
        answers
            .iter()
            .all(|(status, replayed, _)| *status == StatusCode::CREATED && !replayed)
    );
    assert_eq!((app.runs(), app.effects("ok").await), (16, 16));
}

/// Between the rollback of a refused attempt and its record the key is free. Whoever has it recorded by then wins.
async fn a_refusal_loses_to_a_winner_that_took_the_key_meanwhile<D: TestDb>(pool: Pool<D>) {
    let apps = [App::new(pool.clone()), App::new(pool)];
    for round in 0..50 {
        let key = format!("k{round}");
        let both = join_all(apps.iter().map(|app| answered(app, &key, "status 422"))).await;
        assert!(
            both.iter()
                .all(|(status, ..)| *status == StatusCode::UNPROCESSABLE_ENTITY)
        );
        assert!(
            both.iter().any(|(_, replayed, _)| *replayed) || both[0].2 == both[1].2,
            "two answers for one key"
        );
        let last = answered(&apps[0], &key, "status 422").await;
        assert!(last.1, "recorded");
        assert!(
            both.iter().all(|(_, _, body)| *body == last.2),
            "everybody was told the same"
        );
    }
    assert_eq!(apps[0].effects("status 422").await, 0);
}
