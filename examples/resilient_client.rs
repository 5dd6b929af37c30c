//! A client that asks again without making it worse: one key per call, a deadline over all attempts, retries that
//! successes pay for, a circuit breaker, and a limit on each attempt.
//!
//! Run it with `cargo run --example resilient_client`. It brings its own flaky server on a loopback port.
//!
//! It prints, with other keys each time:
//!
//! ```text
//! # one refusal, one hang, then well
//! the caller gets:  201 Created
//! the server saw:   3 attempt(s), 1 key(s) "01a1fcd8-0aab-77e4-ae40-4769fb1a7388"
//! the breaker is:   closed
//! the budget holds: 2 retries
//!
//! # an outage
//! the caller gets:  503 Service Unavailable
//! the server saw:   3 attempt(s), 1 key(s) "01a1fcd8-0cad-77cd-a7d4-77afde83b1e6"
//! the breaker is:   open
//! the budget holds: 0 retries
//!
//! # another call at once
//! the caller gets:  circuit `payments` is open
//! the server saw:   0 attempt(s), 0 key(s)
//! the breaker is:   open
//! the budget holds: 0 retries
//!
//! # after the wait, a probe
//! the caller gets:  201 Created
//! the server saw:   1 attempt(s), 1 key(s) "01a1fcd8-0df0-759f-83bb-7ab82d0d481b"
//! the breaker is:   closed
//! the budget holds: 0 retries
//!
//! # a refusal when no success has paid for a retry
//! the caller gets:  503 Service Unavailable
//! the server saw:   1 attempt(s), 1 key(s) "01a1fcd8-0df2-77a1-a1fd-c60482f012ed"
//! the breaker is:   closed
//! the budget holds: 0 retries
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    collections::VecDeque,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use mainstay::retry::{
    self, AttachIdempotencyKeyLayer, AttemptTimeoutLayer, Backoff, CircuitBreaker, DeadlineLayer,
    RetryLayer, TokenBudget, Trip,
};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt};

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Mood {
    Refuse,
    Hang,
}

/// A server that follows a script, is well when the script is over, and writes down the keys it sees.
#[derive(Clone, Default)]
struct Flaky {
    script: Arc<Mutex<VecDeque<Mood>>>,
    keys: Arc<Mutex<Vec<String>>>,
}

impl Flaky {
    fn next(&self, moods: impl IntoIterator<Item = Mood>) {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.extend(moods);
    }

    /// The keys since the last look.
    fn keys(&self) -> Vec<String> {
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a request's key and says what is to become of it.
    fn receive(&self, headers: &HeaderMap) -> Option<Mood> {
        let key = headers.get("idempotency-key").map(|key| key.to_str());
        let key = key.and_then(Result::ok).unwrap_or("none").to_owned();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.push(key);
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.pop_front()
    }
}

async fn pay(State(server): State<Flaky>, headers: HeaderMap) -> StatusCode {
    match server.receive(&headers) {
        Some(Mood::Refuse) => StatusCode::SERVICE_UNAVAILABLE,
        Some(Mood::Hang) => std::future::pending().await,
        None => StatusCode::CREATED,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Flaky::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/payments", listener.local_addr()?);
    let app = Router::new()
        .route("/payments", post(pay))
        .with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let breaker = CircuitBreaker::builder("payments")
        .trip(Trip::consecutive(3))
        .wait_in_open(Backoff::constant(Duration::from_millis(300)))
        .build()?;
    // Four retries to begin with, and one more for every ten successes.
    let budget = TokenBudget::success_credit(0.1)
        .capacity(4)
        .refill_per_second(0.0) // an idle client would earn some as well; here it would blur the count
        .shared()?;

    // The order is the meaning; outermost first.
    let mut client = ServiceBuilder::new()
        .layer(AttachIdempotencyKeyLayer::new()) // above retry: all attempts share the key
        .layer(DeadlineLayer::total(Duration::from_secs(10))) // over all attempts and waits
        .layer(
            RetryLayer::http()
                .max_attempts(3)
                .backoff(Backoff::full_jitter(
                    Duration::from_millis(10),
                    Duration::from_millis(50),
                ))
                .budget(budget.clone()),
        )
        .layer(breaker.layer()) // below retry: it sees every attempt
        .layer(AttemptTimeoutLayer::new(Duration::from_millis(500))) // lowest: a hanging attempt is a failure
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());

    let acts: [(&str, &[Mood]); 5] = [
        (
            "one refusal, one hang, then well",
            &[Mood::Refuse, Mood::Hang],
        ),
        ("an outage", &[Mood::Refuse; 3]),
        ("another call at once", &[]),
        ("after the wait, a probe", &[]),
        (
            "a refusal when no success has paid for a retry",
            &[Mood::Refuse],
        ),
    ];
    for (title, script) in acts {
        println!("# {title}");
        server.next(script.iter().copied());
        let request = Request::post(&url).body(Full::from(r#"{"amount": 1250}"#))?;
        let mut wait = Duration::ZERO;
        match client.ready().await?.call(request).await {
            Ok(answer) => println!("the caller gets:  {}", answer.status()),
            // Refused on this side: the server has not been asked, so nothing can have happened there.
            Err(retry::Error::CircuitOpen(open)) => {
                println!("the caller gets:  {open}");
                wait = open.retry_after();
            }
            Err(other) => return Err(other.into()),
        }
        let mut keys = server.keys();
        let attempts = keys.len();
        keys.dedup();
        let (count, keys) = (keys.len(), keys.join(", "));
        println!("the server saw:   {attempts} attempt(s), {count} key(s) {keys}");
        println!("the breaker is:   {}", breaker.handle().state().as_str());
        println!("the budget holds: {} retries\n", budget.tokens());
        tokio::time::sleep(wait).await;
    }
    Ok(())
}
