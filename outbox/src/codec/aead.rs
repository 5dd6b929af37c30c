//! AES-256-GCM-SIV (RFC 8452) with random nonces.

use std::fmt;

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Key, Nonce, Tag};
use rand::TryRng;
use rand::rngs::SysRng;

use super::{Seal, SealError};

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Seals payloads with AES-256-GCM-SIV: 28 bytes longer, unreadable, and bound to their event.
///
/// Nonces are random. Should two ever meet (one chance in 2⁴⁸ after 2²⁴ payloads under a key), the scheme is made for it: it
/// shows whether two payloads under one key are the same, and nothing else.
///
/// ```
/// use mainstay_outbox::codec::Aead;
/// # let (new, old) = ([1; 32], [2; 32]);
/// let seal = Aead::new(2, &new).and(1, &old); // seals with key 2, still opens what key 1 sealed
/// ```
#[derive(Clone)]
pub struct Aead {
    seals: (u32, Aes256GcmSiv),
    opens: Vec<(u32, Aes256GcmSiv)>,
}

impl Aead {
    /// Seals with this key of 32 random bytes. Its id is stored with each payload; never give it to another key.
    #[must_use]
    pub fn new(id: u32, key: &[u8; 32]) -> Self {
        Self {
            seals: (id, cipher(key)),
            opens: Vec::new(),
        }
    }

    /// Opens what this key has sealed, too.
    #[must_use]
    pub fn and(mut self, id: u32, key: &[u8; 32]) -> Self {
        self.opens.push((id, cipher(key)));
        self
    }
}

fn cipher(key: &[u8; 32]) -> Aes256GcmSiv {
    Aes256GcmSiv::new(&Key::<Aes256GcmSiv>::from(*key))
}

impl Seal for Aead {
    fn key_id(&self) -> u32 {
        self.seals.0
    }

    fn seal(&self, bound_to: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_BYTES];
        SysRng.try_fill_bytes(&mut nonce).map_err(|_| SealError)?;
        let mut sealed = Vec::with_capacity(NONCE_BYTES + plain.len() + TAG_BYTES);
        sealed.extend_from_slice(&nonce);
        let mut text = plain.to_vec();
        let tag = self
            .seals
            .1
            .encrypt_inout_detached(&Nonce::from(nonce), bound_to, text.as_mut_slice().into())
            .map_err(|_| SealError)?;
        sealed.append(&mut text);
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    fn open(&self, key_id: u32, bound_to: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (_, cipher) = std::iter::once(&self.seals)
            .chain(&self.opens)
            .find(|(id, _)| *id == key_id)
            .ok_or(SealError)?;
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealError)?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(SealError)?;
        let mut text = text.to_vec();
        cipher
            .decrypt_inout_detached(
                &Nonce::from(*nonce),
                bound_to,
                text.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .map_err(|_| SealError)?;
        Ok(text)
    }
}

impl fmt::Debug for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aead")
            .field("key_id", &self.seals.0)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_what_it_sealed_and_nothing_else() {
        let seal = Aead::new(1, &[7; 32]);
        let sealed = seal.seal(b"here", b"secret").unwrap();
        assert_eq!(sealed.len(), 6 + NONCE_BYTES + TAG_BYTES);
        assert_eq!(seal.open(1, b"here", &sealed).unwrap(), b"secret");
        assert_eq!(seal.open(1, b"there", &sealed), Err(SealError));
        assert_eq!(seal.open(2, b"here", &sealed), Err(SealError));
        for cut in 0..sealed.len() {
            assert_eq!(
                seal.open(1, b"here", &sealed[..cut]),
                Err(SealError),
                "{cut}"
            );
        }
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(seal.open(1, b"here", &flipped), Err(SealError), "bit {bit}");
        }
        assert_ne!(
            seal.seal(b"here", b"secret").unwrap(),
            sealed,
            "fresh nonces"
        );
    }

    #[test]
    fn an_old_key_opens_until_it_is_dropped() {
        let (old, new) = ([1; 32], [2; 32]);
        let sealed = Aead::new(1, &old).seal(b"", b"x").unwrap();
        assert_eq!(
            Aead::new(2, &new)
                .and(1, &old)
                .open(1, b"", &sealed)
                .unwrap(),
            b"x"
        );
        assert_eq!(Aead::new(2, &new).open(1, b"", &sealed), Err(SealError));
        assert_eq!(Aead::new(2, &new).and(1, &old).key_id(), 2);
    }

    #[test]
    fn debug_shows_nothing_of_the_key() {
        assert_eq!(
            format!("{:?}", Aead::new(3, &[9; 32])),
            "Aead { key_id: 3, .. }"
        );
    }
}
