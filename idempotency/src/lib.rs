//! Idempotency keys that commit with the write they protect.
//!
//! A client that got no answer asks again. With a key on the request, asking again is safe: the first attempt's effect
//! happens once and every attempt gets the same answer. The promise of this crate, for effects in one database: *whatever is killed, cut
//! off or retried, a keyed request took effect exactly once or not at all, and the caller is told which, or truthfully
//! that it is not known yet.*
//!
//! ```
//! # #[cfg(all(feature = "axum", feature = "sqlite"))] mod example {
//! use axum::{Json, Router, http::StatusCode, routing::post};
//! use mainstay_errors::{Category, Problem};
//! use mainstay_idempotency::{IdemTx, IdempotencyLayer, Scope};
//! use sqlx::{Sqlite, SqlitePool};
//!
//! async fn pay(mut tx: IdemTx<Sqlite>, Json(amount): Json<i64>) -> Result<StatusCode, Problem> {
//!     sqlx::query("insert into payment (amount) values ($1)")
//!         .bind(amount)
//!         .execute(&mut **tx) // the request's own transaction; the layer commits it
//!         .await
//!         .map_err(|_| Problem::new(Category::Unavailable, "not_now"))?;
//!     Ok(StatusCode::CREATED)
//! }
//!
//! pub fn service(pool: SqlitePool) -> Router {
//!     let idempotency = IdempotencyLayer::<Sqlite>::local(pool).scope(|request| {
//!         match request.headers.get("x-tenant") { // yours: whatever authentication has established
//!             Some(tenant) => Ok(Scope::new(tenant, "", "pay")),
//!             None => Err(Problem::new(Category::Unauthenticated, "who_are_you")),
//!         }
//!     });
//!     Router::new().route("/payments", post(pay)).route_layer(idempotency)
//! }
//! # }
//! ```
//!
//! # Why one transaction
//!
//! Most idempotency layers keep their keys in a store of their own: claim, run, mark as done. A process that dies
//! between the effect and the mark leaves a key that either blocks until a lease runs out or runs again, and a lease
//! that runs out under a slow attempt lets two of them act. Checking a fencing token when marking does not help: the
//! effect is already there. The **Local** protocol claims the key, lends the handler the same transaction for its
//! writes, records the answer in it, and commits once. There is no state in between, so there is nothing to expire, to
//! fence or to clean up: an attempt that dies before its commit never was, and one that dies after it is replayed.
//!
//! | what happens | what the next attempt with the key gets |
//! |---|---|
//! | success (below 400) | effects and answer committed; a replay, marked `Idempotent-Replayed: true` |
//! | a refusal (most 4xx) | effects rolled back, answer recorded; a replay |
//! | 5xx, a 4xx that speaks of now, a panic, a timeout, a killed process | everything rolled back; it runs |
//! | the client hangs up | the request runs on in its own task; a replay |
//! | a different request under the key | 422, whether the first is done or still running |
//! | the same request, still running | 409 and `Retry-After: 1` |
//! | COMMIT sent, no answer | the key is read again on another connection; a replay, or a run, or 503 with `outcome: unknown` |
//!
//! A first run costs its bare transaction and two round trips, a replay costs one. Where duplicates are rare and every effect is in the
//! transaction, `IdempotencyLayer::optimistic` on Postgres claims the key in the statement that records the answer: one round trip
//! less, and a duplicate's handler runs for nothing. What needs a transaction of several statements anyway gains nothing from a
//! claim, effect and record in one statement, so there is none.
//!
//! For effects elsewhere (another service, a mail) one transaction cannot speak: put an event into the outbox in the
//! same transaction, or, where the answer depends on them, use the **[Leased](leased)** protocol: named steps, a token that is
//! checked inside each step's transaction, and keys derived for the remote. [`IdempotencyLayer::leased`] speaks it over HTTP, and lends
//! the handler its [`LentLease`] in the transaction's place. It has what the other layer has, but it cannot take back a step: what
//! stops behind one goes on behind it, and whoever is answered meanwhile is told that the outcome is unknown.
//!
//! | effect lives in | protocol | stores | promise |
//! |---|---|---|---|
//! | the same database | Local | Postgres, MySQL and MariaDB, SQLite | exactly once |
//! | the same database, in steps | Leased | Postgres, MySQL and MariaDB, SQLite | exactly once per step; an answer may be given for some of them |
//! | a remote system | Leased + derived key | these, and memory | at least once per step; once if the remote honours the key; at most once and else *unknown* if it does not |
//! | anywhere | Leased | Redis (one server) | once **while Redis remembers** the claim |
//! | a consumer's database | inbox | Postgres, MySQL and MariaDB, SQLite | once, within its retention |
//!
//! MySQL and MariaDB are one store, tested on MariaDB 10.11; MySQL 8 has the same statements but was not at hand.
//!
//! # Both halves in one picture
//!
//! ```text
//! client                                              server
//! AttachIdempotencyKeyLayer   one key per call        ProblemLayer
//!   RetryLayer                any number of             authentication
//!     attempt timeout         attempts with it            IdempotencyLayer   key, scope, fingerprint; claims, begins
//!       HTTP                                        ──▶     handler          writes through IdemTx
//!                             ◀── the first answer,       IdempotencyLayer   records, commits, then answers
//!                                 on every attempt
//! ```
//!
//! The client half is `AttachIdempotencyKeyLayer` of `mainstay-retry`: a key is made **once per logical call, above whatever
//! tries again**. Below it, each attempt would be a call of its own, and so would each effect. Its version 7 UUIDs carry their time, so
//! that [`retention`](IdempotencyLayer::retention) can refuse what is too old to be remembered.
//!
//! A duplicate that arrives while the first request runs is told 409, or waits ([`Wait`]): within a process for that request's task,
//! holding no connection; on Postgres and MySQL in the server's lock queue, where it takes over within some ten
//! milliseconds when the first one's process is killed. A server that is busy with a statement of a client that
//! is gone notices only if it is told to look: set `client_connection_check_interval` to `50ms` on Postgres (in
//! `postgresql.conf`, or in the connection's options), and TCP keepalives for hosts that vanish.
//!
//! # The rest
//!
//! - [`Covers`] says what makes two requests the same: the raw body, the sense of its JSON, or chosen fields.
//! - [`IdempotencyLayer::route`] gives a route settings of its own; [`codec`] seals answers at rest; `IdempotencyLayer::openapi` (feature
//!   `utoipa`) describes all of it.
//! - What streams is collected: an answer that is larger than [`response_bytes_max`](IdempotencyLayer::response_bytes_max), never ends or breaks
//!   off cannot be repeated, so it is not committed.
//! - [`Inbox`] deduplicates messages in a consumer's own transaction; [`webhook`] verifies Standard Webhooks and Stripe's
//!   signatures and applies each delivery once; [`Jobs`] and [`LeasedJobs`] run jobs by key.
//! - A [`Reaper`] deletes old rows in a task, on Postgres a key's whole day at once and else batch by batch; [`empty_days`],
//!   [`reap`] and [`reap_inbox`] are its statements.
//! - The tables `mainstay_key`, which shows the records of all days, and `mainstay_inbox` are public: see `migrations/`. Create
//!   them with [`migrate`].
//! - [`store::IdempotencyDb`] is what a database must do; the `conformance` feature holds the suite that proves it.
//!
//! # Features
//!
//! None are on by default: keys, scopes, fingerprints, signatures. `postgres`, `mysql` and `sqlite` bring the stores and the
//! inbox, `redis` and `memory` leases without a database, `axum` the layer and the extractor, `aead` a codec, `utoipa` the
//! layer's part of an OpenAPI document, `conformance` the suite, and `metrics` these, through the facade of that name:
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `mainstay.idempotency.requests` | counter | `outcome`: `ran`, `replayed`, `released`, or a problem's code; the replay rate is `replayed` over all |
//! | `mainstay.idempotency.wait.duration` | histogram, seconds | how long duplicates waited |
//! | `mainstay.webhook.deliveries` | counter | `outcome`: `first`, `duplicate`, `refused` |
//!
//! # Tracing
//!
//! Target `mainstay_idempotency`. Keys are logged (escaped), bodies, scopes and secrets are not.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "sqlx")]
pub mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod fingerprint;
#[cfg(feature = "sqlx")]
mod inbox;
#[cfg(feature = "axum")]
mod inflight;
#[cfg(feature = "sqlx")]
mod jobs;
mod key;
#[cfg(feature = "axum")]
mod layer;
#[cfg(feature = "sqlx")]
pub mod leased;
#[cfg(feature = "sqlx")]
mod local;
#[cfg(feature = "sqlx")]
mod on_commit;
mod policy;
#[cfg(feature = "sqlx")]
mod reaper;
mod recorded;
#[cfg(feature = "sqlx")]
mod refusal;
mod scope;
#[cfg(feature = "sqlx")]
pub mod store;
#[cfg(feature = "sqlx")]
mod telemetry;
#[cfg(feature = "sqlx")]
mod tx;
mod wait;
pub mod webhook;

pub use error::{Error, ErrorKind};
pub use fingerprint::{Covers, Fingerprint};
pub use key::{Age, KEY_BYTES_MAX, Key, KeyError, Parse};
pub use policy::{Keep, OutcomePolicy, StripeV1, SuccessOnly, TerminalOnly};
pub use recorded::{HEADER_BYTES_MAX, RecordError, Recorded};
pub use scope::Scope;
pub use wait::Wait;

#[cfg(feature = "sqlx")]
pub use inbox::{INBOX_RETENTION, Inbox, dead_letters};
#[cfg(feature = "sqlx")]
pub use jobs::{Jobs, LeasedJobs, Ran};
#[cfg(feature = "utoipa")]
pub use layer::IdempotencyOpenApi;
#[cfg(feature = "axum")]
pub use layer::{IdempotencyLayer, IdempotencyService, Protocol, ResponseFuture, Scoped, Unscoped};
#[cfg(feature = "sqlx")]
pub use leased::{LentLease, derived_key};
#[cfg(feature = "sqlx")]
pub use reaper::{Reaped, Reaper, RetentionTooShort};
#[cfg(feature = "sqlx")]
pub use refusal::IdempotencyError;
#[cfg(feature = "sqlx")]
pub use store::{IdempotencyDb, Seen, empty_days, migrate, reap, reap_inbox};
#[cfg(feature = "sqlx")]
pub use tx::IdemTx;
