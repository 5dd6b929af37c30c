//! What OpenAPI says about failures: the schemas of a problem document, and for each status the codes that are
//! answered with it, each with a document as its example.
//!
//! OpenAPI keeps one response for a status, and a client needs to know the codes: so the codes of one status are
//! named examples of one response. Everything here is made of the same facts as the documents themselves.
//!
//! # With utoipa (feature `utoipa`)
//!
//! A derived fault is an `IntoResponses`. utoipa keeps the last response of a status when several types bring one, so
//! put them together with [`AnyOf`]. [`Problem`](crate::Problem) itself is the `default` response.
//!
#![cfg_attr(
    all(feature = "utoipa", feature = "axum", feature = "derive"),
    doc = "```"
)]
#![cfg_attr(
    not(all(feature = "utoipa", feature = "axum", feature = "derive")),
    doc = "```ignore"
)]
//! use mainstay_errors::{Fault, Json, Problem, Registry, Violations};
//! use mainstay_errors::openapi::{AnyOf, JsonRejections};
//! use utoipa::{Modify, OpenApi};
//!
//! #[derive(Debug, thiserror::Error, Fault)]
//! enum OrderError {
//!     /// Nothing of it is left.
//!     #[error("sold out")]
//!     #[fault(failed_precondition, status = 409)]
//!     SoldOut,
//!     #[error(transparent)]
//!     #[fault(delegate)]
//!     Invalid(#[from] Violations),
//! }
//!
//! #[utoipa::path(post, path = "/orders", responses(
//!     (status = 201, description = "ordered"),
//!     AnyOf<(OrderError, JsonRejections, Problem)>,
//! ))]
//! async fn create(Json(order): Json<u32>) -> Result<(), OrderError> {
//!     if order > 9 { Err(OrderError::SoldOut) } else { Ok(()) }
//! }
//!
//! #[derive(OpenApi)]
//! #[openapi(paths(create))]
//! struct Api;
//!
//! let mut api = Api::openapi();
//! // Adds the schemas, and says what only the registry knows: the `type` base and the status of a failed validation.
//! Registry::new().with::<OrderError>().modify(&mut api);
//! let json = serde_json::to_value(&api).unwrap();
//! let conflict = &json["paths"]["/orders"]["post"]["responses"]["409"];
//! let example = &conflict["content"]["application/problem+json"]["examples"]["sold_out"];
//! assert_eq!(example["value"]["title"], "Sold out");
//! ```
//!
//! utoipa 6 writes OpenAPI 3.1.0; `api.openapi = OpenApiVersion::Version32` chooses 3.2.0. What is said here is the
//! same in both.
//!
//! # Without
//!
//! [`schemas`] and [`Registry::openapi_responses`](crate::Registry::openapi_responses) are plain JSON, to be put into
//! a document that something else makes.

#[cfg(feature = "utoipa")]
mod any_of;
#[cfg(all(feature = "utoipa", feature = "axum"))]
mod rejections;
mod responses;
mod schema;
#[cfg(feature = "utoipa")]
mod typed;

#[cfg(feature = "utoipa")]
#[cfg_attr(docsrs, doc(cfg(feature = "utoipa")))]
pub use any_of::AnyOf;
#[cfg(all(feature = "utoipa", feature = "axum"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "utoipa", feature = "axum"))))]
pub use rejections::{JsonRejections, PathRejections, QueryRejections};
pub use schema::schemas;
#[cfg(feature = "utoipa")]
#[cfg_attr(docsrs, doc(cfg(feature = "utoipa")))]
pub use typed::Codes;
#[cfg(feature = "utoipa")]
#[doc(hidden)]
pub use typed::responses;
