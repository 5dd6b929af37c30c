//! What came of the wish to hedge, for those who watch.

use crate::policy::TARGET;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Sent,
    NoTime,
    NotReady,
    NotWhole,
    NoBudget,
}

impl Decision {
    pub(super) fn tell(self) {
        let decision = match self {
            Self::Sent => "sent",
            Self::NoTime => "no_time",
            Self::NotReady => "not_ready",
            Self::NotWhole => "not_whole",
            Self::NoBudget => "no_budget",
        };
        tracing::debug!(target: TARGET, decision, "attempt is slow");
        #[cfg(feature = "metrics")]
        metrics::counter!("mainstay.hedge.decisions", "decision" => decision).increment(1);
    }
}

pub(super) fn won() {
    tracing::debug!(target: TARGET, "hedge answered first");
    #[cfg(feature = "metrics")]
    metrics::counter!("mainstay.hedge.wins").increment(1);
}
