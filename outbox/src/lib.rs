//! mainstay-outbox
