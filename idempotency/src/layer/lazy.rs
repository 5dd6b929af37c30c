//! The transaction of a request without a key: not even its place is made before the handler asks.
//!
//! Layer and extractor find each other through the thread: an extension in the request would be an allocation for each
//! request that never asks.

use std::any::Any;
use std::cell::Cell;
use std::mem::{self, ManuallyDrop};
use std::sync::Arc;

use super::config::Config;
use super::protocol::Runs;
use crate::store::IdempotencyDb;
use crate::tx::Slot;

/// What stands ready while a request without a key is polled.
pub(super) enum Lazy {
    /// The layer's configuration.
    Ready(Arc<dyn Any + Send + Sync>),
    Asked(Asked),
}

/// The place that a handler has asked for, and the configuration to end it by.
#[expect(missing_debug_implementations, reason = "nobody outside can have one")]
pub struct Asked(Box<dyn Any + Send>);

type Parts<D> = (Slot<D>, Arc<Config<D>>);

thread_local! {
    /// Never dropped with its thread: what [`enter`] puts in, [`Entered`] takes out. So the thread need not know that it is there.
    static CURRENT: Cell<ManuallyDrop<Option<Lazy>>> = const { Cell::new(ManuallyDrop::new(None)) };
}

fn swap(lazy: Option<Lazy>) -> Option<Lazy> {
    let lazy = ManuallyDrop::new(lazy);
    ManuallyDrop::into_inner(CURRENT.with(|current| current.replace(lazy)))
}

impl Lazy {
    pub(super) fn new<P: Runs>(config: Arc<Config<P>>) -> Self {
        Self::Ready(config)
    }

    pub(super) fn asked(self) -> Option<Asked> {
        match self {
            Self::Ready(_) => None,
            Self::Asked(asked) => Some(asked),
        }
    }
}

impl Asked {
    pub(super) fn into_parts<D: IdempotencyDb>(self) -> Option<Parts<D>> {
        self.0.downcast().ok().map(|parts| *parts)
    }
}

/// Has `lazy` at hand for [`slot`] while the inner service is polled.
pub(super) fn enter(lazy: &mut Option<Lazy>) -> Entered {
    Entered {
        outer: swap(lazy.take()),
    }
}

/// Dropped, which is by a panic, it puts the outer one back: what the inner handler had asked for is rolled back.
pub(super) struct Entered {
    outer: Option<Lazy>,
}

impl Entered {
    /// What the handler has made of it.
    pub(super) fn leave(mut self) -> Option<Lazy> {
        let outer = self.outer.take();
        mem::forget(self);
        swap(outer)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        swap(self.outer.take());
    }
}

/// Whether the request that this thread is polling is one without a key, under a layer of this protocol.
pub(super) fn stands_ready<P: Runs>() -> bool {
    let lazy = swap(None);
    let ready = match &lazy {
        Some(Lazy::Ready(config)) => config.is::<Config<P>>(),
        _ => false,
    };
    swap(lazy);
    ready
}

/// The place of the request that this thread is polling, made now if it is the first time.
pub(super) fn slot<D: IdempotencyDb>() -> Option<Slot<D>> {
    let (slot, lazy) = match swap(None)? {
        Lazy::Asked(asked) => {
            let parts = asked.0.downcast_ref::<Parts<D>>();
            (parts.map(|(slot, _)| slot.clone()), Lazy::Asked(asked))
        }
        Lazy::Ready(config) => match config.downcast::<Config<D>>() {
            Ok(config) => {
                let slot = Slot::lazy(config.keys.clone());
                let parts: Parts<D> = (slot.clone(), config);
                (Some(slot), Lazy::Asked(Asked(Box::new(parts))))
            }
            Err(other) => (None, Lazy::Ready(other)),
        },
    };
    swap(Some(lazy));
    slot
}
