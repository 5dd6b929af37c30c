//! mainstay-idempotency
