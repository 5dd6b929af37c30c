//! What threads share, from one place: `--cfg loom` swaps in the model checker's.
#![allow(unused_imports, reason = "not every build uses every part")]

#[cfg(loom)]
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, atomic};
