//! The parts of a value: elements, members, the content of a variant.

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde_json::{Map, Value};

use super::reader::{Node, Part, Path, Probe};
use super::stop::Stop;
use super::{Kind, Mark};

/// The elements of an array.
pub(super) struct Elements<'a> {
    pub(super) probe: Probe<'a>,
    pub(super) values: &'a [Value],
    pub(super) next: usize,
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
pub(super) struct StandIns<'a> {
    pub(super) probe: Probe<'a>,
    pub(super) left: usize,
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
pub(super) struct Members<'a> {
    probe: Probe<'a>,
    names: std::vec::IntoIter<(&'a str, Option<&'a Value>)>,
    current: Option<(&'a str, Option<&'a Value>)>,
}

impl<'a> Members<'a> {
    pub(super) fn of(probe: Probe<'a>, members: &'a Map<String, Value>) -> Self {
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
        // Listing them is work even when reading stops at the first.
        let nodes = probe.context.nodes;
        nodes.set(nodes.get() + names.len());
        names.sort_by_key(|(name, _)| mark(name) == Some(Mark::Stuck));
        Self {
            probe,
            names: names.into_iter(),
            current: None,
        }
    }

    pub(super) fn invented(probe: Probe<'a>, fields: &'static [&'static str]) -> Self {
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
pub(super) struct Choice<'a> {
    pub(super) probe: Probe<'a>,
    pub(super) name: &'a str,
    pub(super) content: Option<&'a Value>,
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
pub(super) struct Content<'a> {
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
