//! The atomics and locks of the state machine: std's, or the model checker's when its tests run.

#[cfg(all(test, mainstay_loom))]
pub(super) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering},
};
#[cfg(not(all(test, mainstay_loom)))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Takes a lock whose holder may have panicked.
///
/// Nothing under the breaker's locks can panic half-way, and a breaker that is stuck would be worse than one that is off.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
