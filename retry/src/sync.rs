//! What threads share, from one place: std's, or the model checker's when its tests run (`--cfg mainstay_loom`).

#[cfg(all(test, mainstay_loom))]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering},
};
#[cfg(not(all(test, mainstay_loom)))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

/// Takes a lock whose holder may have panicked.
///
/// Nothing under the locks of this crate can panic half-way, and a breaker or a budget that is stuck would be worse than
/// one that is off.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
