//! W3C trace context: which texts are one, where it is taken from and what becomes of it.
//!
//! An event keeps the context that it was enqueued in, in its headers `traceparent` and `tracestate`. What publishes it, be
//! it seconds or days later, is a trace of its own that *links* to that context: a batch has many origins and can have one
//! parent at most.

mod context;
#[cfg(all(feature = "opentelemetry", feature = "sqlx"))]
mod otel;

pub(crate) use self::context::{Parent, is_tracestate};

/// The headers' names, which every transport keeps.
pub(crate) const TRACEPARENT: &str = "traceparent";
pub(crate) const TRACESTATE: &str = "tracestate";

/// The context of the span that runs now, as the two headers: none without the feature `opentelemetry`.
#[cfg(feature = "sqlx")]
pub(crate) fn current() -> Option<(String, String)> {
    #[cfg(feature = "opentelemetry")]
    return otel::current();
    #[cfg(not(feature = "opentelemetry"))]
    return None;
}

/// The span of one call of a sink, linked to where its messages come from.
#[cfg(feature = "sqlx")]
pub(crate) fn publishing(messages: &[crate::message::Message]) -> tracing::Span {
    let span = tracing::info_span!(
        target: crate::TARGET,
        parent: None,
        "publish",
        otel.kind = "producer",
        messages = messages.len(),
    );
    #[cfg(feature = "opentelemetry")]
    otel::link(&span, messages);
    span
}
