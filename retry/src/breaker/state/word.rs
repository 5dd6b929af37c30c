//! The state as the world sees it, and as it stands in one atomic word.

/// What a breaker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Every call goes through; failures are counted.
    Closed,
    /// Every call is refused until the wait is over.
    Open,
    /// A few calls go through as probes.
    HalfOpen,
    /// Refuses every call until an operator resets it.
    ForcedOpen,
    /// Lets every call through until an operator resets it, whatever happens.
    ForcedClosed,
    /// Out of the way: lets every call through and looks at none, until an operator resets it.
    Disabled,
    /// Lets every call through and counts as if closed: says when it would have opened, and does not.
    MetricsOnly,
}

impl State {
    /// The name used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Disabled => "disabled",
            Self::MetricsOnly => "metrics_only",
        }
    }

    /// Those that count come first, then the others that let every call through.
    pub(super) const fn code(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::MetricsOnly => 1,
            Self::ForcedClosed => 2,
            Self::Disabled => 3,
            Self::Open => 4,
            Self::HalfOpen => 5,
            Self::ForcedOpen => 6,
        }
    }

    pub(super) const fn counts(self) -> bool {
        self.code() <= Self::MetricsOnly.code()
    }
}

/// What a call that was let in reports back with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::breaker) struct Ticket {
    /// As it was then, without the failures: when it still is the same, there is nothing for a success to do.
    pub(super) word: u64,
    /// Nanoseconds; zero where nobody asks how long a call took.
    pub(super) started: u64,
}

impl Ticket {
    pub(super) fn generation(self) -> u64 {
        Word(self.word).generation()
    }
}

/// Consecutive failures share a word with state and generation.
pub(in crate::breaker) const CONSECUTIVE_MAX: u32 = (1 << 20) - 1;

/// `generation: 41 bits | failures: 20 bits | state: 3 bits`
#[derive(Clone, Copy)]
pub(super) struct Word(pub(super) u64);

impl Word {
    const STATE_BITS: u32 = 3;
    const FAILURE_BITS: u32 = 20;

    pub(super) const fn new(state: State, generation: u64) -> Self {
        Self(generation << (Self::STATE_BITS + Self::FAILURE_BITS) | state.code())
    }

    pub(super) const fn code(self) -> u64 {
        self.0 & ((1 << Self::STATE_BITS) - 1)
    }

    pub(super) const fn state(self) -> State {
        match self.code() {
            0 => State::Closed,
            1 => State::MetricsOnly,
            2 => State::ForcedClosed,
            3 => State::Disabled,
            4 => State::Open,
            5 => State::HalfOpen,
            _ => State::ForcedOpen,
        }
    }

    /// Whether every call is let in.
    pub(super) const fn passes(self) -> bool {
        self.code() <= State::Disabled.code()
    }

    /// Whether outcomes are counted to see if it should open.
    pub(super) const fn counts(self) -> bool {
        self.code() <= State::MetricsOnly.code()
    }

    pub(super) const fn failures(self) -> u32 {
        (self.0 >> Self::STATE_BITS) as u32 & CONSECUTIVE_MAX
    }

    pub(super) const fn generation(self) -> u64 {
        self.0 >> (Self::STATE_BITS + Self::FAILURE_BITS)
    }

    /// How windows know a generation.
    pub(super) const fn epoch(self) -> u32 {
        self.generation() as u32
    }

    pub(super) const fn with_failures(self, failures: u32) -> Self {
        let mask = (CONSECUTIVE_MAX as u64) << Self::STATE_BITS;
        Self(self.0 & !mask | (failures as u64) << Self::STATE_BITS & mask)
    }
}
