//! One truth about a failure: problem documents, retry advice and outcome.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod advice;
mod category;
#[cfg(feature = "sqlx")]
#[cfg_attr(docsrs, doc(cfg(feature = "sqlx")))]
pub mod db;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod fault;
mod http_codes;
#[cfg(feature = "axum")]
mod layer;
#[cfg(feature = "axum")]
mod log;
#[cfg(feature = "axum")]
mod pages;
mod problem;
mod registry;
mod request_id;
#[cfg(feature = "axum")]
mod response;
mod violation;
mod violations;

#[cfg(feature = "derive")]
#[cfg_attr(docsrs, doc(cfg(feature = "derive")))]
pub use mainstay_errors_derive::Fault;

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub use crate::{
    extract::{Json, Path, Query},
    layer::{PassThrough, ProblemFuture, ProblemLayer, ProblemService},
    log::LogPolicy,
};
pub use advice::{Outcome, Retry};
pub use category::Category;
pub use error::{CHAIN_LINKS_MAX, Error};
pub use fault::{ByConstraint, Descriptor, Fault, Members, Public, catalog_join, catalog_len};
pub use problem::{
    DEFAULT_TYPE_BASE, DETAIL_BYTES_MAX, DOCUMENT_BYTES_MAX, MemberRefused, PROBLEM_JSON, Problem,
    RESERVED_MEMBERS, VIOLATIONS_MAX,
};
pub use registry::{CodeClash, Registry};
pub use request_id::RequestId;
pub use violation::{Location, Violation};
pub use violations::Violations;

/// What the derive's expansion names; nothing here is for people.
#[doc(hidden)]
pub mod __private {
    #[cfg(feature = "axum")]
    pub use axum::response::{IntoResponse, Response};

    pub use crate::fault::{catalog_join, catalog_len};
}

/// Implements axum's `IntoResponse` for a derived fault.
#[cfg(feature = "axum")]
#[doc(hidden)]
#[macro_export]
macro_rules! __fault_response {
    ([$($generics:tt)*] [$ty:ty] [$($bounds:tt)*]) => {
        #[automatically_derived]
        impl $($generics)* $crate::__private::IntoResponse for $ty $($bounds)* {
            fn into_response(self) -> $crate::__private::Response {
                $crate::__private::IntoResponse::into_response($crate::Error::from(self))
            }
        }
    };
}

/// Implements axum's `IntoResponse` for a derived fault: nothing, because the feature `axum` is off.
#[cfg(not(feature = "axum"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __fault_response {
    ($($ignored:tt)*) => {};
}
