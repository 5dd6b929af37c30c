//! [`ProblemLayer`]: whatever fails inside it, the client gets a problem document.
//!
//! It stands outermost. It gives the request an id, catches panics, completes the documents that
//! faults made, and puts a document in the place of the bare failures an axum application has by
//! default: 404, 405, 413, 415, 422, 408, plain text from other layers.

mod asked;
mod future;
mod headers;
mod localize;
mod rewrite;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, Bytes};
use http::{HeaderName, HeaderValue, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use self::asked::Asked;
pub use self::future::ProblemFuture;
pub use self::localize::{Localize, Localized};

use crate::violations::VALIDATION_FAILED;
use crate::{LogPolicy, Registry};

/// The header of the request id, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// In a response's extensions, tells [`ProblemLayer`] to leave status, headers and body alone: for what
/// a proxy or a handler passes through from elsewhere. Only `x-request-id` is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassThrough;

/// When a request that brought no id gets one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestIds {
    /// When a handler asks for it or a failure is answered. A call that succeeds costs nothing.
    #[default]
    OnDemand,
    /// At once: in the request's header and extensions, so that every log line can have it, and in every
    /// answer's header. It costs each request five allocations, two of the id and three of the extensions (measured;
    /// seven where one of the two had no headers yet), and about a microsecond, most of it for the UUID.
    OnArrival,
}

/// Makes every failure of the service inside a problem document.
///
/// - **Request id**: `x-request-id` is taken when it is well-formed ([`RequestId::parse`](crate::RequestId::parse));
///   one that is not, or that came twice, is removed before a handler sees it. Else the trace id of a valid
///   `traceparent` is the id, so that one id ties trace, log and answer; else a UUIDv7 is made, by
///   default only when a handler asks for it ([`RequestId`](crate::RequestId) is an extractor) or a
///   failure is answered. Every failure carries the id in header and document, a success in its header when
///   the request brought one or a handler asked.
/// - **Documents of ours** get the request id and the registry's `type` base, and their cause is logged.
///   Under a status that is no failure, they are answered with their own.
/// - **Bare failures** (status ≥ 400 with no content type, or plain text) become documents; their text
///   is dropped, because nobody declared it public. 408 becomes 504, a panic 500.
/// - **Anything else** with a content type of its own — HTML, JSON, a foreign problem document, a page that
///   a middleware put in the place of a document — passes with a request id and else untouched, and so does what
///   carries [`PassThrough`]. A gRPC answer passes as it is.
/// - **Headers** all stay but those that described the replaced body. A 401 has a
///   [`challenge`](Self::challenge), and where a document may be read by another origin
///   (`Access-Control-Allow-Origin`), so may its `Retry-After` and `X-Request-Id`: put the CORS layer inside, or
///   let it expose both. HEAD gets the headers and no body.
/// - The answered [`Problem`](crate::Problem) is in the response's extensions, where a metrics layer outside reads
///   the same `error.type` that the log and the span have ([`LogPolicy`]).
///
/// A call that succeeds is not allocated for, with one exception: an id to be sent back may need a place in
/// headers that have none left. A body that is not axum's is boxed, as axum would box it.
///
/// ```
/// use axum::{Router, routing::get};
/// use mainstay_errors::{ProblemLayer, Registry};
///
/// let registry = Registry::new();
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .merge(registry.pages("/problems"))
///     .layer(ProblemLayer::new(&registry));
/// ```
#[derive(Debug, Clone)]
pub struct ProblemLayer {
    shared: Arc<Shared>,
}

/// What the layer, its services and their futures look at.
#[derive(Clone)]
struct Shared {
    type_base: String,
    validation_status: u16,
    log: LogPolicy,
    challenge: Option<HeaderValue>,
    request_ids: RequestIds,
    localize: Option<Arc<dyn Localize>>,
}

impl ProblemLayer {
    /// A layer that writes the `type` base of this registry and answers violations with its validation status.
    pub fn new(registry: impl std::borrow::Borrow<Registry>) -> Self {
        let registry = registry.borrow();
        Self {
            shared: Arc::new(Shared {
                type_base: registry.base().to_owned(),
                validation_status: registry.status_for(&VALIDATION_FAILED),
                log: LogPolicy::default(),
                challenge: Some(HeaderValue::from_static("Bearer")),
                request_ids: RequestIds::default(),
                localize: None,
            }),
        }
    }

    /// Logs by another policy.
    #[must_use]
    pub fn log(self, log: LogPolicy) -> Self {
        self.with(|shared| shared.log = log)
    }

    /// The `WWW-Authenticate` of each 401 document that has none of its own, such as `Bearer realm="orders"`; `Bearer`
    /// unless given. RFC 9110 §15.5.2 wants one on every 401.
    #[must_use]
    pub fn challenge(self, challenge: HeaderValue) -> Self {
        self.with(|shared| shared.challenge = Some(challenge))
    }

    /// When a request without an id gets one; [`RequestIds::OnDemand`] unless given.
    #[must_use]
    pub fn request_ids(self, when: RequestIds) -> Self {
        self.with(|shared| shared.request_ids = when)
    }

    /// Takes the texts of documents from the application, by the request's `Accept-Language`. Documents then
    /// vary by it, and say in `Content-Language` what they are written in.
    #[must_use]
    pub fn localize(self, texts: impl Localize) -> Self {
        self.with(|shared| shared.localize = Some(Arc::new(texts)))
    }

    fn with(self, change: impl FnOnce(&mut Shared)) -> Self {
        let mut shared = Arc::unwrap_or_clone(self.shared);
        change(&mut shared);
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Default for ProblemLayer {
    fn default() -> Self {
        Self::new(Registry::new())
    }
}

impl<S> Layer<S> for ProblemLayer {
    type Service = ProblemService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ProblemService {
            inner,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// The service [`ProblemLayer`] makes.
#[derive(Debug, Clone)]
pub struct ProblemService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("type_base", &self.type_base)
            .field("validation_status", &self.validation_status)
            .field("log", &self.log)
            .field("request_ids", &self.request_ids)
            .finish_non_exhaustive()
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for ProblemService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: http_body::Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ProblemFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let mut asked = Asked::of(&mut request, &self.shared);
        let inner = asked.around(|| future::unwound(|| self.inner.call(request)));
        ProblemFuture::new(inner, asked, Arc::clone(&self.shared))
    }
}
