//! An API beside a single-page application, and what each answers to addresses it does not have.

use axum::Router;
use axum::body::Body;
use axum::response::Html;
use axum::routing::{any, get as on_get};
use http::{Request, StatusCode};
use mainstay_errors::{Category, Path, Problem, ProblemLayer, api_fallback};

use crate::answer::{get, send};

async fn start_page() -> Html<&'static str> {
    Html("<!doctype html>")
}

fn api() -> Router {
    Router::new()
        .route("/orders", on_get(|| async { "[]" }).post(|| async {}))
        .route("/orders/{id}", on_get(|_: Path<u64>| async {}))
}

fn site(api: Router) -> Router {
    Router::new()
        .nest("/api", api)
        .fallback(start_page)
        .layer(ProblemLayer::default())
}

#[tokio::test]
async fn without_a_fallback_of_its_own_the_start_page_swallows_the_api() {
    let answer = get(&site(api()), "/api/nowhere").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "<!doctype html>")
    );
}

#[tokio::test]
async fn with_api_fallback_an_unknown_address_of_the_api_is_a_problem() {
    let site = site(api().fallback(api_fallback));
    for path in [
        "/api/nowhere",
        "/api/orders/7/lines",
        "/api/orders/",
        "/api",
    ] {
        let document = get(&site, path).await.problem();
        assert_eq!(
            (&document["status"], &document["code"]),
            (&404.into(), &"not_found".into()),
            "{path}"
        );
    }
    for path in ["/", "/about", "/apiary", "/problems/not_found"] {
        assert_eq!(get(&site, path).await.body, "<!doctype html>", "{path}");
    }
    assert_eq!(get(&site, "/api/orders").await.body, "[]");
}

/// To axum, the prefix with a slash and nothing behind it is not inside of what is nested there.
#[tokio::test]
async fn the_bare_prefix_with_a_slash_needs_a_route_of_its_own() {
    let nested = site(api().fallback(api_fallback));
    assert_eq!(get(&nested, "/api/").await.body, "<!doctype html>");
    let routed = Router::new()
        .route("/api/", any(api_fallback))
        .layer(ProblemLayer::default())
        .merge(nested);
    assert_eq!(get(&routed, "/api/").await.problem()["code"], "not_found");
}

#[tokio::test]
async fn a_wrong_method_is_a_405_with_allow_under_every_fallback() {
    let own = || async { Problem::new(Category::InvalidArgument, "wrong_verb").with_status(405) };
    let bare = || async { StatusCode::METHOD_NOT_ALLOWED };
    for (api, code) in [
        (api().fallback(api_fallback), "method_not_allowed"),
        (
            api()
                .fallback(api_fallback)
                .method_not_allowed_fallback(own),
            "wrong_verb",
        ),
        (
            api()
                .fallback(api_fallback)
                .method_not_allowed_fallback(bare),
            "method_not_allowed",
        ),
        (
            api()
                .fallback(api_fallback)
                .method_not_allowed_fallback(api_fallback),
            "not_found",
        ),
    ] {
        let request = Request::delete("/api/orders").body(Body::empty()).unwrap();
        let answer = send(site(api), request).await;
        assert_eq!(answer.problem()["code"], code);
        assert_eq!(answer.header("allow"), "GET,HEAD,POST", "{code}");
    }
}

#[tokio::test]
async fn the_fallback_is_a_document_without_the_layer_too() {
    let answer = get(&api().fallback(api_fallback), "/nowhere").await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (404, &"not_found".into())
    );
    assert_eq!(answer.header("content-type"), "application/problem+json");
}
