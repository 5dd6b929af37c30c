//! Waiting for an open circuit to let somebody in, without a timer that nobody needs and without a missed change.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::{sync::futures::OwnedNotified, time::Sleep};

use super::{circuit::Circuit, permit::Slip};

/// What a service keeps between two polls, or between its readiness and its call.
pub(super) enum Held {
    /// A probe.
    Reserved(Slip<Arc<Circuit>>),
    /// A place among those who wait for the circuit.
    Waiting(Pin<Box<Pending>>),
}

pin_project! {
    /// Ends when it is worth to ask the circuit again.
    pub(super) struct Pending {
        #[pin]
        room: OwnedNotified,
        #[pin]
        timer: Option<Sleep>,
    }
}

impl Pending {
    /// To be made *before* the look at the circuit that says whether to wait: a change after that look ends the wait.
    pub(super) fn new(circuit: &Circuit) -> Self {
        Self {
            room: circuit.news().next_room(),
            timer: None,
        }
    }

    /// Waits, and by the clock too if the circuit will change by itself.
    pub(super) fn poll(self: Pin<&mut Self>, circuit: &Circuit, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.room.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if this.timer.is_none()
            && let Some(wait) = circuit.changes_in()
        {
            this.timer.set(Some(tokio::time::sleep(wait)));
        }
        match this.timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(cx),
            None => Poll::Pending,
        }
    }
}
