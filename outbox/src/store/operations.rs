//! The rows that cross the seam for operators.

use uuid::Uuid;

use crate::message::Message;

/// Which rows: all that is said must hold, and nothing said is all rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// The topic, or what it begins with.
    pub topic: Option<String>,
    /// Whether `topic` is only a beginning.
    pub prefix: bool,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// CloudEvents `id`.
    pub event_id: Option<Uuid>,
    /// The stored name of the cause of death; only dead letters have one.
    pub cause: Option<&'static str>,
    /// Not before this, microseconds since 1970: of its death, its delivery, or else of its enqueueing.
    pub since_micros: Option<i64>,
    /// Before this.
    pub until_micros: Option<i64>,
}

/// One atomic step of a change that may take several.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which rows.
    pub select: Select,
    /// The most rows.
    pub limit: u32,
    /// When the first step ran. What died or was delivered later is left: it would come round for ever. Only letters that
    /// are merely parked are taken whenever they were set aside.
    pub started_micros: Option<i64>,
    /// How far the steps of a replay before this one came: what lies before needs no second look.
    pub after: Option<Reached>,
    /// What the audit row says.
    pub entry: Entry,
}

/// A place in the order in which messages were delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// When it was delivered, microseconds since 1970.
    pub delivered_micros: i64,
    /// Its id.
    pub id: i64,
}

/// What the audit row of a change says.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who.
    pub actor: String,
    /// What was asked, as JSON.
    pub detail: String,
    /// The row the first step wrote: this step adds to it.
    pub id: Option<i64>,
}

/// What a step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stepped {
    /// Rows moved or deleted.
    pub affected: u64,
    /// The audit row, if there is one: a step that changes nothing writes none.
    pub audit: Option<i64>,
    /// When this step began, microseconds since 1970.
    pub at_micros: i64,
    /// Keys, with their topics, that are still parked but whose letters are by now merely parked: nothing holds them back.
    pub freed: Vec<(String, Vec<u8>)>,
    /// How far a replay has come.
    pub reached: Option<Reached>,
    /// Whether another step would find nothing.
    pub last: bool,
}

/// Counts for operators.
#[derive(Clone, Copy, Debug, Default)]
pub struct LagRow {
    /// Rows not delivered yet, up to the cap.
    pub pending: i64,
    /// How many there may be if that is the cap, as far as can be guessed at once.
    pub pending_guess: Option<i64>,
    /// Age of the oldest pending row in microseconds.
    pub oldest_micros: Option<i64>,
    /// Events whose time has not come, up to the cap.
    pub later: i64,
    /// Dead letters, up to the cap.
    pub dead: i64,
    /// Of those the ones that died within the window, up to the cap.
    pub died_lately: i64,
    /// Keys that are parked, up to the cap.
    pub parked: i64,
    /// Patterns that are paused.
    pub paused: i64,
}

/// What the heads of the lanes hold of a topic.
#[derive(Clone, Debug)]
pub struct TopicRow {
    /// The topic.
    pub topic: String,
    /// Rows.
    pub pending: i64,
    /// Of those the ones that wait for a retry.
    pub retrying: i64,
    /// Age of the oldest in microseconds.
    pub oldest_micros: i64,
    /// The furthest place from its lane's head at which it was seen, from 1.
    pub deepest: i64,
}

/// A lane as it is now.
#[derive(Clone, Debug)]
pub struct LaneRow {
    /// The lane.
    pub lane: i32,
    /// The relay that has it, or had it last and did not give it back.
    pub owner: Option<Uuid>,
    /// The epoch.
    pub epoch: i64,
    /// What is left of the lease in microseconds; negative when it ran out.
    pub lease_micros: Option<i64>,
    /// Messages being published.
    pub in_flight: i64,
    /// How long ago a batch was written down, in microseconds.
    pub settled_micros: Option<i64>,
    /// Rows, up to the cap.
    pub pending: i64,
    /// The first of them.
    pub head: Option<HeadRow>,
}

/// The first message of a lane.
#[derive(Clone, Debug)]
pub struct HeadRow {
    /// Its topic.
    pub topic: String,
    /// Microseconds since it was enqueued.
    pub age_micros: i64,
    /// Attempts spent.
    pub attempts: i32,
    /// Microseconds until its retry; negative when that is due, none when it never failed.
    pub retry_micros: Option<i64>,
    /// Why it failed last.
    pub reason: Option<String>,
}

/// A message that has not been delivered.
#[derive(Clone, Debug)]
pub struct PendingRow {
    /// Its lane.
    pub lane: i32,
    /// Its place in the lane, or among those whose time has not come.
    pub id: i64,
    /// The message; its attempt is the next one.
    pub message: Message,
    /// When it was enqueued, microseconds since 1970.
    pub enqueued_micros: i64,
    /// Microseconds until its retry; negative when that is due, none when it never failed.
    pub retry_micros: Option<i64>,
    /// When its time comes, microseconds since 1970, if it is one of those that wait for it.
    pub due_micros: Option<i64>,
    /// It is being published.
    pub in_flight: bool,
    /// A message of its key before it waits for a retry.
    pub behind: bool,
    /// Its key is parked.
    pub parked: bool,
    /// Why it failed last.
    pub reason: Option<String>,
}

/// A dead letter as stored.
#[derive(Clone, Debug)]
pub struct DeadRow {
    /// Its lane.
    pub lane: i32,
    /// Its place there.
    pub id: i64,
    /// The message; its attempt is the last one made.
    pub message: Message,
    /// Attempts spent.
    pub attempts: i32,
    /// The stored name of the cause.
    pub cause: String,
    /// In words.
    pub reason: String,
    /// JSON: the last failures as [attempt, microseconds since 1970, reason].
    pub failures: String,
    /// When it died, microseconds since 1970.
    pub died_micros: i64,
}

/// A pattern that is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseRow {
    /// The pattern.
    pub pattern: String,
    /// Who paused it.
    pub actor: String,
    /// When, microseconds since 1970.
    pub since_micros: i64,
}

/// Something an operator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number; later is greater.
    pub id: i64,
    /// When it began, microseconds since 1970.
    pub at_micros: i64,
    /// Who.
    pub actor: String,
    /// `redrive`, `discard`, `replay`, `pause` or `resume`.
    pub action: String,
    /// What was asked, as JSON.
    pub detail: String,
    /// Rows.
    pub affected: i64,
}

/// What an inspection counts that should not be there, and the state of the server. Counts stop at the cap.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// Lanes the outbox has.
    pub lanes: i32,
    /// Rows of the lane table, which should be as many.
    pub lane_rows: i64,
    /// Pending rows in lanes that do not exist: nobody looks there.
    pub stray: i64,
    /// Ids that are pending and dead at once.
    pub doubled: i64,
    /// Lanes with an owner whose lease ran out longer ago than a minute while no relay is alive.
    pub abandoned: i64,
    /// Keys that are parked without a dead letter.
    pub parked_empty: i64,
    /// Keys that are parked while all their letters are merely parked.
    pub parked_freed: i64,
    /// Letters that are merely parked while their key is not.
    pub unparked: i64,
    /// Ordered rows at the heads of the lanes: key and lane.
    pub keys: Vec<(Vec<u8>, i32)>,
    /// How many ids a connection draws in advance, or skips for other servers; more than 1 makes ids useless as an order.
    pub id_cache: Option<i64>,
    /// What that means and what to do about it, in the words of this database.
    pub id_cache_detail: &'static str,
    /// The server is a replica, or read-only.
    pub read_only: bool,
    /// The database's clock, microseconds since 1970.
    pub now_micros: i64,
}
