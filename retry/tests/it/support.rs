//! A scripted HTTP server that is also a readiness probe: its clones are not ready, it is pending once before it is,
//! and a call on an instance that was not polled ready is a failed test.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mainstay_retry::{Attempt, BoxError, Deadline, Hedge};
use tokio::time::Instant;
use tower::{Service, ServiceExt};

pub type Req = Request<Full<Bytes>>;
pub type Res = Response<Full<Bytes>>;

/// What the server does with one request.
#[derive(Clone, Debug)]
pub enum Step {
    Status(u16),
    RetryAfter(u16, &'static str),
    Reset,
    Hang,
    Panic,
    Slow(Duration, u16),
}

#[derive(Debug)]
pub struct Seen {
    pub at: Instant,
    pub attempt: Option<Attempt>,
    pub attempt_header: Option<String>,
    pub hedge: Option<Hedge>,
    pub key: Option<String>,
    pub time_left: Option<u64>,
    pub deadline: Option<Deadline>,
    pub body: Full<Bytes>,
}

#[derive(Default)]
struct Shared {
    steps: VecDeque<Step>,
    seen: Vec<Seen>,
    ready_error_after: Option<usize>,
    never_ready: bool,
    ready_at_once: bool,
    under_way: usize,
}

/// Answers 200 when the script has come to its end.
pub struct Server {
    shared: Arc<Mutex<Shared>>,
    polls: u32,
}

impl Server {
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let shared = Shared {
            steps: steps.into_iter().collect(),
            ..Shared::default()
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            polls: 0,
        }
    }

    pub fn statuses(statuses: impl IntoIterator<Item = u16>) -> Self {
        Self::new(statuses.into_iter().map(Step::Status))
    }

    /// Readiness fails after so many calls.
    pub fn broken_after(self, calls: usize) -> Self {
        self.shared.lock().unwrap().ready_error_after = Some(calls);
        self
    }

    /// Ready when it is first asked, as most clients are; but asked it must be.
    pub fn ready_at_once(self) -> Self {
        self.shared.lock().unwrap().ready_at_once = true;
        self
    }

    pub fn set_never_ready(&self, never: bool) {
        self.shared.lock().unwrap().never_ready = never;
    }

    pub fn push(&self, steps: impl IntoIterator<Item = Step>) {
        self.shared.lock().unwrap().steps.extend(steps);
    }

    pub fn calls(&self) -> usize {
        self.shared.lock().unwrap().seen.len()
    }

    pub fn under_way(&self) -> usize {
        self.shared.lock().unwrap().under_way
    }

    pub fn seen<T>(&self, look: impl FnMut(&Seen) -> T) -> Vec<T> {
        self.shared.lock().unwrap().seen.iter().map(look).collect()
    }
}

impl Clone for Server {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            polls: 0,
        }
    }
}

struct UnderWay(Arc<Mutex<Shared>>);

impl UnderWay {
    fn start(shared: &Arc<Mutex<Shared>>) -> Self {
        shared.lock().unwrap().under_way += 1;
        Self(Arc::clone(shared))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().unwrap().under_way -= 1;
    }
}

impl Service<Req> for Server {
    type Response = Res;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Res, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let shared = self.shared.lock().unwrap();
        if shared.never_ready {
            return Poll::Pending;
        }
        if shared
            .ready_error_after
            .is_some_and(|calls| shared.seen.len() >= calls)
        {
            return Poll::Ready(Err("the server is gone".into()));
        }
        self.polls += if shared.ready_at_once { 2 } else { 1 };
        if self.polls == 1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        assert!(
            std::mem::take(&mut self.polls) > 1,
            "called without having been polled ready"
        );
        let header = |name: &str| Some(request.headers().get(name)?.to_str().unwrap().to_owned());
        let seen = Seen {
            at: Instant::now(),
            attempt: request.extensions().get::<Attempt>().copied(),
            attempt_header: header("x-retry-attempt"),
            hedge: request.extensions().get::<Hedge>().copied(),
            key: header("idempotency-key"),
            deadline: request.extensions().get().copied(),
            time_left: header("x-deadline-ms").and_then(|millis| millis.parse().ok()),
            body: request.body().clone(),
        };
        let mut shared = self.shared.lock().unwrap();
        shared.seen.push(seen);
        let step = shared.steps.pop_front().unwrap_or(Step::Status(200));
        drop(shared);
        let under_way = UnderWay::start(&self.shared);
        Box::pin(async move {
            let _under_way = under_way;
            tokio::task::yield_now().await;
            let response = match step {
                Step::Status(status) => Response::builder().status(status),
                Step::RetryAfter(status, wait) => Response::builder()
                    .status(status)
                    .header("retry-after", wait),
                Step::Reset => {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
                }
                Step::Hang => std::future::pending().await,
                Step::Panic => panic!("scripted panic"),
                Step::Slow(time, status) => {
                    tokio::time::sleep(time).await;
                    Response::builder().status(status)
                }
            };
            Ok(response.body(Full::default()).unwrap())
        })
    }
}

pub fn get() -> Req {
    Request::get("http://localhost/")
        .body(Full::default())
        .unwrap()
}

pub fn post(body: &'static str) -> Req {
    Request::post("http://localhost/")
        .body(Full::from(body))
        .unwrap()
}

/// One call, made the way tower wants it.
pub async fn send<S: Service<Req>>(service: &mut S, request: Req) -> Result<S::Response, S::Error> {
    service.ready().await?.call(request).await
}

pub async fn status<S, B>(service: &mut S, request: Req) -> u16
where
    S: Service<Req, Response = Response<B>>,
    S::Error: std::fmt::Display,
{
    match send(service, request).await {
        Ok(response) => response.status().as_u16(),
        Err(error) => panic!("no answer: {error}"),
    }
}

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
