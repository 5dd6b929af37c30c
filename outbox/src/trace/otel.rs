//! Trace contexts from and to OpenTelemetry.

use std::collections::HashSet;

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{Parent, TRACEPARENT};
use crate::message::Message;

/// What SDKs keep of a span's links unless they are told otherwise.
const LINKS_MAX: usize = 128;

/// Of `tracing`'s span if there is one, else of OpenTelemetry's own.
pub(super) fn current() -> Option<(String, String)> {
    let of = |context: &Context| context.span().span_context().clone();
    let traced = of(&Span::current().context());
    let span = if traced.is_valid() {
        traced
    } else {
        of(&Context::current())
    };
    span.is_valid().then(|| {
        let (trace, id) = (span.trace_id(), span.span_id());
        let sampled = u8::from(span.is_sampled());
        let parent = format!("00-{trace}-{id}-{sampled:02x}");
        (parent, span.trace_state().header())
    })
}

/// Messages of one transaction mostly share their origin, which is linked once.
pub(super) fn link(span: &Span, messages: &[Message]) {
    if span.is_disabled() {
        return;
    }
    let mut linked = HashSet::new();
    for message in messages {
        let Some(parent) = message.header(TRACEPARENT).and_then(Parent::parse) else {
            continue;
        };
        if linked.len() < LINKS_MAX && linked.insert(parent) {
            span.add_link(SpanContext::new(
                TraceId::from_bytes(parent.trace_id.to_be_bytes()),
                SpanId::from_bytes(parent.span_id.to_be_bytes()),
                TraceFlags::new(parent.flags),
                true,
                TraceState::NONE,
            ));
        }
    }
}
