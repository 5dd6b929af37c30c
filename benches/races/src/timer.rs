//! The runtime in whose context contestants run, and the way to wait for one of its timers.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

use tokio::runtime::{Builder, Runtime};

/// Of one thread. Contestants run in its context, where they find tokio's clock and timers.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_current_thread().enable_time().build().unwrap())
}

/// What the next poll is to be given. Waits until the last one's has been woken, if this is not the first to be given.
#[cold]
#[inline(never)]
pub fn wait(first: bool) -> Context<'static> {
    static BELL: OnceLock<(Arc<Bell>, Waker)> = OnceLock::new();
    let (bell, waker) = BELL.get_or_init(|| {
        let bell = Arc::new(Bell::default());
        (Arc::clone(&bell), bell.into())
    });
    if first {
        *bell.0.lock().unwrap() = State::default();
    } else {
        runtime().block_on(poll_fn(|cx| bell.poll(cx)));
    }
    Context::from_waker(waker)
}

#[derive(Default)]
struct Bell(Mutex<State>);

#[derive(Default)]
struct State {
    rung: bool,
    listener: Option<Waker>,
}

impl Bell {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if std::mem::take(&mut state.rung) {
            return Poll::Ready(());
        }
        state.listener = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let mut state = self.0.lock().unwrap();
        state.rung = true;
        if let Some(listener) = state.listener.take() {
            listener.wake();
        }
    }
}
