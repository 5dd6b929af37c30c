//! The sinks that need no server pass the same suite as those that do.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use mainstay_outbox::{
    ChannelSink, Event, MemorySink, Message, Outcome, Sink, WebhookSink,
    conformance::sink::{self as conformance, Destination, as_received},
    sink::{
        FaultSink,
        cloudevents::{Binding, ContentMode, Received},
    },
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    link::{Link, assert_first_in_order},
    support::{outbox, put, quick, sqlite, until},
};

struct Memory(MemorySink);

impl Destination for Memory {
    fn sink(&self) -> impl Sink {
        self.0.clone()
    }

    async fn arrived(&self) -> Vec<Received> {
        self.0.messages().iter().map(as_received).collect()
    }

    async fn set_down(&self, down: bool) {
        self.0.set_down(down);
    }

    fn too_large(&self) -> Option<usize> {
        None
    }
}

#[tokio::test]
async fn the_memory_sink_conforms() {
    conformance::all(async || Memory(MemorySink::new())).await;
}

struct Faulty(FaultSink<MemorySink>);

impl Destination for Faulty {
    fn sink(&self) -> impl Sink {
        self.0.clone()
    }

    async fn arrived(&self) -> Vec<Received> {
        self.0.inner().messages().iter().map(as_received).collect()
    }

    async fn set_down(&self, down: bool) {
        self.0.set_down(down);
    }

    fn too_large(&self) -> Option<usize> {
        None
    }
}

#[tokio::test]
async fn the_fault_sink_without_faults_conforms() {
    conformance::all(async || Faulty(FaultSink::new(MemorySink::new(), 1))).await;
}

struct Channel {
    sink: Mutex<ChannelSink>,
    arrived: Arc<Mutex<Vec<Message>>>,
    receiver: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Channel {
    fn new() -> Self {
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let (sink, receiver) = Self::open(&arrived);
        Self {
            sink: Mutex::new(sink),
            arrived,
            receiver: Mutex::new(Some(receiver)),
        }
    }

    fn open(arrived: &Arc<Mutex<Vec<Message>>>) -> (ChannelSink, tokio::task::JoinHandle<()>) {
        let (sink, mut deliveries) = ChannelSink::new(4);
        let arrived = Arc::clone(arrived);
        let receiver = tokio::spawn(async move {
            while let Some(delivery) = deliveries.recv().await {
                arrived.lock().unwrap().push(delivery.message().clone());
                delivery.ack();
            }
        });
        (sink, receiver)
    }
}

/// The sink of a channel lives no longer than its receiver: what is published to is looked up for each call.
struct Current(Arc<Channel>);

impl Sink for Current {
    async fn publish(
        &self,
        lane: mainstay_outbox::LaneRef,
        batch: &[Message],
    ) -> Result<mainstay_outbox::Outcomes, mainstay_outbox::SinkDown> {
        let sink = self.0.sink.lock().unwrap().clone();
        sink.publish(lane, batch).await
    }
}

struct Process(Arc<Channel>);

impl Destination for Process {
    fn sink(&self) -> impl Sink {
        Current(Arc::clone(&self.0))
    }

    async fn arrived(&self) -> Vec<Received> {
        let arrived = self.0.arrived.lock().unwrap();
        arrived.iter().map(as_received).collect()
    }

    async fn set_down(&self, down: bool) {
        if down {
            let receiver = self.0.receiver.lock().unwrap().take().unwrap();
            receiver.abort();
            let _ = receiver.await;
        } else {
            let (sink, receiver) = Channel::open(&self.0.arrived);
            *self.0.sink.lock().unwrap() = sink;
            *self.0.receiver.lock().unwrap() = Some(receiver);
        }
    }

    fn too_large(&self) -> Option<usize> {
        None
    }
}

#[tokio::test]
async fn the_channel_sink_conforms() {
    conformance::all(async || Process(Arc::new(Channel::new()))).await;
}

struct Endpoint {
    link: Arc<Link>,
    sink: WebhookSink,
    arrived: Arc<Mutex<Vec<Received>>>,
}

impl Endpoint {
    async fn new(mode: ContentMode) -> Self {
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&arrived);
        let hook = async move |headers: HeaderMap, body: Bytes| {
            let pairs: Vec<_> = headers
                .iter()
                .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
                .collect();
            let content_type = headers.get("content-type").map(|of| of.to_str().unwrap());
            let event = Received::read(Binding::Http, content_type, pairs, body, "hook").unwrap();
            seen.lock().unwrap().push(event);
            StatusCode::NO_CONTENT
        };
        let app = Router::new()
            .route("/hook", post(hook))
            .layer(axum::extract::DefaultBodyLimit::max(64 * 1024));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server: SocketAddr = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let link = Link::to(server.to_string()).await;
        let sink = WebhookSink::builder(format!("http://{}/hook", link.address()))
            .secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap())
            .allow_private(true)
            .content_mode(mode)
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        Self {
            link,
            sink,
            arrived,
        }
    }
}

impl Destination for Endpoint {
    fn sink(&self) -> impl Sink {
        self.sink.clone()
    }

    async fn arrived(&self) -> Vec<Received> {
        self.arrived.lock().unwrap().clone()
    }

    async fn set_down(&self, down: bool) {
        if down {
            self.link.cut().await;
        } else {
            self.link.mend().await;
        }
    }

    fn too_large(&self) -> Option<usize> {
        Some(64 * 1024 + 1)
    }
}

#[tokio::test]
async fn the_webhook_sink_conforms_in_both_modes() {
    for mode in [ContentMode::Binary, ContentMode::Structured] {
        conformance::all(async || Endpoint::new(mode).await).await;
    }
}

#[tokio::test]
async fn through_lost_acks_and_outages_a_relay_delivers_all_in_the_order_of_their_keys() {
    let database = sqlite().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 4).await;
    let memory = MemorySink::new();
    let sink = FaultSink::new(memory.clone(), 7)
        .drop_acks(0.1)
        .fail_nth(20, Outcome::retry("as told"));
    let relay = quick(&pool, &outbox)
        .sink("*", sink.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let events: Vec<Event> = (0..200_u32)
        .map(|n| {
            Event::new("t")
                .key([(n % 5) as u8])
                .subject(format!("{n:03}"))
        })
        .collect();
    put(&pool, &outbox, events).await;
    memory.wait_for(50).await;
    sink.down_for(Duration::from_millis(50));
    until("all are delivered", async || relay.stats().delivered == 200).await;
    relay.drain(Duration::from_secs(5)).await;
    let arrived = memory.messages();
    assert!(sink.acks_lost() > 0);
    assert_eq!(arrived.len() as u64, 200 + sink.acks_lost());
    assert_first_in_order(arrived.iter().map(|of| (of.key(), of.subject())), 200);
}
