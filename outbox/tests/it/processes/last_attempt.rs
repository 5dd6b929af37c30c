//! A message that is on the wire whenever its relay is killed, until its attempts are spent.

use mainstay_outbox::{Admin, DeadCause, Event, Filter, MemorySink, OutboxDb};
use sqlx::Pool;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::relay::Process;
use crate::support::{on_each, outbox, put, quick, until};

on_each![
    a_kill_on_the_last_attempt_and_a_lowered_maximum_strand_nothing,
    a_message_that_kills_its_relays_takes_no_other_along,
];

const SOON: std::time::Duration = std::time::Duration::from_secs(20);

/// L5.
async fn a_kill_on_the_last_attempt_and_a_lowered_maximum_strand_nothing<Db: OutboxDb>(
    pool: Pool<Db>,
) {
    let outbox = outbox(&pool, 1).await;
    let events = ["1", "2"].map(|name| Event::new("t").key("k").subject(name));
    put(&pool, &outbox, events.to_vec()).await;
    // A broker that takes everything and answers nothing.
    let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = broker.local_addr().unwrap().to_string();
    for _ in 0..3 {
        let relay = Process::start(&pool, &address);
        let (stream, _) = timeout(SOON, broker.accept()).await.unwrap().unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        let read = timeout(SOON, stream.read_line(&mut line)).await.unwrap();
        assert!(read.unwrap() > 0 && line.ends_with(" 1\n"), "{line:?}");
        relay.kill().await;
    }
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .max_attempts(2)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let admin = Admin::new(pool);
    until("both are settled", async || {
        admin.lag().await.unwrap().pending == 0
    })
    .await;
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
    let dead = admin.dead(Filter::all(), 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    let (cause, message) = (dead[0].cause(), dead[0].message());
    assert_eq!((cause, message.attempt()), (DeadCause::Exhausted, 3));
    // It was in flight beside the first one once, and not again: what may kill its relay is published alone.
    let offered = sink.offered();
    let offered: Vec<_> = offered
        .iter()
        .map(|of| (of.subject(), of.attempt()))
        .collect();
    assert_eq!(offered, [(Some("2"), 2)]);
}

const LANES: usize = 4;

/// O7, in several lanes: whatever is under way beside it dies with the relay as well, twice and no more.
async fn a_message_that_kills_its_relays_takes_no_other_along<Db: OutboxDb>(pool: Pool<Db>) {
    let outbox = outbox(&pool, LANES.try_into().unwrap()).await;
    let event = |name: String| Event::new("t").key(name.clone()).subject(name);
    let names = std::iter::once("killer".to_owned()).chain((0..40).map(|n| n.to_string()));
    put(&pool, &outbox, names.map(event).collect()).await;
    for life in 1..=5 {
        let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Process::start(&pool, &broker.local_addr().unwrap().to_string());
        let (told, mut lines) = mpsc::channel(LANES);
        let broker = tokio::spawn(async move {
            while let Ok((stream, _)) = broker.accept().await {
                tokio::spawn(serve(stream, told.clone()));
            }
        });
        let mut unanswered = Vec::new();
        loop {
            let (line, answer) = timeout(SOON, lines.recv()).await.unwrap().unwrap();
            let kills = line.ends_with(" killer\n");
            if life > 2 && !kills {
                answer.send(()).unwrap();
                continue;
            }
            unanswered.push((kills, answer));
            if life > 2 || unanswered.len() == LANES {
                break;
            }
        }
        assert!(unanswered.iter().any(|(kills, _)| *kills));
        relay.kill().await;
        broker.abort();
    }
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .max_attempts(5)
        .sink("*", sink.clone());
    let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
    let admin = Admin::new(pool);
    until("all are settled", async || {
        admin.lag().await.unwrap().pending == 0
    })
    .await;
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
    let dead = admin.dead(Filter::all(), 10).await.unwrap();
    let dead: Vec<_> = dead.iter().map(|one| one.message().subject()).collect();
    assert_eq!(dead, [Some("killer")]);
    let attempts = sink
        .offered()
        .iter()
        .map(mainstay_outbox::Message::attempt)
        .max();
    assert!(attempts.is_none_or(|most| most <= 3), "{attempts:?}");
}

/// Tells each line and answers it when told to.
async fn serve(stream: TcpStream, told: mpsc::Sender<(String, oneshot::Sender<()>)>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
            return;
        }
        let (answer, answered) = oneshot::channel();
        if told.send((line, answer)).await.is_err() || answered.await.is_err() {
            return;
        }
        if stream.write_all(b"ack\n").await.is_err() {
            return;
        }
    }
}
