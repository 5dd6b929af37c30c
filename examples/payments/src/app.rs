//! The service put together: pool, migrations, relay, router, and an orderly end.

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use axum::{Router, extract::DefaultBodyLimit, middleware};
use mainstay::{
    errors::{ProblemLayer, Registry},
    idempotency::{
        self, IdempotencyError,
        webhook::{Verifier, WebhookError, Webhooks},
    },
    outbox::{self, ChannelSink, Outbox, OutboxConfig, Relay, RelayHandle, WebhookSink},
    pagination::{CursorCodec, KeyRing, PageError},
    retry::Backoff,
};
use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::{Pool, Postgres, Sqlite};
use tokio::{net::TcpListener, signal::unix::SignalKind};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api,
    auth::authenticate,
    config::{Config, Events},
    payment::PaymentError,
    store::Store,
    telemetry,
};

/// The largest request body, in bytes. A payment has a few hundred.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

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
    if config.webhook_secret.is_random() {
        println!(
            "webhook secret (random; PAYMENTS_WEBHOOK_SECRET is unset): {}",
            config.webhook_secret.get().expose()
        );
    }
    if config.tenants.are_default {
        tracing::warn!(
            "PAYMENTS_TENANTS is unset: the development tokens, which everybody knows, are in force"
        );
    }
    if config.cursor_key.is_random() {
        tracing::warn!("PAYMENTS_CURSOR_KEY is unset: page cursors end with this process");
    }

    let outbox = Outbox::<D>::new(OutboxConfig::default().source("/payments"));
    let relay = start_relay(&config, &pool, &outbox).await?;
    let tracker = TaskTracker::new();
    let app = Arc::new(App {
        cursors: CursorCodec::hmac_sha256(KeyRing::new(1, config.cursor_key.get())?)
            .ttl(CURSOR_TTL),
        webhooks: Webhooks::new(pool.clone())
            .tracker(tracker.clone())
            .on_commit(wake(&outbox)),
        provider: Verifier::new(config.webhook_secret.get().clone()),
        metrics: telemetry::start_metrics()?,
        pool,
        outbox,
    });
    let router = router(&app, config.tenants, &tracker)?;

    axum::serve(listener, router)
        .with_graceful_shutdown(asked_to_end())
        .await?;
    tracing::info!("draining");
    tracker.close();
    if tokio::time::timeout(config.drain, tracker.wait())
        .await
        .is_err()
    {
        tracing::warn!("transactions were still open when the time to drain was over");
    }
    let drained = relay.drain(config.drain).await;
    if drained.unsettled > 0 {
        tracing::warn!(
            unsettled = drained.unsettled,
            "events will be delivered again"
        );
    }
    app.pool.close().await;
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

fn router<D: Store>(
    app: &Shared<D>,
    tenants: crate::config::Tenants,
    tracker: &TaskTracker,
) -> Result<Router, BoxError> {
    let registry = Registry::new()
        .with::<PaymentError>()
        .with::<PageError>()
        .with::<IdempotencyError>()
        .with::<WebhookError>();
    // Authentication stands outside the idempotency layer, which stands outside the handlers.
    let payments = api::payments::routes::<D>(app, tracker).layer(middleware::from_fn_with_state(
        Arc::new(tenants),
        authenticate,
    ));
    let router = Router::new()
        .merge(payments)
        .merge(api::webhooks::routes::<D>())
        .merge(api::health::routes::<D>())
        .merge(api::openapi::routes())
        .with_state(Arc::clone(app))
        .merge(registry.pages("/problems"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(telemetry::observe))
        .layer(ProblemLayer::new(registry));
    Ok(router)
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
