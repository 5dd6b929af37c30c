//! Collects everything that is wrong with a request, to be answered as one 422.

use std::fmt;

use crate::decode::is_of;
use crate::{
    Category, Descriptor, Fault, FromProblem, Location, Problem, VIOLATIONS_MAX, Violation,
};

/// Violations found by an application's own checks, all of them at once.
///
/// It is a [`Fault`], so it converts into [`Error`](crate::Error), into a [`Problem`], and into a
/// variant of a derived enum (`#[fault(delegate)] Invalid(#[from] Violations)`).
///
/// ```
/// use mainstay_errors::{Violation, Violations};
///
/// fn check(amount: i64, currency: &str) -> Result<(), Violations> {
///     let mut found = Violations::new();
///     if amount < 1 {
///         found.push(Violation::body("/amount", "too_small").with_detail("must be at least 1"));
///     }
///     if currency.len() != 3 {
///         found.push(Violation::body("/currency", "malformed"));
///     }
///     found.into_result()
/// }
/// assert_eq!(check(0, "EURO").unwrap_err().len(), 2);
/// assert!(check(5, "EUR").is_ok());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations {
    found: Vec<Violation>,
    left_out: usize,
}

/// The one code of a collection of violations.
pub(crate) const VALIDATION_FAILED: Descriptor =
    Descriptor::new("validation_failed", Category::InvalidArgument)
        .with_status(422)
        .with_title("Validation failed")
        .with_docs(
            "The request is well-formed, but some of its values are not acceptable. \
             `errors` names each of them by a JSON pointer (RFC 6901) and a code.",
        )
        .with_owner("mainstay_errors");

impl Violations {
    /// Nothing found yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            found: Vec::new(),
            left_out: 0,
        }
    }

    /// Adds one. Beyond [`VIOLATIONS_MAX`] they are only counted.
    pub fn push(&mut self, violation: Violation) {
        if self.found.len() < VIOLATIONS_MAX {
            self.found.push(violation);
        } else {
            self.left_out += 1;
        }
    }

    /// Nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// How many were found, those beyond the bound included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len() + self.left_out
    }

    /// Those that will be sent.
    #[must_use]
    pub fn as_slice(&self) -> &[Violation] {
        &self.found
    }

    /// Says that all of them are about this part of the request: for checks of a query or a path that were written,
    /// or converted, as if of a body.
    #[must_use]
    pub fn located(mut self, location: Location) -> Self {
        let found = std::mem::take(&mut self.found);
        self.found = found
            .into_iter()
            .map(|violation| violation.located(location))
            .collect();
        self
    }

    /// `Ok` when nothing was found.
    ///
    /// # Errors
    /// Itself, when anything was.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl Extend<Violation> for Violations {
    fn extend<I: IntoIterator<Item = Violation>>(&mut self, violations: I) {
        violations
            .into_iter()
            .for_each(|violation| self.push(violation));
    }
}

impl FromIterator<Violation> for Violations {
    fn from_iter<I: IntoIterator<Item = Violation>>(violations: I) -> Self {
        let mut all = Self::new();
        all.extend(violations);
        all
    }
}

impl From<Violation> for Violations {
    fn from(violation: Violation) -> Self {
        Self::from_iter([violation])
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of the request's values are not acceptable",
            self.len()
        )?;
        for (at, violation) in self.found.iter().enumerate() {
            write!(f, "{} {violation}", if at == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

impl Fault for Violations {
    const CATALOG: &'static [Descriptor] = &[VALIDATION_FAILED];

    fn descriptor(&self) -> &'static Descriptor {
        const { &VALIDATION_FAILED }
    }

    fn violations(&self) -> &[Violation] {
        &self.found
    }
}

impl FromProblem for Violations {
    fn from_problem(problem: &Problem) -> Option<Self> {
        is_of(problem, &VALIDATION_FAILED).then(|| problem.errors().iter().cloned().collect())
    }
}

impl From<Violations> for Problem {
    fn from(violations: Violations) -> Self {
        violations.to_problem()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_violations_make_one_422() {
        let mut found = Violations::from(Violation::body("/amount", "too_small"));
        found.push(Violation::query("dry_run", "not_a_boolean"));
        let problem = Problem::from(found);
        assert_eq!(
            (problem.status(), problem.code()),
            (422, "validation_failed")
        );
        assert_eq!(problem.errors().len(), 2);
    }

    #[test]
    fn a_check_of_a_query_says_so_whatever_it_was_written_for() {
        let found = Violations::from(Violation::body("/limit", "too_large").with_param("max", 9));
        let found = found.located(Location::Query);
        assert_eq!(
            found.as_slice(),
            [Violation::query("limit", "too_large").with_param("max", 9)]
        );
    }

    #[test]
    fn an_endless_list_is_counted_but_not_kept() {
        let found: Violations = (0..5000)
            .map(|i| Violation::body(format!("/{i}"), "bad"))
            .collect();
        assert_eq!(
            (found.len(), found.as_slice().len()),
            (5000, VIOLATIONS_MAX)
        );
    }
}
