//! The HTTP layer. [`IdempotencyLayer`] is its configuration; `service.rs` sorts requests, `run.rs` runs keyed ones from
//! `request.rs` by one of the protocols, `local.rs` and `leased.rs`, around `handler.rs`, to `answer.rs`; `lazy.rs` lends the
//! others a transaction and `keyless.rs` ends it.

mod answer;
mod config;
mod extract;
mod handler;
mod keyless;
mod lazy;
mod leased;
mod local;
#[cfg(feature = "utoipa")]
mod openapi;
mod protocol;
mod request;
mod run;
mod service;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderName, Method};
use mainstay_errors::Problem;
use sqlx::Pool;
use tokio_util::task::TaskTracker;

use self::config::{Config, Resolver};
#[cfg(feature = "utoipa")]
pub use self::openapi::IdempotencyOpenApi;
pub use self::protocol::Protocol;
pub use self::service::{IdempotencyService, ResponseFuture};
use crate::codec::Codec;
use crate::leased::{HANDLER_BYTES_MAX, LeasedStore, Leases};
use crate::on_commit::OnCommit;
use crate::policy::OutcomePolicy;
use crate::store::IdempotencyDb;
use crate::{Covers, Parse, Scope, Wait};

/// Gives every keyed request of the routes below it one transaction, or one lease, and every retry the first answer.
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
pub struct IdempotencyLayer<P: Protocol, S = Unscoped> {
    config: Arc<Config<P>>,
    scope: S,
}

/// [`IdempotencyLayer`] before it knows how to tell callers apart.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Unscoped;

/// [`IdempotencyLayer`] with its scope resolver.
#[derive(Clone)]
pub struct Scoped(Arc<Resolver>);

impl<D: IdempotencyDb> IdempotencyLayer<D, Unscoped> {
    /// The Local protocol over `pool`: claim, handler's writes and recorded answer commit in one transaction.
    ///
    /// Each keyed request holds a connection for as long as its handler runs, so give the pool as many as you want
    /// handlers at once, and call remote services before or after, not inside.
    #[must_use]
    pub fn local(pool: Pool<D>) -> Self {
        Self {
            config: Arc::new(Config::new(pool, None, TaskTracker::new())),
            scope: Unscoped,
        }
    }
}

#[cfg(feature = "postgres")]
impl<S> IdempotencyLayer<sqlx::Postgres, S> {
    /// Claims keys last: nothing is looked up first, and the statement that records the answer claims the key as well. A first
    /// run then takes one round trip more than its bare transaction, instead of two. Default: keys are claimed first. On other
    /// databases it would save nothing.
    ///
    /// For effects in the transaction the promise is the same: whichever attempt commits first stands, what another one has done
    /// is rolled back, and its client gets the answer that stands. The price is paid by duplicates:
    ///
    /// - **Their handler runs**, also when the key has long had its record, and is rolled back. So it is for handlers whose every
    ///   effect is in the transaction: what a handler does elsewhere is done again for each duplicate.
    /// - It may fail, for the first one's effects are there. Whatever such an attempt ends in, a failure or a panic, the record is
    ///   looked for then, and is the answer. Where there is none yet, a failure of the database or of time is told as
    ///   `outcome: unknown`: another attempt may be at work.
    /// - One that another process is working on is not refused at once, but waits with its record for what becomes of the other.
    ///   Within this process [`wait`](Self::wait) decides, as ever; but a key that is reused for another request meanwhile is a 409.
    /// - A key that is too old, or reused, is refused after its handler has run.
    /// - A handler that answers a refusal because of what its own duplicate has locked (`SKIP LOCKED`, `NOWAIT`) may have that
    ///   refusal recorded, and the duplicate is rolled back.
    ///
    /// While some processes, or routes of one scope, claim first and others last, two attempts of one key may wait for each other, one
    /// with the key and one with a row. Postgres ends one of them after its `deadlock_timeout`, with a 409 or what the handler makes
    /// of it.
    ///
    /// ```
    /// # use mainstay_idempotency::{IdempotencyLayer, Scope};
    /// # fn f(pool: sqlx::PgPool) {
    /// let layer = IdempotencyLayer::<sqlx::Postgres>::local(pool)
    ///     .scope(|_| Ok(Scope::new("tenant", "", "operation")))
    ///     .route("/orders", |route| route.optimistic());
    /// # }
    /// ```
    #[must_use]
    #[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
    pub fn optimistic(self) -> Self {
        self.with(|config| config.claiming = crate::local::Claiming::Last)
    }
}

impl<L: LeasedStore> IdempotencyLayer<Leases<L>, Unscoped> {
    /// The Leased protocol over `leases`: for handlers whose effects are elsewhere. The claim commits first; the handler
    /// works in the steps and calls of its [`LentLease`](crate::LentLease); the answer is recorded last, by the token of this
    /// attempt. No connection is held while the handler runs. See [`leased`](crate::leased) for what is promised where.
    ///
    /// What is answered is what the Local protocol answers, but for what cannot be taken back:
    ///
    /// | what happens | what the next attempt with the key gets |
    /// |---|---|
    /// | an answer that is to be kept (with effects or without: the steps stay) | a replay |
    /// | an answer that is to be released, a panic, a timeout, an answer that cannot be kept; no step had begun | it runs |
    /// | the same, and a step had begun | it runs, and goes on behind the steps that are done |
    /// | the process is killed | 409 until the lease is over; then it goes on behind the steps that are done |
    /// | a call that a remote would act on twice was begun and not finished | 503 with `outcome: unknown`, until somebody [looks](Leases::reopen) |
    ///
    /// Whoever is answered in the handler's place after a step had begun is told `outcome: unknown`, with a 503: asking again
    /// with the same key finds out. So is whoever comes while the store does not say whether it recorded the answer. A handler
    /// that was taken over does not answer for the key: what the key stands for does, or a 409.
    ///
    /// [`on_commit`](Self::on_commit) is called after each step in a transaction. A duplicate [waits](Self::wait) for a request of this
    /// process; for one elsewhere it is told 409, because no store wakes it. The leases' own
    /// retention and tracker are the layer's defaults.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] mod example {
    /// use axum::http::StatusCode;
    /// use mainstay_errors::Error;
    /// use mainstay_idempotency::leased::{DerivedKey, Leases, Remote};
    /// use mainstay_idempotency::{IdempotencyLayer, LentLease, Scope};
    /// use sqlx::SqlitePool;
    /// # use mainstay_errors::Problem;
    /// # async fn charge(_: DerivedKey) -> Result<String, Problem> { Ok(String::new()) }
    /// # async fn book(_: &mut sqlx::SqliteConnection, _: String) -> Result<(), Problem> { Ok(()) }
    ///
    /// async fn pay(mut lease: LentLease<SqlitePool>) -> Result<StatusCode, Error> {
    ///     // Asked again after a crash, under the same key: the remote knows it.
    ///     let id = lease.call("charge", Remote::HonoursKey, charge).await?;
    ///     lease.step("book", |mut tx, _| async move { book(&mut tx, id).await }).await?;
    ///     Ok(StatusCode::CREATED)
    /// }
    ///
    /// # fn f(pool: SqlitePool) -> axum::Router {
    /// let layer = IdempotencyLayer::leased(Leases::new(pool))
    ///     .scope(|_| Ok(Scope::new("tenant", "", "pay")));
    /// axum::Router::new().route("/payments", axum::routing::post(pay)).route_layer(layer)
    /// # } }
    /// ```
    #[must_use]
    pub fn leased(leases: Leases<L>) -> Self {
        let (retention, tracker) = leases.settings();
        Self {
            config: Arc::new(Config::new(leases, retention, tracker)),
            scope: Unscoped,
        }
    }
}

impl<L: LeasedStore, S> IdempotencyLayer<Leases<L>, S> {
    /// Names the handler of a [`Completer`](crate::leased::Completer) that takes up requests whose process is gone, without
    /// waiting for their clients; it gets the request's body, which is kept with the key meanwhile, and must
    /// [complete](crate::leased::Lease::complete) with the answer that the client is to get. Default: none, and only a retry takes up.
    ///
    /// The body is kept as it came, also with a [`codec`](Self::codec), until there is an answer or the key is given back.
    ///
    /// # Panics
    /// When the name is over 255 bytes: no store takes it, and every request would be refused.
    #[must_use]
    pub fn completed_by(self, handler: impl Into<Arc<str>>) -> Self {
        let handler = handler.into();
        assert!(
            handler.len() <= HANDLER_BYTES_MAX,
            "the name of a completer's handler has at most {HANDLER_BYTES_MAX} bytes"
        );
        self.with(|config| config.completed_by = Some(handler))
    }
}

impl<P: Protocol, S> IdempotencyLayer<P, S> {
    /// Whose key it is, from the request's head (extensions that authentication left there, headers, path).
    ///
    /// Inside a nested router the head's `uri` lacks the prefix; `OriginalUri` among the extensions has it.
    ///
    /// It fails closed: an `Err` is the answer, and the handler does not run. It is asked before the key is looked at,
    /// so an unknown caller learns nothing about keys.
    ///
    /// It is also the place for a quota. Each new key is a row that stays for the retention, and only here is it known
    /// whose it will be before it costs anything: a caller that may begin `n` keyed requests in an hour has `n` times the
    /// retention's hours of rows at the most. Ask your rate limiter about the principal and answer a 429 (the category
    /// `ResourceExhausted`); replays count too, which a client that backs off does not notice. The layer has no counter of its
    /// own: counting rows would cost each request as much as its row, and most services limit requests already.
    #[must_use]
    pub fn scope(
        self,
        resolve: impl Fn(&Parts) -> Result<Scope, Problem> + Send + Sync + 'static,
    ) -> IdempotencyLayer<P, Scoped> {
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

    /// Which answers are kept. Default [`TerminalOnly`](crate::TerminalOnly).
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
    /// A path that is given again has its last settings, which do not begin as its first.
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
        self.with(|config| {
            config.routes.retain(|(known, _)| **known != *path);
            config.routes.push((path.into(), route.config));
        })
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

    /// Longest time for a request's body to come in; more is a 408. Default 30 s: for slow lines. Nothing is held meanwhile
    /// but what has come, and the handler's own time begins behind it.
    #[must_use]
    pub fn request_time_max(self, time: Duration) -> Self {
        self.with(|config| config.limits.request_time_max = time)
    }

    /// Longest response body in bytes; more is a 500 and a rollback, for what cannot be repeated must not commit. Under a lease
    /// whose steps have begun it is a 503, and the key goes on behind them when the service is mended.
    /// Default 1 MiB, at most 256 MiB: it is kept in a row. A stream is collected like any other body; trailers are dropped.
    #[must_use]
    pub fn response_bytes_max(self, bytes: usize) -> Self {
        self.with(|config| config.limits.response_bytes_max = bytes.min(256 * 1024 * 1024))
    }

    /// Longest time for the handler and its response body, before it is dropped and rolled back with a 504; or, under a lease
    /// whose steps have begun, with a 503 to go on behind them.
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

    fn with(mut self, edit: impl FnOnce(&mut Config<P>)) -> Self {
        edit(Arc::make_mut(&mut self.config));
        self
    }
}

impl<P: Protocol, I> tower_layer::Layer<I> for IdempotencyLayer<P, Scoped> {
    type Service = IdempotencyService<I, P>;

    fn layer(&self, inner: I) -> Self::Service {
        IdempotencyService::new(inner, Arc::clone(&self.config), self.scope.clone())
    }
}

impl<P: Protocol, S: Clone> Clone for IdempotencyLayer<P, S> {
    fn clone(&self) -> Self {
        Self {
            config: Arc::clone(&self.config),
            scope: self.scope.clone(),
        }
    }
}

impl<P: Protocol, S> fmt::Debug for IdempotencyLayer<P, S> {
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
