//! The deadline as an argument of an axum handler.

use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::request::Parts;
use mainstay_errors::{Category, Descriptor, Fault};

use super::Deadline;
use crate::error::DeadlineExceeded;

/// Why a handler did not get its [`Deadline`], and was not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeadlineRejection {
    /// The time was over before the handler began: 504, nothing was done.
    #[error(transparent)]
    Exceeded(#[from] DeadlineExceeded),
    /// No [`AcceptDeadlineLayer`](super::AcceptDeadlineLayer) is around the handler: a mistake of the server's, 500.
    #[error("no deadline: `AcceptDeadlineLayer` is not around this handler")]
    Missing,
}

const MISSING: Descriptor = Descriptor::new("internal", Category::Internal);

impl Fault for DeadlineRejection {
    const CATALOG: &'static [Descriptor] = <DeadlineExceeded as Fault>::CATALOG;

    fn descriptor(&self) -> &'static Descriptor {
        match self {
            Self::Exceeded(late) => late.descriptor(),
            Self::Missing => &MISSING,
        }
    }

    fn outcome(&self) -> mainstay_errors::Outcome {
        match self {
            Self::Exceeded(late) => late.outcome(),
            Self::Missing => mainstay_errors::Outcome::NotApplied,
        }
    }
}

impl IntoResponse for DeadlineRejection {
    fn into_response(self) -> Response {
        mainstay_errors::Error::from(self).into_response()
    }
}

/// ```
/// use axum::{Router, routing::post};
/// use mainstay_retry::{AcceptDeadlineLayer, Deadline};
///
/// async fn pay(deadline: Deadline) -> String {
///     format!("{:?} left", deadline.remaining(tokio::time::Instant::now().into_std()))
/// }
///
/// let app: Router = Router::new()
///     .route("/payments", post(pay))
///     .layer(AcceptDeadlineLayer::at_most(std::time::Duration::from_secs(30)));
/// ```
impl<S: Sync> FromRequestParts<S> for Deadline {
    type Rejection = DeadlineRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, DeadlineRejection> {
        match find(parts)? {
            Some(deadline) => Ok(deadline),
            None => Err(DeadlineRejection::Missing),
        }
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Deadline {
    type Rejection = DeadlineRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, DeadlineRejection> {
        find(parts)
    }
}

/// Refuses what has no time left by now: extractors before this one may have waited for the body.
fn find(parts: &Parts) -> Result<Option<Deadline>, DeadlineRejection> {
    let deadline = parts.extensions.get::<Deadline>().copied();
    let now = tokio::time::Instant::now().into_std();
    match deadline {
        Some(deadline) if deadline.has_passed(now) => Err(DeadlineExceeded::new(false).into()),
        deadline => Ok(deadline),
    }
}
