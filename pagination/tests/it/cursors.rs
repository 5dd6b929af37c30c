//! Cursor bytes, and every way to tamper with them (abuse cases C1 to C5).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mainstay_pagination::{
    CURSOR_CHARS_MAX, Column, Cursor, CursorCodec, CursorError, Fingerprint, Key, KeyRing,
    KeysetDef,
};
use proptest::prelude::*;
use uuid::Uuid;

const NEWEST: KeysetDef = KeysetDef::new("payments.newest")
    .desc(Column::timestamptz("created_at").not_null())
    .unique_desc(Column::uuid("id").not_null());

fn keys() -> Vec<Key> {
    vec![
        Key::Micros(1_700_000_000_123_456),
        Key::Uuid(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)),
    ]
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_100)
}

fn ring() -> KeyRing {
    KeyRing::new(1, [7; 32]).unwrap()
}

fn signed() -> CursorCodec {
    CursorCodec::hmac_sha256(ring())
}

fn acme() -> Fingerprint {
    Fingerprint::of(&NEWEST, ("payments", "acme"))
}

fn made(codec: &CursorCodec) -> Cursor {
    codec.encode(&keys(), acme(), now()).unwrap()
}

fn read(codec: &CursorCodec, text: &str) -> Result<Vec<Key>, CursorError> {
    codec
        .decode(&Cursor::from(text), &NEWEST, acme(), now())
        .map(Into::into)
}

#[cfg(feature = "aead")]
fn sealed() -> CursorCodec {
    CursorCodec::aead(&ring())
}

/// One of each kind of codec, all with the same secret.
fn codecs() -> Vec<CursorCodec> {
    vec![
        CursorCodec::unsigned(),
        signed(),
        signed().ttl(Duration::from_secs(60)),
        #[cfg(feature = "aead")]
        sealed(),
        #[cfg(feature = "aead")]
        sealed().ttl(Duration::from_secs(60)),
    ]
}

/// Computed outside this program, from the layout in `codec.rs`. To change one is to refuse every cursor that
/// is out: raise the version instead.
#[test]
fn bytes_are_golden() {
    let expiring = signed().ttl(Duration::from_secs(3 * 24 * 3600));
    for (codec, golden) in [
        (
            signed(),
            "EQHGCpDVuyzN-ggABgokGCAiQAcBI0VniavN7wEjRWeJq83vs2EAFVZAtHzQWWVoWsth5w",
        ),
        (
            expiring,
            "EwHGCpDVuyzN-mVX5eQIAAYKJBggIkAHASNFZ4mrze8BI0VniavN78o65_hsY5YvNKgoEvrcjxU",
        ),
        (
            CursorCodec::unsigned(),
            "EMYKkNW7LM36CAAGCiQYICJABwEjRWeJq83vASNFZ4mrze8",
        ),
    ] {
        let cursor = made(&codec);
        assert_eq!(cursor.as_str(), golden);
        assert_eq!(read(&codec, golden).unwrap(), keys());
    }
}

/// Computed outside this program, by another AES-GCM-SIV that passes the vectors of RFC 8452.
#[cfg(feature = "aead")]
#[test]
fn sealed_bytes_are_golden() {
    let expiring = sealed().ttl(Duration::from_secs(3 * 24 * 3600));
    for (codec, golden) in [
        (
            sealed(),
            "FAE83inJcTcFY9ejs1B6j4a2iZ_Lxyr0vwOBEBX3K4Ci4yWiA2QxNp_apt0XrA4BB4kbxrtH011n4W6tOTfJoQ",
        ),
        (
            expiring,
            "FgFHUueN0DoZQ4X2QWuV22qttaeT_RU1XfNnE0BXKuHDSpMVcO0oo2BXF-L_prPzAHojWDVh3YkSRw4SCfTf1RsxY_A",
        ),
    ] {
        assert_eq!(made(&codec).as_str(), golden);
        assert_eq!(read(&codec, golden).unwrap(), keys());
    }
}

#[test]
fn bytes_of_every_kind_are_golden() {
    let fingerprint = Fingerprint::of(
        &KeysetDef::new("t").unique_asc(Column::i64("id").not_null()),
        (),
    );
    for (key, golden) in [
        (Key::Null, "00"),
        (Key::Bool(false), "01"),
        (Key::Bool(true), "02"),
        (Key::I64(-2), "03fffffffffffffffe"),
        (Key::from(-0.0), "048000000000000000"),
        (Key::from("é"), "050002c3a9"),
        (Key::Bytes(vec![0, 255]), "06000200ff"),
        (
            Key::Uuid(Uuid::from_u128(1)),
            "0700000000000000000000000000000001",
        ),
        (Key::Micros(1), "080000000000000001"),
        (Key::U64(u64::MAX), "09ffffffffffffffff"),
        (Key::Decimal("-1.50".into()), "0a00052d312e3530"),
        (Key::Date(-1), "0bffffffff"),
        (Key::Time(1), "0c0000000000000001"),
    ] {
        let cursor = CursorCodec::unsigned()
            .encode(std::slice::from_ref(&key), fingerprint, now())
            .unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(cursor.as_str()).unwrap();
        let hex: String = bytes[9..]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, golden, "{key:?}");
    }
}

#[test]
fn a_decimal_that_no_database_prints_is_no_cursor() {
    let order = KeysetDef::new("t").unique_asc(Column::decimal("n").not_null());
    let fingerprint = Fingerprint::of(&order, ());
    for text in ["", "1e9", " 1", "1;", "nan"] {
        let codec = CursorCodec::unsigned();
        let cursor = codec
            .encode(&[Key::Decimal(text.into())], fingerprint, now())
            .unwrap();
        let read = codec.decode(&cursor, &order, fingerprint, now());
        assert_eq!(read, Err(CursorError::Malformed), "{text:?}");
    }
}

/// Short and long cursors are put together in different buffers.
#[test]
fn cursors_of_every_length_are_read_back() {
    let order = KeysetDef::new("t").unique_asc(Column::text("name").not_null());
    let fingerprint = Fingerprint::of(&order, ());
    for codec in codecs() {
        for len in 0..200 {
            let keys = [Key::Text("x".repeat(len))];
            let cursor = codec.encode(&keys, fingerprint, now()).unwrap();
            assert_eq!(
                *codec.decode(&cursor, &order, fingerprint, now()).unwrap(),
                keys
            );
        }
    }
}

#[test]
fn a_timestamp_and_a_uuid_fit_seventy_five_characters() {
    assert_eq!(made(&signed()).as_str().len(), 70);
    assert_eq!(
        made(&signed().ttl(Duration::from_secs(60))).as_str().len(),
        75
    );
}

#[test]
fn every_flipped_bit_is_refused() {
    let codec = signed().ttl(Duration::from_secs(60));
    let bytes = URL_SAFE_NO_PAD.decode(made(&codec).as_str()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let error = read(&codec, &URL_SAFE_NO_PAD.encode(&changed)).unwrap_err();
        let expected = match bit {
            4..8 => CursorError::WrongVersion,
            8..16 => CursorError::UnknownKey,
            _ => CursorError::BadSignature,
        };
        assert_eq!(error, expected, "bit {bit}");
    }
}

#[cfg(feature = "aead")]
#[test]
fn every_flipped_bit_of_a_sealed_cursor_is_refused() {
    let codec = sealed().ttl(Duration::from_secs(60));
    let bytes = URL_SAFE_NO_PAD.decode(made(&codec).as_str()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit {
            4..8 => CursorError::WrongVersion,
            8..16 => CursorError::UnknownKey,
            _ => CursorError::BadSignature,
        };
        let error = read(&codec, &URL_SAFE_NO_PAD.encode(&changed)).unwrap_err();
        assert_eq!(error, expected, "bit {bit}");
    }
}

#[cfg(feature = "aead")]
#[test]
fn a_sealed_cursor_hides_its_keys_and_stays_the_same() {
    let order = KeysetDef::new("t").unique_asc(Column::text("name").not_null());
    let fingerprint = Fingerprint::of(&order, ());
    let secret = "a name that nobody should read";
    let encode = |codec: &CursorCodec, name: &str| {
        let cursor = codec
            .encode(&[Key::from(name)], fingerprint, now())
            .unwrap();
        URL_SAFE_NO_PAD.decode(cursor.as_str()).unwrap()
    };
    let shows = |bytes: &[u8]| {
        bytes
            .windows(4)
            .any(|window| secret.as_bytes().windows(4).any(|part| part == window))
    };
    assert!(shows(&encode(&signed(), secret)));
    let bytes = encode(&sealed(), secret);
    assert!(!shows(&bytes));
    assert!(
        !bytes
            .windows(8)
            .any(|window| window == &encode(&signed(), secret)[2..10])
    );
    // Equal positions have equal cursors; another has another nonce.
    assert_eq!(bytes, encode(&sealed(), secret));
    assert_ne!(bytes[2..14], encode(&sealed(), "another name")[2..14]);
}

#[cfg(feature = "aead")]
#[test]
fn a_codec_takes_no_cursor_of_another_protection() {
    let unsigned = CursorCodec::unsigned();
    for (reader, writer, error) in [
        (sealed(), signed(), CursorError::BadSignature),
        (sealed(), unsigned.clone(), CursorError::BadSignature),
        (signed(), sealed(), CursorError::BadSignature),
        (unsigned, sealed(), CursorError::WrongVersion),
    ] {
        assert_eq!(read(&reader, made(&writer).as_str()), Err(error));
    }
    let rotated = KeyRing::new(2, [8; 32])
        .unwrap()
        .accept(1, [7; 32])
        .unwrap();
    let both = CursorCodec::aead(&rotated);
    assert_eq!(read(&both, made(&sealed()).as_str()).unwrap(), keys());
    assert_eq!(
        read(&sealed(), made(&both).as_str()),
        Err(CursorError::UnknownKey)
    );
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let cursor = made(&signed());
    let text = cursor.as_str();
    for codec in codecs() {
        let cursor = made(&codec);
        for len in 0..cursor.as_str().len() {
            read(&codec, &cursor.as_str()[..len]).unwrap_err();
        }
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
    for cut in [
        0,
        1,
        2,
        9,
        10,
        bytes.len() - 16,
        bytes.len() - 15,
        bytes.len() - 1,
    ] {
        read(&signed(), &URL_SAFE_NO_PAD.encode(&bytes[..cut])).unwrap_err();
    }
    for extra in [&b"\0"[..], b"\xff", &[0; 15], &[0; 16]] {
        let longer = [&bytes, extra].concat();
        assert_eq!(
            read(&signed(), &URL_SAFE_NO_PAD.encode(longer)),
            Err(CursorError::BadSignature)
        );
    }
}

#[test]
fn unsigned_foreign_and_retired_cursors_are_refused() {
    let unsigned = made(&CursorCodec::unsigned());
    assert_eq!(
        read(&signed(), unsigned.as_str()),
        Err(CursorError::BadSignature)
    );
    assert_eq!(
        read(&CursorCodec::unsigned(), made(&signed()).as_str()),
        Err(CursorError::WrongVersion)
    );

    let foreign = CursorCodec::hmac_sha256(KeyRing::new(1, [8; 32]).unwrap());
    assert_eq!(
        read(&signed(), made(&foreign).as_str()),
        Err(CursorError::BadSignature)
    );
    let retired = CursorCodec::hmac_sha256(KeyRing::new(9, [7; 32]).unwrap());
    assert_eq!(
        read(&signed(), made(&retired).as_str()),
        Err(CursorError::UnknownKey)
    );
}

#[test]
fn a_rotated_key_is_accepted_until_it_is_dropped() {
    let old = made(&signed());
    let both = CursorCodec::hmac_sha256(
        KeyRing::new(2, [8; 32])
            .unwrap()
            .accept(1, [7; 32])
            .unwrap(),
    );
    assert_eq!(read(&both, old.as_str()).unwrap(), keys());
    let new = made(&both);
    assert_eq!(read(&both, new.as_str()).unwrap(), keys());
    let only_new = CursorCodec::hmac_sha256(KeyRing::new(2, [8; 32]).unwrap());
    assert_eq!(read(&only_new, new.as_str()).unwrap(), keys());
    assert_eq!(read(&only_new, old.as_str()), Err(CursorError::UnknownKey));
}

#[test]
fn a_cursor_of_another_list_is_refused() {
    let other_order = KeysetDef::new("payments.newest")
        .asc(Column::timestamptz("created_at").not_null())
        .unique_desc(Column::uuid("id").not_null());
    let other_endpoint = KeysetDef::new("refunds.newest")
        .desc(Column::timestamptz("created_at").not_null())
        .unique_desc(Column::uuid("id").not_null());
    for (order, fingerprint) in [
        (NEWEST, Fingerprint::of(&NEWEST, ("payments", "globex"))),
        (
            NEWEST,
            Fingerprint::of(&NEWEST, ("payments", "acme", "EUR")),
        ),
        (
            other_order,
            Fingerprint::of(&other_order, ("payments", "acme")),
        ),
        (
            other_endpoint,
            Fingerprint::of(&other_endpoint, ("payments", "acme")),
        ),
    ] {
        for codec in codecs() {
            let cursor = made(&codec);
            assert_eq!(
                codec.decode(&cursor, &order, fingerprint, now()),
                Err(CursorError::WrongQuery)
            );
        }
    }
}

/// A filter is what it means: its cursors are good however it was spelt.
#[test]
fn equal_filters_spelt_differently_are_one_list() {
    use std::collections::BTreeSet;

    /// As an application does: parsed, sorted, without repetitions, in one case.
    fn list(query: &str) -> Fingerprint {
        let mut currencies = BTreeSet::new();
        let mut from = None;
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "currency" => currencies.extend(value.split(',').map(str::to_ascii_uppercase)),
                "from" => from = value.parse::<i64>().ok(),
                _ => {} // page size and cursor, above all
            }
        }
        Fingerprint::of(&NEWEST, ("payments", currencies, from))
    }
    let cursor = signed()
        .encode(&keys(), list("currency=EUR,USD&from=5"), now())
        .unwrap();
    for same in [
        "currency=USD,EUR&from=5",
        "from=5&currency=eur&currency=usd",
        "currency=EUR,USD,EUR&from=005&limit=50&after=x",
    ] {
        let read = signed().decode(&cursor, &NEWEST, list(same), now());
        assert_eq!(read.map(Into::into), Ok(keys()), "{same}");
    }
    for other in [
        "currency=EUR&from=5",
        "currency=EUR,USD",
        "currency=EURUSD&from=5",
        "",
    ] {
        let read = signed().decode(&cursor, &NEWEST, list(other), now());
        assert_eq!(read, Err(CursorError::WrongQuery), "{other}");
    }
}

#[test]
fn a_cursor_expires_to_the_second() {
    let codec = signed().ttl(Duration::from_secs(60));
    let cursor = made(&codec);
    let at = |seconds| {
        codec.decode(
            &cursor,
            &NEWEST,
            acme(),
            now() + Duration::from_secs(seconds),
        )
    };
    assert!(at(59).is_ok());
    assert_eq!(at(60), Err(CursorError::Expired));
    // One that never expires is no way round.
    assert_eq!(
        read(&codec, made(&signed()).as_str()),
        Err(CursorError::Expired)
    );
    // A time to live beyond what four bytes hold is the latest there is.
    let long = signed().ttl(Duration::MAX);
    assert!(read(&long, made(&long).as_str()).is_ok());
}

#[test]
fn a_time_to_live_is_never_cut_short() {
    for (ttl, now) in [
        (Duration::from_millis(500), now()),
        (
            Duration::from_millis(1_500),
            now() + Duration::from_millis(900),
        ),
        (Duration::from_secs(2), now() + Duration::from_millis(999)),
    ] {
        let codec = signed().ttl(ttl);
        let cursor = codec.encode(&keys(), acme(), now).unwrap();
        let at = |after| codec.decode(&cursor, &NEWEST, acme(), now + after);
        assert!(at(Duration::ZERO).is_ok(), "{ttl:?}");
        assert!(at(ttl - Duration::from_millis(1)).is_ok(), "{ttl:?}");
        assert_eq!(
            at(ttl + Duration::from_secs(1)),
            Err(CursorError::Expired),
            "{ttl:?}"
        );
    }
}

#[test]
fn only_the_canonical_spelling_is_accepted() {
    for codec in codecs() {
        let cursor = made(&codec);
        let text = cursor.as_str();
        let standard = text.replace('-', "+").replace('_', "/");
        let mut spellings = vec![
            format!("{text}="),
            format!("{text}=="),
            format!(" {text}"),
            format!("{text}\n"),
            format!("{} {}", &text[..4], &text[4..]),
            text.replace(&text[..1], "%45"),
            String::new(),
            "null".into(),
            "\u{fffd}".into(),
        ];
        if standard != text {
            spellings.push(standard);
        }
        // The last character carries bits that decode to nothing; setting them must not be overlooked.
        const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let (head, last) = text.split_at(text.len() - 1);
        spellings.extend(
            ALPHABET
                .chars()
                .filter(|c| !last.starts_with(*c))
                .map(|c| format!("{head}{c}")),
        );
        for spelling in spellings {
            // (An unsigned cursor's last character may also carry value bits: then it is another cursor.)
            if let Ok(other) = read(&codec, &spelling) {
                assert!(
                    codec.encode(&other, acme(), now()).unwrap().as_str() == spelling,
                    "{spelling:?}"
                );
                assert_ne!(other, keys(), "{spelling:?}");
            }
        }
    }
}

#[test]
fn length_is_checked_before_anything_else() {
    assert_eq!(
        read(&signed(), &"A".repeat(CURSOR_CHARS_MAX + 1)),
        Err(CursorError::TooLong)
    );
    assert_eq!(
        read(&signed(), &"!".repeat(1 << 20)),
        Err(CursorError::TooLong)
    );
    assert_ne!(
        read(&signed(), &"A".repeat(CURSOR_CHARS_MAX)),
        Err(CursorError::TooLong)
    );
}

#[test]
fn an_unsigned_cursor_must_still_be_a_position_in_the_order() {
    let codec = CursorCodec::unsigned();
    for keys in [
        vec![],
        vec![Key::Micros(1)],
        vec![Key::I64(1), Key::Uuid(Uuid::nil())],
        vec![Key::Micros(1), Key::Null],
        vec![Key::Null, Key::Uuid(Uuid::nil())],
        vec![Key::Micros(1), Key::Uuid(Uuid::nil()), Key::Bool(true)],
    ] {
        let cursor = codec.encode(&keys, acme(), now()).unwrap();
        assert_eq!(
            read(&codec, cursor.as_str()),
            Err(CursorError::Malformed),
            "{keys:?}"
        );
    }
}

#[test]
fn keys_too_large_for_a_cursor_are_an_error_not_a_bad_cursor() {
    let order = KeysetDef::new("t").unique_asc(Column::text("name").not_null());
    let fingerprint = Fingerprint::of(&order, ());
    let encode = |len| signed().encode(&[Key::Text("x".repeat(len))], fingerprint, now());
    let longest = 768 - 2 - 8 - 3 - 16;
    let cursor = encode(longest).unwrap();
    assert_eq!(cursor.as_str().len(), CURSOR_CHARS_MAX);
    assert!(signed().decode(&cursor, &order, fingerprint, now()).is_ok());
    assert_eq!(encode(longest + 1), Err(CursorError::TooLong));
    assert_eq!(encode(1 << 17), Err(CursorError::TooLong));
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        Just(Key::Null),
        any::<bool>().prop_map(Key::from),
        any::<i64>().prop_map(Key::from),
        any::<u64>().prop_map(Key::F64Bits),
        ".{0,20}".prop_map(Key::from),
        any::<Vec<u8>>().prop_map(Key::from),
        any::<u128>().prop_map(|n| Key::Uuid(Uuid::from_u128(n))),
        any::<i64>().prop_map(Key::Micros),
        any::<u64>().prop_map(Key::from),
        "-?[0-9]{1,30}(\\.[0-9]{1,20})?".prop_map(Key::Decimal),
        any::<i32>().prop_map(Key::Date),
        any::<i64>().prop_map(Key::Time),
    ]
}

/// An order whose columns take these keys.
fn order_of(keys: &[Key]) -> KeysetDef {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let mut builder = KeysetDef::new("any");
    for (key, name) in keys.iter().zip(NAMES) {
        let column = match key {
            Key::Bool(_) => Column::bool(name),
            Key::F64Bits(_) => Column::f64(name),
            Key::Text(_) => Column::text(name),
            Key::Bytes(_) => Column::bytes(name),
            Key::Uuid(_) => Column::uuid(name),
            Key::Micros(_) => Column::timestamptz(name),
            Key::U64(_) => Column::u64(name),
            Key::Decimal(_) => Column::decimal(name),
            Key::Date(_) => Column::date(name),
            Key::Time(_) => Column::time(name),
            _ => Column::i64(name),
        };
        builder = builder.asc(column.nulls_last());
    }
    builder.unique_asc(Column::i64("id").not_null())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_keys_survive_the_round_trip(mut keys in prop::collection::vec(any_key(), 0..4), id: i64) {
        let order = order_of(&keys);
        keys.push(Key::I64(id));
        let fingerprint = Fingerprint::of(&order, ());
        for codec in codecs() {
            match codec.encode(&keys, fingerprint, now()) {
                Ok(cursor) => prop_assert_eq!(&*codec.decode(&cursor, &order, fingerprint, now()).unwrap(), &*keys),
                Err(error) => prop_assert_eq!(error, CursorError::TooLong),
            }
        }
    }

    #[test]
    fn arbitrary_text_is_refused_without_panic(text in "[A-Za-z0-9_-]{0,120}", noise in ".{0,40}") {
        for codec in codecs() {
            read(&codec, &text).unwrap_err();
            read(&codec, &noise).unwrap_err();
        }
    }

    #[test]
    fn an_unsigned_body_never_panics(body in any::<Vec<u8>>()) {
        let mut bytes = vec![0x10];
        bytes.extend(URL_SAFE_NO_PAD.decode(made(&CursorCodec::unsigned()).as_str()).unwrap()[1..9].iter());
        bytes.extend(body);
        let text = URL_SAFE_NO_PAD.encode(&bytes);
        if let Ok(keys) = read(&CursorCodec::unsigned(), &text) {
            // Whatever is accepted is the one spelling of what it says.
            let again = CursorCodec::unsigned().encode(&keys, acme(), now()).unwrap();
            prop_assert_eq!(again.as_str(), text);
        }
    }
}
