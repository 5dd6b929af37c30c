//! `/problems/{code}`: what each code means, for the person who follows `type`.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use crate::{Category, Descriptor, Problem, Registry};

impl Registry {
    /// Routes that serve a page for every code under `path` (`/problems`), and a list of all of them at
    /// `path` itself: HTML for people, JSON for who accepts `application/json`.
    ///
    /// # Panics
    /// When `path` does not start with `/`, as every axum route.
    pub fn pages<S: Clone + Send + Sync + 'static>(&self, path: &str) -> Router<S> {
        let path = path.trim_end_matches('/');
        let registry = Arc::new(self.clone());
        let all = Arc::clone(&registry);
        let list = move |headers: HeaderMap| async move { list(&all, &headers) };
        let page = move |Path(code): Path<String>, headers: HeaderMap| async move {
            page(&registry, &code, &headers)
        };
        let root = if path.is_empty() { "/" } else { path };
        Router::new()
            .route(root, get(list.clone()))
            .route(&format!("{path}/{{code}}"), get(page))
    }
}

fn list(registry: &Registry, headers: &HeaderMap) -> Response {
    if wants_json(headers) {
        return represent("application/json", registry.codes_json());
    }
    let rows: String = registry
        .iter()
        .map(|descriptor| section(registry, descriptor))
        .collect();
    represent(HTML, html("Problems", &rows))
}

fn page(registry: &Registry, code: &str, headers: &HeaderMap) -> Response {
    let Some(descriptor) = registry.find(code) else {
        return Problem::new(Category::NotFound, "not_found").into_response();
    };
    if wants_json(headers) {
        return represent(
            "application/json",
            registry.describe(descriptor).to_string(),
        );
    }
    represent(
        HTML,
        html(&descriptor.title(), &section(registry, descriptor)),
    )
}

const HTML: &str = "text/html; charset=utf-8";

fn section(registry: &Registry, descriptor: &Descriptor) -> String {
    let facts = registry.describe(descriptor);
    let fact = |name: &str| {
        let value = facts.get(name).unwrap_or(&Value::Null);
        escape(
            &value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned),
        )
    };
    let docs: String = descriptor
        .docs()
        .split("\n\n")
        .map(|text| format!("<p>{}</p>", escape(text)))
        .collect();
    format!(
        "<h2 id=\"{0}\"><code>{0}</code> {1}</h2>{docs}<dl><dt>Status</dt><dd>{2}</dd><dt>Category</dt><dd>{3}</dd>\
         <dt>May I try again?</dt><dd>{4}</dd><dt>Was it applied?</dt><dd>{5}</dd><dt>Type</dt><dd><code>{6}</code></dd></dl>",
        fact("code"),
        fact("title"),
        fact("status"),
        fact("category"),
        fact("retry"),
        fact("outcome"),
        fact("type"),
    )
}

fn html(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0}</title><style>body{{font:1rem/1.5 system-ui;max-width:42rem;margin:2rem auto;padding:0 1rem}}\
         dl{{display:grid;grid-template-columns:max-content 1fr;gap:0 1rem}}dd{{margin:0}}</style><main>{body}</main>\n",
        escape(title)
    )
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// JSON is named and HTML is not; quality values are not weighed, because browsers always name HTML.
fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    accept.contains("json") && !accept.contains("text/html")
}

fn represent(content_type: &'static str, body: String) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    response
}
