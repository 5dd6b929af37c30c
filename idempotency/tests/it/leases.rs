//! The Leased protocol on every store: the suite, then attempts that are paused, killed and taken over.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mainstay_idempotency::leased::{
    Claimed, Completer, Lease, LeaseError, LeasedDb, LeasedStore, Leases, MemoryStore, Remote,
    Retention, Taken, Work,
};
use mainstay_idempotency::store::Claim;
use mainstay_idempotency::{
    Age, ErrorKind, Fingerprint, IdempotencyDb, Key, Recorded, Scope, conformance, derived_key,
};
use sqlx::Pool;
use tokio::sync::{Notify, Semaphore};
use uuid::{NoContext, Timestamp, Uuid};

use crate::db::{self, TestDb, on_each};

on_each!(
    passes_the_suite_of_leases,
    a_finished_step_is_not_run_again_by_the_next_attempt,
    an_attempt_that_was_taken_over_has_no_effect,
    no_two_attempts_ever_hold_one_token,
    an_attempt_paused_within_a_step_is_waited_for_and_its_step_counts,
    a_step_that_fails_or_panics_or_keeps_its_transaction_leaves_nothing,
    a_step_whose_caller_left_is_done_all_the_same,
    a_step_repeated_by_its_own_attempt_is_done_once,
    a_step_that_takes_too_long_is_rolled_back,
    the_completer_takes_up_what_was_left_behind
);

fn claim_of(key: &str) -> Claim {
    Claim {
        scope: Scope::new("t", "", "leases"),
        key: Key::new(key).unwrap(),
        fingerprint: Fingerprint::new("POST", "/", "body"),
    }
}

fn answer() -> Recorded {
    Recorded {
        status: 201,
        headers: http::HeaderMap::new(),
        body: Bytes::from_static(b"done"),
    }
}

async fn run<S: LeasedStore>(leases: &Leases<S>, key: &str) -> Lease<S> {
    let work = Work {
        handler: "pay".to_owned(),
        input: Bytes::from_static(b"input"),
    };
    match leases.claim(&claim_of(key), &work).await.unwrap() {
        Claimed::Run(lease) => lease,
        other => panic!("{key} can be run: {other:?}"),
    }
}

/// As if the holder had been frozen until its lease was over, or the clock set forward.
async fn expire<D: TestDb>(pool: &Pool<D>) {
    let mut conn = pool.acquire().await.unwrap();
    D::raw(
        &mut conn,
        "update mainstay_lease set lease_until = created_at",
    )
    .await
    .unwrap();
}

async fn step<D: TestDb + LeasedDb>(
    lease: &mut Lease<Pool<D>>,
    name: &'static str,
) -> Result<u32, LeaseError<sqlx::Error>> {
    lease
        .step(name, move |mut tx, _| async move {
            D::effect(&mut tx, name).await?;
            Ok(17)
        })
        .await
}

async fn passes_the_suite_of_leases<D: TestDb + LeasedDb>(pool: Pool<D>) {
    conformance::leased::all(&pool).await.unwrap();
    conformance::leased::steps(&pool).await.unwrap();
}

#[tokio::test]
async fn memory_passes_the_suite_of_leases() {
    conformance::leased::all(&MemoryStore::new()).await.unwrap();
}

async fn a_finished_step_is_not_run_again_by_the_next_attempt<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let leases = Leases::new(pool.clone());
    let mut first = run(&leases, "k").await;
    assert_eq!(step(&mut first, "one").await.unwrap(), 17);
    drop(first); // killed
    let again = leases.claim(&claim_of("k"), &Work::default()).await;
    assert!(matches!(again, Ok(Claimed::InFlight { .. })), "{again:?}");
    expire(&pool).await;
    let mut second = run(&leases, "k").await;
    for _ in 0..2 {
        assert_eq!(step(&mut second, "one").await.unwrap(), 17, "as it was");
        assert_eq!(step(&mut second, "two").await.unwrap(), 17);
    }
    second.complete(answer()).await.unwrap();
    let replay = leases.claim(&claim_of("k"), &Work::default()).await;
    assert!(
        matches!(replay, Ok(Claimed::Replay(ref found)) if *found == answer()),
        "{replay:?}"
    );
    for name in ["one", "two"] {
        assert_eq!(D::effects(&pool, name).await, 1, "{name}");
    }
}

async fn an_attempt_that_was_taken_over_has_no_effect<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let leases = Leases::new(pool.clone());
    let mut paused = run(&leases, "k").await;
    expire(&pool).await;
    let mut other = run(&leases, "k").await;
    // It wakes up before the other one has written anything.
    let fenced = step(&mut paused, "one").await;
    assert!(matches!(fenced, Err(LeaseError::Fenced)), "{fenced:?}");
    assert_eq!(D::effects(&pool, "one").await, 0);
    let called = AtomicUsize::new(0);
    let fenced = paused
        .call("remote", Remote::HonoursKey, async |_| {
            called.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(())
        })
        .await;
    assert!(matches!(fenced, Err(LeaseError::Fenced)), "{fenced:?}");
    assert_eq!(called.into_inner(), 0, "asked before, not after");
    step(&mut other, "one").await.unwrap();
    let fenced = paused.complete(answer()).await;
    assert!(matches!(fenced, Err(LeaseError::Fenced)), "{fenced:?}");
    other.complete(answer()).await.unwrap();
    assert_eq!(D::effects(&pool, "one").await, 1);
}

/// Leases that are over at once, and claims that chase each other: each must learn its own token, not its successor's.
async fn no_two_attempts_ever_hold_one_token<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let claiming = (0..4).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let (claim, work, mut tokens) = (claim_of("k"), Work::default(), Vec::new());
            for _ in 0..50 {
                let taken = pool.claim(&claim, &work, Duration::ZERO).await;
                if let Ok(Taken::Ours { token, .. }) = taken {
                    tokens.push(token.number);
                }
            }
            tokens
        })
    });
    let tokens = futures_util::future::try_join_all(claiming).await.unwrap();
    let tokens = tokens.concat();
    let distinct: std::collections::HashSet<_> = tokens.iter().collect();
    assert!(tokens.len() > 1, "somebody claimed");
    assert_eq!(distinct.len(), tokens.len(), "{tokens:?}");
}

async fn an_attempt_paused_within_a_step_is_waited_for_and_its_step_counts<D: TestDb + LeasedDb>(
    pool: Pool<D>,
) {
    let leases = Leases::new(pool.clone());
    let mut paused = run(&leases, "k").await;
    let (entered, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    expire(&pool).await;
    let pausing = tokio::spawn({
        let (entered, gate) = (Arc::clone(&entered), Arc::clone(&gate));
        async move {
            let done = paused
                .step("one", move |mut tx, _| async move {
                    D::effect(&mut tx, "one").await?;
                    entered.notify_one();
                    gate.acquire().await.unwrap().forget();
                    Ok::<_, sqlx::Error>(())
                })
                .await;
            (paused, done)
        }
    });
    entered.notified().await;
    for _ in 0..3 {
        match leases.claim(&claim_of("k"), &Work::default()).await {
            Ok(found) => assert!(matches!(found, Claimed::InFlight { .. }), "{found:?}"),
            Err(busy) => assert_eq!((D::NAME, busy.kind()), ("SQLite", ErrorKind::Busy)),
        }
    }
    gate.add_permits(1);
    let (paused, done) = pausing.await.unwrap();
    done.unwrap();
    drop(paused);
    expire(&pool).await;
    step(&mut run(&leases, "k").await, "two").await.unwrap();
    expire(&pool).await;
    let mut last = run(&leases, "k").await;
    let remembered: Result<(), LeaseError<Infallible>> = last
        .step("one", |_, _| async { panic!("done already") })
        .await;
    remembered.unwrap();
    assert_eq!(D::effects(&pool, "one").await, 1);
}

async fn a_step_that_fails_or_panics_or_keeps_its_transaction_leaves_nothing<
    D: TestDb + LeasedDb,
>(
    pool: Pool<D>,
) {
    let leases = Leases::new(pool.clone());
    let mut lease = run(&leases, "k").await;
    let failed: Result<(), _> = lease
        .step("one", |mut tx, _| async move {
            D::effect(&mut tx, "one").await.unwrap();
            Err("no")
        })
        .await;
    assert!(matches!(failed, Err(LeaseError::Step("no"))), "{failed:?}");
    let too_large = lease
        .step("one", |mut tx, _| async move {
            D::effect(&mut tx, "one").await.unwrap();
            Ok::<_, Infallible>("x".repeat(64 * 1024))
        })
        .await;
    assert!(matches!(too_large, Err(LeaseError::NotKept(_))));
    let (keep, kept) = std::sync::mpsc::channel();
    let ended = lease
        .step("one", move |mut tx, _| async move {
            D::effect(&mut tx, "one").await.unwrap();
            keep.send(tx).unwrap();
            Ok::<_, Infallible>(())
        })
        .await;
    assert!(
        matches!(&ended, Err(LeaseError::Store(e)) if e.kind() == ErrorKind::TransactionEnded),
        "{ended:?}"
    );
    drop((lease, kept));
    assert_eq!(D::effects(&pool, "one").await, 0);
}

async fn a_step_whose_caller_left_is_done_all_the_same<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let leases = Leases::new(pool.clone());
    let mut lease = run(&leases, "k").await;
    let (entered, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    {
        let (entering, waiting) = (Arc::clone(&entered), Arc::clone(&gate));
        let mut stepping = std::pin::pin!(lease.step("one", move |mut tx, _| async move {
            D::effect(&mut tx, "one").await?;
            entering.notify_one();
            waiting.acquire().await.unwrap().forget();
            Ok::<_, sqlx::Error>(())
        }));
        tokio::select! {
            _ = &mut stepping => panic!("the gate is shut"),
            () = entered.notified() => {}
        }
    }
    gate.add_permits(1);
    drop(lease);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while D::effects(&pool, "one").await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "it goes on");
        tokio::task::yield_now().await;
    }
    expire(&pool).await;
    let mut next = run(&leases, "k").await;
    let remembered: Result<(), LeaseError<Infallible>> = next
        .step("one", |_, _| async { panic!("done already") })
        .await;
    remembered.unwrap();
}

/// As after a timeout of the handler's own, or a commit whose answer was lost: the attempt's memory does not have it.
async fn a_step_repeated_by_its_own_attempt_is_done_once<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let leases = Leases::new(pool.clone());
    let mut lease = run(&leases, "k").await;
    {
        let mut stepping = std::pin::pin!(step(&mut lease, "one"));
        assert!(futures_util::poll!(stepping.as_mut()).is_pending());
    }
    // Whether that one goes first or waits for this one: nothing else can be told of the two.
    assert_eq!(step(&mut lease, "one").await.unwrap(), 17);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while D::effects(&pool, "one").await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "it goes on");
        tokio::task::yield_now().await;
    }
    let remembered: Result<u32, LeaseError<Infallible>> = lease
        .step("one", |_, _| async { panic!("done already") })
        .await;
    assert_eq!(remembered.unwrap(), 17);
    step(&mut lease, "two").await.unwrap();
    lease.complete(answer()).await.unwrap();
    for name in ["one", "two"] {
        assert_eq!(D::effects(&pool, name).await, 1, "{name}");
    }
}

async fn the_completer_takes_up_what_was_left_behind<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let leases = Leases::new(pool.clone());
    let attempts = Arc::new(AtomicUsize::new(0));
    let completer = Completer::new(leases.clone()).on("pay", {
        let attempts = Arc::clone(&attempts);
        move |mut lease: Lease<Pool<D>>, input| {
            let attempts = Arc::clone(&attempts);
            async move {
                assert_eq!(input, "input");
                step(&mut lease, "one").await?;
                if attempts.fetch_add(1, Ordering::SeqCst) == 0 {
                    return Err("the remote is down".into());
                }
                step(&mut lease, "two").await?;
                lease.complete(answer()).await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            }
        }
    });
    let mut first = run(&leases, "k").await;
    step(&mut first, "one").await.unwrap();
    assert_eq!(
        completer.run_once().await.unwrap(),
        0,
        "somebody is at work"
    );
    drop(first);
    for expected in [1, 1, 0] {
        expire(&pool).await;
        assert_eq!(completer.run_once().await.unwrap(), expected);
    }
    let replay = leases.claim(&claim_of("k"), &Work::default()).await;
    assert!(matches!(replay, Ok(Claimed::Replay(_))), "{replay:?}");
    for name in ["one", "two"] {
        assert_eq!(D::effects(&pool, name).await, 1, "{name}");
    }
}

/// A process that is stopped in the middle of a step would hold the row, and with it the key, for as long as it is.
async fn a_step_that_takes_too_long_is_rolled_back<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let leases = Leases::new(pool.clone()).step_time_max(Duration::from_millis(200));
    let mut lease = run(&leases, "k").await;
    let endless: Result<(), _> = lease
        .step("one", |mut tx, _| async move {
            D::effect(&mut tx, "one").await?;
            std::future::pending::<sqlx::Result<()>>().await
        })
        .await;
    assert!(matches!(endless, Err(LeaseError::TimedOut)), "{endless:?}");
    assert_eq!(D::effects(&pool, "one").await, 0);
    step(&mut lease, "one").await.unwrap();
    lease.complete(answer()).await.unwrap();
    assert_eq!(D::effects(&pool, "one").await, 1);
}

async fn a_frozen_step_is_ended_by_the_server<D: TestDb + LeasedDb>(pool: Pool<D>) {
    let leases = Leases::new(pool.clone()).lease_time(Duration::from_secs(1));
    let mut frozen = run(&leases, "k").await;
    let thaw = Arc::new(Semaphore::new(0));
    let step_frozen = tokio::spawn({
        let thaw = Arc::clone(&thaw);
        async move {
            let done = frozen
                .step("one", move |mut tx, _| async move {
                    D::effect(&mut tx, "one").await?;
                    thaw.acquire().await.unwrap().forget();
                    Ok::<_, sqlx::Error>(())
                })
                .await;
            (frozen, done)
        }
    });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut other = loop {
        match leases.claim(&claim_of("k"), &Work::default()).await {
            Ok(Claimed::Run(lease)) => break lease,
            found => assert!(matches!(found, Ok(Claimed::InFlight { .. })), "{found:?}"),
        }
        assert!(tokio::time::Instant::now() < deadline, "the server ends it");
        tokio::task::yield_now().await;
    };
    step(&mut other, "one").await.unwrap();
    thaw.add_permits(1);
    let (_frozen, done) = step_frozen.await.unwrap();
    assert!(matches!(done, Err(LeaseError::Store(_))), "{done:?}");
    other.complete(answer()).await.unwrap();
    assert_eq!(D::effects(&pool, "one").await, 1);
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_POSTGRES_URL; tests/run provides it"]
async fn a_frozen_step_is_ended_by_the_server_on_postgres() {
    db::on::<sqlx::Postgres, _>(a_frozen_step_is_ended_by_the_server).await;
}

#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn a_frozen_step_is_ended_by_the_server_on_mariadb() {
    db::on::<sqlx::MySql, _>(a_frozen_step_is_ended_by_the_server).await;
}

/// A DELETE that meets the step's row would wait for as long as the step takes.
#[tokio::test]
#[ignore = "needs MAINSTAY_TEST_MARIADB_URL; tests/run provides it"]
async fn the_reaper_waits_for_no_step_on_mariadb() {
    db::on::<sqlx::MySql, _>(|pool| async move {
        let leases = Leases::new(pool.clone());
        let stepping = run(&leases, "stepping").await;
        run(&leases, "done").await.complete(answer()).await.unwrap();
        expire(&pool).await;
        let mut tx = sqlx::MySql::begin(&pool).await.unwrap();
        let time = Duration::from_secs(30);
        let guard = sqlx::MySql::lease_guard(&mut tx, stepping.holder(), time);
        assert!(guard.await.unwrap().is_some());
        let all = Retention {
            ended: Duration::ZERO,
            unfinished: Duration::ZERO,
        };
        let reaped = tokio::time::timeout(Duration::from_secs(10), pool.reap(all, 1000)).await;
        assert_eq!(reaped.unwrap().unwrap(), 1, "what is done goes");
        sqlx::MySql::rollback(tx).await;
        assert_eq!(pool.reap(all, 1000).await.unwrap(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_cut_off_is_made_again_only_where_that_is_safe() {
    let leases = Leases::new(MemoryStore::new());
    for (remote, key) in [(Remote::HonoursKey, "honours"), (Remote::ActsAgain, "acts")] {
        let mut first = run(&leases, key).await;
        let mut sent = Vec::new();
        let failed: Result<(), _> = first
            .call("charge", remote, async |key| {
                sent.push(key);
                Err("no answer")
            })
            .await;
        assert!(matches!(failed, Err(LeaseError::Step(_))));
        drop(first);
        tokio::time::advance(Duration::from_secs(31)).await;
        let mut second = run(&leases, key).await;
        let called = second
            .call("charge", remote, async |key| {
                sent.push(key);
                Ok::<_, Infallible>("ch_1".to_owned())
            })
            .await;
        let claim = claim_of(key);
        let derived = derived_key(&claim.scope, &claim.key, "charge");
        if remote == Remote::HonoursKey {
            assert_eq!(called.unwrap(), "ch_1");
            assert_eq!(sent, [derived, derived], "under one key");
            second.complete(answer()).await.unwrap();
        } else {
            assert!(matches!(called, Err(LeaseError::Unknown)), "{called:?}");
            assert_eq!(sent, [derived]);
            drop(second);
            tokio::time::advance(Duration::from_secs(600)).await;
            let found = leases.claim(&claim, &Work::default()).await.unwrap();
            assert!(matches!(found, Claimed::Unknown), "{found:?}");
            assert!(leases.reopen(&claim.scope, &claim.key).await.unwrap());
            run(&leases, key).await.lose().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_kept_while_its_holder_lives() {
    let leases = Leases::new(MemoryStore::new());
    let lease = run(&leases, "k").await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(11)).await;
        let found = leases
            .claim(&claim_of("k"), &Work::default())
            .await
            .unwrap();
        assert!(
            matches!(found, Claimed::InFlight { retry_after } if retry_after <= Duration::from_secs(30)),
            "{found:?}"
        );
    }
    drop(lease);
    tokio::time::sleep(Duration::from_secs(31)).await;
    run(&leases, "k").await.release().await.unwrap();
    run(&leases, "k").await;
}

#[tokio::test(start_paused = true)]
async fn a_holder_learns_that_it_was_taken_over() {
    let leases = Leases::new(MemoryStore::new());
    let lease = run(&leases, "k").await;
    // Frozen: nobody polls its renewal, as far as the store can tell.
    leases.store().lose(lease.holder()).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(11), lease.fenced()).await;
    told.expect("by the next renewal");
}

#[tokio::test]
async fn a_claim_nobody_waits_for_is_given_back() {
    let leases = Leases::new(MemoryStore::new());
    let work = Work::default();
    // Before it is made, and when it is made and on its way.
    for (key, turns) in [("asked", 0), ("answered", 10)] {
        let claim = claim_of(key);
        {
            let mut claiming = std::pin::pin!(leases.claim(&claim, &work));
            assert!(futures_util::poll!(claiming.as_mut()).is_pending());
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            match leases.claim(&claim, &work).await.unwrap() {
                Claimed::Run(_) => break,
                other => assert!(matches!(other, Claimed::InFlight { .. })),
            }
            assert!(tokio::time::Instant::now() < deadline, "{key}");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn an_old_key_is_refused_unless_it_is_known() {
    let day = Duration::from_hours(24);
    let leases = Leases::new(MemoryStore::new()).retention(day);
    let now = Uuid::now_v7().get_timestamp().unwrap().to_unix().0;
    let key = |age: u64| Uuid::new_v7(Timestamp::from_unix(NoContext, now - age, 0)).to_string();
    let old = leases
        .claim(&claim_of(&key(86_500)), &Work::default())
        .await;
    assert!(matches!(old, Ok(Claimed::Refused(Age::Expired))), "{old:?}");
    let known = key(86_500);
    Leases::new(leases.store().clone())
        .claim(&claim_of(&known), &Work::default())
        .await
        .unwrap();
    let found = leases.claim(&claim_of(&known), &Work::default()).await;
    assert!(matches!(found, Ok(Claimed::InFlight { .. })), "{found:?}");
    let young = leases.claim(&claim_of(&key(60)), &Work::default()).await;
    assert!(matches!(young, Ok(Claimed::Run(_))), "{young:?}");
}
