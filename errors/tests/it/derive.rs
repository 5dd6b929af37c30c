//! What `#[derive(Fault)]` promises of an enum that uses everything.

use std::time::Duration;

use mainstay_errors::{
    ByConstraint, Category, Descriptor, Error, Fault, Outcome, Retry, Violation, Violations,
};

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
        secret: &'static str,
    },
    #[error("e-mail taken")]
    #[fault(
        already_exists,
        public,
        constraint = "users_email_key",
        pointer = "/email"
    )]
    EmailTaken,
    #[error("payment provider")]
    #[fault(unavailable, retry_after = "1500ms", outcome = not_applied, title = "Provider down")]
    Provider(#[source] std::io::Error),
    #[error("slow down")]
    #[fault(resource_exhausted, code = "too_fast")]
    RateLimited(#[fault(retry_after)] Option<Duration>),
    #[error("precondition")]
    #[fault(failed_precondition, status = 412, retry = "never")]
    Stale,
    #[error("invalid")]
    #[fault(invalid_argument, status = 422)]
    Rejected(#[fault(violations)] Violations),
    #[error(transparent)]
    #[fault(delegate)]
    Invalid(#[from] Violations),
}

#[derive(Debug, thiserror::Error, Fault)]
#[error("closed")]
#[fault(
    unavailable,
    type_base = "https://errors.example.com/",
    crate = "mainstay_errors"
)]
struct ShopClosed;

fn json(fault: &impl Fault) -> String {
    String::from_utf8(fault.to_problem().to_bytes().to_vec()).unwrap()
}

#[test]
fn a_public_variant_sends_its_text_and_only_its_marked_fields() {
    let fault = OrderError::OrderNotFound {
        id: 7,
        secret: "hunter2",
    };
    insta::assert_snapshot!("a_public_variant", json(&fault));
    let OrderError::OrderNotFound { secret, .. } = fault else {
        panic!()
    };
    assert_eq!(secret, "hunter2");
}

#[test]
fn a_private_variant_sends_neither_text_nor_source() {
    let fault = OrderError::Provider(std::io::Error::other("dsn=postgres://u:p@db"));
    insta::assert_snapshot!("a_private_variant", json(&fault));
    assert_eq!(
        Error::from(fault).chain(),
        ["payment provider", "dsn=postgres://u:p@db"]
    );
}

#[test]
fn a_pointer_makes_a_violation_under_the_same_code() {
    insta::assert_snapshot!("a_pointer", json(&OrderError::EmailTaken));
}

#[test]
fn options_override_the_category() {
    assert_eq!(OrderError::Stale.to_problem().status(), 412);
    assert_eq!(Fault::retry(&OrderError::Stale), Retry::Never);
    let wait = Duration::from_secs(3);
    assert_eq!(
        Fault::retry(&OrderError::RateLimited(Some(wait))),
        Retry::After(wait)
    );
    assert_eq!(Fault::retry(&OrderError::RateLimited(None)), Retry::Backoff);
    assert_eq!(
        OrderError::RateLimited(None).to_problem().code(),
        "too_fast"
    );
    let provider = OrderError::Provider(std::io::Error::other("x"));
    assert_eq!(Fault::outcome(&provider), Outcome::NotApplied);
    assert_eq!(provider.to_problem().retry_after_seconds(), Some(2));
}

#[test]
fn violations_travel_through_a_field_and_through_a_delegate() {
    let found = || Violations::from(Violation::body("/amount", "too_small"));
    let own = OrderError::Rejected(found()).to_problem();
    assert_eq!(
        (own.code(), own.status(), own.errors().len()),
        ("rejected", 422, 1)
    );
    let delegated = OrderError::from(found()).to_problem();
    assert_eq!(
        (delegated.code(), delegated.errors().len()),
        ("validation_failed", 1)
    );
}

#[test]
fn the_catalogue_holds_every_code_with_its_page() {
    let codes: Vec<_> = OrderError::CATALOG.iter().map(Descriptor::code).collect();
    assert_eq!(
        codes,
        [
            "order_not_found",
            "email_taken",
            "provider",
            "too_fast",
            "stale",
            "rejected",
            "validation_failed"
        ]
    );
    assert_eq!(
        OrderError::CATALOG[0].docs(),
        "No order has this id.\n\nIt may have been deleted."
    );
    assert_eq!(OrderError::CATALOG[2].title(), "Provider down");
    assert!(
        OrderError::CATALOG[0]
            .owner()
            .ends_with("derive::OrderError")
    );
}

#[test]
fn a_constraint_finds_its_variant() {
    assert!(matches!(
        OrderError::by_constraint("users_email_key"),
        Some(OrderError::EmailTaken)
    ));
    assert!(OrderError::by_constraint("users_pkey").is_none());
}

#[test]
fn a_struct_may_be_a_fault_with_a_type_base_of_its_own() {
    assert_eq!(
        ShopClosed.to_problem().type_uri(),
        "https://errors.example.com/shop_closed"
    );
}

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
#[fault(
    domain = "orders.example.com",
    type_base = "https://errors.example.com/orders/",
    no_response,
    no_status,
    no_openapi
)]
enum Worded {
    #[fault(
        resource_exhausted,
        type = "https://iana.org/assignments/http-problem-types#quota-exceeded"
    )]
    Quota,
    #[fault(
        failed_precondition,
        status = 426,
        header = "upgrade: HTTP/3.0",
        header = "connection:upgrade"
    )]
    TooOld,
    #[fault(
        not_found,
        header = "x-1: 1",
        header = "x-2: 2",
        header = "x-3: 3",
        header = "x-4: 4",
        header = "x-5: 5",
        header = "x-6: 6",
        header = "x-7: 7",
        header = "x-8: 8"
    )]
    Most,
}

#[test]
fn domain_type_and_headers_go_with_the_code() {
    let quota = Worded::Quota.to_problem();
    assert_eq!(
        quota.type_uri(),
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    assert_eq!(quota.domain(), Some("orders.example.com"));
    let old = Worded::TooOld.to_problem();
    assert_eq!(old.type_uri(), "https://errors.example.com/orders/too_old");
    let headers: Vec<_> = old
        .headers()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(
        headers,
        [("upgrade", "HTTP/3.0"), ("connection", "upgrade")]
    );
    // As many as the derive lets through.
    assert_eq!(Worded::Most.to_problem().headers().count(), 8);
}

/// Each wire that is left out can be written by hand; without its word, the second implementation would not compile.
mod wires {
    use super::Worded;

    #[cfg(feature = "axum")]
    impl axum::response::IntoResponse for Worded {
        fn into_response(self) -> axum::response::Response {
            http::StatusCode::IM_A_TEAPOT.into_response()
        }
    }

    #[cfg(feature = "tonic")]
    impl From<Worded> for tonic::Status {
        fn from(_: Worded) -> Self {
            Self::data_loss("by hand")
        }
    }

    #[cfg(feature = "utoipa")]
    impl utoipa::IntoResponses for Worded {
        fn responses() -> std::collections::BTreeMap<
            String,
            utoipa::openapi::RefOr<utoipa::openapi::response::Response>,
        > {
            std::iter::once((
                "by hand".to_owned(),
                utoipa::openapi::response::Response::new("x").into(),
            ))
            .collect()
        }
    }

    #[cfg(feature = "utoipa")]
    #[test]
    fn a_derived_fault_describes_its_responses() {
        use utoipa::IntoResponses;
        let by_hand = Worded::responses();
        assert!(by_hand.contains_key("by hand"));
        let derived = super::hygiene::Generic::<u8, 2>::responses();
        assert!(!derived.contains_key("by hand"));
    }

    #[cfg(feature = "tonic")]
    #[test]
    fn a_derived_fault_is_a_status() {
        let status = tonic::Status::from(super::OrderError::Stale);
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        let by_hand = tonic::Status::from(Worded::TooOld);
        assert_eq!(by_hand.code(), tonic::Code::DataLoss);
        let generic = tonic::Status::from(super::hygiene::Generic::<u8, 2>::Holds(1));
        assert_eq!(generic.code(), tonic::Code::NotFound);
    }
}

/// The derive has a copy of the category table; this is where the two meet.
#[test]
fn every_category_can_be_derived() {
    #[derive(Debug, thiserror::Error, Fault)]
    #[error("x")]
    #[rustfmt::skip]
    #[expect(dead_code, reason = "the catalogue is what is looked at")]
    enum All {
        #[fault(cancelled)] Cancelled,
        #[fault(unknown)] Unknown,
        #[fault(invalid_argument)] InvalidArgument,
        #[fault(deadline_exceeded)] DeadlineExceeded,
        #[fault(not_found)] NotFound,
        #[fault(already_exists)] AlreadyExists,
        #[fault(permission_denied)] PermissionDenied,
        #[fault(resource_exhausted)] ResourceExhausted,
        #[fault(failed_precondition)] FailedPrecondition,
        #[fault(aborted)] Aborted,
        #[fault(out_of_range)] OutOfRange,
        #[fault(unimplemented)] Unimplemented,
        #[fault(internal)] Internal,
        #[fault(unavailable)] Unavailable,
        #[fault(data_loss)] DataLoss,
        #[fault(unauthenticated)] Unauthenticated,
    }
    let derived: Vec<_> = All::CATALOG
        .iter()
        .map(|d| (d.code(), d.category()))
        .collect();
    let table: Vec<_> = Category::ALL.iter().map(|c| (c.as_str(), *c)).collect();
    assert_eq!(derived, table);
    assert_eq!(All::Cancelled.to_problem().status(), 499);
}

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
#[expect(non_camel_case_types, reason = "a raw identifier")]
enum Raw {
    #[fault(not_found)]
    r#yield {
        #[fault(ext)]
        r#move: u8,
    },
    #[fault(already_exists, constraint = "parens")]
    Parens(),
}

#[test]
fn raw_identifiers_travel_without_their_mark() {
    use mainstay_errors::ByConstraint;
    let problem = Raw::r#yield { r#move: 3 }.to_problem();
    assert_eq!(problem.code(), "yield");
    assert_eq!(problem.extensions()["move"], 3);
    assert!(matches!(Raw::by_constraint("parens"), Some(Raw::Parens())));
}

/// Names and shapes that an expansion trips over when it relies on the prelude or on the plainest type.
mod hygiene {
    #![deny(warnings)]
    #![allow(dead_code, reason = "names in the way, and shapes to expand")]

    use std::fmt::{Debug, Display};

    use mainstay_errors::Fault as Derived;

    pub struct Result;
    pub struct Option;
    pub struct Some;
    pub struct None;
    pub struct String;
    pub struct Problem;
    pub struct Descriptor;
    pub trait ToString {}
    pub trait Into {}
    pub trait Fault {}

    #[derive(Debug, thiserror::Error, Derived)]
    pub enum Generic<T, const N: usize>
    where
        T: Debug + Display + serde::Serialize + Send + Sync + 'static,
    {
        #[error("holds {0}")]
        #[fault(not_found, public, pointer = "/a")]
        Holds(#[fault(ext = "held")] T),
        #[cfg(any())]
        #[error("never")]
        #[fault(not_found)]
        Never(NoSuchType),
        #[error("wait")]
        #[fault(unavailable)]
        Wait {
            #[fault(retry_after)]
            out: std::time::Duration,
            #[fault(ext)]
            field: u8,
            many: [u8; N],
        },
        #[error("old")]
        #[fault(internal)]
        #[deprecated]
        Old,
        #[error(transparent)]
        #[fault(delegate)]
        Delegated(#[from] mainstay_errors::Violations),
    }

    #[derive(Debug, thiserror::Error, Derived)]
    pub enum Empty {}
}

#[test]
fn an_expansion_relies_on_nobodys_names() {
    use hygiene::Generic;
    let held = Generic::<u8, 2>::Holds(7).to_problem();
    assert_eq!(held.extensions()["held"], 7);
    assert_eq!(held.errors().len(), 1);
    let out = Duration::from_secs(4);
    let wait = Generic::<u8, 2>::Wait {
        out,
        field: 1,
        many: [1, 2],
    }
    .to_problem();
    assert_eq!(wait.retry(), Retry::After(out));
    assert_eq!(wait.extensions()["field"], 1);
    assert_eq!(Generic::<u8, 2>::CATALOG.len(), 4);
    assert!(hygiene::Empty::CATALOG.is_empty());
}

/// What stands in a macro reaches the derive wrapped up.
mod out_of_a_macro {
    macro_rules! faults {
        ($(#[$type_meta:meta])* $name:ident { $($variant:ident $category:ident $code:literal $status:literal $docs:expr, $text:literal;)* }) => {
            #[derive(Debug, thiserror::Error, mainstay_errors::Fault)]
            $(#[$type_meta])*
            pub enum $name {
                $(
                    #[doc = $docs]
                    #[error($text)]
                    #[fault($category, public, code = $code, status = $status)]
                    $variant,
                )*
            }
        };
    }

    faults! {
        #[fault(domain = "orders.example.com")]
        Made {
            Gone not_found "order_gone" 410 "It was here.", "gone";
        }
    }
}

#[test]
fn an_enum_that_a_macro_made_has_its_pages_and_words() {
    let gone = &out_of_a_macro::Made::CATALOG[0];
    assert_eq!(
        (gone.code(), gone.status(), gone.docs(), gone.domain()),
        (
            "order_gone",
            410,
            "It was here.",
            Some("orders.example.com")
        )
    );
    assert_eq!(
        out_of_a_macro::Made::Gone.to_problem().detail(),
        Some("gone")
    );
}

#[no_implicit_prelude]
mod without_a_prelude {
    #[derive(::std::fmt::Debug, ::thiserror::Error, ::mainstay_errors::Fault)]
    #[error("x")]
    pub enum Bare {
        #[fault(unavailable, pointer = "/a", constraint = "a_key", retry_after = "2s")]
        Unavailable,
        #[fault(not_found, public)]
        NotFound,
    }

    #[derive(::std::fmt::Debug, ::thiserror::Error, ::mainstay_errors::Fault)]
    pub enum Nothing {}
}

#[test]
fn a_module_without_a_prelude_and_an_enum_without_variants_derive() {
    use without_a_prelude::{Bare, Nothing};
    assert_eq!(Bare::NotFound.to_problem().detail(), Some("x"));
    assert_eq!(Bare::Unavailable.to_problem().errors().len(), 1);
    assert!(Nothing::CATALOG.is_empty());
}
