//! The lease on loan: whoever runs the work takes it back when the work is done, and ends it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Lease, LeasedStore};

/// The [`Lease`] of a job or a request, lent to it; give it back by letting it go out of scope.
///
/// It derefs to the lease: work in its [steps](Lease::step) and [calls](Lease::call). The answer is recorded by whoever lent
/// it, after the work has returned. Work that sends it away (into a task, into a response's body) and returns is not
/// recorded, and its outcome is unknown until the lease is let go of and over.
pub struct LentLease<S: LeasedStore> {
    lease: Option<Lease<S>>,
    home: Home<S>,
}

/// Where the lease waits between those who lend it and those who work.
pub(crate) struct Home<S: LeasedStore>(Arc<Mutex<Option<Lease<S>>>>);

impl<S: LeasedStore> Home<S> {
    pub(crate) fn new(lease: Lease<S>) -> Self {
        Self(Arc::new(Mutex::new(Some(lease))))
    }

    /// `None`: it is lent.
    pub(crate) fn take(&self) -> Option<Lease<S>> {
        self.lease().take()
    }

    /// `None`: it is lent already.
    pub(crate) fn lend(&self) -> Option<LentLease<S>> {
        Some(LentLease {
            lease: Some(self.take()?),
            home: self.clone(),
        })
    }

    fn lease(&self) -> MutexGuard<'_, Option<Lease<S>>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: LeasedStore> Clone for Home<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: LeasedStore> Deref for LentLease<S> {
    type Target = Lease<S>;

    #[expect(clippy::expect_used, reason = "only drop takes it")]
    fn deref(&self) -> &Lease<S> {
        self.lease.as_ref().expect("present until dropped")
    }
}

impl<S: LeasedStore> DerefMut for LentLease<S> {
    #[expect(clippy::expect_used, reason = "only drop takes it")]
    fn deref_mut(&mut self) -> &mut Lease<S> {
        self.lease.as_mut().expect("present until dropped")
    }
}

impl<S: LeasedStore> Drop for LentLease<S> {
    fn drop(&mut self) {
        let lease = self.lease.take();
        *self.home.lease() = lease;
    }
}

impl<S: LeasedStore> fmt::Debug for LentLease<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LentLease(..)")
    }
}
