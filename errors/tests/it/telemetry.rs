//! What a failure leaves in traces, logs and metrics.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get as on_get;
use http::StatusCode;
use mainstay_errors::{
    Category, Error, Fault, LogPolicy, Path, Problem, ProblemLayer, Violation, Violations,
};
use opentelemetry::trace::{Status, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tower::ServiceExt;
use tracing::field::{Empty, Field, Visit};
use tracing::{Event, Instrument, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use crate::answer::get;

#[derive(Debug, thiserror::Error, Fault)]
enum LedgerError {
    #[error("no such entry")]
    #[fault(not_found)]
    EntryUnknown,
    #[error("dsn=hunter2")]
    #[fault(unavailable)]
    LedgerDown(#[source] std::io::Error),
}

async fn read_ledger() -> Result<(), Error> {
    let read = async {
        let source = std::io::Error::other("hunter2");
        Err::<(), _>(Error::from(LedgerError::LedgerDown(source)))
    };
    read.instrument(tracing::info_span!("read_ledger")).await?;
    Ok(())
}

fn inner() -> Router {
    Router::new()
        .route("/ok", on_get(|| async {}))
        .route("/404", on_get(|| async { LedgerError::EntryUnknown }))
        .route("/500", on_get(|| async { Error::internal("hunter2") }))
        .route("/503", on_get(read_ledger))
        .route(
            "/422",
            on_get(|| async { Violations::from(Violation::body("/a", "bad")) }),
        )
        .route("/504", on_get(|| async { StatusCode::REQUEST_TIMEOUT }))
        .route(
            "/panic",
            on_get(|| async {
                if true {
                    panic!("hunter2")
                }
            }),
        )
}

/// As a tracing middleware does it, with the fields that `LogPolicy` asks for.
async fn traced(request: Request, next: Next) -> Response {
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        error.type = Empty,
        otel.status_code = Empty,
    );
    next.run(request).instrument(span).await
}

fn app(policy: LogPolicy) -> Router {
    inner()
        .layer(ProblemLayer::default().log(policy))
        .layer(middleware::from_fn(traced))
}

/// Every level, so that the line of a 404 is written too.
fn loud() -> LogPolicy {
    let policy = LogPolicy::default().unlimited();
    Category::ALL.into_iter().fold(policy, |policy, category| {
        policy.level(category, category.level().min(Level::INFO))
    })
}

/// The spans of one request, by the real exporter.
async fn spans(path: &str) -> Vec<SpanData> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let listening = tracing::subscriber::set_default(Registry::default().with(layer));
    get(&app(loud()), path).await;
    drop(listening);
    provider.force_flush().unwrap();
    exporter.get_finished_spans().unwrap()
}

async fn request_span(path: &str) -> SpanData {
    let spans = spans(path).await;
    let mut spans = spans.into_iter().filter(|span| span.name == "request");
    let span = spans.next().unwrap_or_else(|| panic!("no span of {path}"));
    assert!(spans.next().is_none());
    span
}

fn error_type(span: &SpanData) -> Option<String> {
    let mut attributes = span.attributes.iter();
    let found = attributes.find(|attribute| attribute.key.as_str() == "error.type");
    found.map(|attribute| attribute.value.to_string())
}

#[tokio::test]
async fn a_4xx_leaves_the_status_of_the_span_unset() {
    for (path, code) in [
        ("/404", "entry_unknown"),
        ("/422", "validation_failed"),
        ("/nowhere", "not_found"),
    ] {
        let span = request_span(path).await;
        assert_eq!(span.status, Status::Unset, "{path}");
        assert_eq!(error_type(&span).as_deref(), Some(code), "{path}");
        assert_eq!(
            span.events.len(),
            1,
            "the line was written, and did not change that: {path}"
        );
    }
}

#[tokio::test]
async fn a_5xx_makes_the_span_an_error_and_describes_nothing() {
    for (path, code) in [
        ("/500", "internal"),
        ("/503", "ledger_down"),
        ("/504", "timeout"),
        ("/panic", "internal"),
    ] {
        let span = request_span(path).await;
        assert_eq!(span.status, Status::error(""), "{path}");
        assert_eq!(error_type(&span).as_deref(), Some(code), "{path}");
    }
}

#[tokio::test]
async fn a_success_says_nothing_of_errors() {
    let span = request_span("/ok").await;
    assert_eq!(
        (span.status.clone(), error_type(&span)),
        (Status::Unset, None)
    );
}

#[tokio::test]
async fn the_line_is_an_event_of_the_span_the_error_was_made_in() {
    let spans = spans("/503").await;
    let of = |name: &str| {
        let span = spans.iter().find(|span| span.name == name).unwrap();
        span.events
            .iter()
            .map(|event| event.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("read_ledger"), ["request failed"]);
    assert_eq!(of("request"), [""; 0]);
}

#[tokio::test]
async fn a_route_that_does_not_fit_its_handler_says_how_in_the_log_alone() {
    #[derive(serde::Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Line {
        order: u64,
        line: u64,
    }
    let lines = Lines::default();
    let _listening = lines.listen();
    let app = Router::new()
        .route("/struct/{order}", on_get(|_: Path<Line>| async {}))
        .route("/tuple/{order}", on_get(|_: Path<(u64, u64)>| async {}))
        .route("/none", on_get(|_: Path<u64>| async {}))
        .layer(ProblemLayer::default());
    for (path, how) in [
        ("/struct/7", "missing field `line`"),
        ("/tuple/7", "Expected 2 but got 1"),
        ("/none", "Expected 1 but got 0"),
    ] {
        let answer = get(&app, path).await;
        assert_eq!(answer.problem()["code"], "internal", "{path}");
        let (_, fields) = lines.take().remove(0);
        assert!(
            fields.contains(how) && fields.contains("from a path with the parameters ["),
            "{fields}"
        );
        assert!(!answer.body.contains("line") && !answer.body.contains("u64"));
    }
    let answer = get(&app, "/struct/seven").await;
    assert_eq!(
        answer.problem()["code"],
        "internal",
        "no client can mend that"
    );
}

/// What was logged: the span of the line, and its fields.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(String, String)>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        #[derive(Default)]
        struct Fields(String);
        impl Visit for Fields {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                self.0.push_str(&format!("{}={value:?} ", field.name()));
            }
        }
        if event.metadata().target() == "mainstay_errors" {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let span = context.event_span(event).map_or("", |span| span.name());
            self.0.lock().unwrap().push((span.to_owned(), fields.0));
        }
    }
}

impl Lines {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(Registry::default().with(self.clone()))
    }

    fn take(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[tokio::test]
async fn no_field_is_called_error() {
    let lines = Lines::default();
    let _listening = lines.listen();
    for path in ["/404", "/500", "/503", "/panic"] {
        get(&app(loud()), path).await;
    }
    let lines = lines.take();
    assert_eq!(lines.len(), 4);
    for (_, fields) in lines {
        assert!(fields.contains("error.type="), "{fields}");
        assert!(
            !fields.starts_with("error=") && !fields.contains(" error="),
            "{fields}"
        );
    }
}

#[tokio::test]
async fn an_error_made_outside_of_any_span_is_logged_in_that_of_its_answer() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let made = Arc::new(Mutex::new(Some(Error::internal("early"))));
    let fail = move || async move { made.lock().unwrap().take().unwrap() };
    let app = Router::new()
        .route("/", on_get(fail))
        .layer(ProblemLayer::default())
        .layer(middleware::from_fn(traced));
    get(&app, "/").await;
    assert_eq!(lines.take()[0].0, "request");
}

#[tokio::test]
async fn code_without_a_server_logs_by_the_same_policy() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let policy = LogPolicy::default().silence(Category::NotFound);
    let error = tracing::info_span!("consumer").in_scope(|| {
        Error::from(LedgerError::LedgerDown(std::io::Error::other("refused"))).context("settling")
    });
    policy.log_error(&error);
    policy.log_error(&LedgerError::EntryUnknown.into());
    let lines = lines.take();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].0, "consumer");
    assert!(
        lines[0].1.contains("settling: dsn=hunter2: refused"),
        "{}",
        lines[0].1
    );
}

#[tokio::test]
async fn the_lines_of_an_outage_are_counted_and_not_written() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let policy = LogPolicy::default().at_most(2, Duration::from_millis(20));
    // Clones share the count.
    let fail = |code: &'static str| {
        let problem = Problem::new(Category::Unavailable, code);
        policy.clone().log_error(&problem.into());
    };
    let mut written = Vec::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut asked = 0_u64;
    let mut found = None;
    while found.is_none() && tokio::time::Instant::now() < deadline {
        fail("down");
        asked += 1;
        written.extend(lines.take());
        found = written.iter().find_map(|(_, fields)| {
            let (_, rest) = fields.split_once("suppressed=")?;
            rest.split(' ').next()?.parse::<u64>().ok()
        });
    }
    let suppressed = found.expect("a line passes again");
    assert_eq!(
        suppressed + written.len() as u64,
        asked,
        "each is written or counted"
    );
    assert!(
        written
            .iter()
            .take(2)
            .all(|(_, fields)| !fields.contains("suppressed"))
    );
}

#[tokio::test]
async fn no_lines_and_no_period_are_read_as_documented() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let count = |policy: LogPolicy| {
        for _ in 0..50 {
            policy.log_error(&Error::internal("bug"));
        }
        lines.take().len()
    };
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(count(LogPolicy::default().at_most(0, day)), 1);
    assert_eq!(count(LogPolicy::default().at_most(3, day)), 3);
    assert_eq!(count(LogPolicy::default().at_most(3, Duration::ZERO)), 50);
    assert_eq!(count(LogPolicy::default().at_most(3, day).unlimited()), 50);
}

#[tokio::test]
async fn a_metrics_layer_outside_reads_the_same_error_type() {
    for (path, code) in [
        ("/404", Some("entry_unknown")),
        ("/500", Some("internal")),
        ("/nowhere", Some("not_found")),
        ("/panic", Some("internal")),
        ("/ok", None),
    ] {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = app(LogPolicy::default()).oneshot(request).await.unwrap();
        let problem = response.extensions().get::<Problem>();
        assert_eq!(problem.map(Problem::code), code, "{path}");
        assert_eq!(
            problem.map(Problem::status_code),
            code.map(|_| response.status())
        );
    }
}
