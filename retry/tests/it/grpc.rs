//! A real tonic client and server over loopback, without generated code.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::{Buf, BufMut};
use http::{HeaderMap, Request, Response};
use mainstay_retry::{
    AcceptDeadlineLayer, Backoff, BoxError, GrpcThrottle, ReplayBody, ReplayBodyLayer, RetryLayer,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Status,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming},
    codegen::http::uri::PathAndQuery,
    metadata::MetadataMap,
    server::{NamedService, UnaryService},
    transport::{Channel, Server},
};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::ms;

/// Messages that are their text.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        Ok(Some(String::from_utf8(bytes.into()).unwrap()))
    }
}

/// What the server answers with, call by call; then it echoes.
type Script = Arc<Mutex<Vec<Status>>>;
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

#[derive(Clone, Default)]
struct Echo {
    script: Script,
    seen: Seen,
}

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl UnaryService<String> for Echo {
    type Response = String;
    type Future = std::future::Ready<Result<tonic::Response<String>, Status>>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        let before = request.metadata().get("grpc-previous-rpc-attempts");
        let before = before.map(|number| number.to_str().unwrap().to_owned());
        let text = request.into_inner();
        self.seen.lock().unwrap().push((text.clone(), before));
        let mut script = self.script.lock().unwrap();
        std::future::ready(if script.is_empty() {
            Ok(tonic::Response::new(text))
        } else {
            Err(script.remove(0))
        })
    }
}

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Text);
            Ok(grpc.unary(echo, request).await)
        })
    }
}

async fn channel(echo: Echo) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(echo);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

fn pushed_back(code: Code, pushback: &'static str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    Status::with_metadata(code, "scripted", metadata)
}

/// Calls `method` of a server that answers with these statuses first: the outcome, and what the server saw.
async fn call(
    method: &'static str,
    script: impl IntoIterator<Item = Status>,
    key: Option<&'static str>,
) -> (Result<String, Code>, Vec<(String, Option<String>)>) {
    let echo = Echo::default();
    echo.script.lock().unwrap().extend(script);
    let seen = Arc::clone(&echo.seen);
    let stack = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(
            RetryLayer::grpc()
                .methods(["test.Echo/Say"])
                .backoff(Backoff::constant(ms(1)))
                .budget(GrpcThrottle::shared(100.0, 0.1).unwrap()),
        )
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel(echo).await);
    let mut client = Grpc::new(stack);
    client.ready().await.unwrap();
    let mut request = tonic::Request::new("hello".to_owned());
    if let Some(key) = key {
        request
            .metadata_mut()
            .insert("idempotency-key", key.parse().unwrap());
    }
    let path = PathAndQuery::from_static(method);
    let outcome = client.unary(request, path, Text).await;
    let outcome = outcome
        .map(tonic::Response::into_inner)
        .map_err(|status| status.code());
    let seen = seen.lock().unwrap().clone();
    (outcome, seen)
}

#[tokio::test]
async fn a_named_method_is_tried_again_with_its_body_and_its_count() {
    let down = || Status::unavailable("scripted");
    let (outcome, seen) = call("/test.Echo/Say", [down(), down()], None).await;
    assert_eq!(outcome.as_deref(), Ok("hello"));
    let hello = |before: Option<&str>| ("hello".to_owned(), before.map(str::to_owned));
    assert_eq!(seen, [hello(None), hello(Some("1")), hello(Some("2"))]);
}

#[tokio::test]
async fn other_methods_need_a_key_and_other_codes_are_final() {
    let cases = [
        ("/test.Echo/Pay", None, Status::unavailable("x"), 1),
        ("/test.Echo/Pay", Some("k1"), Status::unavailable("x"), 2),
        ("/test.Echo/Say", None, Status::aborted("x"), 1),
        ("/test.Echo/Say", None, Status::internal("x"), 1),
        ("/test.Echo/Say", None, Status::deadline_exceeded("x"), 1),
        ("/test.Echo/Say", None, Status::resource_exhausted("x"), 1),
        (
            "/test.Echo/Say",
            None,
            pushed_back(Code::ResourceExhausted, "5"),
            2,
        ),
        (
            "/test.Echo/Say",
            None,
            pushed_back(Code::Unavailable, "5"),
            2,
        ),
        (
            "/test.Echo/Say",
            None,
            pushed_back(Code::Unavailable, "-1"),
            1,
        ),
        (
            "/test.Echo/Say",
            None,
            pushed_back(Code::Unavailable, "soon"),
            1,
        ),
    ];
    for (method, key, status, times) in cases {
        let code = status.code();
        let (outcome, seen) = call(method, [status], key).await;
        assert_eq!(seen.len(), times, "{method} {key:?} {code:?}");
        assert_eq!(
            outcome,
            if times > 1 {
                Ok("hello".into())
            } else {
                Err(code)
            }
        );
    }
}

/// A server that fails after its first message has committed the call.
#[tokio::test(start_paused = true)]
async fn a_stream_that_has_begun_is_not_tried_again() {
    let asked = std::cell::Cell::new(0);
    let mut client = ServiceBuilder::new()
        .layer(RetryLayer::grpc().every_method())
        .service(service_fn(
            |_: Request<http_body_util::Empty<bytes::Bytes>>| {
                asked.set(asked.get() + 1);
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "14".parse().unwrap());
                let frames = [Ok::<_, Status>(http_body::Frame::trailers(trailers))];
                let body = Body::new(http_body_util::StreamBody::new(tokio_stream::iter(frames)));
                std::future::ready(Ok::<_, BoxError>(Response::new(body)))
            },
        ));
    let request = Request::post("http://localhost/test.Echo/Say");
    let request = request.body(http_body_util::Empty::new()).unwrap();
    let response = client.ready().await.unwrap().call(request).await.unwrap();
    let mut stream =
        Streaming::new_response(Text, response.into_body(), http::StatusCode::OK, None, None);
    assert_eq!(
        stream.message().await.unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(asked.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_call_has_is_for_all_attempts_together() {
    // No deadline layer: tonic's own `set_timeout`, which writes this header, is all there is.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let server = service_fn(move |request: Request<String>| {
        let timeout = request.headers().get("grpc-timeout").cloned();
        log.lock().unwrap().push(timeout.unwrap());
        let response = Response::builder().header("grpc-status", "14").body(());
        std::future::ready(Ok::<_, BoxError>(response.unwrap()))
    });
    let mut client = ServiceBuilder::new()
        .layer(
            RetryLayer::grpc()
                .every_method()
                .max_attempts(9)
                .backoff(Backoff::constant(ms(400))),
        )
        .service(server);
    let request = Request::post("http://localhost/test.Echo/Say")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "1S")
        .body(String::new());
    let response = client.ready().await.unwrap().call(request.unwrap()).await;
    assert_eq!(response.unwrap().headers()["grpc-status"], "14");
    assert_eq!(*seen.lock().unwrap(), ["1S", "600000u", "200000u"]);
}

#[tokio::test]
async fn a_tonic_server_refuses_a_call_that_nobody_waits_for() {
    let (echo, listener) = (
        Echo::default(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let (address, seen) = (listener.local_addr().unwrap(), Arc::clone(&echo.seen));
    let server = Server::builder()
        .layer(AcceptDeadlineLayer::at_most(ms(5_000)))
        .add_service(echo);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    let mut client = Grpc::new(endpoint.connect().await.unwrap());
    for (timeout, expected) in [
        ("5000", Ok("hello")),
        // Not in `grpc-timeout`, at which tonic's own layers would give up before ours is asked.
        ("0", Err(Code::DeadlineExceeded)),
    ] {
        client.ready().await.unwrap();
        let mut request = tonic::Request::new("hello".to_owned());
        let metadata = request.metadata_mut();
        metadata.insert("x-deadline-ms", timeout.parse().unwrap());
        let path = PathAndQuery::from_static("/test.Echo/Say");
        let outcome = client.unary(request, path, Text).await;
        let outcome = outcome.map(tonic::Response::into_inner);
        let outcome = outcome.as_deref().map_err(Status::code);
        assert_eq!(outcome, expected, "{timeout}");
    }
    assert_eq!(seen.lock().unwrap().len(), 1, "the handler saw one");
}
