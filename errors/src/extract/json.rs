//! [`Json`]: a JSON body.

use std::ops::{Deref, DerefMut};

use axum::body::Bytes;
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use super::probe::{self, Source};
use crate::problem::essence;
use crate::violation::segment;
use crate::{Error, Fault, Location, Problem, Violation, Violations, http_codes};

/// A JSON body, and a JSON response.
///
/// | what is wrong | answer |
/// |---|---|
/// | the content type is not `application/json` or `…+json` | 415 `unsupported_media_type`, with `Accept: application/json` |
/// | the body is compressed, and no layer outside undid that | 415 `unsupported_media_type`, with `Accept-Encoding: identity` |
/// | the body is larger than axum's `DefaultBodyLimit` (2 MiB unless set) | 413 `payload_too_large` |
/// | the body broke off | 400 `bad_request` |
/// | the body is not JSON | 400 `malformed_json`, with line and column |
/// | the JSON does not fit | 422 `validation_failed`, every misfit in `errors` (of a body over 128 KiB the first) |
///
/// ```
/// use mainstay_errors::Json;
///
/// #[derive(serde::Deserialize)]
/// struct NewOrder { amount: u32 }
///
/// async fn create(Json(order): Json<NewOrder>) -> String {
///     format!("{} ordered", order.amount)
/// }
/// # let _ = axum::Router::<()>::new().route("/", axum::routing::post(create));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(unsupported(header::ACCEPT, "application/json"));
        }
        if is_encoded(request.headers()) {
            return Err(unsupported(header::ACCEPT_ENCODING, "identity"));
        }
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| {
                http_codes::for_status(rejection.status().as_u16()).to_problem()
            })?;
        read(&body).map(Self)
    }
}

/// `Option<Json<T>>`: none when the request has no content type, as axum's own; what is there is read as above.
impl<S, T> OptionalFromRequest<S> for Json<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        if !request.headers().contains_key(header::CONTENT_TYPE) {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state)
            .await
            .map(Some)
    }
}

/// What was unsupported, and by which header what is supported is told (RFC 9110 §15.5.16).
fn unsupported(name: HeaderName, supported: &'static str) -> Problem {
    http_codes::UNSUPPORTED_MEDIA_TYPE
        .to_problem()
        .with_header(name, HeaderValue::from_static(supported))
}

/// The body is still encoded: a layer that decodes it takes the header away.
fn is_encoded(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    !encodings.all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let essence = essence(value).to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

impl<T: DeserializeOwned> Json<T> {
    /// Reads a body that came another way than through the extractor, such as a webhook's after its signature.
    ///
    /// # Errors
    /// 400 `malformed_json` or 422 `validation_failed`, as above.
    pub fn from_bytes(body: &[u8]) -> Result<Self, Problem> {
        read(body).map(Self)
    }
}

/// Reads a body; only one that does not fit is looked at twice.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => misfits::<T>(body),
        _ => malformed(&error),
    })
}

/// The largest body that is searched for all of its misfits, in bytes; a larger one is told its first. The
/// search keeps the body as a tree, which may be a hundred times its size, and reads it up to 32 times.
const SEARCHED_BYTES_MAX: usize = 128 * 1024;

fn misfits<T: DeserializeOwned>(body: &[u8]) -> Problem {
    if body.len() > SEARCHED_BYTES_MAX {
        return match serde_json::from_slice::<IgnoredAny>(body) {
            Ok(_) => Violations::from(first_misfit::<T>(body)).to_problem(),
            Err(error) => malformed(&error),
        };
    }
    let value = match serde_json::from_slice(body) {
        Ok(value) => value,
        // The misfit came first, but what follows is not even JSON.
        Err(error) => return malformed(&error),
    };
    let mut found: Violations = probe::violations::<T>(&value, Source::Json)
        .into_iter()
        .map(|misfit| misfit.violation(Location::Body))
        .collect();
    if found.is_empty() {
        // Visible in the text and not in the value, such as a member given twice.
        found.push(first_misfit::<T>(body));
    }
    found.to_problem()
}

/// Where the body as text stops to fit. Why is only in serde's words, which are not for clients.
fn first_misfit<T: DeserializeOwned>(body: &[u8]) -> Violation {
    let reader = &mut serde_json::Deserializer::from_slice(body);
    let misfit = serde_path_to_error::deserialize::<_, T>(reader).err();
    let place = misfit
        .map(|misfit| pointer(misfit.path()))
        .unwrap_or_default();
    Violation::body(place, "invalid")
}

fn malformed(error: &serde_json::Error) -> Problem {
    let problem = http_codes::MALFORMED_JSON.to_problem();
    match (error.line(), error.column()) {
        (0, _) => problem,
        (line, column) => problem.with_detail(format!(
            "The body is not JSON at line {line}, column {column}."
        )),
    }
}

/// A serde path as an RFC 6901 pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|part| match part {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => segment(probe::short(key)),
            Segment::Enum { variant } => segment(probe::short(variant)),
            Segment::Unknown => String::new(),
        })
        .collect()
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        // What serde says of a value that does not serialise is for the log: it repeats values.
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let json = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, json)], body).into_response()
            }
            Err(error) => Error::internal(error).into_response(),
        }
    }
}

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Json<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
