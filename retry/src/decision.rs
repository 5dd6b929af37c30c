//! What came of a failure that might have been tried again, for those who watch.

use std::time::Duration;

use crate::{policy::TARGET, verdict::Kind};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Again,
    NoTime,
    NoBudget,
}

impl Decision {
    #[cfg(feature = "metrics")]
    const ALL: [Self; 3] = [Self::Again, Self::NoTime, Self::NoBudget];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Again => "again",
            Self::NoTime => "no_time",
            Self::NoBudget => "no_budget",
        }
    }

    #[inline]
    pub(crate) fn tell(self, attempt: u32, kind: Kind, wait: Duration) {
        // One comparison when nobody listens.
        if tracing::Level::DEBUG <= tracing::level_filters::LevelFilter::current() {
            self.trace(attempt, kind, wait);
        }
        #[cfg(feature = "metrics")]
        counted::decision(self, kind);
    }

    #[cold]
    fn trace(self, attempt: u32, kind: Kind, wait: Duration) {
        tracing::debug!(
            target: TARGET,
            attempt,
            kind = kind.as_str(),
            wait = wait.as_secs_f64(),
            decision = self.as_str(),
            "attempt failed"
        );
    }
}

/// The counters' names are made once: the macro would allocate the labels for each decision.
#[cfg(feature = "metrics")]
mod counted {
    use std::sync::LazyLock;

    use metrics::{Key, Label, Level, Metadata, with_recorder};

    use super::Decision;
    use crate::{policy::TARGET, verdict::Kind};

    static METADATA: Metadata<'static> = Metadata::new(TARGET, Level::INFO, Some(module_path!()));

    static KEYS: LazyLock<[[Key; Decision::ALL.len()]; Kind::COUNT]> = LazyLock::new(|| {
        Kind::ALL.map(|kind| {
            Decision::ALL.map(|decision| {
                let labels = vec![
                    Label::from_static_parts("kind", kind.as_str()),
                    Label::from_static_parts("decision", decision.as_str()),
                ];
                Key::from_parts("mainstay.retry.decisions", labels)
            })
        })
    });

    pub(super) fn decision(decision: Decision, kind: Kind) {
        let keys = KEYS.get(kind.index());
        if let Some(key) = keys.and_then(|keys| keys.get(decision as usize)) {
            with_recorder(|recorder| recorder.register_counter(key, &METADATA).increment(1));
        }
    }
}
