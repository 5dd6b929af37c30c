//! Cursors: a round trip of a timestamp and a UUID, from the row's keys to text and back.
//!
//! What peers call a cursor is JSON in base64, which anybody can make; the hand-written ones know this one order and
//! write its bytes. The signed ones have their key state at hand.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use mainstay_pagination::{Column, Cursor, CursorCodec, Fingerprint, Key, KeyRing, KeysetDef};
use paginator_utils::CursorValue;
use results::Measure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use crate::race::{Contestant, contestant, is_counted, run};

const NEWEST: KeysetDef = KeysetDef::new("payments.newest")
    .desc(Column::timestamptz("created_at").not_null())
    .unique_desc(Column::uuid("id").not_null());

const MICROS: i64 = 1_700_000_000_123_456;
const ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
const NOW: SystemTime = UNIX_EPOCH;
/// What a round trip returns that brought the keys back.
const BACK: usize = (MICROS as usize) ^ (ID.as_u128() as usize);

pub fn race() {
    let hand = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
    let unsigned = || {
        vec![
            contestant("hand-written", by_hand),
            mainstay("mainstay", CursorCodec::unsigned()),
            contestant("serde_json of a struct, base64", json_struct),
            contestant("serde_json::Value, base64", json_value),
            contestant("paginator-utils 0.4, the UUID alone", paginator),
        ]
    };
    let signed = || {
        let hand = hand.clone();
        vec![
            contestant("hand-written", move || by_hand_signed(&hand)),
            mainstay("mainstay", signed()),
            mainstay("mainstay, with an expiry", expiring()),
            contestant("serde_json of a struct, base64, unsigned", json_struct),
        ]
    };
    if !is_counted() {
        for contestant in unsigned().into_iter().chain(signed()) {
            let name = contestant.name.clone();
            let expected = if name.contains("alone") {
                ID.as_u128() as usize
            } else {
                BACK
            };
            assert_eq!(contestant.prepare().once(7), expected, "{name}");
        }
    }
    run("unsigned round trip", unsigned());
    run("signed round trip", signed());
    if !is_counted() {
        lengths();
    }
}

fn signed() -> CursorCodec {
    CursorCodec::hmac_sha256(KeyRing::new(1, [7; 32]).unwrap())
}

fn expiring() -> CursorCodec {
    signed().ttl(Duration::from_secs(60))
}

fn fingerprint() -> Fingerprint {
    Fingerprint::of(&NEWEST, ("payments", "acme"))
}

fn mainstay(name: &str, codec: CursorCodec) -> Contestant<'static> {
    let (fingerprint, keys) = (fingerprint(), [Key::Micros(MICROS), Key::Uuid(ID)]);
    contestant(name, move || {
        let cursor = codec.encode(&keys, fingerprint, NOW).unwrap();
        let read = codec.decode(&cursor, &NEWEST, fingerprint, NOW).unwrap();
        match read[..] {
            [Key::Micros(micros), Key::Uuid(id)] => back(micros, id),
            _ => unreachable!("what was written"),
        }
    })
}

fn back(micros: i64, id: Uuid) -> usize {
    (micros as usize) ^ (id.as_u128() as usize)
}

/// A version, the order's fingerprint, the keys.
const BYTES: usize = 1 + 8 + 8 + 16;
const MAC: usize = 16;

fn written() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[0] = 1;
    bytes[1..9].copy_from_slice(&[9; 8]);
    bytes[9..17].copy_from_slice(&MICROS.to_be_bytes());
    bytes[17..].copy_from_slice(ID.as_bytes());
    bytes
}

fn read(bytes: &[u8]) -> usize {
    assert!(bytes[0] == 1 && bytes[1..9] == [9; 8]);
    let micros = i64::from_be_bytes(bytes[9..17].try_into().unwrap());
    back(
        micros,
        Uuid::from_bytes(bytes[17..BYTES].try_into().unwrap()),
    )
}

fn by_hand() -> usize {
    let cursor = URL_SAFE_NO_PAD.encode(std::hint::black_box(written()));
    let mut bytes = [0; BYTES + 2];
    let length = URL_SAFE_NO_PAD.decode_slice(std::hint::black_box(&cursor), &mut bytes);
    assert_eq!(length, Ok(BYTES));
    read(&bytes)
}

fn by_hand_signed(key: &Hmac<Sha256>) -> usize {
    let mut bytes = [0; BYTES + MAC];
    bytes[..BYTES].copy_from_slice(&std::hint::black_box(written()));
    let mut mac = key.clone();
    mac.update(&bytes[..BYTES]);
    bytes[BYTES..].copy_from_slice(&mac.finalize().into_bytes()[..MAC]);
    let cursor = Cursor::new(URL_SAFE_NO_PAD.encode(bytes));

    let mut bytes = [0; BYTES + MAC + 2];
    let length = URL_SAFE_NO_PAD.decode_slice(std::hint::black_box(cursor.as_str()), &mut bytes);
    assert_eq!(length, Ok(BYTES + MAC));
    let mut mac = key.clone();
    mac.update(&bytes[..BYTES]);
    mac.verify_truncated_left(&bytes[BYTES..BYTES + MAC])
        .unwrap();
    read(&bytes)
}

#[derive(Serialize, Deserialize)]
struct Keys {
    created_at: i64,
    id: Uuid,
}

fn json_struct() -> usize {
    let keys = std::hint::black_box(Keys {
        created_at: MICROS,
        id: ID,
    });
    let cursor = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&keys).unwrap());
    let bytes = URL_SAFE_NO_PAD
        .decode(std::hint::black_box(&cursor))
        .unwrap();
    let read: Keys = serde_json::from_slice(&bytes).unwrap();
    back(read.created_at, read.id)
}

fn json_value() -> usize {
    let keys = json!({ "created_at": MICROS, "id": ID });
    let cursor = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&keys).unwrap());
    let bytes = URL_SAFE_NO_PAD
        .decode(std::hint::black_box(&cursor))
        .unwrap();
    let read: Value = serde_json::from_slice(&bytes).unwrap();
    let id = read["id"].as_str().unwrap().parse().unwrap();
    back(read["created_at"].as_i64().unwrap(), id)
}

/// Its cursors are of one column.
fn paginator_cursor() -> paginator_utils::Cursor {
    let value = CursorValue::Uuid(ID.to_string());
    paginator_utils::Cursor::new(
        "id".to_owned(),
        value,
        paginator_utils::CursorDirection::After,
    )
}

fn paginator() -> usize {
    let cursor = std::hint::black_box(paginator_cursor()).encode().unwrap();
    let read = paginator_utils::Cursor::decode(std::hint::black_box(&cursor)).unwrap();
    match read.value {
        CursorValue::Uuid(id) => id.parse::<Uuid>().unwrap().as_u128() as usize,
        _ => unreachable!("what was written"),
    }
}

/// How many characters a client has to carry.
fn lengths() {
    let keys = [Key::Micros(MICROS), Key::Uuid(ID)];
    let ours = |codec: CursorCodec| {
        let cursor = codec.encode(&keys, fingerprint(), NOW).unwrap();
        cursor.as_str().len()
    };
    let json = Keys {
        created_at: MICROS,
        id: ID,
    };
    println!("length, in characters");
    for (name, length) in [
        ("mainstay, unsigned", ours(CursorCodec::unsigned())),
        ("mainstay, signed", ours(signed())),
        ("mainstay, signed, with an expiry", ours(expiring())),
        (
            "serde_json, base64, unsigned",
            URL_SAFE_NO_PAD
                .encode(serde_json::to_vec(&json).unwrap())
                .len(),
        ),
        (
            "paginator-utils 0.4, the UUID alone, unsigned",
            paginator_cursor().encode().unwrap().len(),
        ),
    ] {
        println!("  {name:<58} {length:>10}");
        results::keep(Measure::new("length", name, length as f64, "characters"));
    }
    println!();
}
