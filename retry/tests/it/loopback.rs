//! The whole client stack against a real server on a real socket.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::State as Shared,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use mainstay_retry::{
    AcceptDeadlineLayer, AttachIdempotencyKeyLayer, AttemptTimeoutLayer, Backoff, CircuitBreaker,
    Deadline, DeadlineLayer, Error, HalfOpen, RetryLayer, TokenBudget, Trip, breaker::State,
};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::support::{ms, secs};

type Log = Arc<Mutex<Vec<(Option<String>, u64, Bytes)>>>;

/// Takes every payment down; answers only the third time, and the second time after having hung up.
async fn pay(
    Shared(log): Shared<Log>,
    Extension(deadline): Extension<Deadline>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert!(
        deadline <= Deadline::within(secs(10)),
        "the server's own limit holds"
    );
    let header = |name: &str| Some(headers.get(name)?.to_str().unwrap().to_owned());
    let left = header("x-deadline-ms").unwrap().parse().unwrap();
    let count = {
        let mut log = log.lock().unwrap();
        log.push((header("idempotency-key"), left, body.clone()));
        log.len()
    };
    match count {
        1 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]).into_response(),
        2 => std::future::pending().await,
        _ => (StatusCode::CREATED, body).into_response(),
    }
}

async fn serve(log: Log) -> SocketAddr {
    let app = Router::new()
        .route("/payments", post(pay))
        .route(
            "/broken",
            get(|| async { StatusCode::INTERNAL_SERVER_ERROR }),
        )
        .layer(AcceptDeadlineLayer::at_most(secs(10)))
        .with_state(log);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn breaker() -> CircuitBreaker {
    CircuitBreaker::builder("payments")
        .trip(Trip::consecutive(4))
        .wait_in_open(Backoff::constant(secs(60)))
        .half_open(HalfOpen::probes(1))
        .build()
        .unwrap()
}

fn client(
    breaker: &CircuitBreaker,
    attempt: Duration,
) -> impl use<> + Service<Request<Full<Bytes>>, Response = http::Response<Incoming>, Error = Error> + Clone
{
    let budget = TokenBudget::success_credit(0.1)
        .capacity(10)
        .shared()
        .unwrap();
    ServiceBuilder::new()
        .layer(AttachIdempotencyKeyLayer::new())
        .layer(DeadlineLayer::total(secs(20)))
        .layer(
            RetryLayer::http()
                .backoff(Backoff::full_jitter(ms(1), ms(10)))
                .budget(budget),
        )
        .layer(breaker.layer())
        .layer(AttemptTimeoutLayer::new(attempt))
        .service(Client::builder(TokioExecutor::new()).build_http())
}

#[tokio::test]
async fn a_payment_gets_through_a_refusal_and_a_hang_under_one_key() {
    let log = Log::default();
    let address = serve(Arc::clone(&log)).await;
    let breaker = breaker();
    let mut client = client(&breaker, ms(300));
    let request = Request::post(format!("http://{address}/payments"))
        .body(Full::from("1250 EUR"))
        .unwrap();
    let response = client.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "1250 EUR"
    );

    let log = log.lock().unwrap();
    assert_eq!(log.len(), 3);
    assert!(log[0].0.is_some());
    assert!(
        log.iter()
            .all(|(key, _, body)| *key == log[0].0 && body == "1250 EUR")
    );
    assert!(
        log[2].1 + 300 <= log[0].1 && log[0].1 <= 20_000,
        "the time left shrinks: {log:?}"
    );
    assert_eq!(breaker.handle().state(), State::Closed);
}

#[tokio::test]
async fn a_server_that_keeps_failing_opens_the_circuit() {
    let address = serve(Log::default()).await;
    let breaker = breaker();
    let mut client = client(&breaker, secs(5));
    let broken = || {
        Request::get(format!("http://{address}/broken"))
            .body(Full::default())
            .unwrap()
    };
    assert_eq!(
        client
            .ready()
            .await
            .unwrap()
            .call(broken())
            .await
            .unwrap()
            .status(),
        500
    );
    // Three attempts so far; the next failure is the fourth in a row, and the attempt after it is refused.
    match client
        .ready()
        .await
        .unwrap()
        .call(broken())
        .await
        .unwrap_err()
    {
        Error::CircuitOpen(open) => assert!(open.attempted() && open.retry_after() > secs(50)),
        other => panic!("{other}"),
    }
    match client
        .ready()
        .await
        .unwrap()
        .call(broken())
        .await
        .unwrap_err()
    {
        Error::CircuitOpen(open) => assert!(!open.attempted()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_the_transports_own_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut client = client(&breaker(), secs(5));
    let request = Request::get(format!("http://{address}/"))
        .body(Full::default())
        .unwrap();
    match client
        .ready()
        .await
        .unwrap()
        .call(request)
        .await
        .unwrap_err()
    {
        Error::Inner(error) => {
            assert!(
                error
                    .downcast::<hyper_util::client::legacy::Error>()
                    .unwrap()
                    .is_connect()
            );
        }
        other => panic!("{other}"),
    }
}
