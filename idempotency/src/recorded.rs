//! The answer that is kept and given again: status, chosen headers, body.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// One recorded response. The headers are those of the allow-list only.
#[derive(Clone, PartialEq, Eq)]
pub struct Recorded {
    /// HTTP status.
    pub status: u16,
    /// Replayed headers, in their order, repeated names included.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Most bytes the kept headers may take, names and values together.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

const VERSION: u8 = 1;

impl Recorded {
    /// Headers as bytes: a version, then per header a 16-bit length and the name, a 16-bit length and the value.
    ///
    /// # Errors
    /// [`RecordError::HeadersTooLarge`] over [`HEADER_BYTES_MAX`].
    pub fn encode_headers(&self) -> Result<Vec<u8>, RecordError> {
        if !self.headers_fit() {
            return Err(RecordError::HeadersTooLarge);
        }
        let mut bytes = vec![VERSION];
        for (name, value) in &self.headers {
            for part in [name.as_str().as_bytes(), value.as_bytes()] {
                let length = u16::try_from(part.len()).map_err(|_| RecordError::HeadersTooLarge)?;
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(part);
            }
        }
        Ok(bytes)
    }

    /// Whether the headers stay within [`HEADER_BYTES_MAX`], with what their encoding adds.
    pub(crate) fn headers_fit(&self) -> bool {
        let encoded = self
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4);
        encoded.sum::<usize>() < HEADER_BYTES_MAX // the version takes a byte
    }

    /// Puts a record together from its columns.
    ///
    /// # Errors
    /// [`RecordError::Corrupt`] when the columns were not written by [`encode_headers`](Self::encode_headers).
    pub fn decode(status: i64, headers: &[u8], body: Vec<u8>) -> Result<Self, RecordError> {
        let status = u16::try_from(status)
            .ok()
            .filter(|status| (100..1000).contains(status))
            .ok_or(RecordError::Corrupt)?;
        let [VERSION, rest @ ..] = headers else {
            return Err(RecordError::Corrupt);
        };
        let mut rest = rest;
        let mut headers = HeaderMap::new();
        while !rest.is_empty() {
            let name =
                HeaderName::from_bytes(part(&mut rest)?).map_err(|_| RecordError::Corrupt)?;
            let value =
                HeaderValue::from_bytes(part(&mut rest)?).map_err(|_| RecordError::Corrupt)?;
            headers.append(name, value);
        }
        Ok(Self {
            status,
            headers,
            body: body.into(),
        })
    }
}

/// Without what it says: it may be anybody's business but the log's.
impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded")
            .field("status", &self.status)
            .field("headers", &self.headers.len())
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}

fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], RecordError> {
    let (length, after) = rest.split_first_chunk::<2>().ok_or(RecordError::Corrupt)?;
    let (part, after) = after
        .split_at_checked(usize::from(u16::from_be_bytes(*length)))
        .ok_or(RecordError::Corrupt)?;
    *rest = after;
    Ok(part)
}

/// Why a response cannot be kept, or a kept one cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Over [`HEADER_BYTES_MAX`].
    #[error("the headers to keep are larger than 16 KiB")]
    HeadersTooLarge,
    /// The row was not written by this crate, or by a later version of it.
    #[error("the recorded response cannot be read")]
    Corrupt,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> Recorded {
        let mut headers = HeaderMap::new();
        headers.insert("location", HeaderValue::from_static("/v1/payments/1"));
        headers.append("link", HeaderValue::from_static("<a>"));
        headers.append("link", HeaderValue::from_bytes(b"<\xff>").unwrap());
        Recorded {
            status: 201,
            headers,
            body: Bytes::from_static(b"\0\xff{}"),
        }
    }

    #[test]
    fn a_record_comes_back_byte_for_byte() {
        let record = recorded();
        let headers = record.encode_headers().unwrap();
        assert_eq!(
            Recorded::decode(201, &headers, record.body.to_vec()).unwrap(),
            record
        );
    }

    #[test]
    fn nothing_of_it_reaches_a_log() {
        assert_eq!(
            format!("{:?}", recorded()),
            "Recorded { status: 201, headers: 3, body: 4 bytes }"
        );
    }

    #[test]
    fn the_bytes_in_the_table_do_not_change() {
        assert_eq!(
            recorded().encode_headers().unwrap(),
            b"\x01\x00\x08location\x00\x0e/v1/payments/1\x00\x04link\x00\x03<a>\x00\x04link\x00\x03<\xff>"
        );
    }

    #[test]
    fn damaged_columns_are_an_error_never_a_panic() {
        let good = recorded().encode_headers().unwrap();
        for cut in 0..good.len() {
            let read = Recorded::decode(201, &good[..cut], Vec::new());
            assert!(
                cut == 1 || read.is_err() || read.unwrap().headers.len() < 3,
                "{cut}"
            );
        }
        for status in [-1, 0, 99, 1000, 65_536, i64::MAX] {
            assert_eq!(
                Recorded::decode(status, &good, Vec::new()),
                Err(RecordError::Corrupt)
            );
        }
        assert_eq!(
            Recorded::decode(200, b"", Vec::new()),
            Err(RecordError::Corrupt)
        );
        assert_eq!(
            Recorded::decode(200, b"\x02", Vec::new()),
            Err(RecordError::Corrupt)
        );
    }

    #[test]
    fn headers_have_a_cap() {
        let mut record = recorded();
        record.headers.insert(
            "etag",
            HeaderValue::from_bytes(&[b'a'; HEADER_BYTES_MAX]).unwrap(),
        );
        assert_eq!(record.encode_headers(), Err(RecordError::HeadersTooLarge));
    }
}
