//! The caller leaves at every possible moment.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt;
use http::StatusCode;
use mainstay_errors::Error;
use mainstay_idempotency::leased::{Claimed, LeasedDb, Leases, Work};
use mainstay_idempotency::store::Claim;
use mainstay_idempotency::webhook::{Received, Secret, Verifier, Webhooks, sign};
use mainstay_idempotency::{
    Fingerprint, IdemTx, IdempotencyLayer, Inbox, Jobs, Key, Ran, Scope, Seen, Wait, migrate, reap,
    reap_inbox,
};
use sqlx::{MySql, Pool, Postgres, Sqlite};
use tokio_util::task::TaskTracker;

use crate::app::{App, request};
use crate::db::{TestDb, on_each};

on_each!(
    a_connection_left_in_a_transaction_is_found,
    dropped_at_every_poll_a_keyed_request_is_done_or_never_was,
    dropped_at_every_poll_a_refused_request_is_recorded_or_never_was,
    dropped_at_every_poll_a_duplicate_that_waits_is_forgotten,
    dropped_at_every_poll_a_webhook_is_applied_or_never_was,
    dropped_at_every_poll_a_job_is_done_or_never_was,
    dropped_at_every_poll_a_message_is_as_its_transaction_is,
    dropped_at_every_poll_a_request_without_a_key_leaves_no_half,
    cut_off_in_a_step_that_panics_the_pool_is_sound,
    cut_off_in_a_transaction_that_is_too_late_the_pool_is_sound,
    dropped_at_every_poll_upkeep_goes_on,
    a_client_that_left_does_not_stop_the_commit
);

/// Asks a pooled connection whether it is in a transaction. sqlx believes that it is not.
trait Asked: TestDb {
    fn in_transaction(conn: &mut Self::Connection) -> impl Future<Output = bool> + Send;
}

impl Asked for Postgres {
    /// Outside a transaction each statement has one of its own.
    async fn in_transaction(conn: &mut sqlx::PgConnection) -> bool {
        let mut ids = Vec::new();
        for _ in 0..2 {
            let id = sqlx::query_scalar::<_, String>("select pg_current_xact_id()::text");
            ids.push(id.fetch_one(&mut *conn).await.unwrap());
        }
        ids[0] == ids[1]
    }
}

impl Asked for Sqlite {
    async fn in_transaction(conn: &mut sqlx::SqliteConnection) -> bool {
        let begun = Self::raw(conn, "begin").await.is_ok();
        _ = Self::raw(conn, "rollback").await;
        !begun
    }
}

impl Asked for MySql {
    async fn in_transaction(conn: &mut sqlx::MySqlConnection) -> bool {
        let asked = sqlx::query_scalar("select @@in_transaction = 1");
        asked.fetch_one(conn).await.unwrap()
    }
}

/// What the other tests rest on.
async fn a_connection_left_in_a_transaction_is_found<D: Asked>(pool: Pool<D>) {
    let mut conn = pool.acquire().await.unwrap();
    assert!(!D::in_transaction(&mut conn).await);
    D::raw(&mut conn, "begin").await.unwrap();
    assert!(D::in_transaction(&mut conn).await);
    _ = D::raw(&mut conn, "rollback").await;
    assert!(!D::in_transaction(&mut conn).await);
}

/// Takes every connection that the pool has to give, and asks each.
async fn assert_sound<D: Asked>(pool: &Pool<D>, when: usize) {
    let mut all = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        all.push(pool.acquire().await.unwrap());
    }
    for conn in &mut all {
        assert!(
            !D::in_transaction(conn).await,
            "after {when} polls a connection came back inside a transaction"
        );
    }
}

/// Gives up after so many polls, and drops what it polled.
pub struct DropAfter<F> {
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

pub fn drop_after<F: Future>(polls: usize, future: F) -> DropAfter<F> {
    DropAfter {
        future: Some(Box::pin(future)),
        polls,
    }
}

async fn dropped_at_every_poll_a_keyed_request_is_done_or_never_was<D: Asked>(pool: Pool<D>) {
    done_or_never_was(App::new(pool)).await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn dropped_at_every_poll_a_request_that_claims_last_is_done_or_never_was_on_postgres() {
    crate::db::on::<Postgres, _>(|pool| async move {
        done_or_never_was(App::with(pool, IdempotencyLayer::optimistic)).await;
    })
    .await;
}

async fn done_or_never_was<D: Asked>(app: App<D>) {
    for polls in 0.. {
        let (key, body) = (format!("k{polls}"), format!("ok {polls}"));
        let answer = drop_after(polls, app.call(request(Some(&key), &body))).await;
        app.idle().await;
        assert_sound(&app.world.pool, polls).await;
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

/// A refusal is recorded in a second transaction, after the first one's rollback.
async fn dropped_at_every_poll_a_refused_request_is_recorded_or_never_was<D: Asked>(pool: Pool<D>) {
    let app = App::new(pool);
    for polls in 0.. {
        let (key, body) = (format!("k{polls}"), format!("status 422 {polls}"));
        let answer = drop_after(polls, app.call(request(Some(&key), &body))).await;
        app.idle().await;
        assert_sound(&app.world.pool, polls).await;
        let again = app.post(&key, &body).await;
        assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(
            app.post(&key, &body).await.replayed(),
            "after {polls} polls"
        );
        assert_eq!(app.effects(&body).await, 0, "after {polls} polls");
        if answer.is_some() {
            assert!(polls > 1, "the future was dropped at least once");
            return;
        }
    }
}

async fn dropped_at_every_poll_a_duplicate_that_waits_is_forgotten<D: Asked>(pool: Pool<D>) {
    let app = App::with(pool, |layer| layer.wait(Wait::Up(Duration::from_secs(20))));
    for polls in 0..6 {
        let key = format!("k{polls}");
        let first = tokio::spawn({
            let (app, key) = (app.clone(), key.clone());
            async move { app.post(&key, "wait").await }
        });
        app.world.entered.notified().await;
        let gone = drop_after(polls, app.call(request(Some(&key), "wait")));
        let gone = tokio::time::timeout(Duration::from_millis(50), gone).await;
        assert!(!matches!(gone, Ok(Some(_))), "the gate is shut");
        app.world.gate.add_permits(1);
        assert_eq!(first.await.unwrap().status, StatusCode::CREATED);
        assert!(app.post(&key, "wait").await.replayed());
        assert_sound(&app.world.pool, polls).await;
    }
}

async fn dropped_at_every_poll_a_webhook_is_applied_or_never_was<D: Asked>(pool: Pool<D>) {
    let (secret, tracker) = (Secret::generate(), TaskTracker::new());
    let verifier = Verifier::new(secret.clone());
    let webhooks = Webhooks::new(pool.clone()).tracker(tracker.clone());
    let now: SystemTime = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let receive = async |id: &str| {
        let headers = sign(&secret, id, now, b"").unwrap();
        let effect = |mut tx: IdemTx<D>, delivery: mainstay_idempotency::webhook::Delivery| async move {
            let effect = D::effect(&mut tx, &delivery.id).await;
            effect.map_err(Error::internal)
        };
        webhooks
            .receive(&verifier, "provider", &headers, Bytes::new(), now, effect)
            .await
            .unwrap()
    };
    for polls in 0.. {
        let id = format!("msg_{polls}");
        let received = drop_after(polls, receive(&id)).await;
        tracker.close();
        tracker.wait().await;
        tracker.reopen();
        assert_sound(&pool, polls).await;
        let before = D::effects(&pool, &id).await;
        let again = receive(&id).await;
        assert_eq!(
            again == Received::Duplicate,
            before == 1,
            "after {polls} polls"
        );
        assert_eq!(D::effects(&pool, &id).await, 1, "after {polls} polls");
        if received.is_some() {
            assert!(polls > 1, "the future was dropped at least once");
            return;
        }
    }
}

async fn dropped_at_every_poll_a_job_is_done_or_never_was<D: Asked>(pool: Pool<D>) {
    let tracker = TaskTracker::new();
    let jobs = Jobs::new(pool.clone(), "jobs").tracker(tracker.clone());
    let run = async |name: String| {
        let key = Key::new(&name).unwrap();
        jobs.run(&key, "", async move |mut tx| {
            let effect = D::effect(&mut tx, &name).await;
            effect.map_err(Error::internal)
        })
        .await
        .unwrap()
    };
    for polls in 0.. {
        let name = format!("job {polls}");
        let ran = drop_after(polls, run(name.clone())).await;
        tracker.close();
        tracker.wait().await;
        tracker.reopen();
        assert_sound(&pool, polls).await;
        let before = D::effects(&pool, &name).await;
        let again = run(name.clone()).await;
        assert_eq!(again == Ran::Before(()), before == 1, "after {polls} polls");
        assert_eq!(D::effects(&pool, &name).await, 1, "after {polls} polls");
        if ran.is_some() {
            assert!(polls > 1, "the future was dropped at least once");
            return;
        }
    }
}

/// The transaction is the consumer's own: what `once` left undone goes with its rollback. sqlx's connections to MySQL do
/// not survive a statement that is dropped half way: with a mere rollback this hung or panicked there, now and then.
async fn dropped_at_every_poll_a_message_is_as_its_transaction_is<D: Asked>(pool: Pool<D>) {
    for polls in 0.. {
        let message = format!("m{polls}");
        let mut tx = D::begin(&pool).await.unwrap();
        let seen = drop_after(polls, Inbox::once(&mut *tx, "consumer", &message)).await;
        D::rollback_cut_off(&pool, tx).await;
        assert_sound(&pool, polls).await;
        let mut tx = D::begin(&pool).await.unwrap();
        let again = Inbox::once(&mut *tx, "consumer", &message).await.unwrap();
        D::rollback(tx).await;
        assert_eq!(again, Seen::First, "after {polls} polls");
        if seen.is_some() {
            assert!(polls > 0, "the future was dropped at least once");
            return;
        }
    }
}

async fn cut_off_in_a_step_that_panics_the_pool_is_sound<D: Asked + LeasedDb>(pool: Pool<D>) {
    for polls in 0..8 {
        let claim = Claim {
            scope: Scope::new("t", "", "cut off"),
            key: Key::new(format!("k{polls}")).unwrap(),
            fingerprint: Fingerprint::new("POST", "/", ""),
        };
        let leases = Leases::new(pool.clone());
        let claimed = leases.claim(&claim, &Work::default()).await;
        let Claimed::Run(mut lease) = claimed.unwrap() else {
            panic!("new");
        };
        let step = lease.step(
            "step",
            async move |mut tx: IdemTx<D>, _| -> Result<(), Error> {
                drop_after(polls, D::effect(&mut tx, "cut off")).await;
                panic!("cut off after {polls} polls");
            },
        );
        assert!(AssertUnwindSafe(step).catch_unwind().await.is_err());
        lease.release().await.unwrap();
        assert_sound(&pool, polls).await;
        assert_eq!(D::effects(&pool, "cut off").await, 0, "after {polls} polls");
    }
}

async fn cut_off_in_a_transaction_that_is_too_late_the_pool_is_sound<D: Asked>(pool: Pool<D>) {
    let jobs = Jobs::new(pool.clone(), "too late");
    for polls in 0..8 {
        let (away, kept) = tokio::sync::oneshot::channel();
        let key = Key::new(format!("k{polls}")).unwrap();
        let ran = jobs.run(&key, "", async move |tx| {
            _ = away.send(tx);
            Ok::<_, Error>(())
        });
        assert!(ran.await.is_err(), "a job must give its transaction back");
        let mut tx: IdemTx<D> = kept.await.unwrap();
        drop_after(polls, D::effect(&mut tx, "too late")).await;
        drop(tx);
        assert_sound(&pool, polls).await;
        assert_eq!(
            D::effects(&pool, "too late").await,
            0,
            "after {polls} polls"
        );
    }
}

/// What [`IdemTx`] says of a handler's own timeout. Not on MySQL: there, it says, the transaction must end.
async fn cut_off_by_its_own_handler_the_transaction_goes_on<D: Asked>(pool: Pool<D>) {
    for polls in 0.. {
        let names = [format!("cut off {polls}"), format!("after {polls}")];
        // A connection that has not prepared the statement yet.
        let fresh = Pool::<D>::connect_with((*pool.connect_options()).clone());
        let fresh = fresh.await.unwrap();
        let mut tx = D::begin(&fresh).await.unwrap();
        let cut_off = drop_after(polls, D::effect(&mut tx, &names[0])).await;
        D::effect(&mut tx, &names[1]).await.unwrap();
        D::commit(tx).await.unwrap();
        fresh.close().await;
        assert_eq!(D::effects(&pool, &names[1]).await, 1, "after {polls} polls");
        assert!(
            D::effects(&pool, &names[0]).await <= 1,
            "after {polls} polls"
        );
        if cut_off.is_some() {
            assert!(polls > 0, "the future was dropped at least once");
            return;
        }
    }
}

#[tokio::test]
async fn cut_off_by_its_own_handler_the_transaction_goes_on_on_sqlite() {
    crate::db::on::<Sqlite, _>(cut_off_by_its_own_handler_the_transaction_goes_on).await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn cut_off_by_its_own_handler_the_transaction_goes_on_on_postgres() {
    crate::db::on::<Postgres, _>(cut_off_by_its_own_handler_the_transaction_goes_on).await;
}

async fn dropped_at_every_poll_upkeep_goes_on<D: Asked>(pool: Pool<D>) {
    let hour = Duration::from_hours(1);
    for polls in 0.. {
        let migrated = drop_after(polls, migrate(&pool)).await;
        let reaped = drop_after(polls, reap(&pool, hour, 10)).await;
        let reaped_inbox = drop_after(polls, reap_inbox(&pool, hour, 10)).await;
        let app = App::new(pool.clone());
        let body = format!("ok {polls}");
        // A writer that is still on its way may have SQLite's one place for a moment.
        let mut answer = app.post(&body.replace(' ', "-"), &body).await;
        while answer.status == StatusCode::SERVICE_UNAVAILABLE {
            answer = app.post(&body.replace(' ', "-"), &body).await;
        }
        assert_eq!(answer.status, StatusCode::CREATED, "after {polls} polls");
        if migrated.is_some() && reaped.is_some() && reaped_inbox.is_some() {
            assert!(polls > 1, "the futures were dropped at least once");
            break;
        }
    }
    assert_sound(&pool, usize::MAX).await;
}

async fn dropped_at_every_poll_a_request_without_a_key_leaves_no_half<D: Asked>(pool: Pool<D>) {
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
        assert_sound(&app.world.pool, polls).await;
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
