//! The Leased protocol: for effects that no transaction of ours can take back.
//!
//! A claim commits at once, with a **fencing token** and a **lease**. Work goes on in named [steps](Lease::step), each in a
//! transaction that locks the key's row and checks the token before its effects: an attempt that was paused past its
//! lease finds another token there and commits nothing. Checking when the answer is recorded would be too late, because
//! the effects are there by then. What a finished step returned is kept, so an attempt that takes over goes on behind it;
//! a [`Completer`] takes over without waiting for the client to ask again.
//!
//! A remote system is [called](Lease::call) under a [derived key](derived_key) that is the same for every attempt. One
//! that honours such keys is asked again after a crash. One that does not is never asked twice: the key becomes
//! [`Unknown`](Claimed::Unknown), and somebody looks.
//!
//! | effect lives in | promise |
//! |---|---|
//! | the database of the leases, in [`Lease::step`] | exactly once per step |
//! | a remote that honours the derived key, in [`Lease::call`] | once |
//! | a remote that does not | at most once: after a crash it is unknown, and said so |
//! | anything, with the leases in Redis | once **while Redis remembers**: a failover or a lost disk forgets claims |

mod answer;
mod completer;
mod derived;
mod journal;
mod lease;
mod leases;
mod lent;
mod settle;
#[cfg_attr(
    not(any(feature = "postgres", feature = "mysql", feature = "sqlite")),
    allow(dead_code, reason = "what the files of the databases share")
)]
mod sql;
pub mod state;
mod store;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

pub use answer::Admitted;
pub use completer::Completer;
pub use derived::{DerivedKey, derived_key};
pub use journal::{RESULT_BYTES_MAX, STEP_BYTES_MAX};
pub use lease::{Lease, LeaseError, Remote};
#[cfg(feature = "axum")]
pub(crate) use leases::HANDLER_BYTES_MAX;
pub use leases::{Claimed, Leases};
pub(crate) use lent::Home;
pub use lent::LentLease;
#[cfg(feature = "axum")]
pub(crate) use settle::GivenBack;
pub use sql::LeasedDb;
#[cfg(feature = "memory")]
pub use store::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use store::redis::RedisStore;

use crate::store::Claim;
use crate::{Error, Fingerprint, Key, Recorded, Scope};

/// Proves which attempt speaks. Compared for equality where the effects are; later attempts have larger numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token {
    /// The number.
    pub number: u64,
    /// The run of the server that gave it, where numbers may be given twice by two runs (Redis); else empty.
    pub run: Box<str>,
}

/// The key an attempt holds, and by which token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Whose key.
    pub scope: Scope,
    /// Which key.
    pub key: Key,
    /// By which token.
    pub token: Token,
}

/// What a [`Completer`] needs to take work up again: who can, and with what.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// The name under which a handler is registered; empty for work that only its client takes up again.
    pub handler: String,
    /// Whatever that handler needs: the request's body, most often.
    pub input: Bytes,
}

/// Without the input, which is no business of a log's.
impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("handler", &self.handler)
            .field("input", &format_args!("{} bytes", self.input.len()))
            .finish()
    }
}

/// What a store's claim found.
#[derive(Clone, PartialEq, Eq)]
pub enum Taken {
    /// The key is the caller's.
    Ours {
        /// Its token.
        token: Token,
        /// What earlier attempts have done, as [`LeasedStore::append`] was given it; empty for a new key.
        journal: Vec<u8>,
    },
    /// Another attempt holds it.
    InFlight {
        /// Of the request that it runs.
        fingerprint: Fingerprint,
        /// What is left of its lease.
        left: Duration,
    },
    /// Answered.
    Done {
        /// Of the request that ran.
        fingerprint: Fingerprint,
        /// Its answer.
        recorded: Recorded,
    },
    /// Its last attempt does not know what a remote step did.
    Unknown {
        /// Of the request that ran.
        fingerprint: Fingerprint,
    },
}

/// Without what steps returned.
impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours { token, journal } => f
                .debug_struct("Ours")
                .field("token", token)
                .field("journal", &format_args!("{} bytes", journal.len()))
                .finish(),
            Self::InFlight { left, .. } => f.debug_tuple("InFlight").field(left).finish(),
            Self::Done { recorded, .. } => f.debug_tuple("Done").field(recorded).finish(),
            Self::Unknown { .. } => f.write_str("Unknown"),
        }
    }
}

/// Work whose lease is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandoned {
    /// What to claim.
    pub claim: Claim,
    /// What to do.
    pub work: Work,
}

/// How long keys stay. Those whose lease runs are never deleted.
///
/// | the key | is deleted |
/// |---|---|
/// | is done | `ended` after it was completed, however late that was |
/// | was released before anything happened | `ended` after its release |
/// | is claimed, its lease is over, no step has begun, and its work names no handler | `ended` after its first claim: nothing has happened, and nobody will take it up |
/// | is claimed, its lease is over, and steps are done or its work names a handler | `unfinished` after the end of its lease |
/// | is unknown | `unfinished` after the end of its lease |
///
/// Whoever deletes unfinished work forgets what it did: the next request with the key begins at the first step. Therefore the
/// longer time, in which a [`Completer`] should have taken the work up, or somebody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Of keys whose story is over.
    pub ended: Duration,
    /// Of keys whose story stopped in the middle. Counts as `ended` if that is longer.
    pub unfinished: Duration,
}

/// Where leases are kept. [`Pool`](sqlx::Pool)s of Postgres, MySQL, MariaDB and SQLite are such stores, and the features
/// `memory` and `redis` bring two more.
///
/// Each method is atomic by itself and decided by the store's own clock. Those that take a [`Holder`] change nothing and
/// return `false` when its token is no longer the key's.
///
/// None of the futures is cancel-safe: [`Leases`] and [`Lease`] run them in tasks.
pub trait LeasedStore: Clone + Send + Sync + 'static {
    /// Creates and updates what the store needs.
    fn migrate(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// Claims the key if it is free, or if its lease is over and it is claimed for the same request.
    fn claim(
        &self,
        claim: &Claim,
        work: &Work,
        lease: Duration,
    ) -> impl Future<Output = Result<Taken, Error>> + Send;

    /// Milliseconds since 1970 by the store's clock.
    fn now_ms(&self) -> impl Future<Output = Result<u64, Error>> + Send;

    /// Whether the key is known, in whatever state.
    fn exists(&self, scope: &Scope, key: &Key) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Holds the key for another `lease` from now.
    fn renew(
        &self,
        holder: &Holder,
        lease: Duration,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Adds an entry to the key's journal, and holds it for another `lease`.
    fn append(
        &self,
        holder: &Holder,
        entry: &[u8],
        lease: Duration,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Records the answer.
    fn complete(
        &self,
        holder: &Holder,
        recorded: &Recorded,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Gives the key back: free if its journal is empty, else to be taken over at once.
    fn release(&self, holder: &Holder) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Nobody knows what a remote step did.
    fn lose(&self, holder: &Holder) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Somebody has looked: an unknown key becomes claimed with its lease over, to be taken over. `false` when it is not unknown.
    fn reopen(&self, scope: &Scope, key: &Key) -> impl Future<Output = Result<bool, Error>> + Send;

    /// At most `max` keys whose lease is over and whose work names this handler, those that have waited longest first.
    fn abandoned(
        &self,
        handler: &str,
        max: u32,
    ) -> impl Future<Output = Result<Vec<Abandoned>, Error>> + Send;

    /// Deletes at most `batch_max` keys by the rule of [`Retention`]. An attempt that is deleted under its holder is fenced.
    fn reap(
        &self,
        retention: Retention,
        batch_max: u32,
    ) -> impl Future<Output = Result<u64, Error>> + Send;
}
