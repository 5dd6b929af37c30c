//! The relay's process, and the sink in it that speaks to the broker of the test.

use std::{env, process::Stdio, str::FromStr, time::Duration};

use mainstay_outbox::{
    LaneRef, Message, OutboxDb, Outcome, Outcomes, Relay, Sink, SinkDown, sink::publish_each,
};
use mainstay_retry::Backoff;
use sqlx::{ConnectOptions, Connection, Pool};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    sync::Mutex,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Set in the relay's process only, to the name of its database.
pub const RELAY: &str = "MAINSTAY_TEST_RELAY";
const URL: &str = "MAINSTAY_TEST_RELAY_URL";
const BROKER: &str = "MAINSTAY_TEST_RELAY_BROKER";

/// The most messages of one lane that a relay has in flight.
pub const BATCH: u32 = 10;
pub const LEASE: Duration = Duration::from_secs(1);

pub async fn serve<Db: OutboxDb>() {
    let url = env::var(URL).unwrap();
    let options = <Db::Connection as Connection>::Options::from_str(&url).unwrap();
    let pool = Pool::<Db>::connect_with(options).await.unwrap();
    let sink = Broker(env::var(BROKER).unwrap());
    let soon = Backoff::constant(Duration::from_millis(10));
    let relay = Relay::builder(pool)
        .batch(BATCH)
        .lease(LEASE)
        .poll_interval(Duration::from_millis(20))
        .retry(soon)
        .sink_backoff(soon)
        .max_attempts(1_000)
        .sink("*", sink)
        .build()
        .await
        .unwrap();
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let cancel = CancellationToken::new();
    let relay = relay.spawn(cancel.clone());
    terminated.recv().await;
    cancel.cancel();
    assert_eq!(relay.join().await.unsettled, 0);
}

/// A line for each message; the broker answers each with a word.
struct Broker(String);

impl Sink for Broker {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        let gone = |_| SinkDown::new("the broker is gone");
        let stream = TcpStream::connect(&self.0).await.map_err(gone)?;
        let stream = Mutex::new(BufReader::new(stream));
        publish_each(&lane, batch, 1, async |message: &Message| {
            let mut stream = stream.lock().await;
            let answer = timeout(Duration::from_secs(5), ask(&mut stream, message)).await;
            match answer.ok().and_then(Result::ok).as_deref() {
                Some("ack") => Ok(Outcome::Acked),
                Some("later") => Ok(Outcome::retry("later")),
                Some("never") => Ok(Outcome::reject("never")),
                _ => Err(SinkDown::new("the broker is gone")),
            }
        })
        .await
    }
}

async fn ask(stream: &mut BufReader<TcpStream>, message: &Message) -> std::io::Result<String> {
    let line = format!("{} {}\n", message.id(), message.subject().unwrap_or("?"));
    stream.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    Ok(answer.trim_end().to_owned())
}

/// The process. Dropped, it is killed.
pub struct Process(Child);

impl Process {
    pub fn start<Db: OutboxDb>(pool: &Pool<Db>, broker: &str) -> Self {
        let url = pool.connect_options().to_url_lossy().to_string();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "processes::the_relay_that_others_kill"])
            .env(RELAY, Db::NAME)
            .env(URL, url)
            .env(BROKER, broker)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self(child)
    }

    /// SIGKILL, and nothing of it is left.
    pub async fn kill(mut self) {
        self.0.kill().await.unwrap();
    }

    /// SIGTERM, which it ends by itself and well.
    pub async fn terminate(mut self) {
        self.signal("-TERM").await;
        let ended = timeout(Duration::from_secs(20), self.0.wait()).await;
        let status = ended.expect("a relay that is told to end does").unwrap();
        assert!(status.success(), "{status}");
    }

    /// SIGSTOP or SIGCONT.
    pub async fn signal(&self, signal: &str) {
        let id = self.0.id().expect("it was not waited for").to_string();
        let done = Command::new("kill").args([signal, &id]).status().await;
        assert!(done.unwrap().success());
    }
}
