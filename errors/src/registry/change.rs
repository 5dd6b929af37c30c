//! What became of the codes since `codes.json` was committed, and which of it breaks a client.
//!
//! A client matches on `code`, branches on the status (and, through it, on the category) and follows `type`. Those
//! four are the identity of a failure, so a change of one of them is a break. Everything else may get better under
//! a code that stays: texts, domain, and also `retry` and `outcome`, which a client obeys at run time, from each
//! document, rather than compiling in. These are listed all the same, because they steer clients: the
//! reviewer of the changed file decides.

use std::fmt;

use super::codes::{Committed, Entry, read};
use super::{CodesUnreadable, Registry};
use crate::Descriptor;

/// One difference between a committed `codes.json` and a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodeChange {
    /// The registry has a code that the file lacks.
    Added {
        /// The code.
        code: String,
    },
    /// The file has a code that the registry lacks, and does not say that it is retired.
    Removed {
        /// The code.
        code: String,
    },
    /// The file says that the code is retired, and the registry has it.
    Revived {
        /// The code.
        code: String,
    },
    /// A fact about the code is not what it was.
    Changed {
        /// The code.
        code: String,
        /// Which fact.
        fact: CodeFact,
        /// What it was; empty where the file says nothing about it.
        was: String,
        /// What it is now.
        now: String,
    },
}

/// What is known about a code beside its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CodeFact {
    /// The `type` reference.
    Type,
    /// The HTTP status.
    Status,
    /// The category.
    Category,
    /// The title.
    Title,
    /// The advice.
    Retry,
    /// How long to wait.
    RetryAfter,
    /// Whether the request took effect.
    Outcome,
    /// Whose code it is.
    Domain,
    /// The text of its page.
    Docs,
}

impl CodeFact {
    /// Its member in `codes.json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Status => "status",
            Self::Category => "category",
            Self::Title => "title",
            Self::Retry => "retry",
            Self::RetryAfter => "retry_after",
            Self::Outcome => "outcome",
            Self::Domain => "domain",
            Self::Docs => "docs",
        }
    }

    /// Whether the code is another one for clients when this changes.
    #[must_use]
    pub const fn is_identity(self) -> bool {
        matches!(self, Self::Type | Self::Status | Self::Category)
    }
}

impl CodeChange {
    /// The code it is about.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Added { code }
            | Self::Removed { code }
            | Self::Revived { code }
            | Self::Changed { code, .. } => code,
        }
    }

    /// Whether clients that were written against the file break.
    #[must_use]
    pub const fn is_breaking(&self) -> bool {
        match self {
            Self::Added { .. } => false,
            Self::Removed { .. } | Self::Revived { .. } => true,
            Self::Changed { fact, .. } => fact.is_identity(),
        }
    }
}

/// The longest value that a message repeats, in bytes.
const SHOWN_BYTES_MAX: usize = 60;

/// A value of the file or the registry, quoted, so that a line break in it does not look like another change.
fn shown(value: &str) -> String {
    let end = value.floor_char_boundary(SHOWN_BYTES_MAX);
    let more = if end < value.len() { "…" } else { "" };
    format!("{:?}{more}", value.get(..end).unwrap_or_default())
}

impl fmt::Display for CodeChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = shown(self.code());
        match self {
            Self::Added { .. } => write!(f, "{code} is new"),
            Self::Removed { .. } => write!(
                f,
                "{code} was removed, and clients match on it: bring it back, or keep its entry in the file and add \
                 `\"retired\": true` to it"
            ),
            Self::Revived { .. } => write!(
                f,
                "{code} is retired, and old clients know it as what it was: take another code, or, if it means the \
                 same again, delete `\"retired\": true`"
            ),
            Self::Changed { fact, was, now, .. } => {
                let fact_name = fact.as_str();
                write!(
                    f,
                    "{code}: {fact_name} was {}, is {}",
                    shown(was),
                    shown(now)
                )?;
                if fact.is_identity() {
                    f.write_str(": what fails another way takes another code")?;
                }
                Ok(())
            }
        }
    }
}

/// Every difference between a committed `codes.json` and a registry, by code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CodeChanges(Vec<CodeChange>);

impl CodeChanges {
    /// The file says what the registry says.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Any of them [breaks](CodeChange::is_breaking).
    #[must_use]
    pub fn is_breaking(&self) -> bool {
        self.0.iter().any(CodeChange::is_breaking)
    }

    /// All of them, sorted by code.
    pub fn iter(&self) -> impl Iterator<Item = &CodeChange> {
        self.0.iter()
    }
}

/// One line each: what breaks first, marked `!`; then what does not, marked `-`.
impl fmt::Display for CodeChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (mark, breaking) in [('!', true), ('-', false)] {
            for change in self.iter().filter(|one| one.is_breaking() == breaking) {
                writeln!(f, "  {mark} {change}")?;
            }
        }
        Ok(())
    }
}

impl Registry {
    /// Compares with a committed `codes.json`. `type`, `status` and `category` of a code that is in the file must
    /// stay, and so must the code, unless its entry has `"retired": true`; whatever else differs is listed and
    /// [does not break](CodeChange::is_breaking). A retired code may not be used again.
    ///
    /// ```
    /// use mainstay_errors::Registry;
    ///
    /// let committed = r#"[{"code":"gone_for_good","type":"/problems/x","status":410,"category":"not_found"}]"#;
    /// let changes = Registry::new().code_changes(committed).unwrap();
    /// assert!(changes.is_breaking());
    /// assert!(changes.to_string().contains(r#""gone_for_good" was removed"#));
    /// ```
    ///
    /// # Errors
    /// [`CodesUnreadable`] when `committed` is no such file.
    pub fn code_changes(&self, committed: &str) -> Result<CodeChanges, CodesUnreadable> {
        Ok(self.changes_since(&read(committed)?))
    }

    pub(super) fn changes_since(&self, committed: &Committed<'_>) -> CodeChanges {
        let mut changes = Vec::new();
        for (code, entry) in committed {
            let code = code.clone();
            match self.find(&code) {
                None if entry.retired => {}
                None => changes.push(CodeChange::Removed { code }),
                Some(_) if entry.retired => changes.push(CodeChange::Revived { code }),
                Some(descriptor) => changes.extend(differences(entry, &self.entry(descriptor))),
            }
        }
        let added = self
            .iter()
            .map(Descriptor::code)
            .filter(|code| !committed.contains_key(*code));
        changes.extend(added.map(|code| CodeChange::Added {
            code: code.to_owned(),
        }));
        changes.sort_by(|a, b| a.code().cmp(b.code()));
        CodeChanges(changes)
    }
}

fn differences(was: &Entry<'_>, now: &Entry<'_>) -> Vec<CodeChange> {
    let code = now.code.to_string();
    let seconds = |entry: &Entry<'_>| entry.retry_after.map(|wait| wait.to_string());
    let domain = |entry: &Entry<'_>| entry.domain.as_deref().unwrap_or_default().to_owned();
    let facts = [
        (
            CodeFact::Type,
            was.type_uri.to_string(),
            now.type_uri.to_string(),
        ),
        (
            CodeFact::Status,
            was.status.to_string(),
            now.status.to_string(),
        ),
        (
            CodeFact::Category,
            was.category.to_string(),
            now.category.to_string(),
        ),
        (
            CodeFact::Title,
            was.title.to_string(),
            now.title.to_string(),
        ),
        (
            CodeFact::Retry,
            was.retry.to_string(),
            now.retry.to_string(),
        ),
        (
            CodeFact::RetryAfter,
            seconds(was).unwrap_or_default(),
            seconds(now).unwrap_or_default(),
        ),
        (
            CodeFact::Outcome,
            was.outcome.to_string(),
            now.outcome.to_string(),
        ),
        (CodeFact::Domain, domain(was), domain(now)),
        (CodeFact::Docs, was.docs.to_string(), now.docs.to_string()),
    ];
    facts
        .into_iter()
        .filter(|(_, was, now)| was != now)
        .map(|(fact, was, now)| CodeChange::Changed {
            code: code.clone(),
            fact,
            was,
            now,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn registry() -> Registry {
        Registry::new()
    }

    /// The registry's own file with one entry changed.
    fn with(code: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut file: Value = serde_json::from_str(&registry().codes_json()).unwrap();
        let entries = file.as_array_mut().unwrap();
        change(
            entries
                .iter_mut()
                .find(|entry| entry["code"] == code)
                .unwrap(),
        );
        file.to_string()
    }

    fn changes(file: &str) -> CodeChanges {
        registry().code_changes(file).unwrap()
    }

    #[test]
    fn the_file_of_the_registry_itself_has_no_changes() {
        assert!(changes(&registry().codes_json()).is_empty());
        // However it is laid out.
        let compact: Value = serde_json::from_str(&registry().codes_json()).unwrap();
        assert!(changes(&format!("\u{feff}\r\n{compact}")).is_empty());
    }

    #[test]
    fn identity_must_stay_and_the_rest_is_listed() {
        let cases = [
            ("type", json!("/elsewhere/gone"), true),
            ("status", json!(404), true),
            ("category", json!("internal"), true),
            ("title", json!("Went away"), false),
            ("retry", json!("backoff"), false),
            ("retry_after", json!(7), false),
            ("outcome", json!("unknown"), false),
            ("domain", json!("e.example"), false),
            ("docs", json!("Old text."), false),
        ];
        for (member, was, breaking) in cases {
            let found = changes(&with("gone", |entry| entry[member] = was));
            let [CodeChange::Changed { code, fact, .. }] = found.0.as_slice() else {
                panic!("{member}: {found:?}");
            };
            assert_eq!((code.as_str(), fact.as_str()), ("gone", member));
            assert_eq!(found.is_breaking(), breaking, "{member}");
        }
    }

    #[test]
    fn a_new_code_does_not_break() {
        let file = with("gone", |entry| entry["code"] = json!("was_gone"));
        let kinds: Vec<_> = changes(&file).0;
        assert_eq!(
            kinds,
            [
                CodeChange::Added {
                    code: "gone".to_owned()
                },
                CodeChange::Removed {
                    code: "was_gone".to_owned()
                },
            ]
        );
        assert!(!kinds[0].is_breaking() && kinds[1].is_breaking());
        assert!(!changes("[]").is_breaking());
    }

    #[test]
    fn a_retired_code_may_be_gone_but_not_come_back() {
        let gone = json!([{"code": "old_one", "type": "/problems/old_one", "status": 400,
            "category": "invalid_argument", "retired": true}]);
        assert!(!changes(&gone.to_string()).is_breaking());
        let back = changes(&with("gone", |entry| entry["retired"] = json!(true)));
        assert_eq!(
            back.0,
            [CodeChange::Revived {
                code: "gone".to_owned()
            }]
        );
        assert!(back.is_breaking());
    }

    #[test]
    fn the_messages_say_what_to_do() {
        let mut file: Value = serde_json::from_str(&with("gone", |entry| {
            entry["status"] = json!(404);
            entry["docs"] = json!("A long text\n  ! \"forged\" was removed. ".repeat(9));
        }))
        .unwrap();
        file.as_array_mut()
            .unwrap()
            .push(json!({"code": "sold_out", "type": "/x", "status": 409, "category": "aborted"}));
        insta::assert_snapshot!(changes(&file.to_string()));
    }

    #[test]
    fn a_file_that_is_none_is_an_error_and_never_a_panic() {
        let entry = r#"{"code":"a","type":"/a","status":400,"category":"internal"}"#;
        let malformed = [
            "".to_owned(),
            "\0".to_owned(),
            "{}".to_owned(),
            "null".to_owned(),
            "[1]".to_owned(),
            "[null]".to_owned(),
            "[[]]".to_owned(),
            r#"["code"]"#.to_owned(),
            r#"[{"code":"a"}]"#.to_owned(),
            entry.replace("400", "-1"),
            format!("[{}]", entry.replace("400", "99999999999999999999")),
            format!("[{}]", entry.replace("400", "\"400\"")),
            format!("[{}]", entry.replace("\"a\"", "7")),
            format!("[{entry}"),
            format!("[{entry}] trailing"),
            "<<<<<<< HEAD".to_owned(),
            "[".repeat(100_000),
        ];
        for file in malformed {
            let refused = registry().code_changes(&file).unwrap_err();
            assert!(
                matches!(refused, CodesUnreadable::Malformed(_)),
                "{refused:?} of {:.40}",
                file
            );
        }
        assert_eq!(
            registry().code_changes(&format!("[{entry},{entry}]")),
            Err(CodesUnreadable::Twice("a".to_owned()))
        );
        assert_eq!(
            registry().code_changes(&" ".repeat(super::super::CODES_BYTES_MAX + 1)),
            Err(CodesUnreadable::TooLarge(super::super::CODES_BYTES_MAX + 1))
        );
    }
}
