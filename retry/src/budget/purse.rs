//! What a policy pays from.

use std::{any::Any, sync::Arc, time::Instant};

use super::{Budget, TokenBudget};
use crate::verdict::{Kind, Verdict};

/// The default budget is told apart, so that a success is one load and one comparison and not a call.
#[derive(Clone, Debug)]
pub(crate) enum Purse {
    Bottomless,
    Tokens(Arc<TokenBudget>),
    Other(Arc<dyn Budget>),
}

impl Purse {
    pub(crate) fn new(budget: Arc<dyn Budget>) -> Self {
        let any: Arc<dyn Any + Send + Sync> = Arc::clone(&budget) as _;
        match any.downcast::<TokenBudget>() {
            Ok(tokens) => Self::Tokens(tokens),
            Err(_) => Self::Other(budget),
        }
    }

    #[inline]
    pub(crate) fn credit_success(&self, repeats: impl FnOnce() -> Option<Kind>) {
        match self {
            Self::Bottomless => {}
            Self::Tokens(budget) => budget.credit_success(repeats),
            Self::Other(budget) => budget.credit(Verdict::Success, repeats()),
        }
    }

    #[inline]
    pub(crate) fn credit(&self, verdict: Verdict, repeats: Option<Kind>) {
        match (self, verdict) {
            (_, Verdict::Success) => self.credit_success(|| repeats),
            (Self::Bottomless | Self::Tokens(_), _) => {}
            (Self::Other(budget), _) => budget.credit(verdict, repeats),
        }
    }

    /// The clock is only looked at if there is something to pay from.
    #[inline]
    pub(crate) fn try_spend(&self, now: impl FnOnce() -> Instant, kind: Kind) -> bool {
        match self {
            Self::Bottomless => true,
            Self::Tokens(budget) => budget.spend(now, kind),
            Self::Other(budget) => budget.try_spend(now(), kind),
        }
    }
}
