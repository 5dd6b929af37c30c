//! base64url without padding (RFC 4648 §5), one text per bytes.
//!
//! The crate `base64` takes 850 instructions for a cursor to and fro, more than all the rest of the codec; this takes
//! half, since it has eight characters in hand at a time.

const ALPHABET: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The two characters of each twelve bits.
#[expect(clippy::indexing_slicing, reason = "const; the loop is the bound")]
static PAIRS: [[u8; 2]; 4096] = {
    let mut pairs = [[0; 2]; 4096];
    let mut i = 0;
    while i < pairs.len() {
        pairs[i] = [ALPHABET[i >> 6], ALPHABET[i & 63]];
        i += 1;
    }
    pairs
};

/// No six bits of four have this one.
const NONE: u32 = 1 << 31;

/// The six bits of each character, where they stand if it is the first, second, third or last of four.
#[expect(clippy::indexing_slicing, reason = "const; the loop is the bound")]
static SEXTETS: [[u32; 256]; 4] = {
    let mut sextets = [[NONE; 256]; 4];
    let mut i = 0;
    while i < 64 {
        let char = ALPHABET[i] as usize;
        sextets[0][char] = (i as u32) << 18;
        sextets[1][char] = (i as u32) << 12;
        sextets[2][char] = (i as u32) << 6;
        sextets[3][char] = i as u32;
        i += 1;
    }
    sextets
};

/// Of the first `len` bytes. Zeros that follow them save the end an extra load.
pub(super) fn encode(bytes: &[u8], len: usize) -> String {
    // Whole groups of sixteen, cut afterwards: a whole number of words is also checked faster.
    let groups = len.div_ceil(12);
    let mut out = Vec::with_capacity(groups * 16);
    let mut rest = bytes;
    for _ in 0..groups {
        // Twelve are wanted, but fourteen are two loads.
        let chunk = match rest.first_chunk() {
            Some(chunk) => *chunk,
            None => padded(rest, 0),
        };
        out.extend_from_slice(chars_of_twelve(&chunk).as_flattened());
        rest = rest.get(12..).unwrap_or_default();
    }
    // All of them are ASCII.
    let mut text = String::from_utf8(out).unwrap_or_default();
    text.truncate((len * 4).div_ceil(3));
    text
}

/// The bytes of the text, written to the front of `out`; nothing if it is not what [`encode`] makes of them, or if
/// `out` has no room for a multiple of six.
pub(super) fn decode<'b>(text: &str, out: &'b mut [u8]) -> Option<&'b mut [u8]> {
    let (eight, rest) = text.as_bytes().as_chunks();
    let len = text.len() * 3 / 4;
    let end = text.len().div_ceil(8) * 6;
    // A character alone in the last group of four carries no byte.
    if rest.len() % 4 == 1 || end > out.len() {
        return None;
    }
    let mut seen = 0;
    let mut rooms = out.as_chunks_mut().0.iter_mut();
    for (chars, room) in eight.iter().zip(&mut rooms) {
        *room = bytes_of(chars, &mut seen);
    }
    if !rest.is_empty()
        && let Some(room) = rooms.next()
    {
        *room = bytes_of(&last_group(text.as_bytes(), rest), &mut seen);
    }
    if seen & NONE != 0 {
        return None;
    }
    // What the last character has beyond the last byte must be 0: otherwise there were other texts of the same bytes.
    let (bytes, beyond) = out.get_mut(..end)?.split_at_mut_checked(len)?;
    beyond.iter().all(|byte| *byte == 0).then_some(bytes)
}

/// The rest of the text, and for the characters that it lacks 'A', which is 0.
fn last_group(text: &[u8], rest: &[u8]) -> [u8; 8] {
    let Some(last) = text.last_chunk() else {
        return padded(rest, b'A');
    };
    let bits = rest.len() * 8;
    let fill = u64::from_be_bytes([b'A'; 8]);
    (u64::from_be_bytes(*last) << (64 - bits) | fill >> bits).to_be_bytes()
}

fn padded<const N: usize>(bytes: &[u8], with: u8) -> [u8; N] {
    let mut chunk = [with; N];
    if let Some(front) = chunk.get_mut(..bytes.len()) {
        front.copy_from_slice(bytes);
    }
    chunk
}

fn chars_of_twelve(bytes: &[u8; 14]) -> [[u8; 8]; 2] {
    [bytes.first_chunk(), bytes.last_chunk()]
        .map(|six| chars_of(six.map_or(0, |six| u64::from_be_bytes(*six))))
}

/// Of the six highest bytes.
#[expect(clippy::indexing_slicing, reason = "twelve bits index 4096")]
fn chars_of(x: u64) -> [u8; 8] {
    let pair = |at: u32| u64::from(u16::from_le_bytes(PAIRS[(x >> at) as usize & 0xfff]));
    (pair(52) | pair(40) << 16 | pair(28) << 32 | pair(16) << 48).to_le_bytes()
}

/// Adds all bits that it saw to `seen`.
#[expect(clippy::indexing_slicing, reason = "a byte indexes 256")]
fn bytes_of([a, b, c, d, e, f, g, h]: &[u8; 8], seen: &mut u32) -> [u8; 6] {
    let [first, second, third, last] = &SEXTETS;
    let four = |a: u8, b: u8, c: u8, d: u8| {
        first[usize::from(a)]
            | second[usize::from(b)]
            | third[usize::from(c)]
            | last[usize::from(d)]
    };
    let (high, low) = (four(*a, *b, *c, *d), four(*e, *f, *g, *h));
    *seen |= high | low;
    let [_, _, bytes @ ..] = (u64::from(high) << 24 | u64::from(low)).to_be_bytes();
    bytes
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        decode(text, &mut [0; 102]).map(|bytes| bytes.to_vec())
    }

    #[test]
    fn every_length_and_every_character_agrees_with_base64() {
        let all: Vec<u8> = (0..=255).collect();
        for len in 0..=96 {
            for at in [0, 100, 160] {
                let bytes = &all[at..at + len];
                let text = encode(bytes, bytes.len());
                assert_eq!(text, URL_SAFE_NO_PAD.encode(bytes));
                assert_eq!(decoded(&text).as_deref(), Some(bytes));
            }
        }
        for char in 0..=127_u8 {
            let text = format!("A{}AA", char::from(char));
            assert_eq!(
                decoded(&text),
                URL_SAFE_NO_PAD.decode(&text).ok(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_nothing() {
        assert_eq!(decoded(&"A".repeat(128)).map(|b| b.len()), Some(96));
        assert_eq!(decoded(&"A".repeat(130)).map(|b| b.len()), Some(97));
        assert_eq!(decoded(&"A".repeat(137)), None);
        assert_eq!(decoded(&"A".repeat(138)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn all_texts_are_read_as_base64_reads_them(text in "[A-Za-z0-9_=+/-]{0,40}", noise in ".{0,30}") {
            prop_assert_eq!(decoded(&text), URL_SAFE_NO_PAD.decode(&text).ok());
            prop_assert_eq!(decoded(&noise), URL_SAFE_NO_PAD.decode(&noise).ok());
        }
    }
}
