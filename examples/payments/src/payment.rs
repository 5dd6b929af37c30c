//! What a payment is, and what may be asked for.

use mainstay::{
    errors::{Fault, Violation, Violations, db::DbFault},
    outbox::{EncodeError, EnqueueError},
    pagination::Keyset,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// A payment as it is stored and shown.
///
/// Lists come newest first; the id decides between payments of one microsecond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Keyset, ToSchema)]
#[keyset(
    name = "payments.newest",
    order = "created_at desc, id desc",
    unique = "id"
)]
pub struct Payment {
    /// Made by the service; time-ordered.
    pub id: Uuid,
    /// Whose it is. Never shown: a caller sees only its own.
    #[serde(skip)]
    pub tenant: String,
    /// In minor units of the currency.
    #[schema(minimum = 1, maximum = 100_000_000, example = 1250)]
    pub amount: i64,
    /// Three capital letters, as in ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    pub currency: String,
    /// The caller's own name for it.
    #[schema(min_length = 1, max_length = 140, example = "order-17")]
    pub reference: String,
    /// How far it is.
    pub status: Status,
    /// RFC 3339, to the microsecond.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// How far a payment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Asked for; the provider has not answered.
    Pending,
    /// The provider has moved the money.
    Settled,
}

impl Status {
    /// As it stands in the database and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Settled => "settled",
        }
    }

    /// The reverse of [`as_str`](Self::as_str).
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Settled]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// What a caller sends.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPayment {
    /// In minor units of the currency.
    #[schema(minimum = 1, maximum = 100_000_000, example = 1250)]
    pub amount: i64,
    /// Three capital letters, as in ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    pub currency: String,
    /// The caller's own name for it.
    #[schema(min_length = 1, max_length = 140, example = "order-17")]
    pub reference: String,
}

impl NewPayment {
    /// The largest amount, in minor units.
    pub const AMOUNT_MAX: i64 = 100_000_000;
    /// The longest reference, in characters.
    pub const REFERENCE_CHARS_MAX: usize = 140;

    /// Checks every field, so that a caller hears of all its mistakes at once.
    ///
    /// # Errors
    /// One violation for each field that is wrong.
    pub fn validate(self) -> Result<Self, Violations> {
        let mut wrong = Violations::new();
        if !(1..=Self::AMOUNT_MAX).contains(&self.amount) {
            wrong.push(violation(
                "/amount",
                "out_of_range",
                "must be from 1 to 100000000 minor units",
            ));
        }
        if !is_currency(&self.currency) {
            wrong.push(violation(
                "/currency",
                "malformed",
                "must be the three capital letters of an ISO 4217 currency",
            ));
        }
        if !(1..=Self::REFERENCE_CHARS_MAX).contains(&self.reference.chars().count()) {
            wrong.push(violation(
                "/reference",
                "length",
                "must have from 1 to 140 characters",
            ));
        } else if self.reference.contains('\0') {
            wrong.push(violation(
                "/reference",
                "malformed",
                "must not contain the NUL character",
            ));
        }
        wrong.into_result().map(|()| self)
    }

    /// The payment this becomes.
    pub fn accept(self, tenant: &str, now: OffsetDateTime) -> Payment {
        // Databases keep microseconds: what is answered now must equal what is read later.
        let created_at = now
            .replace_nanosecond(now.microsecond() * 1000)
            .unwrap_or(now);
        Payment {
            id: Uuid::now_v7(),
            tenant: tenant.to_owned(),
            amount: self.amount,
            currency: self.currency,
            reference: self.reference,
            status: Status::Pending,
            created_at,
        }
    }
}

/// Whether the text has the form of an ISO 4217 code. Which codes are in use is the provider's business.
pub fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn violation(pointer: &'static str, code: &'static str, detail: &'static str) -> Violation {
    Violation::body(pointer, code).with_detail(detail)
}

/// Why a payment was not accepted or an event of it not written, each with a code that a caller may rely on.
#[derive(Debug, thiserror::Error, Fault)]
#[fault(domain = "payments.example.com")]
pub enum PaymentError {
    /// The body is well-formed but some of its fields are not; `errors` names each.
    #[error(transparent)]
    #[fault(delegate)]
    Invalid(#[from] Violations),
    /// The database could not do its part.
    #[error(transparent)]
    #[fault(delegate)]
    Database(#[from] DbFault),
    /// The service could not put an event into words; nothing of the request took effect.
    #[error("the event could not be written")]
    #[fault(internal, outcome = not_applied)]
    EventRefused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why there is no payment to look at or to settle.
#[derive(Debug, thiserror::Error, Fault)]
#[fault(domain = "payments.example.com")]
pub enum LookupError {
    /// No payment of yours has this id.
    #[error("no payment has this id")]
    #[fault(not_found, public)]
    PaymentNotFound,
    /// The database could not do its part.
    #[error(transparent)]
    #[fault(delegate)]
    Database(#[from] DbFault),
}

impl From<EnqueueError> for PaymentError {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::Database(error) => Self::Database(error.into()),
            other => Self::EventRefused(other.into()),
        }
    }
}

impl From<EncodeError> for PaymentError {
    fn from(error: EncodeError) -> Self {
        Self::EventRefused(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(amount: i64, currency: &str, reference: &str) -> NewPayment {
        NewPayment {
            amount,
            currency: currency.to_owned(),
            reference: reference.to_owned(),
        }
    }

    #[test]
    fn the_bounds_themselves_are_good() {
        for payment in [
            asked(1, "EUR", "a"),
            asked(100_000_000, "JPY", &"ü".repeat(140)),
        ] {
            assert!(payment.validate().is_ok());
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let wrong = asked(0, "eur", "").validate().unwrap_err();
        let pointers: Vec<_> = wrong
            .as_slice()
            .iter()
            .map(|violation| violation.pointer().to_owned())
            .collect();
        assert_eq!(pointers, ["/amount", "/currency", "/reference"]);
    }

    #[test]
    fn a_field_past_its_bound_is_refused() {
        for payment in [
            asked(-1, "EUR", "a"),
            asked(100_000_001, "EUR", "a"),
            asked(1, "EURO", "a"),
            asked(1, "E1R", "a"),
            asked(1, "ÄÖÜ", "a"),
            asked(1, "EUR", &"a".repeat(141)),
            asked(1, "EUR", "a\0b"),
        ] {
            assert_eq!(
                payment.clone().validate().unwrap_err().len(),
                1,
                "{payment:?}"
            );
        }
    }
}
