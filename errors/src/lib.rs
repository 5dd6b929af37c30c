//! One truth about a failure: problem documents, retry advice and outcome.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod advice;
mod category;
mod problem;
mod request_id;
mod violation;

pub use advice::{Outcome, Retry};
pub use category::Category;
pub use problem::{
    DEFAULT_TYPE_BASE, DETAIL_BYTES_MAX, DOCUMENT_BYTES_MAX, MemberRefused, PROBLEM_JSON, Problem,
    RESERVED_MEMBERS, VIOLATIONS_MAX,
};
pub use request_id::RequestId;
pub use violation::{Location, Violation};
