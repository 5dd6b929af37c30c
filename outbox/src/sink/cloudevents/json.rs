//! The JSON event format, written and read so that the payload's bytes survive it.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use super::{attributes, read::Unreadable};
use crate::message::Message;

/// The event as one document: attributes, then the data.
///
/// A payload that is JSON by its type and by its bytes stands in it verbatim, any other as base64.
pub(super) fn write(message: &Message) -> Bytes {
    // Text for keys, text and checked JSON for values, into memory: nothing here can fail.
    serde_json::to_vec(&Document(message))
        .unwrap_or_default()
        .into()
}

struct Document<'a>(&'a Message);

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in attributes(self.0) {
            map.serialize_entry(name, &value)?;
        }
        let content_type = self.0.content_type();
        if let Some(content_type) = content_type {
            map.serialize_entry("datacontenttype", content_type)?;
        }
        let payload = self.0.payload();
        if payload.is_empty() {
            return map.end();
        }
        match verbatim(payload).filter(|_| is_json(content_type)) {
            Some(data) => map.serialize_entry("data", data)?,
            None => map.serialize_entry("data_base64", &STANDARD.encode(payload))?,
        }
        map.end()
    }
}

/// The payload as JSON, if embedding it loses no byte (white space around it would be lost).
fn verbatim(payload: &[u8]) -> Option<&RawValue> {
    let raw: &RawValue = serde_json::from_slice(payload).ok()?;
    (raw.get().len() == payload.len()).then_some(raw)
}

/// Whether the data is JSON: `*/json`, `*/*+json`, or not said at all.
fn is_json(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else {
        return true;
    };
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let subtype = media_type.rsplit('/').next().unwrap_or_default();
    let subtype = subtype.to_ascii_lowercase();
    subtype == "json" || subtype.ends_with("+json")
}

/// A document's attributes as text, and its data.
pub(super) struct Read {
    pub(super) attributes: Vec<(String, String)>,
    pub(super) payload: Bytes,
}

/// Reads a document. Attributes that are null are not there; numbers and truth values become their text.
pub(super) fn read(document: &[u8]) -> Result<Read, Unreadable> {
    let members: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(document).map_err(|_| Unreadable::Json)?;
    let mut attributes = Vec::with_capacity(members.len());
    for (name, value) in &members {
        if matches!(&**name, "data" | "data_base64") || value.get() == "null" {
            continue;
        }
        let text = match value.get().as_bytes().first() {
            Some(b'"') => string(value)?,
            Some(b'{' | b'[') => return Err(Unreadable::Json),
            _ => value.get().to_owned(),
        };
        attributes.push((name.to_ascii_lowercase(), text));
    }
    let content_type = attributes
        .iter()
        .find_map(|(name, value)| (name == "datacontenttype").then_some(value.as_str()));
    let payload = match (members.get("data"), members.get("data_base64")) {
        (None, None) => Bytes::new(),
        (Some(data), None) if !is_json(content_type) && data.get().starts_with('"') => {
            string(data)?.into()
        }
        (Some(data), None) => Bytes::copy_from_slice(data.get().as_bytes()),
        (None, Some(encoded)) => STANDARD
            .decode(string(encoded)?)
            .map_err(|_| Unreadable::Json)?
            .into(),
        (Some(_), Some(_)) => return Err(Unreadable::Json),
    };
    Ok(Read {
        attributes,
        payload,
    })
}

fn string(value: &RawValue) -> Result<String, Unreadable> {
    serde_json::from_str(value.get()).map_err(|_| Unreadable::Json)
}
