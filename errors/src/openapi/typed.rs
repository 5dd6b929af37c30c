//! The same as utoipa's types.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde_json::Value;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::{Response, Responses};
use utoipa::openapi::{OpenApi, RefOr, Schema};
use utoipa::{IntoResponses, Modify, PartialSchema, ToSchema};

use super::any_of::merge;
use super::responses::{by_status, line_start};
use super::schema;
use crate::{Descriptor, Error, Fault, PROBLEM_JSON, Problem, Registry, Violation, Violations};

/// Responses by status.
pub(super) type Map = BTreeMap<String, RefOr<Response>>;

/// The OpenAPI responses of a catalogue: what the derive's `IntoResponses` answers.
pub fn responses(catalog: &[Descriptor]) -> Map {
    let codes = catalog
        .iter()
        .map(|descriptor| (descriptor, descriptor.to_problem()));
    typed(Value::Object(by_status(codes)))
}

/// The codes of a fault that has no `IntoResponses` of its own, such as one that another crate implements by hand. For
/// [`AnyOf`](super::AnyOf): `AnyOf<(OrderError, Codes<IdempotencyError>)>`.
#[derive(Debug)]
pub struct Codes<F>(PhantomData<fn() -> F>);

impl<F: Fault> IntoResponses for Codes<F> {
    fn responses() -> Map {
        responses(F::CATALOG)
    }
}

/// What was written in the form that utoipa itself writes reads back; the tests hold it to that.
fn typed(responses: Value) -> Map {
    serde_json::from_value(responses).unwrap_or_default()
}

fn typed_schema(schema: Value) -> RefOr<Schema> {
    serde_json::from_value(schema).unwrap_or_else(|_| RefOr::T(Schema::default()))
}

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        typed_schema(schema::problem())
    }
}

impl ToSchema for Problem {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Problem")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Violation::name().into_owned(), Violation::schema()));
    }
}

impl PartialSchema for Violation {
    fn schema() -> RefOr<Schema> {
        typed_schema(schema::violation())
    }
}

impl ToSchema for Violation {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Violation")
    }
}

/// The `default` response: a problem of any other status and code.
impl IntoResponses for Problem {
    fn responses() -> Map {
        typed(serde_json::json!({ "default": {
            "description": "Any other failure",
            "content": { PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/Problem" } } },
        } }))
    }
}

/// The `default` response: a problem of any status and code.
impl IntoResponses for Error {
    fn responses() -> Map {
        Problem::responses()
    }
}

impl IntoResponses for Violations {
    fn responses() -> Map {
        responses(Self::CATALOG)
    }
}

#[cfg(feature = "sqlx")]
impl IntoResponses for crate::db::DbFault {
    fn responses() -> Map {
        responses(Self::CATALOG)
    }
}

/// Makes a document agree with the registry: adds the schemas `Problem` and `Violation`, and gives every example of a
/// code that the registry has its `type` base, and its status where that is another
/// ([`validation_status`](Registry::validation_status)). What else is in the document stays.
///
/// Call it on the finished document, or name it under `modifiers` of `#[openapi(..)]`.
impl Modify for Registry {
    fn modify(&self, document: &mut OpenApi) {
        let schemas = &mut document.components.get_or_insert_default().schemas;
        for (name, schema) in [
            (Problem::name(), Problem::schema()),
            (Violation::name(), Violation::schema()),
        ] {
            schemas.entry(name.into_owned()).or_insert(schema);
        }
        for item in document.paths.paths.values_mut() {
            operations(item).for_each(|operation| self.agree(&mut operation.responses));
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.options,
        &mut item.head,
        &mut item.patch,
        &mut item.trace,
        &mut item.query,
    ]
    .into_iter()
    .flatten()
    .chain(item.additional_operations.values_mut())
}

impl Registry {
    /// Takes the codes it knows out of the responses and puts them back as it knows them.
    fn agree(&self, responses: &mut Responses) {
        let mut known: Vec<&Descriptor> = Vec::new();
        responses.responses.retain(|_, response| {
            let RefOr::T(response) = response else {
                return true;
            };
            let taken = self.take_known(response);
            let was_only_ours = !taken.is_empty() && response.description.is_empty();
            known.extend(taken);
            !was_only_ours
        });
        if !known.is_empty() {
            merge(
                &mut responses.responses,
                typed(self.openapi_responses(known)),
            );
        }
    }

    fn take_known(&self, response: &mut Response) -> Vec<&Descriptor> {
        let Some(RefOr::T(content)) = response.content.get_mut(PROBLEM_JSON) else {
            return Vec::new();
        };
        let codes = content.examples.keys();
        let known: Vec<_> = codes.filter_map(|code| self.find(code)).collect();
        for descriptor in &known {
            content.examples.remove(descriptor.code());
            let start = line_start(descriptor.code());
            let description = std::mem::take(&mut response.description);
            let lines: Vec<_> = description
                .lines()
                .filter(|line| !line.starts_with(&start))
                .collect();
            response.description = lines.join("\n");
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utoipas_types_write_what_was_put_into_them() {
        let registry = Registry::new();
        let all = registry.openapi_responses(registry.iter());
        assert_eq!(serde_json::to_value(typed(all.clone())).unwrap(), all);
        let plain = crate::openapi::schemas();
        for (name, schema) in [
            ("Problem", Problem::schema()),
            ("Violation", Violation::schema()),
        ] {
            assert_eq!(serde_json::to_value(schema).unwrap(), plain[name]);
        }
        let default = serde_json::to_value(Problem::responses()).unwrap();
        assert_eq!(default["default"]["description"], "Any other failure");
        assert!(default["default"]["content"][PROBLEM_JSON]["schema"]["$ref"].is_string());
    }
}
