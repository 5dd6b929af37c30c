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

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _,
    IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_json::{Map, Value};

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
pub(super) enum Source {
    /// JSON: a number is a number.
    Json,
    /// Text of an address: `7` may be a number, a string, …
    Text,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
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
    pub(super) fn repeated(name: &str) -> Self {
        Self {
            at: vec![name.to_owned()],
            kind: Kind::Repeated,
            asked: "",
        }
    }

    pub(super) fn is_root(&self) -> bool {
        self.at.is_empty()
    }

    /// Moves the place under a name.
    pub(super) fn under(mut self, name: &str) -> Self {
        self.at.insert(0, name.to_owned());
        self
    }

    /// Replaces a leading index by the name of that parameter.
    pub(super) fn named(mut self, params: &[(String, String)]) -> Self {
        if let Some(first) = self.at.first_mut()
            && let Some((name, _)) = first.parse().ok().and_then(|at: usize| params.get(at))
        {
            first.clone_from(name);
        }
        self
    }

    pub(super) fn violation(self, location: Location) -> Violation {
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

fn short(part: &str) -> &str {
    part.get(..part.floor_char_boundary(SEGMENT_BYTES_MAX))
        .unwrap_or_default()
}

/// Reads `root` as a `T` until nothing new turns up.
pub(super) fn violations<T: DeserializeOwned>(root: &Value, source: Source) -> Vec<Misfit> {
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

/// Why a pass stopped.
#[derive(Debug)]
struct Stop {
    kind: Kind,
    at: Option<Vec<String>>,
    asked: Option<&'static str>,
    member: Option<Member>,
}

#[derive(Debug)]
enum Member {
    Missing(&'static str),
    Unknown(String),
}

impl Stop {
    fn of(kind: Kind) -> Self {
        Self {
            kind,
            at: None,
            asked: None,
            member: None,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self::of(Kind::Invalid)
    }

    fn invalid_type(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Self::of(Kind::WrongType)
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        use de::Unexpected::{Float, Signed, Unsigned};
        Self::of(match unexpected {
            Unsigned(_) | Signed(_) | Float(_) => Kind::OutOfRange,
            _ => Kind::Invalid,
        })
    }

    fn invalid_length(_: usize, _: &dyn de::Expected) -> Self {
        Self::of(Kind::WrongLength)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::of(Kind::UnknownValue(expected))
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self {
            member: Some(Member::Unknown(field.to_owned())),
            ..Self::of(Kind::UnknownMember)
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            member: Some(Member::Missing(field)),
            ..Self::of(Kind::Required)
        }
    }

    fn duplicate_field(_: &'static str) -> Self {
        Self::of(Kind::Repeated)
    }
}

#[derive(Clone, Copy)]
struct Context<'a> {
    source: Source,
    nodes: &'a Cell<usize>,
}

/// The way from the root, on the stack of the reader.
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    part: Part<'a>,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Member(&'a str),
    Index(usize),
}

impl Path<'_> {
    fn parts(&self) -> Vec<String> {
        let mut parts = self.parent.map(Path::parts).unwrap_or_default();
        parts.push(match self.part {
            Part::Member(name) => name.to_owned(),
            Part::Index(at) => at.to_string(),
        });
        parts
    }
}

/// One value being read.
#[derive(Clone, Copy)]
struct Probe<'a> {
    node: Node<'a>,
    plan: Option<&'a Plan>,
    path: Option<&'a Path<'a>>,
    context: Context<'a>,
}

#[derive(Clone, Copy)]
enum Node<'a> {
    Value(&'a Value),
    Text(&'a str),
    /// The name of a member: what is wrong with it is located at the object.
    Name(&'a str),
    /// Whatever is asked for; the number is how deep stand-ins are nested.
    StandIn(usize),
}

impl<'a> Probe<'a> {
    fn of(
        value: &'a Value,
        plan: Option<&'a Plan>,
        path: Option<&'a Path<'a>>,
        context: Context<'a>,
    ) -> Self {
        context.nodes.set(context.nodes.get() + 1);
        let node = match (plan.and_then(|plan| plan.mark), value) {
            (Some(Mark::StandIn | Mark::Stuck), _) => Node::StandIn(0),
            (_, Value::String(text)) if context.source == Source::Text => Node::Text(text),
            _ => Node::Value(value),
        };
        Self {
            node,
            plan,
            path,
            context,
        }
    }

    fn stand_in(self, depth: usize) -> Result<Self, Stop> {
        if depth > STAND_INS_MAX {
            return Err(Stop::of(Kind::Invalid));
        }
        Ok(Self {
            node: Node::StandIn(depth),
            plan: None,
            ..self
        })
    }

    /// Says where and what was asked, unless a value further in has said so.
    fn locate(self, mut stop: Stop, asked: &'static str) -> Stop {
        let is_inner = matches!(self.node, Node::StandIn(1..) | Node::Name(_));
        if stop.at.is_some() || is_inner {
            return stop;
        }
        // A stand-in's troubles are its own: what it lacks is not missing from the input.
        if matches!(self.node, Node::StandIn(0)) {
            stop = Stop::of(Kind::Invalid);
        }
        // The right type was there; something behind it (a flattened part, an untagged choice) was not.
        let has_type = match self.node {
            Node::Value(Value::Object(_)) => asked == OBJECT,
            Node::Value(Value::Array(_)) => asked == ARRAY,
            _ => false,
        };
        if stop.kind == Kind::WrongType && has_type {
            stop.kind = Kind::Invalid;
        }
        stop.at = Some(self.path.map(Path::parts).unwrap_or_default());
        stop.asked = Some(asked);
        stop
    }

    /// [`natural`](Self::natural) for values of one type, as serde_json is strict about it: some
    /// visitors would take more than they were asked to take.
    fn only<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        is_type: fn(&Value) -> bool,
    ) -> Result<V::Value, Stop> {
        match self.node {
            Node::Value(value) if !is_type(value) => Err(Stop::of(Kind::WrongType)),
            _ => self.natural(visitor),
        }
    }

    /// Hands the value over as it is.
    fn natural<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.node {
            Node::Value(Value::Null) | Node::StandIn(_) => visitor.visit_unit(),
            Node::Value(Value::Bool(value)) => visitor.visit_bool(*value),
            Node::Value(Value::Number(number)) => {
                match (number.as_u64(), number.as_i64(), number.as_f64()) {
                    (Some(value), ..) => visitor.visit_u64(value),
                    (_, Some(value), _) => visitor.visit_i64(value),
                    (.., Some(value)) => visitor.visit_f64(value),
                    _ => Err(Stop::of(Kind::OutOfRange)),
                }
            }
            Node::Value(Value::String(text)) => visitor.visit_str(text),
            Node::Text(text) | Node::Name(text) => visitor.visit_str(text),
            Node::Value(Value::Array(values)) => {
                let mut elements = Elements {
                    probe: self,
                    values,
                    next: 0,
                };
                let value = visitor.visit_seq(&mut elements)?;
                // As serde_json: what a tuple leaves unread is too much.
                if elements.next < values.len() {
                    Err(Stop::of(Kind::WrongLength))
                } else {
                    Ok(value)
                }
            }
            Node::Value(Value::Object(members)) => visitor.visit_map(Members::of(self, members)),
        }
    }

    fn number<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        asked: &'static str,
    ) -> Result<V::Value, Stop> {
        let result = match self.node {
            Node::StandIn(_) => visitor.visit_u64(1),
            Node::Text(text) | Node::Name(text) => {
                if let Ok(value) = text.parse::<u64>() {
                    visitor.visit_u64(value)
                } else if let Ok(value) = text.parse::<i64>() {
                    visitor.visit_i64(value)
                } else if text.parse::<i128>().is_ok() {
                    Err(Stop::of(Kind::OutOfRange))
                } else {
                    Err(Stop::of(Kind::WrongType))
                }
            }
            Node::Value(_) => self.only(visitor, Value::is_number),
        };
        result.map_err(|stop| self.locate(stop, asked))
    }
}

const OBJECT: &str = "an object";
const ARRAY: &str = "an array";

macro_rules! numbers {
    ($($method:ident $asked:literal)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            self.number(visitor, $asked)
        })*
    };
}

macro_rules! texts {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            let result = match self.node {
                Node::StandIn(_) => visitor.visit_str("x"),
                _ => self.only(visitor, Value::is_string),
            };
            result.map_err(|stop| self.locate(stop, "a string"))
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    numbers! {
        deserialize_u8 "an integer from 0 to 255"
        deserialize_u16 "an integer from 0 to 65535"
        deserialize_u32 "an integer from 0 to 4294967295"
        deserialize_u64 "an integer of at least 0"
        deserialize_u128 "an integer of at least 0"
        deserialize_i8 "an integer from -128 to 127"
        deserialize_i16 "an integer from -32768 to 32767"
        deserialize_i32 "an integer from -2147483648 to 2147483647"
        deserialize_i64 "an integer"
        deserialize_i128 "an integer"
    }

    texts! { deserialize_char deserialize_str deserialize_string }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let asked = match self.node {
            Node::Value(Value::Object(_)) => OBJECT,
            Node::Value(Value::Array(_)) => ARRAY,
            _ => "different",
        };
        self.natural(visitor)
            .map_err(|stop| self.locate(stop, asked))
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let result = match self.node {
            Node::StandIn(_) => visitor.visit_bytes(b"x"),
            _ => self.only(visitor, |value| value.is_string() || value.is_array()),
        };
        result.map_err(|stop| self.locate(stop, "a string"))
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let result = match self.node {
            Node::StandIn(_) | Node::Text("true") => visitor.visit_bool(true),
            Node::Text("false") => visitor.visit_bool(false),
            _ => self.only(visitor, Value::is_boolean),
        };
        result.map_err(|stop| self.locate(stop, "true or false"))
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let result = match self.node {
            Node::StandIn(_) => visitor.visit_f64(1.0),
            Node::Text(text) => match text.parse() {
                Ok(value) => visitor.visit_f64(value),
                Err(_) => Err(Stop::of(Kind::WrongType)),
            },
            _ => self.only(visitor, Value::is_number),
        };
        result.map_err(|stop| self.locate(stop, "a number"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.node {
            Node::Value(Value::Null) | Node::StandIn(_) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.natural(visitor)
            .map_err(|stop| self.locate(stop, "null"))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        // Its own check, if it has one, speaks about the value inside.
        visitor
            .visit_newtype_struct(self)
            .map_err(|stop| self.locate(stop, "different"))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let result = match self.node {
            Node::StandIn(_) => visitor.visit_seq(StandIns {
                probe: self,
                left: 0,
            }),
            _ => self.only(visitor, Value::is_array),
        };
        result.map_err(|stop| self.locate(stop, ARRAY))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        let result = match self.node {
            Node::StandIn(_) => visitor.visit_seq(StandIns {
                probe: self,
                left: len,
            }),
            _ => self.only(visitor, Value::is_array),
        };
        result.map_err(|stop| self.locate(stop, ARRAY))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let result = match self.node {
            Node::StandIn(_) => visitor.visit_map(Members::invented(self, &[])),
            _ => self.only(visitor, Value::is_object),
        };
        result.map_err(|stop| self.locate(stop, OBJECT))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let result = match self.node {
            Node::StandIn(_) => visitor.visit_map(Members::invented(self, fields)),
            _ => self.only(visitor, |value| value.is_object() || value.is_array()),
        };
        result.map_err(|stop| self.locate(stop, OBJECT))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let choice = match self.node {
            Node::Value(Value::String(name)) => Ok(Choice {
                probe: self,
                name,
                content: None,
            }),
            Node::Text(name) | Node::Name(name) => Ok(Choice {
                probe: self,
                name,
                content: None,
            }),
            Node::Value(Value::Object(members)) if members.len() == 1 => members
                .iter()
                .next()
                .map(|(name, content)| Choice {
                    probe: self,
                    name,
                    content: Some(content),
                })
                .ok_or_else(|| Stop::of(Kind::WrongType)),
            Node::StandIn(_) => variants
                .first()
                .map(|name| Choice {
                    probe: self,
                    name,
                    content: None,
                })
                .ok_or_else(|| Stop::of(Kind::Invalid)),
            Node::Value(_) => Err(Stop::of(Kind::UnknownValue(variants))),
        };
        choice
            .and_then(|choice| visitor.visit_enum(choice))
            .map_err(|stop| self.locate(stop, "a known value"))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.natural(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }
}

/// The elements of an array.
struct Elements<'a> {
    probe: Probe<'a>,
    values: &'a [Value],
    next: usize,
}

impl<'de> SeqAccess<'de> for &mut Elements<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Stop> {
        let Some(value) = self.values.get(self.next) else {
            return Ok(None);
        };
        let path = Path {
            parent: self.probe.path,
            part: Part::Index(self.next),
        };
        // Most arrays have no plan; only those that do pay for the text of an index.
        let plan = self.probe.plan.filter(|plan| !plan.members.is_empty());
        let plan = plan.and_then(|plan| plan.members.get(&self.next.to_string()));
        self.next += 1;
        seed.deserialize(Probe::of(value, plan, Some(&path), self.probe.context))
            .map(Some)
    }
}

/// As many stand-ins as a tuple asks for.
struct StandIns<'a> {
    probe: Probe<'a>,
    left: usize,
}

impl StandIns<'_> {
    fn depth(&self) -> usize {
        depth(self.probe)
    }
}

fn depth(probe: Probe<'_>) -> usize {
    match probe.node {
        Node::StandIn(depth) => depth + 1,
        _ => 0,
    }
}

impl<'de> SeqAccess<'de> for StandIns<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Stop> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(self.probe.stand_in(self.depth())?)
            .map(Some)
    }
}

/// The members of an object, those that are stuck last, then those that are invented.
struct Members<'a> {
    probe: Probe<'a>,
    names: std::vec::IntoIter<(&'a str, Option<&'a Value>)>,
    current: Option<(&'a str, Option<&'a Value>)>,
}

impl<'a> Members<'a> {
    fn of(probe: Probe<'a>, members: &'a Map<String, Value>) -> Self {
        let mark = |name: &str| {
            probe
                .plan
                .and_then(|plan| plan.members.get(name))
                .and_then(|plan| plan.mark)
        };
        let mut names: Vec<(&str, Option<&Value>)> = members
            .iter()
            .filter(|(name, _)| mark(name) != Some(Mark::Hidden))
            .map(|(name, value)| (name.as_str(), Some(value)))
            .collect();
        names.extend(
            probe
                .plan
                .iter()
                .flat_map(|plan| &plan.invent)
                .map(|name| (*name, None)),
        );
        names.sort_by_key(|(name, _)| mark(name) == Some(Mark::Stuck));
        Self {
            probe,
            names: names.into_iter(),
            current: None,
        }
    }

    fn invented(probe: Probe<'a>, fields: &'static [&'static str]) -> Self {
        let names: Vec<(&str, Option<&Value>)> = fields.iter().map(|name| (*name, None)).collect();
        Self {
            probe,
            names: names.into_iter(),
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stop> {
        self.current = self.names.next();
        let Some((name, _)) = self.current else {
            return Ok(None);
        };
        seed.deserialize(Probe {
            node: Node::Name(name),
            ..self.probe
        })
        .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let Some((name, value)) = self.current.take() else {
            return Err(Stop::custom("a value was asked for before its name"));
        };
        let path = Path {
            parent: self.probe.path,
            part: Part::Member(name),
        };
        let plan = self.probe.plan.and_then(|plan| plan.members.get(name));
        let probe = Probe {
            path: Some(&path),
            ..self.probe
        };
        match value {
            Some(value) => {
                seed.deserialize(Probe::of(value, plan, Some(&path), self.probe.context))
            }
            None => seed.deserialize(probe.stand_in(depth(self.probe))?),
        }
    }
}

/// A variant of an enum.
struct Choice<'a> {
    probe: Probe<'a>,
    name: &'a str,
    content: Option<&'a Value>,
}

impl<'de, 'a> EnumAccess<'de> for Choice<'a> {
    type Error = Stop;
    type Variant = Content<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Content<'a>), Stop> {
        let name: de::value::StrDeserializer<'_, Stop> = self.name.into_deserializer();
        let variant = seed.deserialize(name)?;
        Ok((
            variant,
            Content {
                probe: self.probe,
                name: self.name,
                content: self.content,
            },
        ))
    }
}

/// What a variant holds.
struct Content<'a> {
    probe: Probe<'a>,
    name: &'a str,
    content: Option<&'a Value>,
}

impl Content<'_> {
    /// Reads the content at its own place; a variant that lacks its content is of the wrong type.
    fn read<T>(self, read: impl FnOnce(Probe<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        let path = Path {
            parent: self.probe.path,
            part: Part::Member(self.name),
        };
        match self.content {
            Some(content) => {
                let plan = self.probe.plan.and_then(|plan| plan.members.get(self.name));
                read(Probe::of(content, plan, Some(&path), self.probe.context))
            }
            None if matches!(self.probe.node, Node::StandIn(_)) => {
                read(self.probe.stand_in(depth(self.probe))?)
            }
            None => Err(Stop::of(Kind::WrongType)),
        }
    }
}

impl<'de> VariantAccess<'de> for Content<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        match self.content {
            None | Some(Value::Null) => Ok(()),
            Some(_) => Err(Stop::of(Kind::WrongType)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stop> {
        self.read(|probe| seed.deserialize(probe))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.read(|probe| probe.deserialize_tuple(len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.read(|probe| probe.deserialize_struct("", fields, visitor))
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
