//! The transaction on loan: the layer opens it and ends it, the handler works in it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::{Database, Pool, Transaction};
use tokio::runtime::Handle;

use crate::store::in_task;
use crate::{Error, IdempotencyDb};

/// The request's transaction, lent to the handler; give it back by letting it go out of scope.
///
/// Whatever is written through it commits together with the recorded answer, or not at all. Only the layer commits:
/// by the handler's status, after the handler has returned. Savepoints are yours to use (`tx.begin()`); `COMMIT` and
/// `ROLLBACK` as raw statements are not.
///
/// It derefs to the [`sqlx::Transaction`], so `&mut **tx` is the connection that queries run on, and `&mut tx` is
/// accepted where a function takes `&mut Db::Connection`.
///
/// A handler that sends it away (into a task, into the response body) and returns gets a 500 and a rollback.
///
/// # Cancel safety
/// A query's future that is dropped half way, by a `timeout` or a `select!` of the handler's own, is rolled back with the
/// transaction if the handler then fails: it has no answer to wait for. On Postgres and SQLite it may also go on in the same
/// transaction, in which the statement may or may not have taken effect. **On MySQL and MariaDB it must not**: sqlx reads the rest of the old answer as that of the next statement,
/// or waits for ever (transact-rs/sqlx #563). Bound a statement where the server does it
/// (`set statement max_statement_time = 1 for ..` on MariaDB, `max_execution_time` on MySQL), or the whole handler
/// by the layer's own limit: connections that were cut off by that, by a panic or by a client that left are thrown away.
pub struct IdemTx<D: IdempotencyDb> {
    tx: Option<Transaction<'static, D>>,
    slot: Slot<D>,
}

impl<D: IdempotencyDb> Deref for IdemTx<D> {
    type Target = Transaction<'static, D>;

    #[expect(clippy::expect_used, reason = "only drop takes it")]
    fn deref(&self) -> &Self::Target {
        self.tx.as_ref().expect("present until dropped")
    }
}

impl<D: IdempotencyDb> DerefMut for IdemTx<D> {
    #[expect(clippy::expect_used, reason = "only drop takes it")]
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.tx.as_mut().expect("present until dropped")
    }
}

impl<D: IdempotencyDb> Drop for IdemTx<D> {
    fn drop(&mut self) {
        let Some(tx) = self.tx.take() else { return };
        let mut state = self.slot.state();
        if matches!(*state, State::Lent) {
            *state = State::Ready(tx);
            return;
        }
        drop(state);
        // Too late: the request is over, and nobody knows whether it was in the middle of a statement.
        roll_back_in_task(self.slot.0.pool.clone(), tx);
    }
}

/// A drop would roll back too, but neither let go of what MySQL keeps per connection nor throw away what was cut off.
fn roll_back_in_task<D: IdempotencyDb>(pool: Pool<D>, tx: Transaction<'static, D>) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move { D::rollback_cut_off(&pool, tx).await });
    }
}

impl<D: IdempotencyDb> fmt::Debug for IdemTx<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdemTx(..)")
    }
}

/// Where the transaction waits between layer and handler.
pub(crate) struct Slot<D: IdempotencyDb>(Arc<Place<D>>);

struct Place<D: IdempotencyDb> {
    state: Mutex<State<D>>,
    pool: Pool<D>,
}

enum State<D: Database> {
    /// Opened when first asked for: a request without a key costs no round trip unless its handler wants one.
    Lazy,
    Ready(Transaction<'static, D>),
    Lent,
    /// The request is over; a transaction that comes back now is rolled back.
    Closed,
}

/// What the layer finds when the handler is done.
pub(crate) enum Returned<D: Database> {
    Tx(Transaction<'static, D>),
    NeverOpened,
    /// Still lent.
    Leaked,
}

/// Nobody has closed it: the request was dropped, or its handler panicked, perhaps in the middle of a statement.
impl<D: IdempotencyDb> Drop for Place<D> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Ready(tx) = std::mem::replace(state, State::Closed) {
            roll_back_in_task(self.pool.clone(), tx);
        }
    }
}

impl<D: IdempotencyDb> Slot<D> {
    fn new(pool: Pool<D>, state: State<D>) -> Self {
        Self(Arc::new(Place {
            state: Mutex::new(state),
            pool,
        }))
    }

    /// For a transaction of `pool`.
    pub(crate) fn ready(pool: &Pool<D>, tx: Transaction<'static, D>) -> Self {
        Self::new(pool.clone(), State::Ready(tx))
    }

    #[cfg_attr(
        not(feature = "axum"),
        expect(dead_code, reason = "only the layer knows requests without a key")
    )]
    pub(crate) fn lazy(pool: Pool<D>) -> Self {
        Self::new(pool, State::Lazy)
    }

    pub(crate) fn close(&self) -> Returned<D> {
        match std::mem::replace(&mut *self.state(), State::Closed) {
            State::Ready(tx) => Returned::Tx(tx),
            State::Lazy => Returned::NeverOpened,
            State::Lent | State::Closed => Returned::Leaked,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<D>> {
        // Nothing panics while it is held, and a state is whole at every moment.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: IdempotencyDb> Slot<D> {
    /// Lends the transaction. `None`: it is lent already, or the request is over.
    pub(crate) async fn lend(&self) -> Result<Option<IdemTx<D>>, Error> {
        {
            let mut state = self.state();
            match std::mem::replace(&mut *state, State::Lent) {
                State::Ready(tx) => {
                    return Ok(Some(IdemTx {
                        tx: Some(tx),
                        slot: self.clone(),
                    }));
                }
                State::Lazy => {}
                other @ (State::Lent | State::Closed) => {
                    *state = other;
                    return Ok(None);
                }
            }
        }
        let mut unopened = Unopened { slot: Some(self) };
        let pool = self.0.pool.clone();
        let tx = in_task(async move { D::begin(&pool).await }).await?;
        unopened.slot = None;
        Ok(Some(IdemTx {
            tx: Some(tx),
            slot: self.clone(),
        }))
    }
}

/// Puts a slot back as it was when nothing comes of opening it, be it by an error or because the future was dropped.
/// What the task has begun by then is rolled back by its drop.
struct Unopened<'a, D: IdempotencyDb> {
    slot: Option<&'a Slot<D>>,
}

impl<D: IdempotencyDb> Drop for Unopened<'_, D> {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut state = slot.state();
        if matches!(*state, State::Lent) {
            *state = State::Lazy;
        }
    }
}

impl<D: IdempotencyDb> Clone for Slot<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use futures_util::FutureExt;
    use sqlx::{Sqlite, SqlitePool};

    use super::*;

    #[tokio::test]
    async fn a_handler_that_gives_up_opening_has_nothing_on_loan() {
        let slot = Slot::<Sqlite>::lazy(SqlitePool::connect_lazy("sqlite::memory:").unwrap());
        assert!(slot.lend().now_or_never().is_none(), "it takes a task");
        assert!(slot.lend().await.unwrap().is_some(), "asked for again");
        let slot = Slot::<Sqlite>::lazy(SqlitePool::connect_lazy("sqlite::memory:").unwrap());
        assert!(slot.lend().now_or_never().is_none());
        assert!(matches!(slot.close(), Returned::NeverOpened));
    }
}
