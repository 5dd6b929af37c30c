//! How threads race: all of them start together, and contestants take turns in rounds as in the other races.

use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tower::Service;

use super::cores;
use results::Measure;

use crate::service::number;

const ROUNDS: usize = 201;
/// Long beside the time that threads need to start together, short beside the turns that a busy machine gives them.
const ROUND: Duration = Duration::from_micros(500);
const THREADS: [usize; 3] = [1, 2, 4];
/// Calls of the first round, which is not counted.
const WARM_UP: u32 = 100;

/// So many calls with this request, by a thread that is woken so; the last outcome.
type Worker = Box<dyn FnMut(u32, u64, &Waker) -> usize + Send>;

/// What all threads share, and how one of them gets at it.
pub struct Contestant {
    pub name: &'static str,
    worker: Box<dyn Fn() -> Worker>,
}

/// A service whose clones share what is raced.
pub fn service<S>(name: &'static str, service: S) -> Contestant
where
    S: Service<u64, Response = u64, Future: Send> + Clone + Send + 'static,
{
    let worker = move || -> Worker {
        let mut service = service.clone();
        Box::new(move |times, request, waker| {
            let mut cx = Context::from_waker(waker);
            let mut last = 0;
            for _ in 0..times {
                while service.poll_ready(&mut cx).is_pending() {
                    thread::park();
                }
                let mut future = pin!(service.call(black_box(request)));
                last = loop {
                    match future.as_mut().poll(&mut cx) {
                        Poll::Ready(outcome) => break number(outcome),
                        Poll::Pending => thread::park(),
                    }
                };
            }
            last
        })
    };
    Contestant {
        name,
        worker: Box::new(worker),
    }
}

/// A function whose clones share what is raced.
pub fn function<F>(name: &'static str, function: F) -> Contestant
where
    F: FnMut(u64) -> usize + Clone + Send + 'static,
{
    let worker = move || -> Worker {
        let mut function = function.clone();
        Box::new(move |times, request, _| {
            let mut last = 0;
            for _ in 0..times {
                last = function(black_box(request));
            }
            last
        })
    };
    Contestant {
        name,
        worker: Box::new(worker),
    }
}

impl Contestant {
    /// What a call returns after so many with this request by the same worker, on this thread.
    pub fn after(&self, times: u32, request: u64) -> usize {
        let waker = waker();
        let mut worker = (self.worker)();
        worker(times, request, &waker);
        worker(1, 7, &waker)
    }
}

/// Prints, for each number of threads, the median time that a thread needs for a call, and its ratio to the first
/// contestant's.
pub fn run(title: &str, contestants: &[Contestant]) {
    let columns = THREADS.map(|threads| medians(threads, contestants));
    print!("{title:<40}");
    for threads in THREADS {
        print!("{:>14}, ns  ratio  rounds", format!("threads: {threads}"));
    }
    println!();
    for (at, contestant) in contestants.iter().enumerate() {
        print!("  {:<38}", contestant.name);
        for (threads, column) in THREADS.into_iter().zip(&columns) {
            let (median, rounds) = column[at];
            let threads = threads as f64;
            results::keep(Measure::new(title, contestant.name, median, "ns").at(threads));
            print!("{median:>18.1} {:>6.2} {rounds:>7}", median / column[0].0);
        }
        println!();
    }
    println!();
}

/// One thread's part of a round.
struct Span {
    start: Instant,
    end: Instant,
    /// How long it was ready to run and did not, for another had its core.
    waited: Duration,
}

/// The median of each contestant, and of how many rounds. Where each thread has a core, those are left out in which one
/// had to wait for it: the others had what they share for themselves meanwhile. Where few are left, all count after all.
fn medians(threads: usize, contestants: &[Contestant]) -> Vec<(f64, usize)> {
    let gate = Gate::new(threads);
    let calls: Vec<AtomicU32> = contestants.iter().map(|_| WARM_UP.into()).collect();
    let spans: Vec<Mutex<Vec<Span>>> = contestants.iter().map(|_| Mutex::default()).collect();
    let rounds: Mutex<Vec<Vec<Round>>> = Mutex::new(vec![Vec::new(); contestants.len()]);
    thread::scope(|scope| {
        for number in 0..threads {
            let mut workers: Vec<Worker> = contestants
                .iter()
                .map(|contestant| (contestant.worker)())
                .collect();
            let (gate, calls, spans, rounds) = (&gate, &calls, &spans, &rounds);
            scope.spawn(move || {
                cores::take(number);
                let waker = waker();
                for round in 0..=ROUNDS {
                    for turn in 0..workers.len() {
                        let at = (turn + round) % workers.len();
                        let times = calls[at].load(SeqCst);
                        let span = span(gate, || workers[at](times, 7, &waker));
                        spans[at].lock().unwrap().push(span);
                        gate.wait();
                        if number != 0 {
                            continue;
                        }
                        let spans = std::mem::take(&mut *spans[at].lock().unwrap());
                        let length = length(&spans);
                        let each = length.as_nanos() as f64 / f64::from(times);
                        if round == 0 {
                            // As many as fit into a round, hindered as they are.
                            let fit = ROUND.as_nanos() as f64 / each;
                            calls[at].store((fit as u32).max(WARM_UP), SeqCst);
                        } else {
                            let counts = threads > cores::number() || all_ran(&spans, length);
                            rounds.lock().unwrap()[at].push(Round { each, counts });
                        }
                    }
                }
            });
        }
    });
    let rounds = rounds.into_inner().unwrap();
    rounds.iter().map(|rounds| median(rounds)).collect()
}

/// Nanoseconds a call, and whether nobody was hindered.
#[derive(Clone, Copy)]
struct Round {
    each: f64,
    counts: bool,
}

const ENOUGH: usize = 20;

fn median(rounds: &[Round]) -> (f64, usize) {
    let enough = rounds.iter().filter(|round| round.counts).count() >= ENOUGH;
    let counted = rounds.iter().filter(|round| round.counts || !enough);
    let mut nanos: Vec<f64> = counted.map(|round| round.each).collect();
    nanos.sort_by(f64::total_cmp);
    (nanos[nanos.len() / 2], nanos.len())
}

fn span(gate: &Gate, work: impl FnOnce() -> usize) -> Span {
    let waited = cores::waited();
    gate.wait();
    let start = Instant::now();
    work();
    let end = Instant::now();
    let waited = cores::waited() - waited;
    Span { start, end, waited }
}

/// From when the first began to when the last ended.
fn length(spans: &[Span]) -> Duration {
    let start = spans.iter().map(|span| span.start).min();
    let end = spans.iter().map(|span| span.end).max();
    end.unwrap() - start.unwrap()
}

/// But for a twentieth of the time.
fn all_ran(spans: &[Span], length: Duration) -> bool {
    spans.iter().all(|span| span.waited < length / 20)
}

/// Lets all through when the last has come. They spin, for a thread that sleeps wakes up late.
struct Gate {
    threads: usize,
    come: AtomicUsize,
}

impl Gate {
    fn new(threads: usize) -> Self {
        Self {
            threads,
            come: AtomicUsize::new(0),
        }
    }

    fn wait(&self) {
        let number = self.come.fetch_add(1, SeqCst);
        let all = (number / self.threads + 1) * self.threads;
        let mut spins = 0_u32;
        while self.come.load(SeqCst) < all {
            spins += 1;
            // The last may need this core to come.
            if spins.is_multiple_of(1_000) {
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn waker() -> Waker {
    Arc::new(Unpark(thread::current())).into()
}
