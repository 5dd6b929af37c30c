//! Webhooks: verify, then look whether it is known, then apply, in one transaction.
//!
//! Two ways of signing: Standard Webhooks ([`sign`] and [`Verifier`]) and Stripe's ([`StripeVerifier`]); [`Verify`] is for
//! others. All are pure: they take the time as an argument. [`Webhooks`] does the rest over a database.
//!
//! | delivery | answer | effect |
//! |---|---|---|
//! | new | 2xx | runs, and commits with the delivery's mark |
//! | applied before, however late it comes again | 2xx | none |
//! | being applied | 409 or 503 with `Retry-After`, never 2xx: the first may still fail | none |
//! | whose effect fails | the effect's own | rolled back with the mark: the next attempt runs |
//! | not signed, or outside the tolerance | 401, before anything is parsed | none |
//!
//! The tolerance does not limit how late a delivery may come again: each attempt is signed anew, for days. What does is how
//! long the inbox remembers, and that must be longer: see [`Webhooks::redelivers`].

mod error;
#[cfg(feature = "sqlx")]
mod receive;
mod secret;
mod signature;
mod stripe;
mod verifier;

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderMap;

pub use self::error::WebhookError;
#[cfg(feature = "sqlx")]
pub use self::receive::{Received, RetentionTooShort, Webhooks};
pub use self::secret::{BadSecret, Secret};
pub use self::signature::{SignError, WEBHOOK_ID_BYTES_MAX, sign};
pub use self::stripe::{STRIPE_REDELIVERS, StripeSecret, StripeVerifier};
pub use self::verifier::{TOLERANCE, Verifier};

/// A way of signing.
pub trait Verify: Sync {
    /// Whether `body` is what a sender signed, lately, and by which id it is known.
    ///
    /// # Errors
    /// [`WebhookError`]. Nothing of the body may be believed, or parsed, before its signature was found good.
    fn verify(
        &self,
        headers: &HeaderMap,
        body: Bytes,
        now: SystemTime,
    ) -> Result<Delivery, WebhookError>;
}

/// A delivery whose signature is good. Only now may its body be parsed.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The same on every attempt to deliver it.
    pub id: String,
    /// When this attempt was signed.
    pub timestamp: SystemTime,
    /// As it was signed.
    pub body: Bytes,
}

/// Without the body: what a sender writes is no business of a log's.
impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("id", &self.id)
            .field("timestamp", &self.timestamp)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}
