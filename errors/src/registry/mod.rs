//! Every code a service can answer with, in one place: to refuse two meanings of one code, to export
//! `codes.json` and keep it a contract, and to serve the pages `type` points at.

mod assert;
mod change;
mod codes;

use std::borrow::Cow;
use std::collections::BTreeMap;

pub use change::{CodeChange, CodeChanges, CodeFact};
pub use codes::{CODES_BYTES_MAX, CodesUnreadable};

use crate::error::INTERNAL;
use crate::problem::{DEFAULT_TYPE_BASE, type_of};
use crate::violations::VALIDATION_FAILED;
use crate::{Descriptor, Fault, Violations, http_codes};

/// The codes of a service, and what is said the same way of all of them: where `type` points, the domain, the
/// status of a failed validation.
///
/// Build it in one function and use that everywhere: for the layer, the pages, OpenAPI and the test that guards
/// `codes.json`. Then they cannot disagree.
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
    domain: Option<Cow<'static, str>>,
    validation_status: u16,
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
            domain: None,
            validation_status: VALIDATION_FAILED.status(),
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

    /// Whose codes these are, such as `orders.example.com`, where a code does not say it itself. On gRPC it is the
    /// `domain` of `google.rpc.ErrorInfo`, and with the code the identity of an error.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<Cow<'static, str>>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// The status of `validation_failed`: 422, which is the default and says that the request was well-formed, or
    /// 400, for houses whose guidelines know no 422. The code, not the status, is what clients match on.
    ///
    /// The layer that is made of this registry answers with it, and pages, `codes.json` and
    /// [`openapi_responses`](Self::openapi_responses) say it. Codes of your own have their status in their derive.
    ///
    /// # Panics
    /// When it is neither: at start, where it is seen.
    #[must_use]
    pub fn validation_status(mut self, status: u16) -> Self {
        assert!(
            matches!(status, 400 | 422),
            "a failed validation is answered with 400 or 422, not with {status}"
        );
        self.validation_status = status;
        self
    }

    /// The status that a code is answered with here.
    pub(crate) fn status_for(&self, descriptor: &Descriptor) -> u16 {
        if *descriptor == VALIDATION_FAILED {
            self.validation_status
        } else {
            descriptor.status()
        }
    }

    /// The domain of a code, its own before everybody's.
    pub(crate) fn domain_of(&self, descriptor: &Descriptor) -> Option<&str> {
        descriptor.domain().or(self.domain.as_deref())
    }

    /// The whole `type` of a code.
    pub(crate) fn type_for(&self, descriptor: &Descriptor) -> String {
        let base = descriptor.type_base().unwrap_or(&self.type_base);
        descriptor
            .type_uri()
            .map_or_else(|| type_of(base, descriptor.code()), str::to_owned)
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
    fn a_validation_fails_with_400_or_422_and_nothing_else() {
        let registry = Registry::new().validation_status(400);
        assert_eq!(registry.status_for(&VALIDATION_FAILED), 400);
        assert_eq!(registry.describe(&VALIDATION_FAILED)["status"], 400);
        // Only that code: a bare 422 of somebody else stays one.
        let bare = registry.find("unprocessable_content").unwrap();
        assert_eq!(registry.status_for(bare), 422);
        for status in [0, 200, 409, 500, 65535] {
            std::panic::catch_unwind(|| Registry::new().validation_status(status)).unwrap_err();
        }
    }

    #[test]
    fn a_code_has_its_own_domain_or_that_of_all() {
        let owned = Descriptor::new("x_y", Category::Internal).with_domain("own.example");
        let plain = Descriptor::new("x_z", Category::Internal);
        let registry = Registry::new();
        assert_eq!(registry.domain_of(&plain), None);
        assert!(registry.describe(&plain).get("domain").is_none());
        let registry = registry.domain("all.example");
        assert_eq!(registry.domain_of(&plain), Some("all.example"));
        assert_eq!(registry.describe(&owned)["domain"], "own.example");
    }
}
