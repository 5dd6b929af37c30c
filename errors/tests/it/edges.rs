//! The edges of the layer: bodies that misbehave, services that are no router, headers that come more than once.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, to_bytes};
use axum::response::Response;
use axum::routing::{get as on_get, post};
use axum::{BoxError, Router};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use mainstay_errors::{Category, DOCUMENT_BYTES_MAX, Json, Path, Problem, ProblemLayer};
use tower::{Layer, ServiceExt, service_fn};

use crate::answer::{get, send};

fn at(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// The answer of a service that is nothing but a function, with the layer around it.
async fn answered<B>(method: &str, response: impl Fn() -> Response<B>) -> Response
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = service_fn(|_: Request<Body>| {
        let response = response();
        async move { Ok::<_, BoxError>(response) }
    });
    let request = Request::builder().method(method).uri("/");
    let request = request.body(Body::empty()).unwrap();
    let layered = ProblemLayer::default().layer(service);
    layered.oneshot(request).await.unwrap()
}

fn document<B>(body: B) -> Response<B> {
    Response::builder()
        .status(409)
        .header("content-type", "application/problem+json")
        .body(body)
        .unwrap()
}

/// A router takes the body of HEAD away by itself; a service may not.
#[tokio::test]
async fn head_of_any_service_has_no_body() {
    let with_text = || {
        let mut response = Response::new(Body::from("no"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    };
    let (get, head) = (
        answered("GET", with_text).await,
        answered("HEAD", with_text).await,
    );
    let length = |response: &Response| response.headers()["content-length"].clone();
    assert_eq!(length(&get), length(&head));
    assert_ne!(length(&get), "0");
    assert_eq!(to_bytes(head.into_body(), 1).await.unwrap(), "");
}

#[tokio::test]
async fn a_foreign_document_keeps_its_trailers() {
    let answer = answered("GET", || {
        let trailers = HeaderMap::from_iter([(
            header::HeaderName::from_static("x-checksum"),
            HeaderValue::from_static("7"),
        )]);
        let body = Full::new(Bytes::from_static(b"{\"title\":\"of somebody else\"}"));
        document(body.with_trailers(async move { Some(Ok(trailers)) }))
    })
    .await;
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-checksum"], "7");
    assert_eq!(body.to_bytes(), "{\"title\":\"of somebody else\"}");
}

/// Says that it is small, and is what it is.
struct Liar {
    frames: usize,
    panics: bool,
}

impl http_body::Body for Liar {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        assert!(!self.panics, "hunter2");
        assert!(self.frames > 0, "it was read to its end");
        self.frames -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 1024])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(9)
    }
}

#[tokio::test]
async fn a_document_that_is_larger_than_it_says_is_not_read_to_its_end() {
    let frames = DOCUMENT_BYTES_MAX / 1024 + 8;
    let answer = answered("GET", || {
        document(Liar {
            frames,
            panics: false,
        })
    })
    .await;
    let body = to_bytes(answer.into_body(), 9999).await.unwrap();
    assert!(String::from_utf8_lossy(&body).contains("\"code\":\"conflict\""));
}

#[tokio::test]
async fn a_document_that_panics_while_it_is_read_is_told_by_its_status() {
    let answer = answered("GET", || {
        document(Liar {
            frames: 1,
            panics: true,
        })
    })
    .await;
    assert_eq!(answer.status(), 409);
    let body = to_bytes(answer.into_body(), 9999).await.unwrap();
    let body = String::from_utf8_lossy(&body);
    assert!(
        body.contains("\"code\":\"conflict\"") && !body.contains("hunter2"),
        "{body}"
    );
}

/// What was panicked with may panic in its turn.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("hunter2");
        }
    }
}

#[tokio::test]
async fn a_panic_with_something_that_panics_is_answered() {
    let app = Router::new()
        .route(
            "/",
            on_get(|| async {
                if true {
                    std::panic::panic_any(Bomb);
                }
            }),
        )
        .layer(ProblemLayer::default());
    let answer = get(&app, "/").await;
    assert_eq!(answer.problem()["code"], "internal");
}

#[tokio::test]
async fn every_value_of_a_header_is_sent() {
    let who = || async {
        Problem::new(Category::Unauthenticated, "who")
            .with_header(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Negotiate"),
            )
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic"))
    };
    let bare = Router::new().route("/", on_get(who));
    let layered = bare.clone().layer(ProblemLayer::default());
    for app in [bare, layered] {
        let answer = get(&app, "/").await;
        let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
        assert_eq!(challenges, ["Negotiate", "Basic"]);
    }
}

#[tokio::test]
async fn a_trailer_that_was_announced_goes_with_its_body() {
    let app = Router::new()
        .route(
            "/",
            on_get(|| async { (StatusCode::BAD_REQUEST, [("trailer", "x-sum")], "no") }),
        )
        .layer(ProblemLayer::default());
    assert_eq!(get(&app, "/").await.header("trailer"), "");
}

/// To a request with credentials, `*` is the name of a header and exposes nothing (Fetch §3.3.3).
#[tokio::test]
async fn a_star_exposes_nothing_where_credentials_are_allowed() {
    let own = || async {
        let headers = [
            ("access-control-allow-origin", "https://shop.example"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "*"),
        ];
        (StatusCode::TOO_MANY_REQUESTS, headers)
    };
    let app = Router::new()
        .route("/", on_get(own))
        .layer(ProblemLayer::default());
    let answer = get(&app, "/").await;
    assert_eq!(
        answer.header("access-control-expose-headers"),
        "*, Retry-After, X-Request-Id"
    );
}

#[tokio::test]
async fn a_body_or_a_parameter_may_be_optional() {
    let body = |body: Option<Json<u32>>| async move { format!("{:?}", body.map(|Json(n)| n)) };
    let path = |path: Option<Path<u32>>| async move { format!("{:?}", path.map(|Path(n)| n)) };
    let app = Router::new()
        .route("/", post(body))
        .route("/none", on_get(path))
        .route("/some/{n}", on_get(path))
        .layer(ProblemLayer::default());
    let posted = async |content_type: Option<&str>, body: &'static str| {
        let mut request = Request::post("/");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        send(app.clone(), request.body(Body::from(body)).unwrap()).await
    };
    assert_eq!(posted(None, "").await.body, "None");
    assert_eq!(posted(Some("application/json"), "7").await.body, "Some(7)");
    assert_eq!(
        posted(Some("text/plain"), "7").await.problem()["status"],
        415
    );
    assert_eq!(
        posted(Some("application/json"), "").await.problem()["status"],
        400
    );
    assert_eq!(get(&app, "/none").await.body, "None");
    assert_eq!(get(&app, "/some/7").await.body, "Some(7)");
    let refused = get(&app, "/some/x").await.problem();
    assert_eq!(refused["errors"][0]["pointer"], "/n");
    let at_bare = send(app.clone(), at("/some/")).await;
    assert_eq!(at_bare.status, 404);
}
