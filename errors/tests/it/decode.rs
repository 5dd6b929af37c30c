//! What `#[fault(decode)]` gives back, and what it leaves alone.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_errors::{Category, Decoded, Fault, FromProblem, Problem, Violation, Violations};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub sku: String,
    pub amount: i64,
    pub tags: Vec<String>,
    pub counts: BTreeMap<String, u64>,
    pub parent: Option<Box<Item>>,
}

#[derive(Debug, PartialEq, thiserror::Error, Fault)]
#[fault(
    decode,
    domain = "stock.example.com",
    type_base = "https://errors.example.com/stock/"
)]
pub enum StockError {
    /// The store is closed.
    #[error("closed")]
    #[fault(unavailable)]
    Closed,
    /// There is not enough of it.
    #[error("out of {0}")]
    #[fault(failed_precondition, public, pointer = "/sku")]
    OutOf(#[fault(ext = "sku")] String, #[fault(ext = "left")] u64),
    /// Everything that can be sent.
    #[error("{name} {small} {large}")]
    #[fault(aborted, public)]
    Everything {
        #[fault(ext)]
        name: String,
        #[fault(ext)]
        small: i64,
        #[fault(ext)]
        large: u64,
        #[fault(ext)]
        perhaps: Option<String>,
        #[fault(ext)]
        item: Box<Item>,
        #[fault(ext = "request")]
        id: Uuid,
        #[fault(retry_after)]
        wait: Option<Duration>,
        #[fault(violations)]
        found: Violations,
        #[fault(default)]
        unsent: Option<String>,
    },
    /// Too many at once.
    #[error("busy")]
    #[fault(resource_exhausted)]
    Busy(#[fault(retry_after)] Duration),
    /// Newer servers say how many.
    #[error("too many")]
    #[fault(resource_exhausted)]
    TooMany {
        #[fault(ext, default)]
        limit: u32,
    },
    /// It does not answer.
    #[error("warehouse")]
    #[fault(unavailable)]
    Warehouse { host: &'static str },
    #[error(transparent)]
    #[fault(delegate)]
    Payment {
        #[from]
        payment: PaymentError,
    },
    #[error(transparent)]
    #[fault(delegate)]
    Invalid(#[from] Violations),
}

/// The card was refused.
#[derive(Debug, PartialEq, thiserror::Error, Fault)]
#[error("refused")]
#[fault(failed_precondition, decode)]
pub struct PaymentError {
    #[fault(ext)]
    reason: String,
}

fn over_http(fault: &impl Fault) -> Problem {
    let sent = fault.to_problem();
    let media_type = Some("application/problem+json");
    Problem::read_document(sent.status(), media_type, &sent.to_bytes())
}

fn read(status: u16, document: &str) -> Problem {
    Problem::read_document(
        status,
        Some("application/problem+json"),
        document.as_bytes(),
    )
}

#[test]
fn a_code_of_another_domain_or_another_type_is_another_error() {
    let closed = |kind: &str| read(503, &format!(r#"{{"type":"{kind}","code":"closed"}}"#));
    let known = |problem: &Problem| problem.known::<StockError>();
    for own in [
        "https://errors.example.com/stock/closed",
        "/problems/closed",
        "about:blank",
    ] {
        assert_eq!(known(&closed(own)), Some(StockError::Closed), "{own}");
    }
    assert_eq!(
        known(&closed("https://errors.example.com/shop/closed")),
        None
    );
    assert_eq!(
        known(&closed("about:blank").with_domain("shop.example.com")),
        None
    );
    assert_eq!(
        known(&closed("https://else.example/closed").with_domain("stock.example.com")),
        Some(StockError::Closed)
    );
}

#[test]
fn a_variant_that_holds_what_is_not_sent_stays_unknown() {
    let sent = StockError::Warehouse { host: "10.0.0.7" };
    match over_http(&sent).decode::<StockError>() {
        Decoded::Unknown(problem) => assert_eq!(problem.code(), "warehouse"),
        Decoded::Known(error) => panic!("{error:?}"),
    }
}

#[test]
fn a_member_that_is_missing_or_mistyped_makes_no_error_up() {
    for document in [
        r#"{"code":"out_of","left":3}"#,
        r#"{"code":"out_of","sku":"a"}"#,
        r#"{"code":"out_of","sku":null,"left":3}"#,
        r#"{"code":"out_of","sku":"a","left":-1}"#,
        r#"{"code":"out_of","sku":"a","left":"3"}"#,
        r#"{"code":"out_of","sku":"a","left":18446744073709551616}"#,
        r#"{"code":"OUT_OF","sku":"a","left":3}"#,
        r#"{"title":"Out of","sku":"a","left":3}"#,
    ] {
        assert_eq!(
            read(400, document).known::<StockError>(),
            None,
            "{document}"
        );
    }
    // A wait that must be there; one that may.
    assert_eq!(read(429, r#"{"code":"busy"}"#).known::<StockError>(), None);
    let after = read(429, r#"{"code":"busy","retry_after":3}"#);
    assert_eq!(
        after.known(),
        Some(StockError::Busy(Duration::from_secs(3)))
    );
}

#[test]
fn a_member_with_a_default_may_be_missing_but_not_wrong() {
    let limit = |members: &str| {
        read(429, &format!(r#"{{"code":"too_many"{members}}}"#)).known::<StockError>()
    };
    assert_eq!(limit(""), Some(StockError::TooMany { limit: 0 }));
    assert_eq!(
        limit(r#","limit":null"#),
        Some(StockError::TooMany { limit: 0 })
    );
    assert_eq!(
        limit(r#","limit":7"#),
        Some(StockError::TooMany { limit: 7 })
    );
    assert_eq!(limit(r#","limit":"many""#), None);
}

#[test]
fn what_was_added_on_the_way_disturbs_nothing() {
    let problem = read(
        400,
        r#"{"code":"out_of","sku":"a","left":3,"region":"eu","errors":[{"pointer":"/x"}]}"#,
    );
    assert_eq!(problem.known(), Some(StockError::OutOf("a".into(), 3)));
}

#[test]
fn delegates_come_back_inside_their_variants() {
    let payment = PaymentError {
        reason: "expired".into(),
    };
    let sent = StockError::Payment { payment };
    assert_eq!(over_http(&sent).known(), Some(sent));
    let sent = StockError::Invalid(Violation::body("/sku", "unknown").into());
    assert_eq!(over_http(&sent).known(), Some(sent));
}

/// Names and shapes that the way back trips over when it relies on the prelude or on the plainest type.
mod hygiene {
    #![deny(warnings)]
    #![allow(dead_code, reason = "names in the way")]

    use std::fmt::{Debug, Display};

    use mainstay_errors::Fault as Derived;

    pub struct Result;
    pub struct Option;
    pub struct Some;
    pub struct None;
    pub struct Problem;
    pub trait Default {}
    pub trait FromProblem {}
    pub trait FromIterator {}

    #[derive(Debug, PartialEq, thiserror::Error, Derived)]
    #[fault(decode, crate = "mainstay_errors")]
    #[expect(non_camel_case_types, reason = "a raw identifier")]
    pub enum Generic<T, W, const N: usize = 2>
    where
        T: Debug + Display + serde::Serialize + Send + Sync + 'static,
        W: Debug + Copy + Into<std::option::Option<std::time::Duration>> + Send + Sync + 'static,
    {
        #[error("holds {0}")]
        #[fault(not_found, public)]
        Holds(#[fault(ext = "held")] T, #[fault(default)] [u8; 2]),
        #[error("raw")]
        #[fault(not_found)]
        r#yield {
            #[fault(ext)]
            r#move: Vec<T>,
            #[fault(ext, default)]
            problem: std::option::Option<T>,
        },
        #[error("wait")]
        #[fault(unavailable)]
        Wait {
            #[fault(retry_after)]
            field: W,
        },
        #[error("parens")]
        #[fault(internal)]
        Parens(),
        #[error("braces")]
        #[fault(internal)]
        #[deprecated]
        Braces {},
        #[cfg(any())]
        #[error("never")]
        #[fault(not_found)]
        Never(NoSuchType),
        #[error("kept")]
        #[fault(internal)]
        Kept([u8; N]),
        #[error(transparent)]
        #[fault(delegate)]
        Delegated(mainstay_errors::Violations),
    }
}

#[test]
fn the_way_back_relies_on_nobodys_names() {
    use hygiene::Generic;
    type Own = Generic<u8, Option<Duration>>;
    for sent in [
        Own::Holds(7, [0, 0]),
        Own::r#yield {
            r#move: vec![1, 2],
            problem: Some(3),
        },
        Own::Wait {
            field: Some(Duration::from_secs(9)),
        },
        Own::Parens(),
        Own::Delegated(Violation::query("limit", "too_large").into()),
    ] {
        assert_eq!(over_http(&sent).known(), Some(sent));
    }
    assert_eq!(over_http(&Own::Kept([1, 2])).known::<Own>(), None);
}

/// The bound of the way back is asked of those who go it: a value that can only be written still can.
#[test]
fn a_parameter_that_cannot_be_read_can_still_be_written() {
    #[derive(Debug, thiserror::Error, Fault)]
    #[error("x")]
    #[fault(not_found, decode)]
    struct Holds<T: std::fmt::Debug + Serialize + Send + Sync + 'static>(#[fault(ext = "held")] T);

    #[derive(Debug, Serialize)]
    struct OnlyOut(&'static str);

    assert_eq!(Holds(OnlyOut("x")).to_problem().extensions()["held"], "x");
    assert_eq!(
        Holds::<String>::from_problem(&Holds("y").to_problem())
            .unwrap()
            .0,
        "y"
    );
}

#[test]
fn a_document_of_nobody_is_unknown() {
    let problem = Problem::new(Category::Unavailable, "unavailable");
    assert_eq!(
        problem.clone().decode::<StockError>(),
        Decoded::Unknown(problem)
    );
}

#[cfg(feature = "conformance")]
mod conformance {
    use mainstay_errors::conformance::{lint, round_trip, round_trip_each};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_variant_that_can_come_back_does() {
        let payment = PaymentError {
            reason: String::new(),
        };
        let without_value = round_trip_each([
            StockError::Closed,
            StockError::OutOf("\u{0}\"\\/\u{2028}😀".into(), u64::MAX),
            StockError::Everything {
                name: "null".into(),
                small: i64::MIN,
                large: u64::MAX,
                perhaps: None,
                item: Box::default(),
                id: Uuid::nil(),
                wait: None,
                found: Violations::new(),
                unsent: None,
            },
            StockError::Busy(Duration::ZERO),
            StockError::TooMany { limit: 1 },
            StockError::Payment { payment },
            StockError::Invalid(Violations::new()),
        ]);
        assert_eq!(without_value, ["warehouse"]);
        assert_eq!(lint::<StockError>(), []);
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[\\x00-\\x1f\"\\\\/\u{7f}\u{2028}\u{feff}]{0,20}",
            "-?[0-9]{1,30}(\\.[0-9]+)?(e[0-9]+)?",
            prop_oneof!["null", "true", "NaN", "\\{\\}", "\\[\\]", ""],
        ]
    }

    fn item() -> impl Strategy<Value = Item> {
        let leaf = (
            text(),
            any::<i64>(),
            prop::collection::vec(text(), 0..4),
            prop::collection::btree_map(text(), any::<u64>(), 0..4),
        )
            .prop_map(|(sku, amount, tags, counts)| Item {
                sku,
                amount,
                tags,
                counts,
                parent: None,
            });
        leaf.prop_recursive(4, 8, 1, |inner| {
            (inner, text()).prop_map(|(parent, sku)| Item {
                sku,
                parent: Some(Box::new(parent)),
                ..Item::default()
            })
        })
    }

    fn violations() -> impl Strategy<Value = Violations> {
        let one = (text(), text(), prop::option::of(text()), any::<i64>()).prop_map(
            |(name, code, detail, param)| {
                let one = Violation::query(&name, code).with_param("limit", param);
                match detail {
                    Some(detail) => one.with_detail(detail),
                    None => one,
                }
            },
        );
        prop::collection::vec(one, 0..5).prop_map(|found| found.into_iter().collect())
    }

    fn edge<T: Arbitrary + Clone>(edges: &'static [T]) -> impl Strategy<Value = T> {
        prop_oneof![any::<T>(), prop::sample::select(edges)]
    }

    proptest! {
        #[test]
        fn any_value_comes_back_as_it_was(
            (name, perhaps) in (text(), prop::option::of(text())),
            small in edge(&[i64::MIN, -1, 0, (1 << 53) + 1, i64::MAX]),
            large in edge(&[0, (1 << 53) + 1, u64::MAX]),
            item in item(),
            id in any::<u128>(),
            wait in prop::option::of(0..31_622_400_u64),
            found in violations(),
        ) {
            round_trip(&StockError::Everything {
                name,
                small,
                large,
                perhaps,
                item: Box::new(item),
                id: Uuid::from_u128(id),
                wait: wait.map(Duration::from_secs),
                found,
                unsent: None,
            });
        }
    }
}
