//! The command line.

use std::time::{Duration, SystemTime};

use clap::{Args, Parser, Subcommand, ValueEnum};
use mainstay_outbox::{DeadCause, Filter};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::Failure;

/// Look after an outbox: how far behind it is, what waits, what died; and act on it.
///
/// Exit codes: 0 done, 1 failed, 2 wrong command line, 3 verify or health found something that fails, 4 not confirmed.
#[derive(Parser)]
#[command(name = "mainstay-outbox", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Address of the database: postgres://, sqlite:// or mysql://. Other users of the machine can see arguments: an address
    /// with a password belongs in the variable. An outbox in a schema of its own on Postgres:
    /// postgres://host/db?options=-csearch_path=schema
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        global = true,
        default_value = ""
    )]
    pub(crate) database_url: String,
    /// Print one JSON document instead of words.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Who makes the change; stands in the audit.
    #[arg(long, env = "USER", global = true, default_value = "unnamed")]
    pub(crate) actor: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// How far behind the relays are.
    Lag {
        /// By topic, among the first 1600 messages of each lane.
        #[arg(long)]
        by_topic: bool,
    },
    /// Every lane: who has it, what it holds, and whether it flows.
    Lanes,
    /// Messages that wait, in order, with what each waits for.
    Peek(List),
    /// Dead letters, the oldest first.
    Dead(ListDead),
    /// Bring dead letters back, in order and at a pace.
    Redrive(BulkDead),
    /// Delete dead letters for ever; what was parked behind them goes on.
    Discard(BulkDead),
    /// Deliver kept deliveries once more.
    ///
    /// They are looked for from --since to --until, and without these among all that are kept. Relays and producers do not
    /// wait for that.
    Replay(BulkKept),
    /// Tell relays to leave topics alone.
    Pause {
        /// A topic, a prefix such as 'hooks.*', or '*'.
        pattern: String,
    },
    /// Take a pause back.
    Resume {
        /// The pattern that was paused.
        pattern: String,
    },
    /// What is paused.
    Paused,
    /// What operators did, the newest first.
    Audit {
        /// How many.
        #[arg(short = 'n', long = "count", default_value_t = 20)]
        count: u32,
    },
    /// Look for what should not be.
    Verify,
    /// One verdict, with its reasons.
    Health,
    /// Create or upgrade the tables.
    Migrate {
        /// Lanes of a fresh outbox; another number than an existing one has is an error.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
        lanes: Option<u16>,
    },
}

/// Which messages.
#[derive(Args)]
pub(crate) struct Which {
    /// Every message: needed by changes that name nothing else.
    #[arg(long, conflicts_with_all = ["topic", "key", "key_hex", "id", "since", "until"])]
    all: bool,
    /// Of a topic, or of all that begin so: 'hooks.*'.
    #[arg(long)]
    topic: Option<String>,
    /// Of a key that is text.
    #[arg(long, conflicts_with = "key_hex")]
    key: Option<String>,
    /// Of a key, in hexadecimal.
    #[arg(long, value_parser = unhex)]
    key_hex: Option<Hex>,
    /// One event.
    #[arg(long)]
    id: Option<uuid::Uuid>,
    /// Not before: RFC 3339, or how long ago: 90s, 15m, 2h, 3d. Of deaths, deliveries or else enqueueings.
    #[arg(long, value_parser = moment)]
    since: Option<SystemTime>,
    /// Before.
    #[arg(long, value_parser = moment)]
    until: Option<SystemTime>,
}

#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Args)]
pub(crate) struct ListDead {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Given up for this cause.
    #[arg(long)]
    pub(crate) cause: Option<Cause>,
    #[command(flatten)]
    pub(crate) show: Show,
}

#[derive(Args)]
pub(crate) struct Show {
    /// How many at most.
    #[arg(short = 'n', long = "count", default_value_t = 20)]
    pub(crate) count: u32,
    /// Show payloads and headers.
    #[arg(long)]
    pub(crate) payload: bool,
}

#[derive(Args)]
pub(crate) struct BulkDead {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Given up for this cause.
    #[arg(long, conflicts_with = "all")]
    pub(crate) cause: Option<Cause>,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Args)]
pub(crate) struct BulkKept {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Args)]
pub(crate) struct How {
    /// How many at most.
    #[arg(long)]
    pub(crate) limit: Option<u64>,
    /// About how many a second.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) per_second: u32,
    /// Only count what is meant.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask.
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Cause {
    Rejected,
    Exhausted,
    NoSink,
    Parked,
}

impl Cause {
    pub(crate) const fn known(self) -> DeadCause {
        match self {
            Self::Rejected => DeadCause::Rejected,
            Self::Exhausted => DeadCause::Exhausted,
            Self::NoSink => DeadCause::NoSink,
            Self::Parked => DeadCause::Parked,
        }
    }
}

impl Which {
    /// What is looked at: all of it if nothing is said.
    pub(crate) fn filter(&self, cause: Option<Cause>) -> Filter {
        self.named(cause).unwrap_or_else(Filter::all)
    }

    /// What is changed: all of it only if that is said.
    pub(crate) fn filter_to_change(&self, cause: Option<Cause>) -> Result<Filter, Failure> {
        match self.named(cause) {
            Some(filter) => Ok(filter),
            None if self.all => Ok(Filter::all()),
            None => Err(Failure::Usage(
                "say which messages, or --all if every one is meant".to_owned(),
            )),
        }
    }

    fn named(&self, cause: Option<Cause>) -> Option<Filter> {
        [
            self.topic.as_deref().map(Filter::topic),
            self.key.as_deref().map(Filter::key),
            self.key_hex.as_ref().map(|Hex(key)| Filter::key(key)),
            self.id.map(Filter::id),
            self.since.map(Filter::since),
            self.until.map(Filter::until),
            cause.map(|cause| Filter::cause(cause.known())),
        ]
        .into_iter()
        .flatten()
        .reduce(Filter::and)
    }
}

/// Bytes; of its own, because the parser takes a vector for many values.
#[derive(Clone)]
struct Hex(Vec<u8>);

fn unhex(text: &str) -> Result<Hex, &'static str> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.ok_or("not hexadecimal")?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return Err("an odd number of digits");
    };
    Ok(Hex(pairs
        .iter()
        .map(|[high, low]| (high * 16 + low) as u8)
        .collect()))
}

fn moment(text: &str) -> Result<SystemTime, &'static str> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time.into());
    }
    ago(text)
        .and_then(|span| now().checked_sub(span))
        .ok_or("neither RFC 3339 nor how long ago: 90s, 15m, 2h, 3d")
}

fn ago(text: &str) -> Option<Duration> {
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let count: u64 = count.parse().ok()?;
    Some(Duration::from_secs(count.checked_mul(seconds)?))
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long ago a person means is by that person's clock"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn spans_and_moments_are_read_or_refused() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("2h", Some(7_200)),
            ("3d", Some(259_200)),
            ("", None),
            ("s", None),
            ("5", None),
            ("5w", None),
            ("-5s", None),
            ("5ü", None),
            ("99999999999999999999s", None),
            ("9999999999999999999d", None),
        ] {
            assert_eq!(ago(text).map(|span| span.as_secs()), seconds, "{text}");
        }
        let told = moment("1970-01-01T01:00:01+01:00")
            .map(|time| time == UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(told, Ok(true));
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn keys_in_hexadecimal_are_bytes() {
        assert_eq!(unhex("00fF").map(|key| key.0).ok(), Some(vec![0, 255]));
        assert!(unhex("0").is_err() && unhex("0g").is_err());
    }
}
