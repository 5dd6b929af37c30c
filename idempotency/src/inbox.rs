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
    /// When dropped, nothing is known until the transaction is rolled back, which dropping the transaction does.
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
