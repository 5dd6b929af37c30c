//! What is served at `/problems`.

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{HeaderMap, Method, Request};
use mainstay_errors::{Fault, ProblemLayer, Registry};
use serde_json::Value;
use tower::ServiceExt;

#[derive(Debug, thiserror::Error, Fault)]
#[expect(dead_code, reason = "only its pages are looked at")]
enum ShopError {
    /// The shelf is empty, for `what` you asked.
    ///
    /// What helps:
    ///
    /// - Ask for another; see [the list](https://shop.example/list).
    /// - Come back <b>later</b>.
    #[error("sold out")]
    #[fault(failed_precondition, status = 409)]
    SoldOut,
    #[error("warehouse")]
    #[fault(unavailable, retry_after = "1500ms")]
    Warehouse,
}

fn registry() -> Registry {
    Registry::new().with::<ShopError>()
}

fn app() -> Router {
    let pages: Router = registry().pages("/problems");
    Router::new()
        .merge(pages.clone())
        .nest("/v1", pages)
        .layer(ProblemLayer::new(registry()))
}

struct Page {
    status: u16,
    headers: HeaderMap,
    body: String,
}

async fn ask(method: Method, path: &str, headers: &[(&str, &str)]) -> Page {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let (parts, body) = app().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Page {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn get(path: &str) -> Page {
    ask(Method::GET, path, &[]).await
}

#[tokio::test]
async fn a_page_says_what_a_code_means_in_words() {
    let page = get("/problems/sold_out").await;
    insta::assert_snapshot!("sold_out", page.body);
}

#[tokio::test]
async fn the_list_has_an_anchor_and_a_link_for_every_code() {
    // From each of its addresses, however the routes are nested.
    for (at, folder) in [
        ("/problems", "/problems/"),
        ("/problems/", "/problems/"),
        ("/v1/problems", "/v1/problems/"),
    ] {
        let list = get(at).await;
        for descriptor in registry().iter() {
            let code = descriptor.code();
            assert!(list.body.contains(&format!("id=\"{code}\"")), "{code}");
            let link = if at.ends_with('/') {
                format!("./{code}")
            } else {
                format!("./problems/{code}")
            };
            assert!(list.body.contains(&format!("href=\"{link}\"")), "{link}");
            assert_eq!(get(&format!("{folder}{code}")).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_page_loads_nothing_and_runs_nothing() {
    for path in ["/problems", "/problems/sold_out"] {
        let page = get(path).await;
        assert!(!page.body.contains("<script") && !page.body.contains("src="));
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';"));
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
        assert_eq!(page.headers["vary"], "accept");
    }
    assert!(
        get("/problems/sold_out")
            .await
            .body
            .contains("&lt;b&gt;later")
    );
}

#[tokio::test]
async fn json_is_given_to_whoever_prefers_it() {
    let accept = [("accept", "text/html;q=0.5, application/json")];
    let page = ask(Method::GET, "/problems/warehouse", &accept).await;
    assert_eq!(page.headers["content-type"], "application/json");
    let facts: Value = serde_json::from_str(&page.body).unwrap();
    assert_eq!(facts["retry_after"], 2);
    let list = ask(Method::GET, "/problems", &accept).await;
    assert_eq!(list.body, registry().codes_json());
}

#[tokio::test]
async fn a_page_that_is_known_is_not_sent_again() {
    let first = get("/problems/sold_out").await;
    let tag = first.headers["etag"].to_str().unwrap();
    assert_eq!(first.headers["cache-control"], "public, max-age=300");
    let strong = tag.trim_start_matches("W/");
    for known in [tag, strong, "*", &format!("\"other\", {tag}")] {
        let again = ask(
            Method::GET,
            "/problems/sold_out",
            &[("if-none-match", known)],
        )
        .await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{known}");
        assert_eq!(again.headers["etag"], tag);
    }
    for (path, accept) in [
        ("/problems/sold_out", "application/json"),
        ("/problems/warehouse", "text/html"),
    ] {
        let headers = [("if-none-match", tag), ("accept", accept)];
        assert_eq!(ask(Method::GET, path, &headers).await.status, 200);
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    for path in ["/problems", "/problems/sold_out"] {
        let (get, head) = (get(path).await, ask(Method::HEAD, path, &[]).await);
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        for name in ["content-type", "etag", "content-length"] {
            assert_eq!(head.headers.get(name), get.headers.get(name), "{name}");
        }
        assert_eq!(get.headers["content-length"], get.body.len().to_string());
    }
}

#[tokio::test]
async fn a_slash_too_many_leads_to_the_page() {
    let page = get("/problems/sold_out/").await;
    assert_eq!(
        (page.status, &page.headers["location"]),
        (308, &"../sold_out".parse().unwrap())
    );
    let odd = get("/problems/%0d%0a%22%3Ca:b/").await;
    assert_eq!(odd.headers["location"], "../%0D%0A%22%3Ca%3Ab");
}

#[tokio::test]
async fn an_unknown_code_is_a_problem_that_repeats_nothing() {
    for path in [
        "/problems/nonsense",
        "/problems/%3Cscript%3E",
        "/problems/Sold_Out",
    ] {
        let page = get(path).await;
        assert_eq!(page.status, 404);
        assert_eq!(page.headers["content-type"], "application/problem+json");
        assert!(!page.body.contains("script") && !page.body.contains("nonsense"));
    }
    let post = ask(Method::POST, "/problems/sold_out", &[]).await;
    assert_eq!(
        (post.status, &post.headers["allow"]),
        (405, &"GET,HEAD".parse().unwrap())
    );
}

#[tokio::test]
async fn the_pages_may_stand_at_the_root() {
    let app: Router = registry().pages("/");
    for path in ["/", "/sold_out"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn pages_say_the_status_that_is_answered() {
    let app: Router = registry().validation_status(400).pages("/problems");
    let request = Request::get("/problems/validation_failed");
    let response = app.oneshot(request.body(Body::empty()).unwrap()).await;
    let body = to_bytes(response.unwrap().into_body(), usize::MAX).await;
    let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
    assert!(
        body.contains("400 Bad Request") && !body.contains("422"),
        "{body}"
    );
}

#[tokio::test]
async fn pages_may_be_nested_under_a_parameter() {
    let app: Router = Router::new().nest("/{tenant}", registry().pages("/problems"));
    for (path, status) in [
        ("/acme/problems", 200),
        ("/acme/problems/sold_out", 200),
        ("/acme/problems/sold_out/", 308),
        ("/acme/problems/acme", 404),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
}

#[tokio::test]
async fn a_code_that_is_not_text_is_an_unknown_code() {
    let app: Router = registry().pages("/problems");
    for path in ["/problems/%FF", "/problems/%FF/"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        let content_type = &response.headers()["content-type"];
        assert_eq!(content_type, "application/problem+json", "{path}");
    }
}
