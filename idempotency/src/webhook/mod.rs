//! Webhooks as the Standard Webhooks specification signs them: verify, then look whether it is known, then apply, in
//! one transaction.
//!
//! [`sign`] and [`Verifier`] are pure: they take the time as an argument. [`Webhooks`] does the rest over a database.

#[cfg(feature = "sqlx")]
mod receive;
mod secret;
mod signature;

#[cfg(feature = "sqlx")]
pub use self::receive::{Received, Webhooks};
pub use self::secret::{BadSecret, Secret};
pub use self::signature::{
    Delivery, SignError, TOLERANCE, Verifier, WEBHOOK_ID_BYTES_MAX, WebhookError, sign,
};
