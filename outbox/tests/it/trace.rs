//! Traces: what an event keeps of the span it was enqueued in, and what the span that publishes it says.

use std::time::Duration;

use mainstay_outbox::{Event, MemorySink, Message};
use opentelemetry::trace::{SpanId, TraceId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use tracing_subscriber::{Registry, layer::SubscriberExt};

use crate::support::{outbox, put, quick, sqlite};

const SOON: Duration = Duration::from_secs(10);
const OWN: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";

fn header(trace: TraceId, span: SpanId) -> String {
    format!("00-{trace}-{span}-01")
}

fn context(message: &Message) -> &str {
    message.header("traceparent").unwrap()
}

#[tokio::test]
async fn the_span_that_publishes_links_to_those_that_enqueued() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    // With one subscriber in the process, tracing asks that of whichever thread comes first whether anybody wants a span;
    // with two it asks both, and other tests that publish meanwhile do not answer for this one.
    let _other = tracing::Dispatch::new(Registry::default());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let listening = tracing::subscriber::set_default(Registry::default().with(layer));

    let database = sqlite().await;
    let outbox = outbox(&database.pool, 1).await;
    put(&database.pool, &outbox, vec![Event::new("of nobody")]).await;
    let events = vec![
        Event::new("of the span"),
        Event::new("of the span"),
        Event::new("of its own").trace_context(OWN, Some("a=1")),
    ];
    put(&database.pool, &outbox, events)
        .instrument(tracing::info_span!("request"))
        .await;
    let sink = MemorySink::new();
    let relay = quick(&database.pool, &outbox).sink("*", sink.clone());
    let relay = relay.build().await.unwrap().spawn(CancellationToken::new());
    let messages = timeout(SOON, sink.wait_for(4)).await.unwrap();
    assert_eq!(relay.drain(SOON).await.unsettled, 0);
    drop(listening);
    provider.force_flush().unwrap();
    let spans = exporter.get_finished_spans().unwrap();
    let named =
        |name: &str| -> Vec<&SpanData> { spans.iter().filter(|span| span.name == name).collect() };

    let [request] = named("request")[..] else {
        panic!("one request");
    };
    let expected = header(
        request.span_context.trace_id(),
        request.span_context.span_id(),
    );
    assert_eq!(messages[0].header("traceparent"), None);
    assert_eq!(context(&messages[1]), expected);
    assert_eq!(context(&messages[2]), expected);
    assert_eq!(context(&messages[3]), OWN);
    assert_eq!(messages[3].header("tracestate"), Some("a=1"));

    let [publish] = named("publish")[..] else {
        let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
        panic!("one batch: {names:?}");
    };
    let links: Vec<String> = publish
        .links
        .iter()
        .map(|link| header(link.span_context.trace_id(), link.span_context.span_id()))
        .collect();
    assert_eq!(links, [expected, OWN.to_owned()], "each origin once");
    assert_eq!(
        publish.parent_span_id,
        SpanId::INVALID,
        "linked, not parented"
    );
    assert_ne!(
        publish.span_context.trace_id(),
        request.span_context.trace_id()
    );
}
