//! A cursor as it travels: opaque text, and what can be wrong with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A position in an order, as text for a URL or a JSON document.
///
/// Whatever a client sends becomes a `Cursor`; only [`CursorCodec`](crate::CursorCodec) says whether it is
/// one of ours. It names values, not a row, so it stays good when the row it was made from is deleted, and
/// it has no direction: one cursor serves `after` and `before`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "utoipa", schema(value_type = String))]
pub struct Cursor(String);

impl Cursor {
    /// Takes text from a client, unchecked.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Cursor {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Cursor {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Why a cursor was refused. Always the caller's mistake, so always a 400; never an empty page and never
/// the first page again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CursorError {
    /// Longer than [`CURSOR_CHARS_MAX`](crate::CURSOR_CHARS_MAX); refused before it is decoded.
    #[error("the cursor is longer than {} characters", crate::CURSOR_CHARS_MAX)]
    TooLong,
    /// Not canonical base64url without padding, or cut short, or (when unsigned) not a position in this order.
    #[error("this is not a cursor")]
    Malformed,
    /// Made by another version of the format.
    #[error("the cursor was made by another version")]
    WrongVersion,
    /// Signed with a key that is not in the ring (any more).
    #[error("the cursor was signed with a key that is not in use")]
    UnknownKey,
    /// Not signed, or the signature does not match: altered, or made elsewhere.
    #[error("the cursor's signature does not match")]
    BadSignature,
    /// Made for another list: other order, filter or scope.
    #[error("the cursor belongs to another list, filter or order")]
    WrongQuery,
    /// Past its time to live.
    #[error("the cursor has expired")]
    Expired,
}

impl CursorError {
    /// One of each.
    #[cfg(all(feature = "axum", feature = "sqlx"))]
    pub(crate) const ALL: [Self; 7] = [
        Self::TooLong,
        Self::Malformed,
        Self::WrongVersion,
        Self::UnknownKey,
        Self::BadSignature,
        Self::WrongQuery,
        Self::Expired,
    ];

    /// A stable machine code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "cursor_too_long",
            Self::Malformed => "cursor_malformed",
            Self::WrongVersion => "cursor_wrong_version",
            Self::UnknownKey => "cursor_unknown_key",
            Self::BadSignature => "cursor_bad_signature",
            Self::WrongQuery => "cursor_wrong_query",
            Self::Expired => "cursor_expired",
        }
    }
}
