//! What HTTP asks of a failure, rule by rule: RFC 9110, RFC 6585, Fetch, W3C Trace Context, IANA's problem types.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::response::{IntoResponse, Response};
use axum::routing::{get as on_get, post};
use http::{HeaderValue, Method, Request, StatusCode};
use mainstay_errors::{
    Category, Descriptor, Fault, Json, Problem, ProblemLayer, Registry, Violation, iana,
};
use serde_json::Value;
use tower::ServiceBuilder;
use tower_http::cors::CorsLayer;
use tower_http::timeout::TimeoutLayer;

use crate::answer::{Answer, get, get_with, send};

#[derive(Debug, thiserror::Error, Fault)]
enum HttpError {
    #[error("spool is full")]
    #[fault(resource_exhausted, status = 413, retry_after = "90s")]
    SpoolFull,
    #[error("slow down")]
    #[fault(resource_exhausted, retry_after = "1200ms")]
    SlowDown,
    #[error("closed")]
    #[fault(unavailable, retry_after = "30s", outcome = not_applied)]
    Closed,
    #[error("this e-mail address is taken")]
    #[fault(
        already_exists,
        public,
        constraint = "users_email_key",
        pointer = "/email"
    )]
    EmailTaken,
}

const UPGRADE: Descriptor = Descriptor::new("upgrade_required", Category::FailedPrecondition)
    .with_status(426)
    .with_headers(&[("upgrade", "HTTP/2.0"), ("connection", "upgrade")]);

fn inner() -> Router {
    Router::new()
        .route("/ok", on_get(|| async { "ok" }))
        .route("/401", on_get(|| async { StatusCode::UNAUTHORIZED }))
        .route(
            "/401/ours",
            on_get(|| async { Problem::new(Category::Unauthenticated, "who") }),
        )
        .route(
            "/401/own",
            on_get(|| async { (StatusCode::UNAUTHORIZED, [("www-authenticate", "Digest")]) }),
        )
        .route("/orders", post(|_: Json<Value>| async {}))
        .route("/426", on_get(|| async { UPGRADE.to_problem() }))
        .route("/413", on_get(|| async { HttpError::SpoolFull }))
        .route("/429", on_get(|| async { HttpError::SlowDown }))
        .route(
            "/429/bare",
            on_get(|| async { (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")]) }),
        )
        .route("/503", on_get(|| async { HttpError::Closed }))
        .route("/409", on_get(|| async { HttpError::EmailTaken }))
        .route("/410", on_get(|| async { StatusCode::GONE }))
        .route("/414", on_get(|| async { StatusCode::URI_TOO_LONG }))
        .route("/501", on_get(|| async { StatusCode::NOT_IMPLEMENTED }))
        .route(
            "/cached",
            on_get(|| async { (StatusCode::NOT_FOUND, [("cache-control", "max-age=9")]) }),
        )
}

fn app() -> Router {
    inner().layer(ProblemLayer::default())
}

async fn post_orders(headers: &[(&str, &str)], body: &'static str) -> Answer {
    let request = Request::post("/orders");
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    send(app(), request.body(Body::from(body)).unwrap()).await
}

#[tokio::test]
async fn h1_a_401_has_a_challenge() {
    for (path, challenge) in [
        ("/401", "Bearer"),
        ("/401/ours", "Bearer"),
        ("/401/own", "Digest"),
    ] {
        let answer = get(&app(), path).await;
        answer.problem();
        assert_eq!(answer.header("www-authenticate"), challenge, "{path}");
    }
    let realm = HeaderValue::from_static("Bearer realm=\"orders\"");
    let app = inner().layer(ProblemLayer::default().challenge(realm));
    assert_eq!(
        get(&app, "/401").await.header("www-authenticate"),
        "Bearer realm=\"orders\""
    );
    assert_eq!(get(&app, "/410").await.header("www-authenticate"), "");
}

#[tokio::test]
async fn h2_a_405_says_what_is_allowed() {
    let answer = get(&app(), "/orders").await;
    assert_eq!(answer.problem()["code"], "method_not_allowed");
    assert_eq!(answer.header("allow"), "POST");
    let request = Request::delete("/ok").body(Body::empty()).unwrap();
    let answer = send(app(), request).await;
    assert_eq!((answer.status, answer.header("allow")), (405, "GET,HEAD"));
}

#[tokio::test]
async fn h3_a_426_says_what_to_upgrade_to() {
    let answer = get(&app(), "/426").await;
    assert_eq!(answer.problem()["status"], 426);
    assert_eq!(answer.header("upgrade"), "HTTP/2.0");
    assert_eq!(answer.header("connection"), "upgrade");
}

#[tokio::test]
async fn h4_a_413_that_will_pass_says_when() {
    let answer = get(&app(), "/413").await;
    assert_eq!(answer.problem()["status"], 413);
    assert_eq!(answer.header("retry-after"), "90");
}

#[tokio::test]
async fn h5_a_415_says_what_is_read_here() {
    for content_type in ["text/plain", "application/xml", "", "text/json"] {
        let answer = post_orders(&[("content-type", content_type)], "{}").await;
        assert_eq!(answer.problem()["status"], 415, "{content_type}");
        assert_eq!(answer.header("accept"), "application/json");
        assert_eq!(answer.header("accept-encoding"), "");
    }
    let json = ("content-type", "application/json");
    for encoding in ["gzip", "br", "identity, gzip", "x-unknown"] {
        let answer = post_orders(&[json, ("content-encoding", encoding)], "\u{1f}\u{8b}").await;
        assert_eq!(answer.problem()["status"], 415, "{encoding}");
        assert_eq!(answer.header("accept-encoding"), "identity");
        assert_eq!(answer.header("accept"), "");
    }
    let identity = ("content-encoding", "Identity");
    assert_eq!(post_orders(&[json, identity], "{}").await.status, 200);
}

#[tokio::test]
async fn h6_retry_after_is_a_whole_number_of_seconds() {
    for (path, seconds) in [
        ("/429", "2"),
        ("/503", "30"),
        ("/429/bare", "7"),
        ("/413", "90"),
    ] {
        let answer = get(&app(), path).await;
        assert_eq!(answer.header("retry-after"), seconds, "{path}");
        assert!(answer.header("retry-after").parse::<u64>().is_ok());
    }
    // The document and the header say the same.
    assert_eq!(get(&app(), "/429").await.problem()["retry_after"], 2);
}

#[tokio::test]
async fn h7_what_names_one_request_is_not_stored() {
    for path in [
        "/nowhere", "/orders", "/410", "/414", "/501", "/409", "/503",
    ] {
        let answer = get(&app(), path).await;
        answer.problem();
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    }
    let answer = get(&app(), "/cached").await;
    assert_eq!(
        answer.header("cache-control"),
        "max-age=9",
        "the handler's own word stands"
    );
}

#[tokio::test]
async fn h8_head_has_the_headers_of_get_and_no_body() {
    let id = ("x-request-id", "r-1");
    for path in ["/401", "/429", "/503", "/409", "/nowhere", "/410"] {
        let get = get_with(&app(), path, id.0, id.1).await;
        let request = Request::head(path).header(id.0, id.1);
        let head = send(app(), request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (head.status, head.headers),
            (get.status, get.headers),
            "{path}"
        );
        assert_eq!(head.body, "");
    }
}

#[tokio::test]
async fn h9_a_409_says_what_conflicts() {
    let document = get(&app(), "/409").await.problem();
    assert_eq!(document["status"], 409);
    assert_eq!(document["detail"], "this e-mail address is taken");
    assert_eq!(document["errors"][0]["pointer"], "/email");
}

#[tokio::test(start_paused = true)]
async fn h10_a_handler_that_is_slow_is_a_504_and_never_a_408() {
    let slow = || async { tokio::time::sleep(Duration::from_secs(60)).await };
    let layered = Router::new()
        .route("/", on_get(slow))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            Duration::from_secs(1),
        ))
        .layer(ProblemLayer::default());
    let handled = Router::new()
        .route("/", on_get(slow))
        .layer(
            ServiceBuilder::new()
                .layer(HandleErrorLayer::new(|_: axum::BoxError| async {
                    (StatusCode::REQUEST_TIMEOUT, "deadline has elapsed")
                }))
                .timeout(Duration::from_secs(1)),
        )
        .layer(ProblemLayer::default());
    for app in [layered, handled] {
        let document = get(&app, "/").await.problem();
        assert_eq!(
            (&document["status"], &document["code"]),
            (&504.into(), &"timeout".into())
        );
        assert_eq!(document["retry"], "same_key_only", "it may have been done");
        assert_eq!(document["outcome"], "unknown");
    }
}

#[tokio::test]
async fn h11_another_origin_may_read_the_headers_of_a_failure() {
    let cors = CorsLayer::new()
        .allow_origin([HeaderValue::from_static("https://shop.example")])
        .allow_methods([Method::GET]);
    let other = "x-total, retry-after".parse().unwrap();
    for (cors, exposed) in [
        (cors.clone(), "Retry-After, X-Request-Id"),
        (
            cors.clone().expose_headers(["x-total".parse().unwrap()]),
            "x-total, Retry-After, X-Request-Id",
        ),
        (cors.clone().expose_headers(tower_http::cors::Any), "*"),
    ] {
        let app = inner().layer(cors).layer(ProblemLayer::default());
        let answer = get_with(&app, "/429", "origin", "https://shop.example").await;
        answer.problem();
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "https://shop.example"
        );
        assert_eq!(answer.header("access-control-expose-headers"), exposed);
    }
    let own = move || {
        let other: HeaderValue = HeaderValue::clone(&other);
        async move {
            let headers = [
                ("access-control-allow-origin", HeaderValue::from_static("*")),
                ("access-control-expose-headers", other),
            ];
            (StatusCode::TOO_MANY_REQUESTS, headers)
        }
    };
    let app = Router::new()
        .route("/", on_get(own))
        .layer(ProblemLayer::default());
    let answer = get(&app, "/").await;
    let exposed = answer.header("access-control-expose-headers");
    assert_eq!(exposed, "x-total, retry-after, X-Request-Id");
    let answer = get(&self::app(), "/429").await;
    assert_eq!(
        answer.header("access-control-expose-headers"),
        "",
        "nobody else asks"
    );
}

#[tokio::test]
async fn h12_a_request_id_from_outside_is_taken_only_if_it_is_sound() {
    let longest = "a".repeat(128);
    for good in ["a", "0.9_Z-", longest.as_str()] {
        let answer = get_with(&app(), "/409", "x-request-id", good).await;
        assert_eq!(answer.problem()["request_id"], good);
    }
    let too_long = "a".repeat(129);
    for bad in [
        "",
        " ",
        "a b",
        "a/b",
        "a\"b",
        "<script>",
        "a,b",
        too_long.as_str(),
    ] {
        let answer = get_with(&app(), "/409", "x-request-id", bad).await;
        let made = answer.problem()["request_id"].clone();
        let made = uuid::Uuid::parse_str(made.as_str().unwrap()).unwrap();
        assert_eq!(made.get_version_num(), 7, "{bad:?}");
    }
    let two = Request::get("/409")
        .header("x-request-id", "a")
        .header("x-request-id", "b");
    let answer = send(app(), two.body(Body::empty()).unwrap()).await;
    assert!(!["a", "b"].contains(&answer.header("x-request-id")));
}

#[tokio::test]
async fn h13_a_sound_traceparent_is_the_request_id() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let id = async |traceparent: &str| {
        let answer = get_with(&app(), "/409", "traceparent", traceparent).await;
        answer.problem()["request_id"].as_str().unwrap().to_owned()
    };
    assert_eq!(id(&format!("00-{TRACE}-00f067aa0ba902b7-01")).await, TRACE);
    assert_eq!(
        id(&format!("cc-{TRACE}-00f067aa0ba902b7-01-what-will-be")).await,
        TRACE
    );
    let zeros = "0".repeat(32);
    for bad in [
        format!("ff-{TRACE}-00f067aa0ba902b7-01"),
        format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{zeros}-00f067aa0ba902b7-01"),
        format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
        format!("00-{}-00f067aa0ba902b7-01", &TRACE[1..]),
        TRACE.to_owned(),
    ] {
        let id = id(&bad).await;
        assert!(
            uuid::Uuid::parse_str(&id).unwrap().get_version_num() == 7 && id != TRACE,
            "{bad}"
        );
    }
    let sound = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let both = Request::get("/409")
        .header("traceparent", &sound)
        .header("x-request-id", "r-1");
    let answer = send(app(), both.body(Body::empty()).unwrap()).await;
    assert_eq!(
        answer.header("x-request-id"),
        "r-1",
        "what names the request itself comes first"
    );
    let twice = Request::get("/409")
        .header("traceparent", &sound)
        .header("traceparent", &sound);
    let answer = send(app(), twice.body(Body::empty()).unwrap()).await;
    assert_ne!(answer.header("x-request-id"), TRACE);
}

#[derive(Debug, thiserror::Error)]
#[error("the plan is used up")]
struct PlanExhausted;

impl Fault for PlanExhausted {
    const CATALOG: &'static [Descriptor] =
        &[
            Descriptor::new("plan_exhausted", Category::ResourceExhausted)
                .with_type(iana::QUOTA_EXCEEDED)
                .with_retry_after(Duration::from_secs(3600))
                .with_owner("PlanExhausted"),
        ];

    fn descriptor(&self) -> &'static Descriptor {
        &Self::CATALOG[0]
    }
}

#[tokio::test]
async fn h14_problem_types_of_iana_are_written_as_they_are() {
    let registry = Registry::new().with::<PlanExhausted>().type_base("/help/");
    let fail = || async { mainstay_errors::Error::from(PlanExhausted) };
    let app = Router::new()
        .route("/", on_get(fail))
        .layer(ProblemLayer::new(&registry));
    let answer = get(&app, "/").await;
    let document = answer.problem();
    assert_eq!(
        document["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    assert_eq!(
        (&document["status"], &document["code"]),
        (&429.into(), &"plan_exhausted".into())
    );
    assert_eq!(answer.header("retry-after"), "3600");
    for uri in [
        iana::TEMPORARY_REDUCED_CAPACITY,
        iana::ABNORMAL_USAGE_DETECTED,
    ] {
        assert!(uri.starts_with("https://iana.org/assignments/http-problem-types#"));
    }
}

/// Headers of a status hold without the layer as well: they belong to the problem.
#[tokio::test]
async fn a_problem_brings_its_headers_without_the_layer() {
    let response: Response = UPGRADE
        .to_problem()
        .with_violation(Violation::header("upgrade", "required"))
        .into_response();
    assert_eq!(response.headers()["upgrade"], "HTTP/2.0");
    assert_eq!(get(&inner(), "/429").await.header("retry-after"), "2");
}
