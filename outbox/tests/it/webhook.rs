//! The webhook sink against a real server on loopback.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use mainstay_outbox::{
    Admin, Event, Filter, LaneRef, MemorySink, Message, Outcome, Sink, SinkDown, WebhookSink,
    sink::{
        WebhookBuilder,
        cloudevents::{self, Binding, ContentMode, STRUCTURED},
    },
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::support::{outbox, put, quick, sqlite, until};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

type Received = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

/// Answers with the status in the subject, and remembers what came.
async fn server() -> (SocketAddr, Received) {
    let received = Received::default();
    let app = Router::new()
        .route("/hook", any(hook))
        .route("/elsewhere", any(|| async { StatusCode::OK }))
        .with_state(Arc::clone(&received));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, received)
}

async fn hook(
    State(received): State<Received>,
    method: axum::http::Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let status = event(&headers, &body).subject().unwrap().to_owned();
    received
        .lock()
        .unwrap()
        .push((method.to_string(), headers, body));
    if status == "hang" {
        std::future::pending::<()>().await;
    }
    let status = status
        .parse()
        .ok()
        .and_then(|n| StatusCode::from_u16(n).ok())
        .unwrap_or(StatusCode::OK);
    let mut response = (status, vec![b'x'; 100_000]).into_response();
    if status == StatusCode::FOUND {
        response
            .headers_mut()
            .insert(header::LOCATION, HeaderValue::from_static("/elsewhere"));
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
    }
    response
}

/// The event as a receiver reads it, in whichever mode it was sent.
fn event(headers: &HeaderMap, body: &Bytes) -> cloudevents::Received {
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    let pairs: Vec<(&str, String)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), text(value)))
        .collect();
    let pairs = pairs.iter().map(|(name, value)| (*name, value.as_str()));
    let content_type = headers[header::CONTENT_TYPE].to_str().unwrap();
    cloudevents::Received::read(
        Binding::Http,
        Some(content_type),
        pairs,
        body.clone(),
        "hook",
    )
    .unwrap()
}

fn builder(address: SocketAddr) -> WebhookBuilder {
    WebhookSink::builder(format!("http://{address}/hook"))
        .secret(SECRET.parse().unwrap())
        .allow_private(true)
        .timeout(Duration::from_millis(300))
}

fn sink(address: SocketAddr) -> WebhookSink {
    builder(address).build().unwrap()
}

fn message(subject: &str) -> Message {
    Message::from_event(Event::new("t").subject(subject), "/tests", UNIX_EPOCH)
}

/// A payment, and what was received of it in this mode, or in the mode that is the default.
async fn payment(mode: Option<ContentMode>) -> (Message, HeaderMap, Bytes) {
    let (address, received) = server().await;
    let event = Event::new("payment.created")
        .key("order 17 €")
        .subject("200")
        .time(UNIX_EPOCH + Duration::from_secs(951_782_400))
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .header("tenant", "acme")
        .header("content-length", "9999")
        .json(&serde_json::json!({"amount": 1250}))
        .unwrap();
    let message = Message::from_event(event, "/payments", UNIX_EPOCH);
    let builder = builder(address);
    let builder = match mode {
        Some(mode) => builder.content_mode(mode),
        None => builder,
    };
    let outcomes = builder
        .build()
        .unwrap()
        .publish(LaneRef::detached(), std::slice::from_ref(&message))
        .await
        .unwrap();
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [Outcome::Acked]);
    let (method, headers, body) = received.lock().unwrap().remove(0);
    assert_eq!(method, "POST");
    assert_eq!(headers["webhook-id"], message.id().to_string());
    (message, headers, body)
}

/// The receiver's side of Standard Webhooks, done by hand.
fn assert_signed(headers: &HeaderMap, body: &Bytes) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use hmac::{Hmac, KeyInit, Mac};
    let get = |name: &str| headers[name].to_str().unwrap();
    let key = STANDARD
        .decode(SECRET.trim_start_matches("whsec_"))
        .unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{}.{}.", get("webhook-id"), get("webhook-timestamp")).as_bytes());
    mac.update(body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(get("webhook-signature"), expected);
}

#[tokio::test]
async fn the_whole_event_is_in_the_body_that_is_signed() {
    let (message, mut headers, body) = payment(None).await;
    assert_signed(&headers, &body);
    assert_eq!(headers["content-type"], STRUCTURED);
    let attributes = headers
        .keys()
        .filter(|name| name.as_str().starts_with("ce-"));
    assert_eq!(
        attributes.count(),
        0,
        "what is no part of the body is not signed"
    );
    // Whoever holds the request can add headers: they say nothing of the event.
    headers.insert("ce-type", HeaderValue::from_static("payment.refunded"));
    headers.insert("ce-id", HeaderValue::from_static("another"));
    let event = event(&headers, &body);
    assert_eq!(event.event_id(), Some(message.id()));
    assert_eq!(event.source(), "/payments");
    assert_eq!(event.event_type(), "payment.created");
    assert_eq!(event.subject(), Some("200"));
    assert_eq!(event.time(), Some(message.time()));
    assert_eq!(event.key(), message.key());
    assert_eq!(event.header("tenant"), Some("acme"));
    assert_eq!(event.content_type(), Some("application/json"));
    assert_eq!(event.payload(), r#"{"amount":1250}"#);
}

#[tokio::test]
async fn in_binary_mode_the_payload_is_the_body_and_attributes_are_headers() {
    let (message, headers, body) = payment(Some(ContentMode::Binary)).await;
    assert_signed(&headers, &body);
    assert_eq!(body, r#"{"amount":1250}"#);
    let id = message.id().to_string();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", id.as_str()),
        ("ce-source", "/payments"),
        ("ce-type", "payment.created"),
        ("ce-subject", "200"),
        ("ce-time", "2000-02-29T00:00:00.000000Z"),
        ("ce-partitionkey", "order%2017%20%E2%82%AC"),
        ("ce-tenant", "acme"),
        ("content-type", "application/json"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("x-event-content-length", "9999"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
}

#[tokio::test]
async fn answers_become_outcomes() {
    let (address, received) = server().await;
    let batch: Vec<Message> = ["200", "204", "302", "400", "422", "429", "500", "hang"]
        .map(message)
        .into();
    let outcomes = sink(address)
        .publish(LaneRef::detached(), &batch)
        .await
        .unwrap();
    let kinds: Vec<&str> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Acked => "ack",
            Outcome::Retry {
                after: Some(after), ..
            } if after.as_secs() == 7 => "retry in 7 s",
            Outcome::Retry { after: None, .. } => "retry",
            Outcome::Reject { .. } => "reject",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "ack",
            "ack",
            "retry",
            "reject",
            "reject",
            "retry in 7 s",
            "retry",
            "retry"
        ]
    );
    assert_eq!(
        received.lock().unwrap().len(),
        batch.len(),
        "the redirect was not followed"
    );
}

/// An endpoint that answers everything with one status, which can be changed; but an event whose subject is `poison` with 502.
struct Endpoint {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Endpoint {
    async fn answering(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let asked = Arc::new(AtomicUsize::new(0));
        let (say, count) = (Arc::clone(&status), Arc::clone(&asked));
        let hook = async move |headers: HeaderMap, body: Bytes| {
            count.fetch_add(1, Ordering::SeqCst);
            match event(&headers, &body).subject() {
                Some("poison") => StatusCode::BAD_GATEWAY,
                _ => StatusCode::from_u16(say.load(Ordering::SeqCst)).unwrap(),
            }
        };
        let app = Router::new().route("/hook", any(hook));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            address,
            status,
            asked,
        }
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn publish(sink: &WebhookSink, batch: &[Message]) -> Result<Vec<Outcome>, SinkDown> {
    let outcomes = sink.publish(LaneRef::detached(), batch).await?;
    Ok(outcomes.into_iter().collect())
}

#[tokio::test]
async fn an_endpoint_that_says_it_is_gone_is_asked_no_more_until_it_is_enabled() {
    let endpoint = Endpoint::answering(410).await;
    let sink = sink(endpoint.address);
    let clone = sink.clone();
    assert!(!sink.is_disabled());
    for _ in 0..2 {
        let down = publish(&sink, &[message("a"), message("b")])
            .await
            .unwrap_err();
        assert!(down.reason().as_str().contains("410"), "{down}");
        assert!(clone.is_disabled());
    }
    let asked = endpoint.asked();
    assert!(
        (1..=2).contains(&asked),
        "both may have been under way: {asked}"
    );

    endpoint.answer(200);
    assert!(publish(&clone, &[message("a")]).await.is_err());
    assert_eq!(endpoint.asked(), asked);
    clone.enable();
    assert!(!sink.is_disabled());
    assert_eq!(
        publish(&sink, &[message("a")]).await,
        Ok(vec![Outcome::Acked])
    );
}

#[tokio::test]
async fn a_relay_keeps_what_is_for_an_endpoint_that_is_gone() {
    let database = sqlite().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 4).await;
    let endpoint = Endpoint::answering(410).await;
    let sink = sink(endpoint.address);
    let relay = quick(&pool, &outbox)
        .max_attempts(1)
        .sink("*", sink.clone());
    let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
    let events = (0..20).map(|n| Event::new("t").key([n % 5]));
    put(&pool, &outbox, events.collect()).await;
    until("it is found out", async || relay.sinks_down() == ["*"]).await;
    assert!(sink.is_disabled());
    let admin = Admin::new(pool);
    let lag = admin.lag().await.unwrap();
    assert_eq!((lag.pending, lag.dead), (20, 0));

    endpoint.answer(200);
    sink.enable();
    until("all is delivered", async || relay.stats().delivered == 20).await;
    assert_eq!(admin.lag().await.unwrap().dead, 0);
    relay.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn three_messages_in_a_row_without_an_answer_of_the_endpoint_are_an_outage() {
    let endpoint = Endpoint::answering(200).await;
    let sink = sink(endpoint.address);
    let retry = |outcome: &Outcome| matches!(outcome, Outcome::Retry { .. });
    for status in [502, 503, 504, 522] {
        endpoint.answer(status);
        let batch: Vec<Message> = (0..4).map(|n| message(&n.to_string())).collect();
        for one in batch.chunks(1).take(2).cycle().take(6) {
            assert!(publish(&sink, one).await.unwrap().iter().all(retry));
        }
        for one in batch.chunks(1).skip(2).chain(batch.chunks(1)) {
            let down = publish(&sink, one).await.unwrap_err();
            let said = format!("the endpoint answered {status}");
            assert_eq!(down.reason().as_str(), said);
        }
        endpoint.answer(500);
        assert!(publish(&sink, &batch[..1]).await.unwrap().iter().all(retry));
        endpoint.answer(status);
        assert!(publish(&sink, &batch[3..]).await.unwrap().iter().all(retry));
        endpoint.answer(200);
        let outcomes = publish(&sink, &batch).await.unwrap();
        assert_eq!(outcomes, vec![Outcome::Acked; 4]);
    }
}

#[tokio::test]
async fn an_outage_that_begins_in_a_batch_charges_two_of_it() {
    let endpoint = Endpoint::answering(503).await;
    let sink = sink(endpoint.address);
    let batch: Vec<Message> = (0..50).map(|n| message(&n.to_string())).collect();
    let outcomes = publish(&sink, &batch).await.unwrap();
    let charged = |outcome: &&Outcome| matches!(outcome, Outcome::Retry { .. });
    assert_eq!(outcomes.iter().filter(charged).count(), 2);
    let not = outcomes.iter().filter(|of| **of == Outcome::NotTried);
    assert_eq!(not.count(), 48);
}

#[tokio::test]
async fn silence_after_silence_is_an_outage() {
    let (address, _received) = server().await;
    let sink = sink(address);
    let hang = || [message("hang")];
    for _ in 0..2 {
        let outcomes = publish(&sink, &hang()).await.unwrap();
        assert!(matches!(outcomes[..], [Outcome::Retry { .. }]));
    }
    assert!(publish(&sink, &hang()).await.is_err());
    assert_eq!(
        publish(&sink, &[message("200")]).await,
        Ok(vec![Outcome::Acked])
    );
}

#[tokio::test]
async fn an_outage_behind_a_load_balancer_kills_nothing_and_what_breaks_the_handler_dies_alone() {
    let database = sqlite().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 1).await;
    let endpoint = Endpoint::answering(503).await;
    let relay = quick(&pool, &outbox)
        .max_attempts(6)
        .sink("*", sink(endpoint.address));
    let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
    // The first of the only lane, which is what the relay probes with, will fail afterwards as well.
    let events = (0..40).map(|n| {
        let event = Event::new("t").key([n % 8]);
        event.subject(if n == 0 { "poison" } else { "good" })
    });
    put(&pool, &outbox, events.collect()).await;
    until("it is down", async || relay.sinks_down() == ["*"]).await;
    // As many probes as the relay makes in a minute and more, if it is not told to hurry.
    let met = endpoint.asked() + 30;
    until("it was probed", async || endpoint.asked() >= met).await;
    let admin = Admin::new(pool);
    let lag = admin.lag().await.unwrap();
    assert_eq!((lag.pending, lag.dead), (40, 0));

    endpoint.answer(200);
    until("the rest is delivered", async || {
        relay.stats().delivered == 39
    })
    .await;
    until("it died", async || admin.lag().await.unwrap().dead == 1).await;
    let letters = admin.dead(Filter::all(), 2).await.unwrap();
    assert_eq!(letters[0].message().subject(), Some("poison"));
    relay.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let down = sink(address)
        .publish(LaneRef::detached(), &[message("200")])
        .await;
    assert!(down.is_err(), "{down:?}");
}

#[tokio::test]
async fn a_name_that_leads_inside_is_rejected_without_a_connection() {
    let (address, received) = server().await;
    let sink = WebhookSink::builder(format!("http://localhost:{}/hook", address.port()))
        .secret(SECRET.parse().unwrap())
        .build()
        .unwrap();
    let outcomes = sink
        .publish(LaneRef::detached(), &[message("200")])
        .await
        .unwrap();
    assert!(
        matches!(outcomes.iter().next(), Some(Outcome::Reject { .. })),
        "{outcomes:?}"
    );
    assert!(received.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_relay_delivers_through_an_endpoint_that_comes_and_goes() {
    let database = sqlite().await;
    let pool = database.pool.clone();
    let outbox = outbox(&pool, 4).await;
    let (address, received) = server().await;
    let other = MemorySink::new();
    let relay = quick(&pool, &outbox)
        .sink("hooks.*", sink(address))
        .sink("*", other.clone())
        .build()
        .await
        .unwrap();
    let relay = relay.spawn(CancellationToken::new());
    let events = (0..30).map(|n| {
        Event::new("t")
            .topic("hooks.a")
            .key([n % 3])
            .subject(n.to_string())
    });
    put(&pool, &outbox, events.collect()).await;
    until("all have arrived", async || relay.stats().delivered == 30).await;
    relay.drain(Duration::from_secs(5)).await;
    let received = received.lock().unwrap();
    for key in 0..3 {
        let subject = |headers: &HeaderMap, body: &Bytes| -> u8 {
            event(headers, body).subject().unwrap().parse().unwrap()
        };
        let of_key: Vec<u8> = received
            .iter()
            .map(|(_, headers, body)| subject(headers, body))
            .filter(|n| n % 3 == key)
            .collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
}
