//! What a server's problem document says about coming back, read where the retry layer can see it.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, header, response::Parts};
use http_body::{Body, Frame, SizeHint};
use mainstay_errors::{Outcome, Problem, Retry};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    key,
    verdict::{Kind, Verdict},
};

/// Reads the problem documents of a server for [`HttpClassify`](crate::HttpClassify), and leaves the
/// [`Problem`] in the response's extensions.
///
/// Only for a server that is trusted to say what may be repeated. Read are error responses of the type
/// `application/problem+json` that say their length, up to 64 KiB; the body then has the same bytes as before. All
/// others pass as they are. Put it below [`AttemptTimeoutLayer`](crate::AttemptTimeoutLayer), so that a document that
/// never ends is cut off like an answer that never comes:
/// deadline, retry, breaker, attempt timeout, **this**, transport.
///
/// A document that says neither `retry` nor `outcome` in words that are known is somebody else's: it is left in the
/// extensions, and the status decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadProblemLayer {
    _private: (),
}

/// Longest document that is read, in bytes.
const BYTES_MAX: u64 = 64 * 1024;

impl ReadProblemLayer {
    /// Documents up to 64 KiB.
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl<S> Layer<S> for ReadProblemLayer {
    type Service = ReadProblem<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ReadProblem { inner }
    }
}

/// A client whose error documents have been read. Made by [`ReadProblemLayer`].
#[derive(Clone, Copy, Debug)]
pub struct ReadProblem<S> {
    inner: S,
}

impl<S> ReadProblem<S> {
    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

/// What the document said, as far as it said it.
#[derive(Clone, Copy, Debug)]
struct Advice {
    retry: Option<Retry>,
    outcome: Option<Outcome>,
    /// The request's method is idempotent, or it has a key.
    repeatable: bool,
}

/// The verdict on a response by its status, put right by the server's own advice, if it gave any.
pub(crate) fn advised(verdict: Verdict, status: StatusCode, extensions: &Extensions) -> Verdict {
    let Some(advice) = extensions.get::<Advice>() else {
        return verdict;
    };
    let again = advice.outcome != Some(Outcome::Applied)
        && match advice.retry {
            Some(Retry::Never | Retry::AfterAuth | Retry::AfterStateChange) => false,
            Some(Retry::SameKeyOnly) => advice.repeatable,
            Some(Retry::Backoff | Retry::After(_) | Retry::Transaction) => true,
            // Nothing said, or a word of a newer version.
            None | Some(_) => matches!(verdict, Verdict::Retryable(..)),
        };
    match (again, verdict) {
        (true, Verdict::Retryable(kind, Some(wait))) => Verdict::Retryable(kind, Some(wait)),
        (true, verdict) => {
            let kind = match verdict {
                Verdict::Retryable(kind, _) | Verdict::Failure(kind) => kind,
                // 501 and 505 do not speak against the server, whatever it says.
                _ if status == StatusCode::CONFLICT => Kind::InFlight,
                _ => Kind::Conflict,
            };
            let wait = match advice.retry {
                Some(Retry::After(wait)) => Some(wait),
                _ => None,
            };
            Verdict::Retryable(kind, wait)
        }
        (false, Verdict::Retryable(kind, _)) => Verdict::Failure(kind),
        (false, verdict) => verdict,
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for ReadProblem<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Response = Response<ProblemBody<ResBody>>;
    type Error = S::Error;
    type Future = ReadProblemFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let repeatable = is_repeatable(request.method(), request.headers());
        ReadProblemFuture {
            state: State::Head {
                future: self.inner.call(request),
            },
            repeatable,
        }
    }
}

fn is_repeatable(method: &Method, headers: &HeaderMap) -> bool {
    method.is_idempotent() || key::has_key(headers)
}

pin_project! {
    /// The response, with its problem read.
    ///
    /// # Cancel safety
    /// Dropping it drops the call or the body under way.
    #[must_use = "futures do nothing unless polled"]
    pub struct ReadProblemFuture<F, B>
    where
        B: Body,
    {
        #[pin]
        state: State<F, B>,
        repeatable: bool,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B>
    where
        B: Body,
    {
        Head { #[pin] future: F },
        Body { parts: Option<Parts>, body: Option<ProblemBody<B>> },
    }
}

impl<F, B, E> Future for ReadProblemFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ProblemBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Head { future } => {
                    let response = ready!(future.poll(cx))?;
                    if !is_problem(&response) {
                        return Poll::Ready(Ok(response.map(ProblemBody::untouched)));
                    }
                    let (parts, body) = response.into_parts();
                    this.state.set(State::Body {
                        parts: Some(parts),
                        body: Some(ProblemBody::reading(body)),
                    });
                }
                StateProj::Body { parts, body } => {
                    if let Some(body) = body {
                        ready!(body.read(cx));
                    }
                    let (Some(mut parts), Some(body)) = (parts.take(), body.take()) else {
                        return Poll::Pending; // polled after it was done
                    };
                    if let Some(bytes) = body.whole() {
                        note(&mut parts, bytes, *this.repeatable);
                    }
                    return Poll::Ready(Ok(Response::from_parts(parts, body)));
                }
            }
        }
    }
}

fn is_problem<B: Body>(response: &Response<B>) -> bool {
    let status = response.status();
    let typed = || {
        let value = response.headers().get(header::CONTENT_TYPE)?;
        let media_type = value.as_bytes().split(|byte| *byte == b';').next()?;
        let problem = mainstay_errors::PROBLEM_JSON.as_bytes();
        Some(media_type.trim_ascii().eq_ignore_ascii_case(problem))
    };
    let short = || {
        let size = response.body().size_hint().exact();
        size.is_some_and(|bytes| bytes <= BYTES_MAX)
    };
    (status.is_client_error() || status.is_server_error()) && typed() == Some(true) && short()
}

/// Leaves the problem, and the advice in it, where they can be seen.
fn note(parts: &mut Parts, bytes: &[u8], repeatable: bool) {
    let problem = Problem::read(parts.status.as_u16(), &parts.headers, bytes);
    // What the document does not say the problem has from its category, and that would be our guess and not advice.
    let document: Option<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_slice(bytes).ok();
    let word = |member| document.as_ref()?.get(member)?.as_str();
    let retry = word("retry").and_then(|word| Retry::from_wire(word, None));
    let outcome = word("outcome").and_then(Outcome::from_wire);
    if retry.is_some() || outcome.is_some() {
        parts.extensions.insert(Advice {
            // As the document was read, with the time that travels beside the word.
            retry: retry.map(|_| problem.retry()),
            outcome,
            repeatable,
        });
    }
    parts.extensions.insert(problem);
}

pin_project! {
    /// A response's body, of which the beginning may have been read already. It gives the same bytes, trailers and
    /// error.
    pub struct ProblemBody<B>
    where
        B: Body,
    {
        read: BytesMut,
        trailers: Option<HeaderMap>,
        error: Option<B::Error>,
        #[pin]
        rest: Rest<B>,
    }
}

pin_project! {
    #[project = RestProj]
    enum Rest<B> {
        Untouched { #[pin] body: B },
        // Boxed, because it is polled before it moves on into the response.
        Begun { body: Pin<Box<B>> },
        Ended,
    }
}

impl<B: Body> ProblemBody<B> {
    fn new(rest: Rest<B>) -> Self {
        Self {
            read: BytesMut::new(),
            trailers: None,
            error: None,
            rest,
        }
    }

    fn untouched(body: B) -> Self {
        Self::new(Rest::Untouched { body })
    }

    fn reading(body: B) -> Self {
        Self::new(Rest::Begun {
            body: Box::pin(body),
        })
    }

    /// Reads on to the end, an error, or more than there should be.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Rest::Begun { body } = &mut self.rest {
            match ready!(body.as_mut().poll_frame(cx)) {
                None => self.rest = Rest::Ended,
                Some(Err(error)) => {
                    self.error = Some(error);
                    self.rest = Rest::Ended;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        bytes::BufMut::put(&mut self.read, data);
                        if self.read.len() as u64 > BYTES_MAX {
                            break;
                        }
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
        Poll::Ready(())
    }

    /// The document, if all of it was read and nothing broke.
    fn whole(&self) -> Option<&[u8]> {
        let whole = matches!(self.rest, Rest::Ended) && self.error.is_none();
        whole.then_some(&*self.read)
    }
}

impl<B: Body> Body for ProblemBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if !this.read.is_empty() {
            let read = mem::take(this.read).freeze();
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        let frame = match this.rest.project() {
            RestProj::Untouched { body } => ready!(body.poll_frame(cx)),
            RestProj::Begun { body } => ready!(body.as_mut().poll_frame(cx)),
            RestProj::Ended => {
                let trailers = this.trailers.take().map(Frame::trailers);
                let last = trailers.map(Ok).or_else(|| this.error.take().map(Err));
                return Poll::Ready(last);
            }
        };
        let whole = |mut data: B::Data| data.copy_to_bytes(data.remaining());
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(whole))))
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty()
            && self.trailers.is_none()
            && self.error.is_none()
            && match &self.rest {
                Rest::Untouched { body } => body.is_end_stream(),
                Rest::Begun { body } => body.is_end_stream(),
                Rest::Ended => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = match &self.rest {
            Rest::Untouched { body } => body.size_hint(),
            Rest::Begun { body } => body.size_hint(),
            Rest::Ended => SizeHint::with_exact(0),
        };
        let read = self.read.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint
    }
}

impl<B: Body> fmt::Debug for ProblemBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProblemBody")
            .field("read", &self.read.len())
            .finish_non_exhaustive()
    }
}

impl<F, B: Body> fmt::Debug for ReadProblemFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadProblemFuture").finish_non_exhaustive()
    }
}
