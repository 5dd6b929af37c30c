//! Whose key it is: the same text sent by two tenants names two keys.

use std::fmt;

use sha2::{Digest, Sha256};

/// Tenant, principal and operation, hashed to 32 bytes with the length of every part in front of it.
///
/// The lengths are what keeps (`a:b`, `c`) apart from (`a`, `b:c`): parts joined by a separator are one scope of two
/// as soon as a part may hold the separator. The hash keeps names out of the table and the index narrow. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope([u8; 32]);

impl Scope {
    /// `tenant` is the customer or account, `principal` who acts for it (`""` when that makes no difference),
    /// `operation` a constant naming what is done, such as `"payments.create"`.
    ///
    /// ```
    /// use mainstay_idempotency::Scope;
    /// assert_ne!(Scope::new("a:b", "c", "pay"), Scope::new("a", "b:c", "pay"));
    /// ```
    pub fn new(
        tenant: impl AsRef<[u8]>,
        principal: impl AsRef<[u8]>,
        operation: impl AsRef<[u8]>,
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"mainstay scope 1\0");
        for part in [tenant.as_ref(), principal.as_ref(), operation.as_ref()] {
            update_with_length(&mut hash, part);
        }
        Self(hash.finalize().into())
    }

    /// Reads what [`as_bytes`](Self::as_bytes) wrote.
    #[cfg(feature = "sqlx")]
    #[cfg_attr(
        not(any(feature = "postgres", feature = "mysql", feature = "sqlite")),
        allow(dead_code, reason = "the databases read it back")
    )]
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 32 bytes kept in the table.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scope(")?;
        for byte in self.0.iter().take(6) {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("..)")
    }
}

/// Eight bytes of length, then the part: no two lists of parts feed the hash the same bytes.
pub(crate) fn update_with_length(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_be_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_never_run_into_each_other() {
        let scopes = [
            ("a:b", "c", "o"),
            ("a", "b:c", "o"),
            ("a\0", "b", "o"),
            ("a", "\0b", "o"),
            ("", "ab", "o"),
            ("ab", "", "o"),
            ("", "", "o"),
            ("", "", ""),
            ("a", "b", "o"),
            ("A", "b", "o"),
            ("a ", "b", "o"),
            ("a", "b", "p"),
        ];
        let all: std::collections::HashSet<_> =
            scopes.iter().map(|(t, p, o)| Scope::new(t, p, o)).collect();
        assert_eq!(all.len(), scopes.len());
    }

    #[test]
    fn the_bytes_in_the_table_do_not_change() {
        let hex: String = Scope::new("acme", "alice", "payments.create")
            .as_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            hex,
            "2c5a70781cb414205a3f1bb92866ff4f7eb2d5221cec063aeb6275f3560c03f3"
        );
    }
}
