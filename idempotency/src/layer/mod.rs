//! The HTTP layer. [`IdempotencyLayer`] is its configuration; `service.rs` sorts requests, `run.rs` runs keyed ones from
//! `request.rs` to `answer.rs`, `lazy.rs` lends the others a transaction and `keyless.rs` ends it.

mod answer;
mod extract;
mod keyless;
mod lazy;
#[cfg(feature = "utoipa")]
mod openapi;
mod request;
mod run;
mod service;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, OriginalUri};
use http::request::Parts;
use http::{HeaderName, Method, Request, header};
use mainstay_errors::Problem;
use sqlx::{Database, Pool};
use tokio_util::task::TaskTracker;

#[cfg(feature = "utoipa")]
pub use self::openapi::IdempotencyOpenApi;
pub use self::service::{IdempotencyService, ResponseFuture};
use crate::codec::Codec;
use crate::inflight::InFlight;
use crate::on_commit::OnCommit;
use crate::policy::{OutcomePolicy, TerminalOnly};
use crate::store::IdempotencyDb;
use crate::{Covers, Parse, Scope, Wait};

/// Gives every keyed request of the routes below it one transaction, and every retry the first answer.
///
/// Put it inside authentication and inside [`ProblemLayer`](mainstay_errors::ProblemLayer), outside the handler:
/// a replay must not go to somebody who may not ask. In axum `route_layer` keeps it from asking unknown paths for a key.
/// Once per route is enough: a second one further in finds the key in flight.
///
/// Without [`scope`](Self::scope) it is not a layer and does not compile as one: keys of different callers must never meet.
///
/// ```compile_fail
/// # fn f(pool: sqlx::SqlitePool) -> axum::Router {
/// use mainstay_idempotency::IdempotencyLayer;
/// axum::Router::new().layer(IdempotencyLayer::<sqlx::Sqlite>::local(pool))
/// # }
/// ```
pub struct IdempotencyLayer<D: Database, S = Unscoped> {
    config: Arc<Config<D>>,
    scope: S,
}

/// [`IdempotencyLayer`] before it knows how to tell callers apart.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Unscoped;

/// [`IdempotencyLayer`] with its scope resolver.
#[derive(Clone)]
pub struct Scoped(Arc<Resolver>);

type Resolver = dyn Fn(&Parts) -> Result<Scope, Problem> + Send + Sync;

/// The layer's bounds; the setters of [`IdempotencyLayer`] say why each has its default.
#[derive(Debug, Clone, Copy)]
struct Limits {
    request_bytes_max: usize,
    response_bytes_max: usize,
    handler_time_max: Duration,
    in_flight_max: usize,
    resolve_time_max: Duration,
}

const DEFAULT_LIMITS: Limits = Limits {
    request_bytes_max: 1024 * 1024,
    response_bytes_max: 1024 * 1024,
    handler_time_max: Duration::from_secs(30),
    in_flight_max: 1024,
    resolve_time_max: Duration::from_secs(5),
};

pub(crate) struct Config<D: Database> {
    pool: Pool<D>,
    /// A route's own, or the layer's as it was when the route was set; none before that.
    scope: Option<Scoped>,
    header: HeaderName,
    parse: Parse,
    required: bool,
    methods: Vec<Method>,
    covers: Covers,
    policy: Arc<dyn OutcomePolicy>,
    codec: Option<Arc<dyn Codec>>,
    replay_headers: Vec<HeaderName>,
    limits: Limits,
    wait: Wait,
    stale_after: Option<Duration>,
    tracker: TaskTracker,
    on_commit: OnCommit,
    in_flight: InFlight,
    /// Routes that want something else, by their path as the router writes it.
    routes: Vec<(Box<str>, Arc<Config<D>>)>,
}

impl<D: IdempotencyDb> IdempotencyLayer<D, Unscoped> {
    /// The Local protocol over `pool`: claim, handler's writes and recorded answer commit in one transaction.
    ///
    /// Each keyed request holds a connection for as long as its handler runs, so give the pool as many as you want
    /// handlers at once, and call remote services before or after, not inside.
    #[must_use]
    pub fn local(pool: Pool<D>) -> Self {
        Self {
            config: Arc::new(Config {
                pool,
                scope: None,
                header: HeaderName::from_static("idempotency-key"),
                parse: Parse::Lenient,
                required: true,
                methods: vec![Method::POST, Method::PATCH],
                covers: Covers::Body,
                policy: Arc::new(TerminalOnly),
                codec: None,
                replay_headers: vec![
                    header::CONTENT_TYPE,
                    header::CONTENT_ENCODING,
                    header::CONTENT_LANGUAGE,
                    header::CONTENT_LOCATION,
                    header::LOCATION,
                    header::ETAG,
                    header::LAST_MODIFIED,
                    header::LINK,
                ],
                limits: DEFAULT_LIMITS,
                wait: Wait::No,
                stale_after: None,
                tracker: TaskTracker::new(),
                on_commit: OnCommit::default(),
                in_flight: InFlight::default(),
                routes: Vec::new(),
            }),
            scope: Unscoped,
        }
    }
}

impl<D: IdempotencyDb, S> IdempotencyLayer<D, S> {
    /// Whose key it is, from the request's head (extensions that authentication left there, headers, path).
    ///
    /// Inside a nested router the head's `uri` lacks the prefix; `OriginalUri` among the extensions has it.
    ///
    /// It fails closed: an `Err` is the answer, and the handler does not run. It is asked before the key is looked at,
    /// so an unknown caller learns nothing about keys.
    #[must_use]
    pub fn scope(
        self,
        resolve: impl Fn(&Parts) -> Result<Scope, Problem> + Send + Sync + 'static,
    ) -> IdempotencyLayer<D, Scoped> {
        let scope = Scoped(Arc::new(resolve));
        IdempotencyLayer {
            config: self
                .with(|config| config.scope = Some(scope.clone()))
                .config,
            scope,
        }
    }

    /// Whether a request without a key is refused (400). Default true. When false it passes through: nothing is
    /// recorded, and [`IdemTx`](crate::IdemTx) opens a plain transaction when the handler asks for one.
    #[must_use]
    pub fn required(self, required: bool) -> Self {
        self.with(|config| config.required = required)
    }

    /// The header's name. Default `idempotency-key`.
    #[must_use]
    pub fn header(self, name: HeaderName) -> Self {
        self.with(|config| config.header = name)
    }

    /// Which written forms of a key are accepted. Default [`Parse::Lenient`].
    #[must_use]
    pub fn parse(self, parse: Parse) -> Self {
        self.with(|config| config.parse = parse)
    }

    /// The methods whose keys count. Default POST and PATCH; requests of other methods pass through untouched.
    #[must_use]
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.with(|config| config.methods = methods.into_iter().collect())
    }

    /// What of a request makes it that request: the same key with another one is a 422. Default [`Covers::Body`].
    #[must_use]
    pub fn fingerprint(self, covers: Covers) -> Self {
        self.with(|config| config.covers = covers)
    }

    /// Which answers are kept. Default [`TerminalOnly`].
    #[must_use]
    pub fn policy(self, policy: impl OutcomePolicy) -> Self {
        self.with(|config| config.policy = Arc::new(policy))
    }

    /// Seals answers before they are stored. Default: they are stored as they are.
    #[must_use]
    pub fn codec(self, codec: impl Codec) -> Self {
        self.with(|config| config.codec = Some(Arc::new(codec)))
    }

    /// Settings of one route, its scope among them, by its path as the router writes it (`/payments/{id}`; nested, the whole
    /// of it). They begin as the layer's own are by now, so set those first. Outside axum's router it is the request's own path that counts.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mainstay_idempotency::{IdempotencyLayer, Scope, Wait};
    /// # fn f(pool: sqlx::SqlitePool) {
    /// let layer = IdempotencyLayer::<sqlx::Sqlite>::local(pool)
    ///     .scope(|_| Ok(Scope::new("tenant", "", "operation")))
    ///     .required(false)
    ///     .route("/payments", |route| route.required(true).wait(Wait::Up(Duration::from_secs(2))));
    /// # }
    /// ```
    #[must_use]
    pub fn route(self, path: &str, edit: impl FnOnce(Self) -> Self) -> Self
    where
        S: Clone,
    {
        let route = edit(self.clone().with(|config| config.routes.clear()));
        self.with(|config| config.routes.push((path.into(), route.config)))
    }

    /// What to do about a key that is in flight. Default [`Wait::No`].
    ///
    /// Waiting counts against [`in_flight_max`](Self::in_flight_max) a second time: as many may wait as may run.
    #[must_use]
    pub fn wait(self, wait: Wait) -> Self {
        self.with(|config| config.wait = wait)
    }

    /// The promise to clients: for how long a key is remembered.
    ///
    /// A key that carries its own time (a version 7 UUID) and is older is refused with 412 instead of run, for its
    /// record may have been reaped. Give [`reap`](crate::reap) at least this, and make it
    /// longer than [`handler_time_max`](Self::handler_time_max). Default: no key is too old. Keys may be made up to five
    /// minutes ahead of the database's clock; further ahead is a 400.
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        self.with(|config| config.stale_after = Some(retention))
    }

    /// Longest request body in bytes; more is a 413. Default 1 MiB: it is read whole, to be fingerprinted.
    #[must_use]
    pub fn request_bytes_max(self, bytes: usize) -> Self {
        self.with(|config| config.limits.request_bytes_max = bytes)
    }

    /// Longest response body in bytes; more is a 500 and a rollback, for what cannot be repeated must not commit.
    /// Default 1 MiB, at most 256 MiB: it is kept in a row. A stream is collected like any other body; trailers are dropped.
    #[must_use]
    pub fn response_bytes_max(self, bytes: usize) -> Self {
        self.with(|config| config.limits.response_bytes_max = bytes.min(256 * 1024 * 1024))
    }

    /// Longest time for the handler and its response body, before it is dropped and rolled back with a 504.
    /// Default 30 s: it holds a connection and, on SQLite, the one writer's place.
    ///
    /// Postgres is told to end a transaction that sits idle five seconds longer than this, in case this process
    /// vanishes without a word; this process waits as long for the database to answer a claim, in case that does.
    #[must_use]
    pub fn handler_time_max(self, time: Duration) -> Self {
        self.with(|config| config.limits.handler_time_max = time)
    }

    /// Most keyed requests in progress at once; more are a 503. Default 1024: a client that hangs up leaves its
    /// request running, so the number of open connections bounds nothing. The keys of all of a layer's routes are
    /// counted together, so a route's own number is how many there may be when it is asked.
    #[must_use]
    pub fn in_flight_max(self, requests: usize) -> Self {
        self.with(|config| config.limits.in_flight_max = requests)
    }

    /// How long to wait for the answer to a commit, and, if none comes, to look for its outcome, before a 503 says that
    /// it is unknown. Default 5 s each: a failover takes longer, but so does a client's patience.
    #[must_use]
    pub fn resolve_time_max(self, time: Duration) -> Self {
        self.with(|config| config.limits.resolve_time_max = time)
    }

    /// Headers that a replay repeats, instead of the default: `content-type`, `content-encoding`, `content-language`,
    /// `content-location`, `location`, `etag`, `last-modified`, `link`. Others, such as `set-cookie` and `date`, are
    /// sent with the first answer only.
    #[must_use]
    pub fn replay_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.with(|config| config.replay_headers = names.into_iter().collect())
    }

    /// Called after each commit of a handler's effects, before its answer is sent. It wakes the outbox's relay; it must not block.
    /// A panic in it is logged and changes nothing: the commit stands.
    #[must_use]
    pub fn on_commit(self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.with(|config| config.on_commit = OnCommit::new(hook))
    }

    /// Tracks the requests in progress. At shutdown, after the server has stopped accepting: `tracker.close()`, then
    /// `tracker.wait()`, and no commit is cut off.
    #[must_use]
    pub fn tracker(self, tracker: TaskTracker) -> Self {
        self.with(|config| config.tracker = tracker)
    }

    fn with(mut self, edit: impl FnOnce(&mut Config<D>)) -> Self {
        edit(Arc::make_mut(&mut self.config));
        self
    }
}

impl<D: IdempotencyDb, I> tower_layer::Layer<I> for IdempotencyLayer<D, Scoped> {
    type Service = IdempotencyService<I, D>;

    fn layer(&self, inner: I) -> Self::Service {
        IdempotencyService::new(inner, Arc::clone(&self.config), self.scope.clone())
    }
}

impl<D: Database, S: Clone> Clone for IdempotencyLayer<D, S> {
    fn clone(&self) -> Self {
        Self {
            config: Arc::clone(&self.config),
            scope: self.scope.clone(),
        }
    }
}

impl<D: Database> Config<D> {
    /// The configuration of the request's route.
    fn of_route<'a, B>(this: &'a Arc<Self>, request: &Request<B>) -> &'a Arc<Self> {
        if this.routes.is_empty() {
            return this;
        }
        let extensions = request.extensions();
        let path = match extensions.get::<MatchedPath>() {
            Some(matched) => matched.as_str(),
            None => extensions
                .get::<OriginalUri>()
                .map_or(request.uri(), |original| &original.0)
                .path(),
        };
        let route = this.routes.iter().find(|(route, _)| **route == *path);
        route.map_or(this, |(_, config)| config)
    }
}

impl<D: Database> Clone for Config<D> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            scope: self.scope.clone(),
            header: self.header.clone(),
            parse: self.parse,
            required: self.required,
            methods: self.methods.clone(),
            covers: self.covers,
            policy: Arc::clone(&self.policy),
            codec: self.codec.clone(),
            replay_headers: self.replay_headers.clone(),
            limits: self.limits,
            wait: self.wait,
            stale_after: self.stale_after,
            tracker: self.tracker.clone(),
            on_commit: self.on_commit.clone(),
            in_flight: self.in_flight.clone(),
            routes: self.routes.clone(),
        }
    }
}

impl<D: Database, S> fmt::Debug for IdempotencyLayer<D, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyLayer")
            .field("header", &self.config.header)
            .field("required", &self.config.required)
            .field("methods", &self.config.methods)
            .field("limits", &self.config.limits)
            .field("retention", &self.config.stale_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Scoped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scoped(..)")
    }
}
