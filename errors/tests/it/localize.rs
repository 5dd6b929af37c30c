//! Texts in the reader's language.

use axum::Router;
use axum::routing::get as on_get;
use http::StatusCode;
use mainstay_errors::{
    Category, Localize, Localized, Problem, ProblemLayer, Violation, Violations, preferred_language,
};

use crate::answer::{get, get_with};

struct Texts;

impl Localize for Texts {
    fn localize(&self, problem: &Problem, accept_language: &str) -> Option<Localized> {
        let language = preferred_language(accept_language, &["en", "de"])?;
        if language != "de" {
            return None;
        }
        let mut texts = Localized::new("de")
            .title("Eingabe ungültig")
            .detail(format!("{} Fehler", problem.errors().len()));
        for (at, violation) in problem.errors().iter().enumerate() {
            if let Some((_, min)) = violation.params().find(|(name, _)| *name == "min") {
                texts = texts.violation(at, format!("mindestens {min}"));
            }
        }
        Some(texts.violation(99, "there is no such violation"))
    }
}

fn app(texts: impl Localize) -> Router {
    let violations = || async {
        Violations::from_iter([
            Violation::body("/a", "required").with_detail("is required"),
            Violation::body("/b", "too_small").with_param("min", 3),
        ])
    };
    Router::new()
        .route("/", on_get(violations))
        .route("/ok", on_get(|| async {}))
        .route(
            "/varies",
            on_get(|| async { (StatusCode::CONFLICT, [("vary", "origin, accept-language")]) }),
        )
        .layer(ProblemLayer::default().localize(texts))
}

#[tokio::test]
async fn title_detail_and_violations_are_in_the_readers_language() {
    let answer = get_with(&app(Texts), "/", "accept-language", "de-CH, en;q=0.7").await;
    let document = answer.problem();
    assert_eq!(document["title"], "Eingabe ungültig");
    assert_eq!(document["detail"], "2 Fehler");
    assert_eq!(document["errors"][0]["detail"], "is required");
    assert_eq!(document["errors"][1]["detail"], "mindestens 3");
    assert_eq!(document["errors"].as_array().unwrap().len(), 2);
    assert_eq!(
        document["code"], "validation_failed",
        "codes are for programs"
    );
    assert_eq!(answer.header("content-language"), "de");
}

#[tokio::test]
async fn without_texts_the_codes_own_stay_and_the_answer_varies_all_the_same() {
    for language in ["en", "fr", "", "nonsense;;q"] {
        let answer = get_with(&app(Texts), "/", "accept-language", language).await;
        assert_eq!(answer.problem()["title"], "Validation failed");
        assert_eq!(answer.header("content-language"), "");
        assert_eq!(answer.header("vary"), "Accept-Language");
    }
    assert_eq!(
        get(&app(Texts), "/").await.problem()["title"],
        "Validation failed"
    );
    let answer = get(&app(Texts), "/varies").await;
    assert_eq!(answer.header("vary"), "origin, accept-language");
    assert_eq!(get(&app(Texts), "/ok").await.header("vary"), "");
}

#[tokio::test]
async fn a_resolver_that_panics_or_names_no_language_does_not_take_the_answer() {
    let panics = |_: &Problem, _: &str| -> Option<Localized> { panic!("hunter2") };
    let document = get(&app(panics), "/").await.problem();
    assert_eq!(document["title"], "Validation failed");
    let broken = |_: &Problem, _: &str| Some(Localized::new("de\r\nset-cookie: a=b").title("T"));
    let answer = get(&app(broken), "/").await;
    assert_eq!(answer.problem()["title"], "T");
    assert_eq!(answer.header("content-language"), "");
}

#[tokio::test]
async fn a_resolver_sees_public_parts_alone() {
    let error = || async {
        let error = mainstay_errors::Error::internal("hunter2");
        error.context("hunter2")
    };
    let echo = |problem: &Problem, _: &str| {
        Some(Localized::new("en").detail(format!("{problem:?} {problem}")))
    };
    let app = Router::new()
        .route("/", on_get(error))
        .route(
            "/own",
            on_get(|| async { Problem::new(Category::NotFound, "gone") }),
        )
        .layer(ProblemLayer::default().localize(echo));
    for path in ["/", "/own"] {
        let document = get(&app, path).await.problem();
        assert!(!document["detail"].as_str().unwrap().contains("hunter2"));
    }
}
