//! The one error type that comes out of the layers, and the small named refusals inside it.

use std::{any::Any, error::Error as StdError, fmt, sync::Arc, time::Duration};

use crate::verdict::Kind;

/// Any error, boxed, as services commonly have it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What a breaker or a throttle is called. Thin: what every call may return is to be no wider than three words.
pub(crate) type Name = Arc<Arc<str>>;

/// Why a call through the layers gave no response.
///
/// Four of the ways are refusals of our own; every error of the service inside comes out as [`Inner`](Self::Inner),
/// unchanged. Layers of this crate may be stacked in any number: the error does not nest.
///
/// ```
/// use mainstay_retry::Error;
///
/// fn describe(error: &Error) -> String {
///     match error {
///         Error::CircuitOpen(open) if !open.attempted() => format!("not asked; try in {:?}", open.retry_after()),
///         Error::DeadlineExceeded(late) if !late.started() => "not asked: no time was left".into(),
///         other => format!("asked, no answer, it may have happened: {other}"),
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The breaker did not let the call through.
    CircuitOpen(CircuitOpen),
    /// The throttle did not let the call through.
    SelfThrottled(SelfThrottled),
    /// The call's deadline passed.
    DeadlineExceeded(DeadlineExceeded),
    /// The last attempt took longer than one attempt may.
    AttemptTimedOut(AttemptTimedOut),
    /// The service inside failed: a connection refused or reset, for an HTTP client.
    Inner(BoxError),
}

/// The circuit breaker refused an attempt: the other side has been failing. It was not asked this time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("circuit `{breaker}` is open")]
pub struct CircuitOpen {
    breaker: Name,
    retry_after_nanos: u64,
    attempted: bool,
}

/// The adaptive throttle refused an attempt: the other side has been refusing too many. It was not asked this time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("throttle `{throttle}` holds back")]
pub struct SelfThrottled {
    throttle: Name,
    attempted: bool,
}

/// The call's deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("deadline exceeded")]
pub struct DeadlineExceeded {
    started: bool,
}

/// One attempt took longer than one attempt may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attempt timed out after {limit:?}")]
pub struct AttemptTimedOut {
    limit: Duration,
}

impl CircuitOpen {
    #[inline]
    pub(crate) const fn new(breaker: Name, retry_after_nanos: u64) -> Self {
        Self {
            breaker,
            retry_after_nanos,
            attempted: false,
        }
    }

    /// The name the breaker was built with.
    pub fn breaker(&self) -> &str {
        &self.breaker
    }

    /// How long until the breaker tries a probe. Zero when that depends on probes under way or on an operator.
    pub const fn retry_after(&self) -> Duration {
        Duration::from_nanos(self.retry_after_nanos)
    }

    /// Whether an earlier attempt of the same call went out before the circuit opened, so that the request may have
    /// taken effect after all.
    pub fn attempted(&self) -> bool {
        self.attempted
    }
}

impl SelfThrottled {
    pub(crate) const fn new(throttle: Name) -> Self {
        Self {
            throttle,
            attempted: false,
        }
    }

    /// The name the throttle was built with.
    pub fn throttle(&self) -> &str {
        &self.throttle
    }

    /// Whether an earlier attempt of the same call went out, so that the request may have taken effect after all.
    pub const fn attempted(&self) -> bool {
        self.attempted
    }
}

impl DeadlineExceeded {
    pub(crate) const fn new(started: bool) -> Self {
        Self { started }
    }

    /// Whether an attempt had been started, so that the request may have taken effect.
    pub const fn started(&self) -> bool {
        self.started
    }
}

impl AttemptTimedOut {
    pub(crate) const fn new(limit: Duration) -> Self {
        Self { limit }
    }

    /// How long the attempt was given.
    pub const fn limit(&self) -> Duration {
        self.limit
    }
}

impl Error {
    /// Takes in the error of an inner service. One that is already ours comes out as it was, without a box.
    pub(crate) fn from_inner<E: Into<BoxError> + 'static>(error: E) -> Self {
        let mut slot = Some(error);
        let ours = (&mut slot as &mut dyn Any).downcast_mut::<Option<Self>>();
        if let Some(error) = ours.and_then(Option::take) {
            return error;
        }
        let boxed: BoxError = match slot {
            Some(error) => error.into(),
            None => return Self::Inner("an inner error that was already taken".into()),
        };
        match boxed.downcast::<Self>() {
            Ok(ours) => *ours,
            Err(other) => Self::Inner(other),
        }
    }

    /// Remembers that this is not the first attempt: a refusal now says nothing about what happened before.
    fn mark_attempted(&mut self) {
        match self {
            Self::CircuitOpen(open) => open.attempted = true,
            Self::SelfThrottled(held) => held.attempted = true,
            Self::DeadlineExceeded(late) => late.started = true,
            Self::Inner(inner) => mark_boxed(inner),
            Self::AttemptTimedOut(_) => {}
        }
    }

    /// The breaker did not let the call through.
    pub const fn is_circuit_open(&self) -> bool {
        matches!(self, Self::CircuitOpen(_))
    }

    /// The throttle did not let the call through.
    pub const fn is_self_throttled(&self) -> bool {
        matches!(self, Self::SelfThrottled(_))
    }

    /// The call's deadline passed.
    pub const fn is_deadline_exceeded(&self) -> bool {
        matches!(self, Self::DeadlineExceeded(_))
    }

    /// The sort of failure, as the breaker and the budget see it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::CircuitOpen(_) => Kind::CircuitOpen,
            Self::SelfThrottled(_) => Kind::SelfThrottled,
            Self::DeadlineExceeded(_) => Kind::DeadlineExceeded,
            Self::AttemptTimedOut(_) => Kind::Timeout,
            Self::Inner(inner) => kind_in_chain(&**inner).unwrap_or(Kind::Transient),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CircuitOpen(error) => error.fmt(f),
            Self::SelfThrottled(error) => error.fmt(f),
            Self::DeadlineExceeded(error) => error.fmt(f),
            Self::AttemptTimedOut(error) => error.fmt(f),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // `Display` speaks for the error inside, so the chain goes on with that one's cause.
        match self {
            Self::Inner(error) => error.source(),
            Self::CircuitOpen(_)
            | Self::SelfThrottled(_)
            | Self::DeadlineExceeded(_)
            | Self::AttemptTimedOut(_) => None,
        }
    }
}

impl From<CircuitOpen> for Error {
    fn from(error: CircuitOpen) -> Self {
        Self::CircuitOpen(error)
    }
}

impl From<SelfThrottled> for Error {
    fn from(error: SelfThrottled) -> Self {
        Self::SelfThrottled(error)
    }
}

impl From<DeadlineExceeded> for Error {
    fn from(error: DeadlineExceeded) -> Self {
        Self::DeadlineExceeded(error)
    }
}

impl From<AttemptTimedOut> for Error {
    fn from(error: AttemptTimedOut) -> Self {
        Self::AttemptTimedOut(error)
    }
}

/// [`Error::mark_attempted`] on the error of a service, if it is one of ours, bare or boxed.
pub(crate) fn mark_attempted<E: 'static>(error: &mut E) {
    let any: &mut dyn Any = error;
    if let Some(error) = any.downcast_mut::<Error>() {
        error.mark_attempted();
    } else if let Some(error) = any.downcast_mut::<BoxError>() {
        mark_boxed(error);
    } else if let Some(open) = any.downcast_mut::<CircuitOpen>() {
        open.attempted = true;
    } else if let Some(held) = any.downcast_mut::<SelfThrottled>() {
        held.attempted = true;
    } else if let Some(late) = any.downcast_mut::<DeadlineExceeded>() {
        late.started = true;
    }
}

fn mark_boxed(error: &mut BoxError) {
    if let Some(error) = error.downcast_mut::<Error>() {
        error.mark_attempted();
    } else if let Some(open) = error.downcast_mut::<CircuitOpen>() {
        open.attempted = true;
    } else if let Some(held) = error.downcast_mut::<SelfThrottled>() {
        held.attempted = true;
    } else if let Some(late) = error.downcast_mut::<DeadlineExceeded>() {
        late.started = true;
    }
}

const CHAIN_MAX: usize = 16;

/// The sort of one of our own errors, bare, boxed or a cause of a boxed one; `None` for everybody else's, and for a
/// typed wrapper, whose causes cannot be seen from here.
pub(crate) fn own_kind<E: 'static>(error: &E) -> Option<Kind> {
    let any: &dyn Any = error;
    if let Some(error) = any.downcast_ref::<Error>() {
        return match error {
            Error::Inner(inner) => kind_in_chain(&**inner),
            refusal => Some(refusal.kind()),
        };
    }
    if let Some(error) = any.downcast_ref::<BoxError>() {
        return kind_in_chain(&**error);
    }
    if any.is::<CircuitOpen>() {
        return Some(Kind::CircuitOpen);
    }
    if any.is::<SelfThrottled>() {
        return Some(Kind::SelfThrottled);
    }
    if any.is::<DeadlineExceeded>() {
        return Some(Kind::DeadlineExceeded);
    }
    any.is::<AttemptTimedOut>().then_some(Kind::Timeout)
}

fn kind_in_chain(error: &(dyn StdError + 'static)) -> Option<Kind> {
    // Wrappers such as a buffer keep our errors as their source. Chains are short; the bound is against loops.
    std::iter::successors(Some(error), |&error| error.source())
        .take(CHAIN_MAX)
        .find_map(|error| {
            if let Some(error) = error.downcast_ref::<Error>() {
                return match error {
                    Error::Inner(_) => None, // its causes are next in this chain
                    refusal => Some(refusal.kind()),
                };
            }
            if error.is::<CircuitOpen>() {
                return Some(Kind::CircuitOpen);
            }
            if error.is::<SelfThrottled>() {
                return Some(Kind::SelfThrottled);
            }
            if error.is::<DeadlineExceeded>() {
                return Some(Kind::DeadlineExceeded);
            }
            error.is::<AttemptTimedOut>().then_some(Kind::Timeout)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Arc::new("payments".into())
    }

    #[test]
    fn an_error_is_three_words() {
        assert_eq!(size_of::<Error>(), 24);
    }

    fn open() -> CircuitOpen {
        CircuitOpen::new(name(), 1_000_000_000)
    }

    #[test]
    fn our_errors_do_not_nest() {
        assert!(Error::from_inner(Error::from(open())).is_circuit_open());
        let boxed: BoxError = Box::new(Error::from(open()));
        assert!(Error::from_inner(boxed).is_circuit_open());
    }

    #[test]
    fn every_refusal_that_is_known_is_marked_as_attempted() {
        let mut bare = open();
        mark_attempted(&mut bare);
        assert!(bare.attempted());
        let mut held = Error::from(SelfThrottled::new(name()));
        mark_attempted(&mut held);
        assert!(matches!(held, Error::SelfThrottled(held) if held.attempted()));
        let mut late = DeadlineExceeded::new(false);
        mark_attempted(&mut late);
        assert!(late.started());
        let mut boxed: BoxError = Box::new(open());
        mark_attempted(&mut boxed);
        assert!(boxed.downcast_ref::<CircuitOpen>().unwrap().attempted());
        let mut inner = Error::Inner(Box::new(open()));
        mark_attempted(&mut inner);
        assert!(
            matches!(inner, Error::Inner(boxed) if boxed.downcast_ref::<CircuitOpen>().unwrap().attempted())
        );
    }

    #[test]
    fn foreign_errors_keep_their_type_and_message() {
        let error = Error::from_inner(std::io::Error::other("reset"));
        assert_eq!(error.to_string(), "reset");
        assert!(matches!(&error, Error::Inner(inner) if inner.is::<std::io::Error>()));
        assert_eq!(error.kind(), Kind::Transient);
    }

    #[test]
    fn a_refusal_is_found_through_wrappers() {
        #[derive(Debug, thiserror::Error)]
        #[error("buffered")]
        struct Wrapped(#[source] Error);
        let boxed: BoxError = Box::new(Wrapped(open().into()));
        assert_eq!(own_kind(&boxed), Some(Kind::CircuitOpen));
        assert_eq!(own_kind(&open()), Some(Kind::CircuitOpen));
        let held: BoxError = Box::new(Wrapped(SelfThrottled::new(name()).into()));
        assert_eq!(own_kind(&held), Some(Kind::SelfThrottled));
        assert_eq!(own_kind(&std::io::Error::other("reset")), None);
        assert_eq!(Error::Inner(boxed).kind(), Kind::CircuitOpen);
    }
}
