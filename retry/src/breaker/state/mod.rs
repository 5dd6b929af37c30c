//! The state machine of a breaker: who is let in, and what outcomes change. No runtime; `now` comes in.
//!
//! State, generation and the run of failures stand in one atomic word, so that a healthy call reads it twice and
//! writes nothing. Everything rarer happens under a lock. Every change of state goes through [`Machine::change`],
//! which starts a new generation; an outcome that was admitted by an older one finds that out by comparing and leaves.
//!
//! The lock is needed for every write that changes the state. The run of failures is also cleared without it; so
//! all writes are compare-exchange on the whole word, in which a stale generation always loses.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::builder::{CONSECUTIVE_MAX, Settings};

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
        }
    }

    const fn code(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
            Self::ForcedOpen => 3,
            Self::ForcedClosed => 4,
            Self::Disabled => 5,
        }
    }
}

/// One change of state, told exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) from: State,
    pub(super) to: State,
    pub(super) generation: u64,
}

/// What is asked for at the door.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Come in, and report back with this generation.
    Granted(u64),
    /// Not now. The wait until a probe, or zero when it depends on others.
    Refused(Duration),
}

pub(super) struct Machine {
    word: AtomicU64,
    settings: Settings,
    slow: Mutex<Slow>,
}

/// What only matters while not closed.
#[derive(Default)]
struct Slow {
    /// When the present open or half-open state is over.
    until: Option<Instant>,
    /// How often it opened without having closed between, and the last wait: the input of the backoff.
    openings: u32,
    wait: Duration,
    probes_in_flight: u32,
    probes_succeeded: u32,
}

/// `generation: 41 bits | failures: 20 bits | state: 3 bits`
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    const STATE_BITS: u32 = 3;
    const FAILURE_BITS: u32 = 20;

    const fn new(state: State, generation: u64) -> Self {
        Self(generation << (Self::STATE_BITS + Self::FAILURE_BITS) | state.code())
    }

    const fn state(self) -> State {
        match self.0 & ((1 << Self::STATE_BITS) - 1) {
            0 => State::Closed,
            1 => State::Open,
            2 => State::HalfOpen,
            3 => State::ForcedOpen,
            4 => State::ForcedClosed,
            _ => State::Disabled,
        }
    }

    const fn failures(self) -> u32 {
        (self.0 >> Self::STATE_BITS) as u32 & CONSECUTIVE_MAX
    }

    const fn generation(self) -> u64 {
        self.0 >> (Self::STATE_BITS + Self::FAILURE_BITS)
    }

    const fn with_failures(self, failures: u32) -> Self {
        let mask = (CONSECUTIVE_MAX as u64) << Self::STATE_BITS;
        Self(self.0 & !mask | (failures as u64) << Self::STATE_BITS & mask)
    }
}

impl Machine {
    pub(super) fn new(settings: Settings) -> Self {
        let word = AtomicU64::new(Word::new(State::Closed, 0).0);
        Self {
            word,
            settings,
            slow: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> State {
        self.load().state()
    }

    /// Whether [`admit`](Self::admit) would refuse now. Lets nobody in, but ends a half-open state whose time is over:
    /// whoever is refused on this answer does not come to `admit`, and the state would never end.
    pub(super) fn would_refuse(&self, now: impl FnOnce() -> Instant) -> (bool, Option<Transition>) {
        match self.load().state() {
            State::Closed | State::ForcedClosed | State::Disabled => (false, None),
            State::ForcedOpen => (true, None),
            State::Open | State::HalfOpen => {
                let now = now();
                let mut slow = self.lock();
                let over = slow.until.is_none_or(|until| until <= now);
                match self.load().state() {
                    State::Open => (!over, None),
                    State::HalfOpen if over => {
                        (true, Some(self.change(&mut slow, State::Open, now)))
                    }
                    State::HalfOpen => (!slow.has_room(&self.settings), None),
                    State::ForcedOpen => (true, None),
                    State::Closed | State::ForcedClosed | State::Disabled => (false, None),
                }
            }
        }
    }

    /// The time until an open circuit tries a probe; zero in any other state.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let slow = self.lock();
        let until = slow.until.filter(|_| self.load().state() == State::Open);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Lets a call in or refuses it; moves on from open or half-open when their time is over.
    pub(super) fn admit(&self, now: impl FnOnce() -> Instant) -> (Admission, Option<Transition>) {
        let word = self.load();
        match word.state() {
            State::Closed | State::ForcedClosed | State::Disabled => {
                (Admission::Granted(word.generation()), None)
            }
            State::ForcedOpen => (Admission::Refused(Duration::ZERO), None),
            State::Open | State::HalfOpen => self.admit_probe(now()),
        }
    }

    #[cold]
    fn admit_probe(&self, now: Instant) -> (Admission, Option<Transition>) {
        let mut slow = self.lock();
        let word = self.load();
        let over = slow.until.is_none_or(|until| until <= now);
        match word.state() {
            State::Open if over => {
                let change = self.change(&mut slow, State::HalfOpen, now);
                slow.probes_in_flight = 1;
                (Admission::Granted(change.generation), Some(change))
            }
            State::HalfOpen if over => {
                let change = self.change(&mut slow, State::Open, now);
                (Admission::Refused(slow.wait), Some(change))
            }
            State::Open => {
                let left = slow
                    .until
                    .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
                (Admission::Refused(left), None)
            }
            State::HalfOpen if slow.has_room(&self.settings) => {
                slow.probes_in_flight += 1;
                (Admission::Granted(word.generation()), None)
            }
            State::HalfOpen | State::ForcedOpen => (Admission::Refused(Duration::ZERO), None),
            State::Closed | State::ForcedClosed | State::Disabled => {
                (Admission::Granted(word.generation()), None)
            }
        }
    }

    /// Counts an outcome of `generation`: good, bad, or `None` for one that says nothing.
    pub(super) fn record(
        &self,
        generation: u64,
        health: Option<bool>,
        now: impl FnOnce() -> Instant,
    ) -> Option<Transition> {
        let word = self.load();
        if word.generation() != generation {
            return None;
        }
        match (word.state(), health) {
            (State::Closed, Some(true)) => {
                self.clear_failures(word);
                None
            }
            (State::Closed, Some(false)) => self.count_failure(generation, now()),
            (State::HalfOpen, _) => self.end_probe(generation, health, now),
            _ => None,
        }
    }

    /// Puts the breaker into `state`, whatever it was in.
    pub(super) fn force(&self, state: State, now: Instant) -> Option<Transition> {
        let mut slow = self.lock();
        // Even when the state stays the same, calls under way belong to what was before the order.
        let change = self.change(&mut slow, state, now);
        (change.from != change.to).then_some(change)
    }

    fn clear_failures(&self, mut word: Word) {
        let generation = word.generation();
        while word.failures() != 0 && word.generation() == generation {
            match self.exchange(word, word.with_failures(0)) {
                Ok(()) => return,
                Err(seen) => word = seen,
            }
        }
    }

    #[cold]
    fn count_failure(&self, generation: u64, now: Instant) -> Option<Transition> {
        let mut slow = self.lock();
        loop {
            let word = self.load();
            if word.generation() != generation {
                return None;
            }
            let failures = word.failures() + 1;
            if failures >= self.settings.trip.consecutive {
                return Some(self.change(&mut slow, State::Open, now));
            }
            if self.exchange(word, word.with_failures(failures)).is_ok() {
                return None;
            }
        }
    }

    #[cold]
    fn end_probe(
        &self,
        generation: u64,
        health: Option<bool>,
        now: impl FnOnce() -> Instant,
    ) -> Option<Transition> {
        let mut slow = self.lock();
        if self.load().generation() != generation {
            return None;
        }
        slow.probes_in_flight = slow.probes_in_flight.saturating_sub(1);
        match health {
            None => None,
            Some(false) => Some(self.change(&mut slow, State::Open, now())),
            Some(true) => {
                slow.probes_succeeded += 1;
                let enough = slow.probes_succeeded >= self.settings.half_open.probes;
                enough.then(|| self.change(&mut slow, State::Closed, now()))
            }
        }
    }

    /// The only place where the state changes. The caller holds the lock.
    fn change(&self, slow: &mut Slow, to: State, now: Instant) -> Transition {
        slow.probes_in_flight = 0;
        slow.probes_succeeded = 0;
        slow.until = None;
        match to {
            State::Open => {
                slow.openings = slow.openings.saturating_add(1);
                slow.wait =
                    self.settings
                        .wait_in_open
                        .delay(slow.openings, slow.wait, &mut rand::rng());
                slow.until = now.checked_add(slow.wait.min(TIME_MAX));
            }
            State::HalfOpen => {
                slow.until = now.checked_add(self.settings.half_open.max_wait.min(TIME_MAX));
            }
            State::Closed | State::ForcedOpen | State::ForcedClosed | State::Disabled => {
                slow.openings = 0;
                slow.wait = Duration::ZERO;
            }
        }
        let mut word = self.load();
        loop {
            let generation = word.generation() + 1;
            match self.exchange(word, Word::new(to, generation)) {
                Ok(()) => {
                    return Transition {
                        from: word.state(),
                        to,
                        generation,
                    };
                }
                Err(seen) => word = seen,
            }
        }
    }

    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    fn exchange(&self, old: Word, new: Word) -> Result<(), Word> {
        let result = self
            .word
            .compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire);
        result.map(drop).map_err(Word)
    }

    fn lock(&self) -> MutexGuard<'_, Slow> {
        // Nothing under the lock can panic half-way, and a breaker that is stuck would be worse than one that is off.
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Longer waits are as good as for ever, and instants cannot hold them all.
const TIME_MAX: Duration = Duration::from_secs(365 * 86_400);

impl Slow {
    /// Probes under way and those that succeeded together never exceed the number that is permitted.
    fn has_room(&self, settings: &Settings) -> bool {
        self.probes_in_flight.saturating_add(self.probes_succeeded) < settings.half_open.probes
    }
}

#[cfg(test)]
mod tests;
