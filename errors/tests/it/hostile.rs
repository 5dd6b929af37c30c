//! What a hostile reading of the crate found, each kept from coming back.

use std::collections::HashMap;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{Request, StatusCode};
use mainstay_errors::{Category, Json, Problem, ProblemLayer, Query};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use tower::ServiceExt;

async fn sent(app: Router, request: Request<Body>) -> (http::response::Parts, String) {
    let (parts, body) = app.oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts, String::from_utf8(body.to_vec()).unwrap())
}

fn at(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

struct Unprintable;

impl Serialize for Unprintable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("hunter2"))
    }
}

#[tokio::test]
async fn an_answer_that_does_not_serialise_says_nothing_of_why() {
    let response = Json(Unprintable).into_response();
    assert_eq!(response.status(), 500);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert!(!String::from_utf8_lossy(&body).contains("hunter2"));
}

#[tokio::test]
async fn a_bare_499_does_not_claim_that_nothing_was_applied() {
    let app = Router::new()
        .route("/", get(|| async { StatusCode::from_u16(499).unwrap() }))
        .layer(ProblemLayer::default());
    let (_, body) = sent(app, at("/")).await;
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&document["status"], &document["outcome"]),
        (&499.into(), &"unknown".into())
    );
}

#[tokio::test]
async fn a_416_still_says_how_long_the_whole_is() {
    let answer = || async {
        (
            StatusCode::RANGE_NOT_SATISFIABLE,
            [("content-range", "bytes */47")],
        )
    };
    let other = || async { (StatusCode::NOT_FOUND, [("content-range", "bytes */47")]) };
    let app = Router::new()
        .route("/416", get(answer))
        .route("/404", get(other))
        .layer(ProblemLayer::default());
    let (parts, _) = sent(app.clone(), at("/416")).await;
    assert_eq!(parts.status, 416);
    assert_eq!(parts.headers["content-range"], "bytes */47");
    let (parts, _) = sent(app, at("/404")).await;
    assert!(!parts.headers.contains_key("content-range"));
}

#[tokio::test]
async fn a_page_that_was_put_in_the_place_of_a_document_stays() {
    async fn as_page(response: Response) -> Response {
        let (mut parts, _) = response.into_parts();
        parts.headers.remove("content-length");
        parts
            .headers
            .insert("content-type", "text/html".parse().unwrap());
        Response::from_parts(parts, Body::from("<p>sorry"))
    }
    let app = Router::new()
        .route(
            "/",
            get(|| async { Problem::new(Category::NotFound, "gone") }),
        )
        .layer(axum::middleware::map_response(as_page))
        .layer(ProblemLayer::default());
    let (parts, body) = sent(app, at("/")).await;
    assert_eq!(
        (parts.status, body.as_str()),
        (StatusCode::NOT_FOUND, "<p>sorry")
    );
    assert!(parts.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn a_request_id_that_came_twice_does_not_reach_the_handler() {
    let all = |headers: http::HeaderMap| async move {
        let ids = headers.get_all("x-request-id").iter();
        ids.map(|id| id.to_str().unwrap_or("?").to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let app = Router::new()
        .route("/", get(all))
        .layer(ProblemLayer::default());
    for second in ["forged entry", "r-2", "r-1"] {
        let request = Request::get("/")
            .header("x-request-id", "r-1")
            .header("x-request-id", second);
        let (parts, body) = sent(app.clone(), request.body(Body::empty()).unwrap()).await;
        assert_eq!(body, "", "which of the two is right, nobody knows");
        assert!(!parts.headers.contains_key("x-request-id"));
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only read into")]
struct Strict {
    #[serde(default)]
    by_name: HashMap<String, Narrow>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only read into")]
struct Narrow {
    id: u8,
}

fn orders() -> Router {
    Router::new()
        .route("/", post(|_: Json<Strict>| async {}))
        .layer(DefaultBodyLimit::max(2 * 1024 * 1024))
        .layer(ProblemLayer::default())
}

async fn posted(body: String) -> (u16, Value, usize) {
    let request = Request::post("/")
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    let (parts, body) = sent(orders(), request).await;
    let document = serde_json::from_str(&body).unwrap();
    (parts.status.as_u16(), document, body.len())
}

/// Two mebibytes of members nobody knows would be listed and sorted once for each of 32 readings, out of
/// a tree of a hundred times their size.
#[tokio::test]
async fn a_large_body_is_told_its_first_mistake_only() {
    let members: Vec<_> = (0..200_000).map(|at| format!(r#""{at:x}":0"#)).collect();
    let (status, document, _) = posted(format!("{{{}}}", members.join(","))).await;
    assert_eq!(
        (status, &document["code"]),
        (422, &"validation_failed".into())
    );
    assert_eq!(document["errors"].as_array().unwrap().len(), 1);

    let (status, document, _) = posted(format!("{{{}", members.join(","))).await;
    assert_eq!((status, &document["code"]), (400, &"malformed_json".into()));
}

#[tokio::test]
async fn a_long_name_of_the_clients_own_is_not_echoed_whole() {
    let name = "n".repeat(100_000);
    for inner in [r#"{"id":1,"id":1}"#, r#"{"id":"x"}"#] {
        let (status, document, bytes) =
            posted(format!(r#"{{"by_name":{{"{name}":{inner}}}}}"#)).await;
        assert_eq!(status, 422, "{document}");
        assert!(bytes < 1000, "{bytes}");
    }
}

#[tokio::test]
async fn many_repeated_parameters_are_named_once_each() {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Page {
        limit: Option<u8>,
    }
    let app = Router::new()
        .route("/", get(|_: Query<Page>| async {}))
        .layer(ProblemLayer::default());
    let (parts, body) = sent(app, at("/?limit=1&limit=2&limit=3&b=1&b=1")).await;
    assert_eq!(parts.status, 400);
    let document: Value = serde_json::from_str(&body).unwrap();
    let pointers: Vec<_> = document["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["pointer"])
        .collect();
    assert_eq!(pointers, ["/limit", "/b"]);
}

#[derive(Debug)]
struct PanicsWhenShown;

impl std::fmt::Display for PanicsWhenShown {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("hunter2")
    }
}

impl std::error::Error for PanicsWhenShown {}

#[tokio::test]
async fn a_cause_that_panics_when_it_is_logged_is_still_answered() {
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::sink)
        .finish();
    let _listening = tracing::subscriber::set_default(subscriber);
    let failing = || async { mainstay_errors::Error::internal(PanicsWhenShown) };
    let app = Router::new()
        .route("/", get(failing))
        .layer(ProblemLayer::default());
    let (parts, body) = sent(app, at("/")).await;
    assert_eq!(parts.status, 500);
    assert!(body.contains(r#""code":"internal""#) && !body.contains("hunter2"));
}
