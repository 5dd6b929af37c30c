//! Lists under each preset, as a client walks them: AIP-158, JSON:API, Relay, GitHub.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use axum::response::Response;
use axum::routing::get;
use mainstay_errors::Problem;
use mainstay_pagination::{
    Column, KeysetDef, PageLimits, PagePolicy, PageRequest, Paged, Preset, Probe, Total,
};
use serde_json::{Value, json};
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{QueryBuilder, Sqlite, SqlitePool};
use tower_service::Service;

use crate::support::{codec, sqlite};

const LETTERS: KeysetDef = KeysetDef::new("letters").unique_asc(Column::text("letter").not_null());

macro_rules! policies {
    ($($name:ident => $preset:ident),* $(,)?) => {$(
        struct $name;
        impl PagePolicy for $name {
            const LIMITS: PageLimits = PageLimits::new(3, 4);
            const PRESET: Preset = Preset::$preset;
        }
    )*};
}
policies! { GitHub => GitHub, Aip => Aip158, JsonApi => JsonApi, Relay => Relay }

/// A to E, or from another letter on if the query says so.
async fn list<P: PagePolicy>(
    pool: SqlitePool,
    uri: Uri,
    page: Paged<P>,
) -> Result<Response, Problem> {
    let query = uri.query().unwrap_or_default();
    let from = query
        .split("from=")
        .nth(1)
        .map_or("A", |rest| &rest[..1])
        .to_owned();
    let rows = LETTERS
        .select(|q: &mut QueryBuilder<Sqlite>| {
            q.push("SELECT column1 AS letter FROM (VALUES ('A'), ('B'), ('C'), ('D'), ('E')) WHERE column1 >= ")
                .push_bind(from.clone());
        })
        .bind_to(("letters", from.clone()))
        .previous(Probe::Exact)
        .total(Total::Exact)
        .cursors()
        .fetch::<(String,), _>(&pool, &page, &codec())
        .await?
        .map(|(letter,)| letter);
    Ok(page.respond(rows, &uri))
}

fn app<P: PagePolicy + 'static>() -> Router {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_lazy("sqlite::memory:")
        .unwrap();
    Router::new().route(
        "/l",
        get(move |uri, page| list::<P>(pool.clone(), uri, page)),
    )
}

async fn ask(app: &mut Router, query: &str) -> (StatusCode, HeaderMap, Value) {
    let uri = format!("/l?{query}");
    let request = Request::get(uri).body(Body::empty()).unwrap();
    let response = app.call(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
    (status, headers, serde_json::from_slice(&body).unwrap())
}

async fn good(app: &mut Router, query: &str) -> (HeaderMap, Value) {
    let (status, headers, body) = ask(app, query).await;
    assert_eq!(status, StatusCode::OK, "{query}: {body}");
    (headers, body)
}

fn query_of(uri: &str) -> String {
    uri.split_once('?')
        .map_or("", |(_, query)| query)
        .to_owned()
}

#[tokio::test]
async fn aip_158_goes_forward_by_tokens() {
    let mut app = app::<Aip>();
    let letters = |body: &Value| body["items"].to_string();
    let token = |body: &Value| body["next_page_token"].as_str().unwrap().to_owned();

    // 0 or absent: the default, and no error. Above the maximum: the maximum.
    for query in ["", "page_size=0", "page_token="] {
        let (_, body) = good(&mut app, query).await;
        assert_eq!(letters(&body), r#"["A","B","C"]"#, "{query}");
    }
    let (headers, body) = good(&mut app, "page_size=1000&page_token=").await;
    assert_eq!(letters(&body), r#"["A","B","C","D"]"#);
    assert_eq!(body["total_size"], 5);
    assert!(!headers.contains_key(header::LINK));
    assert!(
        token(&body)
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    );

    // A changed page size is honoured; the token is empty at the end, and there only.
    let (_, first) = good(&mut app, "page_size=2").await;
    let (_, rest) = good(
        &mut app,
        &format!("page_size=3&page_token={}", token(&first)),
    )
    .await;
    assert_eq!(
        (letters(&rest), token(&rest)),
        (r#"["C","D","E"]"#.to_owned(), String::new())
    );

    // Any other changed argument is not.
    for (query, pointer, code) in [
        (
            format!("from=B&page_token={}", token(&first)),
            "/page_token",
            "cursor_wrong_query",
        ),
        (
            "page_token=made-up".into(),
            "/page_token",
            "cursor_malformed",
        ),
        ("page_size=-1".into(), "/page_size", "limit_negative"),
    ] {
        let (status, _, body) = ask(&mut app, &query).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        let violation = &body["errors"][0];
        assert_eq!(
            (&violation["pointer"], &violation["code"]),
            (&pointer.into(), &code.into())
        );
    }
}

#[tokio::test]
async fn json_api_links_forth_and_back_and_takes_ranges() {
    let mut app = app::<JsonApi>();
    let (headers, first) = good(&mut app, "page[size]=2&from=A").await;
    assert_eq!(headers[header::CONTENT_TYPE], "application/vnd.api+json");
    assert_eq!(first["data"], json!(["A", "B"]));
    assert_eq!(first["meta"], json!({"page": {"total": 5}}));
    assert_eq!(first["links"]["prev"], Value::Null);
    assert_eq!(first["links"]["first"], "/l?page[size]=2&from=A");

    let next = query_of(first["links"]["next"].as_str().unwrap());
    let (_, second) = good(&mut app, &next).await;
    assert_eq!(second["data"], json!(["C", "D"]));
    let (_, third) = good(
        &mut app,
        &query_of(second["links"]["next"].as_str().unwrap()),
    )
    .await;
    assert_eq!(
        (&third["data"], &third["links"]["next"]),
        (&json!(["E"]), &Value::Null)
    );
    let (_, back) = good(
        &mut app,
        &query_of(third["links"]["prev"].as_str().unwrap()),
    )
    .await;
    assert_eq!(back["data"], json!(["C", "D"]));

    // After B and before E.
    let after = next.rsplit_once('=').unwrap().1;
    let before = query_of(third["links"]["prev"].as_str().unwrap());
    let before = before.rsplit_once('=').unwrap().1;
    let range = format!("from=A&page[after]={after}&page[before]={before}");
    let (_, between) = good(&mut app, &range).await;
    assert_eq!(between["data"], json!(["C", "D"]));

    let (status, _, problem) = ask(&mut app, &format!("page[before]={before}x")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(problem["errors"][0]["pointer"], "/page[before]");
}

#[tokio::test]
async fn github_answers_an_array_and_links_to_both_ends() {
    let mut app = app::<GitHub>();
    let mut query = "per_page=2".to_owned();
    let mut seen = Vec::new();
    let links = loop {
        let (headers, body) = good(&mut app, &query).await;
        seen.push(body.to_string());
        let links = headers[header::LINK].to_str().unwrap().to_owned();
        let next = links
            .split(", ")
            .find(|link| link.ends_with("rel=\"next\""));
        match next {
            Some(link) => query = query_of(link.trim_start_matches('<').split('>').next().unwrap()),
            None => break links,
        }
    };
    assert_eq!(seen, [r#"["A","B"]"#, r#"["C","D"]"#, r#"["E"]"#]);
    assert!(links.contains("</l?per_page=2>; rel=\"first\""), "{links}");
    assert!(links.ends_with("</l?last=2>; rel=\"last\""), "{links}");
    let (_, last) = good(&mut app, "last=2").await;
    assert_eq!(last, json!(["D", "E"]));
}

#[tokio::test]
async fn relay_answers_a_connection_whose_edges_lead_on() {
    let mut app = app::<Relay>();
    let (_, body) = good(&mut app, "first=2").await;
    assert_eq!(body["totalCount"], 5);
    assert_eq!(body["edges"][1]["node"], "B");
    let info = &body["pageInfo"];
    assert_eq!(
        (&info["hasNextPage"], &info["hasPreviousPage"]),
        (&true.into(), &false.into())
    );
    assert_eq!(info["endCursor"], body["edges"][1]["cursor"]);
    // Any edge's cursor is a place, not only the page's ends.
    let a = body["edges"][0]["cursor"].as_str().unwrap();
    let (_, body) = good(&mut app, &format!("first=2&after={a}")).await;
    assert_eq!(
        (&body["edges"][0]["node"], &body["edges"][1]["node"]),
        (&"B".into(), &"C".into())
    );
    // Probed exactly: A precedes.
    assert_eq!(body["pageInfo"]["hasPreviousPage"], true);
    // Each of two cursors is checked, and refused by its own name.
    for (query, pointer) in [
        (format!("first=2&after={a}&before=x"), "/before"),
        (format!("last=2&after={a}x&before={a}"), "/after"),
    ] {
        let (status, _, problem) = ask(&mut app, &query).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{query}");
    }
    let (_, body) = good(&mut app, &format!("last=2&after={a}")).await;
    assert_eq!(
        (&body["edges"][0]["node"], &body["edges"][1]["node"]),
        (&"D".into(), &"E".into())
    );
}

/// The table of graphql-relay-js' own tests on A to E: arguments; edges, whether edges precede, whether edges follow.
#[tokio::test]
async fn relays_own_table_holds() {
    let mut connection = sqlite().await;
    let mut fetch = async |request: &PageRequest| {
        LETTERS
            .select(|q: &mut QueryBuilder<Sqlite>| {
                q.push("SELECT column1 AS letter FROM (VALUES ('A'), ('B'), ('C'), ('D'), ('E'))");
            })
            .unbound()
            .cursors()
            .fetch::<(String,), _>(&mut connection, request, &codec())
            .await
            .unwrap()
            .into_connection()
            .unwrap()
    };
    let all = fetch(&PageRequest::first(10)).await;
    let cursor = |letter: char| {
        all.edges
            .iter()
            .find(|e| e.node.0.starts_with(letter))
            .unwrap()
            .cursor
            .clone()
    };
    let first = PageRequest::first;
    let last = PageRequest::last;
    let [a, b, c, d, e] = ['A', 'B', 'C', 'D', 'E'].map(cursor);
    for (request, edges, previous, next) in [
        (first(10), "ABCDE", false, false),
        (first(2), "AB", false, true),
        (last(2), "DE", true, false),
        (last(10), "ABCDE", false, false),
        (first(2).after(b.clone()), "CD", false, true),
        (first(10).after(b), "CDE", false, false),
        (last(2).before(d.clone()), "BC", true, false),
        (last(10).before(d), "ABC", false, false),
        (
            first(2).after(a.clone()).before(e.clone()),
            "BC",
            false,
            true,
        ),
        (
            first(4).after(a.clone()).before(e.clone()),
            "BCD",
            false,
            false,
        ),
        (
            first(3).after(a.clone()).before(e.clone()),
            "BCD",
            false,
            false,
        ),
        (
            last(2).after(a.clone()).before(e.clone()),
            "CD",
            true,
            false,
        ),
        (
            last(4).after(a.clone()).before(e.clone()),
            "BCD",
            false,
            false,
        ),
        (last(3).after(a).before(e.clone()), "BCD", false, false),
        (first(10).after(e).before(c), "", false, false),
    ] {
        let found = fetch(&request).await;
        let letters: String = found
            .edges
            .iter()
            .map(|edge| edge.node.0.as_str())
            .collect();
        let info = found.page_info;
        assert_eq!(
            (letters.as_str(), info.has_previous_page, info.has_next_page),
            (edges, previous, next),
            "{request:?}"
        );
        assert_eq!(
            info.start_cursor.as_ref(),
            found.edges.first().map(|edge| &edge.cursor)
        );
        assert_eq!(
            info.end_cursor.as_ref(),
            found.edges.last().map(|edge| &edge.cursor)
        );
    }
}
