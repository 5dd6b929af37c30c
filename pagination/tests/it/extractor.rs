//! The extractor and the error of `fetch` as a client of an axum service sees them.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mainstay_errors::Problem;
use mainstay_pagination::{
    Column, CursorCodec, KeyRing, KeysetDef, OnExceed, Page, PageLimits, PagePolicy, Paged, Probe,
};
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{QueryBuilder, Sqlite, SqlitePool};
use tower_service::Service;

use crate::support::codec;

const ORDER: KeysetDef = KeysetDef::new("numbers").unique_asc(Column::i64("n").not_null());

struct Numbers;
impl PagePolicy for Numbers {
    const LIMITS: PageLimits = PageLimits::new(3, 5).on_exceed(OnExceed::Reject);
}

async fn list(
    pool: SqlitePool,
    codec: CursorCodec,
    uri: Uri,
    page: Paged<Numbers>,
) -> Result<Response, Problem> {
    let page: Page<(i64,)> = ORDER
        .select(|q: &mut QueryBuilder<Sqlite>| {
            q.push("SELECT column1 AS n FROM (VALUES (1), (2), (3), (4), (5), (6), (7))");
        })
        .bind_to("numbers")
        .previous(Probe::Exact)
        .fetch(&pool, &page.request, &codec)
        .await?;
    let link = page
        .link_header(&uri)
        .ok_or_else(|| Problem::new(mainstay_errors::Category::Internal, "link"))?;
    Ok((
        [(header::LINK, link)],
        serde_json::to_string(&page.map(|(n,)| n)).unwrap(),
    )
        .into_response())
}

fn app(codec: CursorCodec) -> Router {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_lazy("sqlite::memory:")
        .unwrap();
    Router::new().route(
        "/v1/numbers",
        get(move |uri, page| list(pool.clone(), codec.clone(), uri, page)),
    )
}

struct Answer {
    status: StatusCode,
    content_type: String,
    links: String,
    body: serde_json::Value,
}

async fn ask(app: &mut Router, query: &str) -> Answer {
    let request = Request::get(format!("/v1/numbers?{query}"))
        .body(Body::empty())
        .unwrap();
    let response = app.call(request).await.unwrap();
    let header = |name| {
        response
            .headers()
            .get(name)
            .map_or("", |v| v.to_str().unwrap())
            .to_owned()
    };
    let (status, content_type, links) = (
        response.status(),
        header(header::CONTENT_TYPE),
        header(header::LINK),
    );
    let body =
        serde_json::from_slice(&to_bytes(response.into_body(), 1 << 16).await.unwrap()).unwrap();
    Answer {
        status,
        content_type,
        links,
        body,
    }
}

/// The query of the link with this relation.
fn follow(links: &str, rel: &str) -> Option<String> {
    let link = links
        .split(", ")
        .find(|link| link.ends_with(&format!("rel=\"{rel}\"")))?;
    let uri = link.strip_prefix('<')?.split('>').next()?;
    Some(uri.split_once('?')?.1.to_owned())
}

#[tokio::test]
async fn links_lead_to_the_end_and_back() {
    let mut app = app(codec());
    let mut seen = Vec::new();
    let mut query = "limit=3&note=a%20b".to_owned();
    let mut back = Vec::new();
    loop {
        let answer = ask(&mut app, &query).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        seen.push(answer.body["items"].clone());
        back.extend(follow(&answer.links, "prev"));
        assert_eq!(
            follow(&answer.links, "first").as_deref(),
            Some("limit=3&note=a%20b")
        );
        match follow(&answer.links, "next") {
            Some(next) => query = next,
            None => break,
        }
    }
    assert_eq!(
        serde_json::to_string(&seen).unwrap(),
        "[[1,2,3],[4,5,6],[7]]"
    );
    assert_eq!(back.len(), 2);
    let answer = ask(&mut app, &back[1]).await;
    assert_eq!(answer.body["items"].to_string(), "[4,5,6]");
    assert_eq!(answer.body["page"]["has_next"], true);
}

#[tokio::test]
async fn every_bad_parameter_is_a_problem_that_points_at_it() {
    let mut app = app(codec());
    let good = ask(&mut app, "limit=2").await.body["page"]["end_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut flipped = good.clone();
    flipped.replace_range(10..11, if &good[10..11] == "A" { "B" } else { "A" });
    for (query, pointer, code) in [
        ("limit=0".to_owned(), "/limit", "limit_zero"),
        ("limit=-3".into(), "/limit", "limit_negative"),
        ("limit=6".into(), "/limit", "limit_too_large"),
        ("limit=many".into(), "/limit", "limit_not_a_number"),
        ("limit=1&limit=2".into(), "/limit", "repeated_parameter"),
        ("after=garbage".into(), "/after", "cursor_malformed"),
        ("before=AAAA".into(), "/before", "cursor_wrong_version"),
        (format!("after={flipped}"), "/after", "cursor_bad_signature"),
        (format!("before={good}%3D"), "/before", "cursor_malformed"),
        (
            format!("before={}", good.replace(&good[..1], "%2545")),
            "/before",
            "cursor_malformed",
        ),
        (
            format!("after={}", "A".repeat(1025)),
            "/after",
            "cursor_too_long",
        ),
        (
            format!("after={good}&before={good}"),
            "/after",
            "conflicting_parameters",
        ),
    ] {
        let answer = ask(&mut app, &query).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.content_type, "application/problem+json");
        let violation = &answer.body["errors"][0];
        assert_eq!(
            (&violation["pointer"], &violation["code"]),
            (&pointer.into(), &code.into()),
            "{query}"
        );
        assert_eq!(violation["location"], "query");
        assert_eq!(answer.body["code"], "page_request_invalid");
        assert_eq!(answer.body["outcome"], "not_applied");
    }
}

#[tokio::test]
async fn a_cursor_of_another_service_is_a_400_too() {
    let other = CursorCodec::hmac_sha256(KeyRing::new(1, [9; 32]).unwrap());
    let cursor = ask(&mut app(other), "").await.body["page"]["end_cursor"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = ask(&mut app(codec()), &format!("after={cursor}")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.body["errors"][0]["code"], "cursor_bad_signature");
}
