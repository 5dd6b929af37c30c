//! What a client is told: a [`Problem`] that names the parameter, and nothing about the database.

#[cfg(feature = "sqlx")]
use std::sync::LazyLock;

use mainstay_errors::{Category, Descriptor, Problem, Violation};

use crate::cursor::CursorError;
#[cfg(feature = "sqlx")]
use crate::preset::Preset;
use crate::request::LimitError;
#[cfg(feature = "sqlx")]
use crate::request::PageDirection;
use crate::request::PageLimits;

/// The one code of every refused page request; its violations say which parameter and why.
pub(crate) const REQUEST_INVALID: Descriptor = Descriptor::new("page_request_invalid", Category::InvalidArgument)
    .with_status(400)
    .with_title("Invalid page request")
    .with_docs(
        "A parameter of a paged list is not acceptable: the number of rows is a whole number from 1 up to the list's \
         maximum; cursors come from an earlier answer for the same list, filter and order; some parameters do not go \
         together. `errors` names each parameter with a code. Start again without a cursor if yours has expired.",
    )
    .with_owner("mainstay_pagination");

#[cfg(feature = "sqlx")]
fn limit(parameter: &str, error: LimitError) -> Violation {
    Violation::query(parameter, error.code()).with_detail(error.to_string())
}

/// The same, and what would have been right.
pub(crate) fn limit_of(parameter: &str, error: LimitError, limits: &PageLimits) -> Violation {
    let max = limits.max_rows();
    Violation::query(parameter, error.code())
        .with_detail(format!("{error}; give a whole number from 1 to {max}"))
        .with_param("min", 1)
        .with_param("max", max)
}

pub(crate) fn cursor(parameter: &str, error: CursorError) -> Violation {
    Violation::query(parameter, error.code()).with_detail(error.to_string())
}

pub(crate) fn problem(violations: Vec<Violation>) -> Problem {
    REQUEST_INVALID.to_problem().with_violations(violations)
}

/// What a number of rows that reached `fetch` without the extractor is called.
#[cfg(feature = "sqlx")]
const LIMIT: &str = "limit";

/// Every violation a `PageError` can name, made once, so that one can be lent.
#[cfg(feature = "sqlx")]
static VIOLATIONS: LazyLock<Vec<Violation>> = LazyLock::new(|| {
    // The maximum in an error is its own list's, which is not known here.
    let limits = LimitError::ALL.map(|error| match error {
        LimitError::TooLarge { .. } => {
            limit(LIMIT, error).with_detail("the page size is above the list's maximum")
        }
        _ => limit(LIMIT, error),
    });
    let mut parameters: Vec<_> = Preset::ALL
        .into_iter()
        .flat_map(|preset| {
            [PageDirection::Forward, PageDirection::Backward]
                .map(|direction| preset.cursor_parameter(direction))
        })
        .collect();
    parameters.sort_unstable();
    parameters.dedup();
    let cursors = parameters
        .into_iter()
        .flat_map(|parameter| CursorError::ALL.map(|error| cursor(parameter, error)));
    limits.into_iter().chain(cursors).collect()
});

/// The made violation of this parameter and code.
#[cfg(feature = "sqlx")]
fn find(parameter: &str, code: &str) -> &'static [Violation] {
    let names =
        |v: &&Violation| v.pointer().strip_prefix('/') == Some(parameter) && v.code() == code;
    VIOLATIONS
        .iter()
        .find(names)
        .map_or(&[], std::slice::from_ref)
}

#[cfg(feature = "sqlx")]
mod page_error {
    use mainstay_errors::{Category, Descriptor, Fault, Outcome, Problem, Retry, Violation, db};

    use super::{LIMIT, REQUEST_INVALID, find};
    use crate::error::PageError;

    // Whatever happens to a page, nothing was applied: it only reads.

    /// The declaration does not fit the database: a bug of ours or the application's.
    const UNREADABLE: Descriptor = Descriptor::new("page_unreadable", Category::Internal)
        .with_title("The page could not be read")
        .with_docs("The service failed to read a page of a list. The cause is in its log.")
        .with_outcome(Outcome::NotApplied)
        .with_owner("mainstay_pagination");

    /// The database did not answer, or not in time.
    const UNAVAILABLE: Descriptor = Descriptor::new("page_unavailable", Category::Unavailable)
        .with_title("The list is not available")
        .with_docs(
            "The service could not read a page of a list from its database. Try again later.",
        )
        .with_retry(Retry::Backoff)
        .with_outcome(Outcome::NotApplied)
        .with_owner("mainstay_pagination");

    /// Whether another attempt may find the database well.
    fn is_passing(error: &sqlx::Error) -> bool {
        matches!(
            db::Condition::of(error).descriptor().category(),
            Category::Unavailable
                | Category::Aborted
                | Category::DeadlineExceeded
                | Category::ResourceExhausted
        )
    }

    /// A caller's mistake is a 400 with one violation in the query; a database out of reach is a 503;
    /// everything else is a 500 of which nothing is sent.
    impl Fault for PageError {
        const CATALOG: &'static [Descriptor] = &[REQUEST_INVALID, UNREADABLE, UNAVAILABLE];

        fn descriptor(&self) -> &'static Descriptor {
            match self {
                Self::Limit(_) | Self::Cursor { .. } => &REQUEST_INVALID,
                Self::Database(error) if is_passing(error) => &UNAVAILABLE,
                _ => &UNREADABLE,
            }
        }

        fn violations(&self) -> &[Violation] {
            match self {
                Self::Limit(error) => find(LIMIT, error.code()),
                Self::Cursor { parameter, source } => find(parameter, source.code()),
                _ => &[],
            }
        }
    }

    impl From<PageError> for Problem {
        fn from(error: PageError) -> Self {
            error.to_problem()
        }
    }
}

#[cfg(all(test, feature = "sqlx"))]
mod tests {
    use mainstay_errors::Fault;

    use super::*;
    use crate::PageError;

    #[test]
    fn every_callers_mistake_is_a_400_that_names_its_parameter() {
        for source in CursorError::ALL {
            for (parameter, pointer) in [
                ("after", "/after"),
                ("before", "/before"),
                ("page_token", "/page_token"),
                ("page[after]", "/page[after]"),
                ("page[before]", "/page[before]"),
            ] {
                let problem = Problem::from(PageError::Cursor { parameter, source });
                assert_eq!(
                    (problem.status(), problem.code()),
                    (400, "page_request_invalid")
                );
                let [violation] = problem.errors() else {
                    panic!("one violation: {problem:?}")
                };
                assert_eq!(
                    (violation.pointer(), violation.code()),
                    (pointer, source.code())
                );
            }
        }
        for error in LimitError::ALL {
            let problem = PageError::Limit(error).to_problem();
            assert_eq!(
                (problem.status(), problem.errors()[0].pointer()),
                (400, "/limit")
            );
        }
    }

    #[test]
    fn a_limit_is_not_told_another_maximum_than_its_own() {
        let refused = PageLimits::new(5, 50)
            .on_exceed(crate::OnExceed::Reject)
            .resolve(Some(60))
            .unwrap_err();
        let problem = PageError::from(refused).to_problem();
        let detail = problem.errors()[0].detail().unwrap();
        assert!(!detail.contains("10000"), "{detail}");
    }

    #[test]
    fn nothing_of_the_database_is_sent() {
        let unreadable = [
            PageError::NullKey {
                column: "secret_column",
            },
            PageError::NotUnique {
                order: "secret_column",
            },
            PageError::Database(sqlx::Error::ColumnNotFound("secret_column".into())),
        ];
        for error in unreadable {
            let problem = error.to_problem();
            assert_eq!(problem.status(), 500);
            assert!(!String::from_utf8_lossy(&problem.to_bytes()).contains("secret"));
        }
        assert_eq!(
            PageError::Database(sqlx::Error::PoolTimedOut)
                .to_problem()
                .status(),
            503
        );
    }
}
