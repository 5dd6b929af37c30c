//! Properties that hold for every input: reading is total, and secrets stay inside.

use http::{HeaderMap, HeaderName, HeaderValue};
use mainstay_errors::{Category, Error, Fault, Problem, RESERVED_MEMBERS, Violation, Violations};
use proptest::prelude::*;
use serde_json::{Map, Value};

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Quarters: serde_json reads the last bit of other fractions only with `float_roundtrip`.
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
        ".{0,20}".prop_map(Value::from),
        prop::sample::select(vec![
            "after", "backoff", "unknown", "applied", "body", "#/a%2", "/a"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name(), inner, 0..8)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    let known = [RESERVED_MEMBERS.as_slice(), &["pointer", "location"]].concat();
    prop_oneof![
        prop::sample::select(known).prop_map(str::to_owned),
        ".{0,8}"
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_document_reads_and_what_was_read_can_be_written(
        document in json(),
        status in any::<u16>(),
        content_type in prop::sample::select(vec!["application/problem+json", "application/json; x", "text/plain", ""]),
        retry_after in ".{0,12}",
    ) {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_str(content_type).unwrap());
        if let Ok(value) = HeaderValue::from_str(&retry_after) {
            headers.insert("retry-after", value);
        }
        let problem = Problem::read(status, &headers, document.to_string().as_bytes());
        prop_assert!((400..600).contains(&problem.status()));
        let written: Value = serde_json::from_slice(&problem.to_bytes()).unwrap();
        prop_assert_eq!(&written["status"], problem.status());
        let again = Problem::read_document(problem.status(), Some("application/problem+json"), &problem.to_bytes());
        prop_assert_eq!(again.to_bytes(), problem.to_bytes());
    }

    #[test]
    fn any_bytes_read(body in prop::collection::vec(any::<u8>(), 0..200), status in any::<u16>()) {
        let problem = Problem::read_document(status, Some("application/problem+json"), &body);
        prop_assert!(!problem.code().is_empty());
    }

    #[test]
    fn a_header_of_any_bytes_reads(name in "[a-z-]{1,12}", value in prop::collection::vec(32u8..=255, 0..40)) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&value)) {
            let headers = HeaderMap::from_iter([(name, value)]);
            prop_assert_eq!(Problem::read(503, &headers, b"").status(), 503);
        }
    }

    /// A secret in a source, a context, a private text and a field without a mark never leaves.
    #[test]
    fn a_planted_secret_stays_inside(secret in "[A-Z]{12}") {
        let source = || std::io::Error::other(secret.clone());
        let errors = [
            Error::internal(source()).context(secret.clone()),
            Error::from(PlantedError::Source(source())).context(secret.clone()),
            Error::from(PlantedError::Text(secret.clone())),
            Error::from(PlantedError::Field { order_id: 7, token: secret.clone() }),
            #[cfg(feature = "sqlx")]
            Error::from(sqlx::Error::Protocol(secret.clone())),
            #[cfg(feature = "sqlx")]
            Error::from(sqlx::Error::Io(source())),
        ];
        for error in errors {
            let sent = String::from_utf8(error.to_problem().to_bytes().to_vec()).unwrap();
            prop_assert!(!sent.contains(&secret), "{sent}");
            prop_assert!(error.chain().concat().contains(&secret), "the log has it");
        }
    }
}

#[derive(Debug, thiserror::Error, Fault)]
enum PlantedError {
    #[error("source")]
    #[fault(unavailable)]
    Source(#[source] std::io::Error),
    #[error("text {0}")]
    #[fault(internal)]
    Text(String),
    #[error("field {token}")]
    #[fault(not_found)]
    Field {
        #[fault(ext)]
        order_id: u64,
        token: String,
    },
}

#[test]
fn violations_survive_the_wire() {
    let found = Violations::from_iter([
        Violation::body("/lines/0/a~1b", "too_small").with_detail("at least 1"),
        Violation::header("X-Tenant", "required"),
    ]);
    let sent = Problem::from(found.clone());
    let read = Problem::read_document(422, Some("application/problem+json"), &sent.to_bytes());
    assert_eq!(read.errors(), found.as_slice());
    assert_eq!(read.category(), Category::InvalidArgument);
}
