//! What RFC 9457 asks of who writes a problem document, rule by rule.

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get as on_get;
use http::{Request, StatusCode};
use mainstay_errors::{
    Category, Error, Fault, Localized, MemberRefused, Problem, ProblemLayer, RESERVED_MEMBERS,
    Registry, Violation, Violations,
};

use crate::answer::{Answer, get, get_with, send};

#[derive(Debug, thiserror::Error, Fault)]
enum TeaError {
    /// The pot is empty.
    #[error("the pot of {room} is empty")]
    #[fault(failed_precondition, status = 409, public)]
    PotEmpty {
        #[fault(ext)]
        room: &'static str,
    },
    /// The kettle does not heat.
    #[error("fuse 7 at /dev/kettle0 (hunter2)")]
    #[fault(unavailable)]
    KettleBroken(#[source] std::io::Error),
}

fn registry() -> Registry {
    Registry::new().with::<TeaError>()
}

async fn kettle() -> Result<(), Error> {
    let source = std::io::Error::other("hunter2");
    Err(Error::from(TeaError::KettleBroken(source)).context("hunter2"))
}

fn app() -> Router {
    Router::new()
        .route(
            "/pot",
            on_get(|| async { TeaError::PotEmpty { room: "hall" } }),
        )
        .route(
            "/other-pot",
            on_get(|| async { TeaError::PotEmpty { room: "attic" } }),
        )
        .route("/kettle", on_get(kettle))
        .route(
            "/bug",
            on_get(|| async { Error::internal("hunter2").context("hunter2") }),
        )
        .route(
            "/text",
            on_get(|| async { (StatusCode::BAD_REQUEST, "hunter2 at src/main.rs:7") }),
        )
        .route(
            "/panic",
            on_get(|| async {
                if true {
                    panic!("hunter2")
                }
            }),
        )
        .route(
            "/violations",
            on_get(|| async {
                Violations::from_iter([
                    Violation::body("/a", "too_small").with_param("min", 1),
                    Violation::body("/b", "required"),
                    Violation::query("c", "unknown"),
                ])
            }),
        )
        .route(
            "/blank",
            on_get(|| async { Problem::new(Category::NotFound, "gone").with_type("about:blank") }),
        )
        .merge(registry().pages("/problems"))
        .layer(ProblemLayer::new(registry()))
}

const FAILING: [&str; 9] = [
    "/pot",
    "/other-pot",
    "/kettle",
    "/bug",
    "/text",
    "/panic",
    "/violations",
    "/blank",
    "/nowhere",
];

async fn all() -> Vec<Answer> {
    let mut answers = Vec::new();
    for path in FAILING {
        answers.push(get(&app(), path).await);
    }
    answers
}

#[tokio::test]
async fn w1_the_media_type_is_problem_json() {
    for answer in all().await {
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
}

#[tokio::test]
async fn w2_the_body_is_one_object() {
    for answer in all().await {
        assert!(answer.json().is_object(), "{}", answer.body);
    }
}

#[tokio::test]
async fn w3_the_status_in_the_document_is_that_of_the_answer() {
    for answer in all().await {
        assert_eq!(answer.json()["status"], answer.status);
    }
    // Whatever a handler puts around it.
    for (around, expected) in [
        (200, 404),
        (201, 404),
        (410, 410),
        (500, 404),
        (304, 404),
        (499, 499),
    ] {
        let status = StatusCode::from_u16(around).unwrap();
        let wraps = move || async move { (status, Problem::new(Category::NotFound, "gone")) };
        let app = Router::new()
            .route("/", on_get(wraps))
            .layer(ProblemLayer::default());
        let answer = get(&app, "/").await;
        assert_eq!(
            (answer.status, &answer.problem()["status"]),
            (expected, &expected.into()),
            "{around}"
        );
    }
}

#[tokio::test]
async fn w4_each_member_is_of_its_type() {
    for answer in all().await {
        let document = answer.json();
        for member in ["type", "title", "detail", "instance"] {
            assert!(
                document
                    .get(member)
                    .is_none_or(serde_json::Value::is_string),
                "{document}"
            );
        }
        assert!(document["status"].is_u64());
    }
}

#[tokio::test]
async fn w5_type_is_absolute_or_a_whole_path() {
    for answer in all().await {
        let document = answer.json();
        let uri = document["type"].as_str().unwrap();
        assert!(uri.starts_with('/') || uri == "about:blank", "{uri}");
    }
    let registry = registry().type_base("https://errors.example.com/");
    let app = Router::new()
        .route(
            "/",
            on_get(|| async { TeaError::PotEmpty { room: "hall" } }),
        )
        .layer(ProblemLayer::new(registry));
    assert_eq!(
        get(&app, "/").await.problem()["type"],
        "https://errors.example.com/pot_empty"
    );
}

#[tokio::test]
async fn w6_with_about_blank_the_title_is_the_phrase_of_the_status() {
    let document = get(&app(), "/blank").await.problem();
    assert_eq!(
        (&document["type"], &document["title"]),
        (&"about:blank".into(), &"Not Found".into())
    );
}

#[tokio::test]
async fn w7_the_title_is_the_same_for_every_occurrence() {
    let (one, two) = (
        get(&app(), "/pot").await.problem(),
        get(&app(), "/other-pot").await.problem(),
    );
    assert_eq!((&one["title"], &one["type"]), (&two["title"], &two["type"]));
    assert_ne!(one["detail"], two["detail"]);
}

#[tokio::test]
async fn w8_detail_is_only_what_was_written_for_the_client() {
    assert_eq!(
        get(&app(), "/pot").await.problem()["detail"],
        "the pot of hall is empty"
    );
    for path in ["/kettle", "/bug", "/text", "/panic", "/nowhere"] {
        assert_eq!(
            get(&app(), path).await.problem().get("detail"),
            None,
            "{path}"
        );
    }
}

#[test]
fn w9_the_names_of_extensions_keep_to_the_grammar() {
    let problem = Problem::new(Category::NotFound, "gone");
    let named = |name: &str| problem.clone().with_extension(name, 1);
    for name in ["room", "Room_7", "abc"] {
        assert_eq!(named(name).unwrap().extensions()[name], 1);
    }
    for name in [
        "ab",
        "7rooms",
        "_room",
        "tea-room",
        "tea room",
        "zimmergröße",
        "",
    ] {
        assert_eq!(named(name), Err(MemberRefused::Malformed(name.to_owned())));
    }
    for name in RESERVED_MEMBERS {
        assert_eq!(named(name), Err(MemberRefused::Reserved(name.to_owned())));
    }
}

#[tokio::test]
async fn w10_all_that_is_wrong_is_in_one_problem() {
    let document = get(&app(), "/violations").await.problem();
    assert_eq!(
        (&document["status"], &document["code"]),
        (&422.into(), &"validation_failed".into())
    );
    let pointers: Vec<_> = document["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["pointer"])
        .collect();
    assert_eq!(pointers, ["/a", "/b", "/c"]);
}

#[test]
fn w11_each_type_is_described_by_uri_title_and_status() {
    let registry = registry();
    for descriptor in registry.iter() {
        let facts = registry.describe(descriptor);
        let code = descriptor.code();
        assert!(!facts["type"].as_str().unwrap().is_empty(), "{code}");
        assert!(!facts["title"].as_str().unwrap().is_empty(), "{code}");
        assert!(
            (400..600).contains(&facts["status"].as_u64().unwrap()),
            "{code}"
        );
        assert!(!facts["docs"].as_str().unwrap().is_empty(), "{code}");
    }
}

#[tokio::test]
async fn w12_each_type_resolves_to_a_page_of_the_same_app() {
    let registry = registry();
    for descriptor in registry.iter() {
        let facts = registry.describe(descriptor);
        let page = get(&app(), facts["type"].as_str().unwrap()).await;
        assert_eq!(page.status, 200, "{}", descriptor.code());
        assert!(page.header("content-type").starts_with("text/html"));
        assert!(page.body.contains(&*descriptor.title()));
    }
}

#[tokio::test]
async fn w13_a_document_is_sent_whatever_is_accepted() {
    for accept in [
        "text/html",
        "application/json",
        "image/png",
        "*/*;q=0",
        "nonsense",
    ] {
        get_with(&app(), "/pot", "accept", accept).await.problem();
    }
}

#[tokio::test]
async fn w14_a_document_says_its_language() {
    let german = |problem: &Problem, language: &str| {
        let texts = Localized::new("de").title("Kanne leer");
        (language.starts_with("de") && problem.code() == "pot_empty").then_some(texts)
    };
    let app = Router::new()
        .route(
            "/",
            on_get(|| async { TeaError::PotEmpty { room: "hall" } }),
        )
        .layer(ProblemLayer::new(registry()).localize(german));
    let answer = get_with(&app, "/", "accept-language", "de, en;q=0.5").await;
    assert_eq!(answer.problem()["title"], "Kanne leer");
    assert_eq!(answer.header("content-language"), "de");
    assert_eq!(answer.header("vary"), "Accept-Language");
}

#[tokio::test]
async fn w15_an_answer_tells_nothing_that_was_not_meant_for_it() {
    for answer in all().await {
        let headers = format!("{:?}", answer.headers);
        for secret in [
            "hunter2", "src/", "main.rs", "kettle0", "panicked", "std::io", "TeaError",
        ] {
            assert!(
                !answer.body.contains(secret) && !headers.contains(secret),
                "{}",
                answer.body
            );
        }
    }
}

/// A success that carries what is left of a failure is none.
#[tokio::test]
async fn a_page_in_the_place_of_a_document_keeps_its_status() {
    async fn as_page(response: Response) -> Response {
        let (mut parts, _) = response.into_parts();
        parts.status = StatusCode::OK;
        parts.headers.remove("content-length");
        parts
            .headers
            .insert("content-type", "text/html".parse().unwrap());
        Response::from_parts(parts, Body::from("<p>sorry"))
    }
    let app = app()
        .layer(axum::middleware::map_response(as_page))
        .layer(ProblemLayer::default());
    let request = Request::get("/pot").body(Body::empty()).unwrap();
    let answer = send(app, request).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "<p>sorry"));
}
