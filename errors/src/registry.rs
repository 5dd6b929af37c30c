//! Every code a service can answer with, in one place: to refuse two meanings of one code, to export
//! `codes.json`, and to serve the pages `type` points at.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::INTERNAL;
use crate::problem::{DEFAULT_TYPE_BASE, type_of};
use crate::{Descriptor, Fault, Violations, http_codes};

/// The codes of a service, its type base with them.
///
/// ```
/// use mainstay_errors::{Registry, Violations};
///
/// let registry = Registry::new().with::<Violations>();
/// assert_eq!(registry.find("validation_failed").unwrap().status(), 422);
/// ```
#[derive(Debug, Clone)]
pub struct Registry {
    codes: BTreeMap<&'static str, Descriptor>,
    type_base: Cow<'static, str>,
}

/// Two errors claim one code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the code `{code}` belongs to both `{first}` and `{second}`: give one of them another code"
)]
pub struct CodeClash {
    /// The code.
    pub code: &'static str,
    /// The type that had it first.
    pub first: &'static str,
    /// The type that wants it too.
    pub second: &'static str,
}

impl Registry {
    /// The codes this crate itself answers with: plain HTTP failures, rejected extractors, violations.
    #[must_use]
    pub fn new() -> Self {
        let own = http_codes::CATALOG
            .iter()
            .chain(Violations::CATALOG)
            .chain([&INTERNAL]);
        Self {
            codes: own
                .map(|descriptor| (descriptor.code(), *descriptor))
                .collect(),
            type_base: Cow::Borrowed(DEFAULT_TYPE_BASE),
        }
    }

    /// Adds the codes of an error type, those of its delegates with them.
    ///
    /// # Panics
    /// When a code has another meaning already: at start, where it is seen, rather than on the wire,
    /// where it is not. [`try_with`](Self::try_with) returns the clash.
    #[must_use]
    #[expect(
        clippy::panic,
        reason = "a clash of codes is a bug in the program, found at its start"
    )]
    pub fn with<F: Fault>(self) -> Self {
        match self.try_with::<F>() {
            Ok(registry) => registry,
            Err(clash) => panic!("{clash}"),
        }
    }

    /// Adds the codes of an error type, those of its delegates with them.
    ///
    /// # Errors
    /// [`CodeClash`] when a code has another meaning already. The same code of the same type met again,
    /// through a delegating variant, is no clash.
    pub fn try_with<F: Fault>(mut self) -> Result<Self, CodeClash> {
        for descriptor in F::CATALOG {
            let code = descriptor.code();
            match self.codes.insert(code, *descriptor) {
                Some(before) if before != *descriptor => {
                    return Err(CodeClash {
                        code,
                        first: before.owner(),
                        second: descriptor.owner(),
                    });
                }
                _ => {}
            }
        }
        Ok(self)
    }

    /// Where `type` points: this, followed by the code. A path on the service (`/problems/`, the
    /// default) or an absolute URL; it should end in `/` or `#`.
    #[must_use]
    pub fn type_base(mut self, base: impl Into<Cow<'static, str>>) -> Self {
        self.type_base = base.into();
        self
    }

    /// The base in use.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.type_base
    }

    /// The facts about a code.
    #[must_use]
    pub fn find(&self, code: &str) -> Option<&Descriptor> {
        self.codes.get(code)
    }

    /// All codes, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Descriptor> {
        self.codes.values()
    }

    /// What is public about one code, as JSON.
    #[must_use]
    pub fn describe(&self, descriptor: &Descriptor) -> Value {
        let base = descriptor.type_base().unwrap_or(&self.type_base);
        let uri = descriptor
            .type_uri()
            .map_or_else(|| type_of(base, descriptor.code()), str::to_owned);
        json!({
            "code": descriptor.code(),
            "type": uri,
            "title": descriptor.title(),
            "status": descriptor.status(),
            "category": descriptor.category().as_str(),
            "retry": descriptor.retry().as_str(),
            "outcome": descriptor.outcome().as_str(),
            "docs": descriptor.docs(),
        })
    }

    /// All codes as the text of a `codes.json`, sorted and byte-stable, to be kept under version
    /// control: a change of a code is then a visible change.
    #[must_use]
    pub fn codes_json(&self) -> String {
        let codes: Vec<Value> = self
            .iter()
            .map(|descriptor| self.describe(descriptor))
            .collect();
        // Values made by `json!` cannot fail to print.
        let mut text = serde_json::to_string_pretty(&codes).unwrap_or_default();
        text.push('\n');
        text
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;

    #[derive(Debug, thiserror::Error)]
    #[error("another")]
    struct Another;

    impl Fault for Another {
        const CATALOG: &'static [Descriptor] =
            &[
                Descriptor::new("validation_failed", Category::InvalidArgument)
                    .with_owner("Another"),
            ];

        fn descriptor(&self) -> &'static Descriptor {
            &Self::CATALOG[0]
        }
    }

    #[test]
    fn a_second_meaning_of_a_code_is_refused() {
        let clash = Registry::new().try_with::<Another>().unwrap_err();
        assert_eq!(
            clash.to_string(),
            "the code `validation_failed` belongs to both `mainstay_errors` and `Another`: give one of them another code"
        );
    }

    #[test]
    fn the_same_code_met_twice_is_no_clash() {
        let registry = Registry::new().with::<Violations>().with::<Violations>();
        assert!(registry.find("validation_failed").is_some());
        assert!(registry.find("nonsense").is_none());
    }

    #[test]
    fn codes_json_is_stable() {
        insta::assert_snapshot!(
            "codes_json",
            Registry::new()
                .type_base("https://e.example/#")
                .codes_json()
        );
    }
}
