//! Cursor bytes: how keys become a cursor and how a cursor is believed.
//!
//! Layout, then base64url without padding:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version 1 in the high four bits; flags in the low four: 1 signed, 2 expires |
//! | 1 | key id, if signed |
//! | 8 | fingerprint of order and binding |
//! | 4 | expiry in Unix seconds, big endian, if it expires |
//! | n | per column a tag and the value, big endian; text and bytes with a 2-byte length |
//! | 16 | HMAC-SHA256 over all of the above, cut to 128 bits, if signed |
//!
//! A timestamp and a UUID make 70 characters signed, 75 with an expiry. There is one text per cursor:
//! other spellings of the same bytes are refused. The only bytes looked at before the MAC is checked (in
//! constant time) are the first two, which name the version and the key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;
use uuid::Uuid;

use crate::cursor::{Cursor, CursorError};
use crate::decimal;
use crate::fingerprint::Fingerprint;
use crate::key::Key;
use crate::key_ring::KeyRing;
use crate::keyset::KeysetDef;

/// The longest cursor accepted or made, in characters: a URL's parameter must stay reasonable, and whatever
/// is longer is not decoded at all.
pub const CURSOR_CHARS_MAX: usize = 1024;

/// [`CURSOR_CHARS_MAX`] characters of base64, in bytes.
const BYTES_MAX: usize = CURSOR_CHARS_MAX / 4 * 3;
const MAC_BYTES: usize = 16;
const VERSION: u8 = 1 << 4;
const VERSION_BITS: u8 = 0xf0;
const SIGNED: u8 = 1;
const EXPIRES: u8 = 2;

/// Makes cursors and checks them.
#[derive(Clone, Debug)]
pub struct CursorCodec {
    signing: Signing,
    ttl: Option<Duration>,
}

#[derive(Clone, Debug)]
enum Signing {
    HmacSha256(KeyRing),
    Unsigned,
}

impl CursorCodec {
    /// Cursors signed with HMAC-SHA256 under the ring's signing key: a client can neither make nor change one.
    #[must_use]
    pub const fn hmac_sha256(keys: KeyRing) -> Self {
        Self {
            signing: Signing::HmacSha256(keys),
            ttl: None,
        }
    }

    /// Cursors anybody can make. A client may then probe positions that it was never given (within
    /// whatever the query selects); nothing else is at stake, but sign if in doubt.
    #[must_use]
    pub const fn unsigned() -> Self {
        Self {
            signing: Signing::Unsigned,
            ttl: None,
        }
    }

    /// Refuses cursors older than this, up to a second late. Default: none; three days is a common choice, and
    /// the key ring's oldest key must live at least as long.
    ///
    /// With a time to live, cursors made without one are refused as expired.
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
        let mut out = Buffer::new();
        let expires = if self.ttl.is_some() { EXPIRES } else { 0 };
        match &self.signing {
            Signing::HmacSha256(ring) => {
                out.push(&[VERSION | SIGNED | expires, ring.signing_id()])?;
            }
            Signing::Unsigned => out.push(&[VERSION | expires])?,
        }
        out.push(&fingerprint.0)?;
        if let Some(ttl) = self.ttl {
            let at = expiry(now, ttl);
            out.push(&u32::try_from(at).unwrap_or(u32::MAX).to_be_bytes())?;
        }
        for key in keys {
            push_key(&mut out, key)?;
        }
        if let Signing::HmacSha256(ring) = &self.signing {
            let mut mac = ring.signing();
            mac.update(out.bytes());
            let tag: [u8; 32] = mac.finalize().into_bytes().into();
            let (tag, _) = tag
                .split_first_chunk::<MAC_BYTES>()
                .ok_or(CursorError::TooLong)?;
            out.push(tag)?;
        }
        Ok(Cursor::new(URL_SAFE_NO_PAD.encode(out.bytes())))
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
    ) -> Result<Vec<Key>, CursorError> {
        let text = cursor.as_str();
        if text.len() > CURSOR_CHARS_MAX {
            return Err(CursorError::TooLong);
        }
        let mut buffer = [0; BYTES_MAX];
        let len = URL_SAFE_NO_PAD
            .decode_slice(text, &mut buffer)
            .map_err(|_| CursorError::Malformed)?;
        let (head, mut rest) = self.verify(buffer.get(..len).unwrap_or_default())?;

        if head & !(VERSION_BITS | SIGNED | EXPIRES) != 0 {
            return Err(CursorError::Malformed);
        }
        if take::<8>(&mut rest)? != fingerprint.0 {
            return Err(CursorError::WrongQuery);
        }
        let expiry = if head & EXPIRES == 0 {
            None
        } else {
            Some(u32::from_be_bytes(take(&mut rest)?))
        };
        match expiry {
            Some(at) if unix_seconds(now) >= u64::from(at) => return Err(CursorError::Expired),
            None if self.ttl.is_some() => return Err(CursorError::Expired),
            Some(_) | None => {}
        }
        let mut keys = Vec::with_capacity(order.columns().count());
        for column in order.columns() {
            let key = take_key(&mut rest)?;
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

    /// Splits the bytes into the first byte and what is signed after the key id, once the MAC holds.
    fn verify<'b>(&self, bytes: &'b [u8]) -> Result<(u8, &'b [u8]), CursorError> {
        let (&head, rest) = bytes.split_first().ok_or(CursorError::Malformed)?;
        if head & VERSION_BITS != VERSION {
            return Err(CursorError::WrongVersion);
        }
        match (&self.signing, head & SIGNED != 0) {
            (Signing::Unsigned, false) => Ok((head, rest)),
            (Signing::Unsigned, true) => Err(CursorError::WrongVersion),
            (Signing::HmacSha256(_), false) => Err(CursorError::BadSignature),
            (Signing::HmacSha256(ring), true) => {
                let (&id, _) = rest.split_first().ok_or(CursorError::Malformed)?;
                let mut mac = ring.find(id).ok_or(CursorError::UnknownKey)?;
                let (signed, tag) = bytes
                    .split_last_chunk::<MAC_BYTES>()
                    .ok_or(CursorError::Malformed)?;
                mac.update(signed);
                mac.verify_truncated_left(tag)
                    .map_err(|_| CursorError::BadSignature)?;
                Ok((head, signed.get(2..).ok_or(CursorError::Malformed)?))
            }
        }
    }
}

/// Tags of key values; never reuse one.
mod tag {
    pub(super) const NULL: u8 = 0;
    pub(super) const FALSE: u8 = 1;
    pub(super) const TRUE: u8 = 2;
    pub(super) const I64: u8 = 3;
    pub(super) const F64: u8 = 4;
    pub(super) const TEXT: u8 = 5;
    pub(super) const BYTES: u8 = 6;
    pub(super) const UUID: u8 = 7;
    pub(super) const MICROS: u8 = 8;
    pub(super) const U64: u8 = 9;
    pub(super) const DECIMAL: u8 = 10;
    pub(super) const DATE: u8 = 11;
    pub(super) const TIME: u8 = 12;
}

fn push_key(out: &mut Buffer, key: &Key) -> Result<(), CursorError> {
    match key {
        Key::Null => out.push(&[tag::NULL]),
        Key::Bool(false) => out.push(&[tag::FALSE]),
        Key::Bool(true) => out.push(&[tag::TRUE]),
        Key::I64(value) => out.tagged(tag::I64, &value.to_be_bytes()),
        Key::F64Bits(bits) => out.tagged(tag::F64, &bits.to_be_bytes()),
        Key::Text(value) => out.sized(tag::TEXT, value.as_bytes()),
        Key::Bytes(value) => out.sized(tag::BYTES, value),
        Key::Uuid(value) => out.tagged(tag::UUID, value.as_bytes()),
        Key::Micros(value) => out.tagged(tag::MICROS, &value.to_be_bytes()),
        Key::U64(value) => out.tagged(tag::U64, &value.to_be_bytes()),
        Key::Decimal(value) => out.sized(tag::DECIMAL, value.as_bytes()),
        Key::Date(value) => out.tagged(tag::DATE, &value.to_be_bytes()),
        Key::Time(value) => out.tagged(tag::TIME, &value.to_be_bytes()),
    }
}

fn take_key(rest: &mut &[u8]) -> Result<Key, CursorError> {
    let [tag] = take(rest)?;
    Ok(match tag {
        tag::NULL => Key::Null,
        tag::FALSE => Key::Bool(false),
        tag::TRUE => Key::Bool(true),
        tag::I64 => Key::I64(i64::from_be_bytes(take(rest)?)),
        tag::F64 => Key::F64Bits(u64::from_be_bytes(take(rest)?)),
        tag::TEXT => Key::Text(take_text(rest)?.to_owned()),
        tag::BYTES => Key::Bytes(take_sized(rest)?.to_vec()),
        tag::UUID => Key::Uuid(Uuid::from_bytes(take(rest)?)),
        tag::MICROS => Key::Micros(i64::from_be_bytes(take(rest)?)),
        tag::U64 => Key::U64(u64::from_be_bytes(take(rest)?)),
        tag::DECIMAL => match take_text(rest)? {
            text if decimal::is_decimal(text) => Key::Decimal(text.to_owned()),
            _ => return Err(CursorError::Malformed),
        },
        tag::DATE => Key::Date(i32::from_be_bytes(take(rest)?)),
        tag::TIME => Key::Time(i64::from_be_bytes(take(rest)?)),
        _ => return Err(CursorError::Malformed),
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CursorError> {
    let (head, tail) = rest.split_first_chunk().ok_or(CursorError::Malformed)?;
    *rest = tail;
    Ok(*head)
}

fn take_sized<'b>(rest: &mut &'b [u8]) -> Result<&'b [u8], CursorError> {
    let len = u16::from_be_bytes(take(rest)?);
    let (head, tail) = rest
        .split_at_checked(usize::from(len))
        .ok_or(CursorError::Malformed)?;
    *rest = tail;
    Ok(head)
}

fn take_text<'b>(rest: &mut &'b [u8]) -> Result<&'b str, CursorError> {
    str::from_utf8(take_sized(rest)?).map_err(|_| CursorError::Malformed)
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

/// A cursor's bytes on the stack: no cursor is longer than [`BYTES_MAX`], so none needs the heap.
struct Buffer {
    bytes: [u8; BYTES_MAX],
    len: usize,
}

impl Buffer {
    const fn new() -> Self {
        Self {
            bytes: [0; BYTES_MAX],
            len: 0,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), CursorError> {
        let end = self.len + bytes.len();
        self.bytes
            .get_mut(self.len..end)
            .ok_or(CursorError::TooLong)?
            .copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) -> Result<(), CursorError> {
        self.push(&[tag])?;
        self.push(bytes)
    }

    fn sized(&mut self, tag: u8, bytes: &[u8]) -> Result<(), CursorError> {
        let len = u16::try_from(bytes.len()).map_err(|_| CursorError::TooLong)?;
        self.tagged(tag, &len.to_be_bytes())?;
        self.push(bytes)
    }
}
