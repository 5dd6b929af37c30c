//! One truth about a failure.
//!
//! A service that fails owes its caller three answers: *what* went wrong, *did it happen*, and *may I
//! try again*. This crate gives them once, at the type of the error, and carries them unchanged to the
//! HTTP client, to the log and to the retry layer: as an RFC 9457 problem document with a stable `code`,
//! an [`outcome`](Outcome) and a [`retry`](Retry) advice.
//!
//! ```
//! # #[cfg(feature = "derive")] {
//! use mainstay_errors::{Error, Fault, Violations};
//!
//! #[derive(Debug, thiserror::Error, Fault)]
//! enum OrderError {
//!     /// No order has this id. (A doc comment is the text of the code's page.)
//!     #[error("order {id} not found")]
//!     #[fault(not_found, public)] // its Display may be sent
//!     OrderNotFound {
//!         #[fault(ext = "order_id")] // an extension member of the document
//!         id: u64,
//!     },
//!     /// The payment provider does not answer.
//!     #[error("payment provider")] // not public: logged, never sent
//!     #[fault(unavailable, retry_after = "2s", outcome = not_applied)]
//!     Provider(#[source] std::io::Error),
//!     #[error(transparent)]
//!     #[fault(delegate)] // whatever the field is
//!     Invalid(#[from] Violations),
//! }
//!
//! let problem = OrderError::OrderNotFound { id: 7 }.to_problem();
//! assert_eq!(
//!     String::from_utf8_lossy(&problem.to_bytes()),
//!     r#"{"type":"/problems/order_not_found","title":"Order not found","status":404,"#.to_owned()
//!         + r#""detail":"order 7 not found","code":"order_not_found","retry":"never","#
//!         + r#""outcome":"not_applied","order_id":7}"#,
//! );
//! # }
//! ```
//!
//! # The promise
//!
//! - **Nothing internal is sent.** A document is made of static text, of values wrapped in [`Public`] and
//!   of fields marked `ext`. `Display` of a variant that is not `public`, sources, contexts, panic
//!   messages, SQL errors and rejected values have no way to the wire.
//! - **What is written is right.** Status 4xx or 5xx and of its category's class, members in one order,
//!   no nulls, no extension that takes the place of a standard member: equal problems are equal bytes.
//! - **Reading never fails.** [`Problem::read`] makes a problem of every status, body and set of headers;
//!   a mistyped member is ignored, an unknown code survives.
//! - **An unknown outcome is called unknown.** A timeout, a lost connection or an unclassified bug says
//!   `"outcome":"unknown"`, and advice that would repeat an effect says `same_key_only`.
//!
//! # Why it is built like this
//!
//! The sixteen [`Category`] values are those of `google.rpc.Code`, because they are the only set that was
//! made for every transport at once; finer meaning belongs in `code`. One table gives each of them its
//! HTTP status, gRPC number, advice, outcome and log level, and an error chooses its line where its type
//! is declared. Deciding late, by matching on messages or statuses, is how a leak or a second effect
//! happens. Over HTTP the category itself does not travel: status, `retry` and `outcome` say it to who must act.
//!
//! `outcome` and `retry` stand in the document because a caller cannot derive them from a status: a 503
//! of a full queue did nothing and may be repeated, a 503 of a broken commit may have done everything.
//!
//! # The other side
//!
//! With `#[fault(decode)]` on the enum, a client that shares it has its errors back: [`Problem::decode`] gives
//! [`Decoded::Known`], or [`Decoded::Unknown`] with everything the answer said, for a newer server's code, a proxy's
//! HTML page or a body cut in half. `OrProblem` (features `client`, `reqwest`) turns failed answers into problems, with
//! their bodies bounded and their relative references resolved. A problem that is passed on keeps its code over any number
//! of hops, HTTP or gRPC.
//!
//! # With axum (feature `axum`)
//!
//! Derived faults, [`Error`], [`Problem`] and [`Violations`] are responses. `ProblemLayer`, outermost,
//! ties each failure to its request, completes documents, logs each cause once and turns bare failures of the
//! router, of axum's extractors and of other layers into documents. `Json`, `Query` and `Path` name
//! every wrong value at once. `Registry::pages` serves what `type` points at.
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use axum::{Router, routing::post};
//! use mainstay_errors::{Json, ProblemLayer, Registry, Violation, Violations};
//!
//! #[derive(serde::Deserialize)]
//! struct NewOrder { amount: i64 }
//!
//! async fn create(Json(order): Json<NewOrder>) -> Result<&'static str, Violations> {
//!     if order.amount < 1 {
//!         return Err(Violation::body("/amount", "too_small").with_detail("must be at least 1").into());
//!     }
//!     Ok("created")
//! }
//!
//! let registry = Registry::new().with::<Violations>(); // and your own: `.with::<OrderError>()`
//! let app: Router = Router::new()
//!     .route("/orders", post(create))
//!     .merge(registry.pages("/problems"))
//!     .layer(ProblemLayer::new(&registry));
//! ```
//!
//! # With tonic (feature `tonic`)
//!
//! The same errors are `tonic::Status`, with the details of `google.rpc` filled within 8 KiB. `StatusLayer` gives
//! each failed call its request id, logs each cause once, turns panics into INTERNAL, and takes out the text of errors
//! that tonic converted. [`Problem`] reads any status back.
//!
//! # With sqlx (features `sqlx`, `postgres`, `mysql`, `sqlite`)
//!
//! `db::DbFault` classifies `sqlx::Error` by code and number, never by text; `db::DbResultExt` says at the call
//! site what a violated constraint or a missing row means there.
//!
//! # Codes are a contract
//!
//! Clients match on codes, so a [`Registry`] refuses two meanings of one, and [`Registry::assert_codes`] in a test of
//! yours keeps the file `codes.json` beside the code: a code that goes away, or that changes `type`, status or category,
//! fails; a new one is added to the file and seen in review.
//!
//! # Features
//!
//! | feature | gives |
//! |---|---|
//! | `derive` | `#[derive(Fault)]` |
//! | `axum` | responses, extractors, layer, pages (axum 0.8) |
//! | `tonic` | `Problem::to_status`, `Problem::from_status`, `StatusLayer` (tonic 0.14) |
//! | `sqlx` | `db`: the classifier; knows no driver's codes by itself |
//! | `postgres`, `mysql` (MariaDB too), `sqlite` | `sqlx` and the codes of that database |
//! | `client` | `OrProblem` for `http::Response` |
//! | `reqwest` | `OrProblem` for reqwest 0.13, `Problem::from_reqwest` |
//! | `utoipa` | schemas and responses, see [`openapi`] (utoipa 6) |
//! | `garde`, `validator` | [`Violations`] from their reports, without the values they hold |
//! | `conformance` | checks for your own tests: every error comes back from the wire as it was |
//!
//! None is on by default; the facade `mainstay` turns `derive` on, and the derive finds its way through
//! the facade by itself.
//!
//! # Tracing
//!
//! One event a failure, target `mainstay_errors`, at the level of its category, inside the span where the error was
//! made, with the fields `error.type` (the code), `error.chain`, `category`, `status`, `retry`, `outcome`,
//! `request_id`, and `suppressed`, the lines of this code that the rate cap left out before it. Spans that declare
//! `error.type` and `otel.status_code` get them as OpenTelemetry asks: see [`LogPolicy`].
//!
//! # What is not here
//!
//! - **Other representations of a failure** (XML, HTML, JSON:API). RFC 9457 lets a server send problem+json whatever
//!   `Accept` says, and clients that read errors read JSON; only the pages behind `type`, which people open, are negotiated.
//! - **Message bundles.** `ProblemLayer::localize` asks a trait of yours for the texts of a code in a language; the
//!   catalogues and their formats belong to the application.
//! - **A captured span trace.** The line is logged inside the span where the error was made, so the subscriber prints
//!   whatever it knows of that span; a second copy in the error would need a crate that is no longer maintained.
//! - **A batch of different problems in one document.** RFC 9457 §3 advises against it; many violations of one kind
//!   are one problem.
//! - **Fetching a `type`.** It identifies; nothing here dereferences it.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod advice;
mod category;
#[cfg(any(feature = "client", feature = "reqwest"))]
mod client;
#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod conformance;
#[cfg(feature = "sqlx")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlx")))]
pub mod db;
mod decode;
mod error;
mod expansion;
#[cfg(feature = "axum")]
mod extract;
#[cfg(feature = "axum")]
mod fallback;
mod fault;
#[cfg(feature = "tonic")]
mod grpc;
mod http_codes;
pub mod iana;
mod language;
#[cfg(feature = "axum")]
mod layer;
mod log;
pub mod openapi;
#[cfg(feature = "axum")]
mod pages;
mod problem;
mod registry;
mod request_id;
#[cfg(feature = "axum")]
mod response;
mod trace_parent;
#[cfg(any(feature = "garde", feature = "validator"))]
mod validation;
mod violation;
mod violations;

#[cfg(feature = "derive")]
#[cfg_attr(docsrs, doc(cfg(feature = "derive")))]
pub use mainstay_errors_derive::Fault;

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use crate::{
    extract::{Json, Path, Query},
    fallback::api_fallback,
    layer::{
        Localize, Localized, PassThrough, ProblemFuture, ProblemLayer, ProblemService, RequestIds,
    },
};
pub use advice::{Outcome, Retry};
pub use category::Category;
#[cfg(any(feature = "client", feature = "reqwest"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "client", feature = "reqwest"))))]
pub use client::OrProblem;
pub use decode::{Decoded, FromProblem};
pub use error::{CHAIN_LINKS_MAX, Error};
pub use fault::{ByConstraint, Descriptor, Fault, Members, Public};
#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
pub use grpc::{
    MESSAGE_BYTES_MAX, STATUS_BYTES_MAX, StatusBody, StatusFuture, StatusLayer, StatusService,
};
pub use language::preferred_language;
pub use log::LogPolicy;
pub use problem::{
    DEFAULT_TYPE_BASE, DETAIL_BYTES_MAX, DOCUMENT_BYTES_MAX, MemberRefused, PROBLEM_JSON, Problem,
    ProblemReader, RESERVED_MEMBERS, VIOLATIONS_MAX,
};
pub use registry::{
    CODES_BYTES_MAX, CodeChange, CodeChanges, CodeClash, CodeFact, CodesUnreadable, Registry,
};
pub use request_id::RequestId;
pub use violation::{Location, PARAMS_MAX, Violation};
pub use violations::Violations;

/// What the derive's expansion names; nothing here is for people.
#[doc(hidden)]
pub mod __private {
    #[cfg(feature = "axum")]
    pub use axum::response::{IntoResponse, Response};

    #[cfg(feature = "utoipa")]
    pub use crate::openapi::responses;
    #[cfg(feature = "tonic")]
    pub use tonic::Status;
    #[cfg(feature = "utoipa")]
    pub use utoipa::{
        IntoResponses,
        openapi::{RefOr, response::Response as ResponseSchema},
    };

    pub use crate::decode::{Wait, is_of, member, member_or_default, violations};
    pub use crate::fault::{catalog_join, catalog_len};
    pub use serde::de::DeserializeOwned;
}
