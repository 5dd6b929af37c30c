//! The inbox: a message that is delivered more than once is applied once.

use std::time::Duration;

use sqlx::Connection;

use crate::store::{CONSUMER_BYTES_MAX, IdempotencyDb, MESSAGE_BYTES_MAX, Seen};
use crate::{Error, ErrorKind};

/// How long inbox rows should stay: longer than any source of yours redelivers. Payment providers keep trying for
/// three days and more, each time with a fresh signature, so the signature's own tolerance filters none of it.
pub const INBOX_RETENTION: Duration = Duration::from_hours(7 * 24);

/// Deduplicates messages in the consumer's own transaction.
#[derive(Debug, Clone, Copy)]
pub struct Inbox;

impl Inbox {
    /// Notes that `consumer` applies `message` in the transaction of `conn`, and says whether it has done so before.
    ///
    /// | what happens | the next delivery is |
    /// |---|---|
    /// | crash before the commit, or the effect fails | [`Seen::First`]: nothing was left behind |
    /// | crash after the commit, before the acknowledgement | [`Seen::Duplicate`] |
    /// | it comes twice at once | the second waits for the first one's end, then is told the truth |
    /// | two consumers get it | [`Seen::First`] once for each |
    /// | it can never be applied | [`Seen::Duplicate`], once you have [buried](Self::bury) it |
    ///
    /// Apply the message in the same transaction, then commit, then acknowledge: a crash before the commit leaves
    /// nothing behind and redelivery applies it; a crash after it leaves the row and redelivery is a
    /// [`Seen::Duplicate`]. Two deliveries at once: the second waits for the first one's end, then is told the truth.
    /// Two consumers each apply the message once. One statement.
    ///
    /// Both names are compared byte for byte. Use an id that is the same on every delivery.
    ///
    /// ```
    /// # use mainstay_idempotency::{Error, Inbox, Seen};
    /// # async fn apply(_: &mut sqlx::SqliteConnection) -> Result<(), sqlx::Error> { Ok(()) }
    /// # async fn consume(pool: sqlx::SqlitePool, id: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tx = pool.begin_with("begin immediate").await?;
    /// if Inbox::once(&mut *tx, "billing", id).await? == Seen::First {
    ///     apply(&mut *tx).await?;
    /// }
    /// tx.commit().await?;
    /// // now acknowledge
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidId`] for an empty or overlong name, else the store's. Under `REPEATABLE READ` and
    /// `SERIALIZABLE` a concurrent delivery ends in [`ErrorKind::Busy`]: roll back and run the transaction again.
    ///
    /// # Cancel safety
    /// When dropped, nothing is known until the transaction is rolled back, which dropping the transaction does. On MySQL
    /// use [`rollback_cut_off`](IdempotencyDb::rollback_cut_off): sqlx 0.9 cannot go on with a connection whose statement was
    /// dropped half way.
    pub async fn once<C>(
        conn: &mut C,
        consumer: impl AsRef<[u8]> + Send,
        message: impl AsRef<[u8]> + Send,
    ) -> Result<Seen, Error>
    where
        C: Connection,
        C::Database: IdempotencyDb<Connection = C>,
    {
        let (consumer, message) = (consumer.as_ref(), message.as_ref());
        check(consumer, message)?;
        C::Database::inbox_once(conn, consumer, message).await
    }

    /// Gives a message up: from now on it is a [`Seen::Duplicate`] for `consumer`, and it stands in the table a second time
    /// under the consumer [`dead_letters`] names, for whoever looks after the dead.
    ///
    /// For a message that cannot be applied, after as many attempts as you like (the broker counts them). Do it in a
    /// transaction of its own, after the one of the failed attempt was rolled back: what is written in that one is gone.
    /// Then acknowledge. Burying twice is harmless. Two statements.
    ///
    /// ```
    /// # use mainstay_idempotency::{Error, Inbox};
    /// # async fn give_up(pool: sqlx::SqlitePool, id: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut tx = pool.begin_with("begin immediate").await?;
    /// Inbox::bury(&mut *tx, "billing", id).await?;
    /// tx.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`once`](Self::once).
    ///
    /// # Cancel safety
    /// As [`once`](Self::once).
    pub async fn bury<C>(
        conn: &mut C,
        consumer: impl AsRef<[u8]> + Send,
        message: impl AsRef<[u8]> + Send,
    ) -> Result<(), Error>
    where
        C: Connection,
        C::Database: IdempotencyDb<Connection = C>,
    {
        let (consumer, message) = (consumer.as_ref(), message.as_ref());
        let dead = dead_letters(consumer);
        check(&dead, message)?;
        for consumer in [consumer, &dead] {
            _ = C::Database::inbox_once(conn, consumer, message).await?;
        }
        Ok(())
    }
}

/// The consumer under whose name a consumer's dead letters stand in `mainstay_inbox`: `dead `, then its own.
pub fn dead_letters(consumer: impl AsRef<[u8]>) -> Vec<u8> {
    [b"dead ", consumer.as_ref()].concat()
}

pub(crate) fn check(consumer: &[u8], message: &[u8]) -> Result<(), Error> {
    if (1..=CONSUMER_BYTES_MAX).contains(&consumer.len())
        && (1..=MESSAGE_BYTES_MAX).contains(&message.len())
    {
        Ok(())
    } else {
        Err(ErrorKind::InvalidId.into())
    }
}
