//! The transaction of a request without a key: not even its place is made before the handler asks.
//!
//! Layer and extractor find each other through the thread: an extension in the request would be an allocation for each
//! request that never asks.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use super::config::Config;
use super::protocol::Runs;
use crate::store::IdempotencyDb;
use crate::tx::Slot;

/// What stands ready while a request without a key is polled.
#[expect(missing_debug_implementations, reason = "nobody outside can have one")]
pub struct Lazy {
    config: Arc<dyn Any + Send + Sync>,
    slot: Option<Box<dyn Any + Send + Sync>>,
}

thread_local! {
    static CURRENT: Cell<Option<Lazy>> = const { Cell::new(None) };
}

impl Lazy {
    pub(super) fn new<P: Runs>(config: Arc<Config<P>>) -> Self {
        Self { config, slot: None }
    }

    /// The place that the handler has asked for, and the configuration to end it by.
    pub(super) fn into_parts<D: IdempotencyDb>(self) -> Option<(Slot<D>, Arc<Config<D>>)> {
        let slot = self.slot?.downcast::<Slot<D>>().ok()?;
        Some((*slot, self.config.downcast().ok()?))
    }
}

/// Polls the inner service with `lazy` at hand for [`slot`].
pub(super) fn around<T>(lazy: &mut Option<Lazy>, poll: impl FnOnce() -> T) -> T {
    let Ok(outer) = CURRENT.try_with(|current| current.replace(lazy.take())) else {
        return poll();
    };
    // A panic drops what the handler had asked for, which rolls it back.
    let restore = Restore(Some(outer));
    let done = poll();
    *lazy = restore.now();
    done
}

struct Restore(Option<Option<Lazy>>);

impl Restore {
    fn now(mut self) -> Option<Lazy> {
        let outer = self.0.take()?;
        CURRENT.try_with(|current| current.replace(outer)).ok()?
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(outer) = self.0.take() {
            _ = CURRENT.try_with(|current| current.replace(outer));
        }
    }
}

/// Whether the request that this thread is polling is one without a key, under a layer of this protocol.
pub(super) fn stands_ready<P: Runs>() -> bool {
    let Ok(lazy) = CURRENT.try_with(Cell::take) else {
        return false;
    };
    let ready = lazy
        .as_ref()
        .is_some_and(|lazy| lazy.config.is::<Config<P>>());
    _ = CURRENT.try_with(|current| current.set(lazy));
    ready
}

/// The place of the request that this thread is polling, made now if it is the first time.
pub(super) fn slot<D: IdempotencyDb>() -> Option<Slot<D>> {
    let mut lazy = CURRENT.try_with(Cell::take).ok()??;
    let slot = lazy.config.downcast_ref::<Config<D>>().and_then(|config| {
        let slot = lazy
            .slot
            .get_or_insert_with(|| Box::new(Slot::lazy(config.keys.clone())));
        slot.downcast_ref::<Slot<D>>().cloned()
    });
    _ = CURRENT.try_with(|current| current.set(Some(lazy)));
    slot
}
