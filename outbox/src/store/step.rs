//! A step of an operator's change: to look, which holds nothing, and to take, which holds lanes.

use super::{Reached, Stepped};
use crate::error::Error;

/// A row that is meant. A row never changes while it lies where it is, so it is the same as long as this is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meant {
    pub(super) id: i64,
    /// To lock, where there is more than one lock.
    #[cfg_attr(
        not(any(feature = "postgres", feature = "mysql")),
        expect(dead_code, reason = "SQLite has one lock for all")
    )]
    pub(super) lane: i32,
    /// When it died or was delivered, microseconds since 1970.
    pub(super) at_micros: i64,
}

/// What a look found, before any lock.
#[derive(Debug)]
pub(super) struct Found {
    /// When it began, microseconds since 1970.
    pub(super) at_micros: i64,
    pub(super) meant: Vec<Meant>,
    /// Whether there is nothing behind what it found.
    pub(super) ends: bool,
}

/// What became of what a look had found.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) affected: u64,
    pub(super) audit: Option<i64>,
    pub(super) freed: Vec<(String, Vec<u8>)>,
}

/// How often a step looks again when others had taken all that it found.
const LOOKS_MAX: u32 = 10;

/// Looks for what is meant, which may mean to read a whole table, and only then takes what was found: what it locks for that
/// it holds for as long as it takes to find so many rows by their keys.
pub(super) async fn look_then_take<L, T>(
    audit: Option<i64>,
    look: impl Fn() -> L + Send,
    take: impl Fn(Vec<Meant>) -> T + Send,
) -> Result<Stepped, Error>
where
    L: Future<Output = Result<Found, Error>> + Send,
    T: Future<Output = Result<Taken, Error>> + Send,
{
    let mut again = LOOKS_MAX;
    loop {
        let Found {
            at_micros,
            meant,
            ends,
        } = look().await?;
        let reached = meant.last().map(|row| Reached {
            delivered_micros: row.at_micros,
            id: row.id,
        });
        if meant.is_empty() || again == 0 {
            return Ok(Stepped {
                audit,
                at_micros,
                last: true,
                ..Stepped::default()
            });
        }
        let taken = take(meant).await?;
        if taken.affected > 0 {
            return Ok(Stepped {
                affected: taken.affected,
                audit: taken.audit,
                at_micros,
                freed: taken.freed,
                reached,
                last: ends,
            });
        }
        again -= 1;
    }
}
