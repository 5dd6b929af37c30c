//! A network between a client and a server that can be cut.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Forwards to a server. Cut, it drops its connections and accepts none; held, it keeps them and carries nothing, until it
/// is cut (what was on its way is lost).
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    Cut,
    Held,
}

impl Link {
    /// To the server at `host:port`.
    pub async fn to(server: String) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            state: watch::Sender::new(State::Up),
        });
        let mut state = link.state.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *state.borrow_and_update() == State::Cut {
                    continue; // and the client is hung up on
                }
                let Ok(server) = TcpStream::connect(&server).await else {
                    continue;
                };
                tokio::spawn(carry(client, server, state.clone()));
            }
        });
        link
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    pub fn hold(&self) {
        self.state.send_replace(State::Held);
    }

    pub fn mend(&self) {
        self.state.send_replace(State::Up);
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mut state: watch::Receiver<State>) {
    loop {
        let now = *state.borrow_and_update();
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server), if now == State::Up => return,
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
