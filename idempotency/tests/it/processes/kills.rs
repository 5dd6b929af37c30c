//! Effects equal keys: whatever statement the service is killed at, each acknowledged request took effect once.

use std::collections::HashSet;
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::Pool;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::service::{Answer, STEPS, Service, ask};
use crate::app::App;
use crate::db::{TestDb, on_each};

on_each!(
    killed_at_random_statements_each_key_has_one_effect,
    killed_at_random_statements_each_step_has_one_effect
);

const CLIENTS: usize = 4;

/// Nothing is to be stuck for longer: the longest wait, and a restart.
const STUCK: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Book {
    cut_off: AtomicUsize,
    /// Committed, and the answer to the first who asked was lost.
    unheard: AtomicUsize,
    refusals: AtomicUsize,
    done: AtomicBool,
}

async fn killed_at_random_statements_each_key_has_one_effect<D: TestDb>(pool: Pool<D>) {
    let (acknowledged, unheard) = storm(&pool, "/pay", 200, Duration::from_millis(40)).await;
    assert!(unheard > 0, "each commit was heard of");
    // A process that knows nothing of all this has the same answers, and each half of each effect is there once.
    let app = App::new(pool.clone());
    for (key, answer) in &acknowledged {
        for half in ["debit", "credit"] {
            let effects = app.effects(&format!("{key} {half}")).await;
            assert_eq!(effects, 1, "{key} {half}");
        }
        let again = app.post(&format!("\"{key}\""), key).await;
        assert!(again.replayed() && again.body == answer.body, "{key}");
    }
    assert_eq!(app.runs(), 0);
}

/// Attempts that were killed are taken over by those of other processes, which go on behind the steps that are done.
async fn killed_at_random_statements_each_step_has_one_effect<D: TestDb>(pool: Pool<D>) {
    // Longer lives, in which a lease runs out and some of the steps are done.
    let (acknowledged, _) = storm(&pool, "/steps", 100, Duration::from_millis(150)).await;
    let mut handed_on = 0;
    for (key, answer) in &acknowledged {
        let processes = answer
            .body
            .split(' ')
            .filter_map(|result| result.split('-').next());
        handed_on += usize::from(processes.collect::<HashSet<_>>().len() > 1);
        for step in STEPS {
            let effects = D::effects(&pool, &format!("{key} {step}")).await;
            assert_eq!(effects, 1, "{key} {step}");
        }
    }
    println!("{}: {handed_on} keys went on in another process", D::NAME);
    assert!(handed_on > 0, "no attempt went on behind another's steps");
}

/// Kills the service over and over while clients ask. What they were answered in the end, by key; and to how many keys
/// both of those who asked were answered by a record.
async fn storm<D: TestDb>(
    pool: &Pool<D>,
    path: &'static str,
    kills: usize,
    life_max: Duration,
) -> (Vec<(String, Answer)>, usize) {
    let kills = env::var("MAINSTAY_TEST_KILLS").map_or(kills, |kills| kills.parse().unwrap());
    let life_us = u64::try_from(life_max.as_micros()).unwrap();
    let (now_at, port) = watch::channel(0);
    let book = Arc::new(Book::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(client(path, port.clone(), Arc::clone(&book))))
        .collect();
    let mut dice = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..kills {
        let service = Service::start(pool, "").await;
        now_at.send_replace(service.port);
        // No test waits for this: it is the moment at which the service is killed.
        sleep(Duration::from_micros(500 + roll(&mut dice) % life_us)).await;
        service.kill().await;
    }
    let last = Service::start(pool, "").await;
    now_at.send_replace(last.port);
    book.done.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    last.kill().await;
    let all = acknowledged.len();
    let [cut_off, unheard, refusals] =
        [&book.cut_off, &book.unheard, &book.refusals].map(|count| count.load(Ordering::SeqCst));
    println!(
        "{} {path}: {kills} kills, {all} keys, {cut_off} requests cut off, {unheard} commits unheard, {refusals} told to come again",
        D::NAME
    );
    assert!(all > kills / 10 && cut_off > kills / 10, "it was no storm");
    (acknowledged, unheard)
}

/// One key after the other, each asked for by two at once until both are answered.
async fn client(
    path: &'static str,
    port: watch::Receiver<u16>,
    book: Arc<Book>,
) -> Vec<(String, Answer)> {
    let mut acknowledged = Vec::new();
    while !book.done.load(Ordering::SeqCst) {
        let key = Uuid::now_v7().to_string();
        let two = [(); 2].map(|()| until_answered(path, &port, &key, &book));
        let answers = join_all(two).await;
        assert_eq!(answers[0].body, answers[1].body, "two answers for {key}");
        assert!(
            answers.iter().any(|answer| answer.replayed),
            "both ran: {key}"
        );
        let unheard = answers.iter().all(|answer| answer.replayed);
        book.unheard
            .fetch_add(usize::from(unheard), Ordering::SeqCst);
        acknowledged.extend(
            answers
                .into_iter()
                .take(1)
                .map(|answer| (key.clone(), answer)),
        );
    }
    acknowledged
}

async fn until_answered(path: &str, port: &watch::Receiver<u16>, key: &str, book: &Book) -> Answer {
    let since = Instant::now();
    loop {
        let at = *port.borrow();
        match ask(at, path, key, key).await {
            Ok(answer) if answer.status == 201 => return answer,
            Ok(refused) => {
                assert!(matches!(refused.status, 409 | 503), "{refused:?}");
                book.refusals.fetch_add(1, Ordering::SeqCst);
            }
            Err(_) => _ = book.cut_off.fetch_add(1, Ordering::SeqCst),
        }
        assert!(since.elapsed() < STUCK, "{key} is stuck");
        // A service that is not there refuses at once.
        sleep(Duration::from_millis(2)).await;
    }
}

/// SplitMix64.
fn roll(dice: &mut u64) -> u64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *dice;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
