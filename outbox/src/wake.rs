//! Wakes: how a relay learns of a commit before its next poll, in this process and from another one.

use std::time::Duration;

use mainstay_retry::Backoff;
use sqlx::Pool;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{TARGET, store::OutboxDb, telemetry};

/// Tells the relays of this process that something has committed. Clones share one signal.
///
/// Any number of calls between two looks of a relay are one wake. Never fails, never waits, needs no relay to exist.
#[derive(Clone, Debug)]
pub struct Waker {
    // A counter under a watch channel rather than a `Notify`: several relays of one process all see it, and a relay
    // that was not waiting at that moment sees it later.
    commits: watch::Sender<u64>,
}

impl Waker {
    pub(crate) fn new() -> Self {
        Self {
            commits: watch::Sender::new(0),
        }
    }

    /// Call it after COMMIT. Calling it before, or for a transaction that rolled back, costs a relay one empty look.
    pub fn notify_after_commit(&self) {
        self.commits.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }
}

/// The least time between two announcements of one process: at most a hundred a second, whatever commits.
///
/// It is also what a commit may wait for its announcement, when the one before has only just gone.
const SPACING: Duration = Duration::from_millis(10);

/// What one announcement may take before it is given up; relays poll meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits while the database takes no announcements, or no listener.
const AWAY: Backoff = Backoff::equal_jitter(Duration::from_millis(50), Duration::from_secs(5));

/// Announces this process's commits to relays of other processes until it is dropped. See
/// [`Outbox::announce`](crate::Outbox::announce).
#[derive(Debug)]
#[must_use = "commits are announced until this is dropped"]
pub struct Announcer {
    task: JoinHandle<()>,
}

impl Announcer {
    pub(crate) fn spawn<Db: OutboxDb>(pool: Pool<Db>, commits: watch::Receiver<u64>) -> Self {
        Self {
            task: tokio::spawn(announce(pool, commits)),
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The first commit is announced at once; those that follow while that is under way or just done, together after it.
async fn announce<Db: OutboxDb>(pool: Pool<Db>, mut commits: watch::Receiver<u64>) {
    if !Db::SIGNALS {
        return;
    }
    let mut failures = 0;
    // What is noted here as seen had committed before, so the announcement is not too early for it.
    let mut announced = *commits.borrow();
    while commits.changed().await.is_ok() {
        let seen = *commits.borrow_and_update();
        telemetry::wake_coalesced(seen.wrapping_sub(announced).saturating_sub(1));
        announced = seen;
        match timeout(PATIENCE, Db::announce(pool.clone())).await {
            Ok(Ok(())) => {
                failures = 0;
                sleep(SPACING).await;
            }
            // Not said again for the commits it was for: relays find them by themselves before long.
            Ok(Err(_)) | Err(_) if pool.is_closed() => return,
            Ok(Err(error)) => away("announce", &mut failures, &error).await,
            Err(elapsed) => away("announce", &mut failures, &elapsed).await,
        }
    }
}

/// A wake that is told of this process's commits and of those that other processes announce.
pub(crate) fn listen<Db: OutboxDb>(
    pool: Pool<Db>,
    local: Option<watch::Receiver<u64>>,
) -> watch::Receiver<u64> {
    // Not the outbox's own waker: what it is told, its announcer would announce again.
    let both = Waker::new();
    let wake = both.subscribe();
    tokio::spawn(async move {
        tokio::select! {
            // The relay has ended.
            () = both.commits.closed() => {}
            () = forward(local, &both) => {}
            () = hear(pool, &both) => {}
        }
    });
    wake
}

async fn forward(local: Option<watch::Receiver<u64>>, to: &Waker) {
    if let Some(mut commits) = local {
        while commits.changed().await.is_ok() {
            to.notify_after_commit();
        }
    }
    std::future::pending::<()>().await;
}

async fn hear<Db: OutboxDb>(pool: Pool<Db>, to: &Waker) {
    let mut failures = 0;
    while Db::SIGNALS && !pool.is_closed() {
        if let Err(error) = Db::listen(pool.clone(), || to.notify_after_commit()).await {
            away("listen", &mut failures, &error).await;
        }
    }
    std::future::pending::<()>().await;
}

/// Says so once, and waits. Polls go on meanwhile, so this is no more than a delay.
async fn away(what: &'static str, failures: &mut u32, error: &(dyn std::error::Error + Sync)) {
    let cause = error.source().map(ToString::to_string);
    if *failures == 0 {
        warn!(target: TARGET, operation = what, %error, cause, "wakes between processes have stopped: relays poll");
    } else {
        debug!(target: TARGET, operation = what, %error, cause, "wakes between processes are still away");
    }
    *failures = failures.saturating_add(1);
    let wait = AWAY.delay(*failures, Duration::ZERO, &mut rand::rng());
    sleep(wait).await;
}
