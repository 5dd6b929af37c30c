//! Which attempt of a call this is, as the services below the retry layer see it.

use std::{fmt, time::Duration};

use crate::policy::Repeat;

/// Which attempt of a logical call this is. Found in the request's extensions below the retry layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Attempt {
    /// Counts from 1.
    pub number: u32,
    /// How many there will be at most.
    pub max: u32,
    /// The wait that was decided on before this attempt; zero for the first.
    pub prev_delay: Duration,
}

impl Attempt {
    pub(crate) const fn first(max: u32) -> Self {
        Self {
            number: 1,
            max,
            prev_delay: Duration::ZERO,
        }
    }

    pub(crate) const fn repeat(repeat: &Repeat, max: u32) -> Self {
        Self {
            number: repeat.number,
            max,
            prev_delay: repeat.wait,
        }
    }

    /// Whether an attempt went before this one.
    pub const fn is_repeat(self) -> bool {
        self.number > 1
    }

    /// Whether no other will follow.
    pub const fn is_last(self) -> bool {
        self.number >= self.max
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.number, self.max)
    }
}
