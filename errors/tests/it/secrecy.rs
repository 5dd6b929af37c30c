//! Secrets stay inside: planted wherever a service has them, looked for in every byte that is sent.

#[cfg(feature = "sqlx")]
use std::borrow::Cow;
#[cfg(feature = "sqlx")]
use std::fmt;
use std::io;

use mainstay_errors::{Error, Fault, Violation};

use crate::dice::{Dice, cases};

#[derive(Debug, thiserror::Error, Fault)]
enum PlantedError {
    #[error("source")]
    #[fault(unavailable, retry_after = "2s")]
    Source(#[source] io::Error),
    #[error("text {0}")]
    #[fault(internal)]
    Text(String),
    #[error("field {token}")]
    #[fault(not_found)]
    Field {
        #[fault(ext)]
        order_id: u64,
        token: String,
    },
    /// Public, and its source is not.
    #[error("order {order_id}")]
    #[fault(aborted, public)]
    Public {
        #[fault(ext)]
        order_id: u64,
        #[source]
        source: Shown,
    },
    #[error(transparent)]
    #[fault(unauthenticated)]
    Transparent(#[from] Shown),
}

/// An error of somebody else: it says the secret, and has it in its debug output and its source.
#[derive(Debug, thiserror::Error)]
#[error("cannot log in with {said}")]
struct Shown {
    said: String,
    source: io::Error,
}

fn shown(secret: &str) -> Shown {
    Shown {
        said: secret.to_owned(),
        source: io::Error::other(secret.to_owned()),
    }
}

/// A secret among characters that get escaped.
fn wrapped(secret: &str, dice: &mut Dice) -> String {
    format!("{}{secret}{}", dice.text(6), dice.text(6))
}

fn planted(secret: &str, dice: &mut Dice) -> Error {
    let text = wrapped(secret, dice);
    let source = || io::Error::other(text.clone());
    let error = match dice.below(9) {
        0 => Error::internal(source()),
        1 => Error::internal(text),
        2 => PlantedError::Source(source()).into(),
        3 => PlantedError::Text(text).into(),
        4 => PlantedError::Field {
            order_id: dice.word(),
            token: text,
        }
        .into(),
        5 => PlantedError::Public {
            order_id: 7,
            source: shown(&text),
        }
        .into(),
        6 => PlantedError::Transparent(shown(&text)).into(),
        // One whose value was refused: what is named is the place.
        7 => Error::from(mainstay_errors::Violations::from(
            Violation::body("/password", "too_short").with_param("min", 12),
        ))
        .context(text),
        #[cfg(feature = "sqlx")]
        _ => database(text, dice).into(),
        #[cfg(not(feature = "sqlx"))]
        _ => Error::internal(shown(&text)),
    };
    match dice.below(3) {
        0 => error.context(secret.to_owned()),
        _ => error,
    }
}

#[cfg(feature = "sqlx")]
fn database(text: String, dice: &mut Dice) -> sqlx::Error {
    let source = || io::Error::other(text.clone());
    match dice.below(11) {
        0 => sqlx::Error::Protocol(text),
        1 => sqlx::Error::Io(source()),
        2 => sqlx::Error::Io(io::Error::new(io::ErrorKind::ConnectionRefused, text)),
        3 => sqlx::Error::Configuration(text.into()),
        4 => sqlx::Error::Tls(text.into()),
        5 => sqlx::Error::TypeNotFound { type_name: text },
        6 => sqlx::Error::ColumnNotFound(text),
        7 => sqlx::Error::ColumnDecode {
            index: text.clone(),
            source: source().into(),
        },
        8 => sqlx::Error::Encode(text.into()),
        9 => sqlx::Error::Decode(source().into()),
        _ => sqlx::Error::Database(Box::new(Refused {
            text,
            kind: dice.below(6),
        })),
    }
}

/// What a database says when it refuses a statement: it echoes values, names and hosts.
#[cfg(feature = "sqlx")]
#[derive(Debug)]
struct Refused {
    text: String,
    kind: usize,
}

#[cfg(feature = "sqlx")]
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(feature = "sqlx")]
impl std::error::Error for Refused {}

#[cfg(feature = "sqlx")]
impl sqlx::error::DatabaseError for Refused {
    fn message(&self) -> &str {
        &self.text
    }
    fn code(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.text))
    }
    fn constraint(&self) -> Option<&str> {
        Some(&self.text)
    }
    fn table(&self) -> Option<&str> {
        Some(&self.text)
    }
    fn kind(&self) -> sqlx::error::ErrorKind {
        use sqlx::error::ErrorKind;
        match self.kind {
            0 => ErrorKind::UniqueViolation,
            1 => ErrorKind::ForeignKeyViolation,
            2 => ErrorKind::NotNullViolation,
            3 => ErrorKind::CheckViolation,
            4 => ErrorKind::ExclusionViolation,
            _ => ErrorKind::Other,
        }
    }
    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }
    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }
}

/// Header names are sent in lower case, so letters are looked for in either.
fn assert_without(sent: &[u8], secret: &str, case: u64) {
    // The standard library's search is optimised in a debug build too.
    let lower = sent.to_ascii_lowercase();
    let found = String::from_utf8_lossy(&lower).contains(&secret.to_ascii_lowercase());
    assert!(!found, "case {case}: {}", String::from_utf8_lossy(sent));
}

#[test]
fn a_secret_in_an_error_is_not_in_its_document() {
    let mut logged = 0;
    for case in 0..cases() {
        let dice = &mut Dice::of(case);
        let secret = dice.secret();
        let error = planted(&secret, dice);
        assert_without(&error.to_problem().to_bytes(), &secret, case);
        for (_, value) in error.to_problem().headers() {
            assert_without(value.as_bytes(), &secret, case);
        }
        logged += u64::from(error.chain().concat().contains(&secret));
    }
    // Else it was not planted: the log has it of nearly all.
    assert!(logged > cases() / 4 * 3, "{logged}");
}

#[cfg(feature = "tonic")]
#[test]
fn a_secret_in_an_error_is_not_in_its_grpc_status() {
    for case in 0..cases() {
        let dice = &mut Dice::of(case);
        let secret = dice.secret();
        let status = tonic::Status::from(planted(&secret, dice));
        assert_without(status.message().as_bytes(), &secret, case);
        assert_without(status.details(), &secret, case);
        for (name, value) in &status.metadata().clone().into_headers() {
            assert_without(name.as_str().as_bytes(), &secret, case);
            assert_without(value.as_bytes(), &secret, case);
        }
    }
}

#[cfg(feature = "axum")]
mod served {
    use std::panic::resume_unwind;

    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::routing::{get, post};
    use http::{HeaderValue, Request, header};
    use mainstay_errors::{Json, Path, ProblemLayer, Query};
    use serde::Deserialize;
    use tower::{Layer, Service, ServiceExt};

    use super::{assert_without, planted, wrapped};
    use crate::dice::{Dice, cases};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read into")]
    struct NewOrder {
        amount: i64,
        password: u8,
        lines: Vec<Line>,
        choice: Option<Choice>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Line {
        sku: bool,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        One,
        Two,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Page {
        limit: u8,
        choice: Option<Choice>,
    }

    fn app() -> Router {
        Router::new()
            .route("/orders", post(|_: Json<NewOrder>| async {}))
            .route("/orders/{id}", get(|_: Path<u64>| async {}))
            .route("/search", get(|_: Query<Page>| async {}))
            .route("/empty", post(|_: axum::Json<NewOrder>| async {}))
            .layer(ProblemLayer::default())
    }

    /// A request that fails, with the secret in values it holds: never in the names, which are told back.
    fn request(secret: &str, dice: &mut Dice) -> Request<Body> {
        let text = serde_json::to_string(&wrapped(secret, dice)).unwrap();
        let body = match dice.below(6) {
            0 => format!(
                r#"{{"amount":{text},"password":{text},"lines":[{{"sku":{text}}}],"choice":{text}}}"#
            ),
            1 => format!(r#"{{"amount":1,"password":[{text}],"lines":{{"0":{text}}}}}"#),
            2 => format!(r#"{{"amount":1,"password":1,"lines":[],"choice":{text}}}"#),
            3 => format!(r#"{{"amount":1,"password":{text}"#),
            4 => text,
            _ => format!("{secret}{{"),
        };
        let (method, path) = match dice.below(9) {
            0..=2 => ("POST", "/orders".to_owned()),
            3 => ("POST", "/empty".to_owned()),
            4 => ("GET", format!("/orders/{secret}")),
            5 => ("GET", format!("/search?limit={secret}&choice={secret}")),
            6 => (
                "GET",
                format!("/search?limit=1&limit={secret}&choice=%{secret}"),
            ),
            7 => ("GET", format!("/{secret}?q={secret}")),
            _ => ("PUT", format!("/orders?q={secret}")),
        };
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = path.parse().unwrap();
        let headers = request.headers_mut();
        for (name, value) in [
            (header::AUTHORIZATION, format!("Bearer {secret}")),
            (header::COOKIE, format!("session={secret}")),
            (header::ORIGIN, format!("https://{secret}.example.com")),
        ] {
            headers.insert(name, HeaderValue::from_str(&value).unwrap());
        }
        // An id that is well-formed is told back, so it is no place for secrets; these are refused.
        let id = match dice.below(3) {
            0 => format!("{secret} "),
            1 => format!("{secret}/x"),
            _ => secret.repeat(11),
        };
        headers.insert(
            "x-request-id",
            HeaderValue::from_str(&format!("a{id}b;")).unwrap(),
        );
        let content_type = match dice.below(8) {
            0 => format!("text/{secret}"),
            _ => "application/json".to_owned(),
        };
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_str(&content_type).unwrap(),
        );
        request
    }

    async fn assert_kept(response: http::Response<Body>, secret: &str, case: u64) {
        let (parts, body) = response.into_parts();
        assert!(parts.status.as_u16() >= 400, "case {case}");
        for (name, value) in &parts.headers {
            assert_without(name.as_str().as_bytes(), secret, case);
            assert_without(value.as_bytes(), secret, case);
        }
        let body = to_bytes(body, usize::MAX).await.unwrap();
        assert!(!body.is_empty(), "case {case}");
        assert_without(&body, secret, case);
    }

    #[tokio::test]
    async fn a_secret_in_a_request_is_not_in_its_answer() {
        let mut app = app();
        for case in 0..cases() {
            let dice = &mut Dice::of(case);
            let secret = dice.secret();
            let request = request(&secret, dice);
            let response = ServiceExt::<Request<Body>>::ready(&mut app)
                .await
                .unwrap()
                .call(request)
                .await
                .unwrap();
            assert_kept(response, &secret, case).await;
        }
    }

    #[tokio::test]
    async fn a_secret_in_an_error_or_a_panic_is_not_in_the_answer() {
        use axum::response::IntoResponse;

        for case in 0..cases() {
            let dice = &mut Dice::of(case);
            let secret = dice.secret();
            let mut error = Some(planted(&secret, dice));
            let panics = dice.once_in(4);
            if dice.once_in(4) {
                error = None;
            }
            let failing = tower::service_fn(|_: Request<Body>| {
                let (error, said) = (error.take(), secret.clone());
                async move {
                    if panics {
                        // As a panic does, without the message on the terminal.
                        resume_unwind(Box::new(said));
                    }
                    let response = match error {
                        Some(error) => error.into_response(),
                        // A framework's own failure: text that nobody declared public.
                        None => (http::StatusCode::BAD_GATEWAY, said).into_response(),
                    };
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            let service = ProblemLayer::default().layer(failing);
            let request = Request::new(Body::empty());
            let response = service.oneshot(request).await.unwrap();
            assert_kept(response, &secret, case).await;
        }
    }
}
