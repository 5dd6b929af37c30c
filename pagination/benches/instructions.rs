//! One cursor operation many times over, for an instruction counter: `instructions <operation> <iterations>`.
//!
//! With two numbers of iterations under `valgrind --tool=callgrind`, an operation costs (Ir₂ - Ir₁) / (n₂ - n₁)
//! instructions, whatever the start of the program costs; the same difference of wall times gives nanoseconds.
//! Without arguments every operation runs a few times, which is what `cargo bench` and `cargo test --benches` do.
//!
//! An operation is a round trip of (timestamp, uuid): encode, then decode what came out. `signed_by_hand` is the
//! lower bound of `signed`: the same bytes written and read by code that knows this one order, with the same two HMACs
//! from a cached key state. `json` is what peers do, without a signature.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark"
)]

use std::hint::black_box;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use mainstay_pagination::{
    Column, Cursor, CursorCodec, CursorError, Fingerprint, Key, KeyRing, KeysetDef, PageDb,
    PageRequest, Probe,
};
use sha2::Sha256;
use sqlx::{MySql, Postgres, QueryBuilder, Sqlite};
use uuid::Uuid;

const NEWEST: KeysetDef = KeysetDef::new("payments.newest")
    .desc(Column::timestamptz("created_at").not_null())
    .unique_desc(Column::uuid("id").not_null());

/// Three ranges on SQLite.
const RANKED: KeysetDef = KeysetDef::new("payments.ranked")
    .desc(Column::i64("rank").nulls_last())
    .unique_asc(Column::uuid("id").not_null());

const MICROS: i64 = 1_700_000_000_123_456;
const ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
const NOW: SystemTime = UNIX_EPOCH;

type Operation = (&'static str, fn(u64));

const OPERATIONS: &[Operation] = &[
    ("unsigned", |n| codec(n, &CursorCodec::unsigned())),
    ("signed", |n| codec(n, &signed())),
    ("signed_with_ttl", |n| {
        codec(n, &signed().ttl(Duration::from_secs(60)));
    }),
    ("signed_by_hand", by_hand),
    #[cfg(feature = "aead")]
    ("sealed", |n| {
        codec(n, &CursorCodec::aead(&KeyRing::new(1, [7; 32]).unwrap()));
    }),
    ("json", json),
    ("fingerprint", fingerprint),
    ("sql_row_value", |n| {
        sql::<Postgres>(
            n,
            &NEWEST,
            Probe::Lazy,
            &[Key::Micros(MICROS), Key::Uuid(ID)],
        );
    }),
    ("sql_exact_probe", |n| {
        sql::<Postgres>(
            n,
            &NEWEST,
            Probe::Exact,
            &[Key::Micros(MICROS), Key::Uuid(ID)],
        );
    }),
    ("sql_ranges", |n| {
        sql::<Sqlite>(n, &RANKED, Probe::Lazy, &[Key::I64(5), Key::Uuid(ID)]);
    }),
    ("sql_or", |n| {
        sql::<MySql>(
            n,
            &NEWEST,
            Probe::Lazy,
            &[Key::Micros(MICROS), Key::Uuid(ID)],
        );
    }),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [name, iterations] => {
            let found = OPERATIONS.iter().find(|(known, _)| known == name);
            let Some((_, run)) = found else {
                panic!("no operation {name}");
            };
            run(iterations.parse().unwrap());
        }
        // Cargo passes flags of its own.
        _ => {
            for (name, run) in OPERATIONS {
                run(10);
                println!("{name}: ok");
            }
        }
    }
}

fn signed() -> CursorCodec {
    CursorCodec::hmac_sha256(KeyRing::new(1, [7; 32]).unwrap())
}

fn codec(n: u64, codec: &CursorCodec) {
    let fingerprint = Fingerprint::of(&NEWEST, ("payments", "acme"));
    let keys = [Key::Micros(MICROS), Key::Uuid(ID)];
    for _ in 0..n {
        let cursor = codec.encode(black_box(&keys), fingerprint, NOW).unwrap();
        let read = codec.decode(black_box(&cursor), &NEWEST, fingerprint, NOW);
        assert!(black_box(&read).is_ok());
    }
}

/// What it costs at least, with nothing but this order in mind.
fn by_hand(n: u64) {
    let key = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
    let fingerprint = [9; 8];
    for _ in 0..n {
        let cursor = encode_by_hand(&key, fingerprint, black_box(MICROS), black_box(ID));
        let read = decode_by_hand(&key, fingerprint, black_box(&cursor));
        assert!(black_box(&read).is_ok());
    }
}

/// Version and flags, key id, fingerprint, timestamp, UUID, MAC.
const SIGNED_BYTES: usize = 2 + 8 + 9 + 17;
const BYTES: usize = SIGNED_BYTES + 16;

fn encode_by_hand(key: &Hmac<Sha256>, fingerprint: [u8; 8], micros: i64, id: Uuid) -> Cursor {
    let mut bytes = [0; BYTES];
    bytes[0] = 0x11;
    bytes[1] = 1;
    bytes[2..10].copy_from_slice(&fingerprint);
    bytes[10] = 8;
    bytes[11..19].copy_from_slice(&micros.to_be_bytes());
    bytes[19] = 7;
    bytes[20..36].copy_from_slice(id.as_bytes());
    let mut mac = key.clone();
    mac.update(&bytes[..SIGNED_BYTES]);
    bytes[SIGNED_BYTES..].copy_from_slice(&mac.finalize().into_bytes()[..16]);
    Cursor::new(URL_SAFE_NO_PAD.encode(bytes))
}

fn decode_by_hand(
    key: &Hmac<Sha256>,
    fingerprint: [u8; 8],
    cursor: &Cursor,
) -> Result<(i64, Uuid), CursorError> {
    let mut bytes = [0; BYTES + 2];
    let len = URL_SAFE_NO_PAD
        .decode_slice(cursor.as_str(), &mut bytes)
        .map_err(|_| CursorError::Malformed)?;
    if len != BYTES || bytes[0] != 0x11 || bytes[1] != 1 {
        return Err(CursorError::Malformed);
    }
    let mut mac = key.clone();
    mac.update(&bytes[..SIGNED_BYTES]);
    mac.verify_truncated_left(&bytes[SIGNED_BYTES..BYTES])
        .map_err(|_| CursorError::BadSignature)?;
    if bytes[2..10] != fingerprint {
        return Err(CursorError::WrongQuery);
    }
    if bytes[10] != 8 || bytes[19] != 7 {
        return Err(CursorError::Malformed);
    }
    let micros = i64::from_be_bytes(bytes[11..19].try_into().unwrap());
    Ok((micros, Uuid::from_bytes(bytes[20..36].try_into().unwrap())))
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Json {
    created_at: i64,
    id: Uuid,
}

/// The usual cursor: a JSON document in base64, which anybody can make.
fn json(n: u64) {
    let key = Json {
        created_at: MICROS,
        id: ID,
    };
    for _ in 0..n {
        let cursor = URL_SAFE_NO_PAD.encode(serde_json::to_vec(black_box(&key)).unwrap());
        let bytes = URL_SAFE_NO_PAD.decode(black_box(&cursor)).unwrap();
        let read: Json = serde_json::from_slice(&bytes).unwrap();
        black_box((read.created_at, read.id));
    }
}

/// What a request pays to bind its cursors to endpoint and tenant.
fn fingerprint(n: u64) {
    for _ in 0..n {
        black_box(Fingerprint::of(&NEWEST, black_box(("payments", "acme"))));
    }
}

/// A page's statement, its cursor read and its parameters bound: all of a page that is not the database's.
fn sql<D: PageDb>(n: u64, order: &KeysetDef, probe: Probe, keys: &[Key]) {
    let codec = CursorCodec::unsigned();
    let list = order
        .select(|q: &mut QueryBuilder<D>| {
            q.push("SELECT id, created_at, rank FROM payment WHERE tenant = 1");
        })
        .unbound()
        .previous(probe)
        .now(NOW);
    let cursor = codec.encode(keys, Fingerprint::of(order, ()), NOW).unwrap();
    let request = PageRequest::first(20).after(cursor);
    for _ in 0..n {
        drop(black_box(list.plan(black_box(&request), &codec).unwrap()));
    }
}
