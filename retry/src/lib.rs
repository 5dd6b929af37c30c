//! mainstay-retry
