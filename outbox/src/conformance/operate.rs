use std::time::Duration;

use sqlx::Pool;

use super::{
    LONG, dead::buried, due, everything, held, migrated, named, nothing, put, settle, take,
};
use crate::{
    Admin, DeadCause, ErrorKind, Filter, HealthReason, HealthStatus, Precision, StallCause,
    Thresholds, Verdict, Wait,
    store::{Failed, InFlight, Note, OutboxDb, Settlement},
};

pub(super) async fn lag_counts_and_ages<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 4).await;
    let admin = Admin::new(pool.clone());
    let empty = admin.lag().await.expect("lag is read");
    assert_eq!((empty.pending, empty.dead, empty.oldest_age), (0, 0, None));
    for n in 0..5 {
        let topic = if n < 3 { "a" } else { "b" };
        put(&pool, &outbox, named(&n.to_string()).topic(topic)).await;
    }
    let lag = admin.lag().await.expect("lag is read");
    assert_eq!(
        (lag.pending, lag.precision, lag.dead, lag.later),
        (5, Precision::Exact, 0, 0)
    );
    assert!(lag.oldest_age.is_some_and(|age| age < LONG));
    let capped = Db::lag(pool.clone(), 3, LONG).await.expect("lag is read");
    assert_eq!(capped.pending, 3);

    let topics = admin.lag_by_topic().await.expect("lag is read");
    let told: Vec<_> = topics
        .iter()
        .map(|one| (one.topic.as_str(), one.pending, one.precision, one.retrying))
        .collect();
    assert_eq!(
        told,
        [("a", 3, Precision::Exact, 0), ("b", 2, Precision::Exact, 0)]
    );
    assert!(topics.iter().all(|one| one.oldest_age < LONG));
    let looked = Db::topics(pool.clone(), 1).await.expect("topics are read");
    assert!(looked.iter().all(|row| row.deepest == 1));
}

pub(super) async fn each_message_says_what_it_waits_for<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for (name, topic, key) in [
        ("failed", "t", "k"),
        ("behind", "t", "k"),
        ("flying", "t", "o"),
        ("paused", "hooks.a", "p"),
        ("due", "t", "q"),
    ] {
        put(&pool, &outbox, named(name).topic(topic).key(key)).await;
    }
    let admin = Admin::new(pool.clone());
    admin.pause("hooks.*").await.expect("topics are paused");
    let lane = held(
        *take(&pool, LONG, 1)
            .await
            .first()
            .expect("the lane is free"),
    );
    let rows = due(&pool, everything([0])).await;
    let [failed, _, flying, ..] = rows.as_slice() else {
        unreachable!("five messages are due");
    };
    let settlement = Settlement {
        failed: vec![Failed {
            id: failed.id,
            attempts: 0,
            delay: LONG,
            suspect: false,
            holds: true,
            reason: "not now".to_owned(),
            note: Note {
                before: "[[1,".to_owned(),
                after: ",\"not now\"]]".to_owned(),
            },
        }],
        ..nothing(lane)
    };
    settle(&pool, settlement).await;
    let batch = InFlight {
        held: lane,
        batch: 1,
        rewinds: 0,
        ids: vec![flying.id],
    };
    Db::record(pool.clone(), LONG, vec![batch])
        .await
        .expect("the batch is recorded");

    let seen = admin.peek(Filter::all(), 10).await.expect("peeked");
    let told: Vec<_> = seen
        .iter()
        .filter_map(|one| Some((one.message().subject()?, one.wait())))
        .collect();
    let [(first, Wait::Retry { left }), rest @ ..] = told.as_slice() else {
        unreachable!("the first waits for its retry: {told:?}");
    };
    assert!(*first == "failed" && *left <= LONG && *left > LONG / 2);
    assert_eq!(
        rest,
        [
            ("behind", Wait::BehindKey),
            ("flying", Wait::InFlight),
            ("paused", Wait::Paused),
            ("due", Wait::Due),
        ]
    );
    let head = seen.first().expect("five messages");
    assert_eq!(
        (head.last_reason(), head.message().attempt(), head.place()),
        (Some("not now"), 2, failed.id)
    );
    for (filter, limit, expected) in [
        (Filter::topic("hooks.*"), 10, &["paused"][..]),
        (Filter::key("k"), 10, &["failed", "behind"]),
        (Filter::key("k"), 1, &["failed"]),
        (Filter::id(flying.message.id()), 10, &["flying"]),
        (Filter::cause(DeadCause::Rejected), 10, &[]),
    ] {
        let seen = admin.peek(filter, limit).await.expect("peeked");
        let seen: Vec<_> = seen
            .iter()
            .filter_map(|one| one.message().subject())
            .collect();
        assert_eq!(seen, expected);
    }
}

pub(super) async fn nobody_waits_for_what_holds_nothing_back<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    for name in ["failed", "next"] {
        put(&pool, &outbox, named(name).key("k")).await;
    }
    let lane = held(
        *take(&pool, LONG, 1)
            .await
            .first()
            .expect("the lane is free"),
    );
    let rows = due(&pool, everything([0])).await;
    let failed = rows.first().expect("two messages are due");
    let settlement = Settlement {
        failed: vec![Failed {
            id: failed.id,
            attempts: 0,
            delay: LONG,
            suspect: false,
            holds: false,
            reason: "not now".to_owned(),
            note: Note {
                before: "[[1,".to_owned(),
                after: ",\"not now\"]]".to_owned(),
            },
        }],
        ..nothing(lane)
    };
    settle(&pool, settlement).await;
    let seen = Admin::new(pool).peek(Filter::key("k"), 10).await;
    let seen = seen.expect("peeked");
    let waits: Vec<_> = seen.iter().map(crate::Pending::wait).collect();
    assert!(
        matches!(waits.as_slice(), [Wait::Retry { .. }, Wait::Due]),
        "{waits:?}"
    );
}

pub(super) async fn lanes_are_told_with_a_verdict<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 2).await;
    let admin = Admin::new(pool.clone()).stalled_after(Duration::ZERO);
    let verdicts = async || -> Vec<Verdict> {
        let lanes = admin.lanes().await.expect("lanes are read");
        lanes.iter().map(|lane| lane.verdict).collect()
    };
    assert_eq!(verdicts().await, [Verdict::Idle, Verdict::Idle]);
    // One message in each of two lanes, whichever keys that takes.
    let mut seen = [false; 2];
    for n in 0.. {
        let key = format!("k{n}");
        let lane = (crate::lane::key_hash(key.as_bytes()) % 2).unsigned_abs() as usize;
        if let Some(slot) = seen.get_mut(lane)
            && !std::mem::replace(slot, true)
        {
            put(&pool, &outbox, named("x").key(key)).await;
        }
        if seen == [true; 2] {
            break;
        }
    }
    assert_eq!(verdicts().await, [Verdict::Unowned, Verdict::Unowned]);
    let lane = held(*take(&pool, LONG, 1).await.first().expect("a lane is free"));
    assert!(matches!(
        verdicts().await.as_slice(),
        [
            Verdict::Stalled {
                why: StallCause::NotClaimed,
                ..
            },
            Verdict::Unowned
        ]
    ));
    let calm = Admin::new(pool.clone())
        .lanes()
        .await
        .expect("lanes are read");
    let first = calm.first().expect("two lanes");
    assert_eq!(
        (first.verdict, first.pending, first.in_flight, first.epoch),
        (Verdict::Flowing, 1, 0, 1)
    );
    assert!(first.lease_left.is_some_and(|left| left <= LONG));
    assert!(first.owner.is_some() && first.oldest_age.is_some_and(|age| age < LONG));
    let ids: Vec<i64> = due(&pool, everything([0]))
        .await
        .iter()
        .map(|row| row.id)
        .collect();
    let batch = InFlight {
        held: lane,
        batch: 1,
        rewinds: 0,
        ids,
    };
    Db::record(pool.clone(), LONG, vec![batch])
        .await
        .expect("the batch is recorded");
    assert!(matches!(
        verdicts().await.first(),
        Some(Verdict::Stalled {
            why: StallCause::InFlight,
            ..
        })
    ));
}

pub(super) async fn health_has_reasons<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = migrated(&pool, 1).await;
    let admin = Admin::new(pool.clone());
    let health = async || {
        admin
            .health(&Thresholds::default())
            .await
            .expect("health is read")
    };
    assert_eq!(health().await.status, HealthStatus::Ok);
    for name in ["a", "b"] {
        put(&pool, &outbox, named(name)).await;
    }
    let alone = health().await;
    assert_eq!(
        (alone.status, alone.reasons),
        (HealthStatus::Failing, vec![HealthReason::NoRelay])
    );
    Db::heartbeat(pool.clone(), uuid::Uuid::now_v7(), LONG)
        .await
        .expect("the heart beats");
    let free = health().await;
    assert_eq!(
        (free.status, free.reasons),
        (
            HealthStatus::Degraded,
            vec![HealthReason::UnownedLanes { lanes: 1 }]
        )
    );
    let lane = held(
        *take(&pool, LONG, 1)
            .await
            .first()
            .expect("the lane is free"),
    );
    assert_eq!(health().await.status, HealthStatus::Ok);
    let rows = due(&pool, everything([0])).await;
    let row = rows.first().expect("two are due");
    let settlement = Settlement {
        dead: vec![buried(row.id, DeadCause::Exhausted)],
        ..nothing(lane)
    };
    settle(&pool, settlement).await;
    let ill = health().await;
    assert!(matches!(
        ill.reasons.as_slice(),
        [HealthReason::DeadLetters { letters: 1, .. }]
    ));
    let lenient = Thresholds::default().dead(LONG, 1);
    let well = admin.health(&lenient).await.expect("health is read");
    assert_eq!(well.status, HealthStatus::Ok);
}

pub(super) async fn pauses_are_kept_and_audited<Db: OutboxDb>(pool: Pool<Db>) {
    migrated(&pool, 1).await;
    let ada = Admin::new(pool.clone()).actor("ada");
    let bob = Admin::new(pool.clone()).actor("bob");
    assert!(ada.pause("hooks.*").await.expect("paused"));
    assert!(!bob.pause("hooks.*").await.expect("paused"), "it was");
    assert!(bob.pause("a").await.expect("paused"));
    let paused = ada.paused().await.expect("pauses are read");
    let told: Vec<_> = paused
        .iter()
        .map(|one| (one.pattern.as_str(), one.actor.as_str()))
        .collect();
    assert_eq!(told, [("a", "bob"), ("hooks.*", "ada")]);
    assert!(
        !bob.resume("hooks.a").await.expect("resumed"),
        "another pattern"
    );
    assert!(bob.resume("hooks.*").await.expect("resumed"));
    assert_eq!(ada.lag().await.expect("lag is read").paused, 1);
    let refused = ada.pause("a*b").await.expect_err("no pattern");
    assert_eq!(refused.kind(), ErrorKind::Pattern);
    let audit = ada.audit(2).await.expect("the audit is read");
    let told: Vec<_> = audit
        .iter()
        .map(|one| (one.actor.as_str(), one.action.as_str(), one.affected))
        .collect();
    assert_eq!(told, [("bob", "resume", 1), ("bob", "pause", 1)]);
    let detail = audit.first().map(|one| one.detail.replace(' ', ""));
    assert_eq!(detail.as_deref(), Some(r#"{"pattern":"hooks.*"}"#));
}

pub(super) async fn nothing_is_found_where_all_is_well<Db: OutboxDb>(pool: Pool<Db>) {
    let admin = Admin::new(pool.clone());
    let bare = admin.verify().await.expect("verified");
    assert_eq!(
        bare.iter().map(|one| one.check).collect::<Vec<_>>(),
        ["schema"]
    );
    let outbox = migrated(&pool, 4).await;
    for n in 0..20 {
        put(&pool, &outbox, named("x").key(n.to_string())).await;
    }
    assert_eq!(admin.verify().await.expect("verified"), []);
}
