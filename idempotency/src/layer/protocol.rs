//! Which protocol a layer speaks.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum_core::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tower_service::Service;

use super::config::Config;
use super::lazy::Asked;
use super::run::Ran;
use crate::Wait;
use crate::inflight::Ticket;
use crate::store::Claim;

/// What keeps the keys of an [`IdempotencyLayer`](crate::IdempotencyLayer), and with it how: a database by the Local protocol,
/// [`Leases`](crate::leased::Leases) by the Leased one. These are all there are: implement
/// [`IdempotencyDb`](crate::IdempotencyDb) or [`LeasedStore`](crate::leased::LeasedStore) for more.
pub trait Protocol: Runs {}

impl<P: Runs> Protocol for P {}

/// A protocol, to the layer.
pub trait Runs: Sized + 'static {
    type Keys: Clone + Send + Sync + 'static;

    /// From the claim to the answer, in a task that nobody drops.
    fn run<I, B>(
        config: Arc<Config<Self>>,
        inner: I,
        request: Request<Bytes>,
        claim: Claim,
        ticket: Ticket,
        wait: Wait,
    ) -> impl Future<Output = Ran<I::Error>> + Send
    where
        I: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        I::Future: Send + 'static,
        I::Error: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>;

    /// Ends what a handler asked for in a request without a key.
    fn end(asked: Asked, response: Response<Body>) -> Ended;
}

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// The answer to a request without a key.
#[expect(missing_debug_implementations, reason = "nobody outside can have one")]
pub enum Ended {
    Now(Response<Body>),
    /// After a commit.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}
