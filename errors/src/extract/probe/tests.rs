//! What is found in refused input, and what is never said about it.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only read into")]
struct Order {
    reference: String,
    amount: u32,
    lines: Vec<Line>,
    #[serde(default)]
    kind: Option<OrderKind>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "only read into")]
struct Line {
    sku: String,
    count: u8,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only read into")]
enum OrderKind {
    Gift { note: String },
    Plain,
}

/// The violations as `pointer code`, sorted.
fn seen<T: DeserializeOwned>(value: &Value, source: Source) -> Vec<String> {
    let mut seen: Vec<_> = violations::<T>(value, source)
        .into_iter()
        .map(|misfit| misfit.violation(Location::Body))
        .map(|violation| format!("{} {}", violation.pointer(), violation.code()))
        .collect();
    seen.sort();
    seen
}

#[test]
fn every_wrong_value_is_found_in_one_answer() {
    let order = json!({
        "reference": 7,
        "surplus": true,
        "a/b~c": 1,
        "lines": [{"sku": "a", "count": 300}, 5, {"count": "x"}],
        "kind": {"gift": {"note": 1}},
    });
    assert_eq!(
        seen::<Order>(&order, Source::Json),
        [
            "/amount required",
            "/a~1b~0c unknown",
            "/kind/gift/note wrong_type",
            "/lines/0/count out_of_range",
            "/lines/1 wrong_type",
            "/lines/2/count wrong_type",
            "/lines/2/sku required",
            "/reference wrong_type",
            "/surplus unknown",
        ]
    );
}

#[test]
fn what_is_right_has_no_violations() {
    let order = json!({"reference": "r", "amount": 1, "lines": [{"sku": "a", "count": 1}], "kind": "plain"});
    assert_eq!(seen::<Order>(&order, Source::Json), [""; 0]);
}

#[test]
fn an_input_of_another_shape_is_one_violation() {
    for other in [json!(null), json!("x"), json!(7), json!(true)] {
        assert_eq!(
            seen::<Order>(&other, Source::Json),
            [" wrong_type"],
            "{other}"
        );
    }
}

#[test]
fn a_value_without_a_stand_in_does_not_hide_the_others() {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Refund {
        payment: Uuid,
        amount: u32,
        zone: Uuid,
    }
    let refund = json!({"amount": -1, "payment": "nonsense", "zone": "worse"});
    let seen = seen::<Refund>(&refund, Source::Json);
    assert!(seen.contains(&"/payment invalid".to_owned()), "{seen:?}");
    assert!(
        seen.contains(&"/amount out_of_range".to_owned()),
        "{seen:?}"
    );
}

#[test]
fn text_is_read_as_what_is_asked_for() {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Filter {
        limit: u16,
        exact: bool,
        ratio: f64,
        word: String,
        kind: Option<OrderKind>,
    }
    let good =
        json!({"limit": "20", "exact": "true", "ratio": "0.5", "word": "7", "kind": "plain"});
    assert_eq!(seen::<Filter>(&good, Source::Text), [""; 0]);
    let bad = json!({"limit": "70000", "exact": "yes", "ratio": "half", "kind": "banana"});
    assert_eq!(
        seen::<Filter>(&bad, Source::Text),
        [
            "/exact wrong_type",
            "/kind unknown_value",
            "/limit out_of_range",
            "/ratio wrong_type",
            "/word required",
        ]
    );
}

#[test]
fn no_violation_repeats_a_value_or_names_a_rust_type() {
    let secret = "hunter2";
    let order = json!({"reference": [secret], "amount": secret, "lines": secret, "kind": secret});
    let text: String = violations::<Order>(&order, Source::Json)
        .into_iter()
        .map(|misfit| misfit.violation(Location::Body).to_string())
        .collect();
    for word in [secret, "u32", "Vec", "Order", "struct"] {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

#[test]
fn a_recursive_type_ends() {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    enum Term {
        Not(Box<Term>),
        Lit(i64),
    }
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Formula {
        left: Term,
        right: Term,
    }
    let seen = seen::<Formula>(&json!({"left": {"Lit": "x"}, "right": 1}), Source::Json);
    assert_eq!(seen, ["/left/Lit wrong_type", "/right unknown_value"]);
}

#[test]
fn a_hostile_input_is_read_few_times() {
    let many: Vec<Value> = (0..100_000).map(|_| json!("x")).collect();
    let seen = seen::<Vec<u8>>(&json!(many), Source::Json);
    assert!((1..=PASSES_MAX).contains(&seen.len()), "{}", seen.len());
    let long = json!({ "k".repeat(1_000_000): "x" });
    let violation = violations::<HashMap<String, u8>>(&long, Source::Json)
        .remove(0)
        .violation(Location::Body);
    assert!(violation.pointer().len() <= 1 + SEGMENT_BYTES_MAX);
}

#[test]
fn a_number_wider_than_the_tree_can_hold_is_not_called_wrong() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Wide {
        a: u128,
        b: i128,
        small: u8,
    }
    let text = json!({
        "a": "340282366920938463463374607431768211455",
        "b": "-170141183460469231731687303715884105728",
        "small": "x",
    });
    assert_eq!(seen::<Wide>(&text, Source::Text), ["/small wrong_type"]);
    let body =
        r#"{"a":340282366920938463463374607431768211455,"b":-20000000000000000000,"small":"x"}"#;
    let body = serde_json::from_str(body).unwrap();
    assert_eq!(seen::<Wide>(&body, Source::Json), ["/small wrong_type"]);
    let body = json!({"a": 1.5, "b": "x", "small": 1});
    assert_eq!(
        seen::<Wide>(&body, Source::Json),
        ["/a wrong_type", "/b wrong_type"]
    );
}
