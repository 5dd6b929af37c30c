//! A service of tonic without generated code: what a call asks for is the bytes it sends.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use mainstay_errors::{Error, Fault, FromProblem, Problem, RequestId, Violation, Violations};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::tokio_stream as stream;
use tonic::server::NamedService;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use tower::service_fn;

/// Bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        assert!(item != "unsendable", "hunter2");
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining())))
    }
}

#[derive(Debug, PartialEq, thiserror::Error, Fault)]
pub(super) enum ShopError {
    /// The shelf is empty.
    #[error("no {what} left")]
    #[fault(failed_precondition, public)]
    SoldOut {
        #[fault(ext)]
        what: String,
    },
    #[error("dsn=postgres://hunter2")]
    #[fault(unavailable, retry_after = "1500ms", outcome = not_applied)]
    Warehouse,
}

impl FromProblem for ShopError {
    fn from_problem(problem: &Problem) -> Option<Self> {
        match problem.code() {
            "sold_out" => Some(Self::SoldOut {
                what: problem.extensions().get("what")?.as_str()?.to_owned(),
            }),
            "warehouse" => Some(Self::Warehouse),
            _ => None,
        }
    }
}

/// A hundred violations of 4 KiB and a megabyte of members.
fn monster() -> Problem {
    let base = Problem::new(mainstay_errors::Category::InvalidArgument, "monstrous")
        .with_detail("ä".repeat(4096))
        .with_violations((0..100).map(|at| {
            Violation::body(format!("/lines/{at}"), "bad").with_detail("x".repeat(4096))
        }));
    (0..100).fold(base, |problem, at| {
        problem
            .with_extension(&format!("member_{at}"), "y".repeat(100 * at))
            .unwrap()
    })
}

fn io(text: &str) -> std::io::Error {
    std::io::Error::other(text.to_owned())
}

/// What a handler says to a request.
fn handle(asked: &Request<Bytes>) -> Result<Bytes, Status> {
    let id = asked.extensions().get::<RequestId>();
    match asked.get_ref().as_ref() {
        b"sold out" => Err(Error::from(ShopError::SoldOut { what: "tea".into() }))?,
        b"warehouse" => Err(Error::from(ShopError::Warehouse).context("hunter2"))?,
        b"bug" => Err(Error::internal(io("hunter2")).context("hunter2"))?,
        b"violations" => Err(Violations::from(Violation::body(
            "/lines/0/amount",
            "too_small",
        )))?,
        b"problem" => Err(Problem::new(mainstay_errors::Category::Aborted, "conflict"))?,
        b"monster" => Err(monster())?,
        b"panic" => panic!("hunter2"),
        b"by hand" => Err(Status::not_found("order 7 is not there")),
        b"converted" => Err(Status::from_error(Box::new(io("hunter2")))),
        b"wrapped" => {
            let status = Status::from(Error::from(ShopError::Warehouse));
            Err(Status::from_error(Box::new(io_of(status))))
        }
        b"timeout" => Err(Status::from_error(Box::new(tonic::TimeoutExpired(())))),
        b"debug info" => {
            use tonic_types::{ErrorDetails, StatusExt};
            let mut details = ErrorDetails::new();
            details
                .set_debug_info(vec!["hunter2".to_owned()], "hunter2")
                .add_quota_failure_violation("clientip:1.1.1.1", "50 a day");
            Err(Status::with_error_details(
                tonic::Code::ResourceExhausted,
                "enough for today",
                details,
            ))
        }
        b"id" => Ok(id.map_or_else(Bytes::new, |id| {
            Bytes::copy_from_slice(id.as_str().as_bytes())
        })),
        b"header" => Ok(asked
            .metadata()
            .get("x-request-id")
            .map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes()))),
        other => Ok(Bytes::copy_from_slice(other)),
    }
}

fn io_of(status: Status) -> std::io::Error {
    std::io::Error::other(status)
}

/// `/shop.Shop/Ask` answers once; `/shop.Shop/Watch` sends a message first, and what it was asked for then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shop;

impl NamedService for Shop {
    const NAME: &'static str = "shop.Shop";
}

impl tower::Service<http::Request<tonic::body::Body>> for Shop {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw);
            Ok(if request.uri().path() == "/shop.Shop/Watch" {
                let watch = service_fn(|asked: Request<Bytes>| async move {
                    let last = match asked.get_ref().as_ref() {
                        b"panic while sending" => Ok(Bytes::from_static(b"unsendable")),
                        _ => handle(&asked),
                    };
                    let messages = [Ok(Bytes::from_static(b"first")), last];
                    Ok::<_, Status>(Response::new(stream::iter(messages)))
                });
                grpc.server_streaming(watch, request).await
            } else {
                let ask =
                    service_fn(
                        |asked: Request<Bytes>| async move { handle(&asked).map(Response::new) },
                    );
                grpc.unary(ask, request).await
            })
        })
    }
}

/// Serves over loopback and connects.
pub(super) async fn serve<L>(layer: L) -> (SocketAddr, Channel)
where
    L: tower::Layer<tonic::service::Routes> + Clone + Send + 'static,
    L::Service: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<mainstay_errors::StatusBody<tonic::body::Body>>,
            Error = Infallible,
        > + Clone
        + Send
        + 'static,
    <L::Service as tower::Service<http::Request<tonic::body::Body>>>::Future: Send,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = Server::builder().layer(layer).add_service(Shop);
    tokio::spawn(server.serve_with_incoming(incoming));
    let channel = Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    (address, channel)
}

pub(super) async fn ask(channel: &Channel, request: Request<Bytes>) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/shop.Shop/Ask");
    let answer = client.unary(request, path, Raw).await?;
    Ok(answer.into_inner())
}

/// The messages of a stream and how it ended.
pub(super) async fn watch(channel: &Channel, what: &'static str) -> (Vec<Bytes>, Option<Status>) {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/shop.Shop/Watch");
    let request = Request::new(Bytes::from_static(what.as_bytes()));
    let answer = client.server_streaming(request, path, Raw).await.unwrap();
    let mut messages = Vec::new();
    let mut body = answer.into_inner();
    loop {
        match body.message().await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, None),
            Err(status) => return (messages, Some(status)),
        }
    }
}
