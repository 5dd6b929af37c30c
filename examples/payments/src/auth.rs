//! Who is calling: a bearer token names a tenant.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};
use mainstay::errors::Fault;

use crate::config::Tenants;

/// The caller, put into the request's extensions once its token is known.
#[derive(Debug, Clone)]
pub struct Tenant(pub Arc<str>);

/// Why nobody is let in.
#[derive(Debug, thiserror::Error, Fault)]
#[fault(decode, domain = "payments.example.com")]
pub enum AuthError {
    /// The `Authorization` header carries no token, or one that nobody has been given.
    #[error("a known bearer token is needed")]
    #[fault(unauthenticated, public)]
    TokenMissingOrUnknown,
    /// A route asks who is calling and stands outside authentication: a bug, and nothing was done.
    #[error("a route that needs a tenant is not behind `authenticate`")]
    #[fault(internal, outcome = not_applied)]
    TenantUnresolved,
}

/// Lets only known callers through. This stands outside the idempotency layer: a replay is for those who may see it.
pub async fn authenticate(
    State(tenants): State<Arc<Tenants>>,
    mut request: Request,
    next: Next,
) -> Result<Response, AuthError> {
    match bearer(request.headers()).and_then(|token| tenants.tenant_of(token)) {
        Some(tenant) => {
            let tenant = Tenant(tenant.into());
            request.extensions_mut().insert(tenant);
            Ok(next.run(request).await)
        }
        None => Err(AuthError::TokenMissingOrUnknown),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim())
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_single_bearer_token_counts() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("abc", None),
        ] {
            let headers =
                HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(bearer(&headers), token, "{value}");
        }
        let mut twice = HeaderMap::new();
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert_eq!(bearer(&twice), None);
    }
}
