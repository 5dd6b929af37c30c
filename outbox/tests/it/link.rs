//! A network between a client and a server that can be cut.
#![cfg_attr(
    not(all(feature = "nats", feature = "rabbitmq", feature = "redis")),
    allow(dead_code, reason = "for the brokers that are left out")
)]

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use tokio::{
    io::{copy, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Forwards to a server. Cut, it drops its connections and refuses others; held, it keeps them and carries nothing, until it
/// is cut (what was on its way is lost); muted, it carries what the clients say and no answer.
pub struct Link {
    address: SocketAddr,
    server: watch::Sender<String>,
    state: watch::Sender<State>,
    /// What the listening task has come to.
    reached: watch::Receiver<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Cut,
    Held,
    Muted,
}

impl Link {
    /// To the server at `host:port`.
    pub async fn to(server: String) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = watch::Sender::new(server);
        let state = watch::Sender::new(State::Up);
        let (reached, seen) = watch::channel(State::Up);
        let to = server.subscribe();
        tokio::spawn(listen(listener, to, state.subscribe(), reached));
        Arc::new(Self {
            address,
            server,
            state,
            reached: seen,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on whoever connects reaches another server. Those who are connected stay where they are.
    pub fn turn_to(&self, server: String) {
        self.server.send_replace(server);
    }

    pub async fn cut(&self) {
        self.set(State::Cut).await;
    }

    pub async fn hold(&self) {
        self.set(State::Held).await;
    }

    pub async fn mute(&self) {
        self.set(State::Muted).await;
    }

    /// What is asked for a moment comes to pass, and nobody hears of it; then all is as before.
    pub async fn swallow_answers(&self) {
        self.mute().await;
        // Long enough for whoever is at work to have said something.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        self.cut().await;
        self.mend().await;
    }

    pub async fn mend(&self) {
        self.set(State::Up).await;
    }

    async fn set(&self, state: State) {
        self.state.send_replace(state);
        let mut reached = self.reached.clone();
        reached.wait_for(|reached| *reached == state).await.unwrap();
    }
}

async fn listen(
    listener: TcpListener,
    server: watch::Receiver<String>,
    mut state: watch::Receiver<State>,
    reached: watch::Sender<State>,
) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    loop {
        let now = *state.borrow_and_update();
        if now == State::Cut {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(address).await.unwrap());
        }
        reached.send_replace(now);
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            accepted = accept => {
                let server = server.borrow().clone();
                if let (Ok((client, _)), Ok(server)) = (accepted, TcpStream::connect(server).await) {
                    tokio::spawn(carry(client, server, state.clone()));
                }
            }
        }
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mut state: watch::Receiver<State>) {
    loop {
        let now = *state.borrow_and_update();
        let carried = async {
            match now {
                State::Up => copy_bidirectional(&mut client, &mut server).await.map(drop),
                State::Muted => copy(&mut client, &mut server).await.map(drop),
                State::Cut | State::Held => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = carried => return,
            changed = state.changed() => {
                if changed.is_err() || *state.borrow() == State::Cut {
                    return;
                }
            }
        }
    }
}

/// The `host:port` of a server's URL.
pub fn authority(url: &str) -> String {
    let rest = url.split_once("//").map_or(url, |(_, rest)| rest);
    let rest = rest.rsplit('@').next().unwrap();
    rest.split('/').next().unwrap().to_owned()
}

/// The URL of a server, through the link.
pub fn through(url: &str, link: &Link) -> String {
    url.replace(&authority(url), &link.address().to_string())
}

/// That all of `count` subjects are there, and of each key first in their order, whatever came twice.
#[track_caller]
pub fn assert_first_in_order<'a>(
    arrived: impl Iterator<Item = (Option<&'a [u8]>, Option<&'a str>)>,
    count: usize,
) {
    let mut first: BTreeMap<&[u8], Vec<&str>> = BTreeMap::new();
    for (key, subject) in arrived {
        let of_key = first.entry(key.unwrap_or_default()).or_default();
        if !of_key.contains(&subject.unwrap()) {
            of_key.push(subject.unwrap());
        }
    }
    assert_eq!(first.values().map(Vec::len).sum::<usize>(), count);
    for (key, subjects) in first {
        assert!(subjects.is_sorted(), "{key:?}: {subjects:?}");
    }
}
