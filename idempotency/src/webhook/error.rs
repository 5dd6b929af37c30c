//! Why a delivery is not acknowledged, and the problem that says so.

use std::time::Duration;

use mainstay_errors::{Category, Descriptor, Fault};

/// Why a delivery is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// 401 `webhook_headers_invalid`: a header that the signature needs is missing, repeated or malformed, so nobody is known
    /// to have signed this.
    #[error("a webhook header is missing, repeated or malformed")]
    Headers,
    /// 401 `webhook_signature_invalid`: no signature is by a secret of ours over this id, time and body.
    #[error("no signature fits")]
    Signature,
    /// 400 `webhook_body_invalid`: well signed, but without an id to know it by.
    #[error("the signed body has no id")]
    Body,
    /// 401 `webhook_timestamp_out_of_tolerance`: signed too long ago, or later than now.
    #[error("signed outside the tolerance")]
    Timestamp,
    /// 409 `webhook_in_flight`, with `Retry-After: 1`: the same delivery is being applied.
    #[error("the same delivery is being applied")]
    InFlight,
    /// 504 `webhook_timeout`: the effect took too long and was rolled back; deliver again.
    #[error("the effect took too long")]
    TimedOut,
    /// 503 `webhook_outcome_unknown`: the commit went unanswered; deliver again.
    #[error("the commit's outcome is unknown")]
    OutcomeUnknown,
}

const HEADERS: Descriptor = Descriptor::new("webhook_headers_invalid", Category::Unauthenticated)
    .with_title("Webhook headers invalid")
    .with_docs("The headers of the signature are needed, each once, as the sender's scheme writes them: `webhook-id`, `webhook-timestamp` and `webhook-signature`, or `stripe-signature`.")
    .with_owner("mainstay_idempotency");
const SIGNATURE_INVALID: Descriptor =
    Descriptor::new("webhook_signature_invalid", Category::Unauthenticated)
        .with_title("Webhook signature invalid")
        .with_docs("No signature is by a known secret over this id, timestamp and body.")
        .with_owner("mainstay_idempotency");
const BODY_INVALID: Descriptor = Descriptor::new("webhook_body_invalid", Category::InvalidArgument)
    .with_title("Webhook body invalid")
    .with_docs("The body is signed, but it has no `id` by which it could be told from another. Nothing was done.")
    .with_owner("mainstay_idempotency");
const OUT_OF_TOLERANCE: Descriptor = Descriptor::new(
    "webhook_timestamp_out_of_tolerance",
    Category::Unauthenticated,
)
.with_title("Webhook timestamp out of tolerance")
.with_docs(
    "The delivery was signed too long ago, or by a clock that runs ahead. Sign each attempt anew.",
)
.with_owner("mainstay_idempotency");
const IN_FLIGHT: Descriptor = Descriptor::new("webhook_in_flight", Category::Aborted)
    .with_title("Webhook in flight")
    .with_docs("The same delivery is being applied. Deliver it again to learn how that ended.")
    .with_retry(mainstay_errors::Retry::After(Duration::from_secs(1)))
    .with_owner("mainstay_idempotency");
const TIMED_OUT: Descriptor = Descriptor::new("webhook_timeout", Category::DeadlineExceeded)
    .with_title("The delivery took too long")
    .with_docs("Applying the delivery was stopped and rolled back. Deliver it again.")
    .with_retry(mainstay_errors::Retry::Backoff)
    .with_outcome(mainstay_errors::Outcome::NotApplied)
    .with_owner("mainstay_idempotency");
const OUTCOME_UNKNOWN: Descriptor = Descriptor::new("webhook_outcome_unknown", Category::Unavailable)
    .with_title("Outcome unknown")
    .with_docs("The commit was sent and its answer was lost. Deliver again under the same id: it is applied once.")
    .with_retry(mainstay_errors::Retry::SameKeyOnly)
    .with_outcome(mainstay_errors::Outcome::Unknown)
    .with_owner("mainstay_idempotency");

impl Fault for WebhookError {
    const CATALOG: &'static [Descriptor] = &[
        HEADERS,
        SIGNATURE_INVALID,
        BODY_INVALID,
        OUT_OF_TOLERANCE,
        IN_FLIGHT,
        TIMED_OUT,
        OUTCOME_UNKNOWN,
    ];

    fn descriptor(&self) -> &'static Descriptor {
        match self {
            Self::Headers => &HEADERS,
            Self::Signature => &SIGNATURE_INVALID,
            Self::Body => &BODY_INVALID,
            Self::Timestamp => &OUT_OF_TOLERANCE,
            Self::InFlight => &IN_FLIGHT,
            Self::TimedOut => &TIMED_OUT,
            Self::OutcomeUnknown => &OUTCOME_UNKNOWN,
        }
    }
}
