use std::time::Duration;

use sqlx::Pool;

use super::{
    LONG, due, everything, held, migrated, named, names, nothing, put, record, settle, take,
};
use crate::{
    Admin, Bulk, DeadCause, Filter, Outbox, Wait,
    store::{Buried, Candidate, Held, OutboxDb, Settlement},
};

/// One lane with four messages of one key, of which the first was given up and parked the key and two were set aside; and
/// one of another key.
async fn parked<Db: OutboxDb>(pool: &Pool<Db>) -> (Outbox<Db>, Held, Vec<Candidate>) {
    let outbox = migrated(pool, 1).await;
    for (name, key) in [("1", "k"), ("2", "k"), ("o", "o"), ("3", "k"), ("4", "k")] {
        put(pool, &outbox, named(name).topic("t").key(key)).await;
    }
    let lane = held(*take(pool, LONG, 1).await.first().expect("the lane is free"));
    let rows = due(pool, everything([0])).await;
    bury(pool, lane, &rows, "1", true).await;
    bury(pool, lane, &rows, "2", false).await;
    bury(pool, lane, &rows, "3", false).await;
    assert_eq!(going(pool).await, ["o"]);
    (outbox, lane, rows)
}

/// Gives a message up and parks its key, or sets it aside with it.
async fn bury<Db: OutboxDb>(
    pool: &Pool<Db>,
    lane: Held,
    rows: &[Candidate],
    name: &str,
    park: bool,
) {
    let mut named = rows
        .iter()
        .filter(|row| row.message.subject() == Some(name));
    let cause = if park {
        DeadCause::Rejected
    } else {
        DeadCause::Parked
    };
    let settlement = Settlement {
        dead: vec![Buried {
            id: named.next().expect("there is one of that name").id,
            attempts: 1,
            cause,
            park,
            reason: "never".to_owned(),
            note: None,
        }],
        ..nothing(lane)
    };
    assert_eq!(settle(pool, settlement).await, [0]);
}

/// What is due and not parked.
async fn going<Db: OutboxDb>(pool: &Pool<Db>) -> Vec<String> {
    let mut rows = due(pool, everything([0])).await;
    rows.retain(|row| !row.parked);
    names(&rows).into_iter().map(str::to_owned).collect()
}

async fn redriven<Db: OutboxDb>(pool: &Pool<Db>, which: impl Into<Bulk>) -> u64 {
    let admin = Admin::new(pool.clone());
    admin.redrive(which).await.expect("letters are redriven")
}

async fn parked_keys<Db: OutboxDb>(pool: &Pool<Db>) -> u64 {
    let lag = Admin::new(pool.clone()).lag().await;
    lag.expect("lag is read").parked_keys
}

pub(super) async fn a_parked_key_is_redriven_from_its_front<Db: OutboxDb>(pool: Pool<Db>) {
    let (_, _, rows) = parked(&pool).await;
    let id = |at: usize| rows.get(at).expect("five rows").message.id();
    let rewinds = async || {
        let survey = Db::survey(pool.clone()).await;
        survey.expect("the survey runs").rewinds
    };
    let before = rewinds().await;
    // What is counted is what goes.
    let counted = async |filter: Filter| {
        let admin = Admin::new(pool.clone());
        let count = admin.count_to_redrive(filter.clone(), 10).await;
        let letters = admin.count_dead(filter, 10).await;
        (count.expect("counted"), letters.expect("counted"))
    };
    assert_eq!(counted(Filter::all()).await, (3, 3));
    assert_eq!(counted(Filter::id(id(0))).await, (1, 1));
    assert_eq!(counted(Filter::id(id(1))).await, (0, 1));
    assert_eq!(counted(Filter::cause(DeadCause::Parked)).await, (0, 2));
    assert_eq!(redriven(&pool, Filter::cause(DeadCause::Parked)).await, 0);
    assert_eq!(redriven(&pool, Filter::id(id(1))).await, 0);
    assert_eq!(rewinds().await, before);

    assert_eq!(redriven(&pool, Filter::id(id(0))).await, 1);
    assert!(rewinds().await > before, "relays are told to look below");
    assert_eq!(going(&pool).await, ["1", "o"], "the rest stays parked");
    let seen = Admin::new(pool.clone())
        .peek(Filter::key("k"), 10)
        .await
        .expect("peeked");
    let waits: Vec<_> = seen.iter().map(crate::Pending::wait).collect();
    assert_eq!(waits, [Wait::Due, Wait::Parked]);

    assert_eq!(redriven(&pool, Bulk::of(Filter::all()).limit(1)).await, 1);
    assert_eq!(going(&pool).await, ["1", "2", "o"]);
    assert_eq!(parked_keys(&pool).await, 1);
    assert_eq!(redriven(&pool, Filter::all()).await, 1);
    assert_eq!(parked_keys(&pool).await, 0);
    assert_eq!(going(&pool).await, ["1", "2", "o", "3", "4"]);
    let found = Admin::new(pool.clone()).verify().await.expect("verified");
    assert_eq!(found, []);
}

pub(super) async fn what_is_given_up_again_parks_what_had_come_back<Db: OutboxDb>(pool: Pool<Db>) {
    let (_, lane, rows) = parked(&pool).await;
    assert_eq!(
        redriven(&pool, Bulk::of(Filter::key("k")).limit(2)).await,
        2
    );
    assert_eq!(going(&pool).await, ["1", "2", "o"]);
    bury(&pool, lane, &rows, "1", true).await;
    assert_eq!(going(&pool).await, ["o"]);
    bury(&pool, lane, &rows, "2", false).await;
    assert_eq!(redriven(&pool, Filter::key("k")).await, 3);
    assert_eq!(going(&pool).await, ["1", "2", "o", "3", "4"]);
}

pub(super) async fn a_discard_lets_what_was_parked_go_on<Db: OutboxDb>(pool: Pool<Db>) {
    parked(&pool).await;
    let admin = Admin::new(pool.clone());
    let which = Filter::cause(DeadCause::Rejected);
    let done = admin.discard(which).await.expect("letters are discarded");
    assert_eq!((done.discarded, done.released), (1, 2));
    assert_eq!(going(&pool).await, ["2", "o", "3", "4"]);
    assert_eq!(parked_keys(&pool).await, 0);
    let audit = admin.audit(10).await.expect("the audit is read");
    let told: Vec<_> = audit
        .iter()
        .map(|one| (one.action.as_str(), one.affected))
        .collect();
    assert_eq!(told, [("redrive", 2), ("discard", 1)]);
}

pub(super) async fn a_key_without_letters_is_not_parked<Db: OutboxDb>(pool: Pool<Db>) {
    parked(&pool).await;
    let admin = Admin::new(pool.clone());
    // What stays behind the first is still held back by it.
    let done = admin
        .discard(Filter::cause(DeadCause::Parked))
        .await
        .expect("letters are discarded");
    assert_eq!((done.discarded, done.released), (2, 0));
    assert_eq!(going(&pool).await, ["o"]);
    let done = admin
        .discard(Filter::all())
        .await
        .expect("letters are discarded");
    assert_eq!((done.discarded, done.released), (1, 0));
    assert_eq!(going(&pool).await, ["o", "4"]);
    assert_eq!(parked_keys(&pool).await, 0);
}

/// Settles all that is due as delivered, and keeps it.
async fn deliver<Db: OutboxDb>(pool: &Pool<Db>, lane: Held) -> Vec<Candidate> {
    let rows = due(pool, everything([0])).await;
    let settlement = Settlement {
        acked: rows.iter().map(|row| row.id).collect(),
        ..nothing(lane)
    };
    record(pool, &settlement).await;
    let settled = Db::settle(pool.clone(), true, vec![settlement]).await;
    assert_eq!(settled.expect("the settlement runs"), [0]);
    rows
}

pub(super) async fn what_was_kept_is_replayed_in_order<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for (name, topic) in [("1", "t"), ("2", "u"), ("3", "t"), ("4", "t")] {
        put(&pool, &outbox, named(name).topic(topic).key("k")).await;
    }
    let lane = held(
        *take(&pool, LONG, 1)
            .await
            .first()
            .expect("the lane is free"),
    );
    let before = deliver(&pool, lane).await;
    let admin = Admin::new(pool.clone());
    for (filter, expected) in [
        (Filter::all(), 4),
        (Filter::topic("t"), 3),
        (Filter::topic("u*"), 1),
        (Filter::key("o"), 0),
        (Filter::cause(DeadCause::Rejected), 0),
    ] {
        let count = admin.count_delivered(filter.clone(), 10).await;
        assert_eq!(count.expect("counted"), expected, "{filter:?}");
    }
    assert_eq!(admin.replay(Filter::topic("u")).await.expect("replayed"), 1);
    assert_eq!(going(&pool).await, ["2"]);

    // What is delivered again meanwhile is not replayed once more.
    let (tell, mut told) = tokio::sync::mpsc::channel(16);
    let which = Bulk::of(Filter::all())
        .per_second(10)
        .on_progress(move |done| tell.try_send(done).expect("there is room"));
    let replay = tokio::spawn(async move { admin.replay(which).await });
    assert_eq!(told.recv().await, Some(1));
    deliver(&pool, lane).await;
    let moved = replay.await.expect("it ends").expect("replayed");
    assert_eq!(moved, 3, "each once");
    let after = due(&pool, everything([0])).await;
    assert_eq!(names(&after), ["3", "4"]);
    for (old, new) in before.iter().skip(2).zip(&after) {
        assert_eq!((old.id, &old.message), (new.id, &new.message));
    }
    let audit = Admin::new(pool).audit(1).await.expect("the audit is read");
    let told = audit.first().map(|one| (one.action.as_str(), one.affected));
    assert_eq!(told, Some(("replay", 3)));
}

pub(super) async fn events_whose_time_has_not_come_are_told_last<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    let due_at = crate::outbox::wall_clock() + Duration::from_secs(3_600);
    put(&pool, &outbox, named("later").not_before(due_at)).await;
    put(&pool, &outbox, named("now")).await;
    let admin = Admin::new(pool.clone());
    let seen = admin.peek(Filter::all(), 10).await.expect("peeked");
    let told: Vec<_> = seen
        .iter()
        .filter_map(|one| one.message().subject())
        .collect();
    assert_eq!(told, ["now", "later"]);
    let Some(Wait::Later { due_at: stored }) = seen.last().map(crate::Pending::wait) else {
        unreachable!("the last waits for its time: {seen:?}");
    };
    let off = due_at.duration_since(stored).expect("cut to microseconds");
    assert!(off < Duration::from_millis(1), "{off:?}");
    let lag = admin.lag().await.expect("lag is read");
    assert_eq!((lag.pending, lag.later), (1, 1));
    let one = admin.peek(Filter::all(), 1).await.expect("peeked");
    assert_eq!(one.len(), 1);
}
