//! A service whose handler does what the request's body says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use mainstay_errors::{Category, Problem};
use mainstay_idempotency::{IdemTx, IdempotencyLayer, Scope, Scoped};
use sqlx::Pool;
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::db::TestDb;

pub struct World<D: TestDb> {
    pub pool: Pool<D>,
    pub runs: AtomicUsize,
    pub commits: AtomicUsize,
    /// Told when a handler has written and is about to wait at the gate.
    pub entered: Notify,
    pub gate: Semaphore,
    pub leaked: Mutex<Option<IdemTx<D>>>,
    pub tracker: TaskTracker,
}

pub struct App<D: TestDb> {
    pub world: Arc<World<D>>,
    router: Router,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl<D: TestDb> App<D> {
    pub fn new(pool: Pool<D>) -> Self {
        Self::with(pool, |layer| layer)
    }

    pub fn with(
        pool: Pool<D>,
        edit: impl FnOnce(IdempotencyLayer<D, Scoped>) -> IdempotencyLayer<D, Scoped>,
    ) -> Self {
        let world = Arc::new(World {
            pool: pool.clone(),
            runs: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            entered: Notify::new(),
            gate: Semaphore::new(0),
            leaked: Mutex::new(None),
            tracker: TaskTracker::new(),
        });
        let layer = IdempotencyLayer::<D>::local(pool)
            .scope(scope)
            .tracker(world.tracker.clone())
            .on_commit({
                let world = Arc::clone(&world);
                move || _ = world.commits.fetch_add(1, Ordering::SeqCst)
            });
        let router = Router::new()
            .route("/pay", any(pay::<D>))
            .route("/bare", post(bare::<D>))
            .route("/twice", post(twice::<D>))
            .layer(edit(layer))
            .with_state(Arc::clone(&world));
        Self { world, router }
    }

    pub async fn post(&self, key: &str, body: &str) -> Answer {
        self.send(request(Some(key), body)).await
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    /// The service's future itself, to be dropped half way.
    pub fn call(&self, request: Request<Body>) -> impl Future<Output = Response> + use<D> {
        let router = self.router.clone();
        async move { router.oneshot(request).await.unwrap() }
    }

    /// To be served on a socket.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    pub fn runs(&self) -> usize {
        self.world.runs.load(Ordering::SeqCst)
    }

    pub fn commits(&self) -> usize {
        self.world.commits.load(Ordering::SeqCst)
    }

    pub async fn effects(&self, body: &str) -> i64 {
        D::effects(&self.world.pool, body).await
    }

    pub async fn idle(&self) {
        self.world.tracker.close();
        self.world.tracker.wait().await;
        self.world.tracker.reopen();
    }
}

impl<D: TestDb> Clone for App<D> {
    fn clone(&self) -> Self {
        Self {
            world: Arc::clone(&self.world),
            router: self.router.clone(),
        }
    }
}

impl Answer {
    pub fn code(&self) -> String {
        self.problem().code().to_owned()
    }

    pub fn problem(&self) -> Problem {
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{:?}",
            self.body
        );
        Problem::read(self.status.as_u16(), &self.headers, &self.body)
    }

    pub fn replayed(&self) -> bool {
        self.headers
            .get("idempotent-replayed")
            .is_some_and(|value| value == "true")
    }
}

pub fn request(key: Option<&str>, body: &str) -> Request<Body> {
    let mut request = Request::post("/pay").header("x-tenant", "acme");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

fn scope(parts: &http::request::Parts) -> Result<Scope, Problem> {
    let tenant = parts
        .headers
        .get("x-tenant")
        .ok_or_else(|| Problem::new(Category::Unauthenticated, "who_are_you"))?;
    Ok(Scope::new(tenant.as_bytes(), "", "pay"))
}

async fn pay<D: TestDb>(
    State(world): State<Arc<World<D>>>,
    mut tx: IdemTx<D>,
    body: String,
) -> Response {
    world.runs.fetch_add(1, Ordering::SeqCst);
    if body.starts_with("new") && D::effects(&world.pool, &body).await > 0 {
        // As a handler does whose own constraint has refused it.
        assert!(!body.ends_with("panic"), "it is there already");
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    D::effect(&mut tx, &body).await.unwrap();
    match body.split_whitespace().next().unwrap_or_default() {
        "raw-rollback" => D::raw(&mut tx, "rollback").await.unwrap(),
        "swallow" => D::raw(&mut tx, "select * from no_such_table")
            .await
            .unwrap_err()
            .to_string()
            .clear(),
        "slow-statement" => D::raw(&mut tx, "select pg_sleep(5)").await.unwrap(),
        "leak" => *world.leaked.lock().unwrap() = Some(tx),
        _ => {}
    }
    act(&world, &body).await
}

async fn bare<D: TestDb>(State(world): State<Arc<World<D>>>, body: String) -> Response {
    world.runs.fetch_add(1, Ordering::SeqCst);
    act(&world, &body).await
}

async fn twice<D: TestDb>(_tx: IdemTx<D>, _again: IdemTx<D>) -> &'static str {
    "unreachable"
}

async fn act<D: TestDb>(world: &World<D>, body: &str) -> Response {
    let mut words = body.split_whitespace();
    let run = world.runs.load(Ordering::SeqCst);
    match words.next().unwrap_or_default() {
        "wait" => {
            world.entered.notify_one();
            world.gate.acquire().await.unwrap().forget();
            (StatusCode::CREATED, format!("run {run}")).into_response()
        }
        "status" => {
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
        "broken" => {
            let chunks = [
                Ok(Bytes::from_static(b"half")),
                Err(std::io::Error::other("cut")),
            ];
            Body::from_stream(futures_util::stream::iter(chunks)).into_response()
        }
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
