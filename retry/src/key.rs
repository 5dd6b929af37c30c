//! One idempotency key per logical call, made above the retry layer so that every attempt carries the same.

use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tower_layer::Layer;
use tower_service::Service;
use uuid::Uuid;

/// The request header that names a logical call.
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// Gives each POST and PATCH without an `Idempotency-Key` a fresh one: a UUIDv7 as a quoted string, which is the
/// structured-field form that the IETF draft asks for.
///
/// Put it above [`RetryLayer`](crate::RetryLayer), which will then try such requests again. A caller that repeats a
/// call by hand, say after a restart, must set its own key and keep it.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttachIdempotencyKeyLayer {
    _private: (),
}

impl AttachIdempotencyKeyLayer {
    /// For the methods POST and PATCH.
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl<S> Layer<S> for AttachIdempotencyKeyLayer {
    type Service = AttachIdempotencyKey<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AttachIdempotencyKey { inner }
    }
}

/// A client whose calls have keys. Made by [`AttachIdempotencyKeyLayer`].
#[derive(Clone, Copy, Debug)]
pub struct AttachIdempotencyKey<S> {
    inner: S,
}

impl<S> AttachIdempotencyKey<S> {
    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, B> Service<http::Request<B>> for AttachIdempotencyKey<S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let wants_key = matches!(*request.method(), Method::POST | Method::PATCH);
        if wants_key && !request.headers().contains_key(HEADER) {
            let quoted = format!("\"{}\"", Uuid::now_v7().as_hyphenated());
            if let Ok(value) = HeaderValue::try_from(quoted) {
                request.headers_mut().insert(HEADER, value);
            }
        }
        self.inner.call(request)
    }
}

/// Whether the server can tell a repetition of this request by exactly one key that is not empty.
pub(crate) fn has_key(headers: &HeaderMap) -> bool {
    let mut keys = headers.get_all(HEADER).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) => !matches!(key.as_bytes().trim_ascii(), b"" | b"\"\""),
        _ => false,
    }
}
