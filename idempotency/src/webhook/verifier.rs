//! What every way of verifying shares: secrets that overlap while one is replaced, and how old a signature may be.

use std::time::{Duration, SystemTime};

use super::signature::seconds;
use super::{Secret, WebhookError};

/// How far a delivery's signed time may be from now, either way, as the specification of Standard Webhooks suggests. It does
/// not limit how late a redelivery may come: each one is signed anew.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Checks deliveries against one secret, or several while one is being replaced: Standard Webhooks by a [`Secret`], Stripe's by
/// a [`StripeSecret`](super::StripeSecret).
#[derive(Debug, Clone)]
pub struct Verifier<S = Secret> {
    secrets: Vec<S>,
    tolerance: Duration,
}

impl<S> Verifier<S> {
    /// Accepts what this secret signed, within [`TOLERANCE`].
    #[must_use]
    pub fn new(secret: S) -> Self {
        Self {
            secrets: vec![secret],
            tolerance: TOLERANCE,
        }
    }

    /// Accepts what this secret signed, too: add the new one, let the sender change over, then drop the old one.
    #[must_use]
    pub fn or(mut self, secret: S) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Sets how far a signed time may be from now, either way.
    #[must_use]
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// First the signature, then the time: an unsigned time is nobody's word.
    pub(super) fn check(
        &self,
        signed_by: impl Fn(&S) -> bool,
        seconds_signed: u64,
        now: SystemTime,
    ) -> Result<(), WebhookError> {
        if !self.secrets.iter().any(signed_by) {
            return Err(WebhookError::Signature);
        }
        if seconds(now).abs_diff(seconds_signed) > self.tolerance.as_secs() {
            return Err(WebhookError::Timestamp);
        }
        Ok(())
    }
}
