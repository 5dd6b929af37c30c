//! Documents as they come, each under the rules of RFC 9457 that decide how it reads.
//!
//! - **D1** a member of the wrong type is ignored, the rest is kept.
//! - **D2** unknown members are kept.
//! - **D3** a missing `type` reads as `about:blank`.
//! - **D4** `type` is the identity, byte for byte.
//! - **D5** the HTTP status wins; both are kept when they differ.
//! - **D7** relative references resolve at the address that answered.
//! - **D8** what is no document still leaves what the status says.
//! - **D9** of a repeated member the last is taken.
//! - **D10** media types are compared as media types.

use mainstay_errors::{Problem, ProblemReader};
use serde_json::{Value, json};

const PROBLEM: &str = "application/problem+json";

struct Case {
    name: &'static str,
    status: u16,
    content_type: &'static str,
    body: &'static [u8],
    /// Members of what was read, each as it must be; null for one that must not be there.
    reads: Value,
}

fn case(name: &'static str, body: &'static str, reads: Value) -> Case {
    Case {
        name,
        status: 403,
        content_type: PROBLEM,
        body: body.as_bytes(),
        reads,
    }
}

/// What a client can see of a problem.
fn seen(problem: &Problem) -> Value {
    let mut seen = json!({
        "type": problem.type_uri(),
        "title": problem.title(),
        "status": problem.status(),
        "reported": problem.reported_status(),
        "detail": problem.detail(),
        "instance": problem.instance(),
        "code": problem.code(),
        "retry": problem.retry().as_str(),
        "retry_after": problem.retry_after().map(|wait| wait.as_secs()),
        "outcome": problem.outcome().as_str(),
        "request_id": problem.request_id().map(ToString::to_string),
        "errors": problem.errors(),
    });
    for (name, value) in problem.extensions() {
        seen[name] = value.clone();
    }
    seen
}

/// A document of which every member is right but for one.
macro_rules! mistyped {
    ($member:literal, $value:literal, $reads:tt) => {
        case(
            concat!("D1: ", $member, " is ", $value),
            concat!(
                r#"{"kept":true,"code":"c","detail":"d","#,
                "\"", $member, "\":", $value, "}"
            ),
            {
                let mut reads = json!({ "kept": true, "code": "c", "detail": "d", "type": "about:blank", "reported": null });
                for (name, value) in json!($reads).as_object().unwrap() {
                    reads[name] = value.clone();
                }
                reads
            },
        )
    };
}

/// Bodies that are no document: only the status, 403, is left.
fn no_document(name: &'static str, content_type: &'static str, body: &'static [u8]) -> Case {
    Case {
        name,
        status: 403,
        content_type,
        body,
        reads: json!({
            "type": "about:blank", "title": "Forbidden", "status": 403, "code": "permission_denied",
            "retry": "never", "outcome": "not_applied", "detail": null, "instance": null, "errors": [],
        }),
    }
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    vec![
        case("RFC 9457 §3, first example; D2, D4, D7",
            r#"{"type":"https://example.com/probs/out-of-credit","title":"You do not have enough credit.",
                "detail":"Your current balance is 30, but that costs 50.","instance":"/account/12345/msgs/abc",
                "balance":30,"accounts":["/account/12345","/account/67890"]}"#,
            json!({"type": "https://example.com/probs/out-of-credit", "title": "You do not have enough credit.",
                "instance": "https://api.example.com/account/12345/msgs/abc", "balance": 30,
                "accounts": ["/account/12345", "/account/67890"], "code": "permission_denied", "status": 403})),
        Case { status: 422, ..case("RFC 9457 §3, second example: pointers are URI fragments",
            r##"{"type":"https://example.net/validation-error","title":"Your request is not valid.",
                "errors":[{"detail":"must be a positive integer","pointer":"#/age"},
                          {"detail":"must be 'green', 'red' or 'blue'","pointer":"#/profile/color"}]}"##,
            json!({"type": "https://example.net/validation-error", "errors": [
                {"pointer": "/age", "location": "body", "code": "invalid", "detail": "must be a positive integer"},
                {"pointer": "/profile/color", "location": "body", "code": "invalid", "detail": "must be 'green', 'red' or 'blue'"}]})) },
        Case { status: 429, ..case("D4: a registered type ends in a fragment",
            r##"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","violated-policies":["daily"]}"##,
            json!({"type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
                "violated-policies": ["daily"], "retry": "backoff"})) },
        case("D4: an instance that is a URN", r#"{"instance":"urn:uuid:3978344d-bb4d-4e2a-a3a9-7f5a2f3a9b10"}"#,
            json!({"instance": "urn:uuid:3978344d-bb4d-4e2a-a3a9-7f5a2f3a9b10"})),
        case("D4: a type is not normalised", r#"{"type":"HTTPS://Example.COM:443/a/../b%7E?q#F"}"#,
            json!({"type": "HTTPS://Example.COM:443/a/../b%7E?q#F"})),
        case("D3: nothing at all", "{}", json!({"type": "about:blank", "title": "Forbidden", "code": "permission_denied"})),
        case("D3: about:blank with a title of its own", r#"{"title":"Nein"}"#,
            json!({"type": "about:blank", "title": "Nein", "status": 403})),
        case("D5: another status in the body", r#"{"status":404}"#, json!({"status": 403, "reported": 404})),
        case("D5: the same status in the body", r#"{"status":403}"#, json!({"status": 403, "reported": null})),
        case("D7: a relative type", r##"{"type":"../problems/x","instance":"#here"}"##,
            json!({"type": "https://api.example.com/problems/x", "instance": "https://api.example.com/v1/orders#here"})),

        mistyped!("type", "7", {}),
        mistyped!("title", "[\"x\"]", {"title": "Forbidden"}),
        mistyped!("status", "\"403\"", {"status": 403}),
        mistyped!("status", "403.5", {"status": 403}),
        mistyped!("status", "4e2", {"status": 403}),
        mistyped!("detail", "{\"a\":1}", {"detail": null}),
        mistyped!("instance", "null", {"instance": null}),
        mistyped!("code", "12", {"code": "permission_denied"}),
        mistyped!("code", "\"\"", {"code": "permission_denied"}),
        mistyped!("retry", "true", {"retry": "never"}),
        mistyped!("retry_after", "\"soon\"", {"retry_after": null}),
        mistyped!("retry_after", "-1", {"retry_after": null}),
        mistyped!("outcome", "[]", {"outcome": "not_applied"}),
        mistyped!("request_id", "\"a b\"", {"request_id": null}),
        mistyped!("errors", "{\"pointer\":\"/a\"}", {"errors": []}),
        mistyped!("errors", "[1,\"x\",{},{\"pointer\":\"/a\",\"location\":\"moon\"}]",
            {"errors": [{"pointer": "/a", "location": "body", "code": "invalid"}]}),

        // Values that no JSON value can hold: they spoil themselves, not the document.
        mistyped!("balance", "1e999", {"balance": null}),
        mistyped!("balance", "{\"of\":[-1e999]}", {"balance": null}),
        mistyped!("title", "\"\\ud800\"", {"title": "Forbidden"}),
        mistyped!("status", "1e999", {"status": 403}),
        Case { body: b"{\"kept\":true,\"title\":\"nicht m\xf6glich\"}",
            ..case("D1: Latin-1 in a text", "", json!({"kept": true, "title": "nicht m\u{fffd}glich"})) },
        case("D1: a number with more digits than fit", r#"{"kept":true,"balance":123456789012345678901234567890}"#,
            json!({"kept": true, "balance": 1.234_567_890_123_456_8e29})),

        case("D9: a repeated member", r#"{"code":"a","detail":"x","code":"b"}"#, json!({"code": "b", "detail": "x"})),
        case("D9: a repeated member next to an unreadable one", r#"{"code":"a","far":1e999,"code":"b"}"#,
            json!({"code": "b", "far": null})),
        case("D9: escapes make two spellings of one name", r#"{"code":"a","\u0063ode":"b"}"#, json!({"code": "b"})),

        Case { content_type: "application/problem+json; charset=utf-8", ..case("D10: a parameter", r#"{"code":"c"}"#, json!({"code": "c"})) },
        Case { content_type: "Application/PROBLEM+Json;Charset=\"UTF-8\"", ..case("D10: upper case", r#"{"code":"c"}"#, json!({"code": "c"})) },
        Case { content_type: "application/json", ..case("D10: plain JSON with a title", r#"{"title":"t","code":"c"}"#, json!({"code": "c", "title": "t"})) },
        Case { content_type: "application/vnd.error+json", ..case("D10: another +json with a type", r#"{"type":"x:y","code":"c"}"#, json!({"code": "c", "type": "x:y"})) },
        Case { body: b"\xef\xbb\xbf{\"code\":\"c\"}", ..case("D8: a byte order mark is passed over", "", json!({"code": "c"})) },
        case("D8: white space around it", "\r\n\t {\"code\":\"c\"}\n\n", json!({"code": "c"})),

        no_document("D8: plain JSON with neither type nor title", "application/json", br#"{"message":"no","code":"c"}"#),
        no_document("D8: empty", PROBLEM, b""),
        no_document("D8: HTML", "text/html; charset=utf-8", b"<html><title>403 Forbidden</title></html>"),
        no_document("D8: HTML that says it is a document", PROBLEM, b"<html>"),
        no_document("D8: truncated", PROBLEM, br#"{"type":"https://example.com/x","code":"c","deta"#),
        no_document("D8: truncated within an unreadable value", PROBLEM, br#"{"code":"c","far":1e99"#),
        no_document("D8: two documents", PROBLEM, br#"{"code":"c"}{"code":"d"}"#),
        no_document("D8: an array", PROBLEM, br#"[{"code":"c"}]"#),
        no_document("D8: a text", PROBLEM, br#""code""#),
        no_document("D8: UTF-16", PROBLEM, b"\xff\xfe{\x00}\x00"),
        no_document("D8: XML", "application/problem+xml", b"<problem xmlns=\"urn:ietf:rfc:7807\"/>"),
        no_document("D8: text that looks like a document", "text/plain", br#"{"type":"x","code":"c"}"#),
        no_document("D8: a list of media types", "application/problem+json, text/html", br#"{"code":"c"}"#),
        no_document("D8: JSON with a comment", PROBLEM, b"{\"code\":\"c\" /* why */}"),
    ]
}

#[test]
fn each_document_reads_as_the_rfc_says() {
    let reader = ProblemReader::new().base("https://api.example.com/v1/orders");
    for case in cases() {
        let problem = reader.read_document(case.status, Some(case.content_type), case.body);
        let seen = seen(&problem);
        for (member, wanted) in case.reads.as_object().unwrap() {
            assert_eq!(&seen[member], wanted, "{}: `{member}`", case.name);
        }
    }
}

#[test]
fn a_member_nested_without_end_takes_only_itself_away() {
    let body = format!(
        r#"{{"code":"c","deep":{}{},"kept":1}}"#,
        "[".repeat(20_000),
        "]".repeat(20_000)
    );
    let problem = Problem::read_document(403, Some(PROBLEM), body.as_bytes());
    assert_eq!(problem.code(), "c");
    assert_eq!(problem.extensions().len(), 1);
    // Cut off, it is no document.
    let problem = Problem::read_document(403, Some(PROBLEM), &body.as_bytes()[..30_000]);
    assert_eq!(problem.code(), "permission_denied");
}
