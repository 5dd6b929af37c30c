//! The layer over leases: the IETF draft's table, strangers, outcomes and attempts that are taken over, on every store.

mod abuse;
mod app;
mod cancellation;
mod ietf;
mod outcomes;
mod stores;
mod takeover;
mod unanswered;
