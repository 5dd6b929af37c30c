//! Every interleaving of two or three threads, under the model checker:
//! `RUSTFLAGS="--cfg mainstay_loom" cargo test -p mainstay-retry --lib --release loom`.

use loom::{sync::Arc, thread};

use super::*;
use crate::{
    backoff::Backoff,
    breaker::{
        HalfOpen, Trip, WhenOpen,
        window::{CountWindow, EwmaWindow, Overdue, Reading, TimeWindow},
    },
};

fn machine(trip: Trip, probes: u32, start: Instant) -> Machine {
    let settings = Settings {
        trip,
        wait_in_open: Backoff::constant(Duration::from_secs(1)),
        half_open: HalfOpen::probes(probes),
        when_open: WhenOpen::RejectInCall,
    };
    Machine::new(settings, start)
}

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn changed(recorded: &Recorded) -> usize {
    usize::from(matches!(recorded, Recorded::Changed(_)))
}

fn granted(machine: &Machine, now: Instant) -> Option<Ticket> {
    match machine.admit(|| now).0 {
        Admission::Granted(ticket) => Some(ticket),
        Admission::Refused(_) => None,
    }
}

/// Runs the two at the same time.
fn both<T: 'static, U>(one: impl FnOnce() -> T + 'static, two: impl FnOnce() -> U) -> (T, U) {
    let one = thread::spawn(one);
    let two = two();
    (one.join().unwrap(), two)
}

#[test]
fn a_count_window_holds_what_two_threads_put_there() {
    loom::model(|| {
        let window = Arc::new(CountWindow::new(2));
        let other = Arc::clone(&window);
        both(
            move || other.record(0, true),
            || {
                window.record(0, true);
                window.record(0, false);
            },
        );
        let reading = window.read(0).unwrap();
        assert_eq!(reading.calls, 2);
        // Two of one kind push everything out.
        window.record(0, false);
        window.record(0, false);
        assert_eq!(window.read(0), Some(Reading::counted(2, 0)));
    });
}

#[test]
fn a_success_that_puts_nothing_leaves_no_hit_behind() {
    loom::model(|| {
        let window = Arc::new(CountWindow::new(2));
        let other = Arc::clone(&window);
        let good = |window: &CountWindow| {
            let turn = window.take_good_turn(0);
            let reading = turn.and_then(|turn| window.put_good(turn, 0));
            assert!(reading.is_none_or(|reading| reading.hits <= 1));
        };
        both(
            move || other.record(0, true),
            || {
                good(&window);
                good(&window);
            },
        );
        good(&window);
        good(&window);
        assert_eq!(window.read(0), Some(Reading::counted(2, 0)));
        // In a place that still held one, a hit would not count.
        for hits in 1..=2 {
            assert_eq!(window.record(0, true), Some(Reading::counted(2, hits)));
        }
    });
}

#[test]
fn a_stale_record_leaves_a_count_window_that_was_reset_as_it_is() {
    loom::model(|| {
        let window = Arc::new(CountWindow::new(1));
        let other = Arc::clone(&window);
        both(
            move || other.record(0, true),
            || {
                window.reset(1);
                let reading = window.record(1, false).unwrap();
                assert_eq!(reading, Reading::counted(1, 0));
            },
        );
        assert_eq!(window.read(1), Some(Reading::counted(1, 0)));
    });
}

#[test]
fn a_time_window_loses_nothing_when_two_threads_close_a_bucket() {
    loom::model(|| {
        let window = Arc::new(TimeWindow::new(100));
        window.record(0, 5, true);
        let other = Arc::clone(&window);
        both(
            move || other.record(0, 15, true),
            || window.record(0, 9, false),
        );
        assert_eq!(window.read(0, 15), Some(Reading::counted(3, 2)));
    });
}

#[test]
fn two_threads_that_wake_a_time_window_after_an_hour_are_both_counted() {
    loom::model(|| {
        let window = Arc::new(TimeWindow::new(100));
        window.record(0, 5, true);
        let other = Arc::clone(&window);
        both(
            move || other.record(0, 10_000, true),
            || window.record(0, 10_001, false),
        );
        assert_eq!(window.read(0, 10_001), Some(Reading::counted(2, 1)));
    });
}

#[test]
fn a_stale_record_leaves_a_time_window_that_was_reset_as_it_is() {
    loom::model(|| {
        let window = Arc::new(TimeWindow::new(100));
        let other = Arc::clone(&window);
        both(
            move || other.record(0, 5, true),
            || {
                window.reset(1);
                window.record(1, 5, false);
            },
        );
        assert_eq!(window.read(1, 5), Some(Reading::counted(1, 0)));
    });
}

#[test]
fn failures_that_meet_a_rule_together_open_it_once() {
    loom::model(|| {
        let now = start();
        let trip = Trip::failure_rate(1.0).window(super::super::Window::count(2));
        let machine = Arc::new(machine(trip, 1, now));
        let ticket = granted(&machine, now).unwrap();
        let other = Arc::clone(&machine);
        let (one, two) = both(
            move || other.record(ticket, Some(false), || now),
            || machine.record(ticket, Some(false), || now),
        );
        let opened = changed(&one) + changed(&two);
        assert!(opened <= 1);
        // The checker knows no sequential consistency, so both may miss the other; then the next sees them.
        if opened == 0 {
            assert_eq!(changed(&machine.record(ticket, Some(false), || now)), 1);
        }
        assert_eq!(machine.state(), State::Open);
    });
}

#[test]
fn failures_in_a_row_open_it_once() {
    loom::model(|| {
        let now = start();
        let machine = Arc::new(machine(Trip::consecutive(2), 1, now));
        let ticket = granted(&machine, now).unwrap();
        let other = Arc::clone(&machine);
        let (one, two) = both(
            move || other.record(ticket, Some(false), || now),
            || machine.record(ticket, Some(false), || now),
        );
        assert_eq!(changed(&one) + changed(&two), 1);
    });
}

#[test]
fn no_more_probes_are_out_than_permitted() {
    loom::model(|| {
        let now = start();
        let machine = Arc::new(machine(Trip::consecutive(1), 1, now));
        let ticket = granted(&machine, now).unwrap();
        machine.record(ticket, Some(false), || now);
        let later = now + Duration::from_secs(1);
        let other = Arc::clone(&machine);
        let (one, two) = both(move || granted(&other, later), || granted(&machine, later));
        assert_eq!(usize::from(one.is_some()) + usize::from(two.is_some()), 1);
        // Given back, it makes room for one more and no other.
        let probe = one.or(two).unwrap();
        assert_eq!(machine.record(probe, None, || later), Recorded::Freed);
        assert!(granted(&machine, later).is_some());
        assert!(granted(&machine, later).is_none());
    });
}

#[test]
fn an_outcome_from_before_an_order_does_not_move_the_state_after_it() {
    loom::model(|| {
        let now = start();
        let trip =
            Trip::consecutive(1).or(Trip::failure_rate(1.0).window(super::super::Window::count(1)));
        let machine = Arc::new(machine(trip, 1, now));
        let old = granted(&machine, now).unwrap();
        let other = Arc::clone(&machine);
        both(
            move || other.record(old, Some(false), || now),
            || machine.force(State::Closed, now),
        );
        assert_eq!(machine.state(), State::Closed);
        assert_eq!(machine.snapshot(now).rates.first().unwrap().calls, 0);
    });
}

#[test]
fn a_stale_record_leaves_an_average_that_was_reset_as_it_is() {
    loom::model(|| {
        let window = Arc::new(EwmaWindow::new(4));
        let other = Arc::clone(&window);
        both(
            move || other.record(0, true),
            || {
                window.reset(1);
                window.record(1, false);
            },
        );
        let reading = window.read(1).unwrap();
        assert_eq!((reading.calls, reading.hits), (1, 0));
    });
}

#[test]
fn three_threads_meet_at_the_turn_of_a_bucket_and_all_are_counted() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let window = Arc::new(TimeWindow::new(100));
        let threads: Vec<_> = [11, 12]
            .map(|now| {
                let window = Arc::clone(&window);
                thread::spawn(move || window.record(0, now, true))
            })
            .into();
        window.record(0, 9, true);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(window.read(0, 12), Some(Reading::counted(3, 3)));
    });
}

#[test]
fn calls_that_end_while_their_place_is_taken_are_not_overdue() {
    loom::model(|| {
        let overdue = Arc::new(Overdue::new(8));
        overdue.start(0, 1);
        let other = Arc::clone(&overdue);
        // A place is taken again after ten ticks; the call that leaves it has been late by then.
        both(move || other.end(0, 1), || overdue.start(0, 11));
        assert_eq!(overdue.count(0, 11), 0);
        assert_eq!(overdue.count(0, 30), 1);
    });
}

#[test]
fn a_probe_and_an_order_make_one_change_each_or_the_order_alone() {
    loom::model(|| {
        let now = start();
        let machine = Arc::new(machine(Trip::consecutive(1), 1, now));
        let ticket = granted(&machine, now).unwrap();
        machine.record(ticket, Some(false), || now);
        let later = now + Duration::from_secs(1);
        let probe = granted(&machine, later).unwrap();
        let other = Arc::clone(&machine);
        let (ended, forced) = both(
            move || changed(&other.record(probe, Some(true), || later)),
            || machine.force(State::ForcedOpen, later),
        );
        assert!(forced.is_some());
        assert_eq!(machine.state(), State::ForcedOpen);
        // Opened, half-open, forced; and closed between, if the probe was first.
        assert_eq!(machine.snapshot(later).generation, 3 + ended as u64);
    });
}

#[test]
fn a_stale_record_does_not_hide_a_new_hit() {
    loom::model(|| {
        let window = Arc::new(CountWindow::new(1));
        let other = Arc::clone(&window);
        both(
            move || other.record(0, true),
            || {
                window.reset(1);
                window.record(1, true);
            },
        );
        assert_eq!(window.read(1), Some(Reading::counted(1, 1)));
        // The place must still know that it is a hit, for the next to take it out.
        assert_eq!(window.record(1, false), Some(Reading::counted(1, 0)));
    });
}
