//! Writers that commit, roll back, and roll back to savepoints, many at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use mainstay_outbox::{Event, Outbox, OutboxDb};
use sqlx::{Connection, Pool};
use tokio::sync::Mutex;

use super::Dice;
use crate::support::BeginImmediately;

pub const KEYS: usize = 40;
const WRITERS: u64 = 16;

/// What committed: the id of each, and "key number".
pub type Committed = Vec<(String, String)>;

/// The numbers of each key. Held from the first write to the end of the transaction, as the lock on an aggregate's row is.
pub type Numbers = Arc<Vec<Mutex<u64>>>;

pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Committed>>,
}

impl Writers {
    pub fn start<Db: OutboxDb>(pool: &Pool<Db>, outbox: &Outbox<Db>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let numbers: Numbers = Arc::new((0..KEYS).map(|_| Mutex::new(0)).collect());
        let tasks = (0..WRITERS)
            .map(|seed| {
                let (pool, outbox) = (pool.clone(), outbox.clone());
                let (numbers, stop) = (Arc::clone(&numbers), Arc::clone(&stop));
                tokio::spawn(write(pool, outbox, numbers, stop, Dice(seed)))
            })
            .collect();
        Self { stop, tasks }
    }

    pub async fn stop(self) -> Committed {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.unwrap());
        }
        all
    }
}

async fn write<Db: OutboxDb>(
    pool: Pool<Db>,
    outbox: Outbox<Db>,
    numbers: Numbers,
    stop: Arc<AtomicBool>,
    mut dice: Dice,
) -> Committed {
    let mut committed = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let key = dice.roll(KEYS as u64) as usize;
        let mut number = numbers[key].lock().await;
        let mut next = *number;
        let event = |next: &mut u64| {
            *next += 1;
            Event::new("t")
                .key(key.to_be_bytes())
                .subject(format!("{key} {next}"))
        };
        let mut written = Vec::new();
        let mut tx = pool.begin_immediately().await;
        for _ in 0..=dice.roll(3) {
            let event = event(&mut next);
            let name = format!("{key} {next}");
            let id = outbox.enqueue(&mut tx, event).await.unwrap();
            written.push((id.to_string(), name));
        }
        if dice.roll(5) == 0 {
            // Its number is used again by what does commit: an event that should not be there would be told by its id.
            let mut gone = next;
            let mut savepoint = Connection::begin(&mut *tx).await.unwrap();
            outbox
                .enqueue(&mut savepoint, event(&mut gone))
                .await
                .unwrap();
            savepoint.rollback().await.unwrap();
        }
        if dice.roll(6) == 0 {
            tx.rollback().await.unwrap();
        } else {
            tx.commit().await.unwrap();
            *number = next;
            committed.extend(written);
        }
        drop(number);
        // Slower than the relays are: what is measured here is not speed.
        tokio::time::sleep(std::time::Duration::from_millis(dice.roll(60))).await;
    }
    committed
}
