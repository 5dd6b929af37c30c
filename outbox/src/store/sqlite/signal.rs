//! The outbox on SQLite: no wakes between processes, who look into the same file for themselves.

use sqlx::Sqlite;

use super::super::Signal;

impl Signal for Sqlite {}
