//! One file per store, with the same functions in the same order.

#[cfg(feature = "memory")]
pub(super) mod memory;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
pub(super) mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;
