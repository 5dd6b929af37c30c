//! What to do about a key that is in flight.

use std::time::Duration;

/// What a duplicate does while the first request with its key is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// It is told so at once (409): waiting would hold a connection per duplicate and process. Only while the first one is
    /// being looked up or commits, which takes milliseconds, is it waited for within a process, 200 ms at most.
    #[default]
    No,
    /// It waits that long for the first one's end, then gets its answer, or runs in its place when that one failed.
    ///
    /// Nobody polls: within a process a duplicate waits for the first one's task and holds no connection; across
    /// processes the database's own lock queue wakes it, and it holds one connection meanwhile.
    Up(Duration),
}

impl Wait {
    /// The longest time, where it is not zero.
    pub fn time(self) -> Option<Duration> {
        match self {
            Self::No | Self::Up(Duration::ZERO) => None,
            Self::Up(time) => Some(time),
        }
    }
}
