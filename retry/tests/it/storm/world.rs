//! The world of a storm: clients that call at random, a server that does one thing at a time, and a stall.
//!
//! It all runs on a paused clock, which jumps from one timer to the next. Whatever is random comes from the seed.

use std::{
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::Response;
use http_body_util::Full;
use mainstay_retry::{AcceptDeadlineLayer, BoxError, Error};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneService};

use crate::support::*;

pub type Client = BoxCloneService<Req, Res, Error>;
pub type Server = BoxCloneService<Req, Res, BoxError>;

/// The layers of one client, with its seed, over the server that all clients share.
pub type Layers = fn(Server, u64) -> Client;

const CLIENTS: u64 = 20;
/// The server does a thousand of these in a second.
const WORK: Duration = ms(1);
const STALL: u64 = 20;
const STALL_END: u64 = 23;
/// When it is given up: nearly two minutes after the stall.
const END: u64 = 140;
/// For so many seconds in a row.
const HELD: usize = 5;

/// What was seen.
pub struct Course {
    /// Whole seconds from the end of the stall until at least 95 % of the calls of a second are answered well, and of
    /// each of the next four.
    pub recovered: Option<usize>,
    /// How many of a hundred calls are answered well, by the second.
    pub good: Vec<f64>,
    /// Attempts for each call in the last ten seconds.
    pub load: f64,
    /// Of every event with its time: two courses with the same are the same.
    pub trace: u64,
}

#[derive(Clone, Copy, Default)]
struct Second {
    calls: u32,
    attempts: u32,
    good: u32,
}

#[derive(Clone, Copy, Hash)]
enum Event {
    Call(u64),
    Attempt,
    Answer { good: bool },
}

/// Everything that happens, by the second.
#[derive(Clone)]
struct Record {
    start: Instant,
    seen: Arc<Mutex<(Vec<Second>, DefaultHasher)>>,
}

impl Record {
    fn new() -> Self {
        let seconds = vec![Second::default(); END as usize + 1];
        Self {
            start: Instant::now(),
            seen: Arc::new(Mutex::new((seconds, DefaultHasher::new()))),
        }
    }

    fn add(&self, event: Event) {
        let (seconds, trace) = &mut *self.seen.lock().unwrap();
        let at = self.start.elapsed();
        (at, event).hash(trace);
        let second = &mut seconds[at.as_secs() as usize];
        match event {
            Event::Call(_) => second.calls += 1,
            Event::Attempt => second.attempts += 1,
            Event::Answer { good } => second.good += u32::from(good),
        }
    }

    /// What has been seen when so many seconds are over.
    fn course(&self, seconds: u64) -> Course {
        let (all, trace) = &*self.seen.lock().unwrap();
        let all = &all[..seconds as usize];
        let after: Vec<bool> = all[(STALL_END as usize).min(all.len())..]
            .iter()
            .map(|second| f64::from(second.good) >= 0.95 * f64::from(second.calls))
            .collect();
        let recovered = after
            .windows(HELD)
            .position(|held| held.iter().all(|&good| good));
        let last = &all[all.len().saturating_sub(10)..];
        let sum = |what: fn(&Second) -> u32| f64::from(last.iter().map(what).sum::<u32>());
        let good = all
            .iter()
            .map(|second| 100.0 * f64::from(second.good) / f64::from(second.calls).max(1.0))
            .collect();
        Course {
            recovered,
            good,
            load: sum(|second| second.attempts) / sum(|second| second.calls),
            trace: trace.finish(),
        }
    }
}

/// A storm at this many calls a second, until it is over or it is clear that it never will be.
pub fn storm(rate: u32, seed: u64, layers: Layers) -> Course {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let record = Record::new();
        let server = serve(record.clone());
        for n in 0..CLIENTS {
            let seed = seed * CLIENTS + n;
            let client = layers(server.clone(), seed);
            let gaps = Gaps::new(f64::from(rate) / CLIENTS as f64, seed);
            tokio::spawn(calls(client, n, gaps, record.clone()));
        }
        for second in 1..END {
            sleep_until(record.start + secs(second)).await;
            let course = record.course(second);
            if course.recovered.is_some() {
                return course;
            }
        }
        record.course(END - 1)
    })
}

/// The times between the calls of a client: exponential, which makes the arrivals a Poisson process.
struct Gaps {
    rng: StdRng,
    rate: f64,
}

impl Gaps {
    fn new(rate: f64, seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            rate,
        }
    }

    fn next(&mut self) -> Duration {
        let uniform: f64 = self.rng.random();
        Duration::from_secs_f64(-(1.0 - uniform).ln() / self.rate)
    }
}

/// Calls when it is time to, whatever has become of the calls before.
async fn calls(mut client: Client, number: u64, mut gaps: Gaps, record: Record) {
    let mut next = record.start;
    loop {
        next += gaps.next();
        sleep_until(next).await;
        record.add(Event::Call(number));
        let answer = client.ready().await.unwrap().call(Req::default());
        let record = record.clone();
        tokio::spawn(async move {
            let good = answer.await.is_ok_and(|answer| answer.status() == 200);
            record.add(Event::Answer { good });
        });
    }
}

/// More than ever comes: no client is told that the queue is full.
const QUEUE: usize = 1 << 20;

/// One worker behind a queue, which takes the work in turn and does it even if nobody waits for it any
/// longer; but not what has waited until after its deadline.
///
/// Clients that say no deadline have one of an hour, which is none.
fn serve(record: Record) -> Server {
    let accept = AcceptDeadlineLayer::at_most(secs(3_600));
    let (queue, mut work) = mpsc::channel::<(Req, oneshot::Sender<Res>)>(QUEUE);
    let stall = record.start + secs(STALL)..record.start + secs(STALL_END);
    let handler = service_fn(|_: Req| async {
        sleep(WORK).await;
        Ok::<_, BoxError>(Response::new(Full::default()))
    });
    let mut worker = accept.layer(handler);
    tokio::spawn(async move {
        while let Some((request, answer)) = work.recv().await {
            if stall.contains(&Instant::now()) {
                sleep_until(stall.end).await;
            }
            let done = worker.ready().await.unwrap().call(request).await.unwrap();
            let _ = answer.send(done.map(|_| Full::default()));
        }
    });
    let front = accept.layer(Queue { queue, record });
    BoxCloneService::new(front.map_response(|answer| answer.map(|_| Full::default())))
}

#[derive(Clone)]
struct Queue {
    queue: mpsc::Sender<(Req, oneshot::Sender<Res>)>,
    record: Record,
}

impl Service<Req> for Queue {
    type Response = Res;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Res, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        self.record.add(Event::Attempt);
        let (answer, answered) = oneshot::channel();
        let queued = self.queue.try_send((request, answer));
        Box::pin(async move {
            queued?;
            Ok(answered.await?)
        })
    }
}
