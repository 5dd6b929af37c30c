//! What the relay's surroundings do to it: databases and brokers that are killed and started again, backends that are
//! terminated, servers that take another's place, pools that are empty, transactions that stay open or prepared, relays that are told to end under load.
//!
//! Servers that are killed are these tests' own; see [`servers`]. `MAINSTAY_TEST_SERVER_KILLS=50` kills each more often than
//! an ordinary run.

mod failover;
pub mod programs;
pub mod servers;
mod storm;
mod writers;

#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
mod brokers;
#[cfg(feature = "mysql")]
mod mariadb;
#[cfg(feature = "nats")]
mod nats;
mod postgres;
mod postgres_transactions;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;

/// How often a server is killed.
fn kills(ordinary: usize) -> usize {
    let asked = std::env::var("MAINSTAY_TEST_SERVER_KILLS");
    asked.map_or(ordinary, |kills| kills.parse().unwrap())
}
