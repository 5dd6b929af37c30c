//! mainstay-errors
