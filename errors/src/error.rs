//! [`Error`]: any fault in eight bytes, with what the program was doing at the time.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use tracing::Span;

use crate::{Category, Descriptor, Fault, Outcome, Problem, Retry};

/// The most links of a cause chain that are kept for the log. Real chains have five; a cyclic one has no end.
pub const CHAIN_LINKS_MAX: usize = 32;

/// An error of any [`Fault`] type, one word wide so that `Result`s stay small.
///
/// A client gets what [`to_problem`](Self::to_problem) says; contexts and sources are for the log.
///
/// It remembers the `tracing` span it was made in, in which its log line is written: a trace shows the failure
/// where it happened, not where it was answered. The span does not close before the error is dropped.
///
/// ```
/// use mainstay_errors::{Category, Error, Violation, Violations};
///
/// fn book() -> Result<(), Error> {
///     Err(Violations::from(Violation::body("/seat", "taken")))?
/// }
/// let error = book().unwrap_err().context("booking a seat");
/// assert_eq!(error.kind(), Category::InvalidArgument);
/// assert_eq!(error.to_problem().status(), 422);
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    cause: Cause,
    /// Innermost first.
    contexts: Vec<Cow<'static, str>>,
    /// Where it was made, so that its log line stands there.
    origin: Span,
}

enum Cause {
    Fault(Box<dyn AnyFault>),
    Problem(Problem),
    /// Not a fault: internal, and nothing about it may be sent.
    Bug(Box<dyn StdError + Send + Sync>),
}

/// The code of an error nobody gave a code.
pub(crate) const INTERNAL: Descriptor = Descriptor::new("internal", Category::Internal)
    .with_title("Internal error")
    .with_docs(
        "Something went wrong on our side, and whether the request took effect is not known. \
         The request id finds the record of it.",
    )
    .with_owner("mainstay_errors");

/// [`Fault`] without what keeps it from being a trait object.
trait AnyFault: Send + Sync {
    fn descriptor(&self) -> &'static Descriptor;
    fn retry(&self) -> Retry;
    fn outcome(&self) -> Outcome;
    fn to_problem(&self) -> Problem;
    fn as_std(&self) -> &(dyn StdError + 'static);
}

impl<F: Fault> AnyFault for F {
    fn descriptor(&self) -> &'static Descriptor {
        Fault::descriptor(self)
    }
    fn retry(&self) -> Retry {
        Fault::retry(self)
    }
    fn outcome(&self) -> Outcome {
        Fault::outcome(self)
    }
    fn to_problem(&self) -> Problem {
        Fault::to_problem(self)
    }
    fn as_std(&self) -> &(dyn StdError + 'static) {
        self
    }
}

impl Error {
    /// Wraps any error as `internal`: logged with its chain, and of it nothing is sent.
    pub fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::of(Cause::Bug(cause.into()))
    }

    /// What a panic left behind, as `internal`: its text is for the log alone.
    #[cfg(any(feature = "axum", feature = "tonic"))]
    pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&'static str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("with a payload that is not text");
        Self::internal(format!("panic: {text}"))
    }

    fn of(cause: Cause) -> Self {
        Self(Box::new(Inner {
            cause,
            contexts: Vec::new(),
            origin: Span::current(),
        }))
    }

    /// The span in which the error was made; disabled when there was none.
    pub(crate) fn origin(&self) -> &Span {
        &self.0.origin
    }

    /// Says what the program was doing. For the log only.
    #[must_use]
    pub fn context(mut self, doing: impl Into<Cow<'static, str>>) -> Self {
        self.0.contexts.push(doing.into());
        self
    }

    /// The category.
    #[must_use]
    pub fn kind(&self) -> Category {
        match &self.0.cause {
            Cause::Fault(fault) => fault.descriptor().category(),
            Cause::Problem(problem) => problem.category(),
            Cause::Bug(_) => INTERNAL.category(),
        }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        match &self.0.cause {
            Cause::Fault(fault) => fault.descriptor().code(),
            Cause::Problem(problem) => problem.code(),
            Cause::Bug(_) => INTERNAL.code(),
        }
    }

    /// What a caller may do about it.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match &self.0.cause {
            Cause::Fault(fault) => fault.retry(),
            Cause::Problem(problem) => problem.retry(),
            Cause::Bug(_) => INTERNAL.retry(),
        }
    }

    /// Whether the work took effect.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match &self.0.cause {
            Cause::Fault(fault) => fault.outcome(),
            Cause::Problem(problem) => problem.outcome(),
            Cause::Bug(_) => INTERNAL.outcome(),
        }
    }

    /// The document a client gets.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        match &self.0.cause {
            Cause::Fault(fault) => fault.to_problem(),
            Cause::Problem(problem) => problem.clone(),
            Cause::Bug(_) => INTERNAL.to_problem(),
        }
    }

    /// The fault inside, if it is of this type.
    #[must_use]
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        self.cause().downcast_ref()
    }

    /// What happened, outermost first: contexts, the fault, its sources. For the log, never for a client.
    ///
    /// A link that only repeats the end of the one before it is left out, because many errors print
    /// their source and return it too. At most [`CHAIN_LINKS_MAX`] links, at most half of them contexts.
    #[must_use]
    pub fn chain(&self) -> Vec<String> {
        let mut links: Vec<String> = Vec::new();
        let mut link = |text: String| {
            if !links.last().is_some_and(|last| last.ends_with(&text)) {
                links.push(text);
            }
        };
        // Half, so that the causes are not pushed out.
        let contexts = self.0.contexts.iter().rev().take(CHAIN_LINKS_MAX / 2);
        contexts.for_each(|doing| link(doing.to_string()));
        let mut next = Some(self.cause());
        for _ in 0..CHAIN_LINKS_MAX {
            let Some(cause) = next else { break };
            link(cause.to_string());
            next = cause.source();
        }
        links.truncate(CHAIN_LINKS_MAX);
        links
    }

    fn cause(&self) -> &(dyn StdError + 'static) {
        match &self.0.cause {
            Cause::Fault(fault) => fault.as_std(),
            Cause::Problem(problem) => problem,
            Cause::Bug(bug) => bug.as_ref(),
        }
    }
}

impl<F: Fault> From<F> for Error {
    fn from(fault: F) -> Self {
        Self::of(Cause::Fault(Box::new(fault)))
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::of(Cause::Problem(problem))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        error.to_problem()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("code", &self.code())
            .field("chain", &self.chain())
            .finish()
    }
}

/// The contexts, outermost first; without any, the fault itself. Sources are not repeated here.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut contexts = self.0.contexts.iter().rev();
        let Some(outermost) = contexts.next() else {
            return fmt::Display::fmt(self.cause(), f);
        };
        f.write_str(outermost)?;
        contexts.try_for_each(|context| write!(f, ": {context}"))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        if self.0.contexts.is_empty() {
            self.cause().source()
        } else {
            Some(self.cause())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Violation, Violations};

    #[derive(Debug, thiserror::Error)]
    #[error("outer: {0}")]
    struct PrintsItsSource(#[source] std::io::Error);

    #[test]
    fn an_error_is_one_word() {
        assert_eq!(size_of::<Error>(), 8);
        assert_eq!(size_of::<Option<Error>>(), 8);
    }

    #[test]
    fn the_chain_says_each_thing_once() {
        let error = Error::internal(PrintsItsSource(std::io::Error::other("disk gone")))
            .context("writing the ledger")
            .context("closing the day");
        assert_eq!(
            error.chain(),
            ["closing the day", "writing the ledger", "outer: disk gone"]
        );
        assert_eq!(error.to_string(), "closing the day: writing the ledger");
        assert_eq!(error.source().unwrap().to_string(), "outer: disk gone");
    }

    #[test]
    fn a_bug_sends_nothing_of_itself() {
        let error = Error::internal("password is hunter2").context("user 7");
        let sent = String::from_utf8(error.to_problem().to_bytes().to_vec()).unwrap();
        assert!(
            !sent.contains("hunter2") && !sent.contains("user 7"),
            "{sent}"
        );
        assert_eq!(
            (error.code(), error.kind()),
            ("internal", Category::Internal)
        );
    }

    #[test]
    fn faults_and_problems_come_out_as_they_went_in() {
        let error = Error::from(Violations::from(Violation::body("/a", "bad")));
        assert_eq!(error.downcast_ref::<Violations>().unwrap().len(), 1);
        assert_eq!(error.code(), "validation_failed");
        let problem = Problem::new(Category::Aborted, "conflict");
        assert_eq!(Error::from(problem.clone()).to_problem(), problem);
    }

    #[test]
    fn an_error_may_cross_threads() {
        fn sendable<T: Send + Sync + 'static>() {}
        sendable::<Error>();
    }

    #[test]
    fn many_contexts_do_not_push_the_cause_out_of_the_chain() {
        let error = (0..100).fold(Error::internal("disk full"), |error, at| {
            error.context(format!("step {at}"))
        });
        let chain = error.chain();
        assert_eq!(chain.first().unwrap(), "step 99");
        assert_eq!(chain.last().unwrap(), "disk full");
        assert!(chain.len() <= CHAIN_LINKS_MAX);
    }
}
