//! A broker that takes note of what arrives, in the order in which it does, and that fails in every way there is.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::Dice;

/// Something that arrived and was kept: its id, and "key number".
pub type Arrival = (String, String);

pub struct Broker {
    pub address: String,
    book: Arc<Book>,
    /// While it is down it answers nobody, and cuts off whoever is connected.
    down: watch::Sender<bool>,
}

#[derive(Default)]
struct Book {
    arrivals: Mutex<Vec<Arrival>>,
    /// Kept, and the acknowledgement lost.
    unheard: AtomicUsize,
    refused: AtomicUsize,
    well: AtomicBool,
}

/// What is never taken. The number of a message of each key.
pub const POISON: u64 = 7;

impl Broker {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let book = Arc::new(Book::default());
        let (down, is_down) = watch::channel(false);
        tokio::spawn({
            let book = Arc::clone(&book);
            async move {
                let mut seed = 0;
                while let Ok((stream, _)) = listener.accept().await {
                    seed += 1;
                    if !*is_down.borrow() {
                        let serving = serve(stream, Arc::clone(&book), Dice(seed));
                        let mut is_down = is_down.clone();
                        tokio::spawn(async move {
                            tokio::select! {
                                () = serving => {}
                                _ = is_down.wait_for(|down| *down) => {}
                            }
                        });
                    }
                }
            }
        });
        Self {
            address,
            book,
            down,
        }
    }

    pub fn set_down(&self, down: bool) {
        self.down.send_replace(down);
    }

    /// From now on it refuses only what it never takes.
    pub fn recover(&self) {
        self.set_down(false);
        self.book.well.store(true, Ordering::SeqCst);
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.book.arrivals.lock().unwrap().clone()
    }

    /// Acknowledgements lost, and refusals.
    pub fn failures(&self) -> [usize; 2] {
        [&self.book.unheard, &self.book.refused].map(|count| count.load(Ordering::SeqCst))
    }
}

async fn serve(stream: TcpStream, book: Arc<Book>, mut dice: Dice) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line).await, Ok(n) if n > 0 && line.ends_with('\n')) {
            return;
        }
        let (id, name) = line.trim_end().split_once(' ').unwrap();
        let number: u64 = name.rsplit(' ').next().unwrap().parse().unwrap();
        let luck = if book.well.load(Ordering::SeqCst) {
            99
        } else {
            dice.roll(100)
        };
        let answer = if number == POISON {
            "never\n"
        } else if luck < 3 {
            book.refused.fetch_add(1, Ordering::SeqCst);
            "later\n"
        } else {
            let arrival = (id.to_owned(), name.to_owned());
            book.arrivals.lock().unwrap().push(arrival);
            if luck == 3 {
                book.unheard.fetch_add(1, Ordering::SeqCst);
                return;
            }
            "ack\n"
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
