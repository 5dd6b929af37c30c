//! The envelope of an error; and what the drill of the example service, where all primitives meet, counts.

use super::row::{Row, at_most};
use super::{fact, peers, per, ratio};
use crate::measures::Measures;

pub fn errors(m: &Measures) -> Vec<Row> {
    let encode = ("errors", "encode a document that is there");
    let first = m.nanos(encode.0, encode.1, "hand-written struct");
    let success = |name| m.allocations("errors", "a success under the layer", name);
    let layer = success("mainstay-errors, ProblemLayer")
        .zip(success("the service alone"))
        .map(|(layered, alone)| layered - alone);
    vec![
        at_most("error envelope: encode", 1.15, "x by hand")
            .of(ratio(m.nanos(encode.0, encode.1, "mainstay-errors"), first))
            .beside(Some(1.0))
            .peer(per(first, peers(m, encode, "ns", None))),
        at_most("error envelope: layer's success path", 0.0, "allocations").of(layer),
    ]
}

pub fn faults(m: &Measures) -> Vec<Row> {
    let faults: Option<f64> = ["lost", "double", "out of order", "unresolved"]
        .iter()
        .map(|what| fact(m, &format!("drill: {what}")))
        .sum();
    vec![
        at_most(
            "faults: lost, double, out of order or unresolved in a drill",
            0.0,
            "effects",
        )
        .of(faults),
    ]
}
