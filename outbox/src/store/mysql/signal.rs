//! The outbox on MySQL and MariaDB: it has nothing by which one connection tells another.

use sqlx::MySql;

use super::super::Signal;

impl Signal for MySql {}
