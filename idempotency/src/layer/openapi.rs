//! What the layer adds to the OpenAPI document of the service it stands in: said by the layer itself, so that it cannot
//! drift.

use std::collections::btree_map::Entry;
use std::time::Duration;

use http::{HeaderName, Method};
use mainstay_errors::openapi::responses;
use mainstay_errors::{Descriptor, Fault};
use utoipa::Modify;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{OpenApi, RefOr, Required, Schema};

use super::{IdempotencyLayer, Protocol};
use crate::{IdempotencyError, KEY_BYTES_MAX};

/// A [`Modify`] that describes the layer's part of each operation under the paths it was made for.
///
/// Per operation: the key's header; a response for each status that the layer may answer with, with an example for each
/// code; `Idempotent-Replayed` on the answers that may be replayed; the retention, as the extension
/// `x-idempotency-retention-seconds` and in the parameter's description. What the document says already stays.
#[derive(Debug, Clone)]
pub struct IdempotencyOpenApi {
    routes: Vec<(String, Route)>,
}

#[derive(Debug, Clone)]
struct Route {
    header: HeaderName,
    required: bool,
    methods: Vec<Method>,
    retention: Option<Duration>,
}

impl<P: Protocol, S> IdempotencyLayer<P, S> {
    /// The layer's part of an OpenAPI document, for these paths as the document writes them.
    ///
    /// ```
    /// # use mainstay_idempotency::{IdempotencyLayer, Scope};
    /// use utoipa::Modify;
    /// # fn f(pool: sqlx::SqlitePool, document: &mut utoipa::openapi::OpenApi) {
    /// let layer = IdempotencyLayer::<sqlx::Sqlite>::local(pool)
    ///     .scope(|_| Ok(Scope::new("tenant", "", "operation")));
    /// layer.openapi(["/payments"]).modify(document);
    /// # }
    /// ```
    pub fn openapi<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> IdempotencyOpenApi {
        let routes = paths.into_iter().map(|path| {
            let config = self.config.route(path).unwrap_or(&self.config);
            let route = Route {
                header: config.header.clone(),
                required: config.required,
                methods: config.methods.clone(),
                retention: config.stale_after,
            };
            (path.to_owned(), route)
        });
        IdempotencyOpenApi {
            routes: routes.collect(),
        }
    }
}

impl Modify for IdempotencyOpenApi {
    fn modify(&self, document: &mut OpenApi) {
        for (path, route) in &self.routes {
            let Some(item) = document.paths.paths.get_mut(path) else {
                continue;
            };
            for method in &route.methods {
                if let Some(operation) = operation(item, method) {
                    route.describe(operation);
                }
            }
        }
    }
}

fn operation<'a>(item: &'a mut PathItem, method: &Method) -> Option<&'a mut Operation> {
    match *method {
        Method::POST => item.post.as_mut(),
        Method::PATCH => item.patch.as_mut(),
        Method::PUT => item.put.as_mut(),
        Method::DELETE => item.delete.as_mut(),
        Method::GET => item.get.as_mut(),
        _ => None,
    }
}

impl Route {
    fn describe(&self, operation: &mut Operation) {
        let parameters = operation.parameters.get_or_insert_default();
        let known = parameters.iter().any(|parameter| {
            matches!(parameter, RefOr::T(parameter) if parameter.name.eq_ignore_ascii_case(self.header.as_str()))
        });
        if !known {
            parameters.push(RefOr::T(self.parameter()));
        }
        let all = &mut operation.responses.responses;
        for (status, response) in all.iter_mut() {
            let Some(b'2'..=b'4') = status.bytes().next() else {
                continue;
            };
            // What holds nothing but codes is said by a layer, such as this one: refusals are not replayed.
            if let RefOr::T(response) = response
                && !response.description.starts_with("- `")
            {
                let replayed = response.headers.entry("Idempotent-Replayed".to_owned());
                replayed.or_insert_with(|| RefOr::T(replayed_header()));
            }
        }
        let codes: Vec<Descriptor> = IdempotencyError::CATALOG
            .iter()
            .filter(|code| self.required || code.code() != "idempotency_key_missing")
            .filter(|code| self.retention.is_some() || code.code() != "idempotency_key_expired")
            .copied()
            .collect();
        for (status, response) in responses(&codes) {
            match all.entry(status) {
                Entry::Vacant(place) => _ = place.insert(response),
                Entry::Occupied(mut place) => add(place.get_mut(), response),
            }
        }
        if let Some(retention) = self.retention {
            let seconds = Extensions::builder().add(
                "x-idempotency-retention-seconds",
                serde_json::Value::from(retention.as_secs()),
            );
            let extensions = operation.extensions.get_or_insert_default();
            extensions.merge(seconds.build());
        }
    }

    fn parameter(&self) -> Parameter {
        let mut description = "One key per logical call, the same for each of its attempts: a quoted string (RFC 9651) or a bare \
             token. A request with a key that was used gets the first answer again; with a key that was used for another \
             request, 422; while the first is running, 409."
            .to_owned();
        if let Some(retention) = self.retention {
            let hours = retention.as_secs() / 3600;
            description.push_str(&format!(
                " Keys are remembered for {hours} h; a version 7 UUID that is older is refused with 412."
            ));
        }
        let schema = ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            // Quotes and escapes come on top of the key's own bytes.
            .max_length(Some(2 * KEY_BYTES_MAX + 2))
            .examples([serde_json::json!(
                "\"018f22e2-79b0-7cc3-98c4-dc0c0c07398f\""
            )]);
        let required = if self.required {
            Required::True
        } else {
            Required::False
        };
        ParameterBuilder::new()
            .name(canonical(&self.header))
            .parameter_in(ParameterIn::Header)
            .required(required)
            .description(Some(description))
            .schema(Some(Schema::from(schema)))
            .build()
    }
}

/// `idempotency-key` as people write it.
fn canonical(name: &HeaderName) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    let words: Vec<_> = name.as_str().split('-').map(word).collect();
    words.join("-")
}

fn replayed_header() -> Header {
    let mut header = Header::new(ObjectBuilder::new().schema_type(Type::Boolean));
    header.description =
        Some("`true` when this is the kept answer to an earlier request with the key".to_owned());
    header
}

/// Adds the layer's codes to what an operation says of a status itself.
fn add(there: &mut RefOr<Response>, more: RefOr<Response>) {
    let (RefOr::T(there), RefOr::T(more)) = (there, more) else {
        return;
    };
    for line in more.description.lines() {
        if !there.description.lines().any(|known| known == line) {
            there.description.push('\n');
            there.description.push_str(line);
        }
    }
    for (name, header) in more.headers {
        there.headers.entry(name).or_insert(header);
    }
    for (media_type, content) in more.content {
        match (there.content.get_mut(&media_type), content) {
            (None, content) => _ = there.content.insert(media_type, content),
            (Some(RefOr::T(there)), RefOr::T(more)) => {
                for (name, example) in more.examples {
                    there.examples.entry(name).or_insert(example);
                }
            }
            (Some(_), _) => {}
        }
    }
}
