//! A task that keeps the gauges fresh.

use std::time::Duration;

use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Admin, HealthStatus, LaneLag, Thresholds, Verdict};
use crate::{
    admin::lag::Lag,
    error::Error,
    store::{LagRow, OutboxDb},
    telemetry::describe_metrics,
};

/// Keeps the gauges fresh: how far behind, how many dead, how the lanes are.
///
/// One for each database is enough, in whichever process: gauges of several say the same.
#[derive(Debug)]
#[must_use = "a monitor does nothing until it is spawned"]
pub struct LagMonitor<Db: OutboxDb> {
    admin: Admin<Db>,
    every: Duration,
    limits: Thresholds,
}

impl<Db: OutboxDb> LagMonitor<Db> {
    /// Refreshes every 10 s, with the default [`Thresholds`] for the gauge of health.
    pub fn new(admin: Admin<Db>) -> Self {
        Self {
            admin,
            every: Duration::from_secs(10),
            limits: Thresholds::default(),
        }
    }

    /// How often. Default 10 s, at least 1 s. A refresh is four statements; on MySQL and MariaDB five, and one for each lane.
    /// What they cost, [`Admin::lag`] says; a refresh that is not done by the time of the next is given up and counts as failed.
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = interval.max(Duration::from_secs(1));
        self
    }

    /// From where on health is worth telling.
    pub fn thresholds(mut self, limits: Thresholds) -> Self {
        self.limits = limits;
        self
    }

    /// Starts the task; it ends with the token. While the database is away the gauges stay as they were, and
    /// `mainstay.outbox.monitor.failures` rises.
    ///
    /// # Panics
    /// When called outside a tokio runtime, as [`tokio::spawn`] does.
    pub fn spawn(self, cancel: CancellationToken) -> JoinHandle<()> {
        describe_metrics();
        tokio::spawn(async move {
            let mut ticks = interval(self.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = cancel.cancelled() => break,
                }
                // A database that does not answer must not pile questions up.
                let refreshed = timeout(self.every, self.refresh());
                let failed = tokio::select! {
                    done = refreshed => match done {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(error.to_string()),
                        Err(elapsed) => Some(elapsed.to_string()),
                    },
                    () = cancel.cancelled() => break,
                };
                if let Some(error) = failed {
                    metrics::counter!("mainstay.outbox.monitor.failures").increment(1);
                    tracing::debug!(target: crate::TARGET, error, "the gauges could not be refreshed");
                }
            }
        })
    }

    async fn refresh(&self) -> Result<(), Error> {
        let row = self.admin.lag_row(self.limits.dead_window).await?;
        let lanes = self.admin.lanes_up_to(1).await?;
        let relays = Db::survey(self.admin.pool.clone()).await?.relays;
        let health = super::health::judge(&self.limits, &row, &lanes, relays);
        publish(&row, &lanes, health.status);
        Ok(())
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating, and counts far below 2^52"
)]
fn publish(row: &LagRow, lanes: &[LaneLag], health: HealthStatus) {
    let lag = Lag::new(row);
    let oldest = lag.oldest_age.unwrap_or_default();
    metrics::gauge!("mainstay.outbox.pending").set(lag.pending as f64);
    metrics::gauge!("mainstay.outbox.oldest_age").set(oldest.as_secs_f64());
    metrics::gauge!("mainstay.outbox.later").set(lag.later as f64);
    metrics::gauge!("mainstay.outbox.dead_letters").set(lag.dead as f64);
    metrics::gauge!("mainstay.outbox.parked_keys").set(lag.parked_keys as f64);
    metrics::gauge!("mainstay.outbox.paused").set(lag.paused as f64);
    let [mut idle, mut flowing, mut unowned, mut stalled] = [0.0; 4];
    for lane in lanes {
        match lane.verdict {
            Verdict::Idle => idle += 1.0,
            Verdict::Flowing => flowing += 1.0,
            Verdict::Unowned => unowned += 1.0,
            Verdict::Stalled { .. } => stalled += 1.0,
        }
    }
    for (verdict, lanes) in [
        ("idle", idle),
        ("flowing", flowing),
        ("unowned", unowned),
        ("stalled", stalled),
    ] {
        metrics::gauge!("mainstay.outbox.lanes", "verdict" => verdict).set(lanes);
    }
    let health = match health {
        HealthStatus::Ok => 0.0,
        HealthStatus::Degraded => 1.0,
        HealthStatus::Failing => 2.0,
    };
    metrics::gauge!("mainstay.outbox.health").set(health);
}
