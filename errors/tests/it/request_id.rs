//! One id for the request, its trace, its log and its answer.

use axum::body::Body;
use axum::response::Response;
use axum::routing::get as on_get;
use axum::{Extension, Router, middleware};
use http::{HeaderMap, Request, StatusCode};
use mainstay_errors::{PassThrough, ProblemLayer, RequestId, RequestIds};
use uuid::Uuid;

use crate::answer::{get, get_with, send};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn traceparent() -> String {
    format!("00-{TRACE}-00f067aa0ba902b7-01")
}

fn inner() -> Router {
    Router::new()
        .route("/ok", on_get(|| async {}))
        .route("/id", on_get(|id: RequestId| async move { id.to_string() }))
        .route(
            "/optional",
            on_get(|id: Option<RequestId>| async move {
                id.map_or("none".to_owned(), |id| id.to_string())
            }),
        )
        .route(
            "/fails",
            on_get(|id: RequestId| async move {
                (StatusCode::CONFLICT, [("handler-saw", id.to_string())])
            }),
        )
        .route(
            "/twice",
            on_get(|one: RequestId, two: RequestId| async move { format!("{one} {two}") }),
        )
        .route(
            "/headers",
            on_get(|headers: HeaderMap| async move {
                let id = headers.get("x-request-id");
                id.map_or("none".to_owned(), |id| id.to_str().unwrap().to_owned())
            }),
        )
        .route(
            "/through",
            on_get(|| async { (StatusCode::BAD_GATEWAY, Extension(PassThrough), "upstream") }),
        )
}

fn app() -> Router {
    inner().layer(ProblemLayer::default())
}

#[tokio::test]
async fn a_success_that_nobody_asked_an_id_of_has_none() {
    assert_eq!(get(&app(), "/ok").await.header("x-request-id"), "");
    assert_eq!(get(&app(), "/optional").await.body, "none");
    assert_eq!(get(&app(), "/headers").await.body, "none");
}

#[tokio::test]
async fn a_given_id_is_taken_and_sent_back() {
    for path in [
        "/ok",
        "/id",
        "/optional",
        "/headers",
        "/fails",
        "/nowhere",
        "/through",
    ] {
        let answer = get_with(&app(), path, "x-request-id", "r-1").await;
        assert_eq!(answer.header("x-request-id"), "r-1", "{path}");
    }
    for path in ["/id", "/optional", "/headers"] {
        assert_eq!(
            get_with(&app(), path, "x-request-id", "r-1").await.body,
            "r-1"
        );
    }
}

#[tokio::test]
async fn what_a_handler_asked_for_is_what_the_answer_says() {
    let answer = get(&app(), "/fails").await;
    assert_eq!(answer.problem()["request_id"], answer.header("handler-saw"));
    let answer = get(&app(), "/id").await;
    assert_eq!(answer.body, answer.header("x-request-id"));
    let answer = get(&app(), "/twice").await;
    let id = answer.header("x-request-id");
    assert_eq!(answer.body, format!("{id} {id}"));
    assert_ne!(id, get(&app(), "/twice").await.header("x-request-id"));
}

#[tokio::test]
async fn calls_that_are_polled_in_turns_keep_their_ids_apart() {
    let id = |id: RequestId| async move {
        tokio::task::yield_now().await;
        (StatusCode::CONFLICT, [("handler-saw", id.to_string())])
    };
    let app = Router::new()
        .route("/", on_get(id))
        .layer(ProblemLayer::default());
    let (one, two) = tokio::join!(get(&app, "/"), get(&app, "/"));
    for answer in [&one, &two] {
        assert_eq!(answer.problem()["request_id"], answer.header("handler-saw"));
    }
    assert_ne!(one.header("handler-saw"), two.header("handler-saw"));
}

#[tokio::test]
async fn an_inner_layer_has_the_id_of_the_outer_one() {
    let nested = inner()
        .layer(ProblemLayer::default())
        .layer(ProblemLayer::default());
    let answer = get_with(&nested, "/fails", "x-request-id", "r-1").await;
    assert_eq!(answer.problem()["request_id"], "r-1");
    assert_eq!(answer.header("handler-saw"), "r-1");
    for path in ["/fails", "/nowhere", "/id"] {
        let answer = get(&nested, path).await;
        let id = answer.header("x-request-id");
        match path {
            "/id" => assert_eq!(answer.body, id),
            _ => assert_eq!(answer.problem()["request_id"], id),
        }
        assert!(["", id].contains(&answer.header("handler-saw")));
    }
    // Made by the inner one at once, or by the outer one.
    let early = || ProblemLayer::default().request_ids(RequestIds::OnArrival);
    for nested in [
        inner().layer(early()).layer(ProblemLayer::default()),
        inner().layer(ProblemLayer::default()).layer(early()),
        inner().layer(early()).layer(early()),
    ] {
        let answer = get(&nested, "/fails").await;
        assert_eq!(answer.problem()["request_id"], answer.header("handler-saw"));
        let answer = get(&nested, "/ok").await;
        assert_ne!(answer.header("x-request-id"), "");
    }
}

#[tokio::test]
async fn an_id_is_there_without_the_layer_too() {
    let made = Uuid::parse_str(&get(&inner(), "/id").await.body).unwrap();
    assert_eq!(made.get_version_num(), 7);
    let (name, trace) = ("traceparent", traceparent());
    assert_eq!(get_with(&inner(), "/id", name, &trace).await.body, TRACE);
}

#[tokio::test]
async fn on_arrival_every_request_has_an_id_everywhere() {
    let see = |extension: Option<Extension<RequestId>>, headers: HeaderMap, id: RequestId| async move {
        let extension = extension.map(|Extension(id)| id);
        assert_eq!(extension.as_ref(), Some(&id));
        assert_eq!(headers["x-request-id"], id.as_str());
    };
    let app = Router::new()
        .route("/", on_get(see))
        .layer(ProblemLayer::default().request_ids(RequestIds::OnArrival));
    let answer = get(&app, "/").await;
    assert_eq!(answer.status, 200);
    let made = Uuid::parse_str(answer.header("x-request-id")).unwrap();
    assert_eq!(made.get_version_num(), 7);
    let traced = get_with(&app, "/", "traceparent", &traceparent()).await;
    assert_eq!((traced.status, traced.header("x-request-id")), (200, TRACE));
    let given = get_with(&app, "/", "x-request-id", "r-1").await;
    assert_eq!((given.status, given.header("x-request-id")), (200, "r-1"));
}

#[tokio::test]
async fn a_middleware_may_ask_for_the_id() {
    async fn observe(
        id: RequestId,
        request: axum::extract::Request,
        next: middleware::Next,
    ) -> Response {
        let mut response = next.run(request).await;
        let id = id.to_header();
        response.headers_mut().insert("observed", id);
        response
    }
    let app = inner()
        .layer(middleware::from_fn(observe))
        .layer(ProblemLayer::default());
    let answer = get(&app, "/fails").await;
    assert_eq!(answer.header("observed"), answer.header("x-request-id"));
    assert_eq!(answer.header("observed"), answer.header("handler-saw"));
}

#[tokio::test]
async fn a_grpc_answer_is_not_touched() {
    let grpc = || async {
        let headers = [
            ("content-type", "application/grpc+proto"),
            ("grpc-status", "5"),
        ];
        (StatusCode::NOT_FOUND, headers, "frame")
    };
    let app = Router::new()
        .route("/", on_get(grpc))
        .layer(ProblemLayer::default());
    let request = Request::get("/").header("x-request-id", "r-1");
    let answer = send(app, request.body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "frame"));
    assert_eq!(answer.header("x-request-id"), "");
    assert_eq!(answer.headers.len(), 3, "{:?}", answer.headers);
}
