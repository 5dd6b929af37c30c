//! The windows against the naive form of themselves: all outcomes in a list, counted by looking.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn last(outcomes: &VecDeque<bool>, size: usize) -> Reading {
    let window = outcomes.iter().rev().take(size);
    Reading::counted(
        window.clone().count() as u64,
        window.filter(|hit| **hit).count() as u64,
    )
}

proptest! {
    #[test]
    fn a_count_window_is_the_last_n_outcomes(
        size in 1..20u32, outcomes in proptest::collection::vec(any::<Option<bool>>(), 0..200),
    ) {
        let (window, mut model, mut epoch) = (CountWindow::new(size), VecDeque::new(), 0);
        for outcome in outcomes {
            let Some(hit) = outcome else {
                let stale = epoch;
                epoch += 1;
                window.reset(epoch);
                model.clear();
                prop_assert_eq!(window.record(stale, true), None);
                continue;
            };
            model.push_back(hit);
            let expected = last(&model, size as usize);
            prop_assert_eq!(window.record(epoch, hit), Some(expected));
            prop_assert_eq!(window.read(epoch), Some(expected));
        }
    }

    /// Buckets of one second: exactly the calls of this second and the nine before it.
    #[test]
    fn a_time_window_is_the_calls_of_its_ten_buckets(
        calls in proptest::collection::vec((prop_oneof![0..SECOND, 0..30 * SECOND, Just(0), Just(86_400 * 90 * SECOND)], any::<bool>()), 0..200),
    ) {
        let (window, mut now, mut model) = (TimeWindow::new(10 * SECOND), 0, Vec::new());
        for (step, hit) in calls {
            now += step;
            model.push((now / SECOND, hit));
            let inside = model.iter().filter(|(tick, _)| tick + 10 > now / SECOND);
            let expected = Reading::counted(
                inside.clone().count() as u64,
                inside.filter(|(_, hit)| *hit).count() as u64,
            );
            prop_assert_eq!(window.record(0, now, hit), Some(expected));
            prop_assert_eq!(window.read(0, now), Some(expected));
        }
    }

    #[test]
    fn an_average_follows_the_formula(size in 1..4096u32, outcomes in proptest::collection::vec(any::<bool>(), 1..500)) {
        let window = EwmaWindow::new(size);
        let weight = 2.0 / (f64::from(size) + 1.0);
        let mut model = 0.0;
        for hit in outcomes {
            model += (f64::from(u8::from(hit)) - model) * weight;
            let rate = window.record(0, hit).unwrap().rate();
            prop_assert!((rate - model).abs() < 1e-4, "{} is not {}", rate, model);
        }
    }

    #[test]
    fn overdue_calls_are_those_that_started_long_enough_ago(
        steps in proptest::collection::vec((0..400u64, any::<Option<prop::sample::Index>>()), 0..200),
    ) {
        const LIMIT: u64 = 800; // places of a hundred
        let overdue = Overdue::new(LIMIT);
        let (mut now, mut under_way) = (0, Vec::new());
        for (step, ends) in steps {
            now += step;
            match ends {
                Some(which) if !under_way.is_empty() => {
                    let started = under_way.swap_remove(which.index(under_way.len()));
                    overdue.end(0, started);
                }
                _ => {
                    overdue.start(0, now);
                    under_way.push(now);
                }
            }
            let older = |limit: u64| under_way.iter().filter(|started| now - **started >= limit).count() as u64;
            let counted = overdue.count(0, now);
            prop_assert!(counted <= older(LIMIT), "none before its time");
            prop_assert!(counted >= older(LIMIT + 100), "none later than an eighth");
        }
    }
}

#[test]
fn after_a_million_successes_five_failures_are_half_of_ten() {
    let window = CountWindow::new(10);
    for _ in 0..1_000_000 {
        window.record(0, false);
    }
    let hits: Vec<_> = (0..12)
        .map(|_| window.record(0, true).unwrap().hits)
        .collect();
    assert_eq!(hits, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]);
}

#[test]
fn a_bucket_holds_more_than_its_word() {
    let window = TimeWindow::new(10 * SECOND);
    let calls = 5_000_000;
    for n in 0..calls {
        window.record(0, n % 1_000, n % 2 == 0);
    }
    assert_eq!(
        window.read(0, SECOND),
        Some(Reading::counted(calls, calls / 2))
    );
    assert_eq!(
        window.record(0, 9 * SECOND, true),
        Some(Reading::counted(calls + 1, calls / 2 + 1))
    );
    assert_eq!(
        window.record(0, 10 * SECOND, true),
        Some(Reading::counted(2, 2)),
        "the bucket of second 0 is gone"
    );
}

#[test]
fn a_clock_that_steps_back_counts_as_the_present() {
    let window = TimeWindow::new(10 * SECOND);
    window.record(0, 20 * SECOND, true);
    assert_eq!(
        window.record(0, 3 * SECOND, true),
        Some(Reading::counted(2, 2))
    );
    assert_eq!(
        window.record(0, 20 * SECOND, false),
        Some(Reading::counted(3, 2))
    );
    assert_eq!(
        window.record(0, u64::MAX, false),
        Some(Reading::counted(1, 0)),
        "584 years later"
    );
}

#[test]
fn a_record_of_an_epoch_that_is_over_changes_nothing() {
    let windows = [
        Counter::Count(CountWindow::new(4)),
        Counter::Time(TimeWindow::new(10 * SECOND)),
        Counter::Ewma(EwmaWindow::new(4)),
    ];
    for window in windows {
        for _ in 0..4 {
            assert!(window.record(0, 0, true).is_some());
        }
        window.reset(3);
        assert_eq!(window.record(0, 0, true), None);
        assert_eq!(window.read(3, 0).unwrap().hits, 0);
        let reading = window.record(3, 0, false).unwrap();
        assert_eq!((reading.calls, reading.hits), (1, 0));
    }
    let overdue = Overdue::new(8);
    overdue.start(0, 0);
    overdue.reset(1);
    overdue.start(0, 0);
    overdue.end(0, 0);
    assert_eq!(overdue.count(1, 1_000), 0);
    overdue.start(1, 1_000);
    assert_eq!(overdue.count(1, 2_000), 1);
}

#[test]
fn an_average_at_rest_is_exactly_zero() {
    let window = EwmaWindow::new(100);
    (0..50).for_each(|_| _ = window.record(0, true));
    (0..10_000).for_each(|_| _ = window.record(0, false));
    assert_eq!(window.read(0).unwrap().hits, 0);
}

/// Hands out the same numbers for the same seed.
fn splitmix(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*seed ^ *seed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ mixed >> 27
}

#[test]
fn threads_lose_no_record_at_a_rotation() {
    for seed in 0..20 {
        let window = TimeWindow::new(1_000);
        let hits: u64 = std::thread::scope(|scope| {
            let worker = |mut seed: u64| {
                let window = &window;
                move || {
                    // All within the window, with a rotation every few records.
                    (0..2_000u64)
                        .filter(|n| {
                            let hit = splitmix(&mut seed).is_multiple_of(3);
                            assert!(window.record(0, n * 999 / 2_000, hit).is_some());
                            hit
                        })
                        .count() as u64
                }
            };
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(worker(seed * 4 + n))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(window.read(0, 999), Some(Reading::counted(8_000, hits)));
    }
}

#[test]
fn threads_keep_the_running_number_the_sum_of_the_ring() {
    for seed in 0..50 {
        let window = CountWindow::new(7);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let window = &window;
                let mut seed = seed * 4 + n;
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        window.record(0, splitmix(&mut seed).is_multiple_of(2));
                    }
                });
            }
        });
        // Seven of one kind push out whatever is in it.
        (0..7).for_each(|_| _ = window.record(0, false));
        assert_eq!(window.read(0), Some(Reading::counted(7, 0)), "seed {seed}");
    }
}

#[test]
fn threads_of_an_old_epoch_do_not_leak_into_the_new_one() {
    for _ in 0..100 {
        let windows = [
            Counter::Count(CountWindow::new(16)),
            Counter::Time(TimeWindow::new(10)),
            Counter::Ewma(EwmaWindow::new(16)),
        ];
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for n in 0..200 {
                        windows
                            .iter()
                            .for_each(|window| _ = window.record(0, n, true));
                    }
                });
            }
            scope.spawn(|| {
                for window in &windows {
                    window.reset(1);
                    for n in 0..50 {
                        let reading = window.record(1, n, false).unwrap();
                        assert_eq!(reading.hits, 0, "every hit is of the old epoch");
                    }
                }
            });
        });
    }
}
