//! Cursors that nobody can read: AES-256-GCM-SIV (RFC 8452).
//!
//! The nonce is not random but computed: 96 bits of HMAC-SHA256 over what is sealed. So equal
//! positions have equal cursors, as signed ones do (an answer's `ETag` stays what it was), nothing needs a source of
//! random numbers, and different cursors have different nonces but for one pair in 2⁴⁸. Where two should meet, the
//! scheme is made for it: a repeated nonce shows whether two cursors are the same one, and nothing else.

use std::fmt;

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Key, Nonce, Tag};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::cursor::CursorError;
use crate::key_ring::KeyRing;

pub(super) const NONCE_BYTES: usize = 12;
pub(super) const TAG_BYTES: usize = 16;

/// The ciphers of a ring's keys, the first of which seals.
#[derive(Clone)]
pub(super) struct Sealer(Vec<Cipher>);

#[derive(Clone)]
struct Cipher {
    id: u8,
    cipher: Aes256GcmSiv,
    nonce: Hmac<Sha256>,
}

impl Sealer {
    pub(super) fn new(ring: &KeyRing) -> Self {
        // What the same key signs begins with a version, never with these letters.
        let purpose = |mac: &Hmac<Sha256>, name: &[u8]| {
            let mut mac = mac.clone();
            mac.update(name);
            mac
        };
        let cipher = |(id, mac): (u8, &Hmac<Sha256>)| Cipher {
            id,
            cipher: Aes256GcmSiv::new(&key_of(purpose(mac, b"mainstay.cursor.1.seal"))),
            nonce: purpose(mac, b"mainstay.cursor.1.nonce"),
        };
        Self(ring.all().map(cipher).collect())
    }

    /// The key that seals.
    pub(super) fn id(&self) -> u8 {
        self.0.first().map_or(0, |cipher| cipher.id)
    }

    /// Encrypts `text` where it stands and returns nonce and tag; `head` is protected, but readable.
    pub(super) fn seal(
        &self,
        head: &[u8; 2],
        text: &mut [u8],
    ) -> Result<([u8; NONCE_BYTES], [u8; TAG_BYTES]), CursorError> {
        let Cipher { cipher, nonce, .. } = self.0.first().ok_or(CursorError::UnknownKey)?;
        let mut mac = nonce.clone();
        mac.update(text);
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        let nonce = *digest.first_chunk().ok_or(CursorError::Malformed)?;
        // Fails only beyond 64 GiB.
        let tag = cipher
            .encrypt_inout_detached(&Nonce::from(nonce), head, text.into())
            .map_err(|_| CursorError::TooLong)?;
        Ok((nonce, tag.into()))
    }

    /// Checks the tag, in constant time, and decrypts `text` where it stands.
    pub(super) fn open(
        &self,
        head: &[u8; 2],
        nonce: [u8; NONCE_BYTES],
        text: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> Result<(), CursorError> {
        let [_, id] = *head;
        let found = self.0.iter().find(|cipher| cipher.id == id);
        found
            .ok_or(CursorError::UnknownKey)?
            .cipher
            .decrypt_inout_detached(&Nonce::from(nonce), head, text.into(), &Tag::from(tag))
            .map_err(|_| CursorError::BadSignature)
    }
}

fn key_of(mac: Hmac<Sha256>) -> Key<Aes256GcmSiv> {
    let bytes: [u8; 32] = mac.finalize().into_bytes().into();
    bytes.into()
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|c| c.id)).finish()
    }
}
