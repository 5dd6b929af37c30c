//! [`AnyOf`]: the responses of several types as one.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::marker::PhantomData;

use utoipa::IntoResponses;
use utoipa::openapi::RefOr;
use utoipa::openapi::response::Response;

use super::responses::LINE_START;
use super::typed::Map;

/// The responses of an endpoint that may answer with any of the types of a tuple, up to eight:
/// `AnyOf<(OrderError, JsonRejections, Problem)>` under `responses` of `#[utoipa::path]`.
///
/// utoipa itself lets a later type replace what an earlier one said of the same status. Here a status has the codes
/// of all of them: descriptions, headers and examples, each once; of two headers or examples of a name the first
/// counts. A response that is a `$ref` cannot be added to and stays as it is when it comes first.
#[derive(Debug)]
pub struct AnyOf<T>(PhantomData<fn() -> T>);

macro_rules! any_of {
    ($($name:ident)+) => {
        impl<$($name: IntoResponses),+> IntoResponses for AnyOf<($($name,)+)> {
            fn responses() -> Map {
                let mut all = Map::new();
                $(merge(&mut all, $name::responses());)+
                all
            }
        }
    };
}

any_of!(A);
any_of!(A B);
any_of!(A B C);
any_of!(A B C D);
any_of!(A B C D E);
any_of!(A B C D E F);
any_of!(A B C D E F G);
any_of!(A B C D E F G H);

/// Adds responses to responses.
pub(super) fn merge(all: &mut Map, more: Map) {
    for (status, response) in more {
        match all.entry(status) {
            Entry::Vacant(place) => {
                place.insert(response);
            }
            Entry::Occupied(mut place) => {
                if let (RefOr::T(all), RefOr::T(more)) = (place.get_mut(), response) {
                    merge_one(all, more);
                }
            }
        }
    }
}

fn merge_one(all: &mut Response, more: Response) {
    all.description = described(&all.description, &more.description);
    for (name, header) in more.headers {
        all.headers.entry(name).or_insert(header);
    }
    for (media_type, content) in more.content {
        match (all.content.get_mut(&media_type), content) {
            (None, content) => {
                all.content.insert(media_type, content);
            }
            (Some(RefOr::T(all)), RefOr::T(more)) => {
                for (name, example) in more.examples {
                    all.examples.entry(name).or_insert(example);
                }
            }
            (Some(_), _) => {}
        }
    }
}

/// Both texts, then the codes of both as one sorted list.
fn described(first: &str, second: &str) -> String {
    let is_code = |line: &&str| line.starts_with(LINE_START);
    let texts = [first, second].map(|text| {
        let lines: Vec<_> = text.lines().filter(|line| !is_code(line)).collect();
        lines.join("\n")
    });
    let [first_text, second_text] = &texts;
    let codes: BTreeSet<_> = first
        .lines()
        .chain(second.lines())
        .filter(is_code)
        .collect();
    let mut parts: Vec<&str> = vec![first_text];
    if !first_text.contains(second_text.as_str()) {
        parts.push(second_text);
    }
    parts.retain(|part| !part.is_empty());
    parts.extend(codes);
    parts.join("\n")
}
