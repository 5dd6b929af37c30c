//! The end of a request that has no key, but whose handler asked for a transaction.

use std::panic::resume_unwind;
use std::sync::Arc;

use axum_core::body::Body;
use http::Response;
use sqlx::Transaction;
use tokio::time::timeout;
use tracing::Instrument;

use super::answer::refuse;
use super::config::Config;
use crate::policy::Keep;
use crate::store::{IdempotencyDb, roll_back, roll_back_cut_off, within};
use crate::{Error, ErrorKind, IdempotencyError};

/// Commits or rolls back, in a task of its own. There is no key to read again: a lost answer stays unknown.
pub(super) fn finish<D: IdempotencyDb>(
    config: Arc<Config<D>>,
    mut tx: Transaction<'static, D>,
    response: Response<Body>,
) -> impl Future<Output = Response<Body>> + Send + 'static {
    let tracker = config.tracker.clone();
    let task = tracker.spawn(
        async move {
            if config.policy.keep(response.status().as_u16()) != Keep::Commit {
                roll_back(&config.tracker, tx).await;
                return response;
            }
            let patience = config.limits.resolve_time_max;
            match timeout(patience, D::check_open(&mut tx)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    roll_back(&config.tracker, tx).await;
                    return refuse(None, IdempotencyError::Store(error));
                }
                Err(elapsed) => {
                    roll_back_cut_off(&config.tracker, &config.keys, tx).await;
                    let silent = Error::new(ErrorKind::Unavailable, elapsed);
                    return refuse(None, IdempotencyError::Store(silent));
                }
            }
            let committing = async move { D::commit(tx).await };
            match within(&config.tracker, patience, committing).await {
                Ok(()) => {
                    config.on_commit.call();
                    response
                }
                Err(lost) if lost.kind() == ErrorKind::Unavailable => {
                    refuse(None, IdempotencyError::OutcomeUnknownWithoutKey(lost))
                }
                Err(refused) => refuse(None, IdempotencyError::Store(refused)),
            }
        }
        .in_current_span(),
    );
    async move {
        match task.await {
            Ok(response) => response,
            Err(join) => match join.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(cancelled) => {
                    let refusal = IdempotencyError::OutcomeUnknownWithoutKey(Error::new(
                        ErrorKind::Unavailable,
                        cancelled,
                    ));
                    refuse(None, refusal)
                }
            },
        }
    }
}
