//! The service at the bottom and the way to call it, the same for every operation.

use std::{
    fmt,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use tower::Service;

use crate::Operation;

pub const OPERATIONS: &[Operation] = &[("bare", |n| calls(Inner, n))];

/// Ready at once, and too opaque to be optimised away.
#[derive(Clone, Copy)]
pub struct Inner;

#[derive(Debug)]
pub struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Failed {}

#[inline(never)]
fn answer(n: u64) -> Result<u64, Failed> {
    if n == u64::MAX {
        Err(Failed)
    } else {
        Ok(black_box(n) + 1)
    }
}

impl Service<u64> for Inner {
    type Response = u64;
    type Error = Failed;
    type Future = Ready<Result<u64, Failed>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(answer(request))
    }
}

/// `poll_ready`, `call` and one poll, so many times.
pub fn calls<S>(mut service: S, iterations: u64)
where
    S: Service<u64, Response = u64>,
{
    let mut cx = Context::from_waker(Waker::noop());
    for request in 0..iterations {
        let request = black_box(request);
        let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else {
            panic!("not ready");
        };
        let future = pin!(service.call(request));
        match future.poll(&mut cx) {
            Poll::Ready(Ok(response)) => _ = black_box(response),
            Poll::Ready(Err(error)) => drop(black_box(error)),
            Poll::Pending => panic!("not at once"),
        }
    }
}
