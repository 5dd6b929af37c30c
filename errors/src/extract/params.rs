//! [`Query`] and [`Path`]: parameters of the address.

use std::ops::{Deref, DerefMut};

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, OptionalFromRequestParts, RawPathParams};
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::probe::{self, Misfit, Source};
use crate::{Error, Location, Problem, VIOLATIONS_MAX, Violation, http_codes};

/// The parameters of the query string. What cannot be read is 400 `invalid_query`, every such parameter
/// in `errors`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Query<T>(pub T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        if let Ok(axum::extract::Query(query)) = axum::extract::Query::try_from_uri(&parts.uri) {
            return Ok(Self(query));
        }
        Err(refused_query::<T>(parts))
    }
}

fn refused_query<T: DeserializeOwned>(parts: &Parts) -> Problem {
    let problem = http_codes::INVALID_QUERY.to_problem();
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    let Ok(axum::extract::Query(pairs)) = pairs else {
        return problem;
    };
    let mut values = Map::new();
    let mut repeated = Vec::new();
    for (name, value) in pairs {
        // No more than are sent: looking each one up in a long list would be slow.
        if values.insert(name.clone(), Value::String(value)).is_some()
            && repeated.len() < VIOLATIONS_MAX
            && !repeated.contains(&name)
        {
            repeated.push(name);
        }
    }
    let mut misfits = probe::violations::<T>(&Value::Object(values), Source::Text);
    if misfits.is_empty() {
        misfits = repeated.iter().map(|name| Misfit::repeated(name)).collect();
    }
    problem.with_violations(
        misfits
            .into_iter()
            .map(|misfit| misfit.violation(Location::Query)),
    )
}

/// The parameters of the path. What cannot be read is 400 `invalid_path`, every such parameter in
/// `errors`; a route whose pattern does not fit its handler is a bug, 500 `internal`, and the log says how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Path<T>(pub T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        type Read<T> = axum::extract::Path<T>;
        match <Read<T> as FromRequestParts<S>>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(rejection) => {
                let raw = RawPathParams::from_request_parts(parts, state).await;
                let params = raw
                    .iter()
                    .flatten()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()));
                Err(refused_path::<T>(rejection, &params.collect::<Vec<_>>()))
            }
        }
    }
}

/// `Option<Path<T>>`: none when the route has no parameters, for a handler of several routes.
impl<S, T> OptionalFromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Error> {
        let raw = RawPathParams::from_request_parts(parts, state).await;
        if raw.is_ok_and(|params| params.iter().next().is_none()) {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
            .map(Some)
    }
}

fn refused_path<T: DeserializeOwned>(
    rejection: PathRejection,
    params: &[(String, String)],
) -> Error {
    let problem = http_codes::INVALID_PATH.to_problem();
    let PathRejection::FailedToDeserializePathParams(error) = &rejection else {
        return misrouted::<T>(rejection, params);
    };
    match error.kind() {
        ErrorKind::WrongNumberOfParameters { .. } | ErrorKind::UnsupportedType { .. } => {
            return misrouted::<T>(rejection, params);
        }
        ErrorKind::InvalidUtf8InPathParam { key } => {
            let violation = Violation::path(key, "malformed").with_detail("must be UTF-8");
            return problem.with_violation(violation).into();
        }
        _ => {}
    }
    let misfits = path_misfits::<T>(params);
    // No client can leave a parameter out: then the route would not have matched.
    if misfits.iter().any(Misfit::is_required) {
        return misrouted::<T>(rejection, params);
    }
    let violations = misfits
        .into_iter()
        .map(|misfit| misfit.violation(Location::Path));
    problem.with_violations(violations).into()
}

/// The pattern of the route and the type of its handler do not go together. The values are left out: they are the
/// client's, and it is not about them.
fn misrouted<T>(rejection: PathRejection, params: &[(String, String)]) -> Error {
    let names: Vec<_> = params.iter().map(|(name, _)| name.as_str()).collect();
    let wanted = std::any::type_name::<T>();
    let given = names.join(", ");
    Error::internal(rejection).context(format!(
        "reading `{wanted}` from a path with the parameters [{given}]"
    ))
}

/// A path is taken as a struct or map, as a tuple, or as one value, and only the type knows which.
fn path_misfits<T: DeserializeOwned>(params: &[(String, String)]) -> Vec<Misfit> {
    let named: Map<String, Value> = params
        .iter()
        .map(|(name, value)| (name.clone(), Value::String(value.clone())))
        .collect();
    let misfits = probe::violations::<T>(&Value::Object(named), Source::Text);
    if misfits.iter().any(|misfit| !misfit.is_root()) {
        return misfits;
    }
    let listed = params
        .iter()
        .map(|(_, value)| Value::String(value.clone()))
        .collect();
    let misfits = probe::violations::<T>(&Value::Array(listed), Source::Text);
    if misfits.iter().any(|misfit| !misfit.is_root()) {
        return misfits
            .into_iter()
            .map(|misfit| misfit.named(params))
            .collect();
    }
    match params {
        [(name, value)] => probe::violations::<T>(&Value::String(value.clone()), Source::Text)
            .into_iter()
            .map(|misfit| misfit.under(name))
            .collect(),
        _ => Vec::new(),
    }
}

macro_rules! deref {
    ($name:ident) => {
        impl<T> Deref for $name<T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.0
            }
        }

        impl<T> DerefMut for $name<T> {
            fn deref_mut(&mut self) -> &mut T {
                &mut self.0
            }
        }
    };
}

deref!(Query);
deref!(Path);
