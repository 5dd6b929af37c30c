//! The clients: each pays, again and again, through mainstay's own client stack, and writes down what it was told.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use mainstay::{
    errors::{Decoded, Outcome, Problem, Retry},
    idempotency::webhook::{self, Secret},
    retry::{
        AttachIdempotencyKeyLayer, AttemptTimeoutLayer, Backoff, BoxError, CircuitBreaker,
        DeadlineLayer, HalfOpen, NonIdempotent, RetryLayer, TokenBudget, Trip,
    },
};
use serde::Deserialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tower::{Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use uuid::Uuid;

use super::{
    DrillError, Sabotage,
    audit::{Call, Listed, Told},
};
use crate::{auth::AuthError, clock};

type Stack = BoxCloneSyncService<
    Request<Full<Bytes>>,
    http::Response<hyper::body::Incoming>,
    mainstay::retry::Error,
>;

/// A tenant of one drill.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// What it shows at the door.
    pub token: String,
}

/// The clients and their ledger.
#[derive(Debug)]
pub struct Fleet {
    stack: Stack,
    service: SocketAddr,
    tenants: Vec<Tenant>,
    provider: Secret,
    sabotage: Option<Sabotage>,
    finished: AtomicBool,
    ledger: Mutex<Vec<Call>>,
    attempts: Arc<AtomicU64>,
    asked: AtomicU64,
    notices: AtomicU64,
    replayed: AtomicU64,
}

/// The clients at work.
#[derive(Debug)]
pub struct Paying(JoinSet<()>);

impl Paying {
    /// Waits until every client has heard the fate of its last call, at the longest until `deadline`.
    pub async fn join(mut self, deadline: Instant) {
        let _ = timeout_at(deadline, async {
            while self.0.join_next().await.is_some() {}
        })
        .await;
    }
}

impl Fleet {
    /// A fleet that pays at `service`.
    ///
    /// # Errors
    /// When the client stack refuses its own settings.
    pub fn new(
        service: SocketAddr,
        tenants: Vec<Tenant>,
        provider: Secret,
        sabotage: Option<Sabotage>,
    ) -> Result<Self, DrillError> {
        let attempts = Arc::new(AtomicU64::new(0));
        Ok(Self {
            stack: stack(Arc::clone(&attempts), sabotage)?,
            service,
            tenants,
            provider,
            sabotage,
            finished: AtomicBool::new(false),
            ledger: Mutex::default(),
            attempts,
            asked: AtomicU64::new(0),
            notices: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
        })
    }

    /// Starts `clients` clients.
    pub fn start(self: &Arc<Self>, clients: u16) -> Paying {
        let mut paying = JoinSet::new();
        for client in 0..clients {
            let fleet = Arc::clone(self);
            paying.spawn(async move {
                let mut n = 0;
                while !fleet.finished.load(Ordering::Relaxed) {
                    n += 1;
                    fleet.pay(client, n).await;
                }
            });
        }
        Paying(paying)
    }

    /// No new calls from here on; those under way are seen to their end.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    /// Logical calls so far.
    pub fn calls(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Settlements that the provider gave notice of, each counted once.
    pub fn notices(&self) -> u64 {
        self.notices.load(Ordering::Relaxed)
    }

    /// Payments and notices that left the client stack as HTTP requests.
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Answers that the service gave from memory.
    pub fn replayed(&self) -> u64 {
        self.replayed.load(Ordering::Relaxed)
    }

    /// What every client was told.
    pub fn ledger(&self) -> Vec<Call> {
        self.ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// One payment, from asking for it to the provider's notice that it is settled.
    async fn pay(&self, client: u16, n: u64) {
        let Some(tenant) = self
            .tenants
            .get(usize::from(client) % self.tenants.len().max(1))
        else {
            return;
        };
        let reference = format!("client-{client}-payment-{n}");
        let body = serde_json::json!({ "amount": 100 + n, "currency": if n.is_multiple_of(3) { "USD" } else { "EUR" }, "reference": reference });
        let body = Bytes::from(body.to_string());
        // One key for one logical call, however often this loop has to ask.
        let key = Uuid::now_v7().to_string();
        self.asked.fetch_add(1, Ordering::Relaxed);
        // Written down before it is sent: a payment that nobody can account for is a finding.
        let at = self.note(Call {
            reference: reference.clone(),
            told: Told::Nothing,
            settled: false,
        });

        let created = self
            .until_told(|| {
                let mut request =
                    self.request_of(tenant, Method::POST, "/v1/payments", body.clone());
                if self.sabotage != Some(Sabotage::DoubleEffect)
                    && let Ok(value) = key.parse()
                {
                    request.headers_mut().insert("idempotency-key", value);
                }
                request
            })
            .await;
        let told = match created {
            Answer::Done(body) => match serde_json::from_slice::<Created>(&body) {
                Ok(payment) => Told::Accepted(payment.id),
                Err(_) => Told::Nothing,
            },
            Answer::Refused(problem) => {
                // Who is not let in will not be with the next payment either.
                if let Some(AuthError::TokenMissingOrUnknown) = problem.known() {
                    self.finish();
                }
                Told::Refused
            }
        };
        self.amend(at, |call| call.told = told);

        if let Told::Accepted(id) = told {
            let settled = self.settle(id).await;
            self.amend(at, |call| call.settled = settled);
        }
    }

    /// The payment provider's part: a signed notice, repeated until it is acknowledged, and now and then once more.
    async fn settle(&self, payment: Uuid) -> bool {
        let id = format!("msg_{}", payment.simple());
        let body = Bytes::from(
            serde_json::json!({ "type": "payment.settled", "data": { "payment_id": payment } })
                .to_string(),
        );
        let send = || {
            let mut request = self.request(Method::POST, "/v1/webhooks/provider", body.clone());
            if let Ok(headers) = webhook::sign(&self.provider, &id, clock::now(), &body) {
                request.headers_mut().extend(headers);
            }
            request
        };
        self.notices.fetch_add(1, Ordering::Relaxed);
        let answered = matches!(self.until_told(send).await, Answer::Done(_));
        if answered && rand::random_ratio(1, 4) {
            self.until_told(send).await;
        }
        answered
    }

    /// Asks until somebody says what came of it, honouring what the answer says about asking again.
    async fn until_told(&self, request: impl Fn() -> Request<Full<Bytes>>) -> Answer {
        let mut pause = Duration::from_millis(20);
        loop {
            if let Ok((status, headers, body)) = self.send(request()).await {
                if headers.contains_key("idempotent-replayed") {
                    self.replayed.fetch_add(1, Ordering::Relaxed);
                }
                if status.is_success() {
                    return Answer::Done(body);
                }
                let problem = Problem::read(status.as_u16(), &headers, &body);
                if problem.retry() == Retry::Never && problem.outcome() == Outcome::NotApplied {
                    return Answer::Refused(Box::new(problem));
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), BoxError> {
        let mut stack = self.stack.clone();
        let (parts, body) = stack.ready().await?.call(request).await?.into_parts();
        // The head has come through; the rest may still be cut off.
        let body = timeout(Duration::from_secs(2), body.collect())
            .await??
            .to_bytes();
        Ok((parts.status, parts.headers, body))
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        if let Ok(uri) = format!("http://{}{path}", self.service).parse() {
            *request.uri_mut() = uri;
        }
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        request
    }

    fn request_of(
        &self,
        tenant: &Tenant,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let mut request = self.request(method, path, body);
        if let Ok(value) = format!("Bearer {}", tenant.token).parse() {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        request
    }

    /// Reads every payment of every tenant, page by page.
    ///
    /// # Errors
    /// When a page cannot be had before `deadline`, or is not what the service promises.
    pub async fn walk(&self, deadline: Instant) -> Result<Vec<Listed>, DrillError> {
        let mut payments = Vec::new();
        for tenant in &self.tenants {
            let mut path = "/v1/payments?limit=100".to_owned();
            loop {
                let answer = timeout_at(
                    deadline,
                    self.until_told(|| self.request_of(tenant, Method::GET, &path, Bytes::new())),
                );
                let body = match answer.await {
                    Ok(Answer::Done(body)) => body,
                    Ok(Answer::Refused(problem)) => return Err(barred(*problem)),
                    Err(late) => return Err(DrillError::because(LIST)(late)),
                };
                let page: Page = serde_json::from_slice(&body)
                    .map_err(DrillError::because("read a page of payments"))?;
                payments.extend(page.items.into_iter().map(|item| Listed {
                    id: item.id,
                    reference: item.reference,
                    settled: item.status == "settled",
                }));
                match page.page.end_cursor {
                    Some(cursor) if page.page.has_next => {
                        path = format!("/v1/payments?limit=100&after={cursor}");
                    }
                    _ => break,
                }
            }
        }
        Ok(payments)
    }

    fn note(&self, call: Call) -> usize {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.push(call);
        ledger.len() - 1
    }

    fn amend(&self, at: usize, change: impl FnOnce(&mut Call)) {
        if let Some(call) = self
            .ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(at)
        {
            change(call);
        }
    }
}

/// What a logical call comes to.
enum Answer {
    /// A success, and its body.
    Done(Bytes),
    /// A problem that will stay one and has changed nothing.
    Refused(Box<Problem>),
}

const LIST: &str = "list the payments for the audit";

/// Why there is no audit. A client of the service has the service's own errors back, as the enum they were made of.
fn barred(problem: Problem) -> DrillError {
    match problem.decode::<AuthError>() {
        Decoded::Known(error) => DrillError::because(LIST)(error),
        // Something on the way, or a service newer than this fleet.
        Decoded::Unknown(problem) => DrillError::because(LIST)(problem),
    }
}

#[derive(Deserialize)]
struct Created {
    id: Uuid,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Item>,
    page: PageInfo,
}

#[derive(Deserialize)]
struct Item {
    id: Uuid,
    reference: String,
    status: String,
}

#[derive(Deserialize)]
struct PageInfo {
    has_next: bool,
    end_cursor: Option<String>,
}

/// The client stack, outermost first: one key per call, one deadline, retries within a budget, a breaker, a limit per attempt.
fn stack(attempts: Arc<AtomicU64>, sabotage: Option<Sabotage>) -> Result<Stack, DrillError> {
    let breaker = CircuitBreaker::builder("payments")
        .trip(Trip::consecutive(20))
        .wait_in_open(Backoff::constant(Duration::from_millis(200)))
        .half_open(HalfOpen::probes(2).max_wait(Duration::from_secs(2)))
        .build()
        .map_err(DrillError::because("build the circuit breaker"))?;
    let budget = TokenBudget::success_credit(0.1)
        .capacity(20)
        .shared()
        .map_err(DrillError::because("build the retry budget"))?;
    let retry = RetryLayer::http()
        .max_attempts(4)
        .backoff(Backoff::full_jitter(
            Duration::from_millis(20),
            Duration::from_millis(400),
        ))
        .budget(budget);
    let transport = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http::<Full<Bytes>>();
    let transport = ServiceBuilder::new()
        .layer(AttemptTimeoutLayer::new(Duration::from_secs(1)))
        .map_request(move |request: Request<Full<Bytes>>| {
            // The audit's own reading does not count.
            attempts.fetch_add(
                u64::from(request.method() == Method::POST),
                Ordering::Relaxed,
            );
            request
        })
        .service(transport);
    let deadline = DeadlineLayer::total(Duration::from_secs(4));
    Ok(match sabotage {
        // The same layers in the wrong order: a key for each attempt protects nothing.
        Some(Sabotage::DoubleEffect) => ServiceBuilder::new()
            .boxed_clone_sync()
            .layer(deadline)
            .layer(retry.non_idempotent(NonIdempotent::Always))
            .layer(breaker.layer())
            .layer(AttachIdempotencyKeyLayer::new())
            .service(transport),
        _ => ServiceBuilder::new()
            .boxed_clone_sync()
            .layer(AttachIdempotencyKeyLayer::new())
            .layer(deadline)
            .layer(retry)
            .layer(breaker.layer())
            .service(transport),
    })
}

#[cfg(test)]
mod tests {
    use mainstay::errors::Fault;

    use super::*;

    #[test]
    fn a_refusal_of_the_service_is_told_as_its_own_error() {
        let sent = AuthError::TokenMissingOrUnknown.to_problem().to_bytes();
        let read =
            |bytes: &[u8]| Problem::read_document(401, Some("application/problem+json"), bytes);
        let source = barred(read(&sent)).source.unwrap();
        assert!(source.is::<AuthError>(), "{source:?}");
        // A proxy's 401 is nobody's code.
        let source = barred(read(b"<html>")).source.unwrap();
        assert!(source.is::<Problem>(), "{source:?}");
    }
}
