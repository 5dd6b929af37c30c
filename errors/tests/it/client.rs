//! Failed answers of real servers, read by reqwest and by hyper's client.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mainstay_errors::{
    DOCUMENT_BYTES_MAX, Decoded, Error, Fault, FromProblem, OrProblem, Outcome, Problem,
    ProblemLayer, ProblemReader, Retry,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const PROBLEM: (&str, &str) = ("content-type", "application/problem+json");

/// Serves until the test ends, at an address like `http://127.0.0.1:4711`.
async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    at(address)
}

/// Answers each connection's first request with these bytes, and hangs up.
async fn say(answer: impl Into<Vec<u8>>) -> String {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            head(&mut stream).await;
            stream.write_all(&answer).await.unwrap();
        }
    });
    at(address)
}

/// Reads a request up to its end: an answer before it confuses the client.
async fn head(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
}

fn at(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn with_secret(url: &str) -> String {
    format!("{url}/?token=hunter2")
}

async fn asked(url: &str) -> reqwest::Response {
    reqwest::get(url).await.unwrap()
}

async fn asked_by_hyper(
    url: &str,
) -> http::Response<impl http_body::Body<Data = Bytes, Error: std::fmt::Debug> + std::fmt::Debug> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(url).body(Empty::<Bytes>::new()).unwrap();
    client.request(request).await.unwrap()
}

/// Both clients, which must see the same.
async fn problem_at(url: &str) -> Problem {
    let problem = asked(url).await.into_problem().await;
    let reader = ProblemReader::new().base(url);
    let other = asked_by_hyper(url).await.into_problem_with(&reader).await;
    assert_eq!(problem.to_bytes(), other.to_bytes());
    problem
}

#[tokio::test]
async fn an_answer_that_worked_passes_with_its_body_unread() {
    let app = Router::new().route("/", get(|| async { "all of it" }));
    let url = serve(app).await;
    let answer = asked(&url).await.or_problem().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "all of it");
    let answer = asked_by_hyper(&url).await.or_problem().await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "all of it");

    let (body, polled) = counted(usize::MAX);
    assert!(http::Response::new(body).or_problem().await.is_ok());
    assert_eq!(polled.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_document_is_read_and_its_relative_references_resolve_where_it_was_sent() {
    let document = || async {
        let headers = [PROBLEM, ("x-request-id", "r-1")];
        let body = r#"{"type":"../problems/order_frozen","instance":"?page=2","code":"order_frozen","detail":"Frozen."}"#;
        (StatusCode::CONFLICT, headers, body)
    };
    let url = serve(Router::new().route("/v1/orders/7", get(document))).await;
    let problem = problem_at(&format!("{url}/v1/orders/7")).await;
    assert_eq!((problem.status(), problem.code()), (409, "order_frozen"));
    assert_eq!(
        problem.type_uri(),
        format!("{url}/v1/problems/order_frozen")
    );
    let instance = format!("{url}/v1/orders/7?page=2");
    assert_eq!(problem.instance(), Some(&*instance));
    assert_eq!(problem.detail(), Some("Frozen."));
    assert_eq!(problem.request_id().unwrap().as_str(), "r-1");

    let reader = ProblemReader::new().base("https://public.example.com/");
    let answer = asked(&format!("{url}/v1/orders/7")).await;
    let problem = answer.or_problem_with(&reader).await.unwrap_err();
    assert_eq!(
        problem.type_uri(),
        "https://public.example.com/problems/order_frozen"
    );
}

#[tokio::test]
async fn the_callers_secrets_are_not_resolved_into_the_problem() {
    let document = || async {
        (
            StatusCode::GONE,
            [PROBLEM],
            r##"{"type":"#gone","instance":"x"}"##,
        )
    };
    let url = serve(Router::new().route("/orders", get(document))).await;
    let secret = format!(
        "{}/orders?token=hunter2",
        url.replace("//", "//user:hunter2@")
    );
    let problem = asked(&secret).await.into_problem().await;
    assert_eq!(problem.type_uri(), format!("{url}/orders#gone"));
    assert!(!String::from_utf8_lossy(&problem.to_bytes()).contains("hunter2"));
}

#[tokio::test]
async fn after_a_redirect_the_last_address_counts() {
    let document = || async { (StatusCode::NOT_FOUND, [PROBLEM], r#"{"type":"gone"}"#) };
    let moved = || async { (StatusCode::TEMPORARY_REDIRECT, [("location", "/new/place")]) };
    let app = Router::new()
        .route("/old", get(moved))
        .route("/new/place", get(document));
    let url = serve(app).await;
    let problem = asked(&format!("{url}/old")).await.into_problem().await;
    assert_eq!(problem.type_uri(), format!("{url}/new/gone"));
}

#[tokio::test]
async fn what_is_no_document_is_judged_by_status_and_headers() {
    let long = format!("{PROBLEM_HEAD}content-length: 900\r\n\r\n{{\"code\":\"half");
    let chunked =
        format!("{PROBLEM_HEAD}transfer-encoding: chunked\r\n\r\n9\r\n{{\"code\":\"\r\nzz");
    for (what, answer) in [
        (
            "a proxy's page",
            "HTTP/1.1 503 x\r\ncontent-type: text/html\r\nretry-after: 7\r\nconnection: close\r\n\r\n<h1>busy</h1>".to_owned(),
        ),
        (
            "a coding nobody undid",
            format!("{PROBLEM_HEAD}content-encoding: gzip\r\nconnection: close\r\n\r\n{{\"code\":\"x\"}}"),
        ),
        ("a body that breaks off", long),
        ("a coding that breaks off", chunked),
        ("nothing", format!("{PROBLEM_HEAD}content-length: 0\r\n\r\n")),
    ] {
        let problem = problem_at(&say(answer).await).await;
        assert_eq!((problem.status(), problem.code()), (503, "unavailable"), "{what}");
        assert_eq!(problem.retry(), Retry::After(Duration::from_secs(7)), "{what}");
        assert_eq!(problem.type_uri(), "about:blank", "{what}");
    }
}

const PROBLEM_HEAD: &str =
    "HTTP/1.1 503 x\r\ncontent-type: application/problem+json\r\nretry-after: 7\r\n";

#[tokio::test]
async fn a_head_request_leaves_status_and_headers() {
    let document = || async {
        (
            StatusCode::TOO_MANY_REQUESTS,
            [PROBLEM, ("retry-after", "3")],
            r#"{"code":"x"}"#,
        )
    };
    let url = serve(Router::new().route("/", get(document))).await;
    let answer = reqwest::Client::new().head(&url).send().await.unwrap();
    let problem = answer.or_problem().await.unwrap_err();
    assert_eq!(problem.code(), "resource_exhausted");
    assert_eq!(problem.retry_after(), Some(Duration::from_secs(3)));
}

#[tokio::test]
async fn a_date_is_counted_from_the_answers_date_and_else_from_now() {
    let answer = |headers: &str| format!("HTTP/1.1 503 x\r\nconnection: close\r\n{headers}\r\n");
    for (headers, wait) in [
        (
            "date: Sun, 06 Nov 1994 08:49:30 GMT\r\nretry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            Duration::from_secs(7),
        ),
        (
            "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            Duration::ZERO,
        ),
        // As far as a wait is believed.
        (
            "retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
            Duration::from_secs(366 * 24 * 3600),
        ),
    ] {
        let problem = problem_at(&say(answer(headers)).await).await;
        assert_eq!(problem.retry(), Retry::After(wait), "{headers}");
    }
}

/// Frames of 16 KiB without end, and how many were asked for. Tells when it is dropped.
#[derive(Debug)]
struct Counted {
    left: usize,
    polled: Arc<AtomicUsize>,
    dropped: Option<mpsc::Sender<()>>,
}

const FRAME: &[u8] = &[b' '; 16 * 1024];

fn counted(frames: usize) -> (Counted, Arc<AtomicUsize>) {
    let polled = Arc::new(AtomicUsize::new(0));
    let body = Counted {
        left: frames,
        polled: Arc::clone(&polled),
        dropped: None,
    };
    (body, polled)
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.polled.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(FRAME)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            let _ = dropped.try_send(());
        }
    }
}

#[tokio::test]
async fn no_more_than_the_bound_is_asked_for() {
    for (frames, max, asked_for) in [
        (usize::MAX, DOCUMENT_BYTES_MAX, 5),
        (usize::MAX, 0, 1),
        (usize::MAX, FRAME.len(), 2),
        (4, DOCUMENT_BYTES_MAX, 4),
    ] {
        let (body, polled) = counted(frames);
        let answer = http::Response::builder().status(502).body(body).unwrap();
        let reader = ProblemReader::new().document_bytes_max(max);
        let problem = answer.or_problem_with(&reader).await.unwrap_err();
        assert_eq!((problem.status(), problem.code()), (502, "unavailable"));
        assert_eq!(polled.load(Ordering::Relaxed), asked_for);
    }
}

#[tokio::test]
async fn a_body_without_end_is_let_go_of() {
    let (dropped, mut drops) = mpsc::channel(8);
    let endless = move || {
        let (mut body, _) = counted(usize::MAX);
        body.dropped = Some(dropped.clone());
        async { (StatusCode::BAD_GATEWAY, [PROBLEM], Body::new(body)) }
    };
    let url = serve(Router::new().route("/", get(endless))).await;
    assert_eq!(problem_at(&url).await.status(), 502);
    // The server could not send to the end that is not there, so it noticed that nobody listens: both times.
    drops.recv().await.unwrap();
    drops.recv().await.unwrap();
}

#[tokio::test]
async fn a_large_body_of_known_length_is_not_begun() {
    let large = || async {
        (
            StatusCode::BAD_GATEWAY,
            [PROBLEM],
            vec![b' '; 10 * 1024 * 1024],
        )
    };
    let url = serve(Router::new().route("/", get(large))).await;
    let answer = asked(&url).await;
    assert_eq!(answer.content_length(), Some(10 * 1024 * 1024));
    assert_eq!(answer.into_problem().await.code(), "unavailable");
}

#[derive(Debug, PartialEq, thiserror::Error, Fault)]
enum OrderError {
    #[error("order {id} not found")]
    #[fault(not_found, public)]
    OrderNotFound {
        #[fault(ext = "order_id")]
        id: u64,
    },
}

impl FromProblem for OrderError {
    fn from_problem(problem: &Problem) -> Option<Self> {
        let id = problem.extensions().get("order_id")?.as_u64()?;
        (problem.code() == "order_not_found").then_some(Self::OrderNotFound { id })
    }
}

/// Asks the service before it, and answers with whatever that failed with.
async fn relay(State(upstream): State<String>) -> Result<String, Error> {
    let answer = reqwest::get(upstream)
        .await
        .map_err(|error| Problem::from_reqwest(&error))?;
    let answer = answer.or_problem().await?;
    Ok(answer.text().await.unwrap_or_default())
}

async fn relaying(upstream: String) -> String {
    let app = Router::new()
        .route("/", get(relay))
        .with_state(upstream)
        .layer(ProblemLayer::default());
    serve(app).await
}

#[tokio::test]
async fn unknown_codes_survive_three_hops() {
    let newer = || async {
        let body = r#"{"type":"/problems/order_frozen","title":"Order frozen","status":409,"detail":"By the bank.",
            "instance":"/orders/7","code":"order_frozen","retry":"same_key_only","retry_after":30,"outcome":"applied",
            "request_id":"upstream-1","errors":[{"pointer":"/bank","code":"closed","params":{"days":2}}],
            "bank":{"name":"b","open":null},"x-old":[1.5]}"#;
        (StatusCode::CONFLICT, [PROBLEM, ("retry-after", "30")], body)
    };
    let origin = serve(Router::new().route("/", get(newer))).await;
    let middle = relaying(relaying(origin.clone()).await).await;
    let headers = asked(&middle).await.headers().clone();
    assert_eq!(headers["retry-after"], "30");

    let problem = asked_by_hyper(&middle)
        .await
        .or_problem()
        .await
        .unwrap_err();
    let Decoded::Unknown(problem) = problem.decode::<OrderError>() else {
        panic!("nobody here knows it");
    };
    assert_eq!((problem.status(), problem.code()), (409, "order_frozen"));
    assert_eq!(
        problem.type_uri(),
        format!("{origin}/problems/order_frozen")
    );
    assert_eq!(problem.title(), "Order frozen");
    assert_eq!(problem.detail(), Some("By the bank."));
    assert_eq!(problem.instance(), Some(&*format!("{origin}/orders/7")));
    assert_eq!(problem.retry(), Retry::SameKeyOnly);
    assert_eq!(problem.retry_after(), Some(Duration::from_secs(30)));
    assert_eq!(problem.outcome(), Outcome::Applied);
    assert_eq!(problem.errors()[0].params().count(), 1);
    assert_eq!(problem.extensions()["bank"]["name"], "b");
    assert_eq!(problem.extensions()["x-old"][0], 1.5);
    // Not the upstream's: each service answers under the id of its own request.
    assert_ne!(problem.request_id().unwrap().as_str(), "upstream-1");
}

#[tokio::test]
async fn known_codes_come_back_as_the_error_they_were() {
    async fn missing() -> Response {
        OrderError::OrderNotFound { id: 7 }.into_response()
    }
    let origin = serve(Router::new().route("/", get(missing))).await;
    let answer = asked(&relaying(origin).await).await;
    assert_eq!(
        answer.into_problem().await.decode::<OrderError>(),
        Decoded::Known(OrderError::OrderNotFound { id: 7 })
    );
}

/// What reqwest failed with, as a problem; no secret of the URL is in it.
async fn failure(request: reqwest::RequestBuilder) -> (u16, Retry, Outcome) {
    let error = request.send().await.unwrap_err();
    assert!(error.to_string().contains("hunter2"), "{error}");
    let problem = Problem::from_reqwest(&error);
    let shown = format!("{problem} {problem:?} {:?}", problem.to_bytes());
    assert!(
        !shown.contains("hunter2") && !shown.contains("127.0.0.1"),
        "{shown}"
    );
    assert_eq!(problem.type_uri(), "about:blank");
    (problem.status(), problem.retry(), problem.outcome())
}

#[tokio::test]
async fn no_answer_at_all_says_what_is_known_of_the_effect() {
    let client = reqwest::Client::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = at(listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(
        failure(client.post(with_secret(&closed))).await,
        (503, Retry::Backoff, Outcome::NotApplied)
    );

    // Connected to, and never accepted.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = at(listener.local_addr().unwrap());
    let short = Duration::from_millis(20);
    assert_eq!(
        failure(client.post(with_secret(&silent)).timeout(short)).await,
        (504, Retry::SameKeyOnly, Outcome::Unknown)
    );

    let hangs_up = say("").await;
    assert_eq!(
        failure(client.post(with_secret(&hangs_up))).await,
        (503, Retry::SameKeyOnly, Outcome::Unknown)
    );

    let round = |headers: HeaderMap| async move {
        let _ = headers;
        (
            StatusCode::TEMPORARY_REDIRECT,
            [("location", "/?token=hunter2")],
        )
    };
    let url = serve(Router::new().route("/", get(round))).await;
    assert_eq!(
        failure(client.get(with_secret(&url))).await,
        (503, Retry::SameKeyOnly, Outcome::Unknown)
    );
}

#[tokio::test]
async fn a_body_that_stalls_is_ended_by_the_callers_own_timeout() {
    let stalling = format!("{PROBLEM_HEAD}content-length: 900\r\n\r\n{{\"code\":");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = at(listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        stream.write_all(stalling.as_bytes()).await.unwrap();
        // Until the client hangs up.
        let mut request = Vec::new();
        stream.read_to_end(&mut request).await
    });
    let request = reqwest::Client::new().get(&url);
    let answer = request.timeout(Duration::from_millis(200)).send().await;
    let problem = answer.unwrap().into_problem().await;
    assert_eq!(problem.code(), "unavailable");
    assert_eq!(problem.retry(), Retry::After(Duration::from_secs(7)));
    let _ = serving.await.unwrap();
}

#[tokio::test]
async fn a_status_that_was_made_an_error_is_judged_as_that_status() {
    let url =
        serve(Router::new().route("/", get(|| async { StatusCode::TOO_MANY_REQUESTS }))).await;
    let error = asked(&url).await.error_for_status().unwrap_err();
    let problem = Problem::from_reqwest(&error);
    assert_eq!((problem.status(), problem.retry()), (429, Retry::Backoff));
}
