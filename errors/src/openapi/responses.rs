//! The responses of a set of codes: one for a status, with a named example for each code.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{Descriptor, PROBLEM_JSON, Problem, Registry, Retry};

impl Registry {
    /// The OpenAPI responses of these codes, by status, as they are answered with this registry: with its `type`
    /// base and its [`validation_status`](Registry::validation_status). They refer to
    /// [`schemas`](crate::openapi::schemas). A code that is given twice is there once.
    ///
    /// ```
    /// use mainstay_errors::{Fault, Registry, Violations};
    ///
    /// let registry = Registry::new().validation_status(400);
    /// let responses = registry.openapi_responses(Violations::CATALOG);
    /// let content = &responses["400"]["content"]["application/problem+json"];
    /// assert_eq!(content["examples"]["validation_failed"]["value"]["status"], 400);
    /// ```
    #[must_use]
    pub fn openapi_responses<'a>(&self, codes: impl IntoIterator<Item = &'a Descriptor>) -> Value {
        let codes = codes.into_iter().map(|descriptor| {
            let problem = descriptor
                .to_problem()
                .with_status(self.status_for(descriptor))
                .with_default_type_base(self.base());
            (descriptor, problem)
        });
        Value::Object(by_status(codes))
    }
}

/// Responses by status.
pub(super) fn by_status<'a>(
    codes: impl Iterator<Item = (&'a Descriptor, Problem)>,
) -> Map<String, Value> {
    let mut statuses: BTreeMap<u16, BTreeMap<&str, (&Descriptor, Problem)>> = BTreeMap::new();
    for (descriptor, problem) in codes {
        let of_status = statuses.entry(problem.status()).or_default();
        of_status
            .entry(descriptor.code())
            .or_insert((descriptor, problem));
    }
    statuses
        .into_iter()
        .map(|(status, codes)| (status.to_string(), response(status, codes.values())))
        .collect()
}

fn response<'a>(
    status: u16,
    codes: impl Iterator<Item = &'a (&'a Descriptor, Problem)> + Clone,
) -> Value {
    let lines: Vec<_> = codes.clone().map(|(code, _)| line(code)).collect();
    let examples: Map<_, _> = codes
        .clone()
        .map(|(code, problem)| (code.code().to_owned(), example(code, problem)))
        .collect();
    let mut response = json!({
        "description": lines.join("\n"),
        "content": { PROBLEM_JSON: {
            "schema": { "$ref": "#/components/schemas/Problem" },
            "examples": examples,
        } },
    });
    let headers = headers(status, codes.map(|(code, _)| *code));
    if !headers.is_empty()
        && let Some(response) = response.as_object_mut()
    {
        response.insert("headers".to_owned(), Value::Object(headers));
    }
    response
}

/// How the line of any code begins.
#[cfg(feature = "utoipa")]
pub(super) const LINE_START: &str = "- `";

/// How the line of this code begins.
pub(super) fn line_start(code: &str) -> String {
    format!("- `{code}`: ")
}

/// The code and the first paragraph of its docs, as an item of a Markdown list.
fn line(descriptor: &Descriptor) -> String {
    let docs = descriptor.docs().trim_start();
    let paragraph = docs.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = paragraph.split_whitespace().collect();
    let says = if words.is_empty() {
        descriptor.title().into_owned()
    } else {
        words.join(" ")
    };
    line_start(descriptor.code()) + &says
}

fn example(descriptor: &Descriptor, problem: &Problem) -> Value {
    // The bytes that are sent, so that an example cannot drift from them.
    let value: Value = serde_json::from_slice(&problem.to_bytes()).unwrap_or_default();
    let mut example = Map::new();
    example.insert("summary".to_owned(), Value::from(problem.title()));
    if !descriptor.docs().is_empty() {
        example.insert("description".to_owned(), Value::from(descriptor.docs()));
    }
    example.insert("value".to_owned(), value);
    Value::Object(example)
}

/// The headers that come with the status, or with one of its codes.
fn headers<'a>(
    status: u16,
    codes: impl Iterator<Item = &'a Descriptor> + Clone,
) -> Map<String, Value> {
    let mut headers = Map::new();
    let waits = |code: &Descriptor| {
        code.retry_after().is_some() || matches!(code.retry(), Retry::Backoff | Retry::After(_))
    };
    if matches!(status, 429 | 503) || codes.clone().any(waits) {
        headers.insert(
            "Retry-After".to_owned(),
            json!({
                "description": "How long to wait before the next attempt, in seconds, where that is known",
                "schema": { "type": "integer", "minimum": 0 },
            }),
        );
    }
    let of_status = match status {
        401 => Some(("WWW-Authenticate", "How to authenticate (RFC 9110 §11.6.1)")),
        405 => Some(("Allow", "The methods that this address takes")),
        _ => None,
    };
    if let Some((name, description)) = of_status {
        headers.insert(
            name.to_owned(),
            json!({ "description": description, "schema": { "type": "string" } }),
        );
    }
    for (name, value) in codes.flat_map(Descriptor::headers) {
        if !headers.keys().any(|known| known.eq_ignore_ascii_case(name)) {
            let header = json!({ "schema": { "type": "string" }, "example": value });
            headers.insert((*name).to_owned(), header);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;

    fn responses(codes: &[Descriptor]) -> Value {
        Registry::new().openapi_responses(codes)
    }

    #[test]
    fn every_example_is_a_document_that_is_read_and_written_as_itself() {
        let registry = Registry::new().type_base("https://e.example/#");
        let responses = registry.openapi_responses(registry.iter());
        let mut seen = 0;
        for (status, response) in responses.as_object().unwrap() {
            let examples = response["content"][PROBLEM_JSON]["examples"]
                .as_object()
                .unwrap();
            for (code, example) in examples {
                let bytes = serde_json::to_vec(&example["value"]).unwrap();
                let problem =
                    Problem::read_document(status.parse().unwrap(), Some(PROBLEM_JSON), &bytes);
                assert_eq!(problem.code(), code);
                assert_eq!(problem.status().to_string(), *status);
                assert!(problem.type_uri().starts_with("https://e.example/#"));
                let again: Value = serde_json::from_slice(&problem.to_bytes()).unwrap();
                assert_eq!(again, example["value"]);
                seen += 1;
            }
        }
        assert_eq!(seen, registry.iter().count());
    }

    #[test]
    fn a_status_says_each_of_its_codes_once() {
        const A: Descriptor = Descriptor::new("a_gone", Category::NotFound)
            .with_docs("It is gone,\nall of it.\n\nSecond paragraph.");
        const B: Descriptor = Descriptor::new("b_gone", Category::NotFound);
        let responses = responses(&[B, A, B]);
        assert_eq!(
            responses["404"]["description"],
            "- `a_gone`: It is gone, all of it.\n- `b_gone`: B gone"
        );
        assert_eq!(responses.as_object().unwrap().len(), 1);
    }

    #[test]
    fn headers_stand_where_they_are_sent() {
        const UPGRADE: Descriptor = Descriptor::new("too_old", Category::InvalidArgument)
            .with_status(426)
            .with_headers(&[("Upgrade", "TLS/1.3"), ("upgrade", "x")]);
        const CODES: [Descriptor; 6] = [
            UPGRADE,
            Descriptor::new("who", Category::Unauthenticated),
            Descriptor::new("how", Category::InvalidArgument).with_status(405),
            Descriptor::new("busy", Category::Unavailable).with_retry(Retry::SameKeyOnly),
            Descriptor::new("slow", Category::DeadlineExceeded),
            Descriptor::new("wait", Category::Internal)
                .with_retry_after(std::time::Duration::from_secs(1)),
        ];
        let responses = responses(&CODES);
        let names = |status: &str| match responses[status].get("headers") {
            Some(headers) => headers.as_object().unwrap().keys().cloned().collect(),
            None => Vec::new(),
        };
        assert_eq!(names("426"), ["Upgrade"]);
        assert_eq!(names("401"), ["WWW-Authenticate"]);
        assert_eq!(names("405"), ["Allow"]);
        assert_eq!(names("503"), ["Retry-After"]);
        assert_eq!(names("500"), ["Retry-After"]);
        assert!(names("504").is_empty());
    }
}
