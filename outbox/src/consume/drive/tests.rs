use std::{
    sync::Mutex,
    time::{Duration, UNIX_EPOCH},
};

use futures_util::stream;
use mainstay_retry::Backoff;
use tokio::time::Instant;

use super::*;
use crate::{
    Event, Message,
    consume::Handled,
    sink::cloudevents::{Binding, ContentMode, Wire},
};

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// The lines that speak of this name.
    fn of(&self, name: &str) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(|line| line.ends_with(&format!(" {name}")));
        lines
    }

    fn at(&self, line: &str) -> usize {
        let found = self.lines().iter().position(|known| known == line);
        found.unwrap_or_else(|| panic!("no {line:?} in {:?}", self.lines()))
    }
}

struct Fake {
    name: &'static str,
    event: Result<Received, Unreadable>,
    before: u32,
    delays: bool,
    bury_fails: Mutex<u32>,
    log: Log,
}

impl Delivery for Fake {
    fn read(&self) -> Result<Received, Unreadable> {
        self.event.clone()
    }

    fn deliveries_before(&self) -> u32 {
        self.before
    }

    fn can_be_delayed(&self) -> bool {
        self.delays
    }

    async fn ack(&self) {
        self.log.note(format!("ack {}", self.name));
    }

    async fn give_back(&self, after: Option<Duration>) {
        let after = after.map_or(0, |after| after.as_millis());
        self.log.note(format!("back after {after} {}", self.name));
    }

    async fn bury(&self, reason: &Reason) -> bool {
        let mut fails = self.bury_fails.lock().unwrap();
        let ok = *fails == 0;
        *fails = fails.saturating_sub(1);
        let what = if ok { "dead" } else { "no grave" };
        self.log.note(format!("{what} ({reason}) {}", self.name));
        ok
    }

    async fn working(&self) {
        self.log.note(format!("working {}", self.name));
    }
}

/// A delivery whose name is its event's subject; the letters before a digit are its key, a dot is none.
fn fake(log: &Log, name: &'static str) -> Fake {
    let event = Event::new("t").subject(name);
    let key = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let event = if key == "." { event } else { event.key(key) };
    let message = Message::from_event(event, "/s", UNIX_EPOCH);
    let wire = Wire::new(&message, Binding::Kafka, ContentMode::Binary);
    Fake {
        name,
        event: Received::read(
            Binding::Kafka,
            None,
            wire.headers(),
            wire.body().clone(),
            "t",
        ),
        before: 0,
        delays: false,
        bury_fails: Mutex::new(0),
        log: log.clone(),
    }
}

fn config() -> ConsumerConfig {
    ConsumerConfig::default()
        .retry(Backoff::constant(Duration::from_millis(100)))
        .attempts_max(3)
        .handler_timeout(Duration::from_secs(5))
        .drain_timeout(Duration::from_secs(2))
}

/// Yields these deliveries, then none until the shutdown.
fn until_cancelled(
    deliveries: impl IntoIterator<Item = Fake, IntoIter: Send>,
    shutdown: &CancellationToken,
) -> impl Stream<Item = Fake> + Send {
    let quiet = stream::pending().take_until(shutdown.clone().cancelled_owned());
    stream::iter(deliveries).chain(quiet)
}

/// Drives these deliveries for a while of paused time, then shuts down.
async fn run<H: Handler>(deliveries: Vec<Fake>, config: ConsumerConfig, handler: H) -> Consumed {
    let shutdown = CancellationToken::new();
    let after = shutdown.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(20)).await;
        after.cancel();
    });
    let source = until_cancelled(deliveries, &shutdown);
    let working = Some(Duration::from_secs(1));
    drive(source, &config, working, &Handling::new(handler), &shutdown).await
}

fn name(event: &Received) -> String {
    event.subject().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_key_is_handled_in_order_and_keys_side_by_side() {
    let log = Log::default();
    let deliveries = ["a1", "a2", "b1", ".1", "a3"].map(|of| fake(&log, of));
    let noted = log.clone();
    let start = Instant::now();
    let ended = Arc::new(Mutex::new(Duration::ZERO));
    let end = Arc::clone(&ended);
    let consumed = run(deliveries.into(), config(), move |event: Received| {
        let (log, end) = (noted.clone(), Arc::clone(&end));
        async move {
            log.note(format!("begin {}", name(&event)));
            sleep(Duration::from_millis(500)).await;
            log.note(format!("end {}", name(&event)));
            *end.lock().unwrap() = start.elapsed();
            Handled::Done
        }
    })
    .await;
    assert_eq!(consumed.done, 5);
    for (first, then) in [
        ("ack a1", "begin a2"),
        ("ack a2", "begin a3"),
        ("begin b1", "end a1"),
        ("begin .1", "end a1"),
    ] {
        assert!(log.at(first) < log.at(then), "{:?}", log.lines());
    }
    assert!(*ended.lock().unwrap() < Duration::from_millis(1_600));
}

#[tokio::test(start_paused = true)]
async fn a_failure_holds_its_key_until_it_works_or_is_given_up() {
    let log = Log::default();
    let deliveries = ["a1", "a2", "b1", "b2", "c1"].map(|of| fake(&log, of));
    let noted = log.clone();
    let consumed = run(deliveries.into(), config(), move |event: Received| {
        let log = noted.clone();
        async move {
            log.note(format!("attempt {} {}", event.attempt(), name(&event)));
            match (event.subject().unwrap(), event.attempt()) {
                ("a1", 1 | 2) => Handled::retry("away"),
                ("b1", _) => Handled::retry("broken"),
                ("c1", _) => Handled::dead("never"),
                _ => Handled::Done,
            }
        }
    })
    .await;
    assert_eq!(
        log.of("a1"),
        ["attempt 1 a1", "attempt 2 a1", "attempt 3 a1", "ack a1"]
    );
    assert!(log.at("ack a1") < log.at("attempt 1 a2"));
    assert_eq!(log.of("b1").last().unwrap(), "dead (broken) b1");
    assert_eq!(log.of("b1").len(), 4);
    assert!(log.at("dead (broken) b1") < log.at("attempt 1 b2"));
    assert_eq!(log.of("c1"), ["attempt 1 c1", "dead (never) c1"]);
    let expected = Consumed {
        done: 3,
        retried: 4,
        dead: 2,
        given_back: 0,
    };
    assert_eq!(consumed, expected);
}

#[tokio::test(start_paused = true)]
async fn panics_and_silence_are_retries() {
    let log = Log::default();
    let deliveries = ["a1", "b1"].map(|of| fake(&log, of));
    run(deliveries.into(), config(), |event: Received| async move {
        match event.subject().unwrap() {
            "a1" => panic!("a handler's own fault"),
            _ => std::future::pending().await,
        }
    })
    .await;
    assert_eq!(log.of("a1"), ["dead (the handler panicked) a1"]);
    let last = log.of("b1").pop().unwrap();
    assert_eq!(last, "dead (the handler took too long) b1");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_is_buried_and_what_was_delivered_often_only_after_it_failed() {
    let log = Log::default();
    let mut stranger = fake(&log, "a1");
    stranger.event = Err(Unreadable::Json);
    let mut deliveries = vec![stranger];
    for (name, before) in [("b1", 2), ("c1", 3), ("d1", 5), ("e1", 3)] {
        let mut delivery = fake(&log, name);
        delivery.before = before;
        deliveries.push(delivery);
    }
    let noted = log.clone();
    let consumed = run(deliveries, config(), move |event: Received| {
        noted.note(format!("attempt {} {}", event.attempt(), name(&event)));
        std::future::ready(match event.subject() {
            Some("e1") => Handled::retry("broken"),
            _ => Handled::Done,
        })
    })
    .await;
    assert_eq!(
        log.of("a1"),
        ["dead (the message is not a CloudEvent in JSON) a1"]
    );
    assert_eq!(log.of("b1"), ["attempt 3 b1", "ack b1"]);
    assert_eq!(log.of("c1"), ["attempt 4 c1", "ack c1"]);
    assert_eq!(log.of("d1"), ["attempt 6 d1", "ack d1"]);
    assert_eq!(log.of("e1"), ["attempt 4 e1", "dead (broken) e1"]);
    assert_eq!((consumed.done, consumed.dead), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn what_may_have_killed_its_consumers_is_handled_alone() {
    let log = Log::default();
    let mut deliveries = ["a1", "b1", ".1", "c1", "b2"].map(|of| fake(&log, of));
    deliveries[1].before = 3;
    deliveries[2].before = 4;
    let noted = log.clone();
    let consumed = run(deliveries.into(), config(), move |event: Received| {
        let log = noted.clone();
        async move {
            log.note(format!("begin {}", name(&event)));
            sleep(Duration::from_millis(500)).await;
            log.note(format!("end {}", name(&event)));
            Handled::Done
        }
    })
    .await;
    assert_eq!(consumed.done, 5);
    let mut lines = log.lines();
    lines.retain(|line| !line.starts_with("ack") && !line.starts_with("working"));
    let alone = ["begin b1", "end b1", "begin .1", "end .1"];
    assert_eq!(lines[..2], ["begin a1", "end a1"]);
    assert_eq!(lines[2..6], alone);
    assert!(log.at("begin b2") < log.at("end c1"), "side by side again");
}

#[tokio::test(start_paused = true)]
async fn of_those_that_never_answered_only_the_first_is_buried_unhandled() {
    let log = Log::default();
    let mut deliveries = ["a1", "b1", "c1"].map(|of| fake(&log, of));
    for delivery in &mut deliveries {
        delivery.before = 6; // three attempts, and three alone
    }
    let consumed = run(deliveries.into(), config(), |_: Received| async {
        Handled::Done
    })
    .await;
    assert_eq!(
        log.of("a1"),
        ["dead (every attempt ended without an answer) a1"]
    );
    assert_eq!(log.of("b1"), ["ack b1"], "it waited while a1 killed");
    assert_eq!((consumed.done, consumed.dead), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_can_wait_does_for_events_without_a_key() {
    let log = Log::default();
    let mut deliveries = [".1", "a1"].map(|of| fake(&log, of));
    for delivery in &mut deliveries {
        delivery.delays = true;
    }
    run(deliveries.into(), config(), |_: Received| async {
        Handled::Retry {
            after: Some(Duration::from_secs(3)),
            reason: "asked to wait".into(),
        }
    })
    .await;
    assert_eq!(log.of(".1"), ["back after 3000 .1"]);
    let last = log.of("a1").pop().unwrap();
    assert_eq!(last, "dead (asked to wait) a1");
}

#[tokio::test(start_paused = true)]
async fn the_broker_hears_of_long_work_and_of_what_waits_for_it() {
    let log = Log::default();
    let deliveries = ["a1", "a2"].map(|of| fake(&log, of));
    run(deliveries.into(), config(), |event: Received| async move {
        if event.subject() == Some("a1") {
            sleep(Duration::from_millis(3_500)).await;
        }
        Handled::Done
    })
    .await;
    let told = |name: &str| log.of(name).len() - 1; // all but the ack
    assert_eq!(told("a1"), 3);
    assert!((3..=4).contains(&told("a2")), "{:?}", log.of("a2"));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_cannot_be_written_is_tried_again() {
    let log = Log::default();
    let mut delivery = fake(&log, "a1");
    delivery.bury_fails = Mutex::new(2);
    let consumed = run(
        vec![delivery, fake(&log, "a2")],
        config(),
        |event: Received| async move {
            match event.subject() {
                Some("a1") => Handled::dead("never"),
                _ => Handled::Done,
            }
        },
    )
    .await;
    let mut buried = log.of("a1");
    buried.retain(|line| !line.starts_with("working"));
    assert_eq!(
        buried,
        [
            "no grave (never) a1",
            "no grave (never) a1",
            "dead (never) a1"
        ]
    );
    assert_eq!((consumed.dead, consumed.done), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_handlers_end_and_gives_back_what_waits_after_them() {
    let log = Log::default();
    let deliveries = ["a1", "a2", "b1", "b2", "c1"].map(|of| fake(&log, of));
    let shutdown = CancellationToken::new();
    let source = until_cancelled(deliveries, &shutdown);
    let stop = shutdown.clone();
    tokio::spawn(async move {
        sleep(Duration::from_millis(50)).await;
        stop.cancel();
    });
    let handler = |event: Received| async move {
        match event.subject().unwrap() {
            "a1" => sleep(Duration::from_secs(1)).await,
            "b1" => return Handled::retry("later"),
            _ => std::future::pending().await,
        }
        Handled::Done
    };
    let consumed = drive(source, &config(), None, &Handling::new(handler), &shutdown).await;
    assert_eq!(
        log.lines(),
        [
            "ack a1",
            "back after 0 a2",
            "back after 0 b1",
            "back after 0 b2",
            "back after 0 c1",
        ],
        "nothing before the handlers ended, then all in the order of arrival"
    );
    assert_eq!((consumed.done, consumed.given_back), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn one_that_outlives_the_drain_is_given_back_before_its_followers() {
    let log = Log::default();
    let deliveries = ["a1", "b1", "a2", "a3"].map(|of| fake(&log, of));
    let shutdown = CancellationToken::new();
    let source = until_cancelled(deliveries, &shutdown);
    // What the broker has sent when the shutdown comes arrives a little later.
    let later = stream::iter([fake(&log, "a4")]).then(|late| async {
        sleep(Duration::from_millis(2_500)).await;
        late
    });
    let stop = shutdown.clone();
    tokio::spawn(async move {
        sleep(Duration::from_millis(50)).await;
        stop.cancel();
    });
    let handler = |_: Received| std::future::pending();
    let (source, working) = (source.chain(later), Some(Duration::from_millis(700)));
    let consumed = drive(
        source,
        &config(),
        working,
        &Handling::new(handler),
        &shutdown,
    )
    .await;
    let mut given_back = log.lines();
    given_back.retain(|line| !line.starts_with("working"));
    let names = ["a1", "b1", "a2", "a3", "a4"];
    assert_eq!(given_back, names.map(|of| format!("back after 0 {of}")));
    assert_eq!(consumed.given_back, 5);
    // The drain is of two seconds and the source ends after two and a half.
    for (name, times) in [("a1", 3), ("a2", 4), ("a3", 4)] {
        let told = log.of(name).len() - 1;
        assert!((times..=times + 1).contains(&told), "{:?}", log.of(name));
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_source_ends_what_is_under_way_ends_too() {
    let log = Log::default();
    let deliveries = ["a1", "b1"].map(|of| fake(&log, of));
    let source = stream::iter(deliveries);
    let handler = |_: Received| async {
        sleep(Duration::from_millis(10)).await;
        Handled::Done
    };
    let token = CancellationToken::new();
    let consumed = drive(source, &config(), None, &Handling::new(handler), &token).await;
    assert_eq!(consumed.done, 2);
    assert!(!token.is_cancelled());
}
