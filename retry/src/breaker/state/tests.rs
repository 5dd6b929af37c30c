use proptest::prelude::*;

use super::*;
use crate::{
    backoff::Backoff,
    breaker::{HalfOpen, Trip, WhenOpen},
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
