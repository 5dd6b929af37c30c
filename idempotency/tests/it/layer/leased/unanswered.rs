//! A store that does what it is told and does not say so, or says nothing, or refuses.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use mainstay_errors::{Error as AnyError, Outcome, Retry};
use mainstay_idempotency::leased::{
    Abandoned, Holder, LeasedStore, Leases, MemoryStore, Retention, Taken, Work,
};
use mainstay_idempotency::store::Claim;
use mainstay_idempotency::{Error, ErrorKind, Key, LentLease, Recorded, Scope};
use tokio::time::Instant;
use uuid::Uuid;

use super::app::App;
use super::stores::{Elsewhere, TestStore};

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fails {
    /// It is done, and its answer is lost.
    Unanswered,
    /// It is lost on its way.
    Lost,
    /// Neither.
    Silent,
    /// The store says that it cannot.
    Refused,
}

/// Memory behind a bad network: the next writes of a kind fail.
#[derive(Clone, Default)]
struct Bad {
    memory: MemoryStore,
    failures: Arc<Mutex<Vec<(&'static str, Fails)>>>,
}

impl Bad {
    /// The next of these, so often.
    fn fail(&self, write: &'static str, how: Fails, times: usize) {
        let failures = std::iter::repeat_n((write, how), times);
        self.failures.lock().unwrap().extend(failures);
    }

    async fn through<T>(
        &self,
        write: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let next = {
            let mut failures = self.failures.lock().unwrap();
            let at = failures.iter().position(|(of, _)| *of == write);
            at.map(|at| failures.remove(at).1)
        };
        match next {
            None => work.await,
            Some(Fails::Unanswered) => {
                work.await?;
                Err(ErrorKind::Unavailable.into())
            }
            Some(Fails::Lost) => Err(ErrorKind::Unavailable.into()),
            Some(Fails::Silent) => pending().await,
            Some(Fails::Refused) => Err(ErrorKind::Database.into()),
        }
    }
}

impl LeasedStore for Bad {
    async fn migrate(&self) -> Result<(), Error> {
        Ok(())
    }
    async fn claim(&self, claim: &Claim, work: &Work, lease: Duration) -> Result<Taken, Error> {
        self.through("claim", self.memory.claim(claim, work, lease))
            .await
    }
    async fn now_ms(&self) -> Result<u64, Error> {
        self.memory.now_ms().await
    }
    async fn exists(&self, scope: &Scope, key: &Key) -> Result<bool, Error> {
        self.memory.exists(scope, key).await
    }
    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<bool, Error> {
        self.through("renew", self.memory.renew(holder, lease))
            .await
    }
    async fn append(&self, holder: &Holder, entry: &[u8], lease: Duration) -> Result<bool, Error> {
        self.through("append", self.memory.append(holder, entry, lease))
            .await
    }
    async fn complete(&self, holder: &Holder, recorded: &Recorded) -> Result<bool, Error> {
        self.through("complete", self.memory.complete(holder, recorded))
            .await
    }
    async fn release(&self, holder: &Holder) -> Result<bool, Error> {
        self.through("release", self.memory.release(holder)).await
    }
    async fn lose(&self, holder: &Holder) -> Result<bool, Error> {
        self.memory.lose(holder).await
    }
    async fn reopen(&self, scope: &Scope, key: &Key) -> Result<bool, Error> {
        self.memory.reopen(scope, key).await
    }
    async fn abandoned(&self, handler: &str, max: u32) -> Result<Vec<Abandoned>, Error> {
        self.memory.abandoned(handler, max).await
    }
    async fn reap(&self, retention: Retention, batch_max: u32) -> Result<u64, Error> {
        self.memory.reap(retention, batch_max).await
    }
}

impl TestStore for Bad {
    async fn pay(
        lease: &mut LentLease<Self>,
        elsewhere: &Elsewhere,
        name: &str,
    ) -> Result<(), AnyError> {
        super::stores::call(lease, elsewhere, name).await
    }

    async fn effects(&self, elsewhere: &Elsewhere, name: &str) -> i64 {
        elsewhere.effects(name)
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

fn app() -> (App<Bad>, Bad) {
    let store = Bad::default();
    let leases = Leases::new(store.clone());
    let tenant = Uuid::new_v4().to_string();
    let app = App::over(leases, &tenant, |layer| layer.resolve_time_max(PATIENCE));
    (app, store)
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_may_be_recorded_is_recorded_again_which_does_nothing_twice() {
    for how in [Fails::Unanswered, Fails::Lost] {
        for times in 1..4 {
            let (app, store) = app();
            store.fail("complete", how, times);
            let answer = app.post("k", "ok").await;
            assert_eq!(
                (answer.status, answer.replayed()),
                (StatusCode::CREATED, false),
                "{how:?}, {times} times"
            );
            assert!(app.post("k", "ok").await.replayed());
            assert_eq!((app.runs(), app.effects("ok").await), (1, 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_say_in_time_leaves_the_outcome_unknown_until_it_is_asked_again() {
    for (how, recorded) in [
        (Fails::Unanswered, true),
        (Fails::Lost, false),
        (Fails::Silent, false),
    ] {
        let (app, store) = app();
        store.fail("complete", how, 100);
        let asked = Instant::now();
        let problem = app.post("k", "ok").await.problem();
        assert_eq!(
            (problem.code(), problem.outcome(), problem.retry()),
            (
                "idempotency_outcome_unknown",
                Outcome::Unknown,
                Retry::SameKeyOnly
            )
        );
        // Recorded twice it is no longer the attempt's own: then the key is read, not told again.
        assert!(asked.elapsed() <= PATIENCE, "{:?}", asked.elapsed());
        store.failures.lock().unwrap().clear();
        tokio::time::sleep(Duration::from_secs(31)).await;
        let again = app.post("k", "ok").await;
        assert_eq!(again.status, StatusCode::CREATED);
        assert_eq!(again.replayed(), recorded, "{how:?}");
        assert_eq!(app.effects("ok").await, 1, "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_store_refuses_is_not_said_to_be_undone_when_a_step_is_done() {
    for (body, code, outcome) in [
        ("ok", "idempotency_outcome_unknown", Outcome::Unknown),
        (
            "! status 201",
            "idempotency_store_failed",
            Outcome::NotApplied,
        ),
    ] {
        let (app, store) = app();
        store.fail("complete", Fails::Refused, 1);
        let problem = app.post("k", body).await.problem();
        assert_eq!((problem.code(), problem.outcome()), (code, outcome));
        let again = app.post("k", body).await;
        assert_eq!(
            (again.status, again.replayed()),
            (StatusCode::CREATED, false)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_not_answered_runs_nothing() {
    for how in [Fails::Unanswered, Fails::Lost, Fails::Silent] {
        let (app, store) = app();
        store.fail("claim", how, 1);
        let problem = app.post("k", "ok").await.problem();
        assert_eq!(
            (problem.code(), problem.outcome()),
            ("idempotency_store_unavailable", Outcome::NotApplied),
            "{how:?}"
        );
        assert_eq!(app.runs(), 0);
        // Claimed by nobody who knows, until that lease is over.
        tokio::time::sleep(Duration::from_secs(31)).await;
        let again = app.post("k", "ok").await;
        assert_eq!(
            (again.status, again.replayed()),
            (StatusCode::CREATED, false)
        );
    }
}

/// Its 503 speaks of one attempt, whatever the policy makes of 503s.
#[tokio::test(start_paused = true)]
async fn a_step_that_is_not_answered_is_not_the_answer_for_good() {
    for how in [Fails::Unanswered, Fails::Lost] {
        let (app, store) = app();
        let stripe = app.beside(Leases::new(store.clone()), |layer| {
            layer.policy(mainstay_idempotency::StripeV1)
        });
        store.fail("append", how, 1);
        let problem = stripe.post("k", "ok").await.problem();
        assert_eq!(problem.outcome(), Outcome::Unknown, "{how:?}");
        let again = stripe.post("k", "ok").await;
        assert_eq!(
            (again.status, again.replayed()),
            (StatusCode::CREATED, false)
        );
        assert_eq!(app.effects("ok").await, 1, "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_given_back_is_free_when_its_lease_is_over() {
    for how in [Fails::Lost, Fails::Silent] {
        let (app, store) = app();
        store.fail("release", how, 1);
        let asked = Instant::now();
        assert_eq!(
            app.post("k", "status 503").await.status,
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert!(asked.elapsed() < PATIENCE);
        let later = app.post("k", "status 503").await;
        assert_eq!(later.code(), "idempotency_key_in_flight");
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(
            app.post("k", "status 503").await.status,
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!((app.runs(), app.effects("status 503").await), (2, 1));
    }
}

/// The store may have the key with the name of who carries it out: then "nothing was done" would not stay true.
#[tokio::test(start_paused = true)]
async fn what_a_completer_may_take_up_is_not_said_to_be_undone() {
    for (write, how, body, status, outcome) in [
        ("claim", Fails::Unanswered, "ok", 503, Outcome::Unknown),
        ("claim", Fails::Silent, "ok", 503, Outcome::Unknown),
        ("claim", Fails::Refused, "ok", 500, Outcome::NotApplied),
        ("release", Fails::Lost, "! forever", 503, Outcome::Unknown),
        ("release", Fails::Silent, "! forever", 503, Outcome::Unknown),
        (
            "release",
            Fails::Lost,
            "! status 429",
            503,
            Outcome::Unknown,
        ),
        ("none", Fails::Lost, "! forever", 504, Outcome::NotApplied),
        ("none", Fails::Lost, "status 429", 503, Outcome::Unknown),
    ] {
        let (plain, store) = app();
        let app = plain.beside(Leases::new(store.clone()), |layer| {
            layer.completed_by("pay")
        });
        store.fail(write, how, 1);
        let problem = app.post("k", body).await.problem();
        assert_eq!(
            (problem.status(), problem.outcome()),
            (status, outcome),
            "{write} {how:?} {body}"
        );
        tokio::time::sleep(Duration::from_secs(31)).await;
        let found = store.abandoned("pay", 10).await.unwrap();
        assert!(
            found.is_empty() || outcome == Outcome::Unknown,
            "a completer does what was said to be undone: {write} {how:?} {body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_not_answered_is_not_the_last() {
    for how in [Fails::Silent, Fails::Lost, Fails::Unanswered] {
        let (plain, store) = app();
        let app = plain.beside(Leases::new(store.clone()), |layer| {
            layer.handler_time_max(Duration::from_secs(300))
        });
        store.fail("renew", how, 1);
        let request = crate::app::request(Some("k"), "! wait");
        let working = tokio::spawn(app.call(request));
        app.world.entered.notified().await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        let other = plain.post("k", "! wait").await;
        assert_eq!(other.code(), "idempotency_key_in_flight", "{how:?}");
        app.world.gate.add_permits(1);
        assert_eq!(working.await.unwrap().status(), StatusCode::CREATED);
    }
}

#[test]
fn a_handler_whose_name_no_store_takes_is_refused_when_the_service_is_built() {
    let named = |bytes: usize| {
        std::panic::catch_unwind(|| {
            let (app, store) = app();
            app.beside(Leases::new(store), |layer| {
                layer.completed_by("h".repeat(bytes))
            });
        })
    };
    assert!(named(255).is_ok());
    assert!(named(256).is_err());
}
