//! `#[derive(Fault)]` for [`mainstay-errors`](https://docs.rs/mainstay-errors), which re-exports it and
//! explains it; this crate is not used on its own.

mod attr;
mod expand;
mod names;

use proc_macro::TokenStream;

/// Implements `Fault` for an error enum (or struct), so that each variant is one stable code.
///
/// Use it beside `thiserror::Error`, which provides `Display` and `source`.
///
/// On a **variant** (or on a struct):
///
/// | `#[fault(..)]` | meaning |
/// |---|---|
/// | `not_found`, `unavailable`, … | the category, required: any of the sixteen in snake case |
/// | `delegate` | instead of a category: the variant is whatever its one field, itself a `Fault`, is |
/// | `code = "order_gone"` | the code; otherwise the variant's name in snake case |
/// | `public` | the variant's `Display` may be sent as `detail`; otherwise there is none |
/// | `title = ".."` | the title; otherwise the code in words |
/// | `status = 422` | another HTTP status of the category's class |
/// | `retry = never` | overrides the advice: `never`, `backoff`, `same_key_only`, `transaction`, `after_auth`, `after_state_change` |
/// | `retry_after = "2s"` | how long to wait: a whole number of `ms`, `s`, `m` or `h` |
/// | `outcome = not_applied` | overrides the outcome: `not_applied`, `applied`, `unknown` |
/// | `pointer = "/email"` | adds a violation of this member of the body |
/// | `constraint = "users_email_key"` | a database constraint that means this variant (which must have no fields) |
/// | doc comment | the text of the code's page |
///
/// On a **field**:
///
/// | `#[fault(..)]` | meaning |
/// |---|---|
/// | `ext`, `ext = "name"` | the field is sent as an extension member (it must be `Serialize`) |
/// | `violations` | the field is a `Violations`, sent as `errors` |
/// | `retry_after` | the field is a `Duration` or `Option<Duration>` to wait |
///
/// On the **type**:
///
/// | `#[fault(..)]` | meaning |
/// |---|---|
/// | `type_base = "https://errors.example.com/orders/"` | where `type` points; otherwise the base of the service's layer |
/// | `crate = "mainstay::errors"` | the path of `mainstay-errors`. Found in `Cargo.toml` by itself: `mainstay-errors` if you depend on it, else `mainstay` |
/// | `no_response` | no `IntoResponse` under feature `axum`, because the type has one of its own |
#[proc_macro_derive(Fault, attributes(fault))]
pub fn derive_fault(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::fault(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
