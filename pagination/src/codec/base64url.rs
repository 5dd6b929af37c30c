//! base64url without padding (RFC 4648 §5), one text per bytes.
//!
//! The crate `base64` takes 850 instructions for a cursor to and fro, more than all the rest of the codec; this takes
//! half, since it has eight or sixteen characters in hand at a time.

/// What is read at a time: so many characters, which are so many bytes.
const CHARS: usize = 16;
const BYTES: usize = 12;
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
    let mut at = 0;
    while !rest.is_empty() {
        // 'A' is 0.
        let chunk = rest
            .first_chunk()
            .copied()
            .unwrap_or_else(|| padded(rest, b'A'));
        let room = out.get_mut(at..)?.first_chunk_mut::<CHARS>()?;
        *room = bytes_of(chunk)?;
        at += BYTES;
        rest = rest.get(CHARS..).unwrap_or_default();
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

/// In the first twelve.
fn bytes_of(chars: [u8; CHARS]) -> Option<[u8; CHARS]> {
    let x = u128::from_be_bytes(chars.map(sextet_of));
    if x & u128::from_be_bytes([0xc0; CHARS]) != 0 {
        return None;
    }
    // The way back.
    let join = |x: u64| {
        let x = (x & 0x3f00_3f00_3f00_3f00) >> 2 | x & 0x003f_003f_003f_003f;
        let x = (x & 0x0fff_0000_0fff_0000) >> 4 | x & 0x0000_0fff_0000_0fff;
        (x & 0x00ff_ffff_0000_0000) >> 8 | x & 0x00ff_ffff
    };
    let high = u128::from(join(low_half(x >> 64)));
    let low = u128::from(join(low_half(x)));
    Some((high << 80 | low << 32).to_be_bytes())
}

#[expect(clippy::cast_possible_truncation, reason = "that half is wanted")]
const fn low_half(x: u128) -> u64 {
    x as u64
}

/// 0 to 63; with the highest bits set, what is no character of the alphabet. No branch and no table, so that
/// sixteen are computed at once.
fn sextet_of(char: u8) -> u8 {
    let range = |first: u8, last: u8, sextet: u8| {
        let at = char.wrapping_sub(first);
        if at <= last - first {
            at + sextet
        } else {
            0xff
        }
    };
    range(b'A', b'Z', 0)
        & range(b'a', b'z', 26)
        & range(b'0', b'9', 52)
        & range(b'-', b'-', 62)
        & range(b'_', b'_', 63)
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
