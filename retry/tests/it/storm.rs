//! Whether an outage ends when its cause does.

mod world;

use std::{future::ready, sync::Arc};

use mainstay_retry::{
    AttemptTimeoutLayer, Backoff, Budget, CircuitBreaker, CircuitBreakerLayer, DeadlineLayer,
    EveryError, GrpcThrottle, HalfOpen, HttpClassify, HttpReplay, RatioBudget, RetryLayer,
    RetryPolicy, TokenBudget, Trip, breaker::Window, retry,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tower::{ServiceBuilder, util::BoxCloneService};

use self::world::{Client, Layers, Server, storm};
use crate::support::*;

/// Three attempts of a second each.
fn three_attempts(seed: u64) -> RetryLayer<HttpClassify, HttpReplay> {
    RetryLayer::http()
        .max_attempts(3)
        .backoff(Backoff::full_jitter(ms(50), secs(1)))
        .seed(seed)
}

const LIMIT: AttemptTimeoutLayer = AttemptTimeoutLayer::new(secs(1));

fn client(server: Server, retries: RetryLayer<HttpClassify, HttpReplay>) -> Client {
    let layers = ServiceBuilder::new().layer(retries).layer(LIMIT);
    BoxCloneService::new(layers.service(server))
}

fn no_retries(server: Server, seed: u64) -> Client {
    client(server, three_attempts(seed).max_attempts(1))
}

fn no_budget(server: Server, seed: u64) -> Client {
    client(server, three_attempts(seed).without_budget())
}

fn of_calls(server: Server, seed: u64, ratio: f64) -> Client {
    let budget = RatioBudget::of_calls(ratio).min_per_second(0);
    client(
        server,
        three_attempts(seed).budget(budget.shared().unwrap()),
    )
}

fn aws(server: Server, seed: u64, cost: f64) -> Client {
    let budget = TokenBudget::aws_standard().cost(cost);
    client(
        server,
        three_attempts(seed).budget(budget.shared().unwrap()),
    )
}

fn success_credit() -> Arc<dyn Budget> {
    let budget = TokenBudget::success_credit(0.1).capacity(10);
    budget.shared().unwrap()
}

fn of_successes(server: Server, seed: u64) -> Client {
    client(server, three_attempts(seed).budget(success_credit()))
}

fn grpc(server: Server, seed: u64) -> Client {
    let budget = GrpcThrottle::shared(10.0, 0.1).unwrap();
    client(server, three_attempts(seed).budget(budget))
}

fn breaker() -> CircuitBreakerLayer<HttpClassify> {
    let breaker = CircuitBreaker::builder("server")
        .trip(Trip::failure_rate(0.5).window(Window::count(50)))
        .wait_in_open(Backoff::constant(secs(1)))
        .half_open(HalfOpen::probes(1));
    breaker.build().unwrap().layer()
}

fn with_breaker(server: Server, seed: u64) -> Client {
    let layers = ServiceBuilder::new()
        .layer(three_attempts(seed).budget(success_credit()))
        .layer(breaker())
        .layer(LIMIT);
    BoxCloneService::new(layers.service(server))
}

fn breaker_alone(server: Server, seed: u64) -> Client {
    let layers = ServiceBuilder::new()
        .layer(three_attempts(seed).without_budget())
        .layer(breaker())
        .layer(LIMIT);
    BoxCloneService::new(layers.service(server))
}

/// A second for the whole call, which the server is told.
fn deadline_of_calls(server: Server, seed: u64) -> Client {
    let layers = ServiceBuilder::new()
        .layer(DeadlineLayer::total(secs(1)))
        .layer(three_attempts(seed).budget(success_credit()))
        .layer(LIMIT);
    BoxCloneService::new(layers.service(server))
}

/// A second for each attempt, which the server is told.
fn deadline_of_attempts(server: Server, seed: u64) -> Client {
    let layers = ServiceBuilder::new()
        .layer(three_attempts(seed).budget(success_credit()))
        .layer(LIMIT)
        .layer(DeadlineLayer::total(ms(1_001))); // the limit comes first, for a spent deadline is final
    BoxCloneService::new(layers.service(server))
}

type Row = (&'static str, Layers);

const NO_RETRIES: Row = ("no retries at all", no_retries);
const NO_BUDGET: Row = ("3 attempts, no budget", no_budget);
const OF_CALLS: Row = ("20 % of calls", |server, seed| of_calls(server, seed, 0.2));
const OF_FEWER_CALLS: Row = ("10 % of calls", |server, seed| of_calls(server, seed, 0.1));
const AWS_5: Row = ("AWS 500/5", |server, seed| aws(server, seed, 5.0));
const AWS_14: Row = ("AWS 500/14", |server, seed| aws(server, seed, 14.0));
const GRPC: Row = ("gRPC 10/.1", grpc);
const OF_SUCCESSES: Row = (".1 of successes, cap 10", of_successes);
const BREAKER_ALONE: Row = ("a breaker, no budget", breaker_alone);
const BREAKER: Row = (".1 of successes, a breaker", with_breaker);
const CALLS_DEADLINE: Row = (".1 of successes, deadline of calls", deadline_of_calls);
const ATTEMPTS_DEADLINE: Row = (
    ".1 of successes, deadline of attempts",
    deadline_of_attempts,
);

/// What the bars are set for: 850 calls a second of the 1,000 that the server can do.
#[track_caller]
fn recovered((name, layers): Row) -> usize {
    let seconds = storm(850, 3, layers).recovered;
    seconds.unwrap_or_else(|| panic!("{name}: never"))
}

#[test]
fn without_retries_the_queue_drains_in_its_own_time() {
    let seconds = recovered(NO_RETRIES);
    assert!((10..=12).contains(&seconds), "{seconds} s");
}

#[test]
fn retries_without_a_budget_keep_the_outage_going_for_ever() {
    let course = storm(850, 3, NO_BUDGET.1);
    assert_eq!(course.recovered, None);
    assert!(course.load > 2.9, "{} attempts a call", course.load);
}

#[test]
fn a_budget_of_successes_adds_next_to_nothing_to_an_outage() {
    let seconds = recovered(OF_SUCCESSES);
    assert!(seconds <= 15, "{seconds} s");
}

#[test]
fn a_breaker_lets_the_server_get_up() {
    let seconds = recovered(BREAKER);
    assert!(seconds <= 3, "{seconds} s");
}

#[test]
fn a_server_that_knows_deadlines_is_back_at_once() {
    for row in [CALLS_DEADLINE, ATTEMPTS_DEADLINE] {
        let seconds = recovered(row);
        assert!(seconds <= 1, "{}: {seconds} s", row.0);
    }
}

#[test]
fn the_same_seed_gives_the_same_course_to_the_last_event() {
    let trace = |seed| storm(150, seed, BREAKER.1).trace;
    let once = trace(3);
    assert_eq!(trace(3), once);
    assert_ne!(trace(4), once);
}

/// All policies at three loads with three seeds, which takes minutes and so is asked for by the environment:
///
/// `MAINSTAY_RETRY_STORMS=1 cargo test -p mainstay-retry --release --test it storm::sweep -- --nocapture`
#[test]
fn sweep() {
    if std::env::var_os("MAINSTAY_RETRY_STORMS").is_none() {
        return;
    }
    /// The bounds at 700, 850 and 900 calls a second: no more seconds than this, or never.
    const NEVER: usize = usize::MAX;
    let rows = [
        (NO_BUDGET, [NEVER; 3]),
        (OF_CALLS, [32, NEVER, NEVER]),
        (OF_FEWER_CALLS, [15, 60, NEVER]),
        (AWS_5, [13, 28, 45]),
        (AWS_14, [9, 18, 30]),
        (OF_SUCCESSES, [7, 15, 23]),
        (GRPC, [6, 14, 22]),
        (NO_RETRIES, [6, 12, 20]),
        (BREAKER_ALONE, [3; 3]),
        (BREAKER, [3; 3]),
        (CALLS_DEADLINE, [1; 3]),
        (ATTEMPTS_DEADLINE, [1; 3]),
    ];
    println!("seconds until recovered, seeds 3 4 5 | 700/s | 850/s | 900/s");
    let mut misses = Vec::new();
    for ((name, layers), most) in rows {
        // Each storm has a runtime and a clock of its own.
        let seen = std::thread::scope(|scope| {
            let seeds = move |rate| [3, 4, 5].map(|seed| storm(rate, seed, layers).recovered);
            let rates = [700, 850, 900].map(|rate| scope.spawn(move || seeds(rate)));
            rates.map(|thread| thread.join().unwrap())
        });
        let shown = seen.map(|seeds| {
            let shown = seeds.map(|seconds| seconds.map_or("never".into(), |s| s.to_string()));
            shown.join(" ")
        });
        println!("{name:38} | {}", shown.join(" | "));
        let kept = |(seeds, most): ([Option<usize>; 3], usize)| {
            seeds.iter().all(|seconds| match seconds {
                Some(seconds) => most != NEVER && *seconds <= most,
                None => most == NEVER,
            })
        };
        if !seen.into_iter().zip(most).all(kept) {
            misses.push(name);
        }
    }
    assert!(misses.is_empty(), "not as expected: {misses:?}");
}

/// The course of each storm by the second, for a plot, in the file that the environment names: a line of JSON for each second,
/// and one for each policy with the seconds until it had recovered.
#[test]
fn curves() {
    let Some(path) = std::env::var_os("MAINSTAY_RETRY_STORM_CURVES") else {
        return;
    };
    let rows = [
        ("no retries", NO_RETRIES),
        ("three attempts, no budget", NO_BUDGET),
        ("a budget of successes", OF_SUCCESSES),
        ("a budget and a breaker", BREAKER),
        ("a budget and deadlines", CALLS_DEADLINE),
    ];
    let mut lines = String::new();
    for (name, (_, layers)) in rows {
        let course = storm(850, 3, layers);
        if let Some(seconds) = course.recovered {
            lines += &format!(
                r#"{{"race":"storm","table":"recovered at 850 calls a second","name":"{name}","value":{seconds},"unit":"s"}}"#
            );
            lines.push('\n');
        }
        for (second, percent) in course.good.iter().enumerate().take(60) {
            lines += &format!(
                r#"{{"race":"storm","table":"good calls","name":"{name}","value":{percent:.1},"unit":"percent","at":{second}}}"#
            );
            lines.push('\n');
        }
    }
    std::fs::write(path, lines).unwrap();
}

/// Calls that fail by themselves, each with the same probability: what a budget lets through and what it saves.
#[tokio::test(start_paused = true)]
async fn a_budget_costs_little_where_failures_are_few_and_saves_load_where_they_are_many() {
    type Make = fn() -> Option<Arc<dyn Budget>>;
    type Figures = [(f64, f64); 4];
    let budgets: [(&str, Make, Figures); 6] = [
        (
            "no budget",
            || None,
            [(1.052, 1.0), (1.241, 0.992), (1.752, 0.875), (3.0, 0.0)],
        ),
        (
            "20 % of calls",
            || {
                Some(
                    RatioBudget::of_calls(0.2)
                        .min_per_second(0)
                        .shared()
                        .unwrap(),
                )
            },
            [(1.052, 1.0), (1.2, 0.959), (1.2, 0.599), (1.2, 0.0)],
        ),
        (
            ".1 of successes, cap 10",
            || Some(success_credit()),
            [(1.052, 1.0), (1.087, 0.869), (1.053, 0.525), (1.0, 0.0)],
        ),
        (
            "AWS 500/5",
            || Some(TokenBudget::aws_standard().cost(5.0).shared().unwrap()),
            [(1.052, 1.0), (1.241, 0.992), (1.201, 0.6), (1.0, 0.0)],
        ),
        (
            "AWS 500/14",
            || Some(TokenBudget::aws_standard().shared().unwrap()),
            [(1.052, 1.0), (1.241, 0.992), (1.072, 0.535), (1.0, 0.0)],
        ),
        (
            "gRPC 10/.1",
            || Some(GrpcThrottle::shared(10.0, 0.1).unwrap()),
            [(1.052, 1.0), (1.0, 0.799), (1.0, 0.499), (1.0, 0.0)],
        ),
    ];
    const CALLS: u32 = 20_000;
    for (name, budget, expected) in budgets {
        for (share, (load, success)) in [0.05, 0.2, 0.5, 1.0].into_iter().zip(expected) {
            let (mut rng, mut attempts) = (StdRng::seed_from_u64(16), 0);
            let mut attempt = || {
                attempts += 1;
                let failed = rng.random_bool(share);
                ready(if failed { Err("failed") } else { Ok(()) })
            };
            let policy = RetryPolicy::new(EveryError).backoff(Backoff::constant(ms(0)));
            let policy = match budget() {
                None => policy.without_budget(),
                Some(budget) => policy.budget(budget),
            };
            let mut good = 0;
            for _ in 0..CALLS {
                good += u32::from(retry(&policy, &mut attempt).await.is_ok());
            }
            let of_calls = |count: u32| f64::from(count) / f64::from(CALLS);
            let seen = (of_calls(attempts), of_calls(good));
            println!(
                "{name:24} {share:4}: load {:.3}, success {:.3}",
                seen.0, seen.1
            );
            let near = (seen.0 - load).abs() <= 0.015 && (seen.1 - success).abs() <= 0.015;
            assert!(
                near,
                "{name}, {share} fail: {seen:?}, not {load}, {success}"
            );
        }
    }
}
