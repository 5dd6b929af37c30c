//! `IdemTx<D>` as an axum extractor.

use axum_core::extract::FromRequestParts;
use http::request::Parts;
use mainstay_errors::{Category, Fault, Outcome, Problem};

use super::lazy;
use crate::store::IdempotencyDb;
use crate::tx::{IdemTx, Slot};

/// Rejects with a 500 problem when the route is not under an [`IdempotencyLayer`](crate::IdempotencyLayer) for `D`, when its
/// method is not one of the layer's, or when the handler asks twice; with a 503 when a keyless request's transaction cannot be begun.
/// Without a key it must be asked for in the task that the layer is polled in, which is where axum's handlers run.
impl<D: IdempotencyDb, S: Sync> FromRequestParts<S> for IdemTx<D> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let keyed = parts.extensions.get::<Slot<D>>().cloned();
        let Some(slot) = keyed.or_else(lazy::slot::<D>) else {
            tracing::error!(
                "IdemTx on a route without IdempotencyLayer for this database and method"
            );
            return Err(misuse());
        };
        match slot.lend().await {
            Ok(Some(tx)) => Ok(tx),
            Ok(None) => {
                tracing::error!("IdemTx asked for twice in one request");
                Err(misuse())
            }
            Err(error) => Err(error.to_problem()),
        }
    }
}

fn misuse() -> Problem {
    Problem::new(Category::Internal, "idempotency_transaction_missing")
        .with_outcome(Outcome::NotApplied)
}
