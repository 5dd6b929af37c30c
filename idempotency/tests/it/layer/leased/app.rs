//! A service whose handler works in a step and does what the request's body says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use mainstay_errors::{Category, Error, Problem};
use mainstay_idempotency::leased::{Claimed, Holder, Leases, Remote, Work};
use mainstay_idempotency::store::Claim;
use mainstay_idempotency::{Fingerprint, IdempotencyLayer, Key, LentLease, Scope, Scoped};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use uuid::Uuid;

use super::stores::{Elsewhere, TestStore};
use crate::app::{Answer, request};

pub struct World<S: TestStore> {
    pub store: S,
    pub elsewhere: Elsewhere,
    pub tenant: String,
    pub runs: AtomicUsize,
    pub commits: AtomicUsize,
    /// Told when a handler is about to wait at the gate.
    pub entered: Notify,
    pub gate: Semaphore,
    pub leaked: Mutex<Option<LentLease<S>>>,
    /// The hold of the last handler that was lent one.
    pub holder: Mutex<Option<Holder>>,
    pub tracker: TaskTracker,
}

pub struct App<S: TestStore> {
    pub world: Arc<World<S>>,
    router: Router,
}

type Layer<S> = IdempotencyLayer<Leases<S>, Scoped>;

impl<S: TestStore> App<S> {
    pub fn new(store: S) -> Self {
        Self::with(store, |layer| layer)
    }

    pub fn with(store: S, edit: impl FnOnce(Layer<S>) -> Layer<S>) -> Self {
        Self::over(Leases::new(store), &Uuid::new_v4().to_string(), edit)
    }

    /// As another process over the same keys and the same remote would be.
    pub fn beside(&self, leases: Leases<S>, edit: impl FnOnce(Layer<S>) -> Layer<S>) -> Self {
        let elsewhere = self.world.elsewhere.clone();
        Self::made(leases, &self.world.tenant, elsewhere, edit)
    }

    pub fn over(leases: Leases<S>, tenant: &str, edit: impl FnOnce(Layer<S>) -> Layer<S>) -> Self {
        Self::made(leases, tenant, Elsewhere::default(), edit)
    }

    fn made(
        leases: Leases<S>,
        tenant: &str,
        elsewhere: Elsewhere,
        edit: impl FnOnce(Layer<S>) -> Layer<S>,
    ) -> Self {
        let world = Arc::new(World {
            store: leases.store().clone(),
            elsewhere,
            tenant: tenant.to_owned(),
            runs: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            entered: Notify::new(),
            gate: Semaphore::new(0),
            leaked: Mutex::new(None),
            holder: Mutex::new(None),
            tracker: TaskTracker::new(),
        });
        let layer = IdempotencyLayer::leased(leases)
            .scope(scope)
            .tracker(world.tracker.clone())
            .on_commit({
                let world = Arc::clone(&world);
                move || _ = world.commits.fetch_add(1, Ordering::SeqCst)
            });
        let router = Router::new()
            .route("/pay", any(pay::<S>))
            .route("/bare", post(bare::<S>))
            .route("/maybe", post(maybe::<S>))
            .route("/twice", post(twice::<S>))
            .layer(edit(layer))
            .with_state(Arc::clone(&world));
        Self { world, router }
    }

    pub async fn post(&self, key: &str, body: &str) -> Answer {
        self.send(request(Some(key), body)).await
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.call(request).await;
        let (head, body) = response.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    /// The service's future itself, to be dropped half way. The tenant is this app's own, unless there is none.
    pub fn call(&self, mut request: Request<Body>) -> impl Future<Output = Response> + use<S> {
        if let Some(tenant) = request.headers_mut().get_mut("x-tenant")
            && tenant == "acme"
        {
            *tenant = HeaderValue::from_str(&self.world.tenant).unwrap();
        }
        let router = self.router.clone();
        async move { router.oneshot(request).await.unwrap() }
    }

    /// Asks until the key is no longer in flight.
    pub async fn post_until_settled(&self, key: &str, body: &str) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.post(key, body).await;
            if !matches!(answer.status.as_u16(), 409 | 503) {
                return answer;
            }
            let code = answer.code();
            assert!(Instant::now() < deadline, "still {code}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The request that `post` sends, as an attempt in another process that is about to die claims it.
    pub async fn claimed_elsewhere(
        &self,
        leases: &Leases<S>,
        key: &str,
        body: &str,
        work: &Work,
    ) -> Claimed<S> {
        let claim = Claim {
            scope: Scope::new(&self.world.tenant, "", "pay"),
            key: Key::new(key).unwrap(),
            fingerprint: Fingerprint::new("POST", "/pay", body),
        };
        leases.claim(&claim, work).await.unwrap()
    }

    /// `None` when the handler panicked, and its panic came through.
    pub async fn post_or_panic(&self, key: &str, body: &str) -> Option<Answer> {
        let (app, key, body) = (self.clone(), key.to_owned(), body.to_owned());
        match tokio::spawn(async move { app.post(&key, &body).await }).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                assert!(error.is_panic());
                None
            }
        }
    }

    pub fn runs(&self) -> usize {
        self.world.runs.load(Ordering::SeqCst)
    }

    pub fn commits(&self) -> usize {
        self.world.commits.load(Ordering::SeqCst)
    }

    pub async fn effects(&self, body: &str) -> i64 {
        let world = &self.world;
        world.store.effects(&world.elsewhere, body).await
    }

    pub async fn idle(&self) {
        self.world.tracker.close();
        self.world.tracker.wait().await;
        self.world.tracker.reopen();
    }
}

impl<S: TestStore> Clone for App<S> {
    fn clone(&self) -> Self {
        Self {
            world: Arc::clone(&self.world),
            router: self.router.clone(),
        }
    }
}

fn scope(parts: &Parts) -> Result<Scope, Problem> {
    let tenant = parts
        .headers
        .get("x-tenant")
        .ok_or_else(|| Problem::new(Category::Unauthenticated, "who_are_you"))?;
    Ok(Scope::new(tenant.as_bytes(), "", "pay"))
}

/// Pays in a step, unless the body begins with a `!`.
async fn pay<S: TestStore>(
    State(world): State<Arc<World<S>>>,
    mut lease: LentLease<S>,
    body: String,
) -> Result<Response, Error> {
    world.runs.fetch_add(1, Ordering::SeqCst);
    *world.holder.lock().unwrap() = Some(lease.holder().clone());
    let mut words = body.split_whitespace().peekable();
    if words.next_if_eq(&"!").is_none() {
        S::pay(&mut lease, &world.elsewhere, &body).await?;
    }
    match words.next().unwrap_or_default() {
        "late" => {
            at_the_gate(&world).await;
            S::pay(&mut lease, &world.elsewhere, &body).await?;
        }
        // As if nothing had happened to its lease.
        "heedless" => {
            at_the_gate(&world).await;
            _ = S::pay(&mut lease, &world.elsewhere, &body).await;
        }
        "mail" => {
            let sent = lease.call("mail", Remote::ActsAgain, async |_| {
                world.elsewhere.act("sent");
                Err::<(), _>(Error::from(Problem::new(
                    Category::Unavailable,
                    "no_answer",
                )))
            });
            sent.await?;
        }
        "leak" => *world.leaked.lock().unwrap() = Some(lease),
        _ => {}
    }
    Ok(act(&world, &body).await)
}

async fn bare<S: TestStore>(State(world): State<Arc<World<S>>>, body: String) -> Response {
    world.runs.fetch_add(1, Ordering::SeqCst);
    act(&world, &body).await
}

async fn maybe<S: TestStore>(lease: Option<LentLease<S>>) -> &'static str {
    match lease {
        Some(_) => "a lease",
        None => "none",
    }
}

async fn twice<S: TestStore>(_lease: LentLease<S>, _again: LentLease<S>) -> &'static str {
    "unreachable"
}

async fn at_the_gate<S: TestStore>(world: &World<S>) {
    world.entered.notify_one();
    world.gate.acquire().await.unwrap().forget();
}

async fn act<S: TestStore>(world: &World<S>, body: &str) -> Response {
    let mut words = body.split_whitespace().peekable();
    _ = words.next_if_eq(&"!");
    let run = world.runs.load(Ordering::SeqCst);
    match words.next().unwrap_or_default() {
        "wait" => {
            at_the_gate(world).await;
            (StatusCode::CREATED, format!("run {run}")).into_response()
        }
        "status" | "late" | "heedless" => {
            let status: u16 = words.next().unwrap().parse().unwrap();
            (
                StatusCode::from_u16(status).unwrap(),
                [("x-run", run.to_string())],
                format!("run {run}"),
            )
                .into_response()
        }
        "panic" => panic!("as asked"),
        "forever" => std::future::pending().await,
        "bytes" => vec![b'x'; words.next().unwrap().parse().unwrap()].into_response(),
        "etag" => {
            let etag = "x".repeat(words.next().unwrap().parse().unwrap());
            ([("etag", etag)], "").into_response()
        }
        "endless" => Body::from_stream(futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from_static(&[0; 1024]))
        }))
        .into_response(),
        _ => (
            StatusCode::CREATED,
            [
                ("location", "/pay/1"),
                ("set-cookie", "session=secret"),
                ("etag", "\"1\""),
                ("x-request-cost", "7"),
            ],
            format!("run {run}"),
        )
            .into_response(),
    }
}
