//! How much of a failed answer's body is worth reading, and the bytes of it.

use bytes::{Buf, BufMut};
use http::{HeaderMap, header};

use crate::{Problem, ProblemReader};

/// A body while it is read. It never holds more than the reader's bound.
pub(super) struct Collected {
    bytes: Vec<u8>,
    max: usize,
}

impl Collected {
    /// Begins to read, unless it is known from the start that nothing could be made of the body.
    pub(super) fn begin(
        reader: &ProblemReader,
        headers: &HeaderMap,
        bytes_min: u64,
    ) -> Option<Self> {
        let max = reader.bytes_max();
        let fits = usize::try_from(bytes_min).is_ok_and(|bytes| bytes <= max);
        (fits && is_plain(headers)).then(|| Self {
            bytes: Vec::new(),
            max,
        })
    }

    /// Takes what arrived; `None` when that is more than the bound, and the whole is given up.
    pub(super) fn with(mut self, arrived: impl Buf) -> Option<Self> {
        if arrived.remaining() > self.max - self.bytes.len() {
            return None;
        }
        self.bytes.put(arrived);
        Some(self)
    }
}

/// The problem of an answer whose body was collected, or given up.
pub(super) fn problem(
    reader: &ProblemReader,
    status: u16,
    headers: &HeaderMap,
    body: Option<Collected>,
) -> Problem {
    match body {
        Some(body) => reader.read(status, headers, &body.bytes),
        // Never a document, whatever the content type says.
        None => reader.read(status, headers, b""),
    }
}

/// Whether the bytes are the document itself, not a coding of it.
fn is_plain(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|coding| {
            let coding = coding.as_bytes().trim_ascii();
            coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_held_up_to_the_bound_and_no_further() {
        let reader = ProblemReader::new().document_bytes_max(4);
        let begin = |bytes_min| Collected::begin(&reader, &HeaderMap::new(), bytes_min);
        assert!(begin(4).is_some() && begin(5).is_none() && begin(u64::MAX).is_none());
        let three = begin(0).unwrap().with(&b"abc"[..]).unwrap();
        assert!(three.bytes.capacity() <= 8);
        let four = three.with(&b"d"[..]).unwrap();
        assert_eq!(four.bytes, b"abcd");
        assert!(four.with(&b"e"[..]).is_none());
    }

    #[test]
    fn a_coding_is_not_the_document() {
        let with = |coding: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, coding.parse().unwrap());
            is_plain(&headers)
        };
        assert!(is_plain(&HeaderMap::new()) && with("Identity") && with(" identity "));
        assert!(!with("gzip") && !with("identity, gzip") && !with("br"));
    }
}
