use std::time::Duration;

use sqlx::Pool;
use tokio::time::Instant;

use super::{
    LONG, dead::buried, due, everything, held, migrated, named, names, nothing, now, put, record,
    settle, settle_recorded, take,
};
use crate::{
    DeadCause, Event,
    store::{
        Ask, AskHeads, Buried, Candidate, Failed, Head, Heads, Held, InFlight, Look, Note,
        OutboxDb, Settlement,
    },
};

/// The only lane, leased.
async fn own<Db: OutboxDb>(pool: &Pool<Db>) -> Held {
    let grants = take(pool, LONG, 1).await;
    held(*grants.first().expect("the lane is free"))
}

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

pub(super) async fn a_message_that_waits_blocks_its_key_only<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for (name, key) in [
        ("k1", Some("k")),
        ("k2", Some("k")),
        ("k3", Some("k")),
        ("other", Some("o")),
        ("none", None),
    ] {
        let event = named(name);
        put(
            &pool,
            &outbox,
            match key {
                Some(key) => event.key(key),
                None => event,
            },
        )
        .await;
    }
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let second = rows.get(1).expect("five rows");
    let settlement = Settlement {
        failed: vec![later(second)],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, settlement).await, [0]);

    let blocking = due(&pool, everything([0])).await;
    assert_eq!(
        names(&blocking),
        ["k1", "other", "none"],
        "those before it are not held back"
    );
    let free = Ask {
        held_back: false,
        ..everything([0])
    };
    assert_eq!(
        due(&pool, free).await.len(),
        5,
        "whoever says that nothing waits is believed"
    );
}

pub(super) async fn a_message_that_does_not_hold_its_key_is_overtaken<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let outbox = migrated(&pool, 1).await;
    for name in ["k1", "k2"] {
        put(&pool, &outbox, named(name).key("k")).await;
    }
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let mut failed = later(rows.first().expect("two rows"));
    failed.holds = false;
    let settlement = Settlement {
        failed: vec![failed],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, settlement).await, [0]);
    assert_eq!(names(&due(&pool, everything([0])).await), ["k2"]);
}

pub(super) async fn a_look_begins_above_the_id_it_is_given<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for name in ["a", "b", "c"] {
        put(&pool, &outbox, named(name)).await;
    }
    let rows = due(&pool, everything([0])).await;
    for held_back in [true, false] {
        let above = rows.get(1).expect("three rows").id;
        let ask = Ask {
            lanes: vec![Look::new(0, above)],
            held_back,
            ..everything([])
        };
        assert_eq!(names(&due(&pool, ask).await), ["c"]);
    }
}

/// Where there are marks: a writer that is at work is told of from before it draws an id until what it wrote shows; or what
/// it wrote is among the heads at once, whether it has committed or not.
pub(super) async fn heads_and_writers_are_of_one_moment<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    let lane = own(&pool).await;
    put(&pool, &outbox, named("first")).await;
    let first = due(&pool, everything([0])).await;
    let id = first.first().expect("a row").id;
    let batch = || InFlight {
        held: lane,
        batch: 1,
        rewinds: 0,
        ids: vec![id],
    };
    let record = async || {
        let recorded = Db::record(pool.clone(), LONG, vec![batch()]).await;
        recorded.expect("the batch is recorded").stamp
    };
    let heads = async || {
        let look = Look::new(0, 0);
        let heads = Db::heads(pool.clone(), ask_heads(look, &[])).await;
        heads.expect("heads are read")
    };
    // Where one transaction writes at a time, nobody has to be waited for.
    let Some(before) = record().await else {
        return;
    };
    let mut late = pool.begin().await.expect("a transaction begins");
    outbox
        .enqueue(&mut late, named("late"))
        .await
        .expect("the event is enqueued");
    let after = record().await.expect("there are marks here");
    assert!(before < after);
    let seen = heads().await;
    assert_eq!(seen.heads, [(0, Head::Row(id))]);
    let late_is_at_work = |heads: &Heads| match &heads.running {
        Some(running) => {
            assert!(running.iter().all(|writer| *writer >= heads.ended_below));
            running
                .iter()
                .any(|writer| (before..after).contains(writer))
        }
        None => heads
            .heads
            .iter()
            .any(|(_, head)| matches!(head, Head::Row(head) if *head > id)),
    };
    let done = Settlement {
        acked: vec![id],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, done).await, [0]);
    let open = heads().await;
    assert!(late_is_at_work(&open));
    assert!(open.ended_below < after, "the mark does not pass yet");
    if open.running.is_some() {
        assert_eq!(open.heads, [(0, Head::Nothing)]);
    }

    late.commit().await.expect("the transaction commits");
    let seen = heads().await;
    let row = due(&pool, everything([0])).await;
    assert_eq!(seen.heads, [(0, Head::Row(row.first().expect("a row").id))]);
    // Others may have begun to write at the same time, in other databases of the server.
    let deadline = Instant::now() + LONG;
    while seen.running.is_some() && late_is_at_work(&heads().await) {
        assert!(Instant::now() < deadline, "it has ended");
    }
}

/// All that can be asked of one lane.
fn ask_heads(look: Look, skipped: &[&str]) -> AskHeads {
    AskHeads {
        lanes: vec![look],
        skip_topics: skipped.iter().map(ToString::to_string).collect(),
        window: 1_000,
        running: true,
        held: false,
        newest: !skipped.is_empty(),
    }
}

/// What is there of topics whose sink is up; and the last of all, with a stamp that a writer's must reach to be later.
pub(super) async fn heads_skip_topics_and_say_how_far_they_looked<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for (name, topic) in [("a", "down"), ("b", "down"), ("c", "up"), ("d", "down")] {
        put(&pool, &outbox, named(name).topic(topic)).await;
    }
    let rows = due(&pool, everything([0])).await;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let [first, second, third, last] = ids[..] else {
        unreachable!("four rows");
    };
    let heads = async |above, skipped: &[&str]| {
        let look = Look::new(0, above);
        let heads = Db::heads(pool.clone(), ask_heads(look, skipped)).await;
        heads.expect("heads are read")
    };
    let none = heads(0, &[]).await;
    assert_eq!(
        (none.heads, none.newest),
        (vec![(0, Head::Row(first))], None)
    );
    let skipping = heads(0, &["down", "it's"]).await;
    assert_eq!(skipping.heads, [(0, Head::Row(third))]);
    let (newest, stamp) = skipping.newest.expect("there is a last one");
    assert_eq!(newest, last, "whatever its topic");
    assert_eq!(heads(third, &["down"]).await.heads, [(0, Head::Nothing)]);
    assert_eq!(heads(first, &[]).await.heads, [(0, Head::Row(second))]);

    let last_of_all = heads(last, &["down"]).await;
    assert_eq!(last_of_all.newest.filter(|(id, _)| *id > last), None);

    let window = async |above, window| {
        let ask = AskHeads {
            window,
            ..ask_heads(Look::new(0, above), &["down"])
        };
        let heads = Db::heads(pool.clone(), ask).await;
        let heads = heads.expect("heads are read").heads;
        heads.first().expect("a lane").1
    };
    // Where all lanes are looked at together, that may have shown more than the window.
    let seen = window(0, 2).await;
    assert!([Head::NothingUpTo(second), Head::Row(third)].contains(&seen));
    assert_eq!(window(0, 3).await, Head::Row(third));
    assert_eq!(window(second, 1).await, Head::Row(third));

    let mut late = pool.begin().await.expect("a transaction begins");
    outbox
        .enqueue(&mut late, named("late").topic("up"))
        .await
        .expect("the event is enqueued");
    let open = heads(third, &["down"]).await;
    if open.running.is_some() {
        // What a snapshot has for the last writer may be one that began before.
        let running = heads(third, &["down"]).await.running.unwrap_or_default();
        assert!(running.iter().any(|writer| *writer >= stamp));
        assert_eq!(open.heads, [(0, Head::Nothing)]);
    }
    late.commit().await.expect("the transaction commits");
    let seen = heads(third, &["down"]).await;
    assert!(matches!(seen.heads[..], [(0, Head::Row(id))] if id > last));
}

pub(super) async fn what_is_due_moves_into_its_lane_in_the_order_of_the_times<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let outbox = migrated(&pool, 4).await;
    let before = Db::survey(pool.clone()).await.expect("the survey runs");
    assert!(!before.due);
    let base = now();
    let at = |millis| base + Duration::from_millis(millis);
    for (name, key, millis) in [
        ("third", "k", 3),
        ("first", "k", 1),
        ("second", "k", 2),
        ("far", "k", 3_600_000),
        ("other", "o", 4),
    ] {
        let event = named(name).key(key).header("h", "ü");
        put(&pool, &outbox, event.not_before(at(millis))).await;
    }
    let deadline = Instant::now() + LONG;
    let mut moved = 0;
    while moved < 4 {
        // Several at once: one does it.
        let (a, b) = tokio::join!(Db::promote(pool.clone(), 3), Db::promote(pool.clone(), 3));
        moved += a.expect("events are moved") + b.expect("events are moved");
        assert!(Instant::now() < deadline, "they are never due");
    }
    assert_eq!(moved, 4, "what is not due stays");
    let survey = Db::survey(pool.clone()).await.expect("the survey runs");
    assert!(!survey.due);
    let later = Db::later(pool.clone(), crate::store::Select::default(), 10).await;
    assert_eq!(later.expect("they are read").len(), 1);

    let rows = due(&pool, everything(0..4)).await;
    let of_key: Vec<_> = rows
        .iter()
        .filter(|row| row.message.key() == Some(b"k"))
        .collect();
    let names: Vec<_> = of_key
        .iter()
        .filter_map(|row| row.message.subject())
        .collect();
    assert_eq!(names, ["first", "second", "third"]);
    assert!(
        of_key
            .iter()
            .all(|row| row.message.header("h") == Some("ü"))
    );
    assert!(of_key.iter().all(|row| row.age < LONG && row.attempts == 0));
    let lane = of_key.first().map(|row| row.lane);
    assert!(of_key.iter().all(|row| Some(row.lane) == lane));
    put(&pool, &outbox, named("now").key("k")).await;
    let rows = due(&pool, everything(lane)).await;
    let now = rows.iter().find(|row| row.message.subject() == Some("now"));
    assert!(
        now.is_some(),
        "in the lane of its key, as those that are not delayed"
    );
    let sequences: Vec<_> = rows.iter().map(|row| row.message.sequence()).collect();
    assert!(sequences.is_sorted() && sequences.iter().all(Option::is_some));
    let places: Vec<_> = rows
        .iter()
        .map(|row| Some(format!("{:019}", row.id)))
        .collect();
    assert_eq!(sequences, places);
}

/// Where an operator would find what was given up.
pub(super) async fn a_parked_key_is_set_aside_until_it_is_released<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for (name, topic) in [("1", "t"), ("2", "t"), ("other topic", "u")] {
        put(&pool, &outbox, named(name).topic(topic).key("k")).await;
    }
    put(&pool, &outbox, named("other key").topic("t").key("o")).await;
    put(&pool, &outbox, named("no key").topic("t")).await;
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let bury = |row: &Candidate, cause, park| Settlement {
        dead: vec![Buried {
            id: row.id,
            attempts: 1,
            cause,
            park,
            reason: "never".to_owned(),
            note: None,
        }],
        ..nothing(lane)
    };
    let second = rows.get(1).expect("five rows");
    let early = bury(second, DeadCause::Parked, false);
    assert_eq!(settle(&pool, early.clone()).await, [0]);
    assert_eq!(
        due(&pool, everything([0])).await.len(),
        5,
        "nothing is set aside whose key is not parked"
    );
    let first = bury(rows.first().expect("five rows"), DeadCause::Rejected, true);
    for _ in 0..2 {
        assert_eq!(settle(&pool, first.clone()).await, [0]);
    }
    let survey = Db::survey(pool.clone()).await.expect("the survey runs");
    assert!(survey.held_back);
    let rows = due(&pool, everything([0])).await;
    let parked: Vec<_> = rows.iter().map(|row| row.parked).collect();
    assert_eq!(names(&rows), ["2", "other topic", "other key", "no key"]);
    assert_eq!(parked, [true, false, false, false]);
    assert_eq!(settle(&pool, early).await, [0]);
    assert_eq!(
        names(&due(&pool, everything([0])).await),
        ["other topic", "other key", "no key"]
    );
}

/// What was put back may have to go before what was seen.
pub(super) async fn a_batch_seen_before_rows_were_put_back_is_not_recorded<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let outbox = migrated(&pool, 1).await;
    for name in ["1", "2"] {
        put(&pool, &outbox, named(name).key("k")).await;
    }
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let dead = Settlement {
        dead: vec![buried(
            rows.first().expect("two rows").id,
            DeadCause::Rejected,
        )],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, dead).await, [0]);
    let seen = due(&pool, everything([0])).await;
    assert_eq!(names(&seen), ["2"]);
    let before = Db::survey(pool.clone()).await.expect("the survey runs");
    let admin = crate::Admin::new(pool.clone());
    admin
        .redrive(crate::Filter::all())
        .await
        .expect("the letter is redriven");
    let after = Db::survey(pool.clone()).await.expect("the survey runs");
    assert_ne!(before.rewinds, after.rewinds);
    let record = async |rewinds| {
        let batch = InFlight {
            held: lane,
            batch: 1,
            rewinds,
            ids: seen.iter().map(|row| row.id).collect(),
        };
        let recorded = Db::record(pool.clone(), LONG, vec![batch]).await;
        recorded.expect("recording runs").lanes
    };
    assert_eq!(record(0).await, [(0, 1)], "held, but rows were put back");
    Db::release(pool.clone(), vec![lane], true)
        .await
        .expect("the lane is released");
    let grants = take(&pool, LONG, 1).await;
    let grant = grants.first().expect("the lane is free");
    assert_eq!(
        (grant.charged, grant.rewinds),
        (0, 1),
        "nothing was in flight"
    );
}

pub(super) async fn the_survey_says_whether_anything_waits<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    let survey = async || Db::survey(pool.clone()).await.expect("the survey runs");
    put(&pool, &outbox, named("a").key("k")).await;
    let before = survey().await;
    assert!(!before.held_back && !before.due && before.paused.is_empty());
    assert!(before.ids_in_order);
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let row = rows.first().expect("a row");
    let wait = Settlement {
        failed: vec![later(row)],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, wait).await, [0]);
    assert!(survey().await.held_back);
}

pub(super) async fn a_failure_is_added_to_the_history<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    put(&pool, &outbox, named("a")).await;
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let row = rows.first().expect("a row");
    assert_eq!(row.failures, None);
    let mut failed = later(row);
    failed.delay = Duration::ZERO;
    let settlement = Settlement {
        failed: vec![failed],
        ..nothing(lane)
    };
    assert_eq!(settle(&pool, settlement).await, [0]);
    let rows = due(&pool, everything([0])).await;
    let stored = rows.first().and_then(|row| row.failures.clone());
    let history: Vec<(u32, i64, String)> =
        serde_json::from_str(&stored.expect("there is a history")).expect("it is JSON");
    let (attempt, micros, reason) = history.first().expect("one failure");
    assert_eq!(
        (*attempt, reason.as_str(), history.len()),
        (1, "not now", 1)
    );
    assert!(*micros > 1_700_000_000_000_000, "the database's clock");

    // A takeover adds its own.
    let batch = InFlight {
        held: lane,
        batch: 1,
        rewinds: 0,
        ids: vec![row.id],
    };
    Db::record(pool.clone(), LONG, vec![batch])
        .await
        .expect("the batch is recorded");
    Db::release(pool.clone(), vec![lane], true)
        .await
        .expect("the lane is released");
    own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let stored = rows.first().and_then(|row| row.failures.clone());
    let history: Vec<(u32, i64, String)> =
        serde_json::from_str(&stored.expect("there is a history")).expect("it is JSON");
    assert_eq!(history.len(), 2);
    assert_eq!(history.last().map(|failure| failure.0), Some(2));
}

pub(super) async fn what_is_kept_is_forgotten_by_its_age<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for name in ["a", "b", "c"] {
        put(&pool, &outbox, named(name)).await;
    }
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let (last, kept) = rows.split_last().expect("three rows");
    for (keep, acked) in [
        (true, kept.iter().map(|row| row.id).collect()),
        (false, vec![last.id]),
    ] {
        let settlement = Settlement {
            acked,
            ..nothing(lane)
        };
        record(&pool, &settlement).await;
        for _ in 0..2 {
            let done = Db::settle(pool.clone(), keep, vec![settlement.clone()]).await;
            assert_eq!(done.expect("the settlement runs"), [0]);
        }
    }
    assert!(due(&pool, everything([0])).await.is_empty());
    let forget = async |age, limit| {
        let gone = Db::forget(pool.clone(), age, limit).await;
        gone.expect("forgetting runs")
    };
    assert_eq!(forget(LONG, 10).await, 0, "they are young");
    assert_eq!(forget(Duration::ZERO, 1).await, 1);
    assert_eq!(forget(Duration::ZERO, 10).await, 1);
}

pub(super) async fn caps_cut_what_is_claimed<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 2).await;
    for n in 0..40 {
        let event = Event::new("t")
            .key(n.to_string())
            .bytes("text/plain", vec![b'x'; 100]);
        put(&pool, &outbox, event).await;
    }
    let lanes = |rows: &[Candidate]| rows.iter().map(|row| row.lane).collect::<Vec<_>>();
    let per_lane = Ask {
        batch: 3,
        ..everything([1, 0])
    };
    assert_eq!(
        lanes(&due(&pool, per_lane.clone()).await),
        [1, 1, 1, 0, 0, 0],
        "in the order asked for"
    );
    let total = Ask {
        total: 4,
        ..per_lane.clone()
    };
    assert_eq!(due(&pool, total).await.len(), 4);
    let bytes = Ask {
        bytes: 250,
        ..per_lane.clone()
    };
    assert_eq!(
        due(&pool, bytes).await.len(),
        3,
        "the one that crosses the cap is the last"
    );
    for (held_back, large) in [(true, true), (false, true), (false, false)] {
        let mixed = Ask {
            held_back,
            large,
            bytes: 250,
            total: 5,
            ..per_lane.clone()
        };
        assert_eq!(due(&pool, mixed).await.len(), 3, "however it is counted");
    }
    let tiny = Ask {
        bytes: 1,
        ..per_lane
    };
    assert_eq!(due(&pool, tiny).await.len(), 1, "one always fits");
    assert_eq!(due(&pool, everything([])).await.len(), 0);
}

pub(super) async fn topics_are_passed_over<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for (name, topic) in [("a", "down"), ("b", "up"), ("c", "down"), ("d", "up")] {
        put(&pool, &outbox, named(name).topic(topic)).await;
    }
    let ask = Ask {
        batch: 1,
        skip_topics: vec!["down".to_owned(), "it's".to_owned()],
        ..everything([0])
    };
    assert_eq!(
        names(&due(&pool, ask).await),
        ["b"],
        "what is passed over does not fill the batch"
    );
}

pub(super) async fn settling_twice_charges_once<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    put(&pool, &outbox, named("a")).await;
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let mut failed = later(rows.first().expect("a row"));
    failed.delay = Duration::ZERO;
    let settlement = Settlement {
        failed: vec![failed],
        ..nothing(lane)
    };
    record(&pool, &settlement).await;
    for _ in 0..3 {
        assert_eq!(settle_recorded(&pool, settlement.clone()).await, [0]);
    }
    let rows = due(&pool, everything([0])).await;
    assert_eq!(rows.first().map(|row| row.attempts), Some(1));
}

/// A13: the answer to a settlement was lost, and before it is repeated an operator puts back what it wrote down.
pub(super) async fn a_settlement_that_is_repeated_undoes_nothing_that_came_after_it<
    Db: OutboxDb,
>(
    pool: Pool<Db>,
) {
    let outbox = migrated(&pool, 1).await;
    for name in ["dead", "delivered", "failed"] {
        put(&pool, &outbox, named(name)).await;
    }
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let [dead, delivered, failed] = rows.as_slice() else {
        unreachable!("three rows");
    };
    let settlement = Settlement {
        acked: vec![delivered.id],
        failed: vec![later(failed)],
        dead: vec![buried(dead.id, DeadCause::Rejected)],
        ..nothing(lane)
    };
    record(&pool, &settlement).await;
    let again = async || {
        let settled = Db::settle(pool.clone(), true, vec![settlement.clone()]).await;
        assert_eq!(settled.expect("the settlement runs"), [0], "it is held");
    };
    again().await;
    let admin = crate::Admin::new(pool.clone());
    let all = crate::Filter::all;
    admin.redrive(all()).await.expect("the letter is redriven");
    admin
        .replay(all())
        .await
        .expect("what was kept is replayed");
    for _ in 0..2 {
        assert_eq!(
            names(&due(&pool, everything([0])).await),
            ["dead", "delivered"]
        );
        again().await;
    }
    let lag = admin.lag().await.expect("lag is read");
    assert_eq!((lag.pending, lag.dead), (3, 0));

    // What was given up without being published is told apart in the same way.
    let given_up = Settlement {
        dead: vec![buried(dead.id, DeadCause::NoSink)],
        ..nothing(lane)
    };
    let batch = InFlight {
        held: lane,
        batch: 1,
        rewinds: 2,
        ids: Vec::new(),
    };
    Db::record(pool.clone(), LONG, vec![batch])
        .await
        .expect("the batch is recorded");
    assert_eq!(settle_recorded(&pool, given_up.clone()).await, [0]);
    admin.redrive(all()).await.expect("the letter is redriven");
    assert_eq!(settle_recorded(&pool, given_up).await, [0]);
    assert_eq!(
        names(&due(&pool, everything([0])).await),
        ["dead", "delivered"]
    );
}

/// A copy of a settlement, or of a record, that comes when the lane's next batch is recorded: it was long under way.
pub(super) async fn a_settlement_is_of_its_own_batch_only<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for name in ["dead", "first", "second"] {
        put(&pool, &outbox, named(name)).await;
    }
    let lane = own(&pool).await;
    let rows = due(&pool, everything([0])).await;
    let [dead, first, second] = rows.as_slice() else {
        unreachable!("three rows");
    };
    let one = Settlement {
        acked: vec![first.id],
        dead: vec![buried(dead.id, DeadCause::Rejected)],
        ..nothing(lane)
    };
    let two = Settlement {
        batch: 2,
        acked: vec![second.id],
        ..nothing(lane)
    };
    let settle = async |keep, settlement: &Settlement| {
        let settled = Db::settle(pool.clone(), keep, vec![settlement.clone()]).await;
        settled.expect("the settlement runs")
    };
    let batch = |batch, rewinds, id| InFlight {
        held: lane,
        batch,
        rewinds,
        ids: vec![id],
    };
    let record = async |batch| {
        let recorded = Db::record(pool.clone(), LONG, vec![batch]).await;
        recorded.expect("recording runs");
    };
    let in_flight = async || {
        let lanes = crate::Admin::new(pool.clone()).lanes().await;
        let lanes = lanes.expect("lanes are told");
        lanes.first().expect("a lane").in_flight
    };
    record(batch(1, 0, first.id)).await;
    assert_eq!(settle(true, &one).await, [0]);
    assert_eq!(in_flight().await, 0);
    let admin = crate::Admin::new(pool.clone());
    let all = crate::Filter::all;
    admin.redrive(all()).await.expect("the letter is redriven");
    admin
        .replay(all())
        .await
        .expect("what was kept is put back");

    record(batch(2, 2, second.id)).await;
    for keep in [true, false] {
        assert!(settle(keep, &one).await.is_empty(), "another is recorded");
    }
    let plain = Settlement {
        dead: Vec::new(),
        ..one
    };
    assert!(settle(false, &plain).await.is_empty());
    // The second of these would be cleared, as rows were put back since.
    for rewinds in [2, 0] {
        record(batch(1, rewinds, first.id)).await;
    }
    assert_eq!(in_flight().await, 1);
    assert_eq!(
        names(&due(&pool, everything([0])).await),
        ["dead", "first", "second"],
        "nothing was written"
    );
    assert_eq!(settle(false, &two).await, [0]);
    assert_eq!(
        names(&due(&pool, everything([0])).await),
        ["dead", "first"],
        "and this was, once"
    );
    assert_eq!(settle(false, &two).await, [0], "its answer was lost");
    assert_eq!(in_flight().await, 0);
}
