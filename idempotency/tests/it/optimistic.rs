//! Keys that are claimed last, with their record: the same promises, while duplicates run.

use std::time::Duration;

use http::StatusCode;
use mainstay_errors::Outcome;
use mainstay_idempotency::store::Claim;
use mainstay_idempotency::{Fingerprint, IdempotencyDb, IdempotencyLayer, Key, Scope, Wait};
use sqlx::{Pool, Postgres};
use uuid::{Builder, Uuid};

use crate::app::{Answer, App};
use crate::db::TestDb;
use crate::lost_commits::{AFTER_COMMIT, BEFORE_COMMIT, through_wire};

/// One test, on a database of its own.
macro_rules! on_postgres {
    ($($name:ident),* $(,)?) => {
        mod postgres {
            $(#[tokio::test] #[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
            async fn $name() { crate::db::on::<sqlx::Postgres, _>(super::$name).await; })*
        }
    };
}

on_postgres!(
    a_duplicate_runs_and_leaves_nothing_but_the_answer,
    another_request_under_the_key_runs_and_leaves_nothing,
    a_duplicate_that_fails_for_what_is_there_has_the_answer,
    an_answer_that_is_to_be_released_is_released,
    a_refusal_is_kept_without_effects,
    a_key_that_is_too_old_leaves_nothing,
    a_transaction_that_was_ended_records_nothing,
    while_another_request_runs_under_the_key_nobody_is_told_that_it_was_reused,
    a_wait_that_the_database_ends_is_told_as_in_flight,
    a_record_of_before_the_days_that_comes_while_its_key_is_waited_for_stands,
    of_two_at_once_one_commits_and_both_have_its_answer,
    of_two_requests_at_once_under_one_key_one_is_refused,
    the_two_ways_to_claim_share_their_keys,
    a_lost_commit_is_read_from_its_key
);

fn app(pool: Pool<Postgres>) -> App<Postgres> {
    App::with(pool, IdempotencyLayer::optimistic)
}

/// What is kept of it.
fn kept(answer: &Answer) -> (StatusCode, &[u8]) {
    (answer.status, &answer.body)
}

async fn a_duplicate_runs_and_leaves_nothing_but_the_answer(pool: Pool<Postgres>) {
    let app = app(pool);
    let first = app.post("k", "ok").await;
    assert_eq!(
        (first.status, first.replayed()),
        (StatusCode::CREATED, false)
    );
    for runs in 2..5 {
        let again = app.post("k", "ok").await;
        assert!(again.replayed());
        assert_eq!(kept(&again), kept(&first));
        assert_eq!(
            (app.runs(), app.effects("ok").await, app.commits()),
            (runs, 1, 1)
        );
    }
}

async fn another_request_under_the_key_runs_and_leaves_nothing(pool: Pool<Postgres>) {
    let app = app(pool);
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
    for other in ["ok other", "status 422", "status 500", "panic"] {
        let refused = app.post("k", other).await;
        assert_eq!(refused.code(), "idempotency_key_reused", "{other}");
        assert_eq!(app.effects(other).await, 0, "{other}");
    }
}

async fn a_duplicate_that_fails_for_what_is_there_has_the_answer(pool: Pool<Postgres>) {
    let app = app(pool);
    for body in ["new", "new panic"] {
        let key = body.replace(' ', "-");
        let first = app.post(&key, body).await;
        assert_eq!(first.status, StatusCode::CREATED);
        for _ in 0..2 {
            let again = app.post(&key, body).await;
            assert!(again.replayed(), "{body}");
            assert_eq!(kept(&again), kept(&first), "{body}");
            assert_eq!(app.effects(body).await, 1, "{body}");
        }
    }
}

async fn an_answer_that_is_to_be_released_is_released(pool: Pool<Postgres>) {
    let app = app(pool);
    for runs in 1..3 {
        let failed = app.post("k", "status 500").await;
        assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!((app.runs(), app.effects("status 500").await), (runs, 0));
    }
}

async fn a_refusal_is_kept_without_effects(pool: Pool<Postgres>) {
    let app = app(pool);
    let first = app.post("k", "status 422").await;
    assert_eq!(first.status, StatusCode::UNPROCESSABLE_ENTITY);
    let again = app.post("k", "status 422").await;
    assert!(again.replayed());
    assert_eq!(kept(&again), kept(&first));
    assert_eq!(app.effects("status 422").await, 0);
}

async fn a_key_that_is_too_old_leaves_nothing(pool: Pool<Postgres>) {
    let retention = Duration::from_hours(24);
    let app = App::with(pool, |layer| layer.optimistic().retention(retention));
    let old = Builder::from_unix_timestamp_millis(1_700_000_000_000, &[7; 10]).into_uuid();
    let refused = app.post(&old.to_string(), "ok").await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::PRECONDITION_FAILED, "idempotency_key_expired")
    );
    assert_eq!((app.effects("ok").await, app.commits()), (0, 0));
    let young = Uuid::now_v7().to_string();
    assert_eq!(app.post(&young, "ok").await.status, StatusCode::CREATED);
    assert!(app.post(&young, "ok").await.replayed());
}

async fn a_transaction_that_was_ended_records_nothing(pool: Pool<Postgres>) {
    let app = app(pool);
    for body in ["raw-rollback", "leak"] {
        let lost = app.post(body, body).await;
        assert_eq!(lost.status, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
        app.world.leaked.lock().unwrap().take();
        assert_eq!((app.effects(body).await, app.commits()), (0, 0), "{body}");
    }
}

async fn until_somebody_waits(pool: &Pool<Postgres>) {
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted \
                   and database = (select oid from pg_database where datname = current_database())";
    while sqlx::query_scalar::<_, i64>(waiting)
        .fetch_one(pool)
        .await
        .unwrap()
        == 0
    {
        tokio::task::yield_now().await;
    }
}

async fn while_another_request_runs_under_the_key_nobody_is_told_that_it_was_reused(
    pool: Pool<Postgres>,
) {
    let app = app(pool);
    assert_eq!(app.post("k", "ok").await.status, StatusCode::CREATED);
    let other = tokio::spawn({
        let app = app.clone();
        async move { app.post("k", "wait").await }
    });
    app.world.entered.notified().await;
    // It is the one that was done: whose the key is, nobody has looked.
    assert_eq!(
        app.post("k", "ok").await.code(),
        "idempotency_key_in_flight"
    );
    app.world.gate.add_permits(1);
    assert_eq!(other.await.unwrap().code(), "idempotency_key_reused");
    assert!(app.post("k", "ok").await.replayed());
}

async fn a_wait_that_the_database_ends_is_told_as_in_flight(pool: Pool<Postgres>) {
    let options = (*pool.connect_options()).clone();
    let impatient = sqlx::postgres::PgPoolOptions::new()
        .connect_with(options.options([("lock_timeout", "100ms")]))
        .await
        .unwrap();
    let (first, last) = (App::new(pool), app(impatient.clone()));
    let running = tokio::spawn({
        let first = first.clone();
        async move { first.post("k", "wait").await }
    });
    first.world.entered.notified().await;
    last.world.gate.add_permits(1);
    let refused = last.post("k", "wait").await;
    assert_eq!(
        (refused.code().as_str(), refused.problem().outcome()),
        ("idempotency_key_in_flight", Outcome::Unknown)
    );
    first.world.gate.add_permits(1);
    assert_eq!(running.await.unwrap().status, StatusCode::CREATED);
    last.world.gate.add_permits(1);
    assert!(last.post("k", "wait").await.replayed());
    assert_eq!(first.effects("wait").await, 1);
    impatient.close().await;
}

/// As a process of before migration 4 does it: under the same locks, into the one table there was.
async fn a_record_of_before_the_days_that_comes_while_its_key_is_waited_for_stands(
    pool: Pool<Postgres>,
) {
    let app = app(pool.clone());
    assert_eq!(
        app.post("some-record", "ok some").await.status,
        StatusCode::CREATED
    );
    let key = Uuid::now_v7().to_string();
    let claim = Claim {
        scope: Scope::new("acme", "", "pay"),
        key: Key::new(&key).unwrap(),
        fingerprint: Fingerprint::new("POST", "/pay", "another body"),
    };
    let long = Duration::from_secs(60);
    let (tx, _) = Postgres::begin_claim(&pool, &claim, long, Wait::No)
        .await
        .unwrap();
    let mut tx = tx.unwrap();
    sqlx::query(
        "insert into mainstay_key (scope, key, fingerprint, status, headers, body) \
         select $1, $2, $3, status, headers, body from mainstay_key",
    )
    .bind(claim.scope.as_bytes())
    .bind(claim.key.as_bytes())
    .bind(claim.fingerprint.as_bytes())
    .execute(&mut *tx)
    .await
    .unwrap();
    let waiting = tokio::spawn({
        let (app, key) = (app.clone(), key.clone());
        async move { app.post(&key, "ok").await }
    });
    until_somebody_waits(&pool).await;
    Postgres::commit(tx).await.unwrap();
    assert_eq!(waiting.await.unwrap().code(), "idempotency_key_reused");
    assert_eq!((app.effects("ok").await, app.commits()), (0, 1));
}

/// Two processes, as far as the layer can tell: what is in flight in one is unknown to the other.
async fn two_at_once(pool: Pool<Postgres>, bodies: [&'static str; 2]) -> [Answer; 2] {
    let apps = [app(pool.clone()), app(pool)];
    let mut running = Vec::new();
    for (app, body) in apps.iter().zip(bodies) {
        running.push(tokio::spawn({
            let app = app.clone();
            async move { app.post("k", body).await }
        }));
        app.world.entered.notified().await;
    }
    for app in &apps {
        app.world.gate.add_permits(1);
    }
    let mut answers = Vec::new();
    for running in running {
        answers.push(running.await.unwrap());
    }
    answers.try_into().unwrap_or_else(|_| unreachable!("two"))
}

async fn of_two_at_once_one_commits_and_both_have_its_answer(pool: Pool<Postgres>) {
    let answers = two_at_once(pool.clone(), ["wait", "wait"]).await;
    assert_eq!(kept(&answers[0]), kept(&answers[1]));
    assert_eq!(answers.iter().filter(|answer| answer.replayed()).count(), 1);
    assert_eq!(Postgres::effects(&pool, "wait").await, 1);
}

async fn of_two_requests_at_once_under_one_key_one_is_refused(pool: Pool<Postgres>) {
    let bodies = ["wait", "wait other"];
    let answers = two_at_once(pool.clone(), bodies).await;
    let mut effects = 0;
    for (answer, body) in answers.iter().zip(bodies) {
        let done = Postgres::effects(&pool, body).await;
        effects += done;
        if done == 1 {
            assert_eq!(answer.status, StatusCode::CREATED);
        } else {
            assert_eq!(answer.code(), "idempotency_key_reused");
        }
    }
    assert_eq!(effects, 1);
}

/// A claim that comes first sees one that came last, and the other way round.
async fn the_two_ways_to_claim_share_their_keys(pool: Pool<Postgres>) {
    let (first, last) = (App::new(pool.clone()), app(pool));
    assert_eq!(last.post("a", "ok").await.status, StatusCode::CREATED);
    assert!(first.post("a", "ok").await.replayed());
    assert_eq!(first.post("b", "ok b").await.status, StatusCode::CREATED);
    assert!(last.post("b", "ok b").await.replayed());

    let running = tokio::spawn({
        let first = first.clone();
        async move { first.post("c", "wait").await }
    });
    first.world.entered.notified().await;
    let waiting = tokio::spawn({
        let last = last.clone();
        async move { last.post("c", "wait").await }
    });
    last.world.entered.notified().await;
    last.world.gate.add_permits(1);
    // It waits with its record for the one that holds the key.
    until_somebody_waits(&first.world.pool).await;
    first.world.gate.add_permits(1);
    let answer = running.await.unwrap();
    assert_eq!(
        (answer.status, answer.replayed()),
        (StatusCode::CREATED, false)
    );
    let waited = waiting.await.unwrap();
    assert!(waited.replayed());
    assert_eq!(kept(&waited), kept(&answer));
    assert_eq!(first.effects("wait").await, 1);
}

async fn a_lost_commit_is_read_from_its_key(pool: Pool<Postgres>) {
    let (wire, wired) = through_wire(&pool).await;
    let app = app(wired.clone());
    wire.set(AFTER_COMMIT);
    let answer = app.post("heard", "ok").await;
    assert_eq!(
        (answer.status, answer.replayed(), app.runs()),
        (StatusCode::CREATED, false, 1)
    );
    assert!(app.post("heard", "ok").await.replayed());
    assert_eq!((app.effects("ok").await, app.commits()), (1, 1));
    wire.set(BEFORE_COMMIT);
    let answer = app.post("lost", "ok lost").await;
    assert_eq!(
        (answer.code().as_str(), answer.problem().outcome()),
        ("idempotency_outcome_unknown", Outcome::Unknown)
    );
    assert_eq!(app.effects("ok lost").await, 0);
    assert_eq!(
        app.post("lost", "ok lost").await.status,
        StatusCode::CREATED
    );
    assert_eq!(app.effects("ok lost").await, 1);
    wired.close().await;
}
