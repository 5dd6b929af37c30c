//! Sends a request through an application and checks what holds for every document.

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{HeaderMap, Request};
use serde_json::Value;
use tower::ServiceExt;

/// What a client got.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// The value of a header, empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    /// The document, after checking what holds for every document.
    pub fn problem(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.headers["content-length"], self.body.len().to_string());
        let document = self.json();
        assert_eq!(document["status"], self.status);
        assert_eq!(
            document["request_id"],
            self.headers["x-request-id"].to_str().unwrap()
        );
        for member in ["type", "title", "code", "retry", "outcome", "request_id"] {
            assert!(document[member].is_string(), "{member} in {document}");
        }
        assert!(
            !self.body.contains("null") && !self.body.contains("hunter2"),
            "{}",
            self.body
        );
        document
    }
}

pub async fn send(app: Router, request: Request<Body>) -> Answer {
    let (parts, body) = app.oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

pub async fn get(app: &Router, path: &str) -> Answer {
    send(app.clone(), Request::get(path).body(Body::empty()).unwrap()).await
}

/// With a header.
pub async fn get_with(app: &Router, path: &str, name: &str, value: &str) -> Answer {
    let request = Request::get(path).header(name, value);
    send(app.clone(), request.body(Body::empty()).unwrap()).await
}
