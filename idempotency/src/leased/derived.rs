//! The keys that steps send downstream.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::scope::update_with_length;
use crate::{Key, Scope};

/// The idempotency key of one step, to be sent to the remote system that the step calls: the same for every attempt,
/// another for every step, key and scope.
///
/// Its text is a UUID of version 8, which services take that want a UUID. It tells nobody the key it is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DerivedKey(uuid::Uuid);

/// The key that `step` of the work under `key` in `scope` sends downstream.
///
/// ```
/// use mainstay_idempotency::{Key, Scope, derived_key};
/// let (scope, key) = (Scope::new("acme", "alice", "payments.create"), Key::new("8e03978e").unwrap());
/// assert_eq!(derived_key(&scope, &key, "charge").to_string(), "fa27b3be-dbda-8d1e-b62f-37b201ec2266");
/// ```
pub fn derived_key(scope: &Scope, key: &Key, step: &str) -> DerivedKey {
    let mut hash = Sha256::new();
    hash.update(b"mainstay derived 1\0");
    for part in [scope.as_bytes(), key.as_bytes(), step.as_bytes()] {
        update_with_length(&mut hash, part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let bytes = digest.first_chunk::<16>().copied().unwrap_or_default();
    let id = uuid::Builder::from_bytes(bytes)
        .with_version(uuid::Version::Custom)
        .with_variant(uuid::Variant::RFC4122)
        .into_uuid();
    DerivedKey(id)
}

impl fmt::Display for DerivedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_step_of_each_key_of_each_scope_has_its_own() {
        let mut all = HashSet::new();
        for tenant in ["a", "ab"] {
            for key in ["k", "ks"] {
                for step in ["s", "ss", "t"] {
                    let scope = Scope::new(tenant, "", "o");
                    all.insert(derived_key(&scope, &Key::new(key).unwrap(), step));
                }
            }
        }
        assert_eq!(all.len(), 12);
    }
}
