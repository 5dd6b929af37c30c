//! Where a violation is, in the two spellings: an RFC 6901 pointer here, a field path in `BadRequest`.
//!
//! | place | field |
//! |---|---|
//! | body `/lines/0/amount` | `lines[0].amount` |
//! | body `/a~1b`, `/0`, anything that is no field path | the pointer, which no field path looks like |
//! | query `/limit` | `query:/limit`, and so `path:` and `header:` |
//!
//! Each place has one field and comes back from it.

use crate::Location;
use crate::violation::segment;

/// The field of a place.
pub(super) fn field_of(location: Location, pointer: &str) -> String {
    match location {
        Location::Body => field_path(pointer).unwrap_or_else(|| pointer.to_owned()),
        other => format!("{}:{pointer}", other.as_str()),
    }
}

/// The place of a field. One that is no spelling of ours is taken as a plain name.
pub(super) fn place_of(field: &str) -> (Location, String) {
    let is_pointer = |text: &str| text.is_empty() || text.starts_with('/');
    if let Some((word, pointer)) = field.split_once(':')
        && let Some(location) = Location::from_wire(word)
        && is_pointer(pointer)
    {
        return (location, pointer.to_owned());
    }
    let pointer = if is_pointer(field) {
        field.to_owned()
    } else {
        pointer(field).unwrap_or_else(|| segment(field))
    };
    (Location::Body, pointer)
}

fn field_path(pointer: &str) -> Option<String> {
    let mut path = String::with_capacity(pointer.len() + 1);
    for segment in pointer.strip_prefix('/')?.split('/') {
        if is_index(segment) && !path.is_empty() {
            path.push('[');
            path.push_str(segment);
            path.push(']');
        } else if is_identifier(segment) {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(segment);
        } else {
            return None;
        }
    }
    Some(path)
}

fn pointer(path: &str) -> Option<String> {
    let mut pointer = String::with_capacity(path.len() + 1);
    let mut step = |segment: &str| {
        pointer.push('/');
        pointer.push_str(segment);
    };
    for part in path.split('.') {
        let (name, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        if !is_identifier(name) {
            return None;
        }
        step(name);
        while !rest.is_empty() {
            let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
            if !is_index(index) {
                return None;
            }
            step(index);
            rest = after;
        }
    }
    Some(pointer)
}

fn is_identifier(segment: &str) -> bool {
    segment.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && segment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// As RFC 6901 §4 spells an index: no leading zero.
fn is_index(segment: &str) -> bool {
    segment == "0"
        || (!segment.is_empty()
            && !segment.starts_with('0')
            && segment.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_spelt_as_google_does() {
        for (location, pointer, field) in [
            (Location::Body, "/lines/0/amount", "lines[0].amount"),
            (Location::Body, "/a/0/1/b", "a[0][1].b"),
            (Location::Body, "/full_name", "full_name"),
            (Location::Body, "", ""),
            (Location::Body, "/", "/"),
            (Location::Body, "/0", "/0"),
            (Location::Body, "/a/01", "/a/01"),
            (Location::Body, "/a~1b", "/a~1b"),
            (Location::Body, "/a.b", "/a.b"),
            (Location::Body, "/query:/x", "/query:/x"),
            (Location::Query, "/limit", "query:/limit"),
            (Location::Header, "", "header:"),
        ] {
            assert_eq!(field_of(location, pointer), field);
            assert_eq!(place_of(field), (location, pointer.to_owned()));
        }
    }

    #[test]
    fn a_foreign_field_is_a_plain_name() {
        for (field, pointer) in [
            ("labels[\"a/b\"]", "/labels[\"a~1b\"]"),
            ("a[01]", "/a[01]"),
            ("a..b", "/a..b"),
            ("a[0", "/a[0"),
            ("query:limit", "/query:limit"),
        ] {
            assert_eq!(place_of(field), (Location::Body, pointer.to_owned()));
        }
    }

    fn location() -> impl Strategy<Value = Location> {
        prop::sample::select(vec![
            Location::Body,
            Location::Query,
            Location::Path,
            Location::Header,
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        #[test]
        fn every_place_comes_back(location in location(), pointer in "(/([a-z_]{0,3}|[0-9]{1,2}|[a-z0-9:.~\\[\\]ä]{0,4})){0,4}") {
            let field = field_of(location, &pointer);
            prop_assert_eq!(place_of(&field), (location, pointer));
        }

        #[test]
        fn every_field_path_comes_back(field in "[a-z_]{1,3}(\\[(0|[1-9][0-9]?)\\]|\\.[a-z]{1,3}){0,4}") {
            let (location, pointer) = place_of(&field);
            prop_assert_eq!(field_of(location, &pointer), field);
        }

        #[test]
        fn every_text_is_some_place(field in any::<String>()) {
            let (location, pointer) = place_of(&field);
            let again = place_of(&field_of(location, &pointer));
            prop_assert_eq!(again, (location, pointer));
        }
    }
}
