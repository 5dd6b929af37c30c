//! Answers at rest: what the table holds of an answer's headers and body, or of a job's result, when that must not be plain
//! bytes. What the steps of a lease return is kept plain until its answer is recorded, and so is what it works on where a
//! completer may take it up: the request's body, or the job's input.

#[cfg(feature = "aead")]
mod aead;

use http::{HeaderMap, HeaderName, HeaderValue};

#[cfg(feature = "aead")]
pub use self::aead::Aead;
use crate::{Error, ErrorKind, Key, Recorded, Scope};

/// Seals answers before they are stored and opens them before they are replayed: encryption, in most services.
///
/// Status, scope (hashed), key and fingerprint (hashed) stay readable, because the database compares them. The id of the
/// key that sealed is stored beside each answer, so keys can be rotated: seal with the new one, open with both, drop the
/// old one after the retention. Answers that were stored before there was a codec are still replayed.
///
/// Feature `aead` has one: `Aead`, AES-256-GCM-SIV.
pub trait Codec: Send + Sync + 'static {
    /// The key that [`seal`](Self::seal) uses now.
    fn key_id(&self) -> u32;

    /// Seals `plain` for the place that `bound_to` names: it must not open in another place.
    ///
    /// # Errors
    /// Whatever keeps it from sealing; the request is rolled back and answered with a 500.
    fn seal(&self, bound_to: &[u8], plain: &[u8]) -> Result<Vec<u8>, CodecError>;

    /// Opens what the key `key_id` sealed.
    ///
    /// # Errors
    /// An unknown key, or bytes that were changed or moved; a 500 that says that the answer cannot be read.
    fn open(&self, key_id: u32, bound_to: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CodecError>;
}

/// An answer that cannot be sealed or opened. It says no more: what is wrong with a key is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer cannot be sealed or opened")]
pub struct CodecError;

/// The only header of a sealed record, with the key's id: to the stores it is a record like any other.
const SEALED: HeaderName = HeaderName::from_static("mainstay-sealed");

/// What to store in the place of `recorded`.
pub(crate) fn seal(
    codec: Option<&dyn Codec>,
    scope: &Scope,
    key: &Key,
    recorded: Recorded,
) -> Result<Recorded, Error> {
    let Some(codec) = codec else {
        return Ok(recorded);
    };
    let corrupt = |error| Error::new(ErrorKind::Corrupt, error);
    let headers = recorded
        .encode_headers()
        .map_err(|error| Error::new(ErrorKind::Corrupt, error))?;
    let mut plain = Vec::with_capacity(4 + headers.len() + recorded.body.len());
    plain.extend_from_slice(&u32::try_from(headers.len()).unwrap_or(0).to_be_bytes());
    plain.extend_from_slice(&headers);
    plain.extend_from_slice(&recorded.body);
    let sealed = codec
        .seal(&place(scope, key, recorded.status), &plain)
        .map_err(corrupt)?;
    Ok(Recorded {
        status: recorded.status,
        headers: HeaderMap::from_iter([(SEALED, HeaderValue::from(codec.key_id()))]),
        body: sealed.into(),
    })
}

/// The answer that `stored` stands for.
pub(crate) fn open(
    codec: Option<&dyn Codec>,
    scope: &Scope,
    key: &Key,
    stored: Recorded,
) -> Result<Recorded, Error> {
    let Some(key_id) = stored.headers.get(SEALED) else {
        return Ok(stored);
    };
    let corrupt = || Error::new(ErrorKind::Corrupt, CodecError);
    let key_id = key_id.to_str().ok().and_then(|id| id.parse().ok());
    let (codec, key_id) = (codec.ok_or_else(corrupt)?, key_id.ok_or_else(corrupt)?);
    let plain = codec
        .open(key_id, &place(scope, key, stored.status), &stored.body)
        .map_err(|error| Error::new(ErrorKind::Corrupt, error))?;
    let (length, rest) = plain.split_first_chunk::<4>().ok_or_else(corrupt)?;
    let (headers, body) = rest
        .split_at_checked(u32::from_be_bytes(*length) as usize)
        .ok_or_else(corrupt)?;
    Recorded::decode(stored.status.into(), headers, body.to_vec())
        .map_err(|error| Error::new(ErrorKind::Corrupt, error))
}

/// Whose answer it is: a row that was moved to another key does not open.
fn place(scope: &Scope, key: &Key, status: u16) -> Vec<u8> {
    let key = key.as_bytes();
    let mut place = Vec::with_capacity(120 + key.len());
    place.extend_from_slice(b"mainstay answer 1\0");
    place.extend_from_slice(&status.to_be_bytes());
    place.extend_from_slice(scope.as_bytes());
    place.extend_from_slice(key);
    place
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Turns every bit, and remembers where: enough to see what is handed over.
    struct Not;

    impl Codec for Not {
        fn key_id(&self) -> u32 {
            7
        }

        fn seal(&self, bound_to: &[u8], plain: &[u8]) -> Result<Vec<u8>, CodecError> {
            let plain = plain.iter().map(|byte| !byte);
            Ok(bound_to.iter().copied().chain(plain).collect())
        }

        fn open(&self, key_id: u32, bound_to: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CodecError> {
            let sealed = sealed.strip_prefix(bound_to).ok_or(CodecError)?;
            match key_id {
                7 => Ok(sealed.iter().map(|byte| !byte).collect()),
                _ => Err(CodecError),
            }
        }
    }

    fn seal(codec: Option<&dyn Codec>, key: &str, recorded: Recorded) -> Result<Recorded, Error> {
        super::seal(
            codec,
            &Scope::new("t", "", "o"),
            &Key::new(key).unwrap(),
            recorded,
        )
    }

    fn open(codec: Option<&dyn Codec>, key: &str, stored: Recorded) -> Result<Recorded, Error> {
        super::open(
            codec,
            &Scope::new("t", "", "o"),
            &Key::new(key).unwrap(),
            stored,
        )
    }

    fn answer() -> Recorded {
        Recorded {
            status: 201,
            headers: HeaderMap::from_iter([(
                http::header::ETAG,
                HeaderValue::from_static("\"1\""),
            )]),
            body: Bytes::from_static(b"secret"),
        }
    }

    #[test]
    fn what_is_stored_is_sealed_and_opens_in_its_place_only() {
        let stored = seal(Some(&Not), "k", answer()).unwrap();
        assert_eq!((stored.status, stored.headers.len()), (201, 1));
        assert_eq!(stored.headers[SEALED], "7");
        assert!(!stored.body.windows(6).any(|bytes| bytes == b"secret"));
        let opened = open(Some(&Not), "k", stored.clone()).unwrap();
        assert_eq!(opened, answer());
        assert!(open(Some(&Not), "other", stored.clone()).is_err());
        let moved = Recorded {
            status: 200,
            ..stored.clone()
        };
        assert!(open(Some(&Not), "k", moved).is_err());
        assert!(open(None, "k", stored.clone()).is_err(), "no codec");
        for id in ["8", "-1", "x"] {
            let mut other = stored.clone();
            other.headers.insert(SEALED, HeaderValue::from_static(id));
            assert!(open(Some(&Not), "k", other).is_err(), "{id}");
        }
    }

    #[test]
    fn what_was_stored_before_there_was_a_codec_is_still_read() {
        let opened = open(Some(&Not), "k", answer()).unwrap();
        assert_eq!(opened, answer());
        assert_eq!(seal(None, "k", answer()).unwrap(), answer());
    }
}
