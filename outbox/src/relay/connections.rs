//! The connections that a relay works over: its own, or those of the application.

use std::time::Duration;

use sqlx::Pool;

use crate::store::OutboxDb;

/// How long connections may take to say goodbye; after that they are dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A relay's connections.
pub(super) struct Connections<Db: OutboxDb> {
    /// The application's.
    shared: Pool<Db>,
    /// The relay's own, where it has any.
    own: Option<Pool<Db>>,
    wants_own: bool,
    /// How long the relay waits for a statement.
    limit: Duration,
}

impl<Db: OutboxDb> Connections<Db> {
    pub(super) fn new(shared: Pool<Db>, only_shared: bool, limit: Duration) -> Self {
        let wants_own = !only_shared;
        Self {
            own: wants_own.then(|| Db::dedicated(&shared, limit)).flatten(),
            shared,
            wants_own,
            limit,
        }
    }

    pub(super) fn get(&self) -> Pool<Db> {
        self.own.as_ref().unwrap_or(&self.shared).clone()
    }

    /// After a failure: the application may have given its pool another address or password since.
    pub(super) fn renew(&mut self) {
        if self.wants_own {
            self.own = Db::dedicated(&self.shared, self.limit);
        }
    }

    /// Closes the relay's own connections, in a second at most. Those of the application stay as they are.
    pub(super) async fn close(self) {
        if let Some(own) = self.own {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, own.close()).await;
        }
    }
}
