//! What a real OpenAPI document says of an endpoint's failures.

#![expect(dead_code, reason = "what is only described is not called")]

use mainstay_errors::openapi::{AnyOf, JsonRejections, PathRejections, QueryRejections, schemas};
use mainstay_errors::{Error, Fault, PROBLEM_JSON, Problem, Registry, Violations};
use serde_json::Value;
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};

#[derive(Debug, thiserror::Error, Fault)]
pub enum OrderError {
    /// No order has this id.
    ///
    /// It may have been deleted.
    #[error("order {id} not found")]
    #[fault(not_found, public)]
    OrderNotFound {
        #[fault(ext = "order_id")]
        id: u64,
    },
    /// The customer is not known.
    #[error("customer")]
    #[fault(not_found)]
    CustomerNotFound,
    #[error("busy")]
    #[fault(unavailable, retry_after = "1500ms")]
    Busy,
    #[error(transparent)]
    #[fault(delegate)]
    Invalid(#[from] Violations),
}

#[derive(ToSchema)]
pub struct Order {
    amount: u32,
}

#[derive(utoipa::IntoResponses)]
pub enum Foreign {
    /// Somebody else's
    #[response(status = 404)]
    Missing,
    /// It moved
    #[response(status = 410)]
    Moved,
}

#[utoipa::path(post, path = "/orders/{id}", request_body = Order, responses(
    (status = 200, description = "ordered", body = Order),
    AnyOf<(OrderError, JsonRejections, QueryRejections, PathRejections, Problem)>,
))]
fn create() {}

#[utoipa::path(get, path = "/orders/{id}", responses(OrderError, JsonRejections))]
fn overwritten() {}

#[utoipa::path(get, path = "/foreign", responses(AnyOf<(Foreign, OrderError)>))]
fn foreign() {}

#[derive(OpenApi)]
#[openapi(paths(create, overwritten, foreign), components(schemas(Problem)))]
struct Api;

fn responses(document: &Value, path: &str, method: &str) -> Value {
    document["paths"][path][method]["responses"].clone()
}

fn examples(response: &Value) -> Vec<&str> {
    let examples = &response["content"][PROBLEM_JSON]["examples"];
    examples
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn document() -> Value {
    serde_json::to_value(Api::openapi()).unwrap()
}

#[test]
fn an_endpoint_says_every_status_and_every_code_of_it() {
    let document = document();
    let post = responses(&document, "/orders/{id}", "post");
    let statuses: Vec<_> = post.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        statuses,
        ["200", "400", "404", "413", "415", "422", "503", "default"]
    );
    assert_eq!(
        examples(&post["400"]),
        [
            "bad_request",
            "invalid_path",
            "invalid_query",
            "malformed_json"
        ]
    );
    assert_eq!(
        post["404"]["description"],
        "- `customer_not_found`: The customer is not known.\n- `order_not_found`: No order has this id."
    );
    // Both the enum and the extractor have it.
    assert_eq!(examples(&post["422"]), ["validation_failed"]);
    assert_eq!(
        post["422"]["description"].as_str().unwrap().lines().count(),
        1
    );
    assert_eq!(
        post["503"]["headers"]["Retry-After"]["schema"]["type"],
        "integer"
    );
}

#[test]
fn every_example_is_a_document_and_every_reference_resolves() {
    let document = document();
    let mut seen = 0;
    for (path, method) in [
        ("/orders/{id}", "post"),
        ("/orders/{id}", "get"),
        ("/foreign", "get"),
    ] {
        for (status, response) in responses(&document, path, method).as_object().unwrap() {
            let Some(content) = response["content"].get(PROBLEM_JSON) else {
                continue;
            };
            let name = content["schema"]["$ref"].as_str().unwrap();
            let schema = document.pointer(name.strip_prefix('#').unwrap()).unwrap();
            assert_eq!(schema, &schemas()["Problem"]);
            let examples = content.get("examples").and_then(Value::as_object);
            for (code, example) in examples.into_iter().flatten() {
                let bytes = serde_json::to_vec(&example["value"]).unwrap();
                let problem =
                    Problem::read_document(status.parse().unwrap(), Some(PROBLEM_JSON), &bytes);
                assert_eq!(problem.code(), code);
                let again: Value = serde_json::from_slice(&problem.to_bytes()).unwrap();
                assert_eq!(again, example["value"], "{code}");
                seen += 1;
            }
        }
    }
    assert!(seen > 15, "{seen}");
    assert_eq!(
        document["components"]["schemas"]["Violation"],
        schemas()["Violation"]
    );
}

/// Why `AnyOf` exists: when this fails, utoipa merges by itself.
#[test]
fn utoipa_keeps_the_last_response_of_a_status() {
    let document = document();
    let get = responses(&document, "/orders/{id}", "get");
    assert_eq!(examples(&get["400"]), ["bad_request", "malformed_json"]);
    let merged = AnyOf::<(OrderError, Foreign)>::responses();
    let utoipas = utoipa::openapi::ResponsesBuilder::new()
        .responses_from_into_responses::<OrderError>()
        .responses_from_into_responses::<Foreign>()
        .build();
    let merged = serde_json::to_value(merged).unwrap();
    let utoipas = serde_json::to_value(utoipas).unwrap();
    assert_eq!(utoipas["404"]["description"], "Somebody else's");
    assert!(
        merged["404"]["description"]
            .as_str()
            .unwrap()
            .contains("order_not_found")
    );
}

#[test]
fn what_others_say_of_a_status_stays() {
    let document = document();
    let get = responses(&document, "/foreign", "get");
    let text = get["404"]["description"].as_str().unwrap();
    assert!(
        text.starts_with("Somebody else's\n- `customer_not_found`"),
        "{text}"
    );
    assert_eq!(get["410"]["description"], "It moved");
}

#[test]
fn a_registry_makes_the_document_say_what_is_answered() {
    let registry = Registry::new()
        .with::<OrderError>()
        .type_base("https://e.example/#")
        .validation_status(400);
    let mut api = Api::openapi();
    registry.modify(&mut api);
    let once = serde_json::to_value(&api).unwrap();
    let post = responses(&once, "/orders/{id}", "post");
    assert!(post.get("422").is_none());
    assert!(examples(&post["400"]).contains(&"validation_failed"));
    let example = &post["400"]["content"][PROBLEM_JSON]["examples"]["validation_failed"]["value"];
    assert_eq!(example["status"], 400);
    assert_eq!(example["type"], "https://e.example/#validation_failed");
    assert_eq!(post["200"]["description"], "ordered");
    assert_eq!(post["default"]["description"], "Any other failure");
    let foreign = responses(&once, "/foreign", "get");
    assert!(
        foreign["404"]["description"]
            .as_str()
            .unwrap()
            .starts_with("Somebody else's")
    );
    // Again, and nothing moves.
    registry.modify(&mut api);
    assert_eq!(serde_json::to_value(&api).unwrap(), once);
}

#[test]
fn a_registry_that_changes_nothing_changes_nothing() {
    let mut api = Api::openapi();
    let before = serde_json::to_value(&api).unwrap();
    Registry::new().with::<OrderError>().modify(&mut api);
    let after = serde_json::to_value(&api).unwrap();
    for (path, method) in [
        ("/orders/{id}", "post"),
        ("/orders/{id}", "get"),
        ("/foreign", "get"),
    ] {
        let (before, after) = (
            responses(&before, path, method),
            responses(&after, path, method),
        );
        for (status, response) in before.as_object().unwrap() {
            assert_eq!(&after[status], response, "{method} {path} {status}");
        }
    }
    assert!(before == after);
}

#[test]
fn an_error_of_any_kind_is_the_default_response() {
    let statuses: Vec<_> = Error::responses().into_keys().collect();
    assert_eq!(statuses, ["default"]);
}
