//! OpenAPI schemas of the problem document and its violations.

use std::borrow::Cow;
use std::collections::BTreeMap;

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::{Location, Outcome, Problem, Violation};

/// The OpenAPI responses of a catalogue.
pub fn responses(
    catalog: &[crate::Descriptor],
) -> BTreeMap<String, RefOr<utoipa::openapi::response::Response>> {
    let _ = catalog;
    BTreeMap::new()
}

/// A member that is a string, with what it means.
fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .description(Some(description))
}

fn whole_number(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::Integer))
        .description(Some(description))
}

fn uri_reference(description: &str) -> ObjectBuilder {
    text(description).format(Some(SchemaFormat::Custom("uri-reference".to_owned())))
}

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        let retries = [
            "never",
            "backoff",
            "after",
            "same_key_only",
            "transaction",
            "after_auth",
            "after_state_change",
        ];
        let outcomes =
            [Outcome::NotApplied, Outcome::Applied, Outcome::Unknown].map(Outcome::as_str);
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Object))
            .description(Some("What went wrong, whether it took effect, and whether to try again (RFC 9457). Further members may follow."))
            .property("type", uri_reference("Identifies the kind of problem; leads to its page"))
            .property("title", text("The kind of problem, for people; the same for every occurrence"))
            .property("status", whole_number("The HTTP status").minimum(Some(400)).maximum(Some(599)))
            .property("detail", text("This occurrence, for people"))
            .property("instance", uri_reference("This occurrence, as a reference"))
            .property("code", text("The kind of problem, for programs"))
            .property("retry", text("What the caller may do about it").enum_values(Some(retries)))
            .property("retry_after", whole_number("How long to wait first, in seconds").minimum(Some(0)))
            .property("outcome", text("Whether the request took effect").enum_values(Some(outcomes)))
            .property("request_id", text("Ties the answer to the records of it").max_length(Some(128)))
            .property(
                "errors",
                ArrayBuilder::new()
                    .items(Ref::from_schema_name(Violation::name()))
                    .max_items(Some(crate::VIOLATIONS_MAX))
                    .description(Some("Everything that is wrong with the request")),
            )
            .required("type")
            .required("title")
            .required("status")
            .required("code")
            .required("retry")
            .required("outcome")
            .into()
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
        let locations = [
            Location::Body,
            Location::Query,
            Location::Path,
            Location::Header,
        ]
        .map(Location::as_str);
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Object))
            .description(Some("One thing that is wrong with the request, and where"))
            .property(
                "pointer",
                text("Where: a JSON pointer (RFC 6901); empty for the whole"),
            )
            .property(
                "location",
                text("What the pointer points into").enum_values(Some(locations)),
            )
            .property("code", text("What, for programs"))
            .property("detail", text("What, for people"))
            .required("pointer")
            .required("location")
            .required("code")
            .into()
    }
}

impl ToSchema for Violation {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Violation")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemas_are_stable() {
        let mut schemas = vec![("Problem".to_owned(), Problem::schema())];
        Problem::schemas(&mut schemas);
        insta::assert_snapshot!("openapi", serde_json::to_string_pretty(&schemas).unwrap());
    }

    /// What the schema requires, every document has; what a document may have, the schema knows.
    #[test]
    fn documents_fit_the_schema() {
        let schema = serde_json::to_value(Problem::schema()).unwrap();
        let members: Vec<_> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let mut reserved = crate::RESERVED_MEMBERS.map(str::to_owned).to_vec();
        reserved.sort();
        let mut known = members;
        known.sort();
        assert_eq!(known, reserved);
    }
}
