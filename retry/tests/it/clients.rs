//! Other people's clients over loopback: reqwest's, and one in a handler of axum. (hyper's is in `loopback`.)

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{any, get},
};
use http::Request;
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use mainstay_retry::{Backoff, HttpClassify, HttpReplay, ReplayBodyLayer, RetryLayer};
use tokio::net::TcpListener;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::support::ms;

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Answers 503 twice, then what was sent and the attempt it came with.
fn third_time() -> Router {
    let count = Arc::new(AtomicU32::new(0));
    let handler = move |headers: HeaderMap, body: String| {
        let count = Arc::clone(&count);
        async move {
            if count.fetch_add(1, Relaxed) % 3 < 2 {
                return (StatusCode::SERVICE_UNAVAILABLE, String::new());
            }
            let attempt = headers
                .get("x-retry-attempt")
                .map(|number| number.to_str().unwrap());
            (StatusCode::OK, format!("{body} {}", attempt.unwrap_or("1")))
        }
    };
    Router::new().route("/", any(handler))
}

fn retry() -> RetryLayer<HttpClassify, HttpReplay> {
    RetryLayer::http().backoff(Backoff::constant(ms(1)))
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwests_client_is_a_service_like_any_other() {
    let url = format!("http://{}/", serve(third_time()).await);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut service = retry().layer(client.clone());
    let put = client.put(&url).body("hello").build().unwrap();
    let response = service.ready().await.unwrap().call(put).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "hello 3");

    let post = client.post(&url).body("hello").build().unwrap();
    let response = service.ready().await.unwrap().call(post).await.unwrap();
    assert_eq!(response.status(), 503, "not safe to repeat");

    // From `http::Request`, with its extensions.
    let mut service = retry().layer(tower::service_fn(
        move |request: Request<http_body_util::Full<bytes::Bytes>>| {
            let client = client.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let request = reqwest::Request::try_from(Request::from_parts(parts, body))?;
                client.execute(request).await
            }
        },
    ));
    let put = Request::put(&url).body("again".into()).unwrap();
    let response = service.ready().await.unwrap().call(put).await.unwrap();
    assert_eq!(
        response.text().await.unwrap(),
        "again 2",
        "the second of three was spent above"
    );
}

#[tokio::test]
async fn a_handler_passes_its_body_on_and_repeats_it() {
    let upstream = serve(third_time()).await;
    let client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(retry())
        .map_request(|request: Request<mainstay_retry::ReplayBody<Body>>| request.map(Body::new))
        .service(Client::builder(TokioExecutor::new()).build_http::<Body>());
    let proxy = move |State(address): State<SocketAddr>, mut request: Request<Body>| async move {
        *request.uri_mut() = format!("http://{address}/").parse().unwrap();
        let response = client.oneshot(request).await;
        response.map_or(Err(StatusCode::BAD_GATEWAY), Ok)
    };
    let front = serve(
        Router::new()
            .route("/", get(proxy.clone()).put(proxy))
            .with_state(upstream),
    )
    .await;

    let stream = http_body_util::StreamBody::new(futures_chunks(["a", "b"]));
    let put = Request::put(format!("http://{front}/"))
        .body(Body::new(stream))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let response = client.request(put).await.unwrap();
    let answer = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(answer, "ab 3");
}

/// A body whose length is not known.
fn futures_chunks(
    chunks: [&'static str; 2],
) -> impl tokio_stream::Stream<Item = Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>>
{
    let frame = |chunk: &'static str| Ok(http_body::Frame::data(bytes::Bytes::from(chunk)));
    tokio_stream::iter(chunks.map(frame))
}
