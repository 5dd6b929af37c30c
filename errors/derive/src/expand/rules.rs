//! What may stand together on one variant, and what a status asks for besides.

use std::collections::HashSet;

use syn::{Attribute, Error, Fields, Ident, Result};

use crate::attr::OnVariant;
use crate::display;
use crate::names;

/// The most headers that travel with a problem: a twin of the bound in `mainstay-errors`.
const HEADERS_MAX: usize = 8;

/// Refuses what a variant says that cannot be, or must not be.
pub(super) fn of_variant(
    name: &Ident,
    fields: &Fields,
    [attrs, on_enum]: [&[Attribute]; 2],
    on: &OnVariant,
) -> Result<()> {
    if let Some(span) = on.delegate {
        if let Some(other) = on.other {
            return Err(Error::new(
                other,
                "`delegate` takes everything from the field, so nothing else can stand beside it",
            ));
        }
        if fields.len() != 1 {
            return Err(Error::new(
                span,
                "`delegate` needs exactly one field, which is itself a Fault",
            ));
        }
        return Ok(());
    }
    let Some((category, _, class)) = &on.category else {
        return Err(Error::new(
            name.span(),
            format!(
                "`{name}` needs a category, such as `#[fault(not_found)]`, or `#[fault(delegate)]` to its field"
            ),
        ));
    };
    if let Some(status) = on.status
        && status / 100 != *class
    {
        return Err(Error::new(
            category.span(),
            format!(
                "`{category}` answers with {class}xx, so its status cannot be {status}: choose another status or another category"
            ),
        ));
    }
    of_headers(category, on)?;
    if let Some(span) = on.public
        && let Some(how) = display::prints_source(attrs, on_enum, fields)
    {
        return Err(Error::new(
            span,
            format!(
                "`public` would send the text of another error to clients, because of `{how}`: give the variant a text of its own, or leave out `public`"
            ),
        ));
    }
    if let Some(constraint) = &on.constraint
        && !fields.is_empty()
    {
        return Err(Error::new(
            constraint.span(),
            "only a variant without fields can be made from a constraint",
        ));
    }
    Ok(())
}

/// Each header once, and those without which the status would break a MUST of RFC 9110. (401 is missing
/// here because the challenge belongs to the service: its layer answers with it.)
fn of_headers(category: &Ident, on: &OnVariant) -> Result<()> {
    let mut said = HashSet::new();
    for (at, (line, name, _)) in on.headers.iter().enumerate() {
        if !said.insert(name.as_str()) {
            return Err(Error::new(
                line.span(),
                format!(
                    "`{name}` is given already: put its values into one list, separated by commas"
                ),
            ));
        }
        if at == HEADERS_MAX {
            return Err(Error::new(
                line.span(),
                format!("a problem brings at most {HEADERS_MAX} headers"),
            ));
        }
    }
    let Some(status) = on.status else {
        return Ok(());
    };
    let owed = names::HEADERS_OWED
        .iter()
        .find(|(of, header, _)| *of == status && !said.contains(header));
    match owed {
        Some((_, header, example)) => Err(Error::new(
            category.span(),
            format!(
                "a {status} must bring `{header}` (RFC 9110 §15): write `header = \"{header}: {example}\"`"
            ),
        )),
        None => Ok(()),
    }
}
