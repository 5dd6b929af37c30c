//! The engine where the database is not asked.

use std::time::UNIX_EPOCH;

use sqlx::{Sqlite, SqlitePool};
use tokio::time::advance;

use super::*;
use crate::{
    event::Event,
    gate::Pass,
    message::Message,
    plan::{Tried, Way},
    relay::{Relay, publish},
    sink::{MemorySink, Outcome, SinkDown},
    store::Candidate,
};

/// An engine that holds lane 0 of a database that it is never to ask.
fn engine() -> Engine<Sqlite> {
    let pool = SqlitePool::connect_lazy("sqlite::memory:").unwrap();
    let second = Duration::from_secs(1);
    let built = Relay::builder(pool.clone())
        .sink("*", MemorySink::new())
        .sink_backoff(Backoff::constant(second));
    let (relay, tally) = (Uuid::now_v7(), Arc::default());
    let mut engine = Engine::new(pool, relay, built.config, 1, built.routes, None, tally);
    let slot = Slot {
        epoch: 1,
        lease: Arc::new(Lease::new(Instant::now(), second)),
        busy: false,
        rest_until: None,
    };
    engine.lanes.insert(0, slot);
    engine
}

fn candidate(id: i64, topic: &str) -> Candidate {
    let event = Event::new("t").topic(topic).key("k");
    Candidate {
        lane: 0,
        id,
        attempts: 0,
        suspect: false,
        message: Message::from_event(event, "/s", UNIX_EPOCH),
    }
}

fn result(crashed: bool, suspect: bool, down: Option<SinkDown>) -> publish::Result {
    let tried = Tried { id: 1, attempts: 0 };
    publish::Result {
        route: 0,
        outcomes: vec![(tried, Outcome::retry("crashed"))],
        bytes: 0,
        crashed,
        suspect,
        down,
    }
}

fn pass(engine: &Engine<Sqlite>) -> Pass {
    match engine.routes.way("any", Instant::now()) {
        Way::Route { pass, .. } => pass,
        Way::None => panic!("there is a sink for all"),
    }
}

/// The earlier message of the key was passed over in the database, by its topic; the later one's was not known yet.
#[tokio::test(start_paused = true)]
async fn a_gate_that_opens_during_a_look_stays_shut_for_that_look() {
    let mut engine = engine();
    let down = result(false, false, Some(SinkDown::new("gone")));
    engine.judge(&down, Instant::now());
    engine.shut_topics.insert("earlier".to_owned());
    let looked = Instant::now();
    assert_eq!(engine.topics_shut(looked), ["earlier"]);
    advance(Duration::from_secs(2)).await;
    assert_eq!(pass(&engine), Pass::Probe);

    let (cuts, _) = engine.cut(vec![candidate(2, "later")], looked);
    assert!(cuts.iter().all(|(_, cut)| cut.publish.is_empty()));
    assert!(engine.topics_shut(Instant::now()).is_empty());
    let due = vec![candidate(1, "earlier"), candidate(2, "later")];
    let (cuts, _) = engine.cut(due, Instant::now());
    assert_eq!(cuts[0].1.publish[0].1.id, 1);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_never_answers_counts_as_down_unless_a_suspect_hung_it() {
    let hung = |suspect| result(true, suspect, Some(SinkDown::new("no answer")));
    let mut engine = engine();
    engine.judge(&hung(true), Instant::now());
    assert_eq!(pass(&engine), Pass::Open);
    engine.judge(&hung(false), Instant::now());
    assert_eq!(pass(&engine), Pass::Shut);
    advance(Duration::from_secs(1)).await;
    assert_eq!(pass(&engine), Pass::Probe);
    engine.routes.get_mut(0).unwrap().gate.probe();
    engine.judge(&hung(true), Instant::now());
    assert_eq!(pass(&engine), Pass::Shut, "a probe that hangs is no answer");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_does_not_end_an_outage() {
    let mut engine = engine();
    let down = result(false, false, Some(SinkDown::new("gone")));
    engine.judge(&down, Instant::now());
    advance(Duration::from_secs(1)).await;
    engine.routes.get_mut(0).unwrap().gate.probe();
    engine.judge(&result(true, false, None), Instant::now());
    assert_eq!(pass(&engine), Pass::Shut);
}
