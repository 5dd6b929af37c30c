//! From the document back to the enum it was made of: what a client matches on.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::problem::is_absolute;
use crate::{Descriptor, Fault, Problem, Violation};

/// A fault that a client can have back from the document.
///
/// `#[fault(decode)]` on the type derives it. A variant comes back when everything it holds travels:
/// extension members (`ext`), `violations`, a `retry_after`, or a field marked `default`, which is filled with
/// its default. One that holds anything else, such as a source, stays [`Decoded::Unknown`], with its code.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be had back from a problem document",
    label = "not `FromProblem`",
    note = "write `#[fault(decode)]` on it, beside `#[derive(Fault)]`"
)]
pub trait FromProblem: Fault + Sized {
    /// The error this document was made of, if it is one of this type.
    fn from_problem(problem: &Problem) -> Option<Self>;
}

/// What a document turned out to be.
///
/// ```
/// # #[cfg(feature = "derive")] {
/// use mainstay_errors::{Decoded, Fault, Problem};
///
/// #[derive(Debug, PartialEq, thiserror::Error, Fault)]
/// #[fault(decode)]
/// enum OrderError {
///     #[error("order {id} not found")]
///     #[fault(not_found, public)]
///     OrderNotFound { #[fault(ext = "order_id")] id: u64 },
/// }
///
/// let sent = OrderError::OrderNotFound { id: 7 }.to_problem().to_bytes();
/// let problem = Problem::read_document(404, Some("application/problem+json"), &sent);
/// match problem.decode::<OrderError>() {
///     Decoded::Known(error) => assert_eq!(error, OrderError::OrderNotFound { id: 7 }),
///     Decoded::Unknown(problem) => panic!("a newer server: {}", problem.code()),
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<E> {
    /// The enum's own error.
    Known(E),
    /// A code this version of the enum does not know, or a failure of something on the way: the problem says
    /// what it can, and what the caller may do.
    Unknown(Problem),
}

impl<E> Decoded<E> {
    /// The error, if it is known.
    pub fn known(self) -> Option<E> {
        match self {
            Self::Known(error) => Some(error),
            Self::Unknown(_) => None,
        }
    }
}

impl Problem {
    /// Tells the errors of a service apart by its own enum. Total: what the enum does not know is
    /// [`Decoded::Unknown`], unchanged.
    #[must_use]
    pub fn decode<E: FromProblem>(self) -> Decoded<E> {
        match self.known() {
            Some(error) => Decoded::Known(error),
            None => Decoded::Unknown(self),
        }
    }

    /// The error of this enum, if this document is one. The document stays, with its request id and its detail.
    #[must_use]
    pub fn known<E: FromProblem>(&self) -> Option<E> {
        E::from_problem(self)
    }
}

/// Whether the document is of this code, and of this service as far as both sides say whose it is.
///
/// Never by title or detail, which are for people (RFC 9457 §3.1). A relative `type` says nothing about
/// whose it is; an absolute one, and a domain, do.
pub fn is_of(problem: &Problem, descriptor: &Descriptor) -> bool {
    if problem.code() != descriptor.code() {
        return false;
    }
    if let (Some(theirs), Some(ours)) = (problem.domain(), descriptor.domain()) {
        return theirs == ours;
    }
    let own = descriptor.to_problem();
    let (theirs, ours) = (problem.type_uri(), own.type_uri());
    !is_absolute(&ours) || !is_absolute(&theirs) || theirs == "about:blank" || theirs == ours
}

/// An extension member as the field it came from. A member that is missing reads as null.
pub fn member<T: DeserializeOwned>(problem: &Problem, name: &str) -> Option<T> {
    let value = problem.extensions().get(name).cloned();
    serde_json::from_value(value.unwrap_or(Value::Null)).ok()
}

/// As [`member`], for a field that has a default: a member that is missing is no reason to give up.
pub fn member_or_default<T: DeserializeOwned + Default>(
    problem: &Problem,
    name: &str,
) -> Option<T> {
    match problem.extensions().get(name) {
        None | Some(Value::Null) => Some(T::default()),
        Some(_) => member(problem, name),
    }
}

/// The violations as the field that held them.
pub fn violations<T: FromIterator<Violation>>(problem: &Problem) -> T {
    problem.errors().iter().cloned().collect()
}

/// A field that says how long to wait.
#[diagnostic::on_unimplemented(
    message = "a `retry_after` field that comes back is a `Duration` or an `Option<Duration>`, not `{Self}`",
    label = "not a `Duration` or an `Option<Duration>`"
)]
pub trait Wait: Sized {
    /// The wait the document speaks of; none when it must speak of one and does not.
    fn of(problem: &Problem) -> Option<Self>;
}

impl Wait for Duration {
    fn of(problem: &Problem) -> Option<Self> {
        problem.retry_after()
    }
}

impl Wait for Option<Duration> {
    fn of(problem: &Problem) -> Option<Self> {
        Some(problem.retry_after())
    }
}

/// What a database said stays on the server: nobody gets it back, so a variant that delegates to it stays unknown.
#[cfg(feature = "sqlx")]
impl FromProblem for crate::db::DbFault {
    fn from_problem(_: &Problem) -> Option<Self> {
        None
    }
}
