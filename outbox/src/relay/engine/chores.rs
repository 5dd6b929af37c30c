//! What a relay does besides its lanes: it sees how things stand, lets delayed events in, forgets what was kept.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::Engine;
use crate::{
    TARGET,
    pattern::Pattern,
    relay::Retention,
    store::{OutboxDb, Server},
};

/// Delayed events that are let in with one statement, at the most.
pub(super) const PROMOTE_MAX: u32 = 1_000;

/// Delivered events that are forgotten with one statement: little enough not to be noticed.
const FORGET_MAX: u32 = 2_000;

/// How much later than it could be a probe may be sent, if there is something to send.
const PROBE_SLACK: Duration = Duration::from_secs(1);

/// Waits between two rounds of forgetting, when the last one forgot all there was and when it did not.
const FORGET_EVERY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(200));

impl<Db: OutboxDb> Engine<Db> {
    /// Looks at how things stand and does what follows from it.
    pub(super) async fn survey(&mut self) -> bool {
        let Some(survey) = self.ask("survey", Db::survey(self.connections.get())).await else {
            return false;
        };
        self.clock.survey = Instant::now() + self.config.poll_interval;
        self.hints.held_back = survey.held_back;
        self.hints.walks &= survey.held_back;
        let long = self.config.poll_interval * 2 + PROBE_SLACK;
        for topics in self.routes.not_down(Instant::now(), long) {
            self.tally.sink_up(topics);
        }
        if self.marks.ids_in_order != survey.ids_in_order {
            self.marks.ids_in_order = survey.ids_in_order;
            self.forget_marks();
        }
        self.answered(survey.server.clone());
        if self.marks.rewinds.replace(survey.rewinds) != Some(survey.rewinds) {
            self.look_from_the_start();
            self.clock.poll = Instant::now();
        }
        // One that cannot be meant pauses nothing; operators are not let write it.
        let paused: Vec<Pattern> = survey
            .paused
            .iter()
            .filter_map(|p| Pattern::parse(p))
            .collect();
        if paused != self.shut.paused {
            self.shut.paused = paused;
            self.clock.poll = Instant::now();
        }
        if !self.rebalance(&survey).await {
            return false;
        }
        !survey.due || self.promote().await
    }

    /// Notes which server answers. One that came into the place of another may have lost what that had last, and draws those
    /// ids again: what lies behind the marks is looked at once more. That no statement failed over it says nothing, as pools and
    /// proxies open their connections anew by themselves.
    pub(super) fn answered(&mut self, server: Option<Server>) {
        let Some(server) = server else {
            return;
        };
        let before = self.marks.server.replace(server.clone());
        let other = before.filter(|before| !server.is_still(before));
        // Where several servers take turns there are no marks, and nothing to say.
        if let Some(before) = other.filter(|_| self.marks.ids_in_order) {
            warn!(
                target: TARGET, relay = %self.relay, ?before, now = ?server,
                "the database may be another one, or was started again: lanes are looked at from their beginning"
            );
            self.forget_marks();
            self.clock.poll = Instant::now();
        }
    }

    /// Lets delayed events in whose time has come.
    async fn promote(&mut self) -> bool {
        let most = self.hints.promote;
        let promote = Db::promote(self.connections.get(), most);
        let Some(moved) = self.ask("promote", promote).await else {
            // They may be too large together for the time there is. What is due already has its turn first.
            self.hints.promote = (most / 2).max(1);
            self.clock.survey = self.database.retry_at + self.config.poll_interval;
            return false;
        };
        self.hints.promote = most.saturating_mul(2).min(PROMOTE_MAX);
        debug!(target: TARGET, relay = %self.relay, moved, "delayed events are due");
        self.clock.poll = Instant::now();
        if moved >= u64::from(most) {
            self.clock.survey = Instant::now();
        }
        true
    }

    /// Forgets delivered events whose time is over.
    pub(super) async fn forget(&mut self) -> bool {
        let (rarely, soon) = FORGET_EVERY;
        let Retention::Keep(age) = self.config.retention else {
            self.clock.forget = Instant::now() + NEVER;
            return true;
        };
        let forget = Db::forget(self.connections.get(), age, FORGET_MAX);
        let Some(gone) = self.ask("forget", forget).await else {
            return false;
        };
        let more = gone >= u64::from(FORGET_MAX);
        self.clock.forget = Instant::now() + if more { soon } else { rarely };
        true
    }
}

/// As good as that.
const NEVER: Duration = Duration::from_secs(86_400 * 365);
