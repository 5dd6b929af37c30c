//! To and from a status, without a connection.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use mainstay_errors::{
    Category, Descriptor, Error, Fault, Location, MESSAGE_BYTES_MAX, Outcome, Problem, RequestId,
    Retry, STATUS_BYTES_MAX, Violation, Violations,
};
use proptest::prelude::*;
use prost::Message;
use serde_json::{Map, Value, json};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

/// What a client has of a status that came over a wire.
fn sent(status: &Status) -> Status {
    let mut headers = HeaderMap::new();
    status.add_header(&mut headers).unwrap();
    Status::from_header_map(&headers).unwrap()
}

fn round(problem: &Problem) -> Problem {
    Problem::from_status(&sent(&problem.to_status()))
}

#[test]
fn a_problem_is_the_details_of_google_rpc() {
    let problem = Problem::new(Category::ResourceExhausted, "quota_used_up")
        .with_domain("orders.example.com")
        .with_type_base("https://errors.example.com/")
        .with_detail("All 50 orders of today are placed.")
        .with_retry_after(Duration::from_millis(1500))
        .with_request_id(RequestId::parse("r-1").unwrap())
        .with_violation(Violation::body("/lines/0/amount", "too_large").with_detail("at most 50"))
        .with_violation(Violation::query("dry_run", "not_a_boolean"))
        .with_extension("order_limit", 50)
        .unwrap();
    let status = problem.to_status();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "All 50 orders of today are placed.");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str()),
        ("QUOTA_USED_UP", "orders.example.com")
    );
    let mut metadata: Vec<_> = info.metadata.clone().into_iter().collect();
    metadata.sort();
    let expected = [
        ("order_limit", "50"),
        ("outcome", "not_applied"),
        ("retry", "after"),
        ("type", "https://errors.example.com/quota_used_up"),
    ];
    assert_eq!(
        metadata,
        expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    let violations = &details.bad_request().unwrap().field_violations;
    let violations: Vec<_> = violations
        .iter()
        .map(|violation| (violation.field.as_str(), violation.description.as_str()))
        .collect();
    assert_eq!(
        violations,
        [
            ("lines[0].amount", "at most 50"),
            ("query:/dry_run", "Not a boolean"),
        ]
    );
    let wait = details.retry_info().unwrap().retry_delay;
    assert_eq!(wait, Some(Duration::from_millis(1500)));
    assert_eq!(details.request_info().unwrap().request_id, "r-1");
    let link = &details.help().unwrap().links[0];
    assert_eq!(link.url, "https://errors.example.com/quota_used_up");
    assert_eq!(link.description, "Quota used up");
    let raw = pb::Status::decode(status.details()).unwrap();
    let urls: Vec<_> = raw
        .details
        .iter()
        .map(|any| any.type_url.as_str())
        .collect();
    assert_eq!(
        urls,
        [
            "ErrorInfo",
            "BadRequest",
            "RetryInfo",
            "RequestInfo",
            "Help"
        ]
        .map(|name| format!("type.googleapis.com/google.rpc.{name}"))
    );
    assert_eq!((raw.code, raw.message.as_str()), (8, status.message()));
}

#[test]
fn the_numbers_of_the_codes_are_those_of_the_categories() {
    for category in Category::ALL {
        let status = Problem::new(category, "some_code").to_status();
        assert_eq!(i32::from(status.code()), i32::from(category.grpc_code()));
        assert_eq!(Problem::from_status(&status).category(), category);
    }
}

#[test]
fn the_error_behind_a_status_is_its_source_and_shows_nothing_in_it() {
    let status = Status::from(Error::internal("hunter2").context("hunter2"));
    let error = status.source().unwrap().source().unwrap();
    assert_eq!(error.downcast_ref::<Error>().unwrap().code(), "internal");
    assert!(!format!("{status} {status:?}").contains("hunter2"));
    let mut headers = HeaderMap::new();
    status.add_header(&mut headers).unwrap();
    assert!(!format!("{headers:?}").contains("hunter2"));
    assert_eq!(status.message(), "Internal error");
    let status = Status::from(Violations::from(Violation::body("/a", "bad")));
    assert_eq!(Problem::from_status(&status).errors().len(), 1);
}

/// As the derive makes its enums statuses.
#[derive(Debug, thiserror::Error)]
#[error("hunter2")]
struct ByHand;

impl Fault for ByHand {
    const CATALOG: &'static [Descriptor] = &[Descriptor::new("by_hand", Category::Aborted)];
    fn descriptor(&self) -> &'static Descriptor {
        const { &Descriptor::new("by_hand", Category::Aborted) }
    }
}

mainstay_errors::__fault_status! { [] [ByHand] [] }

#[test]
fn a_fault_is_a_status_by_the_derives_macro() {
    let status = (|| -> Result<(), Status> { Err(ByHand)? })().unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Aborted, "By hand")
    );
    let error = status.source().and_then(|cause| cause.source()).unwrap();
    assert!(
        error
            .downcast_ref::<Error>()
            .unwrap()
            .downcast_ref::<ByHand>()
            .is_some()
    );
}

#[test]
fn a_status_without_details_says_what_its_category_says() {
    for (code, category, title) in [
        (Code::Ok, Category::Unknown, "Internal Server Error"),
        (Code::Unknown, Category::Unknown, "Internal Server Error"),
        (Code::NotFound, Category::NotFound, "Not Found"),
        (Code::Cancelled, Category::Cancelled, "Cancelled"), // no phrase for 499
        (
            Code::from_i32(999),
            Category::Unknown,
            "Internal Server Error",
        ),
    ] {
        let problem = Problem::from_status(&Status::new(code, ""));
        assert_eq!(
            (problem.category(), problem.code()),
            (category, category.as_str())
        );
        assert_eq!(problem.type_uri(), "about:blank");
        assert_eq!(problem.title(), title);
        assert_eq!(problem.detail(), None);
        assert_eq!(problem.outcome(), category.outcome());
    }
    let problem = Problem::from_status(&Status::not_found("no such order"));
    assert_eq!(problem.detail(), Some("no such order"));
}

#[test]
fn details_of_another_stack_are_read() {
    let mut details = ErrorDetails::new();
    details
        .set_error_info(
            "STOCKOUT",
            "compute.googleapis.com",
            [
                ("zone".to_owned(), "us-east1-a".to_owned()),
                ("cores".to_owned(), "60".to_owned()),
                ("code".to_owned(), "42".to_owned()),
                ("status".to_owned(), "200".to_owned()),
            ],
        )
        .set_debug_info(vec!["hunter2".to_owned()], "hunter2")
        .set_localized_message("fr-CH", "hunter2")
        .set_retry_info(Some(Duration::from_secs(3)))
        .add_bad_request_violation("address[1].zip", "five digits");
    let status = Status::with_error_details(Code::Unavailable, "no cores left", details);
    let problem = Problem::from_status(&sent(&status));
    assert_eq!(problem.code(), "stockout");
    assert_eq!(problem.domain(), Some("compute.googleapis.com"));
    assert_eq!(problem.status(), 503);
    assert_eq!(
        Value::Object(problem.extensions().clone()),
        json!({"zone": "us-east1-a", "cores": "60"})
    );
    assert_eq!(problem.retry(), Retry::After(Duration::from_secs(3)));
    let violation = &problem.errors()[0];
    assert_eq!(
        (violation.pointer(), violation.code(), violation.detail()),
        ("/address/1/zip", "invalid", Some("five digits"))
    );
    assert!(!String::from_utf8_lossy(&problem.to_bytes()).contains("hunter2"));
    let again = problem.to_status();
    assert!(!String::from_utf8_lossy(again.details()).contains("hunter2"));
    assert_eq!(round(&problem), problem);
}

#[test]
fn a_server_that_pushes_back_is_obeyed() {
    for (value, retry) in [
        ("0", Retry::After(Duration::ZERO)),
        ("1500", Retry::After(Duration::from_millis(1500))),
        ("-1", Retry::Never),
        ("soon", Retry::Never),
        ("99999999999999999999", Retry::Never),
    ] {
        let mut status = Status::unavailable("");
        let metadata = status.metadata_mut();
        metadata.insert("grpc-retry-pushback-ms", value.parse().unwrap());
        assert_eq!(Problem::from_status(&status).retry(), retry, "{value}");
    }
}

#[test]
fn a_request_id_comes_from_the_details_or_else_from_the_metadata() {
    let metadata = |id: &str| {
        MetadataMap::from_headers(HeaderMap::from_iter([(
            http::HeaderName::from_static("x-request-id"),
            id.parse().unwrap(),
        )]))
    };
    let read = |id, details: ErrorDetails| {
        let status =
            Status::with_error_details_and_metadata(Code::Internal, "", details, metadata(id));
        let problem = Problem::from_status(&status);
        problem.request_id().map(|id| id.as_str().to_owned())
    };
    let given = |id: &str| ErrorDetails::with_request_info(id, "");
    assert_eq!(read("m-1", given("d-1")).as_deref(), Some("d-1"));
    assert_eq!(read("m-1", given("a b")).as_deref(), Some("m-1"));
    assert_eq!(read("a b", ErrorDetails::new()), None);
}

#[test]
fn waits_that_cannot_be_are_tamed() {
    for (seconds, nanos, wait) in [
        (1, 500, Some(Duration::new(1, 500))),
        (-1, 0, None),
        (0, -1, None),
        (0, i32::MAX, None),
        (i64::MIN, i32::MIN, None),
        (i64::MAX, 0, Some(Duration::from_secs(366 * 24 * 3600))),
    ] {
        let info = pb::RetryInfo {
            retry_delay: Some(prost_types::Duration { seconds, nanos }),
        };
        let raw = pb::Status {
            code: 14,
            message: String::new(),
            details: vec![prost_types::Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                value: info.encode_to_vec(),
            }],
        };
        let status = Status::with_details(Code::Unavailable, "", raw.encode_to_vec().into());
        let problem = Problem::from_status(&status);
        assert_eq!(problem.retry_after(), wait, "{seconds} {nanos}");
    }
    let forever = Problem::new(Category::Unavailable, "later").with_retry_after(Duration::MAX);
    let year = Duration::from_secs(366 * 24 * 3600);
    assert_eq!(round(&forever).retry(), Retry::After(year));
}

#[test]
fn what_this_side_found_is_told_by_the_type_of_the_source() {
    #[derive(Debug, thiserror::Error)]
    #[error("hunter2")]
    struct Wrapped(#[source] Box<dyn std::error::Error + Send + Sync>);
    let io = |kind| Box::new(std::io::Error::new(kind, "hunter2"));
    let refused = || io(std::io::ErrorKind::ConnectionRefused);
    type Boxed = Box<dyn std::error::Error + Send + Sync>;
    let cases: [(Boxed, Category, Retry, Outcome); 5] = [
        (
            Box::new(tonic::ConnectError(refused())),
            Category::Unavailable,
            Retry::Backoff,
            Outcome::NotApplied,
        ),
        (
            refused(),
            Category::Unavailable,
            Retry::Backoff,
            Outcome::NotApplied,
        ),
        (
            Box::new(tonic::TimeoutExpired(())),
            Category::DeadlineExceeded,
            Retry::SameKeyOnly,
            Outcome::Unknown,
        ),
        (
            io(std::io::ErrorKind::ConnectionReset),
            Category::Unavailable,
            Retry::SameKeyOnly,
            Outcome::Unknown,
        ),
        (
            "hunter2".into(),
            Category::Unknown,
            Retry::Never,
            Outcome::Unknown,
        ),
    ];
    for (source, category, retry, outcome) in cases {
        let status = Status::from_error(Box::new(Wrapped(source)));
        let problem = Problem::from_status(&status);
        assert_eq!(
            (problem.category(), problem.retry(), problem.outcome()),
            (category, retry, outcome),
            "{status:?}"
        );
        assert_eq!(problem.detail(), None);
    }
    let mut throttled = Status::resource_exhausted("");
    throttled.set_source(Arc::new(std::io::Error::other("hunter2")));
    let problem = Problem::from_status(&throttled);
    assert_eq!(
        (problem.retry(), problem.outcome()),
        (Retry::SameKeyOnly, Outcome::Unknown)
    );
    assert_eq!(
        Problem::from_status(&Status::cancelled("Timeout expired")).category(),
        Category::Cancelled,
        "text tells nothing"
    );
}

#[test]
fn an_unknown_code_survives_three_hops() {
    for code in ["brand_new_2031", "Odd-Code", "ä"] {
        let first = Problem::new(Category::FailedPrecondition, code)
            .with_extension("order_id", 7)
            .unwrap()
            .with_violation(Violation::body("/a/0", "Odd?").with_param("min", 1));
        let second = round(&first);
        let third = Problem::read_document(
            second.status(),
            Some("application/problem+json"),
            &second.to_bytes(),
        );
        let fourth = round(&third);
        for problem in [&second, &third, &fourth] {
            assert_eq!(problem.to_bytes(), first.to_bytes());
            assert_eq!(problem.category(), first.category());
        }
    }
}

#[test]
fn a_member_that_is_too_large_costs_no_other_its_place() {
    let problem =
        Problem::new(Category::InvalidArgument, "order_invalid")
            .with_type_base("https://errors.example.com/")
            .with_extension("huge", "x".repeat(100_000))
            .unwrap()
            .with_extension("small", 1)
            .unwrap()
            .with_violations((0..100).map(|at| {
                Violation::body(format!("/lines/{at}"), "bad").with_detail("y".repeat(300))
            }));
    let read = round(&problem);
    assert_eq!(
        Value::Object(read.extensions().clone()),
        json!({"small": 1})
    );
    let kept = read.errors().len();
    assert!((15..100).contains(&kept), "{kept}");
    assert_eq!(read.errors(), &problem.errors()[..kept], "from the tail");
    let details = problem.to_status().get_error_details();
    assert!(details.help().is_none());
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z_]{3,12}",
        2 => "[ -~ä€\n]{0,24}",
        1 => any::<String>().prop_map(|text| text.chars().take(12).collect()),
    ]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
        prop::sample::select(vec!["7", "null", "true", "\"\"", "[]", " 1", "1e9", "{}"])
            .prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..3)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

fn violation() -> impl Strategy<Value = Violation> {
    let location = prop::sample::select(vec![
        Location::Body,
        Location::Query,
        Location::Path,
        Location::Header,
    ]);
    let params = prop::collection::vec((text(), json_value()), 0..2);
    let pointer = "(/([a-z_]{0,3}|[0-9]{1,2}|[a-z.:~\\[]{0,3})){0,3}";
    (location, pointer, text(), prop::option::of(text()), params).prop_map(
        |(location, pointer, code, detail, params)| {
            let own_words = code.replace('_', " ");
            let violation = Violation::new(location, pointer, code);
            let violation = params
                .into_iter()
                .fold(violation, |v, (name, value)| v.with_param(name, value));
            match detail {
                Some(detail) if detail.len() == 4 => violation.with_detail(own_words),
                Some(detail) => violation.with_detail(detail),
                None => violation,
            }
        },
    )
}

fn retry() -> impl Strategy<Value = Retry> {
    prop::sample::select(vec![
        Retry::Never,
        Retry::Backoff,
        Retry::After(Duration::from_millis(1)),
        Retry::SameKeyOnly,
        Retry::Transaction,
        Retry::AfterAuth,
        Retry::AfterStateChange,
    ])
}

prop_compose! {
    /// Any problem that a program can make, small enough to be sent whole.
    fn problem()(
        category in prop::sample::select(Category::ALL.to_vec()),
        code in text(),
        status in prop::option::of(400u16..600),
        title in prop::option::of(text()),
        detail in prop::option::of(text()),
        type_uri in prop::option::of(text()),
        (instance, domain, request_id) in (prop::option::of(text()), prop::option::of("[a-z.]{1,20}"), prop::option::of("[A-Za-z0-9._-]{1,40}")),
        (advice, outcome) in (retry(), prop::sample::select(vec![Outcome::NotApplied, Outcome::Applied, Outcome::Unknown])),
        wait in prop::option::of(0u64..1_000_000_000_000),
        errors in prop::collection::vec(violation(), 0..5),
        members in prop::collection::btree_map("[a-zA-Z][a-zA-Z0-9_]{2,12}", json_value(), 0..4),
        is_detail_title in any::<bool>(),
    ) -> Problem {
        let mut problem = Problem::new(category, code);
        if let Some(status) = status.filter(|status| category.allows_status(*status)) {
            problem = problem.with_status(status);
        }
        if let Some(title) = title {
            problem = problem.with_title(title);
        }
        if let Some(detail) = detail {
            let title = problem.title().into_owned();
            problem = problem.with_detail(if is_detail_title { title } else { detail });
        }
        if let Some(uri) = type_uri {
            problem = problem.with_type(uri);
        }
        if let Some(instance) = instance {
            problem = problem.with_instance(instance);
        }
        if let Some(domain) = domain {
            problem = problem.with_domain(domain);
        }
        if let Some(id) = request_id.and_then(|id| RequestId::parse(&id)) {
            problem = problem.with_request_id(id);
        }
        if let Some(wait) = wait {
            problem = problem.with_retry_after(Duration::from_nanos(wait));
        }
        problem = problem.with_retry(advice).with_outcome(outcome).with_violations(errors);
        for (name, value) in members {
            problem = problem.clone().with_extension(&name, value).unwrap_or(problem);
        }
        problem
    }
}

/// A document with any names for its members, read from HTTP, and of any size.
fn document() -> impl Strategy<Value = Problem> {
    let members = prop::collection::btree_map(any::<String>(), json_value(), 0..30);
    (members, any::<u16>(), 1usize..3000, problem(), 0usize..100).prop_map(
        |(members, status, times, small, count)| {
            let mut members = Map::from_iter(members);
            members.insert("type".to_owned(), "x".repeat(times).into());
            members.insert("detail".to_owned(), "ä".repeat(times).into());
            members.insert("title".to_owned(), "<t>".repeat(times).into());
            members.insert("code".to_owned(), "c".repeat(times).into());
            members.insert("instance".to_owned(), "i".repeat(times).into());
            let body = Value::Object(members).to_string();
            let problem =
                Problem::read_document(status, Some("application/problem+json"), body.as_bytes());
            let errors = small.errors().iter().cycle().take(count).cloned();
            problem
                .with_domain("d".repeat(times / 10))
                .with_violations(errors.map(|v| v.with_detail("z".repeat(times))))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn every_problem_comes_back(problem in problem()) {
        let status = problem.to_status();
        let read = Problem::from_status(&sent(&status));
        prop_assert_eq!(read.type_uri(), problem.type_uri());
        prop_assert_eq!(read.domain(), problem.domain());
        prop_assert_eq!(read.title(), problem.title());
        prop_assert_eq!(read.detail(), problem.detail());
        prop_assert_eq!(read.category(), problem.category());
        prop_assert_eq!(read.retry_after(), problem.retry_after());
        prop_assert_eq!(read.retry(), problem.retry());
        prop_assert_eq!(read.errors(), problem.errors());
        prop_assert_eq!(read.extensions(), problem.extensions());
        prop_assert_eq!(read.to_bytes(), problem.to_bytes());
        // And what was read is written as it was.
        let again = read.to_status();
        prop_assert_eq!(again.details(), status.details());
    }

    #[test]
    fn a_planted_secret_stays_inside(secret in "[A-Z]{12}") {
        let source = || std::io::Error::other(secret.clone());
        for error in [
            Error::internal(source()).context(secret.clone()),
            Error::from(ByHand).context(secret.clone()),
            Error::internal(Status::unknown(secret.clone())),
            #[cfg(feature = "sqlx")]
            Error::from(sqlx::Error::Io(source())),
        ] {
            prop_assert!(error.chain().concat().contains(&secret), "the log has it");
            let status = Status::from(error);
            let mut headers = HeaderMap::new();
            status.add_header(&mut headers).unwrap();
            let details = String::from_utf8_lossy(status.details());
            // Its own texts too, because people put them into messages.
            let shown = format!("{headers:?}{details}{status}{status:?}");
            prop_assert!(!shown.contains(&secret), "{shown}");
        }
    }

    #[test]
    fn any_bytes_for_details_are_a_problem(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        code in 0i32..20,
        message in any::<String>(),
    ) {
        let status = Status::with_details(Code::from_i32(code), message, bytes.into());
        let problem = Problem::from_status(&status);
        prop_assert!(!problem.code().is_empty());
        prop_assert!((400..600).contains(&problem.status()));
        prop_assert!(problem.to_status().details().len() <= STATUS_BYTES_MAX);
    }

    #[test]
    fn details_that_were_damaged_on_the_way_are_a_problem(
        problem in problem(),
        cut in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        name in prop::sample::select(vec!["ErrorInfo", "BadRequest", "RetryInfo", "RequestInfo", "Help", ""]),
    ) {
        let status = problem.to_status();
        let whole = status.details().to_vec();
        let truncated = whole[..cut.index(whole.len())].to_vec();
        let mut flipped = whole.clone();
        flipped[at.index(whole.len())] = byte;
        // Each message under the name of another.
        let mut lying = pb::Status::decode(&*whole).unwrap();
        for any in &mut lying.details {
            any.type_url = format!("type.googleapis.com/google.rpc.{name}");
        }
        for bytes in [truncated, flipped, lying.encode_to_vec()] {
            let status = Status::with_details(status.code(), status.message(), bytes.into());
            let read = Problem::from_status(&status);
            prop_assert_eq!(read.category(), problem.category());
            let again = Problem::from_status(&read.to_status());
            prop_assert_eq!(again.to_bytes(), read.to_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_status_is_larger_than_it_may_be(problem in document()) {
        let status = problem.to_status();
        prop_assert!(status.details().len() <= STATUS_BYTES_MAX, "{}", status.details().len());
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        prop_assert!(headers.get("grpc-message").is_none_or(|m| m.len() <= MESSAGE_BYTES_MAX));
        let listed: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 32).sum();
        prop_assert!(listed < 14 * 1024, "{listed}");
        let read = Problem::from_status(&sent(&status));
        prop_assert_eq!(
            (read.category(), read.retry(), read.outcome()),
            (problem.category(), problem.retry(), problem.outcome())
        );
        let info = status.get_error_details();
        let reason = &info.error_info().unwrap().reason;
        prop_assert!((3..=63).contains(&reason.len()));
        for key in info.error_info().unwrap().metadata.keys() {
            prop_assert!((2..=64).contains(&key.len()) && key.is_ascii(), "{key}");
        }
        prop_assert!(read.errors().len() <= problem.errors().len());
    }
}

#[test]
fn details_without_an_end_are_not_read() {
    let any = prost_types::Any::default();
    let raw = pb::Status {
        code: 5,
        message: String::new(),
        details: vec![any; 1_000_000],
    };
    let status = Status::with_details(Code::NotFound, "", raw.encode_to_vec().into());
    assert_eq!(Problem::from_status(&status).code(), "not_found");
}
