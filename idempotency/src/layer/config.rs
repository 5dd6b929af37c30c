//! What a layer knows, and what a route of it does.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, OriginalUri};
use http::request::Parts;
use http::{HeaderName, Method, Request, header};
use mainstay_errors::Problem;
use tokio_util::task::TaskTracker;

use super::Scoped;
use super::protocol::Runs;
use crate::codec::Codec;
use crate::inflight::InFlight;
use crate::local::Claiming;
use crate::on_commit::OnCommit;
use crate::policy::{OutcomePolicy, TerminalOnly};
use crate::{Covers, Parse, Scope, Wait};

pub(super) type Resolver = dyn Fn(&Parts) -> Result<Scope, Problem> + Send + Sync;

/// The layer's bounds; the setters of [`IdempotencyLayer`](super::IdempotencyLayer) say why each has its default.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) request_bytes_max: usize,
    pub(super) request_time_max: Duration,
    pub(super) response_bytes_max: usize,
    pub(super) handler_time_max: Duration,
    pub(super) in_flight_max: usize,
    pub(super) resolve_time_max: Duration,
}

const DEFAULT_LIMITS: Limits = Limits {
    request_bytes_max: 1024 * 1024,
    request_time_max: Duration::from_secs(30),
    response_bytes_max: 1024 * 1024,
    handler_time_max: Duration::from_secs(30),
    in_flight_max: 1024,
    resolve_time_max: Duration::from_secs(5),
};

#[expect(missing_debug_implementations, reason = "nobody outside can have one")]
pub struct Config<P: Runs> {
    /// Where keys are.
    pub(super) keys: P::Keys,
    /// A route's own, or the layer's as it was when the route was set; none before that.
    pub(super) scope: Option<Scoped>,
    pub(super) header: HeaderName,
    pub(super) parse: Parse,
    pub(super) required: bool,
    pub(super) methods: Vec<Method>,
    pub(super) covers: Covers,
    pub(super) policy: Arc<dyn OutcomePolicy>,
    pub(super) codec: Option<Arc<dyn Codec>>,
    pub(super) replay_headers: Vec<HeaderName>,
    pub(super) limits: Limits,
    pub(super) wait: Wait,
    /// Local only.
    pub(super) claiming: Claiming,
    pub(super) stale_after: Option<Duration>,
    pub(super) tracker: TaskTracker,
    pub(super) on_commit: OnCommit,
    pub(super) in_flight: InFlight,
    /// Who takes up a request whose process is gone. Leased only.
    pub(super) completed_by: Option<Arc<str>>,
    /// Routes that want something else, by their path as the router writes it.
    pub(super) routes: Vec<(Box<str>, Arc<Config<P>>)>,
}

impl<P: Runs> Config<P> {
    pub(super) fn new(keys: P::Keys, stale_after: Option<Duration>, tracker: TaskTracker) -> Self {
        Self {
            keys,
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
            claiming: Claiming::First,
            stale_after,
            tracker,
            on_commit: OnCommit::default(),
            in_flight: InFlight::default(),
            completed_by: None,
            routes: Vec::new(),
        }
    }

    /// The configuration of the request's route.
    pub(super) fn of_route<'a, B>(this: &'a Arc<Self>, request: &Request<B>) -> &'a Arc<Self> {
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
        this.route(path).unwrap_or(this)
    }

    /// What the route at this path has of its own.
    pub(super) fn route(&self, path: &str) -> Option<&Arc<Self>> {
        let found = self.routes.iter().find(|(route, _)| **route == *path);
        found.map(|(_, config)| config)
    }
}

impl<P: Runs> Clone for Config<P> {
    fn clone(&self) -> Self {
        Self {
            keys: self.keys.clone(),
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
            claiming: self.claiming,
            stale_after: self.stale_after,
            tracker: self.tracker.clone(),
            on_commit: self.on_commit.clone(),
            in_flight: self.in_flight.clone(),
            completed_by: self.completed_by.clone(),
            routes: self.routes.clone(),
        }
    }
}
