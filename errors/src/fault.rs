//! The trait an error type implements to be one truth on every wire, usually by `#[derive(Fault)]`.
//!
//! What a client may see and what only the log may see are different things from the start: a
//! [`Fault`] answers with its [`Descriptor`], which is static text, and with values wrapped in
//! [`Public`] or put into [`Members`]. Its `Display` and its sources never leave the process.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::problem::{check_member, words};
use crate::{Category, MemberRefused, Outcome, Problem, Retry, Violation};

/// An error with a stable code and a place in the category table.
///
/// Implement it by `#[derive(Fault)]` (feature `derive`); by hand, only [`CATALOG`](Self::CATALOG) and
/// [`descriptor`](Self::descriptor) are needed.
pub trait Fault: std::error::Error + Send + Sync + 'static {
    /// Every descriptor [`descriptor`](Self::descriptor) may return, for the registry.
    const CATALOG: &'static [Descriptor];

    /// What this value is, as static facts.
    fn descriptor(&self) -> &'static Descriptor;

    /// Text about this occurrence that a client may read.
    fn detail(&self) -> Option<Public<'_>> {
        None
    }

    /// Adds extension members a client may read.
    fn extensions(&self, out: &mut Members) {
        let _ = out;
    }

    /// What is wrong with the request, field by field.
    fn violations(&self) -> &[Violation] {
        &[]
    }

    /// What a caller may do about it.
    fn retry(&self) -> Retry {
        self.descriptor().retry()
    }

    /// How long a caller should wait first, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        self.descriptor().retry_after()
    }

    /// Whether the request took effect.
    fn outcome(&self) -> Outcome {
        self.descriptor().outcome()
    }

    /// The document a client gets.
    fn to_problem(&self) -> Problem {
        let mut members = Members::default();
        self.extensions(&mut members);
        let mut problem = self.descriptor().to_problem();
        if let Some(detail) = self.detail() {
            problem = problem.with_detail(detail.0.into_owned());
        }
        problem = problem
            .with_violations(self.violations().iter().cloned())
            .with_retry(self.retry())
            .with_outcome(self.outcome());
        if let Some(wait) = self.retry_after() {
            problem = problem.with_retry_after(wait);
        }
        problem.extended(members.0)
    }
}

/// An error type that knows which database constraint means which of its variants.
///
/// The derive implements it from `#[fault(constraint = "users_email_key")]`.
pub trait ByConstraint: Sized {
    /// The error this constraint means, if any.
    fn by_constraint(constraint: &str) -> Option<Self>;
}

/// Text that was declared fit for clients. There is no other way for text to become a `detail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public<'a>(Cow<'a, str>);

impl<'a> Public<'a> {
    /// Declares that this text may leave the process.
    #[must_use]
    pub fn new(text: impl Into<Cow<'a, str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Extension members being collected for a document.
#[derive(Debug, Default)]
pub struct Members(Map<String, Value>);

impl Members {
    /// Adds a member. The value reaches the client.
    ///
    /// # Errors
    /// [`MemberRefused`] when the name is reserved or malformed, or the value is not JSON. The derive
    /// checks names when it compiles.
    pub fn insert(&mut self, name: &str, value: impl Serialize) -> Result<(), MemberRefused> {
        check_member(name)?;
        let Ok(value) = serde_json::to_value(value) else {
            return Err(MemberRefused::Value(name.to_owned()));
        };
        self.0.insert(name.to_owned(), value);
        Ok(())
    }
}

/// The static facts about one code.
///
/// ```
/// use mainstay_errors::{Category, Descriptor};
///
/// const TEAPOT: Descriptor = Descriptor::new("short_and_stout", Category::FailedPrecondition)
///     .with_status(418)
///     .with_docs("This is a teapot. Ask it for tea.");
/// assert_eq!(TEAPOT.title(), "Short and stout");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    code: &'static str,
    category: Category,
    title: Option<&'static str>,
    status: u16,
    docs: &'static str,
    retry: Retry,
    retry_after: Option<Duration>,
    outcome: Outcome,
    type_base: Option<&'static str>,
    type_uri: Option<&'static str>,
    domain: Option<&'static str>,
    headers: &'static [(&'static str, &'static str)],
    owner: &'static str,
}

impl Descriptor {
    /// Describes a code with its category's own status, advice and outcome.
    #[must_use]
    pub const fn new(code: &'static str, category: Category) -> Self {
        Self {
            code,
            category,
            title: None,
            status: category.http_status(),
            docs: "",
            retry: category.retry(),
            retry_after: None,
            outcome: category.outcome(),
            type_base: None,
            type_uri: None,
            domain: None,
            headers: &[],
            owner: "",
        }
    }

    /// Answers with another status of the category's class.
    ///
    /// # Panics
    /// When the status is of another class: in a constant, that is a compile error.
    #[must_use]
    pub const fn with_status(mut self, status: u16) -> Self {
        assert!(
            self.category.allows_status(status),
            "the status must be of the category's own class (4xx or 5xx)"
        );
        self.status = status;
        self
    }

    /// Titles the code; otherwise the title is the code in words.
    #[must_use]
    pub const fn with_title(mut self, title: &'static str) -> Self {
        self.title = Some(title);
        self
    }

    /// The text of the code's page.
    #[must_use]
    pub const fn with_docs(mut self, docs: &'static str) -> Self {
        self.docs = docs;
        self
    }

    /// Overrides the category's advice.
    #[must_use]
    pub const fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        if let Retry::After(wait) = retry {
            self.retry_after = Some(wait);
        }
        self
    }

    /// Asks callers to wait this long. Advice that was [`Retry::Backoff`] becomes [`Retry::After`],
    /// any other advice stays.
    #[must_use]
    pub const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        if matches!(self.retry, Retry::Backoff | Retry::After(_)) {
            self.retry = Retry::After(wait);
        }
        self
    }

    /// Overrides the category's outcome.
    #[must_use]
    pub const fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// Gives the code a `type` base of its own, whatever service answers with it.
    #[must_use]
    pub const fn with_type_base(mut self, base: &'static str) -> Self {
        self.type_base = Some(base);
        self
    }

    /// Gives the code a `type` of its own, byte for byte: one that others defined, such as
    /// `https://iana.org/assignments/http-problem-types#quota-exceeded`.
    #[must_use]
    pub const fn with_type(mut self, uri: &'static str) -> Self {
        self.type_uri = Some(uri);
        self
    }

    /// Names whose code it is, such as `orders.example.com`: with the code, the identity of an error on gRPC
    /// (`google.rpc.ErrorInfo.domain`).
    #[must_use]
    pub const fn with_domain(mut self, domain: &'static str) -> Self {
        self.domain = Some(domain);
        self
    }

    /// Headers that HTTP wants beside the status: `Upgrade` with 426, `Allow` with 405, `Accept` with 415. A header
    /// that the response has already is kept; one that is no header is left out.
    #[must_use]
    pub const fn with_headers(mut self, headers: &'static [(&'static str, &'static str)]) -> Self {
        self.headers = headers;
        self
    }

    /// Names the Rust type the code belongs to, so that a registry can tell the same code met twice
    /// (through a delegating variant) from two codes that clash.
    #[must_use]
    pub const fn with_owner(mut self, owner: &'static str) -> Self {
        self.owner = owner;
        self
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// The category.
    #[must_use]
    pub const fn category(&self) -> Category {
        self.category
    }

    /// The title, the same for every occurrence.
    #[must_use]
    pub fn title(&self) -> Cow<'static, str> {
        self.title
            .map_or_else(|| Cow::Owned(words(self.code)), Cow::Borrowed)
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The text of the code's page; may be empty.
    #[must_use]
    pub const fn docs(&self) -> &'static str {
        self.docs
    }

    /// What a caller may do, unless the occurrence knows better.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        self.retry
    }

    /// How long a caller should wait first, where that is fixed.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the request took effect, unless the occurrence knows better.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The `type` base of this code alone.
    #[must_use]
    pub const fn type_base(&self) -> Option<&'static str> {
        self.type_base
    }

    /// The whole `type` of this code, where it is not a base and the code.
    #[must_use]
    pub const fn type_uri(&self) -> Option<&'static str> {
        self.type_uri
    }

    /// Whose code it is.
    #[must_use]
    pub const fn domain(&self) -> Option<&'static str> {
        self.domain
    }

    /// The headers that go with the status.
    #[must_use]
    pub const fn headers(&self) -> &'static [(&'static str, &'static str)] {
        self.headers
    }

    /// The Rust type this code belongs to; may be empty.
    #[must_use]
    pub const fn owner(&self) -> &'static str {
        self.owner
    }

    /// The document of an occurrence that has nothing to add.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        let mut problem = Problem::new(self.category, self.code)
            .with_status(self.status)
            .with_retry(self.retry)
            .with_outcome(self.outcome);
        if let Some(title) = self.title {
            problem = problem.with_title(title);
        }
        if let Some(wait) = self.retry_after {
            problem = problem.with_retry_after(wait);
        }
        match (self.type_uri, self.type_base) {
            (Some(uri), _) => problem = problem.with_type(uri),
            (None, Some(base)) => problem = problem.with_type_base(base),
            (None, None) => {}
        }
        if let Some(domain) = self.domain {
            problem = problem.with_domain(domain);
        }
        self.headers
            .iter()
            .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
            .fold(problem, |problem, (name, value)| {
                problem.with_header(name, value)
            })
    }
}

/// How many descriptors there are in all: the size of a [`catalog_join`].
#[must_use]
pub const fn catalog_len(parts: &[&[Descriptor]]) -> usize {
    let (mut total, mut rest) = (0, parts);
    while let Some((part, tail)) = rest.split_first() {
        total += part.len();
        rest = tail;
    }
    total
}

/// Lays catalogues end to end at compile time, as the derive does for delegating variants.
///
/// # Panics
/// When `N` is not [`catalog_len`] of the same parts: in a constant, that is a compile error.
#[must_use]
#[expect(
    clippy::indexing_slicing,
    reason = "runs at compile time, where a wrong index is a compile error"
)]
pub const fn catalog_join<const N: usize>(parts: &[&[Descriptor]]) -> [Descriptor; N] {
    let mut all = [Descriptor::new("", Category::Unknown); N];
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        let mut one = 0;
        while one < parts[part].len() {
            all[at] = parts[part][one];
            at += 1;
            one += 1;
        }
        part += 1;
    }
    all
}
