//! The page's parameters in an OpenAPI document; its schemas stand beside the types.

use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

use crate::codec::CURSOR_CHARS_MAX;
use crate::extract::{PagePolicy, Paged};

/// `limit`, `after` and `before`, with the policy's default and maximum.
impl<P: PagePolicy> IntoParams for Paged<P> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let limits = P::LIMITS;
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1_u32))
            .maximum(Some(limits.max_rows()))
            .default(Some(limits.default_rows().into()));
        let cursor = || {
            ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(CURSOR_CHARS_MAX))
        };
        vec![
            parameter("limit", "How many rows the page has at most.", limit),
            parameter(
                "after",
                "The page that follows this cursor. Not together with `before`.",
                cursor(),
            ),
            parameter(
                "before",
                "The page that precedes this cursor. Not together with `after`.",
                cursor(),
            ),
        ]
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

    #[test]
    fn the_parameters_carry_the_policys_limits() {
        let params = serde_json::to_value(Paged::<Small>::into_params(|| None)).unwrap();
        assert_eq!(params[0]["schema"]["maximum"], 50);
        assert_eq!(params[0]["schema"]["default"], 5);
        assert_eq!(params[0]["required"], false);
        assert_eq!(
            (&params[1]["name"], &params[2]["name"]),
            (&"after".into(), &"before".into())
        );
        assert_eq!(params[2]["in"], "query");
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
