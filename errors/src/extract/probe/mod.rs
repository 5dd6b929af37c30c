//! Finds every value of a refused input that can be seen to be wrong.
//!
//! A derived `Deserialize` stops at its first mistake. So the input is read again and again: a value
//! that was refused is answered with a stand-in of whatever type is asked for next time, a member that
//! was missing is invented, an unknown one is hidden, and reading comes as far as the next mistake.
//! A value for which no stand-in passes (a UUID, a checked newtype) is read last. This runs only for
//! input that was refused already; [`PASSES_MAX`] and [`NODES_MAX`] bound it.
//!
//! What is reported comes from *which* question could not be answered, never from an error's text: text
//! repeats values and names Rust types.

mod access;
mod reader;
mod stop;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use self::reader::{Context, Probe};
use self::stop::{Member, Stop};
use crate::violation::segment;
use crate::{Location, Violation};

/// The most times an input is read, and with it the most mistakes that are reported.
const PASSES_MAX: usize = 32;

/// No further pass starts once this many values were looked at: a large input is read few times.
const NODES_MAX: usize = 200_000;

/// How deep stand-ins nest, so that a recursive type ends.
const STAND_INS_MAX: usize = 16;

/// The longest segment of a pointer that is made of the client's own input, in bytes.
const SEGMENT_BYTES_MAX: usize = 128;

/// Where scalars come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extract) enum Source {
    /// JSON: a number is a number.
    Json,
    /// Text of an address: `7` may be a number, a string, …
    Text,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::extract) struct Misfit {
    at: Vec<String>,
    kind: Kind,
    asked: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    WrongType,
    OutOfRange,
    Required,
    UnknownMember,
    UnknownValue(&'static [&'static str]),
    Repeated,
    WrongLength,
    /// A check of the type itself; what it says is not known to be public.
    Invalid,
}

impl Misfit {
    pub(in crate::extract) fn repeated(name: &str) -> Self {
        Self {
            at: vec![name.to_owned()],
            kind: Kind::Repeated,
            asked: "",
        }
    }

    pub(in crate::extract) fn is_root(&self) -> bool {
        self.at.is_empty()
    }

    pub(in crate::extract) fn is_required(&self) -> bool {
        self.kind == Kind::Required
    }

    /// Moves the place under a name.
    pub(in crate::extract) fn under(mut self, name: &str) -> Self {
        self.at.insert(0, name.to_owned());
        self
    }

    /// Replaces a leading index by the name of that parameter.
    pub(in crate::extract) fn named(mut self, params: &[(String, String)]) -> Self {
        if let Some(first) = self.at.first_mut()
            && let Some((name, _)) = first.parse().ok().and_then(|at: usize| params.get(at))
        {
            first.clone_from(name);
        }
        self
    }

    pub(in crate::extract) fn violation(self, location: Location) -> Violation {
        let pointer: String = self.at.iter().map(|part| segment(short(part))).collect();
        let is = |code| Violation::new(location, pointer.clone(), code);
        match self.kind {
            Kind::WrongType => is("wrong_type").with_detail(format!("must be {}", self.asked)),
            Kind::OutOfRange => is("out_of_range").with_detail(format!("must be {}", self.asked)),
            Kind::Required => is("required").with_detail("is required"),
            Kind::UnknownMember => is("unknown").with_detail("is not known here"),
            Kind::UnknownValue(known) => {
                is("unknown_value").with_detail(format!("must be one of: {}", known.join(", ")))
            }
            Kind::Repeated => is("repeated").with_detail("must be given once"),
            Kind::WrongLength => is("wrong_length"),
            Kind::Invalid => is("invalid"),
        }
    }
}

/// The front of a segment, long enough to find it by.
pub(in crate::extract) fn short(part: &str) -> &str {
    part.get(..part.floor_char_boundary(SEGMENT_BYTES_MAX))
        .unwrap_or_default()
}

/// Reads `root` as a `T` until nothing new turns up.
pub(in crate::extract) fn violations<T: DeserializeOwned>(
    root: &Value,
    source: Source,
) -> Vec<Misfit> {
    let mut plan = Plan::default();
    let mut found = Vec::new();
    let nodes = Cell::new(0);
    for _ in 0..PASSES_MAX {
        let context = Context {
            source,
            nodes: &nodes,
        };
        let Err(stop) = T::deserialize(Probe::of(root, Some(&plan), None, context)) else {
            break;
        };
        let (progress, misfit) = plan.learn(stop);
        found.extend(misfit);
        if !progress || nodes.get() > NODES_MAX {
            break;
        }
    }
    found
}

/// What earlier passes taught, as a tree beside the input.
#[derive(Default)]
struct Plan {
    mark: Option<Mark>,
    members: BTreeMap<String, Plan>,
    /// Members to invent, in the order in which they were missed.
    invent: Vec<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Answer with a stand-in.
    StandIn,
    /// Not even a stand-in passes: read it last.
    Stuck,
    /// Hide the member.
    Hidden,
}

impl Plan {
    /// Takes in where a pass stopped: whether another pass can come further, and what to report.
    fn learn(&mut self, stop: Stop) -> (bool, Option<Misfit>) {
        let Stop {
            kind,
            at,
            asked,
            member,
        } = stop;
        let mut at = at.unwrap_or_default();
        let is_root = at.is_empty();
        let mut node = self;
        for part in &at {
            node = node.members.entry(part.clone()).or_default();
        }
        match member {
            Some(Member::Missing(name)) => {
                at.push(name.to_owned());
                if node.invent.contains(&name) {
                    return (false, None);
                }
                node.invent.push(name);
                node.members.entry(name.to_owned()).or_default().mark = Some(Mark::StandIn);
            }
            Some(Member::Unknown(name)) => {
                at.push(name.clone());
                if node
                    .members
                    .entry(name)
                    .or_default()
                    .mark
                    .replace(Mark::Hidden)
                    .is_some()
                {
                    return (false, None);
                }
            }
            None => match node.mark {
                None => node.mark = Some(Mark::StandIn),
                // Reported when it was marked first.
                Some(Mark::StandIn) => {
                    node.mark = Some(Mark::Stuck);
                    return (!is_root, None);
                }
                Some(Mark::Stuck | Mark::Hidden) => return (false, None),
            },
        }
        let progress = !(is_root && node_is_marked(kind));
        (
            progress,
            Some(Misfit {
                at,
                kind,
                asked: asked.unwrap_or("different"),
            }),
        )
    }
}

/// A mistake of the whole input leaves nothing to look at.
fn node_is_marked(kind: Kind) -> bool {
    !matches!(kind, Kind::Required | Kind::UnknownMember)
}
