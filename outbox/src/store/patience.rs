//! How long a migration tries to get its locks.

use std::time::Duration;

use mainstay_retry::Backoff;
use tokio::time::{Instant, sleep};

/// Between two attempts: those who stood behind the last one have gone on long before.
const BACKOFF: Backoff = Backoff::equal_jitter(Duration::from_millis(500), Duration::from_secs(5));

/// What is left of the time that a migration may take to get its locks.
pub(super) struct Patience {
    deadline: Instant,
    attempt: u32,
    wait: Duration,
}

impl Patience {
    pub(super) fn new(total: Duration) -> Self {
        Self {
            deadline: Instant::now() + total,
            attempt: 0,
            wait: Duration::ZERO,
        }
    }

    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits for the time of the next attempt, if there is to be one.
    pub(super) async fn again(&mut self) -> bool {
        self.attempt += 1;
        self.wait = BACKOFF.delay(self.attempt, self.wait, &mut rand::rng());
        if self.left() <= self.wait {
            return false;
        }
        sleep(self.wait).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_become_rare_and_end_in_time() {
        let began = Instant::now();
        let mut patience = Patience::new(Duration::from_secs(60));
        let mut attempts = 1;
        while patience.again().await {
            attempts += 1;
        }
        let took = began.elapsed();
        assert!(
            took <= Duration::from_secs(60) && took > Duration::from_secs(50),
            "{took:?}"
        );
        // Of 2.5 to 5 s each, but for the first few.
        assert!((12..=30).contains(&attempts), "{attempts}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_patience_there_is_one_attempt() {
        assert!(!Patience::new(Duration::ZERO).again().await);
    }
}
