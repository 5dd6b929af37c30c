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

pub(super) fn encode(bytes: &[u8]) -> String {
    // Six bytes are eight characters; they are loaded as eight.
    let mut out = Vec::with_capacity(bytes.len().div_ceil(6) * 8);
    let mut rest = bytes;
    while !rest.is_empty() {
        let chunk = rest
            .first_chunk()
            .copied()
            .unwrap_or_else(|| padded(rest, 0));
        out.extend_from_slice(&chars_of(chunk));
        rest = rest.get(6..).unwrap_or_default();
    }
    // All of them are ASCII. (Cut afterwards: a whole number of words is checked faster.)
    let mut text = String::from_utf8(out).unwrap_or_default();
    text.truncate((bytes.len() * 4).div_ceil(3));
    text
}

/// The bytes of the text, written to the front of `out`; nothing if it is not what [`encode`] makes of them, or if
/// `out` has not some bytes more than that.
pub(super) fn decode<'b>(text: &str, out: &'b mut [u8]) -> Option<&'b mut [u8]> {
    let mut rest = text.as_bytes();
    // A character alone in the last group of four carries no byte.
    if rest.len() % 4 == 1 {
        return None;
    }
    let (mut at, mut seen) = (0, 0);
    while !rest.is_empty() {
        // 'A' is 0.
        let chunk = rest
            .first_chunk()
            .copied()
            .unwrap_or_else(|| padded(rest, b'A'));
        let (bytes, bits) = bytes_of(chunk);
        // Six of the eight count.
        *out.get_mut(at..)?.first_chunk_mut()? = bytes;
        seen |= bits;
        at += 6;
        rest = rest.get(8..).unwrap_or_default();
    }
    if seen & NONE != 0 {
        return None;
    }
    // What the last character has beyond the last byte must be 0: otherwise there were other texts of the same bytes.
    let (bytes, beyond) = out
        .get_mut(..at)?
        .split_at_mut_checked(text.len() * 3 / 4)?;
    beyond.iter().all(|byte| *byte == 0).then_some(bytes)
}

fn padded<const N: usize>(bytes: &[u8], with: u8) -> [u8; N] {
    let mut chunk = [with; N];
    if let Some(front) = chunk.get_mut(..bytes.len()) {
        front.copy_from_slice(bytes);
    }
    chunk
}

/// Of the first six bytes.
fn chars_of(bytes: [u8; 8]) -> [u8; 8] {
    let x = u64::from_be_bytes(bytes);
    #[expect(clippy::indexing_slicing, reason = "twelve bits index 4096")]
    let pair = |at: u32| u64::from(u16::from_le_bytes(PAIRS[(x >> at) as usize & 0xfff]));
    (pair(52) | pair(40) << 16 | pair(28) << 32 | pair(16) << 48).to_le_bytes()
}

/// In the first six bytes; and all bits that were seen.
#[expect(clippy::indexing_slicing, reason = "a byte indexes 256")]
fn bytes_of([a, b, c, d, e, f, g, h]: [u8; 8]) -> ([u8; 8], u32) {
    let [first, second, third, last] = &SEXTETS;
    let four = |a: u8, b: u8, c: u8, d: u8| {
        first[usize::from(a)]
            | second[usize::from(b)]
            | third[usize::from(c)]
            | last[usize::from(d)]
    };
    let (high, low) = (four(a, b, c, d), four(e, f, g, h));
    let bytes = (u64::from(high) << 40 | u64::from(low) << 16).to_be_bytes();
    (bytes, high | low)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        decode(text, &mut [0; 96 + 4]).map(|bytes| bytes.to_vec())
    }

    #[test]
    fn every_length_and_every_character_agrees_with_base64() {
        let all: Vec<u8> = (0..=255).collect();
        for len in 0..=96 {
            for at in [0, 100, 160] {
                let bytes = &all[at..at + len];
                let text = encode(bytes);
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
        assert_eq!(decoded(&"A".repeat(129)), None);
        assert_eq!(decoded(&"A".repeat(130)), None);
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
