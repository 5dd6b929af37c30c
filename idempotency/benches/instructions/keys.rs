//! What a keyed request costs before the store is asked.

use std::hint::black_box;

use mainstay_idempotency::{Covers, Key, Parse, Scope};

use crate::Operation;

pub const OPERATIONS: &[Operation] = &[
    ("parse", |n| {
        let value = b"\"018f22e2-79b0-7cc3-98c4-dc0c0c07398f\"";
        each(n, || Key::parse(black_box(value), Parse::Lenient).unwrap());
    }),
    ("scope", |n| {
        each(n, || Scope::new(black_box("acme"), "alice", "pay"));
    }),
    ("fingerprint: 1 KiB", |n| of(Covers::Body, n)),
    ("fingerprint: 1 KiB of JSON", |n| {
        of(Covers::CanonicalJson, n);
    }),
    ("fingerprint: two fields", |n| {
        of(Covers::Fields(&["/amount", "/currency"]), n);
    }),
];

fn of(covers: Covers, iterations: u64) {
    let memo = "m".repeat(980);
    let body = format!(r#"{{"amount":1250,"currency":"EUR","memo":"{memo}"}}"#);
    each(iterations, || {
        covers.fingerprint("POST", "/payments", black_box(&body))
    });
}

fn each<T>(iterations: u64, operation: impl Fn() -> T) {
    for _ in 0..iterations {
        black_box(operation());
    }
}
