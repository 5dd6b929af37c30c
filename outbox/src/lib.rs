//! Transactional outbox: events that are published if, and only if, the transaction that caused them commits.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(feature = "sqlx")]
mod admin;
#[cfg(feature = "sqlx")]
mod error;
mod event;
#[cfg(feature = "sqlx")]
mod gate;
#[cfg(feature = "sqlx")]
mod lane;
mod message;
#[cfg(feature = "sqlx")]
mod migrate;
#[cfg(feature = "sqlx")]
mod outbox;
#[cfg(feature = "sqlx")]
mod plan;
#[cfg(feature = "sqlx")]
mod relay;
pub mod sink;
#[cfg(feature = "sqlx")]
pub mod store;
#[cfg(feature = "sqlx")]
mod telemetry;

#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use self::sink::{WebhookSecret, WebhookSink};
#[cfg(feature = "sqlx")]
pub use self::{
    admin::{Admin, DeadCause, DeadLetter, Lag, Redrive},
    error::{Error, ErrorKind},
    migrate::{migrate, migrate_with_lanes},
    outbox::{EnqueueError, Outbox, OutboxConfig, Waker},
    relay::{BuildError, Drained, KeyPolicy, Relay, RelayBuilder, RelayHandle},
    store::OutboxDb,
    telemetry::RelayStats,
};
pub use self::{
    event::{EncodeError, Event, EventId, InvalidEvent},
    message::Message,
    sink::{ChannelSink, LaneRef, MemorySink, Outcome, Outcomes, Reason, Sink, SinkDown},
};

/// The `tracing` target of everything this crate logs.
#[cfg(feature = "sqlx")]
pub(crate) const TARGET: &str = "mainstay_outbox";
