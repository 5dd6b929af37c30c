//! Reading is total: every document, every damaged document, every bytes and every header give a problem, and what
//! was read can be written and read again.

use http::{HeaderMap, HeaderName, HeaderValue};
use mainstay_errors::{
    Category, DOCUMENT_BYTES_MAX, Problem, RESERVED_MEMBERS, Violation, Violations,
};
use serde_json::{Map, Value, json};

use crate::dice::{Dice, cases};

const PROBLEM: &str = "application/problem+json";

/// A value of any shape, with the words and names in it that reading looks for.
fn value(dice: &mut Dice, depth: usize) -> Value {
    const WORDS: [&str; 12] = [
        "after", "backoff", "never", "unknown", "applied", "body", "#/a%2", "/a", "#", "x:y",
        "../x", "",
    ];
    match dice.below(if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => dice.once_in(2).into(),
        2 => (dice.word().cast_signed() >> dice.below(64)).into(),
        // Quarters: serde_json reads the last bit of other fractions only with `float_roundtrip`.
        3 => (f64::from(u32::try_from(dice.word() >> 32).unwrap()) / 4.0 - 1e8).into(),
        4 => dice.text(12).into(),
        5 => dice.pick(&WORDS).into(),
        6 => (0..dice.below(4)).map(|_| value(dice, depth - 1)).collect(),
        _ => object(dice, depth - 1),
    }
}

fn object(dice: &mut Dice, depth: usize) -> Value {
    const PARTS: [&str; 3] = ["pointer", "location", "params"];
    let members = (0..dice.below(8)).map(|_| {
        let name = match dice.below(8) {
            0 => dice.text(6),
            1 => dice.pick(&PARTS).to_owned(),
            _ => dice.pick(&RESERVED_MEMBERS).to_owned(),
        };
        (name, value(dice, depth))
    });
    Value::Object(Map::from_iter(members))
}

/// What holds of every problem that was read.
fn check(problem: &Problem, case: u64) {
    assert!((400..600).contains(&problem.status()), "case {case}");
    assert!(!problem.code().is_empty(), "case {case}");
    let bytes = problem.to_bytes();
    let written: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(written["status"], problem.status(), "case {case}");
    if bytes.len() <= DOCUMENT_BYTES_MAX {
        let again = Problem::read_document(problem.status(), Some(PROBLEM), &bytes);
        let again: Value = serde_json::from_slice(&again.to_bytes()).unwrap();
        assert!(alike(&written, &again), "case {case}: {written} {again}");
    }
}

/// Equal, but for the last bits of a fraction.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| alike(a, b)))
        }
        (Value::Number(x), Value::Number(y)) if a.is_f64() && b.is_f64() => {
            let (x, y) = (x.as_f64().unwrap(), y.as_f64().unwrap());
            x == y || (x - y).abs() <= x.abs() * 1e-12
        }
        _ => a == b,
    }
}

#[test]
fn any_document_reads_and_what_was_read_can_be_written() {
    const TYPES: [&str; 5] = [PROBLEM, PROBLEM, "application/json; x", "text/plain", ""];
    for case in 0..cases() {
        let dice = &mut Dice::of(case);
        let document = object(dice, 3).to_string();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(dice.pick(&TYPES)));
        if let Ok(value) = HeaderValue::from_str(&dice.text(12)) {
            headers.insert("retry-after", value);
        }
        let statuses = if dice.once_in(8) { 65_536 } else { 700 };
        let status = u16::try_from(dice.below(statuses)).unwrap();
        check(&Problem::read(status, &headers, document.as_bytes()), case);
    }
}

/// A valid document, with every member there is.
fn whole() -> Vec<u8> {
    let document = json!({
        "type": "https://example.com/problems/x#y", "title": "Title", "status": 422, "detail": "Text \u{e9}\n.",
        "instance": "/orders/7?x=1", "code": "order_invalid", "retry": "after", "retry_after": 12,
        "outcome": "not_applied", "request_id": "01a-b_c.d",
        "errors": [{"pointer": "#/a~1b", "location": "query", "code": "too_small", "detail": "at least 1", "params": {"min": 1}}],
        "balance": -30.25, "nested": {"list": [1, null, {"deep": [[[]]]}]},
    });
    document.to_string().into_bytes()
}

/// What is put into documents, where bytes alone would take ages to find it.
const SNIPPETS: [&[u8]; 20] = [
    b"1e999",
    b"-1e999",
    b"1e-999",
    b"\"\\ud800\"",
    b"\\ud800",
    b"\\udc00\\ud800",
    b"\\u0000",
    b"\0",
    b"99999999999999999999999999999999999999",
    b"0.1",
    b"-0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xc3",
    b"null",
    b"\"code\":\"\",",
    b"\"status\":1e2,",
    b"{}",
    b"[[[[[[[[[[[[[[[[",
    b"\"errors\":[{\"pointer\":\"%\"}],",
];

fn damage(document: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.below(document.len() + 1);
    let to = (at + dice.below(12)).min(document.len());
    match dice.below(8) {
        0 if at < to => document[at] ^= 1 << dice.below(8),
        1 => drop(document.drain(at..to)),
        2 => document.insert(at, dice.word().to_le_bytes()[0]),
        3 => {
            let again = document[at..to].to_vec();
            let from = dice.below(document.len() + 1);
            document.splice(from..from, again).for_each(drop);
        }
        4 => document.truncate(to),
        // In the place of a value, which is where most of them do anything.
        5 | 6 => {
            let values: Vec<_> = (0..document.len())
                .filter(|at| document[*at] == b':')
                .collect();
            let snippet = SNIPPETS[dice.below(SNIPPETS.len())].iter().copied();
            if !values.is_empty() {
                let at = values[dice.below(values.len())] + 1;
                let value = document[at..].iter().position(|b| matches!(b, b',' | b'}'));
                let end = value.map_or(at, |length| at + length);
                document.splice(at..end, snippet).for_each(drop);
            }
        }
        _ => {
            let snippet = SNIPPETS[dice.below(SNIPPETS.len())].iter().copied();
            document.splice(at..at, snippet).for_each(drop);
        }
    }
}

#[test]
fn any_damaged_document_reads() {
    let whole = whole();
    let mut read = 0;
    for case in 0..cases() {
        let dice = &mut Dice::of(case);
        let mut document = whole.clone();
        for _ in 0..=dice.below(6) {
            damage(&mut document, dice);
        }
        let problem = Problem::read_document(422, Some(PROBLEM), &document);
        check(&problem, case);
        read += u64::from(problem.code() == "order_invalid");
    }
    // Else the damage is too great to say anything about reading.
    assert!(read > cases() / 20, "{read}");
}

#[test]
fn documents_at_the_bound_and_of_any_depth_read() {
    for bytes in DOCUMENT_BYTES_MAX - 2..=DOCUMENT_BYTES_MAX + 2 {
        for fill in [" ", "x", "\\u0001", "é"] {
            let frame = r#"{"code":"c","fill":""}"#.len();
            let times = (bytes - frame) / fill.len();
            let mut body =
                format!(r#"{{"code":"c","fill":"{}"}}"#, fill.repeat(times)).into_bytes();
            body.resize(bytes, b' ');
            let problem = Problem::read_document(404, Some(PROBLEM), &body);
            let wanted = if bytes <= DOCUMENT_BYTES_MAX {
                "c"
            } else {
                "not_found"
            };
            assert_eq!(problem.code(), wanted, "{bytes} {fill}");
        }
    }
    for depth in [1, 64, 120, 126, 127, 128, 129, 1000, 30_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let inner = if open == "[" { "" } else { "0" };
            let (open, close) = (open.repeat(depth), close.repeat(depth));
            for body in [
                format!(r#"{{"code":"c","deep":{open}{inner}{close}}}"#),
                format!(r#"{{"code":"c","deep":{open}"#),
                format!("{open}{inner}{close}"),
            ] {
                check(
                    &Problem::read_document(404, Some(PROBLEM), body.as_bytes()),
                    depth as u64,
                );
            }
        }
    }
}

#[test]
fn any_bytes_and_any_header_read() {
    const NAMES: [&str; 6] = [
        "retry-after",
        "date",
        "x-request-id",
        "content-type",
        "content-encoding",
        "x",
    ];
    for case in 0..cases() {
        let dice = &mut Dice::of(case);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(PROBLEM));
        for _ in 0..dice.below(3) {
            let name = HeaderName::from_static(dice.pick(&NAMES));
            if let Ok(value) = HeaderValue::from_bytes(&dice.bytes(24)) {
                headers.append(name, value);
            }
        }
        let problem = Problem::read(503, &headers, &dice.bytes(60));
        assert_eq!(problem.status(), 503, "case {case}");
        assert_eq!(problem.category(), Category::Unavailable, "case {case}");
    }
}

#[test]
fn violations_survive_the_wire() {
    let found = Violations::from_iter([
        Violation::body("/lines/0/a~1b", "too_small").with_detail("at least 1"),
        Violation::header("X-Tenant", "required"),
    ]);
    let sent = Problem::from(found.clone());
    let read = Problem::read_document(422, Some(PROBLEM), &sent.to_bytes());
    assert_eq!(read.errors(), found.as_slice());
    assert_eq!(read.category(), Category::InvalidArgument);
}
