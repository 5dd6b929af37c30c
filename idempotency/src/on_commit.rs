//! What is told of each commit: the outbox's relay, in most services.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

#[derive(Clone, Default)]
pub(crate) struct OnCommit(Option<Arc<dyn Fn() + Send + Sync>>);

impl OnCommit {
    pub(crate) fn new(hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    /// The effects are committed: a hook that panics now must not turn the answer into a failure.
    pub(crate) fn call(&self) {
        let Some(hook) = &self.0 else { return };
        if catch_unwind(AssertUnwindSafe(|| hook())).is_err() {
            tracing::error!("on_commit panicked; the commit stands");
        }
    }
}
