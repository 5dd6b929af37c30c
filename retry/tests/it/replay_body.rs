//! Bodies that come in only once, and are sent again.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use mainstay_retry::{
    AttemptTimeoutLayer, Backoff, BoxError, Error as CallError, RepeatBody, ReplayBody,
    ReplayBodyLayer, RetryLayer,
};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::ms;

/// What a body does next.
#[derive(Clone, Debug)]
enum Piece {
    Data(&'static [u8]),
    Trailers,
    Error,
    /// Nothing, for ever.
    Hang,
}

use Piece::{Data, Error, Hang, Trailers};

/// Cannot be cloned.
struct Script {
    pieces: VecDeque<Piece>,
    hint: SizeHint,
}

fn script(pieces: impl IntoIterator<Item = Piece>) -> Script {
    Script {
        pieces: pieces.into_iter().collect(),
        hint: SizeHint::default(),
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match self.pieces.pop_front() {
            None => None,
            Some(Data(data)) => Some(Ok(Frame::data(Bytes::from_static(data)))),
            Some(Trailers) => Some(Ok(Frame::trailers(trailers()))),
            Some(Error) => Some(Err("the client hung up".into())),
            Some(Hang) => return Poll::Pending,
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

fn trailers() -> HeaderMap {
    [("x-checksum".parse().unwrap(), "7".parse().unwrap())]
        .into_iter()
        .collect()
}

/// What a server reads of a request: so many frames, or all.
async fn read(body: &mut ReplayBody<Script>, frames: usize) -> Result<(Vec<u8>, bool), BoxError> {
    let (mut data, mut trailed) = (Vec::new(), false);
    for _ in 0..frames {
        let Some(frame) = body.frame().await.transpose()? else {
            break;
        };
        match frame.into_data() {
            Ok(bytes) => data.extend_from_slice(&bytes),
            Err(frame) => trailed = frame.into_trailers().is_ok_and(|t| t == trailers()),
        }
    }
    Ok((data, trailed))
}

const ALL: usize = usize::MAX;

/// Sends the body to a server that reads so many frames of each attempt, and fails all but the last.
async fn attempts(body: Script, max_bytes: usize, reads: &'static [usize]) -> Vec<(Vec<u8>, bool)> {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&seen);
    let server = service_fn(move |request: Request<ReplayBody<Script>>| {
        let log = std::sync::Arc::clone(&log);
        async move {
            let attempt = log.lock().unwrap().len();
            let mut body = request.into_body();
            let outcome = read(&mut body, reads.get(attempt).copied().unwrap_or(ALL)).await;
            log.lock().unwrap().push(outcome.as_ref().map_or_else(
                |error| (error.to_string().into_bytes(), false),
                Clone::clone,
            ));
            let status = if attempt + 1 < reads.len() { 503 } else { 200 };
            Ok::<_, BoxError>(Response::builder().status(status).body(()).unwrap())
        }
    });
    let mut client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new().max_bytes(max_bytes))
        .layer(
            RetryLayer::http()
                .max_attempts(5)
                .backoff(Backoff::constant(ms(0))),
        )
        .service(server);
    let request = Request::put("http://localhost/").body(body).unwrap();
    client.ready().await.unwrap().call(request).await.unwrap();
    std::mem::take(&mut *seen.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_went_by_is_sent_again_with_its_trailers() {
    let body = script([Data(b"hello "), Data(b""), Data(b"world"), Trailers]);
    let whole = (b"hello world".to_vec(), true);
    let seen = attempts(body, 11, &[ALL, ALL, ALL]).await;
    assert_eq!(seen, [whole.clone(), whole.clone(), whole]);
}

#[tokio::test(start_paused = true)]
async fn a_body_one_byte_too_long_gets_one_attempt_and_arrives_whole() {
    let body = script([Data(b"hello "), Data(b"world"), Trailers]);
    let seen = attempts(body, 10, &[ALL, ALL]).await;
    assert_eq!(seen, [(b"hello world".to_vec(), true)]);
}

#[tokio::test(start_paused = true)]
async fn a_repetition_goes_on_where_the_attempt_before_it_left() {
    let body = script([Data(b"a"), Data(b"b"), Data(b"c"), Trailers]);
    let seen = attempts(body, 64, &[0, 1, 3, ALL]).await;
    let data: Vec<_> = seen.iter().map(|(data, _)| data.as_slice()).collect();
    assert_eq!(data, [&b""[..], b"a", b"abc", b"abc"]);
    assert!(seen[3].1, "trailers");
}

#[tokio::test(start_paused = true)]
async fn a_body_dropped_before_and_too_long_after_gets_no_third_attempt() {
    let body = script([Data(b"aaaa"), Data(b"bbbb")]);
    let seen = attempts(body, 4, &[1, ALL, ALL]).await;
    let data: Vec<_> = seen.iter().map(|(data, _)| data.as_slice()).collect();
    assert_eq!(data, [&b"aaaa"[..], b"aaaabbbb"]);
}

#[tokio::test(start_paused = true)]
async fn a_body_longer_than_it_said_is_held_to_the_limit() {
    let mut body = script([Data(b"four"), Data(b"more")]);
    body.hint = SizeHint::with_exact(4);
    let seen = attempts(body, 6, &[ALL, ALL]).await;
    assert_eq!(seen, [(b"fourmore".to_vec(), false)]);

    let mut honest = script([Data(b"fourmore")]);
    honest.hint = SizeHint::with_exact(8);
    let body = ReplayBody::new(honest, 7);
    assert_eq!(body.size_hint().exact(), Some(8));
    assert!(body.repeat(u64::MAX).is_none(), "known from the start");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_is_told_and_not_tried_again() {
    let seen = attempts(script([Data(b"a"), Error]), 64, &[ALL, ALL]).await;
    assert_eq!(seen, [(b"the client hung up".to_vec(), false)]);
}

#[tokio::test(start_paused = true)]
async fn a_body_in_too_many_pieces_is_not_kept() {
    let seen = attempts(script((0..1_024).map(|_| Data(b"x"))), 9_999, &[ALL, ALL]).await;
    assert_eq!(seen.len(), 2);
    let seen = attempts(script((0..1_025).map(|_| Data(b"x"))), 9_999, &[ALL, ALL]).await;
    assert_eq!(seen, [(vec![b'x'; 1_025], false)]);
}

#[tokio::test]
async fn a_body_still_on_its_way_in_is_not_repeated() {
    let mut first = ReplayBody::new(script([Data(b"a"), Hang]), 64);
    let mut copy = first.repeat(0).unwrap();
    assert!(!copy.is_whole(), "the first attempt has it");
    assert_eq!(read(&mut first, 1).await.unwrap().0, b"a");
    assert!(!copy.is_whole());
    let error = read(&mut copy, 1).await.unwrap_err();
    assert!(error.to_string().contains("earlier attempt"), "{error}");
    drop(first);
    assert!(copy.is_whole(), "it was given back");
    assert_eq!(read(&mut copy, 1).await.unwrap().0, b"a");
    let rest = poll_fn(|cx| Poll::Ready(Pin::new(&mut copy).poll_frame(cx).is_pending())).await;
    assert!(rest, "and goes on from there");
}

#[tokio::test]
async fn nothing_is_kept_for_nobody_and_no_beginning_is_made_up() {
    let mut only = ReplayBody::new(script([Data(b"a"), Data(b"b")]), 64);
    assert_eq!(read(&mut only, 1).await.unwrap().0, b"a");
    assert!(only.repeat(0).is_none(), "the beginning went by unkept");
    assert_eq!(read(&mut only, ALL).await.unwrap().0, b"b");

    let mut first = ReplayBody::new(script([Data(b"aaa"), Data(b"bbb")]), 4);
    let mut copy = first.repeat(0).unwrap();
    assert_eq!(read(&mut first, 2).await.unwrap().0, b"aaabbb");
    drop(first);
    assert!(!copy.is_whole());
    let error = read(&mut copy, 1).await.unwrap_err();
    assert!(error.to_string().contains("not kept"), "{error}");
}

#[tokio::test]
async fn the_size_and_the_end_are_told_as_they_are() {
    let mut first = ReplayBody::new(Full::<Bytes>::from("hello"), 64);
    assert_eq!(first.size_hint().exact(), Some(5));
    let mut copy = first.repeat(0).unwrap();
    assert_eq!(
        first.frame().await.unwrap().unwrap().into_data().unwrap(),
        "hello"
    );
    assert!(first.is_end_stream(), "as the body inside says");
    drop(first);
    assert_eq!(copy.size_hint().exact(), Some(5));
    assert!(!copy.is_end_stream());
    assert_eq!(
        copy.frame().await.unwrap().unwrap().into_data().unwrap(),
        "hello"
    );
    assert!(copy.is_end_stream());
    assert_eq!(copy.size_hint().exact(), Some(0));
    assert!(copy.frame().await.is_none());

    let empty = ReplayBody::new(Full::<Bytes>::default(), 0);
    assert!(empty.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_timed_out_gives_its_body_to_the_next() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&seen);
    let server = service_fn(move |request: Request<ReplayBody<Script>>| {
        let log = std::sync::Arc::clone(&log);
        async move {
            let mut body = request.into_body();
            let first = log.lock().unwrap().is_empty();
            let (data, _) = read(&mut body, if first { 1 } else { ALL }).await?;
            log.lock().unwrap().push(data);
            if first {
                // The body is still in its hands.
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(Response::new(()))
        }
    });
    let mut client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(RetryLayer::http().backoff(Backoff::constant(ms(5))))
        .layer(AttemptTimeoutLayer::new(ms(100)))
        .service(server);
    let body = script([Data(b"hel"), Data(b"lo")]);
    let request = Request::put("http://localhost/").body(body).unwrap();
    let outcome: Result<_, CallError> = client.ready().await.unwrap().call(request).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(*seen.lock().unwrap(), [b"hel".to_vec(), b"hello".to_vec()]);
}
