//! A million cursors that nobody made, and not one of them taken.
//!
//! Seeded, so that a failure happens again. `MAINSTAY_FUZZ_INPUTS` asks for another number of inputs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mainstay_pagination::{
    Column, Cursor, CursorCodec, CursorError, Fingerprint, Key, KeyRing, Keys, KeysetDef,
};
use uuid::Uuid;

const ORDER: KeysetDef = KeysetDef::new("fuzzed")
    .desc(Column::timestamptz("at").nulls_last())
    .asc(Column::text("name").not_null())
    .asc(Column::decimal("amount").nulls_first())
    .unique_asc(Column::uuid("id").not_null());
const NOW: SystemTime = UNIX_EPOCH;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % n as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_le_bytes()[0]
    }
}

fn inputs(default: u64) -> u64 {
    std::env::var("MAINSTAY_FUZZ_INPUTS").map_or(default, |n| n.parse().unwrap())
}

fn keys() -> [Key; 4] {
    [
        Key::Micros(1_700_000_000_123_456),
        Key::from("a name"),
        Key::Decimal("12.50".into()),
        Key::Uuid(Uuid::from_u128(7)),
    ]
}

/// Bytes changed as somebody would who knows the layout: bits, bytes, ends, pieces of another cursor.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len().max(1));
        match dice.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            1 if !bytes.is_empty() => bytes[at] = dice.byte(),
            2 => bytes.truncate(at),
            3 => bytes.extend((0..dice.below(20)).map(|_| 0).collect::<Vec<_>>()),
            4 => bytes.insert(at.min(bytes.len()), dice.byte()),
            5 if !bytes.is_empty() => drop(bytes.remove(at)),
            _ => {
                let from = dice.below(other.len());
                let to = from + dice.below(other.len() - from);
                let end = bytes.len().min(at + to - from);
                bytes.splice(at.min(end)..end, other[from..to].iter().copied());
            }
        }
    }
}

/// Feeds `n` inputs and gives each that was taken to `taken`.
fn fuzz(codec: &CursorCodec, n: u64, seed: u64, mut taken: impl FnMut(&str, &Keys)) {
    let fingerprint = Fingerprint::of(&ORDER, "list");
    let cursor = codec.encode(&keys(), fingerprint, NOW).unwrap();
    let good = URL_SAFE_NO_PAD.decode(cursor.as_str()).unwrap();
    let mut others = keys();
    others[0] = Key::Null;
    others[2] = Key::Null;
    let foreign = codec
        .encode(&others, Fingerprint::of(&ORDER, "other"), NOW)
        .unwrap();
    let other = URL_SAFE_NO_PAD.decode(foreign.as_str()).unwrap();

    let mut dice = Dice(seed);
    let mut decode = |text: String| {
        let input = Cursor::new(text);
        if let Ok(keys) = codec.decode(&input, &ORDER, fingerprint, NOW) {
            taken(input.as_str(), &keys);
        }
    };
    for i in 0..n {
        if i % 8 == 0 {
            // Text of any characters.
            let len = dice.below(90);
            let noise = |dice: &mut Dice| {
                if dice.below(20) == 0 {
                    char::from(dice.byte())
                } else {
                    char::from(cursor.as_str().as_bytes()[dice.below(cursor.as_str().len())])
                }
            };
            decode((0..len).map(|_| noise(&mut dice)).collect());
        } else {
            let mut bytes = good.clone();
            mutate(&mut bytes, &other, &mut dice);
            decode(URL_SAFE_NO_PAD.encode(bytes));
        }
    }
}

#[test]
fn no_input_forges_a_signed_cursor() {
    let codec =
        CursorCodec::hmac_sha256(KeyRing::new(1, [7; 32]).unwrap()).ttl(Duration::from_secs(60));
    let fingerprint = Fingerprint::of(&ORDER, "list");
    let ours = codec.encode(&keys(), fingerprint, NOW).unwrap();
    fuzz(&codec, inputs(500_000), 1, |text, _| {
        assert_eq!(text, ours.as_str());
    });
}

#[cfg(feature = "aead")]
#[test]
fn no_input_forges_a_sealed_cursor() {
    let codec = CursorCodec::aead(&KeyRing::new(1, [7; 32]).unwrap());
    let fingerprint = Fingerprint::of(&ORDER, "list");
    let ours = codec.encode(&keys(), fingerprint, NOW).unwrap();
    fuzz(&codec, inputs(100_000), 2, |text, _| {
        assert_eq!(text, ours.as_str());
    });
}

/// Anybody can make these: what is taken must be a position in this order, in its only spelling.
#[test]
fn whatever_is_taken_unsigned_is_spelt_as_we_would_spell_it() {
    let codec = CursorCodec::unsigned();
    let fingerprint = Fingerprint::of(&ORDER, "list");
    let mut positions = 0;
    fuzz(&codec, inputs(500_000), 3, |text, keys| {
        positions += 1;
        assert_eq!(keys.len(), 4);
        assert!(!keys[1].is_null() && !keys[3].is_null(), "{keys:?}");
        assert_eq!(codec.encode(keys, fingerprint, NOW).unwrap().as_str(), text);
    });
    assert!(
        positions > 1_000,
        "the fuzzer gets no further than the door: {positions}"
    );
}

#[test]
fn a_megabyte_is_refused_before_it_is_looked_at() {
    let codec = CursorCodec::unsigned();
    let fingerprint = Fingerprint::of(&ORDER, "list");
    let long = Cursor::new("A".repeat(1 << 20));
    for _ in 0..100_000 {
        let read = codec.decode(&long, &ORDER, fingerprint, NOW);
        assert_eq!(read, Err(CursorError::TooLong));
    }
}
