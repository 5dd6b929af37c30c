//! Bodies that can be sent again although they come in only once.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;

/// A request body that can be repeated, or at least may be by the time it matters.
///
/// Every body that can be cloned is one. [`ReplayBody`] makes one of any other.
pub trait RepeatBody: Body + Sized {
    /// The same body for a further attempt, if that takes no more than `max_bytes`.
    fn repeat(&self, max_bytes: u64) -> Option<Self>;

    /// Whether a body made by [`repeat`](Self::repeat) would give all there is, if it were sent now.
    fn is_whole(&self) -> bool {
        true
    }
}

impl<B: Body + Clone> RepeatBody for B {
    fn repeat(&self, max_bytes: u64) -> Option<Self> {
        let small = self
            .size_hint()
            .upper()
            .is_some_and(|bytes| bytes <= max_bytes);
        small.then(|| self.clone())
    }
}

/// Passes a body on while keeping what went by, up to a limit, so that it can be sent again.
///
/// Data is passed on as it comes, without a copy if it is made of [`Bytes`], and so are trailers. What is kept shares
/// memory with what is sent; note that a short slice of a long buffer holds all of that buffer. A repetition gives what
/// was kept, and goes on with the rest of the body where the attempt before it was dropped.
///
/// The body can be sent again unless
/// * more than the limit has gone by: what was kept is let go at that moment, and the rest is only passed on;
/// * another attempt still holds it, as when a server answers before it has read all of a request: that the client is
///   still sending tells that the answer was not about the whole of it;
/// * it broke: there is no more of it to be had.
///
/// Then the attempt under way is the only one, and no error. Made by [`ReplayBodyLayer`](super::ReplayBodyLayer).
///
/// # Cancel safety
/// Dropping it gives the rest of the body to the next repetition, or drops it when there is none.
pub struct ReplayBody<B> {
    /// Here while this one reads; with `shared` otherwise.
    held: Option<Tape<B>>,
    shared: Arc<Mutex<Option<Tape<B>>>>,
    /// How many of the kept chunks this one has given.
    given: usize,
    gave_trailers: bool,
    started: bool,
}

/// The body and what is known of it.
struct Tape<B> {
    rest: Pin<Box<B>>,
    kept: Vec<Bytes>,
    bytes: usize,
    trailers: Option<HeaderMap>,
    max_bytes: usize,
    end: End,
    /// Something went by that is not kept.
    lost: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// There may be more.
    Open,
    /// All of it is kept.
    Complete,
    /// Too much for the limit. What went by is gone.
    TooLong { finished: bool },
    /// The body ended with an error.
    Broken,
}

/// 64 KiB. Enough for a message, little enough to hold for every call in flight.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// A body in so many pieces is not kept: each costs some memory of its own, however small it is.
const CHUNKS_MAX: usize = 1_024;

impl<B: Body> ReplayBody<B> {
    /// Keeps up to `max_bytes` of this body. One allocation.
    pub fn new(body: B, max_bytes: usize) -> Self {
        // A body that says it is longer is not kept from the first byte.
        let too_long =
            usize::try_from(body.size_hint().lower()).map_or(true, |low| low > max_bytes);
        let end = match (too_long, body.is_end_stream()) {
            (true, _) => End::TooLong { finished: false },
            (false, true) => End::Complete,
            (false, false) => End::Open,
        };
        let tape = Tape {
            rest: Box::pin(body),
            kept: Vec::new(),
            bytes: 0,
            trailers: None,
            max_bytes,
            end,
            lost: false,
        };
        Self {
            held: Some(tape),
            shared: Arc::default(),
            given: 0,
            gave_trailers: false,
            started: false,
        }
    }
}

impl<B> ReplayBody<B> {
    fn look<T>(&self, look: impl FnOnce(&Tape<B>) -> T) -> Option<T> {
        match &self.held {
            Some(tape) => Some(look(tape)),
            None => {
                // Nothing that holds the lock can panic half way.
                let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
                shared.as_ref().map(look)
            }
        }
    }

    /// Whether a repetition of this body would be complete: it is not being read, not too long, and did not break.
    fn can_repeat(&self) -> bool {
        self.held.is_none()
            && self
                .look(|tape| matches!(tape.end, End::Open | End::Complete))
                .unwrap_or(false)
    }

    fn twin(&self) -> Self {
        Self {
            held: None,
            shared: Arc::clone(&self.shared),
            given: 0,
            gave_trailers: false,
            started: false,
        }
    }
}

impl<B> RepeatBody for ReplayBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// The limit is the body's own.
    fn repeat(&self, _max_bytes: u64) -> Option<Self> {
        let hopeless = self
            .look(|tape| matches!(tape.end, End::TooLong { .. } | End::Broken))
            .unwrap_or(false);
        (!hopeless).then(|| self.twin())
    }

    fn is_whole(&self) -> bool {
        self.can_repeat()
    }
}

impl<B: Body> Tape<B>
where
    B::Error: Into<BoxError>,
{
    /// The next frame from outside, kept if it may be and somebody might want it again.
    fn record(
        &mut self,
        wanted: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(self.rest.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.let_go(End::Broken);
                return Poll::Ready(Some(Err(error.into())));
            }
            None => {
                self.end = match self.end {
                    End::Open => End::Complete,
                    End::TooLong { .. } => End::TooLong { finished: true },
                    end => end,
                };
                return Poll::Ready(None);
            }
        };
        let frame = match frame.into_data() {
            Ok(mut data) => {
                let data = data.copy_to_bytes(data.remaining());
                self.keep(&data, wanted);
                Frame::data(data)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    if self.end == End::Open {
                        self.trailers = Some(trailers.clone());
                    }
                    Frame::trailers(trailers)
                }
                // Frames of another kind cannot be had as bytes; there are none today.
                Err(_) => {
                    self.let_go(End::Broken);
                    return Poll::Ready(Some(Err(
                        "a frame that is neither data nor trailers".into()
                    )));
                }
            },
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn keep(&mut self, data: &Bytes, wanted: bool) {
        if data.is_empty() {
            return;
        }
        if self.end != End::Open {
            self.lost = true;
            return;
        }
        let bytes = self.bytes.saturating_add(data.len());
        if !wanted || bytes > self.max_bytes || self.kept.len() >= CHUNKS_MAX {
            self.lost = true;
            self.let_go(End::TooLong { finished: false });
        } else {
            self.bytes = bytes;
            self.kept.push(data.clone());
        }
    }

    fn let_go(&mut self, end: End) {
        self.lost |= !self.kept.is_empty() || end == End::Broken;
        self.end = end;
        self.kept = Vec::new();
        self.trailers = None;
    }

    fn size_hint(&self, given: usize) -> SizeHint {
        let kept = self.kept.iter().skip(given);
        let left: u64 = kept.map(|chunk| chunk.len() as u64).sum();
        let rest = match self.end {
            End::Complete => SizeHint::with_exact(0),
            _ => self.rest.size_hint(),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(left));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(left));
        }
        hint
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.held.is_none() {
            let mut shared = this.shared.lock().unwrap_or_else(PoisonError::into_inner);
            this.held = shared.take();
        }
        let Some(tape) = &mut this.held else {
            let error = "the body is still being read by an earlier attempt";
            return Poll::Ready(Some(Err(error.into())));
        };
        if !this.started && tape.lost {
            // Only if somebody sends a repetition that is not whole.
            let error = "the beginning of the body was not kept";
            return Poll::Ready(Some(Err(error.into())));
        }
        this.started = true;
        if let Some(chunk) = tape.kept.get(this.given) {
            this.given += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        match tape.end {
            End::Complete | End::Open if !this.gave_trailers && tape.trailers.is_some() => {
                this.gave_trailers = true;
                let trailers = tape.trailers.clone().map(Frame::trailers);
                Poll::Ready(trailers.map(Ok))
            }
            End::Complete | End::TooLong { finished: true } | End::Broken => Poll::Ready(None),
            End::Open | End::TooLong { .. } => {
                let wanted = Arc::strong_count(&this.shared) > 1;
                let frame = ready!(tape.record(wanted, cx));
                this.given = this.given.max(tape.kept.len());
                this.gave_trailers = tape.trailers.is_some();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.look(|tape| match tape.end {
            End::Complete => {
                self.given >= tape.kept.len() && (self.gave_trailers || tape.trailers.is_none())
            }
            End::Open => {
                self.given >= tape.kept.len()
                    && tape.rest.is_end_stream()
                    && (self.gave_trailers || tape.trailers.is_none())
            }
            End::TooLong { .. } => tape.rest.is_end_stream(),
            End::Broken => false,
        })
        .unwrap_or(false)
    }

    fn size_hint(&self) -> SizeHint {
        self.look(|tape| tape.size_hint(self.given))
            .unwrap_or_default()
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        let Some(tape) = self.held.take() else {
            return;
        };
        // The last one that could read it takes it along.
        if Arc::strong_count(&self.shared) > 1 {
            *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(tape);
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody")
            .field("reading", &self.held.is_some())
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}
