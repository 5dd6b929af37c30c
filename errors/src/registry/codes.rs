//! `codes.json`: the facts of every code as a text for version control, and back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Registry;
use crate::Descriptor;
use crate::problem::whole_seconds;

/// The largest `codes.json` that is read, in bytes: room for ten thousand codes. A file beyond that is not one.
pub const CODES_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A committed `codes.json` that cannot be read, so that nothing can be said about changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodesUnreadable {
    /// Larger than [`CODES_BYTES_MAX`].
    #[error("it has {0} bytes; at most {CODES_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not JSON, or not a list of codes, each with `code`, `type`, `status` and `category`.
    #[error("it is not a list of codes: {0}")]
    Malformed(String),
    /// A code stands in it twice.
    #[error("it has {0:?} twice: keep one of the two entries")]
    Twice(String),
}

/// One code in `codes.json`. Written in this order; members that are not here are passed over when read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry<'a> {
    pub(super) code: Cow<'a, str>,
    #[serde(rename = "type")]
    pub(super) type_uri: Cow<'a, str>,
    #[serde(default)]
    pub(super) title: Cow<'a, str>,
    pub(super) status: u16,
    pub(super) category: Cow<'a, str>,
    #[serde(default)]
    pub(super) retry: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry_after: Option<u64>,
    #[serde(default)]
    pub(super) outcome: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) domain: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) docs: Cow<'a, str>,
    /// No longer answered with, and never to be given another meaning.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) retired: bool,
}

impl Registry {
    pub(super) fn entry<'a>(&'a self, descriptor: &'a Descriptor) -> Entry<'a> {
        Entry {
            code: Cow::Borrowed(descriptor.code()),
            type_uri: Cow::Owned(self.type_for(descriptor)),
            title: descriptor.title(),
            status: self.status_for(descriptor),
            category: Cow::Borrowed(descriptor.category().as_str()),
            retry: Cow::Borrowed(descriptor.retry().as_str()),
            retry_after: descriptor.retry_after().map(whole_seconds),
            outcome: Cow::Borrowed(descriptor.outcome().as_str()),
            domain: self.domain_of(descriptor).map(Cow::Borrowed),
            docs: Cow::Borrowed(descriptor.docs()),
            retired: false,
        }
    }

    /// What is public about one code, as JSON.
    #[must_use]
    pub fn describe(&self, descriptor: &Descriptor) -> Value {
        // Strings and numbers under string keys: nothing here can refuse to be JSON.
        serde_json::to_value(self.entry(descriptor)).unwrap_or_default()
    }

    /// All codes as the text of a `codes.json`, sorted and byte-stable, to be kept under version control: a change
    /// of a code is then a visible change. [`assert_codes`](Self::assert_codes) writes it and guards it in a test;
    /// [`code_changes`](Self::code_changes) is the rule behind.
    #[must_use]
    pub fn codes_json(&self) -> String {
        print(self.iter().map(|descriptor| self.entry(descriptor)))
    }

    /// As [`codes_json`](Self::codes_json), with the codes that were answered with once: those that `committed` has
    /// retired already, and those in it that are gone here.
    pub(super) fn codes_json_after(&self, committed: &Committed<'_>) -> String {
        let gone = committed
            .iter()
            .filter(|(code, _)| self.find(code).is_none())
            .map(|(code, entry)| {
                let retired = Entry {
                    retired: true,
                    ..entry.clone()
                };
                (code.as_str(), retired)
            });
        let mut all: BTreeMap<_, _> = self
            .iter()
            .map(|descriptor| (descriptor.code(), self.entry(descriptor)))
            .collect();
        all.extend(gone);
        print(all.into_values())
    }
}

/// A file's entries by code.
pub(super) type Committed<'a> = BTreeMap<String, Entry<'a>>;

pub(super) fn read(committed: &str) -> Result<Committed<'_>, CodesUnreadable> {
    if committed.len() > CODES_BYTES_MAX {
        return Err(CodesUnreadable::TooLarge(committed.len()));
    }
    let text = committed.trim_start_matches('\u{feff}');
    let entries: Vec<Entry<'_>> = serde_json::from_str(text)
        .map_err(|error| CodesUnreadable::Malformed(error.to_string()))?;
    let mut by_code = BTreeMap::new();
    for entry in entries {
        let code = entry.code.clone().into_owned();
        if by_code.insert(code.clone(), entry).is_some() {
            return Err(CodesUnreadable::Twice(code));
        }
    }
    Ok(by_code)
}

fn print<'a>(entries: impl Iterator<Item = Entry<'a>>) -> String {
    let entries: Vec<_> = entries.collect();
    let mut text = serde_json::to_string_pretty(&entries).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_json_is_stable() {
        insta::assert_snapshot!(
            "codes_json",
            Registry::new()
                .type_base("https://e.example/#")
                .codes_json()
        );
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let registry = Registry::new().domain("e.example");
        let text = registry.codes_json();
        let committed = read(&text).unwrap();
        assert_eq!(committed.len(), registry.iter().count());
        assert_eq!(registry.codes_json_after(&committed), text);
    }
}
