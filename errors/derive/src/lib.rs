//! `#[derive(Fault)]` for [`mainstay-errors`](https://docs.rs/mainstay-errors), which re-exports it and
//! explains it; this crate is not used on its own.

mod attr;
mod display;
mod expand;
mod names;

use proc_macro::TokenStream;

/// Implements `Fault` for an error enum (or struct), so that each variant is one stable code.
///
/// Use it beside `thiserror::Error`, which provides `Display` and `source`. What it writes stands on three levels:
/// the type says whose codes these are, a variant says what its code means, a field says how it travels. A word
/// that is unknown, given twice, out of place or without effect is a compile error that says what to write.
///
/// ```ignore
/// #[derive(Debug, PartialEq, thiserror::Error, mainstay_errors::Fault)]
/// #[fault(decode, domain = "orders.example.com")]
/// enum OrderError {
///     /// No order has this id. (The text of the code's page.)
///     #[error("order {id} not found")]
///     #[fault(not_found, public)]
///     OrderNotFound { #[fault(ext = "order_id")] id: u64 },
///     /// The API of last year is gone.
///     #[error("too old")]
///     #[fault(failed_precondition, status = 426, header = "upgrade: HTTP/3.0")]
///     TooOld,
///     #[error(transparent)]
///     #[fault(delegate)]
///     Invalid(#[from] mainstay_errors::Violations),
/// }
/// ```
///
/// # On the type
///
/// | `#[fault(..)]` | what it does |
/// |---|---|
/// | `domain = "orders.example.com"` | says whose codes these are: on gRPC it is `ErrorInfo.domain`, and a client that has the domain does not take another service's code for one of these. A DNS name in lower case |
/// | `type_base = "https://errors.example.com/orders/"` | `type` is this and the code; otherwise the base of the service's layer. An absolute URI or a path from `/`, ending in `/` or `#` |
/// | `decode` | implements `FromProblem`: clients have the enum back ([below](#coming-back)) |
/// | `no_response` | no `IntoResponse` (feature `axum`), because the type has one of its own |
/// | `no_status` | no `From<..> for tonic::Status` (feature `tonic`), because the type has one of its own |
/// | `no_openapi` | no `IntoResponses` (feature `utoipa`), because the type has one of its own |
/// | `crate = "mainstay::errors"` | the path of `mainstay-errors`. Found in `Cargo.toml` by itself: `mainstay-errors` if you depend on it, else `mainstay` |
///
/// # On a variant, or on a struct
///
/// | `#[fault(..)]` | what it does |
/// |---|---|
/// | `not_found`, `unavailable`, … | the category, required: any of the sixteen in snake case. It gives status, gRPC code, advice, outcome and log level |
/// | `delegate` | instead of a category: the variant is whatever its one field, itself a `Fault`, is. Its codes join the catalogue, so its type has no type parameters |
/// | `code = "order_gone"` | the code: at most 63 of `a-z 0-9 _`, starting with a letter. Otherwise the variant's name in snake case |
/// | `public` | the variant's `Display` may be sent as `detail`; otherwise there is none. Refused where that text prints a source |
/// | `title = ".."` | the title; otherwise the code in words |
/// | `status = 422` | another HTTP status of the category's class |
/// | `header = "allow: GET, HEAD"` | a header beside the status; repeatable, at most eight. 405 needs `allow`, 426 `upgrade`, 407 `proxy-authenticate` (RFC 9110 §15). A response that has the header keeps its own |
/// | `retry = never` | overrides the advice: `never`, `backoff`, `same_key_only`, `transaction`, `after_auth`, `after_state_change` |
/// | `retry_after = "2s"` | how long to wait: a whole number of `ms`, `s`, `m` or `h`; sent in whole seconds, rounded up |
/// | `outcome = not_applied` | overrides the outcome: `not_applied`, `applied`, `unknown` |
/// | `type = "https://.."` | the whole `type`, for one that others defined; wins over `type_base`. An absolute URI or a path from `/` |
/// | `pointer = "/email"` | adds a violation of this member of the body |
/// | `constraint = "users_email_key"` | a database constraint that means this variant (which must have no fields): implements `ByConstraint` |
/// | doc comment | the text of the code's page |
///
/// # On a field
///
/// A field without a word is not sent.
///
/// | `#[fault(..)]` | what it does |
/// |---|---|
/// | `ext`, `ext = "name"` | it is sent as an extension member (it must be `Serialize`). The name is the field's unless given: at least three of `A-Z a-z 0-9 _`, starting with a letter (RFC 9457 §3.2), and none of the document's own. **The value reaches the client.** One that is not JSON, such as an integer beyond 64 bits, is left out |
/// | `violations` | it is a `Violations`, sent as `errors` |
/// | `retry_after` | it is a `Duration` or `Option<Duration>` to wait |
/// | `default` | with `decode`: it is not sent, and filled with `Default::default()` when the error comes back |
/// | `ext, default` | it is sent; when it is missing, as from an older server, it is filled with its default |
///
/// # Coming back
///
/// `decode` builds a variant from a document with its code, if every field has a word above. (Then the code must
/// match, and domain and `type` must not contradict it; title and detail say nothing.) A member that is missing or
/// does not deserialise makes no error up: the document stays `Decoded::Unknown`. So does a variant that holds
/// anything else, such as a source, always; when that is all of them, `decode` is refused. Own codes are tried
/// first, then delegates in order, whose types must be `FromProblem` too. A type parameter need only be
/// `DeserializeOwned` for who reads, not for who writes.
///
/// A wait comes back in whole seconds, and the violation of a `pointer` is not looked at. The feature
/// `conformance` has the test for all this: `mainstay_errors::conformance::round_trip_each`.
#[proc_macro_derive(Fault, attributes(fault))]
pub fn derive_fault(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::fault(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
