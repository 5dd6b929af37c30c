//! Topic patterns: a topic, a prefix such as `hooks.*`, or `*` for all. Pure.

use std::fmt;

/// A pattern that topics fit or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// `None` when it is neither a topic, nor a prefix that ends in `*`, nor `*`.
    pub(crate) fn parse(pattern: &str) -> Option<Self> {
        let stem = pattern.strip_suffix('*').unwrap_or(pattern);
        let meant = !pattern.is_empty() && !stem.contains('*');
        meant.then(|| Self(pattern.to_owned()))
    }

    pub(crate) fn fits(&self, topic: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(stem) => topic.starts_with(stem),
            None => self.0 == topic,
        }
    }

    /// Of several that fit the greatest is the most specific: a topic before any prefix, a long one before a short.
    pub(crate) fn rank(&self) -> (bool, usize) {
        (!self.0.ends_with('*'), self.0.len())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_topics_fit_what_they_say() {
        for (pattern, fits, not) in [
            ("*", "anything", None),
            ("hooks.*", "hooks.a.b", Some("hooks")),
            ("hooks", "hooks", Some("hooks.a")),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert!(parsed.fits(fits), "{pattern} {fits}");
            assert!(not.is_none_or(|topic| !parsed.fits(topic)), "{pattern}");
        }
    }

    #[test]
    fn patterns_that_cannot_be_meant_are_none() {
        for pattern in ["", "a*b", "**", "*a"] {
            assert_eq!(Pattern::parse(pattern), None, "{pattern}");
        }
    }
}
