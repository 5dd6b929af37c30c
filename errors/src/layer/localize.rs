//! Texts in the reader's language, which the application has and this crate does not.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderValue};

use super::future::unwound;
use super::headers::add_to_list;
use crate::Problem;

/// Gives a document its texts in a language that the client reads.
///
/// All it sees is what the client gets anyway: code, category, extension members, the violations
/// with their codes and parameters. A text made of these cannot tell a secret. A function is one:
///
/// ```
/// use mainstay_errors::{Localized, Problem, ProblemLayer, preferred_language};
///
/// fn texts(problem: &Problem, accept_language: &str) -> Option<Localized> {
///     let language = preferred_language(accept_language, &["en", "de"])?;
///     let mut texts = match (problem.code(), language) {
///         ("validation_failed", "de") => Localized::new("de").title("Eingabe ungültig"),
///         _ => return None, // as it is
///     };
///     for (at, violation) in problem.errors().iter().enumerate() {
///         let min = violation.params().find(|(name, _)| *name == "min");
///         if let ("too_small", Some((_, min))) = (violation.code(), min) {
///             texts = texts.violation(at, format!("mindestens {min}"));
///         }
///     }
///     Some(texts)
/// }
/// let layer = ProblemLayer::default().localize(texts);
/// ```
pub trait Localize: Send + Sync + 'static {
    /// The texts for this problem, or nothing to leave those it has.
    ///
    /// `accept_language` is the first such header of the request as it came, empty when there was none; how it
    /// is weighed is up to the application ([`preferred_language`](crate::preferred_language) is
    /// one way). Called on the failure path, on the runtime's thread: look texts up, do not fetch them. A panic
    /// leaves the texts as they were.
    fn localize(&self, problem: &Problem, accept_language: &str) -> Option<Localized>;
}

impl<F> Localize for F
where
    F: Fn(&Problem, &str) -> Option<Localized> + Send + Sync + 'static,
{
    fn localize(&self, problem: &Problem, accept_language: &str) -> Option<Localized> {
        self(problem, accept_language)
    }
}

/// The texts of one document in one language. What is not given stays as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Localized {
    language: Cow<'static, str>,
    title: Option<Cow<'static, str>>,
    detail: Option<Cow<'static, str>>,
    violations: Vec<(usize, Cow<'static, str>)>,
}

impl Localized {
    /// Texts in the language of this BCP 47 tag (`de-CH`), which becomes `Content-Language`.
    #[must_use]
    pub fn new(language: impl Into<Cow<'static, str>>) -> Self {
        Self {
            language: language.into(),
            title: None,
            detail: None,
            violations: Vec::new(),
        }
    }

    /// The title: the same for every occurrence of a code, but for the language (RFC 9457 §3.1.3).
    #[must_use]
    pub fn title(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.title = Some(text.into());
        self
    }

    /// The text for this occurrence.
    #[must_use]
    pub fn detail(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(text.into());
        self
    }

    /// The text of the violation at this place of [`Problem::errors`], counted from 0; for a place there is
    /// none at, nothing.
    #[must_use]
    pub fn violation(mut self, at: usize, text: impl Into<Cow<'static, str>>) -> Self {
        self.violations.push((at, text.into()));
        self
    }

    fn apply(self, mut problem: Problem) -> Problem {
        if let Some(title) = self.title {
            problem = problem.with_title(title);
        }
        if let Some(detail) = self.detail {
            problem = problem.with_detail(detail);
        }
        problem.with_violation_details(self.violations)
    }
}

/// Puts the texts into the problem and says in the headers what they hang on.
pub(super) fn localized(
    localize: &dyn Localize,
    problem: Problem,
    accept_language: Option<&HeaderValue>,
    headers: &mut HeaderMap,
) -> Problem {
    // Even where the texts stay: with another language asked for, the answer might have been another.
    add_to_list(headers, &header::VARY, &["Accept-Language"], true);
    let asked = accept_language.and_then(|value| value.to_str().ok());
    let texts = unwound(|| localize.localize(&problem, asked.unwrap_or_default()));
    let Ok(Some(texts)) = texts else {
        return problem;
    };
    if let Ok(language) = HeaderValue::from_str(&texts.language) {
        headers.insert(header::CONTENT_LANGUAGE, language);
    }
    texts.apply(problem)
}
