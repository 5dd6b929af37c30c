//! Cursor bytes: how keys become a cursor and how a cursor is believed.
//!
//! Layout, then base64url without padding:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version 1 in the high four bits; flags in the low four: 1 signed, 2 expires, 4 sealed |
//! | 1 | key id, if signed or sealed |
//! | 12 | nonce, if sealed; the fields from here to the tag are then encrypted |
//! | 8 | fingerprint of order and binding |
//! | 4 | expiry in Unix seconds, big endian, if it expires |
//! | n | per column a tag and the value, big endian; text, bytes and decimals with a 2-byte length |
//! | 16 | HMAC-SHA256 over all of the above, cut to 128 bits, if signed; the tag of AES-256-GCM-SIV, if sealed |
//!
//! A timestamp and a UUID make 70 characters signed, 75 with an expiry, 86 sealed. There is one text per cursor:
//! other spellings of the same bytes are refused. The only bytes looked at before MAC or tag is checked (in
//! constant time) are the first two, which name the version and the key.

mod base64url;
mod buffer;
#[cfg(feature = "aead")]
mod seal;
mod value;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::Mac;

use self::buffer::{Buffer, take};
use crate::cursor::{Cursor, CursorError};
use crate::fingerprint::Fingerprint;
use crate::key::{Key, Keys};
use crate::key_ring::KeyRing;
use crate::keyset::KeysetDef;

/// The longest cursor accepted or made, in characters: a URL's parameter must stay reasonable, and whatever
/// is longer is not decoded at all.
pub const CURSOR_CHARS_MAX: usize = 1024;

/// [`CURSOR_CHARS_MAX`] characters of base64, in bytes.
const BYTES_MAX: usize = CURSOR_CHARS_MAX / 4 * 3;
/// Enough for a few numbers, times and UUIDs.
const SHORT: usize = 66;
const MAC_BYTES: usize = 16;
const VERSION: u8 = 1 << 4;
const VERSION_BITS: u8 = 0xf0;
const SIGNED: u8 = 1;
const EXPIRES: u8 = 2;
const SEALED: u8 = 4;

/// Makes cursors and checks them.
#[derive(Clone, Debug)]
pub struct CursorCodec {
    protection: Protection,
    ttl: Option<Duration>,
}

#[derive(Clone, Debug)]
enum Protection {
    HmacSha256(KeyRing),
    #[cfg(feature = "aead")]
    Aead(seal::Sealer),
    Unsigned,
}

impl CursorCodec {
    /// Cursors signed with HMAC-SHA256 under the ring's signing key: a client can neither make nor change one.
    /// It can read the sort key of a row that it was given; seal cursors ([`aead`](Self::aead)) if it must not.
    #[must_use]
    pub const fn hmac_sha256(keys: KeyRing) -> Self {
        Self::protected(Protection::HmacSha256(keys))
    }

    /// Cursors encrypted and signed with AES-256-GCM-SIV under the ring's signing key: a client learns how long a
    /// sort key is, and whether two cursors are the same, but nothing of what it says.
    ///
    /// Twelve bytes longer than a signed cursor. Ciphers and MACs have keys of their own, derived from the ring's
    /// secrets, so one ring may serve both codecs. A cursor that is only signed is refused, and the other way round.
    #[cfg(feature = "aead")]
    #[cfg_attr(docsrs, doc(cfg(feature = "aead")))]
    #[must_use]
    pub fn aead(keys: &KeyRing) -> Self {
        Self::protected(Protection::Aead(seal::Sealer::new(keys)))
    }

    /// Cursors anybody can make. A client may then probe positions that it was never given (within
    /// whatever the query selects); nothing else is at stake, but sign if in doubt.
    #[must_use]
    pub const fn unsigned() -> Self {
        Self::protected(Protection::Unsigned)
    }

    const fn protected(protection: Protection) -> Self {
        Self {
            protection,
            ttl: None,
        }
    }

    /// Refuses cursors older than this, up to a second late. Default: none; three days is a common choice, and
    /// the key ring's oldest key must live at least as long.
    ///
    /// With a time to live, cursors made without one are refused as expired. The expiry stands in the cursor: a shorter
    /// time to live does not reach those that are out.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Makes the cursor of a row's keys.
    ///
    /// # Errors
    /// [`CursorError::TooLong`] if the keys do not fit into [`CURSOR_CHARS_MAX`] characters.
    pub fn encode(
        &self,
        keys: &[Key],
        fingerprint: Fingerprint,
        now: SystemTime,
    ) -> Result<Cursor, CursorError> {
        // Most cursors are short; a buffer costs what it is long.
        match self.write::<SHORT>(keys, fingerprint, now) {
            Err(CursorError::TooLong) => self.write::<BYTES_MAX>(keys, fingerprint, now),
            made => made,
        }
    }

    fn write<const N: usize>(
        &self,
        keys: &[Key],
        fingerprint: Fingerprint,
        now: SystemTime,
    ) -> Result<Cursor, CursorError> {
        let mut out = Buffer::<N>::new();
        let head = VERSION | if self.ttl.is_some() { EXPIRES } else { 0 };
        match &self.protection {
            Protection::Unsigned => out.push(&[head])?,
            Protection::HmacSha256(ring) => out.push(&[head | SIGNED, ring.signing_id()])?,
            #[cfg(feature = "aead")]
            Protection::Aead(sealer) => {
                out.push(&[head | SEALED, sealer.id()])?;
                out.push(&[0; seal::NONCE_BYTES])?;
            }
        }
        out.push(&fingerprint.0)?;
        if let Some(ttl) = self.ttl {
            let at = expiry(now, ttl);
            out.push(&u32::try_from(at).unwrap_or(u32::MAX).to_be_bytes())?;
        }
        for key in keys {
            value::push(&mut out, key)?;
        }
        match &self.protection {
            Protection::Unsigned => {}
            Protection::HmacSha256(ring) => {
                let mut mac = ring.signing();
                mac.update(out.bytes());
                let tag: [u8; 32] = mac.finalize().into_bytes().into();
                let (tag, _) = tag
                    .split_first_chunk::<MAC_BYTES>()
                    .ok_or(CursorError::TooLong)?;
                out.push(tag)?;
            }
            #[cfg(feature = "aead")]
            Protection::Aead(sealer) => {
                let (head, nonce, text) = sealed_parts(out.bytes_mut())?;
                let (made, tag) = sealer.seal(head, text)?;
                *nonce = made;
                out.push(&tag)?;
            }
        }
        Ok(Cursor::new(base64url::encode(out.all(), out.bytes().len())))
    }

    /// Reads a cursor's keys: one per column of `order`, each of its column's kind.
    ///
    /// # Errors
    /// Every [`CursorError`]. The length is checked before the text is decoded, and the MAC before the
    /// bytes are parsed.
    pub fn decode(
        &self,
        cursor: &Cursor,
        order: &KeysetDef,
        fingerprint: Fingerprint,
        now: SystemTime,
    ) -> Result<Keys, CursorError> {
        let text = cursor.as_str();
        if text.len() > CURSOR_CHARS_MAX {
            return Err(CursorError::TooLong);
        }
        if text.len() <= SHORT / 6 * 8 {
            self.read(text, &mut [0; SHORT], order, fingerprint, now)
        } else {
            self.read(text, &mut [0; BYTES_MAX], order, fingerprint, now)
        }
    }

    fn read(
        &self,
        text: &str,
        buffer: &mut [u8],
        order: &KeysetDef,
        fingerprint: Fingerprint,
        now: SystemTime,
    ) -> Result<Keys, CursorError> {
        let bytes = base64url::decode(text, buffer).ok_or(CursorError::Malformed)?;
        let (flags, mut rest) = self.open(bytes)?;
        if flags & !EXPIRES != 0 {
            return Err(CursorError::Malformed);
        }
        if take::<8>(&mut rest)? != fingerprint.0 {
            return Err(CursorError::WrongQuery);
        }
        let expiry = if flags & EXPIRES == 0 {
            None
        } else {
            Some(u32::from_be_bytes(take(&mut rest)?))
        };
        match expiry {
            Some(at) if unix_seconds(now) >= u64::from(at) => return Err(CursorError::Expired),
            None if self.ttl.is_some() => return Err(CursorError::Expired),
            Some(_) | None => {}
        }
        let mut keys = Keys::new();
        for column in order.columns() {
            let key = value::take_key(&mut rest)?;
            if !key.fits(column.kind()) || (key.is_null() && column.nulls().is_none()) {
                return Err(CursorError::Malformed);
            }
            keys.push(key);
        }
        if rest.is_empty() {
            Ok(keys)
        } else {
            Err(CursorError::Malformed)
        }
    }

    /// Splits the bytes into the flags that are left to read, and what follows the head, once the cursor is believed.
    fn open<'b>(&self, bytes: &'b mut [u8]) -> Result<(u8, &'b [u8]), CursorError> {
        let head = *bytes.first().ok_or(CursorError::Malformed)?;
        if head & VERSION_BITS != VERSION {
            return Err(CursorError::WrongVersion);
        }
        match (&self.protection, head & (SIGNED | SEALED)) {
            (Protection::Unsigned, 0) => {
                Ok((head & !VERSION_BITS, bytes.get(1..).unwrap_or_default()))
            }
            (Protection::Unsigned, _) => Err(CursorError::WrongVersion),
            (Protection::HmacSha256(ring), SIGNED) => {
                let id = *bytes.get(1).ok_or(CursorError::Malformed)?;
                let mut mac = ring.find(id).ok_or(CursorError::UnknownKey)?;
                let (signed, tag) = bytes
                    .split_last_chunk::<MAC_BYTES>()
                    .ok_or(CursorError::Malformed)?;
                mac.update(signed);
                mac.verify_truncated_left(tag)
                    .map_err(|_| CursorError::BadSignature)?;
                let rest = signed.get(2..).ok_or(CursorError::Malformed)?;
                Ok((head & !VERSION_BITS & !SIGNED, rest))
            }
            #[cfg(feature = "aead")]
            (Protection::Aead(sealer), SEALED) => {
                let (sealed, tag) = bytes
                    .split_last_chunk_mut::<{ seal::TAG_BYTES }>()
                    .ok_or(CursorError::Malformed)?;
                let (head, nonce, text) = sealed_parts(sealed)?;
                sealer.open(head, *nonce, text, *tag)?;
                Ok((head[0] & !VERSION_BITS & !SEALED, text))
            }
            (_, _) => Err(CursorError::BadSignature),
        }
    }
}

/// Head, nonce and what is encrypted.
#[cfg(feature = "aead")]
type Sealed<'b> = (&'b [u8; 2], &'b mut [u8; seal::NONCE_BYTES], &'b mut [u8]);

#[cfg(feature = "aead")]
fn sealed_parts(bytes: &mut [u8]) -> Result<Sealed<'_>, CursorError> {
    let (head, rest) = bytes
        .split_first_chunk_mut()
        .ok_or(CursorError::Malformed)?;
    let (nonce, text) = rest.split_first_chunk_mut().ok_or(CursorError::Malformed)?;
    Ok((head, nonce, text))
}

/// The first whole second at which the time to live has passed: rounded up, so that one below a second is
/// not over at once.
fn expiry(now: SystemTime, ttl: Duration) -> u64 {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = now.saturating_add(ttl);
    at.as_secs()
        .saturating_add(u64::from(at.subsec_nanos() > 0))
}

fn unix_seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
