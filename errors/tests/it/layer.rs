//! What a client sees through `ProblemLayer`, failure by failure.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::{HeaderValue, Request, StatusCode, header};
use mainstay_errors::{
    Category, Error, Fault, Json, LogPolicy, PassThrough, Path, Problem, ProblemLayer, Query,
    Registry, RequestId, Violation, Violations,
};
use serde::Deserialize;
use serde_json::json;
use tower::{Layer, ServiceExt, service_fn};
use uuid::Uuid;

use crate::answer::{Answer, send};

#[derive(Debug, thiserror::Error, Fault)]
enum ShopError {
    /// The shelf is empty.
    #[error("no {what} left")]
    #[fault(failed_precondition, status = 409, public)]
    SoldOut {
        #[fault(ext)]
        what: &'static str,
    },
    #[error("dsn=postgres://secret")]
    #[fault(unavailable, retry_after = "1500ms", outcome = not_applied)]
    Warehouse(#[source] std::io::Error),
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only read into")]
struct NewOrder {
    amount: u32,
    currency: String,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "only read into")]
struct Page {
    limit: u8,
    exact: Option<bool>,
}

fn registry() -> Registry {
    Registry::new().with::<ShopError>()
}

async fn recorded() -> Response {
    // As an idempotency layer replays it: the bytes are ours, the failure itself is gone.
    let bytes = Problem::new(Category::AlreadyExists, "taken").to_bytes();
    (
        StatusCode::CONFLICT,
        [(header::CONTENT_TYPE, "application/problem+json")],
        bytes,
    )
        .into_response()
}

fn app() -> Router {
    inner().layer(ProblemLayer::new(registry()))
}

fn inner() -> Router {
    Router::new()
        .route("/ok", get(|id: RequestId| async move { id.to_string() }))
        .route(
            "/sold-out",
            get(|| async { ShopError::SoldOut { what: "tea" } }),
        )
        .route(
            "/warehouse",
            get(|| async { Err::<(), _>(ShopError::Warehouse(std::io::Error::other("hunter2"))) }),
        )
        .route(
            "/violations",
            get(|| async {
                Violations::from_iter([Violation::body("/a", "bad"), Violation::query("b", "bad")])
            }),
        )
        .route(
            "/bug",
            get(|| async { Error::internal("hunter2").context("at night") }),
        )
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("hunter2")
                }
            }),
        )
        .route(
            "/text",
            get(|| async { (StatusCode::BAD_REQUEST, [("set-cookie", "a=b")], "hunter2") }),
        )
        .route(
            "/html",
            get(|| async { (StatusCode::NOT_FOUND, axum::response::Html("<p>no")) }),
        )
        .route(
            "/json",
            get(|| async { (StatusCode::NOT_FOUND, axum::Json(json!({"no": 1}))) }),
        )
        .route("/slow", get(|| async { StatusCode::REQUEST_TIMEOUT }))
        .route(
            "/through",
            get(|| async { (StatusCode::BAD_GATEWAY, Extension(PassThrough), "upstream") }),
        )
        .route("/recorded", get(recorded))
        .route(
            "/status",
            get(|| async {
                (
                    StatusCode::GONE,
                    Problem::new(Category::NotFound, "order_gone"),
                )
            }),
        )
        .route("/orders", post(|_: Json<NewOrder>| async {}))
        .route("/orders/{id}", get(|_: Path<Uuid>| async {}))
        .route("/pairs/{left}/{right}", get(|_: Path<(u8, u8)>| async {}))
        .route("/page", get(|_: Query<Page>| async {}))
        .merge(registry().pages("/problems"))
        .layer(DefaultBodyLimit::max(512))
}

async fn ask(path: &str) -> Answer {
    send(
        app(),
        Request::get(path)
            .header("x-request-id", "r-1")
            .body(Body::empty())
            .unwrap(),
    )
    .await
}

async fn order(content_type: &str, body: impl Into<Body>) -> Answer {
    let request = Request::post("/orders")
        .header("x-request-id", "r-1")
        .header("content-type", content_type);
    send(app(), request.body(body.into()).unwrap()).await
}

/// Status and document in one golden text.
macro_rules! golden {
    ($name:literal, $answer:expr) => {{
        let answer = $answer;
        answer.problem();
        insta::assert_snapshot!($name, answer.body);
        answer
    }};
}

#[tokio::test]
async fn a_fault_of_the_application_is_its_document() {
    golden!("sold_out", ask("/sold-out").await);
    golden!("violations", ask("/violations").await);
    let answer = golden!("warehouse", ask("/warehouse").await);
    assert_eq!(answer.headers["retry-after"], "2");
    assert_eq!(answer.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn bugs_and_panics_say_nothing_of_themselves() {
    golden!("bug", ask("/bug").await);
    golden!("panic", ask("/panic").await);
}

#[tokio::test]
async fn failures_of_the_router_are_documents() {
    golden!("not_found", ask("/nowhere").await);
    let answer = golden!("method_not_allowed", ask("/orders").await);
    assert_eq!(answer.headers["allow"], "POST");
}

#[tokio::test]
async fn a_401_without_a_challenge_gets_the_layers() {
    let own = [(header::WWW_AUTHENTICATE, "Digest")];
    let inner = Router::new()
        .route("/bare", get(|| async { StatusCode::UNAUTHORIZED }))
        .route(
            "/own",
            get(move || async move { (StatusCode::UNAUTHORIZED, own) }),
        )
        .route("/other", get(|| async { StatusCode::FORBIDDEN }));
    let challenge = HeaderValue::from_static("Bearer");
    let app = inner.layer(ProblemLayer::new(registry()).challenge(challenge));
    for (path, expected) in [
        ("/bare", Some("Bearer")),
        ("/own", Some("Digest")),
        ("/other", None),
    ] {
        let answer = send(app.clone(), Request::get(path).body(Body::empty()).unwrap()).await;
        let found = answer.headers.get(header::WWW_AUTHENTICATE);
        assert_eq!(
            found.map(|value| value.to_str().unwrap()),
            expected,
            "{path}"
        );
    }
}

#[tokio::test]
async fn text_of_another_layer_is_dropped_and_its_headers_are_kept() {
    let answer = golden!("text", ask("/text").await);
    assert_eq!(answer.headers["set-cookie"], "a=b");
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn a_slow_handlers_408_becomes_504() {
    assert_eq!(golden!("timeout", ask("/slow").await).status, 504);
}

#[tokio::test]
async fn what_has_a_content_type_of_its_own_passes() {
    for (path, body) in [
        ("/html", "<p>no"),
        ("/json", r#"{"no":1}"#),
        ("/through", "upstream"),
    ] {
        let answer = ask(path).await;
        assert_eq!(answer.body, body);
        assert_eq!(answer.headers["x-request-id"], "r-1");
    }
}

#[tokio::test]
async fn a_recorded_document_gets_the_id_of_this_request() {
    golden!("recorded", ask("/recorded").await);
}

#[tokio::test]
async fn document_and_response_agree_when_a_handler_sets_another_status() {
    assert_eq!(ask("/status").await.problem()["status"], 410);
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let get = ask("/warehouse").await;
    let request = Request::head("/warehouse")
        .header("x-request-id", "r-1")
        .body(Body::empty())
        .unwrap();
    let head = send(app(), request).await;
    assert_eq!((head.status, head.headers), (get.status, get.headers));
    assert_eq!(head.body, "");
}

#[tokio::test]
async fn a_request_id_is_taken_if_well_formed_and_made_otherwise() {
    let id_for = async |given: Option<&[u8]>| {
        let mut request = Request::get("/ok");
        if let Some(given) = given {
            request = request.header("x-request-id", given);
        }
        let answer = send(app(), request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            answer.headers["x-request-id"], answer.body,
            "handler and client see the same"
        );
        answer.body
    };
    assert_eq!(id_for(Some(b"abc.D-4_2")).await, "abc.D-4_2");
    let too_long = [b'a'; 129];
    for bad in [
        None,
        Some(b"".as_slice()),
        Some(b"a b"),
        Some(b"\xff"),
        Some(b"<script>"),
        Some(&too_long),
    ] {
        let made = Uuid::parse_str(&id_for(bad).await).unwrap();
        assert_eq!(made.get_version_num(), 7);
    }
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_answered_with_every_misfit() {
    golden!(
        "json_misfits",
        order("application/json; charset=utf-8", r#"{"amount":-1}"#).await
    );
    assert_eq!(
        order("application/json", r#"{"amount":1,"amount":1}"#)
            .await
            .problem()["status"],
        422
    );
}

#[tokio::test]
async fn a_body_that_is_not_json_is_malformed() {
    golden!(
        "malformed_json",
        order("application/json", "{\"amount\":\n 1,}").await
    );
    for body in [
        "",
        "{",
        "hunter2",
        "{\"amount\":1,\"currency\":\"EUR\"} hunter2",
        "\u{feff}{}",
    ] {
        assert_eq!(
            order("application/json", body).await.problem()["code"],
            "malformed_json",
            "{body:?}"
        );
    }
    assert_eq!(
        order("application/json", "[".repeat(500)).await.problem()["status"],
        400
    );
}

#[tokio::test]
async fn a_body_of_another_type_or_size_is_refused() {
    golden!("unsupported_media_type", order("text/plain", "{}").await);
    golden!(
        "payload_too_large",
        order("application/json", "x".repeat(600)).await
    );
}

#[tokio::test]
async fn parameters_are_named_in_their_violations() {
    golden!("query", ask("/page?limit=300&exact=maybe").await);
    golden!("query_missing", ask("/page").await);
    golden!("query_repeated", ask("/page?limit=1&limit=2").await);
    golden!("path", ask("/orders/nonsense").await);
    golden!("path_pair", ask("/pairs/1/hunter2").await);
}

#[tokio::test]
async fn every_type_resolves_on_the_service_itself() {
    for path in [
        "/sold-out",
        "/warehouse",
        "/violations",
        "/bug",
        "/nowhere",
        "/slow",
        "/page",
        "/orders",
    ] {
        let problem = ask(path).await.problem();
        let page = ask(problem["type"].as_str().unwrap()).await;
        assert_eq!(page.status, 200, "{problem}");
        assert!(
            page.headers["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/html")
        );
        assert!(page.body.contains(problem["title"].as_str().unwrap()));
    }
    assert_eq!(ask("/problems").await.status, 200);
    assert_eq!(ask("/problems/nonsense").await.problem()["status"], 404);
}

#[tokio::test]
async fn a_page_is_json_for_who_asks_for_json() {
    let request = Request::get("/problems/sold_out").header("accept", "application/json");
    let page = send(app(), request.body(Body::empty()).unwrap()).await;
    assert_eq!(page.json()["docs"], "The shelf is empty.");
}

#[tokio::test]
async fn the_registrys_base_is_written_into_type() {
    let registry = registry().type_base("https://errors.example.com/");
    let app = Router::new()
        .route("/", get(|| async { ShopError::SoldOut { what: "tea" } }))
        .layer(ProblemLayer::new(&registry));
    let answer = send(app, Request::get("/").body(Body::empty()).unwrap()).await;
    assert_eq!(
        answer.problem()["type"],
        "https://errors.example.com/sold_out"
    );
}

#[tokio::test]
async fn violations_are_answered_with_the_registrys_status() {
    for status in [400, 422] {
        let layer = ProblemLayer::new(registry().validation_status(status));
        let app = inner().layer(layer);
        let get = |path| Request::get(path).body(Body::empty()).unwrap();
        let document = send(app.clone(), get("/violations")).await.problem();
        assert_eq!(document["status"], status);
        assert_eq!(document["code"], "validation_failed");
        let order = Request::post("/orders").header("content-type", "application/json");
        let order = order.body(Body::from("{}")).unwrap();
        assert_eq!(send(app.clone(), order).await.problem()["status"], status);
        // Other codes have statuses of their own.
        assert_eq!(send(app, get("/sold-out")).await.problem()["status"], 409);
    }
}

#[tokio::test]
async fn what_the_server_wrote_the_client_reads() {
    let answer = ask("/sold-out").await;
    let problem = Problem::read(answer.status, &answer.headers, answer.body.as_bytes());
    assert_eq!(
        (problem.code(), problem.category()),
        ("sold_out", Category::FailedPrecondition)
    );
    assert_eq!(problem.extensions()["what"], "tea");
    assert_eq!(problem.to_bytes(), answer.body);
}

/// The layer calls the instance that was polled ready, as tower asks.
#[tokio::test]
async fn the_instance_that_was_ready_takes_the_call() {
    #[derive(Default)]
    struct Probe(bool);
    impl Clone for Probe {
        fn clone(&self) -> Self {
            Self(false)
        }
    }
    impl tower::Service<Request<Body>> for Probe {
        type Response = Response;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Response, Self::Error>>;
        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Self::Error>> {
            self.0 = true;
            std::task::Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<Body>) -> Self::Future {
            assert!(std::mem::take(&mut self.0), "called before it was ready");
            std::future::ready(Ok(Response::new(Body::empty())))
        }
    }
    let response = ProblemLayer::default()
        .layer(Probe::default())
        .oneshot(Request::new(Body::empty()))
        .await;
    assert_eq!(response.unwrap().status(), 200);
}

#[tokio::test]
async fn a_panic_in_call_itself_is_caught() {
    let service = service_fn(
        |_: Request<Body>| -> std::future::Ready<Result<Response, std::convert::Infallible>> {
            panic!("hunter2")
        },
    );
    let response = ProblemLayer::default()
        .layer(service)
        .oneshot(Request::new(Body::empty()))
        .await
        .unwrap();
    assert_eq!(response.status(), 500);
}

/// Where log lines go in a test.
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

/// The lines of one request. The subscriber is global, because interest in a call site is cached for the
/// whole process and a subscriber of one thread would race with the other tests.
async fn logged(policy: LogPolicy, path: &str) -> String {
    static LINES: LazyLock<Lines> = LazyLock::new(|| {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_max_level(tracing::Level::INFO)
            .without_time()
            .with_ansi(false);
        subscriber.init();
        lines
    });
    let lines = &*LINES;
    let id = RequestId::generate();
    let app = inner().layer(ProblemLayer::default().log(policy));
    let request = Request::get(path).header("x-request-id", id.as_str());
    send(app, request.body(Body::empty()).unwrap()).await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let mine: Vec<_> = text
        .lines()
        .filter(|line| line.contains(id.as_str()))
        .collect();
    mine.join("\n").replace(id.as_str(), "r-1")
}

#[tokio::test]
async fn a_cause_is_logged_once_with_its_chain_at_its_categorys_level() {
    let default = LogPolicy::default;
    insta::assert_snapshot!("log_bug", logged(default(), "/bug").await);
    insta::assert_snapshot!("log_warehouse", logged(default(), "/warehouse").await);
    insta::assert_snapshot!("log_panic", logged(default(), "/panic").await);
    assert_eq!(
        logged(default(), "/nowhere").await,
        "",
        "a caller's mistake is debug"
    );
    let louder = default().level(Category::NotFound, tracing::Level::INFO);
    insta::assert_snapshot!("log_louder", logged(louder, "/nowhere").await);
    assert_eq!(
        logged(default().silence(Category::Internal), "/bug").await,
        ""
    );
}

#[tokio::test]
async fn a_bare_refusal_says_in_its_document_what_its_header_says() {
    for (header, wait) in [("7", Some(7)), ("+7", None), ("soon", None)] {
        let answer = async move || (StatusCode::TOO_MANY_REQUESTS, [("retry-after", header)]);
        let app = Router::new()
            .route("/", get(answer))
            .layer(ProblemLayer::default());
        let request = Request::get("/").body(Body::empty()).unwrap();
        let answer = send(app, request).await;
        assert_eq!(answer.header("retry-after"), header);
        let document = answer.problem();
        assert_eq!(document["retry_after"].as_u64(), wait, "{header}");
    }
}
