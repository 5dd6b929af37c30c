//! The rows that cross the seam.

use std::time::Duration;

use uuid::Uuid;

use crate::{admin::DeadCause, message::Message};

/// An event on its way into the table.
#[derive(Debug)]
pub struct NewRow<'a> {
    /// The lane is this modulo the number of lanes, which the statement reads from the database. Not negative.
    pub hash: i64,
    /// CloudEvents `id`.
    pub event_id: Uuid,
    /// CloudEvents `source`.
    pub source: &'a str,
    /// CloudEvents `type`.
    pub event_type: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// CloudEvents `subject`.
    pub subject: Option<&'a str>,
    /// CloudEvents `time` in microseconds since 1970; the database's clock when not given.
    pub time_micros: Option<i64>,
    /// CloudEvents `datacontenttype`.
    pub content_type: Option<&'a str>,
    /// The ordering key; an empty one is not none.
    pub key: Option<&'a [u8]>,
    /// Whether the message holds back later ones of its key and is held back by earlier ones.
    pub ordered: bool,
    /// The lock on the key that the transaction takes before the row gets its place, where it does not write alone anyway.
    pub lock: Option<i64>,
    /// When it is due, in microseconds since 1970; at once when not given.
    pub due_micros: Option<i64>,
    /// A JSON list of pairs.
    pub headers: String,
    /// The payload.
    pub payload: &'a [u8],
}

/// What a failed INSERT says of where it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misfit {
    /// No writes are taken there.
    ReadOnly,
    /// The tables are missing or have other columns.
    Schema,
}

/// Who else is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Relays whose heartbeat has not run out.
    pub relays: u16,
    /// Lanes without an owner, or whose lease has run out.
    pub free: u16,
}

/// A lane that was leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The lane.
    pub lane: i32,
    /// Its new epoch.
    pub epoch: i64,
    /// Messages that were in flight under the last owner and now have an attempt more.
    pub charged: u32,
}

/// A lane in an epoch: what every write of a relay is guarded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The lane.
    pub lane: i32,
    /// The epoch it was leased in.
    pub epoch: i64,
}

/// What to look for at the lanes' heads.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The lanes, those to be served first in front.
    pub lanes: Vec<i32>,
    /// The most messages of one lane.
    pub batch: u32,
    /// The most messages altogether.
    pub total: u32,
    /// Payload bytes altogether; one message is always allowed.
    pub bytes: u64,
    /// Topics to pass over because their sink is down.
    pub skip_topics: Vec<String>,
    /// Whether a message that waits for its retry holds back later ones of its key.
    pub block_keys: bool,
}

/// A message that is due.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its lane.
    pub lane: i32,
    /// Its place in the lane.
    pub id: i64,
    /// Attempts spent so far.
    pub attempts: i32,
    /// Its last attempt ended with the relay's or the sink's death: it is published alone.
    pub suspect: bool,
    /// The message; its attempt is one more than `attempts`.
    pub message: Message,
}

/// A batch about to be published.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// The lane and epoch.
    pub held: Held,
    /// The messages' places in the lane.
    pub ids: Vec<i64>,
}

/// What became of a lane's batch.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The lane and epoch.
    pub held: Held,
    /// Delivered: these rows go.
    pub acked: Vec<i64>,
    /// Failed: these rows wait.
    pub failed: Vec<Failed>,
    /// Given up: these rows move to the dead letters.
    pub dead: Vec<Buried>,
}

/// A message that failed and will be tried again.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Its place in the lane.
    pub id: i64,
    /// Attempts before this one. Guards against charging twice when settling is repeated.
    pub attempts: i32,
    /// How long it waits, on the database's clock.
    pub delay: Duration,
    /// Whether it may have killed what published it.
    pub suspect: bool,
    /// Why it failed.
    pub reason: String,
}

/// A message that is given up.
#[derive(Clone, Debug)]
pub struct Buried {
    /// Its place in the lane.
    pub id: i64,
    /// Attempts spent, this one included.
    pub attempts: i32,
    /// Why.
    pub cause: DeadCause,
    /// In words.
    pub reason: String,
}
