//! `IdemTx<D>` and `LentLease<S>` as axum extractors.

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use mainstay_errors::{Category, Fault, Outcome, Problem};

use super::lazy;
use crate::IdempotencyError;
use crate::leased::{Home, LeasedStore, Leases, LentLease};
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
            return Err(misuse(NO_TRANSACTION));
        };
        match slot.lend().await {
            Ok(Some(tx)) => Ok(tx),
            Ok(None) => {
                tracing::error!("IdemTx asked for twice in one request");
                Err(misuse(NO_TRANSACTION))
            }
            Err(error) => Err(error.to_problem()),
        }
    }
}

/// Rejects with the 400 problem of a missing key where a key is optional and there is none: an `Option<LentLease<S>>` is `None`
/// there. And with a 500 problem when the route is not under [`IdempotencyLayer::leased`](crate::IdempotencyLayer::leased) with
/// this store, when its method is not one of the layer's, or when the handler asks twice.
impl<L: LeasedStore, S: Sync> FromRequestParts<S> for LentLease<L> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        match lease(parts)? {
            Some(lease) => Ok(lease),
            None => Err(IdempotencyError::KeyMissing.to_problem()),
        }
    }
}

/// `None` without a key, where one is optional. Rejects what the extractor without `Option` rejects with a 500.
impl<L: LeasedStore, S: Sync> OptionalFromRequestParts<S> for LentLease<L> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Problem> {
        lease(parts)
    }
}

fn lease<L: LeasedStore>(parts: &Parts) -> Result<Option<LentLease<L>>, Problem> {
    match parts.extensions.get::<Home<L>>().map(Home::lend) {
        Some(Some(lease)) => Ok(Some(lease)),
        Some(None) => {
            tracing::error!("LentLease asked for twice in one request");
            Err(misuse(NO_LEASE))
        }
        None if lazy::stands_ready::<Leases<L>>() => Ok(None),
        None => {
            tracing::error!(
                "LentLease on a route without IdempotencyLayer::leased for this store and method"
            );
            Err(misuse(NO_LEASE))
        }
    }
}

const NO_TRANSACTION: &str = "idempotency_transaction_missing";
const NO_LEASE: &str = "idempotency_lease_missing";

fn misuse(code: &'static str) -> Problem {
    Problem::new(Category::Internal, code).with_outcome(Outcome::NotApplied)
}
