//! [`ProblemLayer`]: whatever fails inside it, the client gets a problem document.
//!
//! It stands outermost. It gives the request an id, catches panics, completes the documents that
//! faults made, and puts a document in the place of the bare failures an axum application has by
//! default: 404, 405, 413, 415, 422, 408, plain text from other layers.

mod future;
mod rewrite;

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, Bytes};
use http::{HeaderName, HeaderValue, Method, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

pub use future::ProblemFuture;

use crate::{LogPolicy, Registry, RequestId};

/// The header of the request id, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// In a response's extensions, tells [`ProblemLayer`] to leave status, headers and body alone: for what
/// a proxy or a handler passes through from elsewhere. Only `x-request-id` is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassThrough;

/// Makes every failure of the service inside a problem document.
///
/// - **Request id**: `x-request-id` is taken when it is well-formed ([`RequestId::parse`]), else a
///   UUIDv7 is made. It is put into the request's extensions and header, the response's header and
///   the document.
/// - **Documents of ours** get the request id and the registry's `type` base, and their cause is logged.
/// - **Bare failures** (status ≥ 400 with no content type, or plain text) become documents; their text
///   is dropped, because nobody declared it public. 408 becomes 504, a panic 500.
/// - **Anything else** with a content type of its own — HTML, JSON, gRPC, a foreign problem document, a
///   page that a middleware put in the place of a document — passes untouched, and so does what carries
///   [`PassThrough`].
/// - A **401** that becomes a document and has no `WWW-Authenticate` gets the [`challenge`](Self::challenge), if one was set.
/// - All headers stay but those that described the replaced body. HEAD gets the headers and no body.
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
#[derive(Debug, Clone)]
struct Shared {
    type_base: String,
    log: LogPolicy,
    challenge: Option<HeaderValue>,
}

impl ProblemLayer {
    /// A layer that writes the `type` base of this registry.
    pub fn new(registry: impl std::borrow::Borrow<Registry>) -> Self {
        let type_base = registry.borrow().base().to_owned();
        Self {
            shared: Arc::new(Shared {
                type_base,
                log: LogPolicy::default(),
                challenge: None,
            }),
        }
    }

    /// Logs by another policy.
    #[must_use]
    pub fn log(self, log: LogPolicy) -> Self {
        self.with(|shared| shared.log = log)
    }

    /// The `WWW-Authenticate` of each 401 document that has none of its own, such as `Bearer realm="orders"`: RFC 9110
    /// §15.5.2 wants one on every 401.
    #[must_use]
    pub fn challenge(self, challenge: HeaderValue) -> Self {
        self.with(|shared| shared.challenge = Some(challenge))
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

/// What is remembered of a request until its response is there.
struct Asked {
    id: RequestId,
    head: bool,
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
        let mut given = request.headers().get_all(&REQUEST_ID).iter();
        let first = given.next().and_then(RequestId::from_header);
        let is_only = given.next().is_none();
        let is_given = first.is_some();
        let id = first.unwrap_or_else(RequestId::generate);
        if !is_given || !is_only {
            // A second line would reach the handler unchecked.
            request.headers_mut().insert(REQUEST_ID, id.to_header());
        }
        request.extensions_mut().insert(id.clone());
        let asked = Asked {
            id,
            head: request.method() == Method::HEAD,
        };
        let inner = future::unwound(|| self.inner.call(request));
        ProblemFuture::new(inner, asked, Arc::clone(&self.shared))
    }
}
