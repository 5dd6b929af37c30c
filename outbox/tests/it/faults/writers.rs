//! Writers whose database fails them: what committed, what did not, and what they cannot tell until they look.

use std::{
    collections::HashSet,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mainstay_outbox::{Event, Outbox, OutboxDb};
use sqlx::{Connection, Pool, Transaction};
use tokio::{sync::Mutex, task::JoinHandle, time::sleep};
use uuid::Uuid;

use crate::processes::{Dice, writers::Committed};

const KEYS: u64 = 40;
const WRITERS: u64 = 8;

/// A table of the application's. Each transaction leaves its name in it, which tells afterwards whether it committed.
pub trait Ledger: OutboxDb {
    fn create(pool: &Pool<Self>) -> impl Future<Output = ()> + Send;
    fn note(
        conn: &mut Self::Connection,
        name: &str,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
    fn noted(pool: &Pool<Self>) -> impl Future<Output = HashSet<String>> + Send;
}

macro_rules! ledger {
    ($db:ty, $note:literal) => {
        impl Ledger for $db {
            async fn create(pool: &Pool<Self>) {
                let create = sqlx::query("CREATE TABLE ledger (name VARCHAR(36) NOT NULL)");
                create.execute(pool).await.unwrap();
            }

            async fn note(conn: &mut Self::Connection, name: &str) -> Result<(), sqlx::Error> {
                sqlx::query($note).bind(name).execute(conn).await.map(drop)
            }

            async fn noted(pool: &Pool<Self>) -> HashSet<String> {
                let names = sqlx::query_scalar("SELECT name FROM ledger");
                names.fetch_all(pool).await.unwrap().into_iter().collect()
            }
        }
    };
}

ledger!(sqlx::Postgres, "INSERT INTO ledger (name) VALUES ($1)");
#[cfg(feature = "mysql")]
ledger!(sqlx::MySql, "INSERT INTO ledger (name) VALUES (?)");

/// What the writers know.
#[derive(Default)]
pub struct History {
    acknowledged: Vec<Written>,
    /// COMMIT was sent, and there was no answer or a bad one.
    unknown: Vec<Written>,
    /// Failed before COMMIT was sent.
    failed: usize,
    rolled_back: usize,
}

/// A transaction's name in the ledger, and its events.
struct Written {
    name: String,
    events: Committed,
}

/// The history as the ledger completes it.
pub struct Known {
    pub committed: Committed,
    pub failed: usize,
    pub rolled_back: usize,
    /// Commits whose answer was lost, and how many of them had come to pass.
    pub unknown: [usize; 2],
}

impl History {
    pub async fn complete<Db: Ledger>(self, pool: &Pool<Db>) -> Known {
        let noted = Db::noted(pool).await;
        let lost = self
            .acknowledged
            .iter()
            .filter(|of| !noted.contains(&of.name));
        assert_eq!(
            lost.count(),
            0,
            "the database lost what it had acknowledged"
        );
        let asked = self.unknown.len();
        let came_to_pass: Vec<Written> = self
            .unknown
            .into_iter()
            .filter(|of| noted.contains(&of.name))
            .collect();
        let unknown = [asked, came_to_pass.len()];
        let all = self.acknowledged.into_iter().chain(came_to_pass);
        Known {
            committed: all.flat_map(|of| of.events).collect(),
            failed: self.failed,
            rolled_back: self.rolled_back,
            unknown,
        }
    }
}

pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<History>>,
}

impl Writers {
    pub fn start<Db: Ledger>(pool: &Pool<Db>, outbox: &Outbox<Db>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        // Each key's number is held from the first write to the end of the transaction, as the lock on an aggregate's row.
        let numbers: Arc<Vec<_>> = Arc::new((0..KEYS).map(|_| Mutex::new(0)).collect());
        let tasks = (0..WRITERS)
            .map(|seed| {
                let writer = Writer {
                    pool: pool.clone(),
                    outbox: outbox.clone(),
                    dice: Dice(seed),
                };
                tokio::spawn(writer.run(Arc::clone(&numbers), Arc::clone(&stop)))
            })
            .collect();
        Self { stop, tasks }
    }

    pub async fn stop(self) -> History {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = History::default();
        for task in self.tasks {
            let one = task.await.unwrap();
            all.acknowledged.extend(one.acknowledged);
            all.unknown.extend(one.unknown);
            all.failed += one.failed;
            all.rolled_back += one.rolled_back;
        }
        all
    }
}

struct Writer<Db: Ledger> {
    pool: Pool<Db>,
    outbox: Outbox<Db>,
    dice: Dice,
}

impl<Db: Ledger> Writer<Db> {
    async fn run(mut self, numbers: Arc<Vec<Mutex<u64>>>, stop: Arc<AtomicBool>) -> History {
        let mut history = History::default();
        while !stop.load(Ordering::SeqCst) {
            let key = self.dice.roll(KEYS);
            let mut number = numbers[key as usize].lock().await;
            match self.write(key, *number).await {
                Err(_) => history.failed += 1,
                Ok((tx, _)) if self.dice.roll(6) == 0 => {
                    let _ = tx.rollback().await;
                    history.rolled_back += 1;
                }
                Ok((tx, written)) => {
                    // Whatever the answer is, its numbers are used: they may be there.
                    *number += written.events.len() as u64;
                    match tx.commit().await {
                        Ok(()) => history.acknowledged.push(written),
                        Err(_) => history.unknown.push(written),
                    }
                    self.outbox.waker().notify_after_commit();
                }
            }
            drop(number);
            // Slower than the relays are: what is measured here is not speed.
            sleep(Duration::from_millis(self.dice.roll(20))).await;
        }
        history
    }

    /// Everything up to the COMMIT.
    async fn write(
        &mut self,
        key: u64,
        last: u64,
    ) -> Result<(Transaction<'static, Db>, Written), Box<dyn Error + Send + Sync>> {
        let event = |number: u64| {
            Event::new("t")
                .key(key.to_be_bytes())
                .subject(format!("{key} {number}"))
        };
        let name = Uuid::now_v7().to_string();
        let mut tx = self.pool.begin().await?;
        Db::note(&mut tx, &name).await?;
        let mut events = Committed::new();
        for number in last + 1..=last + 1 + self.dice.roll(3) {
            let id = self.outbox.enqueue(&mut tx, event(number)).await?;
            events.push((id.to_string(), format!("{key} {number}")));
        }
        if self.dice.roll(5) == 0 {
            // Its number is used again by what does commit: an event that should not be there would be told by its id.
            let mut savepoint = Connection::begin(&mut *tx).await?;
            let gone = event(last + 1 + events.len() as u64);
            self.outbox.enqueue(&mut savepoint, gone).await?;
            savepoint.rollback().await?;
        }
        // What else a transaction does: at any moment some are open.
        sleep(Duration::from_millis(self.dice.roll(20))).await;
        Ok((tx, Written { name, events }))
    }
}
