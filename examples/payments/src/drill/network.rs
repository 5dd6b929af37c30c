//! A deliberately bad network: a TCP proxy that understands just enough HTTP/1.1 to hurt whole messages.
//!
//! Each connection carries one exchange. The proxy reads the whole request, draws its fate, forwards it, reads the
//! whole answer, draws again. Every answer is marked `connection: close`, so that a duplicated one is stray bytes at
//! the end of a connection, as on a real network, and never the answer to somebody's next question.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// The largest message the proxy carries, in bytes. Payments and events are a few hundred.
const MESSAGE_MAX: usize = 64 * 1024;
/// How long one side may be silent before the proxy gives the exchange up.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What the network did, by kind.
#[derive(Debug, Default)]
pub struct Faults {
    /// Requests that never reached the other side.
    pub requests_dropped: AtomicU64,
    /// Requests delivered twice, the second time up to half a second late.
    pub requests_duplicated: AtomicU64,
    /// Requests of which only a part arrived.
    pub requests_truncated: AtomicU64,
    /// Answers to requests that were served, lost on the way back.
    pub answers_dropped: AtomicU64,
    /// Answers delivered twice.
    pub answers_duplicated: AtomicU64,
    /// Answers of which only a part arrived.
    pub answers_truncated: AtomicU64,
    /// Messages held back for a while, either way.
    pub delayed: AtomicU64,
    /// Connections that found nobody at home.
    pub refused: AtomicU64,
}

impl Faults {
    /// What was done on purpose, by kind.
    pub fn by_kind(&self) -> [(&'static str, u64); 7] {
        [
            ("requests dropped", &self.requests_dropped),
            ("requests duplicated", &self.requests_duplicated),
            ("requests truncated", &self.requests_truncated),
            ("answers dropped", &self.answers_dropped),
            ("answers duplicated", &self.answers_duplicated),
            ("answers truncated", &self.answers_truncated),
            ("messages delayed", &self.delayed),
        ]
        .map(|(kind, count)| (kind, count.load(Ordering::Relaxed)))
    }

    /// Everything that was done on purpose.
    pub fn total(&self) -> u64 {
        self.by_kind().iter().map(|(_, count)| count).sum()
    }
}

/// The fate of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Drop,
    Duplicate,
    Truncate,
}

/// One bad link, from whoever connects to `address` to wherever `target` points at that moment.
#[derive(Debug)]
pub struct Network {
    /// Where to connect.
    pub address: SocketAddr,
    /// What it has done so far.
    pub faults: Arc<Faults>,
    calm: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Network {
    /// Starts a link on a free loopback port. The same seed draws the same fates for the same order of messages.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(
        target: watch::Receiver<Option<SocketAddr>>,
        seed: u64,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let faults = Arc::new(Faults::default());
        let calm = Arc::new(AtomicBool::new(false));
        let accepting = tokio::spawn({
            let (faults, calm) = (Arc::clone(&faults), Arc::clone(&calm));
            async move {
                let mut fates = StdRng::seed_from_u64(seed);
                while let Ok((client, _)) = listener.accept().await {
                    let link = Link {
                        target: *target.borrow(),
                        faults: Arc::clone(&faults),
                        calm: calm.load(Ordering::Relaxed),
                        rng: StdRng::seed_from_u64(fates.next_u64()),
                    };
                    tokio::spawn(async move {
                        // A broken exchange is this program's purpose; both sides find out by themselves.
                        let _ = link.exchange(client).await;
                    });
                }
            }
        });
        Ok(Self {
            address,
            faults,
            calm,
            accepting,
        })
    }

    /// Stops hurting; from here on every message passes.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Link {
    target: Option<SocketAddr>,
    faults: Arc<Faults>,
    calm: bool,
    rng: StdRng,
}

impl Link {
    async fn exchange(mut self, mut client: TcpStream) -> std::io::Result<()> {
        let request = read_message(&mut client, None).await?;
        self.delay().await;
        let fate = self.draw();
        let Some(target) = self.target else {
            count(&self.faults.refused);
            return Ok(());
        };
        match fate {
            Fate::Drop => {
                count(&self.faults.requests_dropped);
                return Ok(());
            }
            Fate::Truncate => {
                count(&self.faults.requests_truncated);
                let part = self.part_of(&request);
                let mut server = self.connect(target).await?;
                return server.write_all(part).await;
            }
            Fate::Duplicate => {
                count(&self.faults.requests_duplicated);
                let (copy, late) = (
                    request.clone(),
                    Duration::from_millis(self.rng.random_range(0..500)),
                );
                tokio::spawn(async move {
                    sleep(late).await;
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        let _ = server.write_all(&copy).await;
                        let _ = read_message(&mut server, Some(&copy)).await;
                    }
                });
            }
            Fate::Pass => {}
        }

        let mut server = self.connect(target).await?;
        server.write_all(&request).await?;
        let answer = mark_as_last(read_message(&mut server, Some(&request)).await?);
        self.delay().await;
        match self.draw() {
            Fate::Drop => count(&self.faults.answers_dropped),
            Fate::Truncate => {
                count(&self.faults.answers_truncated);
                client.write_all(self.part_of(&answer)).await?;
            }
            Fate::Duplicate => {
                count(&self.faults.answers_duplicated);
                client.write_all(&answer).await?;
                client.write_all(&answer).await?;
            }
            Fate::Pass => client.write_all(&answer).await?,
        }
        client.shutdown().await
    }

    async fn connect(&self, target: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(target)
            .await
            .inspect_err(|_| count(&self.faults.refused))
    }

    fn draw(&mut self) -> Fate {
        if self.calm {
            return Fate::Pass;
        }
        match self.rng.random_range(0..100) {
            0..4 => Fate::Drop,
            4..8 => Fate::Duplicate,
            8..10 => Fate::Truncate,
            _ => Fate::Pass,
        }
    }

    async fn delay(&mut self) {
        if !self.calm && self.rng.random_range(0..100) < 8 {
            count(&self.faults.delayed);
            sleep(Duration::from_millis(self.rng.random_range(5..250))).await;
        }
    }

    fn part_of<'a>(&mut self, message: &'a [u8]) -> &'a [u8] {
        let end = self.rng.random_range(0..message.len().max(1));
        message.get(..end).unwrap_or(message)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Reads one HTTP/1.1 message to its end. An answer to HEAD, or of status 204 or 304, has no body whatever it says.
async fn read_message(from: &mut TcpStream, answer_to: Option<&[u8]>) -> std::io::Result<Vec<u8>> {
    let mut message = Vec::with_capacity(1024);
    let head_end = loop {
        if let Some(at) = message.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        read_some(from, &mut message).await?;
    };
    let head =
        String::from_utf8_lossy(message.get(..head_end).unwrap_or_default()).to_ascii_lowercase();
    let bodiless = answer_to.is_some_and(|request| request.starts_with(b"HEAD "))
        || head.starts_with("http/1.1 204")
        || head.starts_with("http/1.1 304");
    let body_length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse::<usize>().ok())
        .filter(|_| !bodiless)
        .unwrap_or(0);
    while message.len() < head_end + body_length {
        read_some(from, &mut message).await?;
    }
    Ok(message)
}

async fn read_some(from: &mut TcpStream, message: &mut Vec<u8>) -> std::io::Result<()> {
    if message.len() > MESSAGE_MAX {
        return Err(std::io::Error::other("message over the proxy's limit"));
    }
    match timeout(SILENCE_MAX, from.read_buf(message)).await {
        Ok(Ok(0)) | Err(_) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error),
    }
}

fn mark_as_last(answer: Vec<u8>) -> Vec<u8> {
    let Some(at) = answer.windows(2).position(|window| window == b"\r\n") else {
        return answer;
    };
    let (status_line, rest) = answer.split_at(at);
    [status_line, b"\r\nconnection: close", rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_marked_as_the_last_of_its_connection() {
        let marked = mark_as_last(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec());
        assert_eq!(
            marked,
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
        );
    }
}
