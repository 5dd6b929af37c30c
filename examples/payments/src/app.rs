//! The service put together: pool, migrations, relay, router, and an orderly end.

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use axum::{Router, extract::DefaultBodyLimit, http::HeaderValue, middleware};
use mainstay::{
    errors::ProblemLayer,
    idempotency::{
        self, INBOX_RETENTION,
        webhook::{Verifier, Webhooks},
    },
    outbox::{
        self, Admin, ChannelSink, LagMonitor, Outbox, OutboxConfig, Relay, RelayHandle, WebhookSink,
    },
    pagination::{CursorCodec, KeyRing},
    retry::Backoff,
};
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::{Pool, Postgres, Sqlite};
use tokio::{
    net::TcpListener,
    signal::unix::SignalKind,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::{self, payments::KEY_RETENTION},
    auth::authenticate,
    config::{Config, Events, Tenants},
    store::Store,
    telemetry,
};

/// The largest request body, in bytes. A payment has a few hundred.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// What a caller without a known token is told to show (RFC 9110 §11.6.1).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"payments\"");
/// Rows deleted by one statement, so that locks are short.
const REAP_BATCH: u32 = 1000;
/// How often the old is looked for.
const REAP_PAUSE: Duration = Duration::from_secs(600);
/// How often it is looked how far the outbox is behind.
const LAG_EVERY: Duration = Duration::from_secs(5);
/// How long a page cursor may be used.
const CURSOR_TTL: Duration = Duration::from_secs(3 * 24 * 3600);

/// What every handler can reach.
#[derive(Debug)]
pub struct App<D: Store> {
    /// The one database.
    pub pool: Pool<D>,
    /// Events, enqueued in the transaction of what they tell.
    pub outbox: Outbox<D>,
    /// Signs and checks page cursors.
    pub cursors: CursorCodec,
    /// Takes the provider's notices, each once.
    pub webhooks: Webhooks<D>,
    /// Checks who sent them.
    pub provider: Verifier,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
}

/// The application as handlers get it.
pub type Shared<D> = Arc<App<D>>;

type BoxError = Box<dyn Error + Send + Sync>;

/// Runs the service until SIGTERM or Ctrl-C.
///
/// # Errors
/// When the configuration, the database or the port cannot be used.
pub async fn serve() -> Result<ExitCode, BoxError> {
    let config = Config::from_env()?;
    telemetry::start_logs();
    match config
        .database_url
        .split_once(':')
        .map(|(scheme, _)| scheme)
    {
        Some("sqlite") => run::<Sqlite>(config).await,
        Some("postgres" | "postgresql") => run::<Postgres>(config).await,
        _ => Err("DATABASE_URL must begin with sqlite: or postgres:".into()),
    }
}

async fn run<D: Store>(config: Config) -> Result<ExitCode, BoxError> {
    let pool = D::connect(&config.database_url)
        .await
        .map_err(|error| format!("cannot open the database: {error}"))?;
    D::migrate_payments(&pool).await?;
    idempotency::migrate(&pool).await?;
    outbox::migrate(&pool).await?;
    let listener = TcpListener::bind(config.addr)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", config.addr))?;
    println!("listening on http://{}", listener.local_addr()?);
    say_what_is_made_up(&config);

    // Before anything is counted.
    let metrics = telemetry::start_metrics()?;
    let monitor = CancellationToken::new();
    let watched = LagMonitor::new(Admin::new(pool.clone()))
        .every(LAG_EVERY)
        .spawn(monitor.clone());
    let outbox = Outbox::<D>::new(OutboxConfig::default().source("/payments"));
    let relay = start_relay(&config, &pool, &outbox).await?;
    let reaper = tokio::spawn(forget_the_old(pool.clone()));
    let tracker = TaskTracker::new();
    let cursor_keys = KeyRing::new(1, config.cursor_key.get())?;
    let app = Arc::new(App {
        cursors: CursorCodec::hmac_sha256(cursor_keys).ttl(CURSOR_TTL),
        webhooks: Webhooks::new(pool.clone())
            .tracker(tracker.clone())
            .on_commit(wake(&outbox)),
        provider: Verifier::new(config.webhook_secret.get().clone()),
        metrics,
        pool,
        outbox,
    });
    let router = router(&app, config.tenants, &tracker);

    serve_until_asked(listener, router, config.drain).await?;
    reaper.abort();
    monitor.cancel();
    watched.await?;
    tracker.close();
    if timeout(config.drain, tracker.wait()).await.is_err() {
        tracing::warn!("transactions were still open when the time to drain was over");
    }
    let drained = relay.drain(config.drain).await;
    if drained.unsettled > 0 {
        let unsettled = drained.unsettled;
        tracing::warn!(unsettled, "events will be delivered again");
    }
    app.pool.close().await;
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

fn say_what_is_made_up(config: &Config) {
    if config.webhook_secret.is_random() {
        let secret = config.webhook_secret.get().expose();
        println!("webhook secret (random; PAYMENTS_WEBHOOK_SECRET is unset): {secret}");
    }
    if config.tenants.are_default {
        tracing::warn!(
            "PAYMENTS_TENANTS is unset: the development tokens, which everybody knows, are in force"
        );
    }
    if config.cursor_key.is_random() {
        tracing::warn!("PAYMENTS_CURSOR_KEY is unset: page cursors end with this process");
    }
}

/// Serves until SIGTERM or Ctrl-C, then lets the requests in flight end, for at most `drain`.
async fn serve_until_asked(
    listener: TcpListener,
    router: Router,
    drain: Duration,
) -> std::io::Result<()> {
    let ending = CancellationToken::new();
    let server = axum::serve(listener, router).with_graceful_shutdown({
        let ending = ending.clone();
        async move {
            asked_to_end().await;
            tracing::info!("draining");
            ending.cancel();
        }
    });
    // A client that never finishes its request must not keep the process alive.
    let out_of_patience = async {
        ending.cancelled().await;
        sleep(drain).await;
    };
    tokio::select! {
        ended = server => ended,
        () = out_of_patience => {
            tracing::warn!("requests were still open when the time to drain was over");
            Ok(())
        }
    }
}

/// Deletes keys and inbox marks that are past their retention, a batch at a time.
async fn forget_the_old<D: Store>(pool: Pool<D>) {
    loop {
        let keys = idempotency::reap(&pool, KEY_RETENTION, REAP_BATCH).await;
        let marks = idempotency::reap_inbox(&pool, INBOX_RETENTION, REAP_BATCH).await;
        let full =
            |deleted: &Result<u64, _>| matches!(deleted, Ok(n) if *n >= u64::from(REAP_BATCH));
        for error in [keys.as_ref().err(), marks.as_ref().err()]
            .into_iter()
            .flatten()
        {
            tracing::warn!(%error, "could not delete what is past its retention; trying again later");
        }
        if !full(&keys) && !full(&marks) {
            sleep(REAP_PAUSE).await;
        }
    }
}

fn router<D: Store>(app: &Shared<D>, tenants: Tenants, tracker: &TaskTracker) -> Router {
    let registry = api::registry();
    // Authentication stands outside the idempotency layer, which stands outside the handlers.
    let payments = api::payments::routes::<D>(app, tracker).layer(middleware::from_fn_with_state(
        Arc::new(tenants),
        authenticate,
    ));
    Router::new()
        .merge(payments)
        .merge(api::webhooks::routes::<D>())
        .merge(api::health::routes::<D>())
        .merge(api::openapi::routes(&registry))
        .with_state(Arc::clone(app))
        .merge(registry.pages("/problems"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(ProblemLayer::new(registry).challenge(CHALLENGE))
        // Outside the problems: the span is there to be marked, and the count sees the answer that is sent.
        .layer(middleware::from_fn(telemetry::observe))
}

/// The relay: events leave for the consumer that the environment names, or for a log line when it names none.
async fn start_relay<D: Store>(
    config: &Config,
    pool: &Pool<D>,
    outbox: &Outbox<D>,
) -> Result<RelayHandle, BoxError> {
    let relay = Relay::builder(pool.clone())
        .wake(outbox.waker())
        .lease(config.outbox_lease)
        .retry(Backoff::full_jitter(
            Duration::from_millis(100),
            Duration::from_secs(60),
        ));
    let relay = match &config.events {
        Events::Webhook {
            url,
            secret,
            allow_private,
        } => {
            let sink = WebhookSink::builder(url)
                .secret(secret.expose().parse()?)
                .allow_private(*allow_private)
                .build()?;
            relay.sink("*", sink).build().await?
        }
        Events::InProcess => {
            let (sink, mut events) = ChannelSink::new(256);
            tokio::spawn(async move {
                while let Some(delivery) = events.recv().await {
                    let event = delivery.message();
                    tracing::info!(id = %event.id(), kind = event.event_type(), "event delivered in process");
                    delivery.ack();
                }
            });
            relay.sink("*", sink).build().await?
        }
    };
    Ok(relay.spawn(CancellationToken::new()))
}

/// Called after each commit: events that were just written need not wait for the next poll.
pub fn wake<D: Store>(outbox: &Outbox<D>) -> impl Fn() + Send + Sync + 'static {
    let waker = outbox.waker();
    move || waker.notify_after_commit()
}

async fn asked_to_end() {
    let Ok(mut terminate) = tokio::signal::unix::signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt;
    use mainstay::idempotency::webhook::Secret;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn the_codes_are_a_contract() {
        api::registry().assert_codes(concat!(env!("CARGO_MANIFEST_DIR"), "/codes.json"));
    }

    #[tokio::test]
    async fn a_service_without_its_database_says_that_it_is_not_ready_and_not_why() {
        let pool = sqlx::sqlite::SqlitePool::connect_lazy("sqlite::memory:").unwrap();
        pool.close().await;
        let app = Arc::new(App {
            cursors: CursorCodec::hmac_sha256(KeyRing::new(1, [7; 32]).unwrap()),
            webhooks: Webhooks::new(pool.clone()),
            provider: Verifier::new(Secret::generate()),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            outbox: Outbox::new(OutboxConfig::default()),
            pool,
        });
        let tenants = Tenants::parse("token=tenant", false).unwrap();
        let request = Request::get("/readyz").body(Body::empty()).unwrap();
        let answer = router(&app, tenants, &TaskTracker::new())
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(answer.status(), 503);
        let id = answer.headers()["x-request-id"].clone();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "/problems/database_unreachable",
                "title": "Database unreachable",
                "status": 503,
                "detail": "the database does not answer",
                "code": "database_unreachable",
                "retry": "backoff",
                "outcome": "not_applied",
                "request_id": id.to_str().unwrap(),
            })
        );
    }
}
