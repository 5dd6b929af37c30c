//! The codes of failures that come from HTTP itself rather than from an application: no such route,
//! wrong method, unreadable body.

#[cfg(feature = "axum")]
use crate::Outcome;
use crate::{Category, Descriptor, Retry};

const fn describe(
    code: &'static str,
    category: Category,
    status: u16,
    docs: &'static str,
) -> Descriptor {
    Descriptor::new(code, category)
        .with_status(status)
        .with_docs(docs)
        .with_owner("mainstay_errors")
}

/// The body is not JSON, or not the JSON of this request, at all.
pub(crate) const MALFORMED_JSON: Descriptor = describe(
    "malformed_json",
    Category::InvalidArgument,
    400,
    "The body is not JSON.",
)
.with_title("Malformed JSON");
/// A path parameter does not read.
pub(crate) const INVALID_PATH: Descriptor = describe(
    "invalid_path",
    Category::InvalidArgument,
    400,
    "A parameter in the path cannot be read. `errors` names it.",
);
/// A query parameter does not read.
pub(crate) const INVALID_QUERY: Descriptor = describe(
    "invalid_query",
    Category::InvalidArgument,
    400,
    "A parameter in the query string is missing or cannot be read. `errors` names it.",
);
pub(crate) const BAD_REQUEST: Descriptor = describe(
    "bad_request",
    Category::InvalidArgument,
    400,
    "The request cannot be understood.",
);
const UNAUTHENTICATED: Descriptor = describe(
    "unauthenticated",
    Category::Unauthenticated,
    401,
    "The request needs valid credentials.",
);
const PERMISSION_DENIED: Descriptor = describe(
    "permission_denied",
    Category::PermissionDenied,
    403,
    "The caller may not do this.",
);
const NOT_FOUND: Descriptor = describe(
    "not_found",
    Category::NotFound,
    404,
    "There is nothing at this address.",
);
const METHOD_NOT_ALLOWED: Descriptor = describe(
    "method_not_allowed",
    Category::InvalidArgument,
    405,
    "This address does not take this method. `Allow` lists those it takes.",
);
const NOT_ACCEPTABLE: Descriptor = describe(
    "not_acceptable",
    Category::InvalidArgument,
    406,
    "None of the accepted media types can be given.",
);
const CONFLICT: Descriptor = describe(
    "conflict",
    Category::FailedPrecondition,
    409,
    "The request does not go with the state that the system is in.",
);
const GONE: Descriptor = describe(
    "gone",
    Category::NotFound,
    410,
    "What was at this address is gone.",
);
const LENGTH_REQUIRED: Descriptor = describe(
    "length_required",
    Category::InvalidArgument,
    411,
    "The request needs a `Content-Length`.",
);
const PRECONDITION_FAILED: Descriptor = describe(
    "precondition_failed",
    Category::FailedPrecondition,
    412,
    "A condition in the request's headers is false.",
);
/// The body exceeds a limit.
pub(crate) const PAYLOAD_TOO_LARGE: Descriptor = describe(
    "payload_too_large",
    Category::InvalidArgument,
    413,
    "The body is larger than this address takes.",
);
const URI_TOO_LONG: Descriptor = describe(
    "uri_too_long",
    Category::InvalidArgument,
    414,
    "The address is too long.",
)
.with_title("URI too long");
/// The body is not of a media type that is read here.
pub(crate) const UNSUPPORTED_MEDIA_TYPE: Descriptor = describe(
    "unsupported_media_type",
    Category::InvalidArgument,
    415,
    "The body is of a media type that is not read here. JSON is `application/json`.",
);
const UNPROCESSABLE_CONTENT: Descriptor = describe(
    "unprocessable_content",
    Category::InvalidArgument,
    422,
    "The body is well-formed but its content is not acceptable.",
);
const TOO_MANY_REQUESTS: Descriptor = describe(
    "too_many_requests",
    Category::ResourceExhausted,
    429,
    "Too many requests. Slow down.",
);
const HEADERS_TOO_LARGE: Descriptor = describe(
    "request_header_fields_too_large",
    Category::InvalidArgument,
    431,
    "The headers of the request are too large.",
);
const NOT_IMPLEMENTED: Descriptor = describe(
    "not_implemented",
    Category::Unimplemented,
    501,
    "This operation does not exist here.",
);
const BAD_GATEWAY: Descriptor = describe(
    "bad_gateway",
    Category::Unavailable,
    502,
    "A service this one depends on answered wrongly. Whether the request took effect is not known.",
)
.with_retry(Retry::SameKeyOnly);
const SERVICE_UNAVAILABLE: Descriptor = describe(
    "service_unavailable",
    Category::Unavailable,
    503,
    "The service cannot take this request now.",
)
.with_retry(Retry::SameKeyOnly);
/// The handler took too long. Also what a slow handler's 408 becomes: 408 is about slow *requests*, and clients resend on it.
pub(crate) const TIMEOUT: Descriptor = describe(
    "timeout",
    Category::DeadlineExceeded,
    504,
    "The request took too long and was given up. Whether it took effect is not known.",
);
/// Any other 4xx.
const CLIENT_ERROR: Descriptor = describe(
    "client_error",
    Category::InvalidArgument,
    400,
    "The request was refused.",
);
/// All of them but `internal`.
pub(crate) const CATALOG: &[Descriptor] = &[
    MALFORMED_JSON,
    INVALID_PATH,
    INVALID_QUERY,
    BAD_REQUEST,
    UNAUTHENTICATED,
    PERMISSION_DENIED,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    NOT_ACCEPTABLE,
    CONFLICT,
    GONE,
    LENGTH_REQUIRED,
    PRECONDITION_FAILED,
    PAYLOAD_TOO_LARGE,
    URI_TOO_LONG,
    UNSUPPORTED_MEDIA_TYPE,
    UNPROCESSABLE_CONTENT,
    TOO_MANY_REQUESTS,
    HEADERS_TOO_LARGE,
    NOT_IMPLEMENTED,
    BAD_GATEWAY,
    SERVICE_UNAVAILABLE,
    TIMEOUT,
    CLIENT_ERROR,
];

/// The code of a bare error status that some other layer or the router answered with.
///
/// 408 becomes 504: it is meant for slow *requests*, clients resend on it, and layers send it for slow
/// handlers.
#[cfg(feature = "axum")]
pub(crate) fn for_status(status: u16) -> Descriptor {
    let found = match status {
        408 => Some(&TIMEOUT),
        500 => Some(&crate::error::INTERNAL),
        _ => CATALOG
            .iter()
            .skip(OF_CODES)
            .find(|descriptor| descriptor.status() == status),
    };
    let other = if status < 500 {
        CLIENT_ERROR
    } else {
        crate::error::INTERNAL
    };
    match found {
        Some(descriptor) => *descriptor,
        // The client went away, as proxies spell it: the handler may have been done by then.
        None if status == 499 => CLIENT_ERROR
            .with_status(status)
            .with_outcome(Outcome::Unknown),
        None if other.category().allows_status(status) => other.with_status(status),
        None => other,
    }
}

/// How many at the front of the catalogue belong to extractors rather than to a status.
#[cfg(feature = "axum")]
const OF_CODES: usize = 3;
