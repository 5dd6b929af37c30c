//! The service at the bottom and the way to call it, the same for every operation.

use std::{
    future::{Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use tower::Service;

use crate::Operation;

pub const OPERATIONS: &[Operation] = &[("bare", |iterations| {
    let mut service = Inner;
    for n in 0..iterations {
        black_box(once(&mut service, black_box(n))).unwrap();
    }
})];

/// Ready at once, and answers with what it was asked.
#[derive(Clone, Copy)]
pub struct Inner;

impl Service<u64> for Inner {
    type Response = u64;
    type Error = u64;
    type Future = Ready<Result<u64, u64>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), u64>> {
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn call(&mut self, request: u64) -> Self::Future {
        ready(black_box(Ok(request)))
    }
}

/// `poll_ready`, `call` and one poll.
#[inline(always)]
pub fn once<S>(service: &mut S, request: u64) -> Result<u64, u64>
where
    S: Service<u64, Response = u64, Error = u64>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else {
        panic!("not ready");
    };
    match pin!(service.call(request)).poll(&mut cx) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("not done"),
    }
}
