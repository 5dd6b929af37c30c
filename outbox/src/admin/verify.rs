//! Checks that find what must not be: after a restore, a hand in the tables, a bug.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::Admin;
use crate::{
    error::{Error, ErrorKind},
    lane::key_hash,
    message::to_micros,
    store::{Inspection, OutboxDb},
};

/// Something that should not be as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The check's name, stable for programs.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// How many there are, up to 1000.
    pub count: u64,
    /// What it means and what to do.
    pub detail: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Severity {
    /// A promise still holds, at a cost or for now.
    Warning,
    /// A promise does not hold.
    Error,
}

/// Where counting stops.
const COUNT_MAX: i64 = 1_000;

/// Clocks that differ by less are as good as one: nothing here but `not_before` and what is shown depends on it.
const SKEW_MAX: Duration = Duration::from_secs(5);

fn finding(
    check: &'static str,
    severity: Severity,
    count: i64,
    detail: impl Into<String>,
) -> Finding {
    Finding {
        check,
        severity,
        count: count.unsigned_abs(),
        detail: detail.into(),
    }
}

fn findings(seen: &Inspection, here: SystemTime) -> Vec<Finding> {
    use Severity::{Error, Warning};
    let misplaced = seen
        .keys
        .iter()
        .filter(|(key, lane)| key_hash(key) % i64::from(seen.lanes.max(1)) != i64::from(*lane))
        .count() as i64;
    let skew = Duration::from_micros(seen.now_micros.abs_diff(to_micros(here)));
    let cache = seen.id_cache.unwrap_or(1);
    [
        (
            i64::from(seen.lanes).abs_diff(seen.lane_rows) as i64,
            finding(
                "lane_rows",
                Error,
                seen.lane_rows,
                "the lane table does not have one row for each lane: run migrate, which adds those that are missing",
            ),
        ),
        (
            seen.stray,
            finding(
                "stray_messages",
                Error,
                seen.stray,
                "messages stand in lanes that do not exist, where no relay looks: move them to the lane of their key",
            ),
        ),
        (
            misplaced,
            finding(
                "misplaced_keys",
                Error,
                misplaced,
                "messages stand in other lanes than their keys belong to, so their keys have no order: \
                 somebody else's INSERT, or a changed number of lanes",
            ),
        ),
        (
            seen.doubled,
            finding(
                "pending_and_dead",
                Error,
                seen.doubled,
                "messages are pending and dead at once: restored from different backups; a redrive of those letters fails",
            ),
        ),
        (
            seen.parked_empty,
            finding(
                "parked_without_letters",
                Error,
                seen.parked_empty,
                "keys are parked though no letter of them is left that could be redriven: delete them from \
                 mainstay_outbox_parked",
            ),
        ),
        (
            seen.parked_freed,
            finding(
                "parked_for_nothing",
                Warning,
                seen.parked_freed,
                "keys are parked though nothing of them was given up any more: a discard was cut off; redrive their letters",
            ),
        ),
        (
            seen.unparked,
            finding(
                "letters_left_behind",
                Warning,
                seen.unparked,
                "letters were set aside with a key that is not parked any more, so later ones may have gone: redrive them",
            ),
        ),
        (
            seen.abandoned,
            finding(
                "no_relay",
                Warning,
                seen.abandoned,
                "lanes are still owned by relays that are gone, and no relay is alive to take them",
            ),
        ),
        (
            cache - 1,
            finding(
                "id_cache",
                Error,
                cache,
                seen.id_cache_detail,
            ),
        ),
        (
            i64::from(seen.read_only),
            finding(
                "read_only",
                Error,
                1,
                "this server is a replica or read-only: relays and changes need the primary",
            ),
        ),
        (
            i64::from(skew >= SKEW_MAX),
            finding(
                "clock_skew",
                Warning,
                1,
                format!(
                    "this machine's clock and the database's differ by {} s: events that are not to go before a time go \
                     by the database's",
                    skew.as_secs()
                ),
            ),
        ),
    ]
    .into_iter()
    .filter_map(|(count, finding)| (count > 0).then_some(finding))
    .collect()
}

impl<Db: OutboxDb> Admin<Db> {
    /// Looks for what should not be. Nothing found is an empty list.
    ///
    /// Reads indexes and dead letters, not the whole backlog; run it after a restore, and now and then.
    ///
    /// # Errors
    /// [`Error`] of the database. Tables that are missing, old or newer are a finding.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn verify(&self) -> Result<Vec<Finding>, Error> {
        if let Err(error) = self.check_schema().await {
            return match error.kind() {
                ErrorKind::NotMigrated | ErrorKind::NewerSchema { .. } => Ok(vec![finding(
                    "schema",
                    Severity::Error,
                    1,
                    error.to_string(),
                )]),
                _ => Err(error),
            };
        }
        let seen = Db::inspect(self.pool.clone(), COUNT_MAX).await?;
        Ok(findings(&seen, here()))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this machine's clock is what is compared"
)]
fn here() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn well() -> Inspection {
        Inspection {
            lanes: 64,
            lane_rows: 64,
            keys: vec![(b"order-17".to_vec(), (key_hash(b"order-17") % 64) as i32)],
            id_cache: Some(1),
            ..Inspection::default()
        }
    }

    fn found(change: impl FnOnce(&mut Inspection)) -> Vec<(&'static str, Severity, u64)> {
        let mut seen = well();
        change(&mut seen);
        let told = findings(&seen, UNIX_EPOCH);
        told.iter()
            .map(|one| (one.check, one.severity, one.count))
            .collect()
    }

    #[test]
    fn each_check_finds_its_own() {
        use Severity::{Error, Warning};
        assert_eq!(found(|_| {}), []);
        assert_eq!(
            found(|seen| seen.lane_rows = 63),
            [("lane_rows", Error, 63)]
        );
        assert_eq!(found(|seen| seen.stray = 3), [("stray_messages", Error, 3)]);
        assert_eq!(
            found(|seen| seen.keys[0].1 ^= 1),
            [("misplaced_keys", Error, 1)]
        );
        assert_eq!(
            found(|seen| seen.doubled = 1),
            [("pending_and_dead", Error, 1)]
        );
        assert_eq!(
            found(|seen| seen.parked_empty = 2),
            [("parked_without_letters", Error, 2)]
        );
        assert_eq!(
            found(|seen| seen.parked_freed = 2),
            [("parked_for_nothing", Warning, 2)]
        );
        assert_eq!(
            found(|seen| seen.unparked = 2),
            [("letters_left_behind", Warning, 2)]
        );
        assert_eq!(found(|seen| seen.abandoned = 4), [("no_relay", Warning, 4)]);
        assert_eq!(
            found(|seen| seen.id_cache = Some(32)),
            [("id_cache", Error, 32)]
        );
        assert_eq!(
            found(|seen| seen.read_only = true),
            [("read_only", Error, 1)]
        );
        assert_eq!(
            found(|seen| seen.now_micros = -5_000_000),
            [("clock_skew", Warning, 1)]
        );
        assert_eq!(found(|seen| seen.now_micros = 4_999_999), []);
    }
}
