//! mainstay-pagination
