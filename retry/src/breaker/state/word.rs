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

    /// Those that count come first, then the others that let every call through: see [`Word`].
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::breaker) struct Ticket {
    /// The word as it was then, without failures: one that is still the same is of a circuit that is closed and has
    /// seen none since. The word of a circuit that does not count comes with a run of failures that it never has.
    pub(super) word: u64,
    /// Nanoseconds; zero where nobody asks how long a call took.
    pub(super) started: u64,
}

impl Ticket {
    /// Of a generation that never comes: what is reported with it is nobody's.
    pub(in crate::breaker) const NONE: Self = Self {
        word: u64::MAX,
        started: 0,
    };

    pub(super) const fn new(word: Word, started: u64) -> Self {
        let failures = if word.counts() { 0 } else { CONSECUTIVE_MAX };
        Self {
            word: word.with_failures(failures).0,
            started,
        }
    }

    pub(super) fn generation(self) -> u64 {
        Word(self.word).generation()
    }
}

/// Consecutive failures share a word with state and generation.
pub(in crate::breaker) const CONSECUTIVE_MAX: u32 = (1 << 20) - 1;

/// What the rules of a machine want of every call. It never changes, and stands in the word so that one look at the word
/// tells a call all that concerns it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demands {
    /// Its outcome, success or not.
    pub(super) outcomes: bool,
    /// The time at which it starts.
    pub(super) times: bool,
}

/// `generation: 39 bits | failures: 20 bits | demands: 2 bits | state: 3 bits`
#[derive(Clone, Copy)]
pub(super) struct Word(pub(super) u64);

impl Word {
    const STATE_BITS: u32 = 3;
    const FAILURES_AT: u32 = Self::STATE_BITS + 2;
    const FAILURE_BITS: u32 = 20;
    const GENERATION_AT: u32 = Self::FAILURES_AT + Self::FAILURE_BITS;

    /// Set in the codes of those that do not let every call through, and in those that do not count.
    const ASKS: u64 = 4;
    const UNCOUNTED: u64 = 4 | 2;
    const OUTCOMES: u64 = 1 << Self::STATE_BITS;
    const TIMES: u64 = 2 << Self::STATE_BITS;

    pub(super) const fn new(state: State, generation: u64, demands: Demands) -> Self {
        let outcomes = if demands.outcomes { Self::OUTCOMES } else { 0 };
        let times = if demands.times { Self::TIMES } else { 0 };
        Self(generation << Self::GENERATION_AT | outcomes | times | state.code())
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
        self.0 & Self::ASKS == 0
    }

    /// Whether outcomes are counted to see if it should open.
    pub(super) const fn counts(self) -> bool {
        self.0 & Self::UNCOUNTED == 0
    }

    /// Whether outcomes are counted, and it does not matter when calls start.
    pub(super) const fn counts_untimed(self) -> bool {
        self.0 & (Self::UNCOUNTED | Self::TIMES) == 0
    }

    /// Whether it wants to know of every success.
    pub(super) const fn wants_outcomes(self) -> bool {
        self.0 & Self::OUTCOMES != 0
    }

    pub(super) const fn failures(self) -> u32 {
        (self.0 >> Self::FAILURES_AT) as u32 & CONSECUTIVE_MAX
    }

    pub(super) const fn generation(self) -> u64 {
        self.0 >> Self::GENERATION_AT
    }

    /// How windows know a generation.
    pub(super) const fn epoch(self) -> u32 {
        self.generation() as u32
    }

    pub(super) const fn with_failures(self, failures: u32) -> Self {
        let mask = (CONSECUTIVE_MAX as u64) << Self::FAILURES_AT;
        Self(self.0 & !mask | (failures as u64) << Self::FAILURES_AT & mask)
    }
}
