use proptest::prelude::*;

use super::*;
use crate::{
    backoff::Backoff,
    breaker::{HalfOpen, Trip, WhenOpen, Window},
};

const GOOD: Option<bool> = Some(true);
const BAD: Option<bool> = Some(false);

impl Machine {
    /// The change of state that came of an outcome.
    fn told(
        &self,
        ticket: Ticket,
        health: Option<bool>,
        now: impl Fn() -> Instant,
    ) -> Option<Transition> {
        match self.record(ticket, health, now) {
            Recorded::Changed(change) => Some(change),
            Recorded::Counted | Recorded::Freed => None,
        }
    }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Trips at `failures`, stays open 1, 2, 4 s, wants `probes`, gives them 10 s.
fn machine(failures: u32, probes: u32) -> Machine {
    with_trip(Trip::consecutive(failures), probes)
}

fn with_trip(trip: Trip, probes: u32) -> Machine {
    let settings = Settings {
        trip,
        wait_in_open: Backoff::exponential(secs(1), secs(4)),
        half_open: HalfOpen::probes(probes).max_wait(secs(10)),
        when_open: WhenOpen::RejectInCall,
    };
    Machine::new(settings, start())
}

fn granted(machine: &Machine, now: Instant) -> Ticket {
    match machine.admit(|| now).0 {
        Admission::Granted(ticket) => ticket,
        Admission::Refused(wait) => panic!("refused for {wait:?} in {:?}", machine.state()),
    }
}

fn refused(machine: &Machine, now: Instant) -> Duration {
    let (refuse, change) = machine.would_refuse(|| now);
    assert_eq!(change, None);
    match machine.admit(|| now).0 {
        Admission::Granted(_) => panic!("granted in {:?}", machine.state()),
        Admission::Refused(wait) => {
            assert_eq!(refuse, Some(wait));
            wait
        }
    }
}

fn fail(machine: &Machine, now: Instant) {
    let generation = granted(machine, now);
    machine.told(generation, BAD, || now);
}

fn opened(probes: u32) -> (Machine, Instant) {
    let (machine, now) = (machine(1, probes), start());
    fail(&machine, now);
    assert_eq!(machine.state(), State::Open);
    (machine, now)
}

#[test]
fn it_opens_at_exactly_the_fifth_failure_after_a_million_successes() {
    let (machine, now) = (machine(5, 1), start());
    for _ in 0..1_000_000 {
        let generation = granted(&machine, now);
        assert_eq!(machine.told(generation, GOOD, || now), None);
    }
    for _ in 0..4 {
        fail(&machine, now);
        assert_eq!(machine.state(), State::Closed);
    }
    fail(&machine, now);
    assert_eq!(machine.state(), State::Open);
}

#[test]
fn a_success_between_starts_the_count_again_and_silence_does_not() {
    let (machine, now) = (machine(2, 1), start());
    for health in [BAD, GOOD, BAD, GOOD] {
        let generation = granted(&machine, now);
        machine.told(generation, health, || now);
    }
    assert_eq!(machine.state(), State::Closed);
    fail(&machine, now);
    let generation = granted(&machine, now);
    machine.told(generation, None, || now);
    fail(&machine, now);
    assert_eq!(machine.state(), State::Open);
}

#[test]
fn open_refuses_until_the_wait_is_over_and_says_how_long() {
    let (machine, now) = opened(1);
    assert_eq!(refused(&machine, now), secs(1));
    assert_eq!(
        refused(&machine, now + Duration::from_millis(999)),
        Duration::from_millis(1)
    );
    let (admission, change) = machine.admit(|| now + secs(1));
    let change = change.unwrap();
    assert_eq!((change.from, change.to), (State::Open, State::HalfOpen));
    assert!(
        matches!(admission, Admission::Granted(ticket) if ticket.generation() == change.generation)
    );
}

#[test]
fn half_open_lets_in_no_more_probes_than_permitted() {
    let (machine, now) = opened(3);
    let later = now + secs(1);
    let generations: Vec<_> = (0..3).map(|_| granted(&machine, later)).collect();
    assert_eq!(refused(&machine, later), Duration::ZERO);
    machine.told(generations[0], GOOD, || later);
    assert_eq!(
        refused(&machine, later),
        Duration::ZERO,
        "one has succeeded, two are out: no room for a fourth"
    );
    machine.told(generations[1], None, || later);
    let replacement = granted(&machine, later);
    machine.told(generations[2], GOOD, || later);
    assert_eq!(machine.state(), State::HalfOpen);
    let change = machine.told(replacement, GOOD, || later).unwrap();
    assert_eq!(change.to, State::Closed);
}

#[test]
fn failed_probes_open_it_for_longer_each_time_and_closing_forgets_that() {
    let (machine, mut now) = opened(1);
    for wait in [1, 2, 4, 4] {
        assert_eq!(refused(&machine, now), secs(wait));
        now += secs(wait);
        fail(&machine, now);
    }
    now += secs(4);
    let probe = granted(&machine, now);
    machine.told(probe, GOOD, || now);
    assert_eq!(machine.state(), State::Closed);
    fail(&machine, now);
    assert_eq!(refused(&machine, now), secs(1));
}

#[test]
fn a_probe_that_never_ends_does_not_keep_it_half_open() {
    let (machine, now) = opened(1);
    let lost = granted(&machine, now + secs(1));
    assert_eq!(refused(&machine, now + secs(10)), Duration::ZERO);
    let (admission, change) = machine.admit(|| now + secs(11));
    assert_eq!(admission, Admission::Refused(secs(2)));
    assert_eq!(change.unwrap().to, State::Open);
    let next = granted(&machine, now + secs(13));
    assert_eq!(
        machine.told(lost, BAD, || now + secs(13)),
        None,
        "the lost probe is of another time"
    );
    assert_eq!(
        machine.told(next, GOOD, || now + secs(13)).unwrap().to,
        State::Closed
    );
}

#[test]
fn asking_whether_it_would_refuse_ends_half_open_too() {
    let (machine, now) = opened(1);
    granted(&machine, now + secs(1));
    let (refuse, change) = machine.would_refuse(|| now + secs(11));
    assert_eq!(refuse, Some(secs(2)));
    assert_eq!(change.unwrap().to, State::Open);
    assert_eq!(refused(&machine, now + secs(11)), secs(2));
}

#[test]
fn a_success_from_before_the_outage_does_not_close_it() {
    let (machine, now) = (machine(1, 1), start());
    let old = granted(&machine, now);
    fail(&machine, now);
    granted(&machine, now + secs(1));
    assert_eq!(machine.state(), State::HalfOpen);
    assert_eq!(machine.told(old, GOOD, || now + secs(1)), None);
    assert_eq!(machine.state(), State::HalfOpen);
}

#[test]
fn failures_from_before_do_not_open_it_again() {
    let (machine, now) = (machine(1, 1), start());
    let old = granted(&machine, now);
    fail(&machine, now);
    let probe = granted(&machine, now + secs(1));
    machine.told(probe, GOOD, || now + secs(1));
    assert_eq!(machine.told(old, BAD, || now + secs(1)), None);
    assert_eq!(machine.state(), State::Closed);
}

#[test]
fn successes_from_before_do_not_hide_failures_of_now() {
    let (machine, now) = (machine(2, 1), start());
    let old = granted(&machine, now);
    machine.force(State::ForcedOpen, now);
    machine.force(State::Closed, now);
    fail(&machine, now);
    machine.told(old, GOOD, || now);
    fail(&machine, now);
    assert_eq!(machine.state(), State::Open);
}

#[test]
fn forced_states_outlive_timers_and_outcomes() {
    let (machine, now) = opened(1);
    assert!(machine.force(State::ForcedOpen, now).is_some());
    assert!(
        machine.force(State::ForcedOpen, now).is_none(),
        "no change, no event"
    );
    assert_eq!(refused(&machine, now + secs(1_000_000)), Duration::ZERO);
    for state in [State::ForcedClosed, State::Disabled, State::MetricsOnly] {
        machine.force(state, now);
        (0..10).for_each(|_| fail(&machine, now));
        assert_eq!(machine.state(), state);
    }
    machine.force(State::Closed, now);
    fail(&machine, now);
    assert_eq!(refused(&machine, now), secs(1));
}

#[test]
fn a_clock_that_jumps_does_no_harm() {
    let (machine, now) = opened(1);
    let before = now.checked_sub(secs(100)).unwrap_or(now);
    assert!(refused(&machine, before) >= secs(1));
    granted(&machine, now + secs(86_400 * 300));
    assert_eq!(machine.state(), State::HalfOpen);
    assert_eq!(refused(&machine, before), Duration::ZERO);
}

#[derive(Clone, Debug)]
enum Step {
    Admit,
    Record(usize, Option<bool>),
    Wait(u64),
    Force(State),
}

fn any_step() -> impl Strategy<Value = Step> {
    let health = prop_oneof![Just(GOOD), Just(BAD), Just(None)];
    let forced = [
        State::ForcedOpen,
        State::ForcedClosed,
        State::Disabled,
        State::Closed,
    ];
    prop_oneof![
        8 => Just(Step::Admit),
        8 => (any::<usize>(), health).prop_map(|(which, health)| Step::Record(which, health)),
        3 => (0..5_000u64).prop_map(Step::Wait),
        1 => proptest::sample::select(forced.to_vec()).prop_map(Step::Force),
    ]
}

proptest! {
    #[test]
    fn every_history_keeps_the_laws(failures in 1..4u32, probes in 1..4u32, steps in proptest::collection::vec(any_step(), 0..200)) {
        let machine = machine(failures, probes);
        let mut now = start();
        let mut state = State::Closed;
        let mut generation = 0;
        let mut out: Vec<Ticket> = Vec::new();
        for step in steps {
            let mut forced = false;
            let change = match step {
                Step::Admit => {
                    let (refuse, ended) = machine.would_refuse(|| now);
                    let (admission, change) = machine.admit(|| now);
                    if let Admission::Granted(ticket) = admission {
                        prop_assert!(refuse.is_none());
                        out.push(ticket);
                    }
                    prop_assert!(refuse.is_none() || change.is_none());
                    ended.or(change)
                }
                Step::Record(_, _) if out.is_empty() => None,
                Step::Record(which, health) => {
                    let admitted = out.swap_remove(which % out.len());
                    let change = machine.told(admitted, health, || now);
                    prop_assert!(change.is_none() || admitted.generation() == generation, "a stale outcome changed the state");
                    change
                }
                Step::Wait(millis) => { now += Duration::from_millis(millis); None }
                Step::Force(to) => { forced = true; machine.force(to, now) }
            };
            if forced && change.is_none() {
                generation += 1; // the same state anew: no event, but what was under way is stale
            }
            if let Some(change) = change {
                prop_assert_eq!(change.from, state);
                prop_assert!(change.generation > generation);
                let natural = matches!(
                    (change.from, change.to),
                    (State::Closed, State::Open) | (State::Open, State::HalfOpen)
                        | (State::HalfOpen, State::Open | State::Closed)
                );
                prop_assert!(natural || forced, "{:?}", change);
                (state, generation) = (change.to, change.generation);
            }
            prop_assert_eq!(machine.state(), state);
            let probing = out.iter().filter(|admitted| admitted.generation() == generation).count();
            prop_assert!(state != State::HalfOpen || probing <= probes as usize);
        }
    }
}

#[test]
fn threads_that_fail_together_open_it_once() {
    for _ in 0..200 {
        let (machine, now) = (machine(3, 1), start());
        let generation = granted(&machine, now);
        let opened: usize = std::thread::scope(|scope| {
            let worker = || {
                (0..8)
                    .filter(|_| machine.told(generation, BAD, || now).is_some())
                    .count()
            };
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(worker)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(opened, 1);
    }
}

#[test]
fn what_was_under_way_when_a_closed_circuit_is_reset_does_not_count() {
    let (machine, now) = (machine(1, 1), start());
    let before = granted(&machine, now);
    assert_eq!(machine.force(State::Closed, now), None);
    assert_eq!(machine.told(before, BAD, || now), None);
    assert_eq!(machine.state(), State::Closed);
    fail(&machine, now);
    assert_eq!(machine.state(), State::Open);
}

fn call(machine: &Machine, now: Instant, health: Option<bool>) -> Option<Transition> {
    let ticket = granted(machine, now);
    machine.told(ticket, health, || now)
}

/// Which of these calls opens the circuit: `F` fails, `S` succeeds, `.` says nothing, a digit passes so many seconds.
fn opens_at(trip: Trip, history: &str) -> Option<usize> {
    let (machine, mut now) = (with_trip(trip, 1), start());
    for (n, step) in history.chars().filter(|step| *step != ' ').enumerate() {
        let change = match step {
            'F' => call(&machine, now, BAD),
            'S' => call(&machine, now, GOOD),
            '.' => call(&machine, now, None),
            seconds => {
                now += secs(u64::from(seconds.to_digit(10).unwrap()));
                None
            }
        };
        if let Some(change) = change {
            assert_eq!(change.to, State::Open);
            return Some(n + 1);
        }
    }
    None
}

#[test]
fn each_rule_opens_at_exactly_its_threshold() {
    let half = Trip::failure_rate(0.5);
    let ten = half.window(Window::count(10)).min_calls(10);
    let timed = half.window(Window::time(secs(10))).min_calls(4);
    let third = Trip::failure_rate(1.0 / 3.0)
        .window(Window::count(3))
        .min_calls(3);
    let tenths = Trip::failure_rate(0.3)
        .window(Window::count(10))
        .min_calls(10);
    let cases = [
        (Trip::consecutive(3), "FFSFFSFFF", Some(9)),
        (Trip::consecutive(1), "SSF", Some(3)),
        // Not before there are enough calls, and then a success may be the last that was missing.
        (ten, "FFFFFFFFF", None),
        (ten, "FFFFFFFFFF", Some(10)),
        (ten, "FFFFFSSSSS", Some(10)),
        (ten, "FFFFSSSSSS", None),
        (ten, "FFFFSSSSSS SSSS FFFF", None),
        (ten, "SSSSSSSSSS SSSSS FFFFF", Some(20)),
        (ten, "FFFF SSSSSS F", None), // the first has gone as the fifth came
        (ten, "FF..SS..FF..SS..FS", Some(18)),
        // Written with a finite number of digits, met exactly.
        (tenths, "SSSSSSSFFF", Some(10)),
        (tenths, "SSSSSSSSFF", None),
        (third, "SSSF", Some(4)),
        (third, "SSSSSS", None),
        (
            Trip::failure_rate(1.0).window(Window::count(4)),
            "SFFFF",
            Some(5),
        ),
        // What is older than the window does not count; a bucket is a second.
        (timed, "FFF 9 F", Some(5)),
        (timed, "FFF 91 F", None),
        (timed, "FFSS", Some(4)),
        (timed, "F S S S F 5 F", Some(7)),
        (timed, "F S S S 5 F 5 F F F", Some(10)),
        // Either of two.
        (Trip::consecutive(4).or(ten), "SFFFSFFFS F", Some(10)),
        (Trip::consecutive(4).or(ten), "SFFFF", Some(5)),
        (
            Trip::consecutive(9).or(Trip::consecutive(2)),
            "FSFF",
            Some(4),
        ),
        // An average of five: a failure weighs a third of what is missing to one.
        (half.window(Window::ewma(5)).min_calls(1), "FF", Some(2)),
        (half.window(Window::ewma(5)).min_calls(5), "FFFFF", Some(5)),
        (
            half.window(Window::ewma(5)).min_calls(1),
            "FSFSFSF",
            Some(5),
        ),
    ];
    for (trip, history, expected) in cases {
        assert_eq!(
            opens_at(trip, history),
            expected,
            "{history} under {trip:?}"
        );
    }
}

#[test]
fn after_a_million_successes_half_of_ten_is_the_fifth_failure() {
    for window in [Window::count(10), Window::ewma(10)] {
        let trip = Trip::failure_rate(0.5).window(window);
        let (machine, now) = (with_trip(trip, 1), start());
        for _ in 0..1_000_000 {
            assert_eq!(call(&machine, now, GOOD), None);
        }
        let failures = (1..).find(|_| call(&machine, now, BAD).is_some());
        let expected = if window == Window::count(10) { 5 } else { 4 };
        assert_eq!(failures, Some(expected));
    }
}

#[test]
fn a_reset_forgets_every_window_and_what_was_under_way() {
    for window in [Window::count(4), Window::time(secs(10)), Window::ewma(4)] {
        let trip = Trip::failure_rate(0.7).window(window).min_calls(4);
        let (machine, now) = (with_trip(trip, 1), start());
        (0..2).for_each(|_| assert_eq!(call(&machine, now, BAD), None));
        let old: Vec<_> = (0..4).map(|_| granted(&machine, now)).collect();
        machine.force(State::Closed, now);
        for ticket in old {
            assert_eq!(machine.told(ticket, BAD, || now), None);
        }
        let rate = machine.snapshot(now).rates[0];
        assert_eq!((rate.calls, rate.rate), (0, 0.0));
    }
}

#[test]
fn a_jump_of_months_empties_a_time_window_and_a_step_back_does_not() {
    let trip = Trip::failure_rate(0.5)
        .window(Window::time(secs(10)))
        .min_calls(4);
    let (machine, now) = (with_trip(trip, 1), start());
    (0..3).for_each(|_| assert_eq!(call(&machine, now + secs(50), BAD), None));
    let later = now + secs(86_400 * 200);
    assert_eq!(call(&machine, later, BAD), None);
    assert_eq!(call(&machine, later, BAD), None);
    assert_eq!(
        call(&machine, now, BAD),
        None,
        "an earlier clock counts as now"
    );
    assert!(call(&machine, later, BAD).is_some());
}

fn slow(min_calls: u32) -> Machine {
    let trip = Trip::slow_calls(0.5, secs(8)).window(Window::count(10));
    with_trip(trip.min_calls(min_calls), 1)
}

#[test]
fn slow_calls_open_it_whatever_came_of_them() {
    let (machine, now) = (slow(4), start());
    let tickets: Vec<_> = (0..4).map(|_| granted(&machine, now)).collect();
    let health = [GOOD, GOOD, BAD, None];
    let took = [7, 7, 8, 8];
    let changes: Vec<_> = (0..4)
        .map(|n| {
            machine
                .told(tickets[n], health[n], || now + secs(took[n]))
                .is_some()
        })
        .collect();
    assert_eq!(changes, [false, false, false, true]);
}

#[test]
fn a_call_that_is_given_up_early_says_nothing() {
    let (machine, now) = (slow(1), start());
    let ticket = granted(&machine, now);
    assert_eq!(machine.told(ticket, None, || now + secs(7)), None);
    assert_eq!(machine.snapshot(now).rates[0].calls, 0);
}

#[test]
fn calls_that_hang_open_it_without_ever_ending() {
    let (machine, now) = (slow(4), start());
    (0..4).for_each(|_| _ = granted(&machine, now));
    assert!(matches!(
        machine.admit(|| now + secs(7)).0,
        Admission::Granted(_)
    ));
    assert_eq!(machine.state(), State::Closed);
    let (admission, change) = machine.admit(|| now + secs(9));
    assert_eq!(admission, Admission::Refused(secs(1)));
    assert_eq!(change.unwrap().to, State::Open);
}

#[test]
fn calls_that_hung_before_a_reset_do_not_count_after_it() {
    let (machine, now) = (slow(1), start());
    (0..4).for_each(|_| _ = granted(&machine, now));
    machine.force(State::Closed, now);
    granted(&machine, now + secs(9));
    granted(&machine, now + secs(16));
    assert_eq!(machine.state(), State::Closed);
}

#[test]
fn a_slow_probe_is_a_failed_one() {
    let (machine, now) = (slow(1), start());
    let ticket = granted(&machine, now);
    assert!(machine.told(ticket, GOOD, || now + secs(8)).is_some());
    for health in [GOOD, None] {
        let later = now + secs(100);
        let probe = granted(&machine, later);
        let change = machine.told(probe, health, || later + secs(8)).unwrap();
        assert_eq!((change.from, change.to), (State::HalfOpen, State::Open));
        machine.force(State::Closed, later);
        let ticket = granted(&machine, later);
        machine.told(ticket, GOOD, || later + secs(8));
        assert_eq!(machine.state(), State::Open);
        machine.force(State::Closed, now);
        let ticket = granted(&machine, now);
        machine.told(ticket, GOOD, || now + secs(8));
    }
}

#[test]
fn metrics_only_never_refuses_and_says_once_when_it_would() {
    let (machine, now) = (machine(3, 1), start());
    assert_eq!(
        machine.force(State::MetricsOnly, now).unwrap().to,
        State::MetricsOnly
    );
    let told: Vec<_> = (0..9).filter_map(|_| call(&machine, now, BAD)).collect();
    assert_eq!(told.len(), 1, "one word for one outage");
    assert_eq!(
        (told[0].from, told[0].to),
        (State::MetricsOnly, State::MetricsOnly)
    );
    let later: Vec<_> = (0..3)
        .filter_map(|_| call(&machine, now + secs(1), BAD))
        .collect();
    assert_eq!(later.len(), 1);
    assert_eq!(machine.snapshot(now).opened, 2);
    assert_eq!(machine.state(), State::MetricsOnly);
}

#[test]
fn a_snapshot_tells_what_it_knows() {
    let trip = Trip::consecutive(9)
        .or(Trip::failure_rate(0.75)
            .window(Window::count(8))
            .min_calls(5))
        .or(Trip::slow_calls(0.9, secs(8)));
    let (machine, now) = (with_trip(trip, 1), start());
    let hanging = granted(&machine, now);
    for health in [GOOD, BAD, BAD] {
        call(&machine, now, health);
    }
    let seen = machine.snapshot(now + secs(9));
    assert_eq!(
        (seen.state, seen.failures_in_a_row, seen.opened),
        (State::Closed, 2, 0)
    );
    let [failed, slow] = &seen.rates[..] else {
        panic!()
    };
    assert_eq!(
        (failed.calls, failed.min_calls, failed.threshold),
        (3, 5, 0.75)
    );
    assert!((failed.rate - 2.0 / 3.0).abs() < 1e-9);
    assert_eq!((slow.calls, slow.rate, slow.overdue), (3, 0.0, 1));
    assert_eq!(slow.slow_after, Some(secs(8)));
    machine.told(hanging, BAD, || now);
    call(&machine, now, BAD);
    let seen = machine.snapshot(now);
    assert_eq!(
        (seen.state, seen.opened, seen.time_to_probe),
        (State::Open, 1, Some(secs(1)))
    );
}

proptest! {
    /// The whole machine against all outcomes in a list.
    #[test]
    fn a_rate_opens_exactly_when_the_list_says_so(
        size in 1..12u32, min in 1..12u32, percent in 1..101u32,
        outcomes in proptest::collection::vec(any::<bool>(), 0..100),
    ) {
        let min = min.min(size);
        let rate = f64::from(percent) / 100.0;
        let trip = Trip::failure_rate(rate).window(Window::count(size)).min_calls(min);
        let (machine, now) = (with_trip(trip, 1), start());
        for n in 0..outcomes.len() {
            let window = &outcomes[(n + 1).saturating_sub(size as usize)..=n];
            let bad = window.iter().filter(|good| !**good).count() as u32;
            let calls = window.len() as u32;
            let expected = calls >= min && bad > 0 && bad * 100 >= percent * calls;
            let change = call(&machine, now, Some(outcomes[n]));
            prop_assert_eq!(change.is_some(), expected);
            if expected {
                break;
            }
        }
    }
}

#[test]
fn threads_make_one_event_for_each_change() {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    for seed in 0..20u64 {
        let trip = Trip::failure_rate(0.5)
            .window(Window::count(8))
            .min_calls(4);
        let (machine, now) = (with_trip(trip.or(Trip::consecutive(3)), 2), start());
        let (changes, clock) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (machine, changes, clock) = (&machine, &changes, &clock);
                let mut seed = seed * 4 + thread;
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let at = now + Duration::from_millis(clock.fetch_add(seed >> 61, SeqCst));
                        let (admission, change) = machine.admit(|| at);
                        changes.fetch_add(u64::from(change.is_some()), SeqCst);
                        let Admission::Granted(ticket) = admission else {
                            continue;
                        };
                        if seed >> 60 & 1 == 0 {
                            std::thread::yield_now();
                        }
                        let health = [GOOD, BAD, BAD, None][(seed >> 33) as usize % 4];
                        let change = machine.told(ticket, health, || at);
                        changes.fetch_add(u64::from(change.is_some()), SeqCst);
                    }
                });
            }
        });
        // Every change starts one generation, and nothing else does.
        assert_eq!(
            changes.into_inner(),
            machine.load().generation(),
            "seed {seed}"
        );
        assert!(machine.snapshot(now).opened > 0);
    }
}
