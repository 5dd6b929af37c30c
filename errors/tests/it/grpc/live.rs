//! Calls through `StatusLayer`, most of them over HTTP/2 on loopback.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use mainstay_errors::{
    Category, Decoded, LogPolicy, Outcome, Problem, Registry, Retry, StatusLayer, VIOLATIONS_MAX,
};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use tower::{Layer, Service, ServiceExt, service_fn};

use super::service::{Shop, ShopError, ask, serve, watch};

fn request(what: &'static str) -> Request<Bytes> {
    let mut request = Request::new(Bytes::from_static(what.as_bytes()));
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", "r-1".parse().unwrap());
    request
}

async fn failure(channel: &Channel, what: &'static str) -> Status {
    ask(channel, request(what)).await.unwrap_err()
}

/// What holds for every failed call: our details with the id, and nothing internal.
fn read(status: &Status) -> Problem {
    let shown = format!(
        "{status:?} {:?} {}",
        status.get_error_details(),
        String::from_utf8_lossy(status.details())
    );
    assert!(!shown.contains("hunter2"), "{shown}");
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert!(info.metadata.contains_key("retry") && info.metadata.contains_key("outcome"));
    let id = status.metadata().get("x-request-id").unwrap();
    let problem = Problem::from_status(status);
    assert_eq!(problem.request_id().unwrap().as_str(), id);
    problem
}

#[tokio::test]
async fn an_error_of_the_service_comes_back_as_itself() {
    let (_, channel) = serve(StatusLayer::default().domain("shop.example.com")).await;
    let status = failure(&channel, "sold out").await;
    assert_eq!(status.message(), "no tea left");
    let problem = read(&status);
    assert_eq!(problem.request_id().unwrap().as_str(), "r-1");
    assert_eq!(problem.domain(), Some("shop.example.com"));
    let expected = ShopError::SoldOut { what: "tea".into() };
    assert_eq!(problem.decode::<ShopError>(), Decoded::Known(expected));

    let problem = read(&failure(&channel, "warehouse").await);
    assert_eq!(problem.retry(), Retry::After(Duration::from_millis(1500)));
    assert_eq!(problem.outcome(), Outcome::NotApplied);
    assert_eq!(problem.detail(), None);
    assert_eq!(problem.known::<ShopError>(), Some(ShopError::Warehouse));
    // Also when somebody has wrapped its status in another error.
    let problem = read(&failure(&channel, "wrapped").await);
    assert_eq!(problem.known::<ShopError>(), Some(ShopError::Warehouse));

    let problem = read(&failure(&channel, "violations").await);
    assert_eq!(problem.errors()[0].pointer(), "/lines/0/amount");
    assert_eq!(problem.status(), 422);
    assert_eq!(read(&failure(&channel, "problem").await).code(), "conflict");
}

#[tokio::test]
async fn bugs_and_panics_say_nothing_of_themselves() {
    let (_, channel) = serve(StatusLayer::default()).await;
    for what in ["bug", "panic"] {
        let status = failure(&channel, what).await;
        assert_eq!(
            (status.code(), status.message()),
            (Code::Internal, "Internal error")
        );
        let problem = read(&status);
        assert_eq!(
            (problem.code(), problem.outcome()),
            ("internal", Outcome::Unknown)
        );
    }
    assert_eq!(
        ask(&channel, request("still here")).await.unwrap(),
        "still here"
    );
}

#[tokio::test]
async fn a_status_made_by_hand_is_completed_and_one_made_of_an_error_is_emptied() {
    let (_, channel) = serve(StatusLayer::default().domain("shop.example.com")).await;
    let status = failure(&channel, "by hand").await;
    assert_eq!(status.message(), "order 7 is not there");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str()),
        ("NOT_FOUND", "shop.example.com")
    );
    assert_eq!(read(&status).detail(), Some("order 7 is not there"));

    let status = failure(&channel, "converted").await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unknown, "Internal Server Error")
    );
    read(&status);

    let status = failure(&channel, "timeout").await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(read(&status).retry(), Retry::SameKeyOnly);

    let status = failure(&channel, "debug info").await;
    assert_eq!(status.message(), "enough for today");
    assert!(status.get_details_debug_info().is_none());
    assert!(
        status.get_details_quota_failure().is_some(),
        "what is not ours stays"
    );
    assert_eq!(read(&status).code(), "resource_exhausted");
}

#[tokio::test]
async fn a_monstrous_problem_arrives_as_a_status() {
    let (_, channel) = serve(StatusLayer::default()).await;
    let status = failure(&channel, "monster").await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let problem = read(&status);
    assert_eq!(problem.code(), "monstrous");
    assert!(problem.errors().len() < VIOLATIONS_MAX);
    assert!(problem.extensions().len() > 5, "the small ones");
}

#[tokio::test]
async fn a_stream_fails_in_its_trailers() {
    let (_, channel) = serve(StatusLayer::default()).await;
    let (messages, status) = watch(&channel, "second").await;
    assert_eq!((messages.len(), status.is_none()), (2, true));
    for (what, code) in [
        ("sold out", "sold_out"),
        ("bug", "internal"),
        ("converted", "unknown"),
        ("by hand", "not_found"),
        ("panic while sending", "internal"),
        ("monster", "monstrous"),
    ] {
        let (messages, status) = watch(&channel, what).await;
        // tonic loses what it has gathered when the encoder panics.
        let is_panic = what == "panic while sending";
        assert_eq!(messages.len(), usize::from(!is_panic), "{what}");
        assert_eq!(read(&status.unwrap()).code(), code);
    }
}

#[tokio::test]
async fn only_a_well_formed_id_reaches_the_handler() {
    let (_, channel) = serve(StatusLayer::default()).await;
    assert_eq!(ask(&channel, request("id")).await.unwrap(), "r-1");
    assert_eq!(ask(&channel, request("header")).await.unwrap(), "r-1");
    for ids in [vec!["a b"], vec!["r-1", "r-2"]] {
        for what in ["id", "header", "sold out"] {
            let mut request = Request::new(Bytes::from_static(what.as_bytes()));
            for id in &ids {
                request
                    .metadata_mut()
                    .append("x-request-id", id.parse().unwrap());
            }
            match ask(&channel, request).await {
                Ok(seen) => assert_eq!(seen, "", "{what} {ids:?}"),
                Err(status) => {
                    let made = read(&status).request_id().unwrap().to_string();
                    assert!(!ids.contains(&made.as_str()));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_did_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let channel = Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    let status = ask(&channel, request("x")).await.unwrap_err();
    let problem = Problem::from_status(&status);
    assert_eq!(
        (problem.category(), problem.outcome(), problem.retry()),
        (Category::Unavailable, Outcome::NotApplied, Retry::Backoff),
        "{status:?}"
    );
    assert_eq!(problem.detail(), None);
}

#[tokio::test]
async fn a_connection_that_breaks_off_leaves_the_outcome_unknown() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            // The preface and the settings of HTTP/2, then the request is read, and nothing answers it.
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            peer.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            let mut read = Vec::new();
            while !read.windows(9).any(|bytes| bytes == b"never-end") {
                if peer.read_buf(&mut read).await.unwrap() == 0 {
                    break;
                }
            }
        }
    });
    let channel = Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    let status = ask(&channel, request("never-end")).await.unwrap_err();
    let problem = Problem::from_status(&status);
    assert_eq!(problem.outcome(), Outcome::Unknown, "{status:?}");
    assert_eq!(problem.retry(), Retry::SameKeyOnly, "{status:?}");
    assert_eq!(problem.detail(), None, "{status:?}");
}

#[tokio::test]
async fn a_deadline_of_the_client_is_a_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let channel = Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .timeout(Duration::from_millis(20))
        .connect_lazy();
    let status = ask(&channel, request("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::Cancelled, "what tonic says");
    let problem = Problem::from_status(&status);
    assert_eq!(
        (problem.category(), problem.retry(), problem.outcome()),
        (
            Category::DeadlineExceeded,
            Retry::SameKeyOnly,
            Outcome::Unknown
        )
    );
}

/// A call without a connection: headers, body and trailers as they would travel.
async fn travelling(layer: StatusLayer, path: &str, what: &'static str) -> String {
    let mut framed = vec![0, 0, 0, 0, u8::try_from(what.len()).unwrap()];
    framed.extend(what.as_bytes());
    let request = http::Request::post(path)
        .header("content-type", "application/grpc+raw")
        .body(tonic::body::Body::new(http_body_util::Full::new(
            Bytes::from(framed),
        )))
        .unwrap();
    let response = layer.layer(Shop).oneshot(request).await.unwrap();
    assert!(response.extensions().get::<Status>().is_none());
    let (parts, body) = response.into_parts();
    let mut shown = format!("{:?}", parts.headers);
    let mut body = std::pin::pin!(body);
    let mut details = parts.headers.get("grpc-status-details-bin").cloned();
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.unwrap().into_trailers() {
            Ok(trailers) => {
                shown += &format!("{trailers:?}");
                details = trailers.get("grpc-status-details-bin").cloned();
            }
            Err(data) => shown += &String::from_utf8_lossy(&data.into_data().unwrap()),
        }
    }
    let details = details.expect("details");
    let details = http::HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status-details-bin"),
        details,
    )]);
    let details = tonic::metadata::MetadataMap::from_headers(details);
    let details = details.get_bin("grpc-status-details-bin").unwrap();
    shown + &String::from_utf8_lossy(&details.to_bytes().unwrap())
}

#[tokio::test]
async fn no_secret_is_in_any_byte_that_travels() {
    for path in ["/shop.Shop/Ask", "/shop.Shop/Watch"] {
        for what in [
            "warehouse",
            "bug",
            "panic",
            "converted",
            "wrapped",
            "debug info",
        ] {
            let is_watched = path.ends_with("Watch");
            if is_watched && what == "wrapped" {
                continue; // tonic has copied the status into the trailers by then
            }
            let shown = travelling(StatusLayer::default(), path, what).await;
            assert!(!shown.contains("hunter2"), "{path} {what}: {shown}");
            assert!(
                shown.contains("google.rpc.ErrorInfo"),
                "{path} {what}: {shown}"
            );
        }
    }
}

#[tokio::test]
async fn the_registrys_base_is_written_into_type_and_help() {
    let registry = Registry::new().type_base("https://errors.example.com/");
    let (_, channel) = serve(StatusLayer::new(&registry)).await;
    let status = failure(&channel, "sold out").await;
    let help = status.get_details_help().unwrap();
    assert_eq!(help.links[0].url, "https://errors.example.com/sold_out");
    assert_eq!(
        read(&status).type_uri(),
        "https://errors.example.com/sold_out"
    );
}

type Answer = http::Response<tonic::body::Body>;

fn call(content_type: &str) -> http::Request<()> {
    let request = http::Request::post("/a/B").header("content-type", content_type);
    request.body(()).unwrap()
}

#[tokio::test]
async fn one_service_can_be_wrapped_by_itself() {
    let routes = tonic::service::Routes::new(StatusLayer::default().layer(Shop));
    let request = http::Request::post("/shop.Shop/Ask")
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(http_body_util::Full::new(
            Bytes::from_static(b"\0\0\0\0\x08sold out"),
        )))
        .unwrap();
    let response = routes.prepare().oneshot(request).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(read(&status).code(), "sold_out");
}

#[tokio::test]
async fn what_is_not_grpc_passes_untouched() {
    let inner = service_fn(|_: http::Request<()>| {
        ready(Ok::<Answer, Infallible>(
            Status::not_found("by hand").into_http(),
        ))
    });
    for (content_type, is_ours) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;x=y", true),
        ("application/grpc-web", false),
        ("application/grpc-web+proto", false),
        ("application/json", false),
    ] {
        let service = StatusLayer::default().layer(inner);
        let response = service.oneshot(call(content_type)).await.unwrap();
        let headers = response.headers();
        assert_eq!(
            headers.contains_key("x-request-id"),
            is_ours,
            "{content_type}"
        );
    }
}

#[tokio::test]
async fn details_that_are_no_base64_do_no_harm() {
    let inner = service_fn(|_: http::Request<()>| {
        let mut response = Answer::new(tonic::body::Body::empty());
        let headers = response.headers_mut();
        headers.insert("grpc-status", "5".parse().unwrap());
        headers.insert("grpc-status-details-bin", "!".parse().unwrap());
        ready(Ok::<_, Infallible>(response))
    });
    let service = StatusLayer::default().layer(inner);
    let response = service.oneshot(call("application/grpc")).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(Problem::from_status(&status).code(), "not_found");
}

#[derive(Debug, Default)]
struct Probe(bool);

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self(false)
    }
}

impl Service<http::Request<()>> for Probe {
    type Response = Answer;
    type Error = Infallible;
    type Future = Ready<Result<Answer, Infallible>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0 = true;
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: http::Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.0), "called before it was ready");
        ready(Ok(Answer::new(tonic::body::Body::empty())))
    }
}

#[tokio::test]
async fn the_instance_that_was_ready_takes_the_call() {
    let service = StatusLayer::default().layer(Probe::default());
    let response = service.oneshot(call("application/grpc")).await.unwrap();
    assert!(!response.headers().contains_key("grpc-status"));
}

#[test]
fn a_call_that_succeeds_costs_no_allocation() {
    let mut service = StatusLayer::default().layer(Probe::default());
    let request = call("application/grpc");
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut response = None;
    let counted = allocation_counter::measure(|| {
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut future = std::pin::pin!(service.call(request));
        response = Some(future.as_mut().poll(&mut cx));
    });
    assert_eq!(counted.count_total, 0);
    assert!(matches!(response, Some(Poll::Ready(Ok(_)))));
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The log lines of one call, on this thread.
async fn logged(policy: LogPolicy, what: &'static str) -> String {
    let lines = Lines::default();
    let subscriber = || {
        let writer = lines.clone();
        tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_max_level(tracing::Level::INFO)
            .without_time()
            .with_ansi(false)
            .finish()
    };
    // Two, because a call site that is first met while only one is alive asks the default of whichever thread met it.
    let _other = tracing::Dispatch::new(subscriber());
    let _guard = tracing::subscriber::set_default(subscriber());
    travelling(StatusLayer::default().log(policy), "/shop.Shop/Ask", what).await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let id = text
        .split("request_id=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    text.replace(id.unwrap_or("none"), "r-1")
}

#[tokio::test]
async fn each_failure_is_logged_once_with_its_cause() {
    let default = LogPolicy::default;
    insta::assert_snapshot!("grpc_log_bug", logged(default(), "bug").await);
    insta::assert_snapshot!("grpc_log_panic", logged(default(), "panic").await);
    insta::assert_snapshot!("grpc_log_converted", logged(default(), "converted").await);
    insta::assert_snapshot!("grpc_log_wrapped", logged(default(), "wrapped").await);
    assert_eq!(
        logged(default(), "by hand").await,
        "",
        "a caller's mistake is debug"
    );
    let louder = default().level(Category::NotFound, tracing::Level::INFO);
    insta::assert_snapshot!("grpc_log_by_hand", logged(louder, "by hand").await);
    assert_eq!(
        logged(default().silence(Category::Internal), "bug").await,
        ""
    );
}
