//! The secrets that sign cursors: one signs, all verify, so that a key can be replaced without refusing
//! the cursors that are out.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// The fewest bytes a secret may have: HMAC-SHA256's own strength.
pub const SECRET_BYTES_MIN: usize = 32;

/// Signing secrets by key id, the first of which signs.
///
/// To rotate: `accept` the new key everywhere, then make it the signing one and `accept` the old one, and
/// drop the old one when its last cursor has expired.
#[derive(Clone)]
pub struct KeyRing {
    signing: Entry,
    accepted: Vec<Entry>,
}

/// A key's prepared state: cloning it costs no key schedule and no allocation.
#[derive(Clone)]
struct Entry {
    id: u8,
    mac: Hmac<Sha256>,
}

impl KeyRing {
    /// A ring with one secret, which signs. The id travels in every cursor and names the secret.
    ///
    /// The secret must be random, at least [`SECRET_BYTES_MIN`] bytes, and the same on every instance of
    /// the service. It is used only to derive a key for cursors, so it may serve other purposes too.
    ///
    /// # Errors
    /// [`KeyRingError::TooShort`].
    pub fn new(id: u8, secret: impl AsRef<[u8]>) -> Result<Self, KeyRingError> {
        Ok(Self {
            signing: Entry::derive(id, secret.as_ref())?,
            accepted: Vec::new(),
        })
    }

    /// Also accepts cursors signed with this secret.
    ///
    /// # Errors
    /// [`KeyRingError::TooShort`], [`KeyRingError::DuplicateId`].
    pub fn accept(mut self, id: u8, secret: impl AsRef<[u8]>) -> Result<Self, KeyRingError> {
        if self.find(id).is_some() {
            return Err(KeyRingError::DuplicateId(id));
        }
        self.accepted.push(Entry::derive(id, secret.as_ref())?);
        Ok(self)
    }

    pub(crate) fn signing_id(&self) -> u8 {
        self.signing.id
    }

    pub(crate) fn signing(&self) -> Hmac<Sha256> {
        self.signing.mac.clone()
    }

    pub(crate) fn find(&self, id: u8) -> Option<Hmac<Sha256>> {
        let (_, mac) = self.all().find(|(known, _)| *known == id)?;
        Some(mac.clone())
    }

    /// Every key, the signing one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u8, &Hmac<Sha256>)> {
        std::iter::once(&self.signing)
            .chain(&self.accepted)
            .map(|entry| (entry.id, &entry.mac))
    }
}

impl Entry {
    /// Derives the cursor key from the secret, so that no other use of the secret yields a valid MAC.
    fn derive(id: u8, secret: &[u8]) -> Result<Self, KeyRingError> {
        let short = || KeyRingError::TooShort {
            bytes: secret.len(),
        };
        if secret.len() < SECRET_BYTES_MIN {
            return Err(short());
        }
        let mut derive = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| short())?;
        derive.update(b"mainstay.cursor.1");
        let key = derive.finalize().into_bytes();
        Ok(Self {
            id,
            mac: Hmac::new_from_slice(&key).map_err(|_| short())?,
        })
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accepted: Vec<u8> = self.accepted.iter().map(|e| e.id).collect();
        f.debug_struct("KeyRing")
            .field("signing", &self.signing.id)
            .field("accepted", &accepted)
            .finish_non_exhaustive()
    }
}

/// A secret that cannot join the ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// Fewer than [`SECRET_BYTES_MIN`] bytes.
    #[error("a cursor secret has {bytes} bytes; it needs at least {SECRET_BYTES_MIN}")]
    TooShort {
        /// How many it has.
        bytes: usize,
    },
    /// Two secrets under one id.
    #[error("key id {0} is already in the ring")]
    DuplicateId(u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_secrets_and_repeated_ids_are_refused() {
        assert_eq!(
            KeyRing::new(1, [7; 31]).unwrap_err(),
            KeyRingError::TooShort { bytes: 31 }
        );
        let ring = KeyRing::new(1, [7; 32]).unwrap();
        assert_eq!(
            ring.clone().accept(1, [8; 32]).unwrap_err(),
            KeyRingError::DuplicateId(1)
        );
        assert_eq!(
            ring.accept(2, []).unwrap_err(),
            KeyRingError::TooShort { bytes: 0 }
        );
    }

    #[test]
    fn debug_shows_ids_and_no_secret() {
        let ring = KeyRing::new(1, [b'S'; 32])
            .unwrap()
            .accept(2, [b'T'; 32])
            .unwrap();
        assert_eq!(
            format!("{ring:?}"),
            "KeyRing { signing: 1, accepted: [2], .. }"
        );
    }
}
