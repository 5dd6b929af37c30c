//! Problem types that IANA keeps for everybody, for [`Descriptor::with_type`](crate::Descriptor::with_type).
//!
//! A client that knows them from another service knows what they mean here. The code stays the application's
//! own; only `type` is shared. They resolve at IANA, so the registry's pages need not.
//!
//! ```
//! use mainstay_errors::{Category, Descriptor, iana};
//!
//! const PLAN_EXHAUSTED: Descriptor = Descriptor::new("plan_exhausted", Category::ResourceExhausted)
//!     .with_type(iana::QUOTA_EXCEEDED);
//! assert_eq!(PLAN_EXHAUSTED.to_problem().type_uri(), iana::QUOTA_EXCEEDED);
//! ```

/// Nothing more than the status says (RFC 9457 §4.2.1). The title is then the status's own phrase.
pub const ABOUT_BLANK: &str = "about:blank";

/// The caller used up a quota: 429, and `Retry-After` says when the next begins. Asked for by the draft of the
/// `RateLimit` header fields (draft-ietf-httpapi-ratelimit-headers).
pub const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// The service can take less than usual for a while, whoever asks: 503. Asked for by the same draft.
pub const TEMPORARY_REDUCED_CAPACITY: &str =
    "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// The requests look like abuse and are refused for it: 429. Asked for by the same draft.
pub const ABNORMAL_USAGE_DETECTED: &str =
    "https://iana.org/assignments/http-problem-types#abnormal-usage-detected";
