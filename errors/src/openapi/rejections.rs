//! What the extractors answer with when they refuse a request.

use utoipa::IntoResponses;

use super::typed::{Map, responses};
use crate::violations::VALIDATION_FAILED;
use crate::{Descriptor, http_codes};

macro_rules! rejections {
    ($(#[$doc:meta])* $name:ident: $($code:expr),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl IntoResponses for $name {
            fn responses() -> Map {
                const CODES: &[Descriptor] = &[$($code),+];
                responses(CODES)
            }
        }
    };
}

rejections!(
    /// The responses of an endpoint that reads its body by [`Json`](crate::Json).
    JsonRejections:
    http_codes::BAD_REQUEST,
    http_codes::MALFORMED_JSON,
    http_codes::PAYLOAD_TOO_LARGE,
    http_codes::UNSUPPORTED_MEDIA_TYPE,
    VALIDATION_FAILED,
);
rejections!(
    /// The responses of an endpoint that reads its query by [`Query`](crate::Query).
    QueryRejections:
    http_codes::INVALID_QUERY,
);
rejections!(
    /// The responses of an endpoint that reads its path by [`Path`](crate::Path). Its 500 for a route whose pattern
    /// does not fit is a bug and no part of a contract.
    PathRejections:
    http_codes::INVALID_PATH,
);
