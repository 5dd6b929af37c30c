//! From the text of a query string to the page that it asks for, or all that is wrong with it.

use std::convert::AsRef;

use mainstay_errors::Violation;
use percent_encoding::percent_decode_str;

use crate::codec::CURSOR_CHARS_MAX;
use crate::cursor::CursorError;
use crate::fault;
use crate::preset::{Arguments, Preset, Role, conflicts};
use crate::request::{LimitError, PageLimits, PageRequest};

pub(super) fn read(
    query: &str,
    preset: Preset,
    limits: &PageLimits,
) -> Result<PageRequest, Vec<Violation>> {
    let (found, mut wrong) = find(query, preset);
    let mut arguments = Arguments::default();
    for (name, role, text) in &found {
        match role {
            Role::Rows | Role::First | Role::Last => match rows(text, preset, limits) {
                Ok(rows) => match role {
                    Role::First => arguments.first = Some(rows),
                    Role::Last => arguments.last = Some(rows),
                    _ => arguments.rows = Some(rows),
                },
                Err(error) => wrong.push(fault::limit_of(name, error, limits)),
            },
            Role::After | Role::Before => match cursor(text, preset) {
                Ok(cursor) if *role == Role::After => arguments.after = cursor,
                Ok(cursor) => arguments.before = cursor,
                Err(error) => wrong.push(fault::cursor(name, error)),
            },
        }
    }
    let given: Vec<_> = found.iter().map(|(name, role, _)| (*name, *role)).collect();
    for (one, other) in conflicts(preset, &given) {
        for (name, with) in [(one, other), (other, one)] {
            wrong.push(
                Violation::query(name, "conflicting_parameters")
                    .with_detail(format!("not together with {with}")),
            );
        }
    }
    if wrong.is_empty() {
        Ok(arguments.request(preset, limits))
    } else {
        Err(wrong)
    }
}

fn rows(text: &str, preset: Preset, limits: &PageLimits) -> Result<u32, LimitError> {
    match limits.parse(text) {
        // AIP-158: as good as none.
        Err(LimitError::Zero) if preset == Preset::Aip158 => Ok(limits.default_rows()),
        rows => rows,
    }
}

fn cursor(text: &str, preset: Preset) -> Result<Option<String>, CursorError> {
    match text.len() {
        // AIP-158: the first page is also asked for with an empty token.
        0 if preset == Preset::Aip158 => Ok(None),
        0 => Err(CursorError::Malformed),
        len if len > CURSOR_CHARS_MAX => Err(CursorError::TooLong),
        _ => Ok(Some(text.to_owned())),
    }
}

/// A parameter as it was found.
type Found = (&'static str, Role, String);

/// Looks for the parameters; a second occurrence or text that is not UTF-8 is wrong at once.
fn find(query: &str, preset: Preset) -> (Vec<Found>, Vec<Violation>) {
    let mut found: Vec<Found> = Vec::new();
    let mut repeated: Vec<&str> = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = decode(name) else { continue };
        let mut parameters = preset.parameters().iter();
        let Some((name, role)) = parameters.find(|(known, _)| *known == name) else {
            continue;
        };
        if found.iter().any(|(_, known, _)| known == role) {
            if !repeated.contains(name) {
                repeated.push(name);
            }
            continue;
        }
        // Text that is not UTF-8 becomes text that is neither a number nor a cursor.
        let value = decode(value).unwrap_or_else(|| char::REPLACEMENT_CHARACTER.to_string());
        found.push((name, *role, value));
    }
    // In the preset's order, whatever the query's.
    found.sort_by_key(|(_, role, _)| {
        preset
            .parameters()
            .iter()
            .position(|(_, known)| known == role)
    });
    let wrong = repeated
        .into_iter()
        .map(|name| Violation::query(name, "repeated_parameter").with_detail("give it once"));
    (found, wrong.collect())
}

/// Decodes a name or a value as forms are: `+` is a space.
fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .ok()
        .map(|text| AsRef::<str>::as_ref(&text).to_owned())
}
