//! [`StatusLayer`]: whatever call fails inside it, the client gets a status with the details of ours.

mod body;
mod complete;
mod future;

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderName, Request, Response, header};
use tower_layer::Layer;
use tower_service::Service;

pub use body::StatusBody;
pub use future::StatusFuture;

use crate::{LogPolicy, Registry, RequestId};

/// The metadata of the request id, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Completes each failed call of the gRPC services inside it: the sibling of `ProblemLayer`.
///
/// - **Request id**: `x-request-id` is taken when it is well-formed ([`RequestId::parse`]), and put into the request's
///   extensions; any other is removed. Without one, an id is made once a call has failed. It is in the status
///   (`RequestInfo`) and in the response's metadata.
/// - **Statuses of ours** (made of an [`Error`](crate::Error), a derived fault, a [`Problem`](crate::Problem)) get the
///   id, the registry's `type` base and the [`domain`](Self::domain), and their cause is logged.
/// - **Statuses made by hand** keep code, message and details, and get the `ErrorInfo` that AIP-193 wants, with the
///   category's name as the reason. `DebugInfo` is taken out.
/// - **Statuses that tonic made of an error** (`Status::from_error`, which copies its `Display`) keep the code; the
///   message goes to the log, and the client gets the category's title.
/// - **Panics**, also those of a stream that is being sent, are `INTERNAL`; their text goes to the log.
/// - **Failures of a stream** come in its trailers, where tonic has let go of the cause: they are completed and logged
///   without it, and one that is `UNKNOWN` or `INTERNAL` without details is taken for an error that tonic converted.
///
/// Each is logged once by the [`LogPolicy`]. Requests that are not `application/grpc`, and calls that succeed, pass
/// untouched; the layer allocates for a failure, and to keep an id that was given, and for nothing else. Put it around
/// a service once: a second one outside it would complete and log the trailers of streams again.
///
/// It cannot complete what is answered outside it: the timeout and the load shedding of tonic's own `Server` stand
/// outside all layers of that server. A client that reads `CANCELLED` from there is told by
/// [`Problem::from_status`](crate::Problem::from_status) that the outcome is unknown. Errors of the inner service
/// itself, which services of tonic do not have, pass on. And it cannot tell `?` on a `std::io::Error` from a status made
/// by hand: that conversion is tonic's, copies the text into the message, and keeps no source. Make such an error a
/// fault, or [`Error::internal`](crate::Error::internal).
///
/// ```
/// use mainstay_errors::{Registry, StatusLayer};
///
/// let registry = Registry::new();
/// let layer = StatusLayer::new(&registry).domain("orders.example.com");
/// // tonic::transport::Server::builder().layer(layer).add_service(..)
/// ```
#[derive(Debug, Clone)]
pub struct StatusLayer {
    shared: Arc<Shared>,
}

/// What the layer, its services, futures and bodies look at.
#[derive(Debug, Clone)]
struct Shared {
    type_base: String,
    domain: Option<Cow<'static, str>>,
    log: LogPolicy,
}

impl StatusLayer {
    /// A layer that writes the `type` base of this registry.
    pub fn new(registry: impl std::borrow::Borrow<Registry>) -> Self {
        let type_base = registry.borrow().base().to_owned();
        Self {
            shared: Arc::new(Shared {
                type_base,
                domain: None,
                log: LogPolicy::default(),
            }),
        }
    }

    /// The domain of the problems that name none, such as `orders.example.com`: AIP-193 wants each reason to be
    /// unique together with it.
    #[must_use]
    pub fn domain(self, domain: impl Into<Cow<'static, str>>) -> Self {
        self.with(|shared| shared.domain = Some(domain.into()))
    }

    /// Logs by another policy.
    #[must_use]
    pub fn log(self, log: LogPolicy) -> Self {
        self.with(|shared| shared.log = log)
    }

    fn with(self, change: impl FnOnce(&mut Shared)) -> Self {
        let mut shared = Arc::unwrap_or_clone(self.shared);
        change(&mut shared);
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Default for StatusLayer {
    fn default() -> Self {
        Self::new(Registry::new())
    }
}

impl<S> Layer<S> for StatusLayer {
    type Service = StatusService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        StatusService {
            inner,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// The service [`StatusLayer`] makes.
#[derive(Debug, Clone)]
pub struct StatusService<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// One service can be wrapped by itself, and added under its own name.
impl<S: tonic::server::NamedService> tonic::server::NamedService for StatusService<S> {
    const NAME: &'static str = S::NAME;
}

/// What is remembered of a call until it has ended.
#[derive(Debug)]
struct Asked {
    id: Option<RequestId>,
    shared: Arc<Shared>,
}

impl Asked {
    /// The id of the call: made when the caller gave none, and then kept.
    fn id(&mut self) -> RequestId {
        self.id.get_or_insert_with(RequestId::generate).clone()
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for StatusService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: http_body::Body + Default,
{
    type Response = Response<StatusBody<ResBody>>;
    type Error = S::Error;
    type Future = StatusFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        if !is_grpc(&request) {
            return StatusFuture::passing(self.inner.call(request));
        }
        let asked = Asked {
            id: take_id(&mut request),
            shared: Arc::clone(&self.shared),
        };
        let inner = future::unwound(|| self.inner.call(request));
        StatusFuture::new(inner, asked)
    }
}

/// `application/grpc`, with or without a `+format`; not gRPC-web, whose trailers are in the body.
fn is_grpc<B>(request: &Request<B>) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE);
    let rest = value.and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The one well-formed id. Nothing else may reach the handler under that name.
fn take_id<B>(request: &mut Request<B>) -> Option<RequestId> {
    let mut given = request.headers().get_all(&REQUEST_ID).iter();
    let first = given.next()?;
    let id = RequestId::from_header(first).filter(|_| given.next().is_none());
    match &id {
        Some(id) => {
            request.extensions_mut().insert(id.clone());
        }
        None => {
            request.headers_mut().remove(&REQUEST_ID);
        }
    }
    id
}
