//! The two members that let a caller act on a failure: may I try again ([`Retry`]), and did it
//! happen ([`Outcome`]). Both travel on the wire, and mainstay's own client obeys them.

use std::fmt;
use std::time::Duration;

/// What a caller may do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Retry {
    /// The same request will fail the same way.
    Never,
    /// The same request may work later: back off with jitter.
    Backoff,
    /// As [`Backoff`](Self::Backoff), but not before this long from now.
    After(Duration),
    /// Only under the idempotency key of the first attempt: the work may have been done.
    SameKeyOnly,
    /// The whole unit of work may be run again from its first read; a single statement may not.
    Transaction,
    /// With fresh credentials.
    AfterAuth,
    /// Once somebody has changed the state that stands in the way.
    AfterStateChange,
}

impl Retry {
    /// The word on the wire. The time of [`After`](Self::After) travels beside it, as `retry_after`
    /// in the document and as the `Retry-After` header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Backoff => "backoff",
            Self::After(_) => "after",
            Self::SameKeyOnly => "same_key_only",
            Self::Transaction => "transaction",
            Self::AfterAuth => "after_auth",
            Self::AfterStateChange => "after_state_change",
        }
    }

    /// Reads the word on the wire; `None` for a word this version does not know.
    /// `after` without a time is [`Backoff`](Self::Backoff).
    #[must_use]
    pub fn from_wire(word: &str, retry_after: Option<Duration>) -> Option<Self> {
        Some(match word {
            "never" => Self::Never,
            "backoff" => Self::Backoff,
            "after" => retry_after.map_or(Self::Backoff, Self::After),
            "same_key_only" => Self::SameKeyOnly,
            "transaction" => Self::Transaction,
            "after_auth" => Self::AfterAuth,
            "after_state_change" => Self::AfterStateChange,
            _ => return None,
        })
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the request took effect.
///
/// The honest third answer matters most: an error at commit, a cut connection or a timeout leaves
/// the outcome [`Unknown`](Self::Unknown), and reporting it as a failure invites a second effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing of the request took effect.
    NotApplied,
    /// The request took effect, though the answer is an error.
    Applied,
    /// It may or may not have taken effect: read back, or try again under the same key.
    Unknown,
}

impl Outcome {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotApplied => "not_applied",
            Self::Applied => "applied",
            Self::Unknown => "unknown",
        }
    }

    /// Reads the word on the wire; `None` for a word this version does not know.
    #[must_use]
    pub fn from_wire(word: &str) -> Option<Self> {
        Some(match word {
            "not_applied" => Self::NotApplied,
            "applied" => Self::Applied,
            "unknown" => Self::Unknown,
            _ => return None,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_on_the_wire_round_trip() {
        let second = Duration::from_secs(1);
        for retry in [
            Retry::Never,
            Retry::Backoff,
            Retry::After(second),
            Retry::SameKeyOnly,
            Retry::Transaction,
            Retry::AfterAuth,
            Retry::AfterStateChange,
        ] {
            assert_eq!(Retry::from_wire(retry.as_str(), Some(second)), Some(retry));
        }
        for outcome in [Outcome::NotApplied, Outcome::Applied, Outcome::Unknown] {
            assert_eq!(Outcome::from_wire(outcome.as_str()), Some(outcome));
        }
    }

    #[test]
    fn unknown_words_are_not_guessed() {
        assert_eq!(Retry::from_wire("Never", None), None);
        assert_eq!(Outcome::from_wire(""), None);
        assert_eq!(Retry::from_wire("after", None), Some(Retry::Backoff));
    }
}
