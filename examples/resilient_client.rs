//! A client that rides out an outage: watch its breaker, its budget and its attempts while the server stalls, fails and
//! comes back. Beside it, for comparison, a client that knows nothing but three attempts has a server with the same day.
//!
//! Run it with `cargo run --example resilient_client`. On a terminal one line changes in place for two seconds.
//! Elsewhere (`| cat`) the clock jumps from timer to timer, and this is printed, always the same:
//!
//! ```text
//! 0.00 s | server is well | budget 4 | attempts  0, saved  0 | breaker closed
//! 0.20 s | server is well | budget 4 | attempts 10, saved  0 | breaker closed
//! 0.40 s | server is well | budget 4 | attempts 20, saved  0 | breaker closed
//! 0.60 s | server stalls  | budget 4 | attempts 30, saved  0 | breaker closed
//! 0.72 s | breaker closed -> open
//! 0.80 s | server fails   | budget 0 | attempts 40, saved 14 | breaker open, probe in 120ms
//! 0.92 s | breaker open -> half_open
//! 0.92 s | breaker half_open -> open
//! 1.00 s | server fails   | budget 0 | attempts 41, saved 58 | breaker open, probe in 120ms
//! 1.12 s | breaker open -> half_open
//! 1.12 s | breaker half_open -> open
//! 1.20 s | server is well | budget 0 | attempts 42, saved 88 | breaker open, probe in 120ms
//! 1.32 s | breaker open -> half_open
//! 1.32 s | breaker half_open -> closed
//! 1.40 s | server is well | budget 0 | attempts 46, saved 94 | breaker closed
//! 1.60 s | server is well | budget 2 | attempts 56, saved 94 | breaker closed
//! 1.80 s | server is well | budget 4 | attempts 66, saved 94 | breaker closed
//!
//! this client:          76 attempts under 72 keys, 59 of 100 orders placed
//! only three attempts: 170 attempts, 65 of 100 orders placed
//! saved:                94 attempts
//! ```
//!
//! The price of the attempts saved is the orders that came between the server's return and the next probe.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{
    collections::HashSet,
    error::Error,
    io::{IsTerminal, Write, stdout},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use mainstay::retry::{
    self, AttachIdempotencyKeyLayer, AttemptTimeoutLayer, Backoff, BoxError, CircuitBreaker,
    DeadlineLayer, HttpClassify, HttpReplay, RetryLayer, TokenBudget, Trip,
};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep},
};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

type Req = Request<Full<Bytes>>;
type Res = Response<Full<Bytes>>;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A server in this process, with a bad day, which writes down the idempotency key of each attempt.
#[derive(Clone)]
struct Server(Instant, Arc<Mutex<Vec<String>>>);

impl Server {
    fn mood(&self) -> &'static str {
        match self.0.elapsed().as_millis() {
            500..800 => "stalls",
            800..1_200 => "fails",
            _ => "is well",
        }
    }

    fn keys(&self) -> MutexGuard<'_, Vec<String>> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self, request: Req) -> Result<Res, BoxError> {
        let key = request.headers().get("idempotency-key");
        let key = key.ok_or("no key")?.to_str()?.to_owned();
        self.keys().push(key);
        let mut answer = Res::default();
        match self.mood() {
            "stalls" => std::future::pending().await,
            "fails" => *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
            _ => sleep(ms(5)).await,
        }
        Ok(answer)
    }
}

/// A hundred orders, one every 20 ms, whatever has become of those before. Tells how many were placed.
async fn orders<S>(client: S) -> usize
where
    S: Service<Req, Response = Res, Error = retry::Error> + Clone + Send + 'static,
    S::Future: Send,
{
    let (mut calls, mut due) = (JoinSet::new(), interval(ms(20)));
    for _ in 0..100 {
        due.tick().await;
        let mut order = Req::new(Full::from("one umbrella"));
        *order.method_mut() = http::Method::POST;
        let call = client.clone().oneshot(order);
        calls.spawn(async { call.await.is_ok_and(|answer| answer.status().is_success()) });
    }
    let placed = calls.join_all().await;
    placed.into_iter().filter(|placed| *placed).count()
}

fn three_attempts() -> RetryLayer<HttpClassify, HttpReplay> {
    let retry = RetryLayer::http().max_attempts(3);
    let retry = retry.backoff(Backoff::full_jitter(ms(20), ms(100)));
    retry.seed(1) // so that the output is always the same; leave it out elsewhere
}

fn main() -> Result<(), Box<dyn Error>> {
    let live = stdout().is_terminal();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(!live) // with nobody watching there is nothing to wait for
        .build()?;
    runtime.block_on(ride_out(live))
}

async fn ride_out(live: bool) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let [server, other] = [(); 2].map(|()| Server(start, Arc::default()));
    let serve = |server: Server| service_fn(move |request| server.clone().answer(request));

    let breaker = CircuitBreaker::builder("shop")
        .trip(Trip::consecutive(8))
        .wait_in_open(Backoff::constant(ms(200)))
        .build()?;
    // Four retries to begin with, and one more for every five successes.
    let budget = TokenBudget::success_credit(0.2).capacity(4).shared()?;

    // The order is the meaning; outermost first.
    let client = ServiceBuilder::new()
        .layer(AttachIdempotencyKeyLayer::new()) // above retry: all attempts share the key
        .layer(DeadlineLayer::total(ms(400))) // over all attempts and waits
        .layer(three_attempts().budget(budget.clone()))
        .layer(breaker.layer()) // below retry: it sees every attempt
        .layer(AttemptTimeoutLayer::new(ms(100))) // lowest: a hanging attempt is a failure
        .service(serve(server.clone()));
    let stubborn = ServiceBuilder::new()
        .layer(AttachIdempotencyKeyLayer::new())
        .layer(three_attempts().without_budget())
        .layer(AttemptTimeoutLayer::new(ms(100)))
        .service(serve(other.clone()));

    let handle = breaker.handle();
    let mut events = handle.subscribe();
    let mut both = pin!(async { tokio::join!(orders(client), orders(stubborn)) });
    let mut refresh = interval(ms(if live { 20 } else { 200 }));
    let (begin, end) = if live { ("\r", "\x1b[K") } else { ("", "\n") };
    let attempts = || (server.keys().len(), other.keys().len());
    let (placed, others) = loop {
        let event = tokio::select! {
            biased;
            placed = &mut both => break placed,
            Some(event) = events.next() => Some(event),
            _ = refresh.tick() => None,
        };
        let time = start.elapsed().as_secs_f64();
        if let Some(event) = event {
            let (from, to) = (event.from.as_str(), event.to.as_str());
            println!(
                "{begin}{time:.2} s | breaker {from} -> {to}{}",
                end.trim_end()
            );
            continue;
        }
        let (mood, now, tokens) = (server.mood(), handle.snapshot(), budget.tokens());
        let probe = now
            .time_to_probe
            .map(|wait| format!(", probe in {wait:.0?}"));
        let (state, probe) = (now.state.as_str(), probe.unwrap_or_default());
        let (sent, theirs) = attempts();
        let saved = theirs.saturating_sub(sent);
        print!("{begin}{time:.2} s | server {mood:7} | budget {tokens} | attempts {sent:2}");
        print!(", saved {saved:2} | breaker {state}{probe}{end}");
        stdout().flush()?;
    };
    let (sent, theirs) = attempts();
    let keys = server.keys().iter().collect::<HashSet<_>>().len();
    println!(
        "\nthis client:         {sent:3} attempts under {keys} keys, {placed} of 100 orders placed"
    );
    println!("only three attempts: {theirs:3} attempts, {others} of 100 orders placed");
    println!(
        "saved:               {:3} attempts",
        theirs.saturating_sub(sent)
    );
    Ok(())
}
