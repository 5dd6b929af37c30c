//! A server's own advice, read from its problem documents.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use mainstay_errors::{Category, Outcome, Problem, Retry};
use mainstay_retry::{
    Backoff, BoxError, NonIdempotent, ReadProblemLayer, RetryLayer, problem::ProblemBody,
};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{Req, get, ms, post, secs};

fn answer(status: u16, document: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", "Application/Problem+JSON; charset=utf-8")
        .body(Full::new(document.into()))
        .unwrap()
}

/// How often a server that always answers so is asked, and what comes out.
async fn ask(
    request: Req,
    respond: impl Fn() -> Response<Full<Bytes>>,
) -> (usize, Response<ProblemBody<Full<Bytes>>>) {
    let asked = std::cell::Cell::new(0);
    let mut client = ServiceBuilder::new()
        .layer(
            RetryLayer::http()
                .backoff(Backoff::constant(ms(0)))
                .non_idempotent(NonIdempotent::Always),
        )
        .layer(ReadProblemLayer::new())
        .service(service_fn(|_: Req| {
            asked.set(asked.get() + 1);
            std::future::ready(Ok::<_, BoxError>(respond()))
        }));
    let response = client.ready().await.unwrap().call(request).await.unwrap();
    (asked.get(), response)
}

fn keyed() -> Req {
    let mut request = post("pay");
    request
        .headers_mut()
        .insert("idempotency-key", "k1".parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn the_servers_advice_goes_before_its_status() {
    use Category::{Aborted, Internal, NotFound, Unavailable};
    let of = |category, retry| Problem::new(category, "x").with_retry(retry);
    let applied = of(Unavailable, Retry::Backoff).with_outcome(Outcome::Applied);
    type Case = (Problem, fn() -> Req, usize);
    let cases: Vec<Case> = vec![
        (of(Unavailable, Retry::Never), get, 1),
        (of(Unavailable, Retry::AfterAuth), get, 1),
        (of(Unavailable, Retry::AfterStateChange), get, 1),
        (of(Unavailable, Retry::Backoff), get, 3),
        (of(Internal, Retry::Never), get, 1),
        (of(Aborted, Retry::Transaction), get, 3),
        (of(NotFound, Retry::Backoff), get, 3),
        (of(NotFound, Retry::Never), get, 1),
        (of(Unavailable, Retry::SameKeyOnly), get, 3),
        (of(Unavailable, Retry::SameKeyOnly), || post("pay"), 1),
        (of(Unavailable, Retry::SameKeyOnly), keyed, 3),
        (applied, keyed, 1),
    ];
    for (problem, request, times) in cases {
        let respond = || answer(problem.status(), problem.to_bytes());
        let (asked, response) = ask(request(), respond).await;
        assert_eq!(asked, times, "{problem:?}");
        let read = response.extensions().get::<Problem>().unwrap();
        assert_eq!((read.code(), read.retry()), ("x", problem.retry()));
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes, problem.to_bytes(), "the same bytes as before");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_the_document_is_heeded() {
    let problem = Problem::new(Category::Aborted, "busy").with_retry(Retry::After(secs(7)));
    let start = tokio::time::Instant::now();
    let (asked, _) = ask(get(), || answer(409, problem.to_bytes())).await;
    assert_eq!((asked, start.elapsed()), (3, secs(14)));
}

#[tokio::test(start_paused = true)]
async fn what_gives_no_advice_is_judged_by_its_status() {
    let long = format!(r#"{{"retry":"never","x":"{}"}}"#, "x".repeat(64 * 1024));
    let documents = [
        "",
        "{}",
        "nonsense",
        r#"{"status":500,"code":"internal"}"#,
        r#"["retry"]"#,
        r#"{"retry":17}"#,
        r#"{"retry":"some day"}"#,
        &long,
    ];
    for document in documents {
        let document = document.to_owned();
        let (asked, response) = ask(get(), || answer(500, document.clone())).await;
        assert_eq!(asked, 3, "{:.40}", document);
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes, document);
    }
    let (asked, response) = ask(get(), || {
        let mut response = answer(500, r#"{"retry":"never"}"#);
        response
            .headers_mut()
            .insert("content-type", "application/json".parse().unwrap());
        response
    })
    .await;
    assert_eq!(asked, 3);
    assert!(response.extensions().get::<Problem>().is_none());
}

/// Says it is short; is not, or breaks, or trails.
struct Odd(Vec<Result<Frame<Bytes>, &'static str>>);

impl Body for Odd {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        Poll::Ready((!self.0.is_empty()).then(|| self.0.remove(0)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(17)
    }
}

#[tokio::test]
async fn a_body_that_lies_or_breaks_comes_out_as_it_was() {
    let data = |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
    let big: &'static str = Box::leak("x".repeat(40_000).into_boxed_str());
    let trailers = || {
        Ok(Frame::trailers(
            [("a".parse().unwrap(), "b".parse().unwrap())]
                .into_iter()
                .collect(),
        ))
    };
    let cases = [
        (
            vec![data(r#"{"retry":"#), Err("reset")],
            9,
            Some("reset"),
            false,
        ),
        (vec![data(big), data(big), data(big)], 120_000, None, false),
        (
            vec![data(r#"{"retry":"#), data(r#""never"}"#), trailers()],
            17,
            None,
            true,
        ),
    ];
    for (frames, length, error, read) in cases {
        let frames = std::cell::Cell::new(frames);
        let mut client = ServiceBuilder::new()
            .layer(ReadProblemLayer::new())
            .service(service_fn(|_: Request<()>| {
                let response = Response::builder()
                    .status(500)
                    .header("content-type", "application/problem+json")
                    .body(Odd(frames.take()));
                std::future::ready(Ok::<_, BoxError>(response.unwrap()))
            }));
        let response = client
            .ready()
            .await
            .unwrap()
            .call(Request::new(()))
            .await
            .unwrap();
        assert_eq!(response.extensions().get::<Problem>().is_some(), read);
        let mut body = response.into_body();
        let (mut bytes, mut broke, mut trailed) = (0, None, false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => bytes += data.len(),
                    Err(_) => trailed = true,
                },
                Err(error) => broke = Some(error),
            }
        }
        assert_eq!((bytes, broke, trailed), (length, error, read));
        assert!(!read || body.is_end_stream());
    }
}
