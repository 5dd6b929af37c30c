//! Answers what a type asks of one value, with the value itself or with a stand-in.

use std::cell::Cell;

use serde::de::{Deserializer, Visitor};
use serde_json::Value;

use super::access::{Choice, Elements, Members, StandIns};
use super::stop::Stop;
use super::{Kind, Mark, Plan, STAND_INS_MAX, Source};

#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) source: Source,
    pub(super) nodes: &'a Cell<usize>,
}

/// The way from the root, on the stack of the reader.
pub(super) struct Path<'a> {
    pub(super) parent: Option<&'a Path<'a>>,
    pub(super) part: Part<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
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
pub(super) struct Probe<'a> {
    pub(super) node: Node<'a>,
    pub(super) plan: Option<&'a Plan>,
    pub(super) path: Option<&'a Path<'a>>,
    pub(super) context: Context<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Node<'a> {
    Value(&'a Value),
    Text(&'a str),
    /// The name of a member: what is wrong with it is located at the object.
    Name(&'a str),
    /// Whatever is asked for; the number is how deep stand-ins are nested.
    StandIn(usize),
}

impl<'a> Probe<'a> {
    pub(super) fn of(
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

    pub(super) fn stand_in(self, depth: usize) -> Result<Self, Stop> {
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

    /// An integer beyond 64 bits is a fraction in the tree. The type that asked for so wide a one was not
    /// refused because of it: it reads the text.
    fn wide(self) -> Self {
        match self.node {
            Node::Value(Value::Number(number))
                if number.is_f64() && number.as_f64().is_some_and(|value| value.abs() > 9.0e18) =>
            {
                Self {
                    node: Node::StandIn(0),
                    ..self
                }
            }
            _ => self,
        }
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
        deserialize_i8 "an integer from -128 to 127"
        deserialize_i16 "an integer from -32768 to 32767"
        deserialize_i32 "an integer from -2147483648 to 2147483647"
        deserialize_i64 "an integer"
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.node {
            Node::Text(text) => match text.parse() {
                Ok(value) => visitor
                    .visit_u128(value)
                    .map_err(|stop| self.locate(stop, "an integer of at least 0")),
                Err(_) => self.number(visitor, "an integer of at least 0"),
            },
            _ => self.wide().number(visitor, "an integer of at least 0"),
        }
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.node {
            Node::Text(text) => match text.parse() {
                Ok(value) => visitor
                    .visit_i128(value)
                    .map_err(|stop| self.locate(stop, "an integer")),
                Err(_) => self.number(visitor, "an integer"),
            },
            _ => self.wide().number(visitor, "an integer"),
        }
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
