//! The throttle in front of a server that can do so much and no more, on a clock of its own.

use std::time::{Duration, Instant};

use super::{AdaptiveThrottle, AdaptiveThrottleBuilder};

/// Accepts up to `capacity` in each second, in turn, and refuses what is above.
struct Simulation {
    throttle: AdaptiveThrottle,
    now: Instant,
}

#[derive(Debug, Default)]
struct Tally {
    asked: u64,
    sent: u64,
    accepted: u64,
}

impl Simulation {
    fn new(settings: AdaptiveThrottleBuilder) -> Self {
        Self {
            throttle: settings.build().unwrap(),
            now: tokio::time::Instant::now().into_std(),
        }
    }

    fn run(&mut self, seconds: u32, rate: u32, capacity: u32) -> Tally {
        let mut tally = Tally::default();
        for _ in 0..seconds {
            let mut left = capacity;
            for _ in 0..rate {
                self.now += Duration::from_secs(1) / rate;
                tally.asked += 1;
                if self.throttle.shared.admit_at(self.now) {
                    tally.sent += 1;
                    let accepted = left > 0;
                    left = left.saturating_sub(1);
                    tally.accepted += u64::from(accepted);
                    self.throttle.shared.window.record(accepted, self.now);
                }
            }
        }
        tally
    }
}

#[test]
fn an_overloaded_server_gets_no_more_than_k_times_what_it_accepts() {
    for seed in 0..5 {
        for (k, overload) in [(2.0, 2), (2.0, 4), (2.0, 10), (1.1, 2), (1.1, 4), (1.5, 3)] {
            let settings = AdaptiveThrottle::builder("test").k(k).seed(seed);
            let mut simulation = Simulation::new(settings);
            simulation.run(120, 100 * overload, 100);
            let tally = simulation.run(120, 100 * overload, 100);
            let load = tally.sent as f64 / tally.accepted as f64;
            assert!(load <= k * 1.02, "{seed} {k} {overload}: {load} {tally:?}");
            let used = tally.accepted as f64 / 12_000.0;
            assert!(
                used > 0.97,
                "{seed} {k} {overload}: the server has its hands full: {used}"
            );
        }
    }
}

#[test]
fn a_healthy_server_is_never_held_back() {
    let mut simulation = Simulation::new(AdaptiveThrottle::builder("test").seed(1));
    let tally = simulation.run(600, 100, 100);
    assert_eq!((tally.asked, tally.accepted), (60_000, 60_000));
}

#[test]
fn after_an_outage_all_is_sent_again_within_two_windows() {
    for window in [30, 120] {
        for seed in 0..5 {
            let settings = AdaptiveThrottle::builder("test")
                .window(Duration::from_secs(window))
                .seed(seed);
            let mut simulation = Simulation::new(settings);
            simulation.run(120, 100, 200);
            simulation.run(300, 100, 0);
            let outage = simulation.run(300, 100, 0);
            let share = outage.sent as f64 / outage.asked as f64;
            assert!((0.09..0.11).contains(&share), "one in ten goes: {share}");
            let seconds = (1..).find(|_| simulation.run(1, 100, 200).sent >= 95);
            assert!(
                seconds.is_some_and(|seconds| seconds <= 2 * window),
                "{seed} {window}: {seconds:?}"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_course() {
    let course = |seed| {
        let mut simulation = Simulation::new(AdaptiveThrottle::builder("test").seed(seed));
        (0..60)
            .map(|_| simulation.run(1, 400, 100).sent)
            .collect::<Vec<_>>()
    };
    assert_eq!(course(3), course(3));
    assert_ne!(course(3), course(4));
}

#[test]
fn every_fault_of_a_throttle_is_listed() {
    let faults = |settings: AdaptiveThrottleBuilder| settings.build().unwrap_err().faults().len();
    let named = || AdaptiveThrottle::builder("test");
    assert_eq!(faults(AdaptiveThrottle::builder("")), 1);
    for k in [0.99, f64::NAN, f64::INFINITY, -1.0] {
        assert_eq!(faults(named().k(k)), 1, "{k}");
    }
    for share in [0.0, 1.0, f64::NAN] {
        assert_eq!(faults(named().max_rejection(share)), 1, "{share}");
    }
    for window in [Duration::ZERO, Duration::MAX] {
        assert_eq!(faults(named().window(window)), 1, "{window:?}");
    }
    let all = AdaptiveThrottle::builder("")
        .k(0.0)
        .window(Duration::ZERO)
        .max_rejection(2.0);
    assert_eq!(faults(all), 4);
}
