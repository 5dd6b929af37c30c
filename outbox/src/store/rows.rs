//! The rows that cross the seam.

use std::{fmt, time::Duration};

use uuid::Uuid;

use crate::{admin::DeadCause, message::Message};

/// An event on its way into the table.
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

/// Without payload, key and headers, as everything that may be logged.
impl fmt::Debug for NewRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRow")
            .field("event_id", &self.event_id)
            .field("event_type", &self.event_type)
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
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

/// Who else is there, and what else there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Relays whose heartbeat has not run out.
    pub relays: u16,
    /// Lanes without an owner, or whose lease has run out.
    pub free: u16,
    /// How often rows were put back below where relays may have come to. Another number than before: look from 0.
    pub rewinds: i64,
    /// Whether ids are handed out in the order in which they are drawn: not when the sequence is cached by sessions.
    pub ids_in_order: bool,
    /// Whether a message waits for its retry or a key is parked, in any lane.
    pub held_back: bool,
    /// Whether the time of a delayed event has come.
    pub due: bool,
    /// The topic patterns that are paused.
    pub paused: Vec<String>,
    /// Which database answered. Another one than before may not have what was read from that: look from 0. `None` where it
    /// does not say.
    pub server: Option<Server>,
}

/// A database and the server it is in, and since when that runs: what tells it from others that may come to answer in its
/// place, and from itself before a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What it is called.
    pub name: String,
    /// When it was started, microseconds since 1970; 0 where nothing is.
    pub started_micros: i64,
    /// Two answers of one server may differ by so much in that.
    pub blur_micros: u64,
}

impl Server {
    /// Whether it is the one that answered `before`, and has not been started again since.
    #[must_use]
    pub fn is_still(&self, before: &Self) -> bool {
        let apart = self.started_micros.abs_diff(before.started_micros);
        self.name == before.name && apart <= self.blur_micros
    }
}

/// A lane that was leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The lane.
    pub lane: i32,
    /// Its new epoch.
    pub epoch: i64,
    /// How often rows were put back in it so far.
    pub rewinds: i64,
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

/// Where to look in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The lane.
    pub lane: i32,
    /// Only above this id: what is not is known to be gone, or not to be looked for.
    pub above: i64,
    /// What was held at this time is held, though its time may have come since: microseconds since 1970 on the database's
    /// clock. What is not looked for because it waits holds back what came later until it is looked for again.
    pub as_of: Option<i64>,
}

impl Look {
    /// A look above this id at what is due now.
    #[must_use]
    pub const fn new(lane: i32, above: i64) -> Self {
        Self {
            lane,
            above,
            as_of: None,
        }
    }
}

/// A message that waits for its retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its lane.
    pub lane: i32,
    /// Its place in the lane.
    pub id: i64,
    /// When it may go: microseconds since 1970 on the database's clock.
    pub retry_at: i64,
    /// How long that is from now.
    pub left: Duration,
}

/// What to ask of the lanes' heads, to move low-water marks.
#[derive(Clone, Debug)]
pub struct AskHeads {
    /// The lanes.
    pub lanes: Vec<Look>,
    /// Topics of which what waits is no head.
    pub skip_topics: Vec<String>,
    /// Whether what waits for its retry, and what waits behind that, is none either; and [`Heads::held`] is to be told.
    pub held: bool,
    /// Of each lane no more than this many rows are looked at, at least one.
    pub window: u32,
    /// Whether all running writers are to be told, and not only the first.
    pub running: bool,
    /// Whether [`Heads::newest`] is to be told.
    pub newest: bool,
}

/// What to look for at the lanes' heads.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The lanes, those to be served first in front.
    pub lanes: Vec<Look>,
    /// The most messages of one lane.
    pub batch: u32,
    /// The most messages altogether.
    pub total: u32,
    /// Payload bytes altogether; one message is always allowed.
    pub bytes: u64,
    /// Topics to pass over because their sink is down or they are paused.
    pub skip_topics: Vec<String>,
    /// Whether payloads may be large, so that a store does well to count them as it goes.
    pub large: bool,
    /// Whether any message may wait for its retry or any key be parked. When false, it is known that none does and is:
    /// then the store need not look that up for every message.
    pub held_back: bool,
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
    /// Its key is parked: it is to be set aside, not published.
    pub parked: bool,
    /// What it failed of so far, as stored; `None` when of nothing.
    pub failures: Option<String>,
    /// How long it has been waiting, on the database's clock; a delayed one since its time came.
    pub age: Duration,
    /// The message; its attempt is one more than `attempts`.
    pub message: Message,
}

/// A batch about to be published, or given up.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// The lane and epoch.
    pub held: Held,
    /// The batch's number: positive, and higher than that of any before it in this lane and epoch.
    pub batch: i64,
    /// How often rows had been put back in the lane before it was looked at. If it was once more since, nothing is
    /// recorded: what was put back may have to go first.
    pub rewinds: i64,
    /// The places in the lane of the messages that will be published: none where all are given up. What is recorded, even
    /// if it is nothing, is what a settlement can be of.
    pub ids: Vec<i64>,
}

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
impl InFlight {
    /// What a lane's record holds: the batch's number, negative as no id is, and the ids.
    pub(crate) fn entry(&self) -> Vec<i64> {
        let number = std::iter::once(-self.batch);
        number.chain(self.ids.iter().copied()).collect()
    }
}

/// What recording batches told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The lanes that are still held, each with how often rows were put back in it by now. The batch of a lane is recorded
    /// if that is the number it was sent with.
    pub lanes: Vec<(i32, i64)>,
    /// Whoever drew an id before has a lower stamp. `None` where a low-water mark has nothing to gain, or nothing was held.
    ///
    /// A stamp is anything that writers get before they draw ids and that rises. On Postgres it is the number of their
    /// transaction. On MySQL nobody is told these: there it is the time by which rows stand whose ids were drawn.
    pub stamp: Option<u64>,
}

/// What is left of lanes, in one snapshot, and which writers were at work then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Every writer with a lower stamp has ended, and what it committed is in the snapshot.
    pub ended_below: u64,
    /// The stamps of all writers that had not ended, if they were asked for and have any of their own.
    pub running: Option<Vec<u64>>,
    /// For each lane what is left above the id asked about and is not skipped.
    pub heads: Vec<(i32, Head)>,
    /// Only told if asked for: what waits for its retry, of what was looked at up to the head.
    pub held: Vec<Waiting>,
    /// Only told if asked for: the highest id of these lanes above those asked about, whatever its topic, and a stamp that is
    /// higher than that of whoever has drawn one up to it.
    pub newest: Option<(i64, u64)>,
}

/// The lowest row that is left of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// It has this id.
    Row(i64),
    /// There is none.
    Nothing,
    /// There is none up to this id, and no further was looked.
    NothingUpTo(i64),
}

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
impl Head {
    /// From the lowest row that was found, or else the last of those that were looked at, if there may be more.
    pub(crate) fn new(row: Option<i64>, last: Option<i64>) -> Self {
        match (row, last) {
            (Some(row), _) => Self::Row(row),
            (None, Some(last)) => Self::NothingUpTo(last),
            (None, None) => Self::Nothing,
        }
    }
}

/// What became of a lane's batch.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The lane and epoch.
    pub held: Held,
    /// The number that the batch was recorded with.
    pub batch: i64,
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
    /// Whether later messages of its key wait as long as it does.
    pub holds: bool,
    /// Why it failed.
    pub reason: String,
    /// The same, for its history.
    pub note: Note,
}

/// A message's history with one failure more, around the time of that, which the database's clock fills in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// JSON up to the time.
    pub before: String,
    /// JSON after it.
    pub after: String,
}

/// A message that is given up.
#[derive(Clone, Debug)]
pub struct Buried {
    /// Its place in the lane.
    pub id: i64,
    /// Attempts spent, this one included.
    pub attempts: i32,
    /// Why. With [`DeadCause::Parked`] it is only moved while its key is still parked.
    pub cause: DeadCause,
    /// Whether its key is parked from now on, for its topic.
    pub park: bool,
    /// In words.
    pub reason: String,
    /// Its history, if it has failed once more.
    pub note: Option<Note>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_its_name_and_its_start() {
        let server = |name: &str, started_micros, blur_micros| Server {
            name: name.to_owned(),
            started_micros,
            blur_micros,
        };
        let exact = server("a", 5, 0);
        assert!(exact.is_still(&exact.clone()));
        assert!(!exact.is_still(&server("b", 5, 0)));
        for started in [4, 6] {
            assert!(!exact.is_still(&server("a", started, 0)));
        }
        let blurred = server("a", 5, 2);
        for (started, still) in [(2, false), (3, true), (7, true), (8, false)] {
            assert_eq!(blurred.is_still(&server("a", started, 2)), still);
        }
        assert!(!blurred.is_still(&server("b", 5, 2)));
        assert!(!server("a", i64::MIN, 2).is_still(&server("a", i64::MAX, 2)));
    }
}
