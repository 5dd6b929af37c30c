//! The suite every store must pass: what the [`OutboxDb`] functions promise, one case a promise. That of sinks is
//! [`sink`].
//!
//! [`all`] runs it, given something that makes a fresh empty database for each case. Cases panic when a promise is
//! broken, so call it from a test.

mod age;
mod batch;
mod claim;
mod dead;
mod enqueue;
mod heads;
mod held;
mod lease;
mod operate;
mod parked;
pub mod sink;

use std::time::Duration;

use sqlx::Pool;
use uuid::Uuid;

use crate::{
    Event, Outbox, OutboxConfig, migrate_with_lanes,
    store::{Ask, Candidate, Failed, Grant, Held, InFlight, Look, Note, OutboxDb, Settlement},
};

/// Runs every case, each on a database of its own.
///
/// # Panics
/// When the store breaks a promise.
pub async fn all<Db, F, Fut>(mut fresh: F)
where
    Db: OutboxDb,
    F: FnMut() -> Fut,
    Fut: Future<Output = Pool<Db>>,
{
    enqueue::an_empty_database_is_said_to_be_unmigrated(fresh().await).await;
    enqueue::racing_migrations_agree(fresh().await).await;
    enqueue::what_is_enqueued_comes_back_byte_for_byte(fresh().await).await;
    enqueue::many_events_keep_their_order_in_one_statement(fresh().await).await;
    enqueue::what_is_rolled_back_is_never_seen(fresh().await).await;
    enqueue::a_refused_event_leaves_the_transaction_usable(fresh().await).await;
    enqueue::an_unordered_event_stands_in_the_lane_of_its_id(fresh().await).await;
    enqueue::what_is_not_due_is_not_in_the_lanes(fresh().await).await;
    enqueue::missing_tables_are_told_from_failures(fresh().await).await;
    lease::lanes_belong_to_one_relay_at_a_time(fresh().await).await;
    lease::a_lease_that_ran_out_is_taken_with_a_new_epoch(fresh().await).await;
    lease::a_takeover_charges_what_was_in_flight_and_nothing_else(fresh().await).await;
    lease::a_zombie_settles_renews_records_and_releases_nothing(fresh().await).await;
    lease::what_was_recorded_and_not_attempted_is_not_charged(fresh().await).await;
    lease::the_survey_counts_the_living(fresh().await).await;
    lease::a_server_is_the_same_over_each_connection(fresh().await).await;
    claim::a_message_that_waits_blocks_its_key_only(fresh().await).await;
    claim::a_message_that_does_not_hold_its_key_is_overtaken(fresh().await).await;
    claim::a_parked_key_is_set_aside_until_it_is_released(fresh().await).await;
    claim::a_look_begins_above_the_id_it_is_given(fresh().await).await;
    claim::topics_are_passed_over(fresh().await).await;
    claim::caps_cut_what_is_claimed(fresh().await).await;
    claim::the_survey_says_whether_anything_waits(fresh().await).await;
    heads::heads_and_writers_are_of_one_moment(fresh().await).await;
    heads::heads_skip_topics_and_say_how_far_they_looked(fresh().await).await;
    held::heads_pass_what_is_held_and_say_until_when(fresh().await).await;
    held::a_look_may_be_of_the_time_its_mark_is_of(fresh().await).await;
    held::what_was_under_way_is_told_apart(fresh().await).await;
    batch::a_batch_seen_before_rows_were_put_back_is_not_recorded(fresh().await).await;
    batch::a_failure_is_added_to_the_history(fresh().await).await;
    batch::settling_twice_charges_once(fresh().await).await;
    batch::a_settlement_that_is_repeated_undoes_nothing_that_came_after_it(fresh().await).await;
    batch::a_settlement_is_of_its_own_batch_only(fresh().await).await;
    age::what_is_due_moves_into_its_lane_in_the_order_of_the_times(fresh().await).await;
    age::what_is_kept_is_forgotten_by_its_age(fresh().await).await;
    dead::dead_letters_move_there_and_back_whole(fresh().await).await;
    dead::a_filter_means_what_it_says(fresh().await).await;
    dead::a_change_in_many_batches_is_one_in_the_audit(fresh().await).await;
    dead::what_dies_again_meanwhile_is_left(fresh().await).await;
    parked::a_parked_key_is_redriven_from_its_front(fresh().await).await;
    parked::what_is_given_up_again_parks_what_had_come_back(fresh().await).await;
    parked::a_discard_lets_what_was_parked_go_on(fresh().await).await;
    parked::a_key_without_letters_is_not_parked(fresh().await).await;
    parked::what_was_kept_is_replayed_in_order(fresh().await).await;
    parked::events_whose_time_has_not_come_are_told_last(fresh().await).await;
    operate::lag_counts_and_ages(fresh().await).await;
    operate::each_message_says_what_it_waits_for(fresh().await).await;
    operate::nobody_waits_for_what_holds_nothing_back(fresh().await).await;
    operate::lanes_are_told_with_a_verdict(fresh().await).await;
    operate::health_has_reasons(fresh().await).await;
    operate::pauses_are_kept_and_audited(fresh().await).await;
    operate::nothing_is_found_where_all_is_well(fresh().await).await;
}

const LONG: Duration = Duration::from_secs(60);

/// A database with this many lanes, and an outbox on it.
async fn migrated<Db: OutboxDb>(pool: &Pool<Db>, lanes: u16) -> Outbox<Db> {
    migrate_with_lanes(pool, lanes)
        .await
        .expect("the database migrates");
    Outbox::new(OutboxConfig::default().source("/conformance"))
}

async fn put<Db: OutboxDb>(pool: &Pool<Db>, outbox: &Outbox<Db>, event: Event) {
    let mut tx = pool.begin().await.expect("a transaction begins");
    outbox
        .enqueue(&mut tx, event)
        .await
        .expect("the event is enqueued");
    tx.commit().await.expect("the transaction commits");
}

async fn take<Db: OutboxDb>(pool: &Pool<Db>, lease: Duration, count: u16) -> Vec<Grant> {
    Db::acquire(pool.clone(), Uuid::now_v7(), lease, count)
        .await
        .expect("lanes are acquired")
}

/// The only lane, leased.
async fn own<Db: OutboxDb>(pool: &Pool<Db>) -> Held {
    let grants = take(pool, LONG, 1).await;
    held(*grants.first().expect("the lane is free"))
}

async fn due<Db: OutboxDb>(pool: &Pool<Db>, ask: Ask) -> Vec<Candidate> {
    Db::candidates(pool.clone(), ask)
        .await
        .expect("candidates are read")
}

/// Records what is to be settled, as relays do before they publish it.
async fn record<Db: OutboxDb>(pool: &Pool<Db>, settlement: &Settlement) {
    let Settlement {
        held,
        batch,
        acked,
        failed,
        dead,
    } = settlement;
    let failed = failed.iter().map(|one| one.id);
    let dead = dead.iter().map(|one| one.id);
    let ids: Vec<i64> = acked.iter().copied().chain(failed).chain(dead).collect();
    let mut rewinds = 0;
    loop {
        let recorded = InFlight {
            held: *held,
            batch: *batch,
            rewinds,
            ids: ids.clone(),
        };
        let recorded = Db::record(pool.clone(), LONG, vec![recorded]).await;
        match recorded.expect("recording runs").lanes.first() {
            // Rows were put back meanwhile, and nothing was recorded.
            Some((_, now)) if *now != rewinds => rewinds = *now,
            _ => return,
        }
    }
}

/// Settles a batch that was recorded, once.
async fn settle_recorded<Db: OutboxDb>(pool: &Pool<Db>, settlement: Settlement) -> Vec<i32> {
    Db::settle(pool.clone(), false, vec![settlement])
        .await
        .expect("the settlement runs")
}

async fn settle<Db: OutboxDb>(pool: &Pool<Db>, settlement: Settlement) -> Vec<i32> {
    record(pool, &settlement).await;
    settle_recorded(pool, settlement).await
}

/// Everything that is due in these lanes.
fn everything(lanes: impl IntoIterator<Item = i32>) -> Ask {
    Ask {
        lanes: lanes.into_iter().map(|lane| Look::new(lane, 0)).collect(),
        batch: 1_000,
        total: 1_000,
        bytes: u64::MAX,
        skip_topics: Vec::new(),
        held_back: true,
        large: false,
    }
}

fn nothing(held: Held) -> Settlement {
    Settlement {
        held,
        batch: 1,
        acked: Vec::new(),
        failed: Vec::new(),
        dead: Vec::new(),
    }
}

/// It failed, and waits as long as a test goes.
fn later(row: &Candidate) -> Failed {
    Failed {
        id: row.id,
        attempts: row.attempts,
        delay: LONG,
        suspect: false,
        holds: true,
        reason: "not now".to_owned(),
        note: Note {
            before: "[[1,".to_owned(),
            after: ",\"not now\"]]".to_owned(),
        },
    }
}

fn held(grant: Grant) -> Held {
    Held {
        lane: grant.lane,
        epoch: grant.epoch,
    }
}

/// The subjects, which the cases use as names.
fn names(candidates: &[Candidate]) -> Vec<&str> {
    candidates
        .iter()
        .filter_map(|candidate| candidate.message.subject())
        .collect()
}

/// For events that are to wait until then.
#[expect(
    clippy::disallowed_methods,
    reason = "a time from which others are counted"
)]
fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

fn named(name: &str) -> Event {
    Event::new("t").subject(name)
}
