//! The rest of a call: what it streams, and the trailers that may say it failed after all.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::future::unwound;
use super::{Asked, complete};

pin_project! {
    /// The body of a response that [`StatusLayer`](super::StatusLayer) watches: its messages pass untouched.
    pub struct StatusBody<B> {
        #[pin]
        inner: B,
        // None once there is nothing more to complete.
        asked: Option<Asked>,
        is_broken: bool,
    }
}

impl<B> StatusBody<B> {
    pub(super) fn passing(inner: B) -> Self {
        Self {
            inner,
            asked: None,
            is_broken: false,
        }
    }

    pub(super) fn watching(inner: B, asked: Asked) -> Self {
        Self {
            inner,
            asked: Some(asked),
            is_broken: false,
        }
    }
}

impl<B: Default> Default for StatusBody<B> {
    fn default() -> Self {
        Self::passing(B::default())
    }
}

impl<B: Body> Body for StatusBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        if *this.is_broken {
            return Poll::Ready(None);
        }
        if this.asked.is_none() {
            return this.inner.poll_frame(cx);
        }
        let polled = match unwound(|| this.inner.poll_frame(cx)) {
            Ok(polled) => polled,
            Err(payload) => {
                *this.is_broken = true;
                let trailers = this
                    .asked
                    .take()
                    .map(|mut asked| complete::panicked(&*payload, &mut asked));
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
        };
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            ended => return Poll::Ready(ended),
        };
        let mut trailers = match frame.into_trailers() {
            Ok(trailers) => trailers,
            Err(data) => return Poll::Ready(Some(Ok(data))),
        };
        if let Some(mut asked) = this.asked.take()
            && complete::is_failure(&trailers)
        {
            complete::complete(&mut trailers, None, &mut asked);
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_broken || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> fmt::Debug for StatusBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusBody").finish_non_exhaustive()
    }
}
