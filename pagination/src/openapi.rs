//! The page's parameters in an OpenAPI document; its schemas stand beside the types.

use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

use crate::codec::CURSOR_CHARS_MAX;
use crate::extract::{PagePolicy, Paged};
use crate::preset::{Preset, Role};
use crate::request::PageLimits;

/// The preset's parameters, with the policy's default and maximum.
impl<P: PagePolicy> IntoParams for Paged<P> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let parameters = P::PRESET.parameters().iter();
        parameters
            .map(|(name, role)| {
                parameter(
                    name,
                    &describe(P::PRESET, *role, &P::LIMITS),
                    schema(P::PRESET, *role, P::LIMITS),
                )
            })
            .collect()
    }
}

/// What it means; for a number of rows also how many there are at most, which is no limit of the parameter's if more
/// is cut rather than refused.
fn describe(preset: Preset, role: Role, limits: &PageLimits) -> String {
    let meaning = meaning(preset, role);
    match role {
        Role::Rows | Role::First | Role::Last if !limits.rejects() => {
            format!(
                "{meaning} More than {} is taken as that.",
                limits.max_rows()
            )
        }
        _ => meaning.to_owned(),
    }
}

const fn meaning(preset: Preset, role: Role) -> &'static str {
    match (role, preset) {
        (Role::Rows, _) => "How many rows the page has at most.",
        (Role::After, Preset::Aip158) => {
            "`next_page_token` of the page before; empty or absent for the first page."
        }
        (Role::After, Preset::Plain | Preset::GitHub) => {
            "The page that follows this cursor. Not together with `before` or `last`."
        }
        (Role::Before, Preset::Plain | Preset::GitHub) => {
            "The page that precedes this cursor. Not together with `after` or `first`."
        }
        (Role::After, _) => "Rows that follow this cursor.",
        (Role::Before, _) => "Rows that precede this cursor.",
        (Role::First, Preset::Relay) => "So many rows from the start. Not together with `last`.",
        (Role::Last, Preset::Relay) => "So many rows from the end. Not together with `first`.",
        (Role::First, _) => "So many rows from the list's start, or after `after`.",
        (Role::Last, _) => "So many rows from the list's end, or before `before`.",
    }
}

fn schema(preset: Preset, role: Role, limits: PageLimits) -> ObjectBuilder {
    let object = ObjectBuilder::new();
    match role {
        Role::Rows | Role::First | Role::Last => {
            let object = object
                .schema_type(Type::Integer)
                .minimum(Some(if preset == Preset::Aip158 { 0_u32 } else { 1 }))
                .maximum(limits.rejects().then_some(limits.max_rows()));
            // Whoever asks for an end says how many.
            if role == Role::Rows {
                object.default(Some(limits.default_rows().into()))
            } else {
                object
            }
        }
        Role::After | Role::Before => object
            .schema_type(Type::String)
            .min_length(Some(if preset == Preset::Aip158 { 0 } else { 1 }))
            .max_length(Some(CURSOR_CHARS_MAX)),
    }
}

fn parameter(name: &str, description: &str, schema: ObjectBuilder) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .description(Some(description))
        .schema(Some(schema.build()))
        .build()
}

#[cfg(test)]
mod tests {
    use utoipa::{PartialSchema, ToSchema};

    use super::*;
    use crate::{Page, PageLimits, PagePolicy};

    struct Small;
    impl PagePolicy for Small {
        const LIMITS: PageLimits = PageLimits::new(5, 50);
    }

    struct Strict;
    impl PagePolicy for Strict {
        const LIMITS: PageLimits = PageLimits::new(5, 50).on_exceed(crate::OnExceed::Reject);
    }

    #[test]
    fn the_parameters_carry_the_policys_limits() {
        let params = serde_json::to_value(Paged::<Small>::into_params(|| None)).unwrap();
        // 51 is acceptable, and taken as 50.
        assert_eq!(params[0]["schema"].get("maximum"), None);
        let description = params[0]["description"].as_str().unwrap();
        assert!(description.ends_with("More than 50 is taken as that."));
        let strict = serde_json::to_value(Paged::<Strict>::into_params(|| None)).unwrap();
        assert_eq!(strict[0]["schema"]["maximum"], 50);
        assert_eq!(params[0]["schema"]["default"], 5);
        assert_eq!(params[0]["required"], false);
        assert_eq!(
            (&params[1]["name"], &params[2]["name"]),
            (&"after".into(), &"before".into())
        );
        assert_eq!(params[2]["in"], "query");
    }

    #[test]
    fn each_preset_has_its_own_parameters() {
        struct Tokens;
        impl PagePolicy for Tokens {
            const LIMITS: PageLimits = PageLimits::new(5, 50);
            const PRESET: Preset = Preset::Aip158;
        }
        struct Nodes;
        impl PagePolicy for Nodes {
            const LIMITS: PageLimits = PageLimits::new(5, 50);
            const PRESET: Preset = Preset::Relay;
        }
        fn names(params: Vec<Parameter>) -> Vec<String> {
            params.into_iter().map(|param| param.name).collect()
        }
        assert_eq!(
            names(Paged::<Tokens>::into_params(|| None)),
            ["page_size", "page_token"]
        );
        assert_eq!(
            names(Paged::<Nodes>::into_params(|| None)),
            ["first", "after", "last", "before"]
        );
        assert_eq!(
            names(Paged::<Small>::into_params(|| None)),
            ["limit", "after", "before", "first", "last"]
        );
    }

    #[test]
    fn the_bodies_of_presets_are_described_under_their_wire_names() {
        let connection = serde_json::to_value(crate::Connection::<String>::schema()).unwrap();
        assert_eq!(
            connection["required"],
            serde_json::json!(["edges", "pageInfo"])
        );
        let page = serde_json::to_value(crate::TokenPage::<String>::schema()).unwrap();
        assert_eq!(
            page["required"],
            serde_json::json!(["items", "next_page_token"])
        );
        let document = serde_json::to_value(crate::JsonApiPage::<String>::schema()).unwrap();
        assert_eq!(document["required"], serde_json::json!(["data", "links"]));
    }

    #[test]
    fn the_schema_is_the_wire_shape() {
        let page = serde_json::to_value(Page::<String>::schema()).unwrap();
        assert_eq!(page["required"], serde_json::json!(["items", "page"]));
        let info = serde_json::to_value(crate::PageInfo::schema()).unwrap();
        let names: Vec<_> = info["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(
            names,
            ["end_cursor", "has_next", "has_previous", "start_cursor"]
        );
        assert_eq!(crate::Cursor::name(), "Cursor");
    }
}
