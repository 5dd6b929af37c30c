//! The HTTP interface, a file per resource.

pub mod health;
pub mod openapi;
pub mod payments;
pub mod webhooks;
