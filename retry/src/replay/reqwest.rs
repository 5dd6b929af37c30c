//! Repeating the requests of reqwest's client, which are a type of their own.

use ::reqwest::Request;
use http::HeaderValue;

use super::{ATTEMPT, HttpReplay, Replay};
use crate::attempt::Attempt;

/// As for HTTP requests, around `reqwest::Client` itself. A body that is streamed cannot be copied and gets one attempt;
/// bytes and text are shared.
///
/// A request of reqwest shows nobody its extensions, so there is no [`Attempt`] to be found in it, and a
/// [`Deadline`](crate::Deadline) to be told to no one. Where those are wanted, build the stack for
/// `http::Request<Bytes>` and turn it into reqwest's request at the bottom, with `reqwest::Request::try_from`.
impl Replay<Request> for HttpReplay {
    fn replay(&self, request: &Request) -> Option<Request> {
        let bytes = match request.body() {
            None => 0,
            Some(body) => body.as_bytes()?.len() as u64,
        };
        let may = bytes <= self.limit() && self.is_safe(request.method(), request.headers());
        may.then(|| request.try_clone()).flatten()
    }

    fn stamp(&self, request: &mut Request, attempt: Attempt) {
        if attempt.is_repeat() {
            let number = HeaderValue::from(attempt.number);
            request.headers_mut().insert(ATTEMPT, number);
        }
    }
}
