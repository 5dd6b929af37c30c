//! Messages that are for nobody.

use super::Outcome;

/// What becomes of a message that nobody takes: no queue of RabbitMQ's is bound for its routing key, no stream of JetStream's
/// takes its subject.
///
/// It is that message's matter, and others go on. A topic that was mistyped looks like one that is set up tomorrow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unroutable {
    /// It is tried again, and is a dead letter when its attempts are spent. For queues and streams that somebody will yet make.
    #[default]
    Retry,
    /// It is a dead letter at once.
    Reject,
    /// It counts as published: nobody wanted it. For exchanges and subjects that anybody may listen to, or not.
    Drop,
}

impl Unroutable {
    pub(super) fn outcome(self, reason: &str) -> Outcome {
        match self {
            Self::Retry => Outcome::retry(reason),
            Self::Reject => Outcome::reject(reason),
            Self::Drop => Outcome::Acked,
        }
    }
}
