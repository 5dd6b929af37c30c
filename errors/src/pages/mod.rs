//! `/problems/{code}`: what each code means, for the person who follows `type`.

mod accept;
mod html;
mod prose;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::Router;
use axum::extract::RawPathParams;
use axum::extract::rejection::RawPathParamsRejection;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::problem::type_of;
use crate::{Registry, http_codes};
use accept::Form;

impl Registry {
    /// Routes that serve a page for every code under `path` (`/problems`), and a list of all of them at `path`
    /// itself, with or without a `/` at the end: HTML for people, JSON for whoever prefers it by `Accept`.
    ///
    /// The list has an anchor for each code, so that a [`type_base`](Self::type_base) that ends in `#` leads to it. The
    /// pages hold nothing but the registry: no scripts, nothing from elsewhere. They may be kept for five minutes
    /// and are then asked for by `ETag`. A code that is not in the registry is a 404 problem.
    ///
    /// # Panics
    /// When `path` does not start with `/`, as every axum route.
    pub fn pages<S: Clone + Send + Sync + 'static>(&self, path: &str) -> Router<S> {
        let path = path.trim_end_matches('/');
        let registry = Arc::new(self.clone());
        // Where the pages are, seen from the list: links are relative, so that the routes may be nested.
        let list = |below: String| {
            let registry = Arc::clone(&registry);
            get(move |headers: HeaderMap| async move { list(&registry, &below, &headers) })
        };
        let mut routes = Router::new().route(&format!("{path}/"), list(String::new()));
        if let Some((_, last)) = path.rsplit_once('/') {
            routes = routes.route(path, list(format!("{last}/")));
        }
        routes
            .route(
                &format!("{path}/{{code}}/"),
                get(|params: Params| async move { without_slash(&params) }),
            )
            .route(
                &format!("{path}/{{code}}"),
                get(move |params: Params, headers: HeaderMap| async move {
                    page(&registry, &params, &headers)
                }),
            )
    }
}

/// Of all parameters, those of a router around the pages too; an error where one is not UTF-8.
type Params = Result<RawPathParams, RawPathParamsRejection>;

/// The code that is asked for: the last parameter, because the pages stand inside of whatever they are nested in.
fn code(params: &Params) -> Option<&str> {
    let (_, code) = params.as_ref().ok()?.iter().last()?;
    Some(code)
}

fn list(registry: &Registry, below: &str, headers: &HeaderMap) -> Response {
    let form = Form::wanted(headers);
    let body = match form {
        Form::Html => html::list(registry, below),
        Form::Json => registry.codes_json(),
    };
    represent(form, body, headers)
}

fn not_found() -> Response {
    http_codes::for_status(404).to_problem().into_response()
}

fn page(registry: &Registry, params: &Params, headers: &HeaderMap) -> Response {
    let Some(descriptor) = code(params).and_then(|code| registry.find(code)) else {
        return not_found();
    };
    let form = Form::wanted(headers);
    let body = match form {
        Form::Html => html::page(registry, descriptor),
        Form::Json => registry.describe(descriptor).to_string(),
    };
    represent(form, body, headers)
}

fn without_slash(params: &Params) -> Response {
    let Some(code) = code(params) else {
        return not_found();
    };
    let place = HeaderValue::try_from(type_of("../", code));
    // What is escaped is a header.
    let place = place.unwrap_or(HeaderValue::from_static("../"));
    (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, place)]).into_response()
}

/// A program's pages change when it is deployed: soon enough for people, and a burst of them asks once.
const CACHE: &str = "public, max-age=300";

/// Nothing may be loaded or sent, and nobody may frame it; the one style is in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

fn represent(form: Form, body: String, asked: &HeaderMap) -> Response {
    let tag = tag(&body);
    let known = asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|tags| is_known(tags, &tag));
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let content_type = HeaderValue::from_static(form.content_type());
        ([(header::CONTENT_TYPE, content_type)], body).into_response()
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    for (name, value) in [
        (header::VARY, "accept"),
        (header::CACHE_CONTROL, CACHE),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Weak, because a proxy may compress. Equal bytes of one build have one tag, which is all that it is for.
fn tag(body: &str) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("W/\"{:016x}\"", hasher.finish())
}

/// Whether `If-None-Match` names the tag, by RFC 9110 §13.1.2: `W/` is not looked at.
fn is_known(tags: &HeaderValue, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let tags = tags.to_str().unwrap_or_default();
    tags.split(',')
        .any(|known| known.trim() == "*" || opaque(known) == opaque(tag))
}
