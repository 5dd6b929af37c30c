//! How a race is run: contestants take turns, so that a disturbance of the machine meets all of them.

use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

use results::Measure;

/// Many short rounds rather than a few long ones, because a long one is more often interrupted by the neighbours on a
/// busy machine, and the slowest contestant's most of all.
const ROUNDS: usize = 2_001;
/// What a round takes, however long a call does; and of very short calls no more than this, which is enough for the
/// clock not to show.
const ROUND: Duration = Duration::from_micros(30);
const CALLS_PER_ROUND_MAX: f64 = 1_000.0;

/// One contestant: how it is set up, and what it does so many times for a request.
pub struct Contestant<'a> {
    pub name: String,
    prepare: Box<dyn FnOnce() -> Prepared<'a> + 'a>,
    /// Each call makes the next one dearer, so that few can be counted.
    wears: bool,
}

/// Ready to run.
pub struct Prepared<'a> {
    calls: Box<dyn FnMut(u32, u64) -> usize + 'a>,
    upkeep: Option<Box<dyn FnMut() + 'a>>,
}

impl<'a> Prepared<'a> {
    pub fn new(mut call: impl FnMut(u64) -> usize + 'a) -> Self {
        // The loop is inside, so that a call costs no call of a pointer.
        let calls = move |times, request| {
            let mut last = 0;
            for _ in 0..times {
                last = black_box(call(black_box(request)));
            }
            last
        };
        Self {
            calls: Box::new(calls),
            upkeep: None,
        }
    }

    /// One call with this request.
    pub fn once(&mut self, request: u64) -> usize {
        (self.calls)(1, request)
    }
}

/// Wraps what is raced. The number it returns keeps the work from being thought away.
pub fn contestant<'a>(
    name: impl Into<String>,
    mut run: impl FnMut() -> usize + 'a,
) -> Contestant<'a> {
    prepared(name, || move |_| run())
}

/// A contestant that has to be set up, and is only when it runs; it is given the request.
pub fn prepared<'a, F>(name: impl Into<String>, prepare: impl FnOnce() -> F + 'a) -> Contestant<'a>
where
    F: FnMut(u64) -> usize + 'a,
{
    Contestant::new(name, || Prepared::new(prepare()))
}

/// A contestant that has to be put in order again between two rounds, outside the time that is taken.
pub fn kept_up<'a, F, U>(
    name: impl Into<String>,
    prepare: impl FnOnce() -> (F, U) + 'a,
) -> Contestant<'a>
where
    F: FnMut(u64) -> usize + 'a,
    U: FnMut() + 'a,
{
    let prepare = || {
        let (call, upkeep) = prepare();
        let mut prepared = Prepared::new(call);
        prepared.upkeep = Some(Box::new(upkeep));
        prepared
    };
    Contestant {
        name: name.into(),
        prepare: Box::new(prepare),
        wears: true,
    }
}

impl<'a> Contestant<'a> {
    pub fn new(name: impl Into<String>, prepare: impl FnOnce() -> Prepared<'a> + 'a) -> Self {
        Self {
            name: name.into(),
            prepare: Box::new(prepare),
            wears: false,
        }
    }

    /// The same, with so many calls with this request as a part of its set-up.
    pub fn after(self, times: u32, request: u64) -> Self {
        let Self {
            name,
            prepare,
            wears,
        } = self;
        let prepare = move || {
            let mut prepared = prepare();
            (prepared.calls)(times, request);
            prepared
        };
        Self {
            name,
            prepare: Box::new(prepare),
            wears,
        }
    }

    /// Sets it up.
    pub fn prepare(self) -> Prepared<'a> {
        (self.prepare)()
    }
}

/// Whether contestants run one at a time, to be counted by callgrind. What is checked before a race is checked when it
/// is run, not then.
pub fn is_counted() -> bool {
    env::var_os("RACES_ONLY").is_some() || env::var_os("RACES_LIST").is_some()
}

/// Prints the median of each contestant, its ratio to the first one's, the distance of its quartiles, and its
/// allocations per call. The request is what successful calls are made with.
///
/// With `RACES_LIST` set, prints title and name of each contestant and whether it wears. With `RACES_ONLY` set to that,
/// the contestant alone runs, `RACES_TIMES` times, to be counted by callgrind.
pub fn run(title: &str, contestants: Vec<Contestant<'_>>) {
    run_at(title, None, contestants);
}

/// The same as one column of a table, or one point of each line of a plot.
pub fn run_at(title: &str, at: Option<f64>, contestants: Vec<Contestant<'_>>) {
    if env::var_os("RACES_LIST").is_some() {
        for Contestant { name, wears, .. } in &contestants {
            println!("{}{title}{LISTED}{name}", if *wears { "-" } else { "+" });
        }
        return;
    }
    if let Ok(only) = env::var("RACES_ONLY") {
        let times: u32 = env::var("RACES_TIMES").unwrap().parse().unwrap();
        for contestant in contestants {
            if only == format!("{title}{LISTED}{}", contestant.name) {
                (contestant.prepare().calls)(times, REQUEST);
            }
        }
        return;
    }
    let (names, mut contestants): (Vec<_>, Vec<_>) = contestants
        .into_iter()
        .map(|contestant| (contestant.name.clone(), contestant.prepare()))
        .unzip();
    let calls: Vec<u32> = contestants.iter_mut().map(calls_per_round).collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(ROUNDS); contestants.len()];
    for round in 0..=ROUNDS {
        // Another one begins each time: nobody always runs after the same neighbour's cache.
        for at in 0..contestants.len() {
            let at = (at + round) % contestants.len();
            let nanos = time(&mut contestants[at], calls[at]);
            if round > 0 {
                times[at].push(nanos);
            }
            if let Some(upkeep) = &mut contestants[at].upkeep {
                upkeep();
            }
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    let lower_bound = times[0][ROUNDS / 2];
    println!(
        "{title:<60} {:>10} {:>6} {:>9} {:>12}",
        "median ns", "ratio", "quartiles", "allocations"
    );
    for ((name, times), contestant) in names.iter().zip(&times).zip(&mut contestants) {
        let median = times[ROUNDS / 2];
        let quartiles = (times[ROUNDS * 3 / 4] - times[ROUNDS / 4]) / median;
        let allocations = allocation_counter::measure(|| {
            contestant.once(REQUEST);
        });
        println!(
            "  {name:<58} {median:>10.1} {:>6.2} {:>7.0} % {:>12}",
            median / lower_bound,
            quartiles * 100.0,
            allocations.count_total
        );
        let measure = Measure::new(title, name, median, "ns")
            .spread(quartiles)
            .allocations(allocations.count_total);
        results::keep(Measure { at, ..measure });
    }
    println!();
}

/// Stands between a title and a name.
pub const LISTED: &str = " | ";

/// What successful calls are made with.
const REQUEST: u64 = 7;

/// Nanoseconds a call.
fn time(contestant: &mut Prepared<'_>, calls: u32) -> f64 {
    let start = Instant::now();
    (contestant.calls)(calls, REQUEST);
    start.elapsed().as_nanos() as f64 / f64::from(calls)
}

/// As many calls as fit into a round.
fn calls_per_round(contestant: &mut Prepared<'_>) -> u32 {
    // The best of some, for the first calls find nothing in the caches.
    let nanos = (0..5)
        .map(|_| time(contestant, 4))
        .fold(f64::INFINITY, f64::min);
    (ROUND.as_nanos() as f64 / nanos).clamp(1.0, CALLS_PER_ROUND_MAX) as u32
}
