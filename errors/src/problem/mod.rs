//! The wire document of a failure: RFC 9457 `application/problem+json` with the members a caller
//! needs to act — `code`, `retry`, `outcome`, `request_id`, `errors`.
//!
//! A [`Problem`] can only be written correctly: its status is 4xx or 5xx and of its category's class,
//! the five standard members have their types, extension names keep to RFC 9457 §3.2 and never
//! collide with a member of ours, and the bytes of equal problems are equal.

mod body;
mod code;
mod entry;
mod member;
mod members;
mod plain;
mod read;
mod reference;
mod weigh;
mod write;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::{Category, Outcome, RequestId, Retry, Violation};

#[cfg(feature = "axum")]
pub(crate) use body::essence;
pub(crate) use code::{type_of, words};
pub(crate) use member::check_member;
pub use member::{MemberRefused, RESERVED_MEMBERS};
#[cfg(feature = "tonic")]
pub(crate) use plain::from_str as plain_json;
#[cfg(feature = "tonic")]
pub(crate) use read::WAIT_MAX;
pub use read::{DOCUMENT_BYTES_MAX, ProblemReader};
pub(crate) use reference::is_absolute;
pub(crate) use write::whole_seconds;

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Where `type` points unless something else is said: the pages that
/// the registry can serve on the same service.
pub const DEFAULT_TYPE_BASE: &str = "/problems/";

/// The most `detail` that is sent, in bytes. Prose for a person fits; a dumped payload does not.
pub const DETAIL_BYTES_MAX: usize = 4096;

/// The most violations one document carries. A form has fewer; an attacker's array has more.
pub const VIOLATIONS_MAX: usize = 100;

/// A failure as a client sees it.
///
/// ```
/// use mainstay_errors::{Category, Problem, Violation};
///
/// let problem = Problem::new(Category::InvalidArgument, "order_invalid")
///     .with_status(422)
///     .with_detail("The order cannot be placed like this.")
///     .with_violation(Violation::body("/lines/0/amount", "too_small"));
/// assert_eq!(problem.status(), 422);
/// assert_eq!(problem.type_uri(), "/problems/order_invalid");
/// ```
#[derive(Clone, PartialEq)]
pub struct Problem(Box<Document>);

/// Boxed, so that a `Result<T, Problem>` stays as small as its `T`.
#[derive(Clone, PartialEq)]
struct Document {
    category: Category,
    code: Cow<'static, str>,
    type_uri: TypeUri,
    title: Option<Cow<'static, str>>,
    status: u16,
    reported_status: Option<u16>,
    detail: Option<Cow<'static, str>>,
    instance: Option<String>,
    retry: Retry,
    retry_after: Option<Duration>,
    outcome: Outcome,
    request_id: Option<RequestId>,
    errors: Vec<Violation>,
    extensions: Map<String, Value>,
    /// Not in the document: the identity of the code on gRPC.
    domain: Option<Cow<'static, str>>,
    /// Not in the document: they travel beside it.
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The most headers a problem brings with it. A status asks for one.
const HEADERS_MAX: usize = 8;

/// Where `type` comes from.
#[derive(Clone, PartialEq)]
enum TypeUri {
    /// Nobody said: the default base, or the one of the layer that renders the problem.
    Default,
    /// A base of the code's own.
    Base(Cow<'static, str>),
    /// These bytes, as read or as given.
    Exact(Cow<'static, str>),
}

impl Problem {
    /// A problem of this category under a stable, machine-readable `code` (snake case, such as
    /// `order_not_found`). Status, retry advice and outcome start as the category's own; the title
    /// is the code in words.
    #[must_use]
    pub fn new(category: Category, code: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Document {
            category,
            code: code.into(),
            type_uri: TypeUri::Default,
            title: None,
            status: category.http_status(),
            reported_status: None,
            detail: None,
            instance: None,
            retry: category.retry(),
            retry_after: None,
            outcome: category.outcome(),
            request_id: None,
            errors: Vec::new(),
            extensions: Map::new(),
            domain: None,
            headers: Vec::new(),
        }))
    }

    /// Answers with another HTTP status of the category's own class: 422 instead of 400, 412 instead of 409.
    ///
    /// A status of another class would make the document contradict itself; it is a mistake in the
    /// program, asserted in debug builds and ignored in release builds.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        let allowed = self.0.category.allows_status(status);
        debug_assert!(
            allowed,
            "status {status} is not of the class of {}",
            self.0.category
        );
        if allowed {
            self.0.status = status;
        }
        self
    }

    /// Titles the problem. The title belongs to the code: never vary it by occurrence.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        self.0.title = Some(title.into());
        self
    }

    /// Tells the client about this occurrence. **Public text**: no debug output, no values from a
    /// failed query. Cut at [`DETAIL_BYTES_MAX`].
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(cut(detail.into()));
        self
    }

    /// A URI reference for this occurrence.
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<String>) -> Self {
        self.0.instance = Some(instance.into());
        self
    }

    /// Names the whole `type` URI reference, byte for byte.
    #[must_use]
    pub fn with_type(mut self, uri: impl Into<Cow<'static, str>>) -> Self {
        self.0.type_uri = TypeUri::Exact(uri.into());
        self
    }

    /// Makes `type` this base followed by the code, instead of the base of the layer that answers.
    #[must_use]
    pub fn with_type_base(mut self, base: impl Into<Cow<'static, str>>) -> Self {
        self.0.type_uri = TypeUri::Base(base.into());
        self
    }

    /// Gives the problems that named no `type` base of their own this one.
    #[must_use]
    pub fn with_default_type_base(mut self, base: &str) -> Self {
        if self.0.type_uri == TypeUri::Default && base != DEFAULT_TYPE_BASE {
            self.0.type_uri = TypeUri::Base(Cow::Owned(base.to_owned()));
        }
        self
    }

    /// Adds one violation; beyond [`VIOLATIONS_MAX`] they are left out.
    #[must_use]
    pub fn with_violation(mut self, violation: Violation) -> Self {
        if self.0.errors.len() < VIOLATIONS_MAX {
            self.0.errors.push(violation);
        }
        self
    }

    /// Adds violations up to [`VIOLATIONS_MAX`] in all.
    #[must_use]
    pub fn with_violations(self, violations: impl IntoIterator<Item = Violation>) -> Self {
        violations
            .into_iter()
            .take(VIOLATIONS_MAX)
            .fold(self, Self::with_violation)
    }

    /// Replaces the texts of violations, each by its place; a place there is none at is passed over.
    #[cfg(feature = "axum")]
    pub(crate) fn with_violation_details(
        mut self,
        details: impl IntoIterator<Item = (usize, Cow<'static, str>)>,
    ) -> Self {
        for (at, detail) in details {
            if let Some(violation) = self.0.errors.get_mut(at) {
                *violation = violation.clone().with_detail(cut(detail));
            }
        }
        self
    }

    /// Adds an extension member.
    ///
    /// # Errors
    /// [`MemberRefused`] when the name is [reserved](RESERVED_MEMBERS) or not of RFC 9457 §3.2:
    /// at least three of `[A-Za-z0-9_]`, starting with a letter.
    pub fn with_extension(
        mut self,
        name: &str,
        value: impl Into<Value>,
    ) -> Result<Self, MemberRefused> {
        check_member(name)?;
        self.0.extensions.insert(name.to_owned(), value.into());
        Ok(self)
    }

    /// Takes members whose names were checked.
    pub(crate) fn extended(mut self, members: Map<String, Value>) -> Self {
        self.0.extensions.extend(members);
        self
    }

    /// Overrides the category's retry advice.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        if let Retry::After(wait) = retry {
            self.0.retry_after = Some(wait);
        }
        self
    }

    /// Says how long to wait. Sent as a `Retry-After` header in whole seconds, rounded up; advice that
    /// was [`Retry::Backoff`] becomes [`Retry::After`], any other advice stays.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        if matches!(self.0.retry, Retry::Backoff | Retry::After(_)) {
            self.0.retry = Retry::After(wait);
        }
        self
    }

    /// Overrides the category's outcome.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.0.outcome = outcome;
        self
    }

    /// Says whose code it is. It is not in the document, where `type` says it; gRPC carries it in `ErrorInfo`.
    #[must_use]
    pub fn with_domain(mut self, domain: impl Into<Cow<'static, str>>) -> Self {
        self.0.domain = Some(domain.into());
        self
    }

    /// Adds a header that HTTP wants beside the status, such as `Upgrade` with 426. A response that has the header
    /// already keeps its own. Beyond eight they are left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if self.0.headers.len() < HEADERS_MAX {
            self.0.headers.push((name, value));
        }
        self
    }

    /// Resolves a relative `type` and `instance` against the URL that answered (RFC 3986 §5), so that they mean
    /// the same to whom the problem is passed on. A base that is not absolute changes nothing; credentials in one are
    /// left out. Its query is not: a reference that is empty or only a fragment keeps it, so give a base without a
    /// query that is secret.
    #[must_use]
    pub fn resolved(mut self, base: &str) -> Self {
        if let Some(uri) = reference::resolve(base, &self.type_uri()) {
            self.0.type_uri = TypeUri::Exact(Cow::Owned(uri));
        }
        if let Some(instance) = &self.0.instance
            && let Some(uri) = reference::resolve(base, instance)
        {
            self.0.instance = Some(uri);
        }
        self
    }

    /// Ties the problem to a request.
    #[must_use]
    pub fn with_request_id(mut self, id: RequestId) -> Self {
        self.0.request_id = Some(id);
        self
    }

    /// The category. It is not on the wire: a reader infers it from status, retry advice and outcome.
    #[must_use]
    pub fn category(&self) -> Category {
        self.0.category
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The `type` URI reference.
    #[must_use]
    pub fn type_uri(&self) -> Cow<'_, str> {
        match &self.0.type_uri {
            TypeUri::Default => Cow::Owned(type_of(DEFAULT_TYPE_BASE, &self.0.code)),
            TypeUri::Base(base) => Cow::Owned(type_of(base, &self.0.code)),
            TypeUri::Exact(uri) => Cow::Borrowed(uri),
        }
    }

    /// The title; unless one was given, the code in words, or with the `type` `about:blank` the phrase of the
    /// status (RFC 9457 §4.2.1).
    #[must_use]
    pub fn title(&self) -> Cow<'_, str> {
        match &self.0.title {
            Some(title) => Cow::Borrowed(title),
            None => self.default_title(),
        }
    }

    /// The title where none is given.
    pub(crate) fn default_title(&self) -> Cow<'_, str> {
        match self.status_code().canonical_reason() {
            Some(phrase) if self.is_blank() => Cow::Borrowed(phrase),
            _ => Cow::Owned(words(&self.0.code)),
        }
    }

    /// Whether `type` says nothing that the status does not say.
    fn is_blank(&self) -> bool {
        matches!(&self.0.type_uri, TypeUri::Exact(uri) if uri == "about:blank")
    }

    /// The HTTP status, always 400 to 599.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.status
    }

    /// The HTTP status as the `http` crate spells it.
    #[must_use]
    pub fn status_code(&self) -> http::StatusCode {
        http::StatusCode::from_u16(self.0.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The status a *read* document claimed, when the HTTP status said otherwise and won.
    #[must_use]
    pub fn reported_status(&self) -> Option<u16> {
        self.0.reported_status
    }

    /// The text for this occurrence.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The URI reference of this occurrence.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.0.instance.as_deref()
    }

    /// What a caller may do about it.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// How long to wait first, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the request took effect.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The id of the request that failed.
    #[must_use]
    pub fn request_id(&self) -> Option<&RequestId> {
        self.0.request_id.as_ref()
    }

    /// Everything that is wrong with the request.
    #[must_use]
    pub fn errors(&self) -> &[Violation] {
        &self.0.errors
    }

    /// Whose code it is, where that was said.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.0.domain.as_deref()
    }

    /// The headers that go with the status; `Retry-After` is not among them.
    pub fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.headers.iter().map(|(name, value)| (name, value))
    }

    /// The extension members.
    #[must_use]
    pub fn extensions(&self) -> &Map<String, Value> {
        &self.0.extensions
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doc = &self.0;
        f.debug_struct("Problem")
            .field("category", &doc.category)
            .field("code", &doc.code)
            .field("status", &doc.status)
            .field("detail", &doc.detail)
            .field("retry", &doc.retry)
            .field("outcome", &doc.outcome)
            .field("request_id", &doc.request_id)
            .field("errors", &doc.errors)
            .field("extensions", &doc.extensions)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.status, self.0.code)?;
        match &self.0.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

fn cut(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.len() <= DETAIL_BYTES_MAX {
        return text;
    }
    let mut short = text.into_owned();
    short.truncate(short.floor_char_boundary(DETAIL_BYTES_MAX));
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_result_stays_small() {
        assert_eq!(size_of::<Problem>(), 8);
        assert_eq!(size_of::<Result<(), Problem>>(), 8);
    }

    #[test]
    fn type_is_base_and_code_unless_given() {
        let problem = Problem::new(Category::NotFound, "order_not_found");
        assert_eq!(problem.type_uri(), "/problems/order_not_found");
        assert_eq!(
            problem.clone().with_default_type_base("/help/").type_uri(),
            "/help/order_not_found"
        );
        let own = problem.clone().with_type_base("https://e.example/");
        assert_eq!(
            own.with_default_type_base("/help/").type_uri(),
            "https://e.example/order_not_found"
        );
        assert_eq!(problem.with_type("about:blank").type_uri(), "about:blank");
        assert_eq!(
            Problem::new(Category::NotFound, "a b/ü").type_uri(),
            "/problems/a%20b%2F%C3%BC"
        );
    }

    #[test]
    fn a_known_wait_turns_backoff_into_after_and_leaves_other_advice() {
        let wait = Duration::from_secs(2);
        let retry = |category| Problem::new(category, "x").with_retry_after(wait).retry();
        assert_eq!(retry(Category::Unavailable), Retry::After(wait));
        assert_eq!(retry(Category::Aborted), Retry::Transaction);
    }

    #[test]
    fn detail_and_violations_are_bounded() {
        let problem = Problem::new(Category::InvalidArgument, "x")
            .with_detail("ä".repeat(DETAIL_BYTES_MAX))
            .with_violations((0..1000).map(|i| Violation::body(format!("/{i}"), "bad")));
        assert_eq!(problem.detail().unwrap().len(), DETAIL_BYTES_MAX);
        assert_eq!(problem.errors().len(), VIOLATIONS_MAX);
    }
}
