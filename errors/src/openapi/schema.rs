//! The schemas of the problem document and its violations.

use serde_json::{Value, json};

use crate::{Location, Outcome};

/// The component schemas `Problem` and `Violation`, to be put under `components/schemas` of an OpenAPI 3.1 document.
///
/// ```
/// let schemas = mainstay_errors::openapi::schemas();
/// assert_eq!(schemas["Problem"]["properties"]["code"]["type"], "string");
/// ```
#[must_use]
pub fn schemas() -> Value {
    json!({ "Problem": problem(), "Violation": violation() })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn word_of(words: &[&str], description: &str) -> Value {
    json!({ "type": "string", "description": description, "enum": words })
}

fn uri_reference(description: &str) -> Value {
    json!({ "type": "string", "format": "uri-reference", "description": description })
}

pub(super) fn problem() -> Value {
    let retries = [
        "never",
        "backoff",
        "after",
        "same_key_only",
        "transaction",
        "after_auth",
        "after_state_change",
    ];
    let outcomes = [Outcome::NotApplied, Outcome::Applied, Outcome::Unknown].map(Outcome::as_str);
    json!({
        "type": "object",
        "description": "What went wrong, whether it took effect, and whether to try again (RFC 9457). Further members may follow.",
        "required": ["type", "title", "status", "code", "retry", "outcome"],
        "properties": {
            "type": uri_reference("Identifies the kind of problem; leads to its page"),
            "title": text("The kind of problem, for people; the same for every occurrence"),
            "status": {
                "type": "integer", "description": "The HTTP status", "minimum": 400, "maximum": 599,
            },
            "detail": text("This occurrence, for people"),
            "instance": uri_reference("This occurrence, as a reference"),
            "code": text("The kind of problem, for programs"),
            "retry": word_of(&retries, "What the caller may do about it"),
            "retry_after": {
                "type": "integer", "description": "How long to wait first, in seconds", "minimum": 0,
            },
            "outcome": word_of(&outcomes, "Whether the request took effect"),
            "request_id": {
                "type": "string", "description": "Ties the answer to the records of it", "maxLength": 128,
            },
            "errors": {
                "type": "array",
                "items": { "$ref": "#/components/schemas/Violation" },
                "maxItems": crate::VIOLATIONS_MAX,
                "description": "Everything that is wrong with the request",
            },
        },
    })
}

pub(super) fn violation() -> Value {
    let locations = [
        Location::Body,
        Location::Query,
        Location::Path,
        Location::Header,
    ]
    .map(Location::as_str);
    json!({
        "type": "object",
        "description": "One thing that is wrong with the request, and where",
        "required": ["pointer", "location", "code"],
        "properties": {
            "pointer": text("Where: a JSON pointer (RFC 6901); empty for the whole"),
            "location": word_of(&locations, "What the pointer points into"),
            "code": text("What, for programs"),
            "params": {
                "type": "object",
                "description": "The parameters of the rule that was broken, such as `min`, by name",
                "additionalProperties": true,
                "maxProperties": crate::PARAMS_MAX,
            },
            "detail": text("What, for people"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Violation;

    #[test]
    fn the_schemas_are_stable() {
        insta::assert_snapshot!("openapi", serde_json::to_string_pretty(&schemas()).unwrap());
    }

    fn members(value: &Value) -> Vec<&str> {
        let mut names: Vec<_> = value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        names
    }

    /// What a document may have, the schema knows, and nothing else.
    #[test]
    fn documents_fit_the_schema() {
        let mut reserved = crate::RESERVED_MEMBERS;
        reserved.sort_unstable();
        assert_eq!(members(&problem()["properties"]), reserved);
        let full = Violation::body("/a", "b")
            .with_detail("c")
            .with_param("min", 1);
        let full = serde_json::to_value(full).unwrap();
        assert_eq!(members(&violation()["properties"]), members(&full));
    }
}
