//! The consumer: takes events over the bad network, verifies them, and applies each once, by an inbox in its own database.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use mainstay::{
    errors::Error,
    idempotency::{
        self,
        webhook::{Received, Secret, Verifier, Webhooks},
    },
    outbox::sink::cloudevents::{self, Binding, STRUCTURED},
};
use serde::Deserialize;
use sqlx::{Sqlite, SqlitePool};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{DrillError, Sabotage, audit::Effect, fleet::Tenant};
use crate::{clock, store::Store};

/// A consumer at work.
pub struct Consumer {
    /// Where it takes events, at `/events`.
    pub address: SocketAddr,
    state: Arc<Inner>,
}

struct Inner {
    pool: SqlitePool,
    webhooks: Webhooks<Sqlite>,
    verifier: Verifier,
    tenants: Vec<Tenant>,
    deliveries: AtomicU64,
    sabotage: Option<Sabotage>,
}

#[derive(Deserialize)]
struct Event {
    id: Uuid,
}

impl Consumer {
    /// Starts the consumer with a database of its own in `folder`.
    ///
    /// # Errors
    /// When its database or its port cannot be had.
    pub async fn start(
        folder: &Path,
        secret: Secret,
        tenants: Vec<Tenant>,
        sabotage: Option<Sabotage>,
    ) -> Result<Self, DrillError> {
        let url = format!("sqlite://{}", folder.join("consumer.db").display());
        let pool = <Sqlite as Store>::connect(&url)
            .await
            .map_err(DrillError::because("open the consumer's database"))?;
        idempotency::migrate(&pool)
            .await
            .map_err(DrillError::because("migrate the consumer's inbox"))?;
        // No unique constraint: one would hide the double effects that the audit looks for.
        sqlx::query("CREATE TABLE effects (seq INTEGER PRIMARY KEY AUTOINCREMENT, payment BLOB NOT NULL, kind TEXT NOT NULL)")
            .execute(&pool)
            .await
            .map_err(DrillError::because("make the consumer's table"))?;
        let state = Arc::new(Inner {
            webhooks: Webhooks::new(pool.clone()),
            pool,
            verifier: Verifier::new(secret),
            tenants,
            deliveries: AtomicU64::new(0),
            sabotage,
        });
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .map_err(DrillError::io("start the consumer"))?;
        let address = listener
            .local_addr()
            .map_err(DrillError::io("start the consumer"))?;
        let router = Router::new()
            .route("/events", post(take))
            .with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, state })
    }

    /// Deliveries so far, repeated ones included.
    pub fn deliveries(&self) -> u64 {
        self.state.deliveries.load(Ordering::Relaxed)
    }

    /// Waits until `expected` effects have arrived, or until nothing has come for a while, and returns them.
    ///
    /// # Errors
    /// When the consumer's database cannot be read.
    pub async fn quiet(
        &self,
        expected: usize,
        deadline: Instant,
    ) -> Result<Vec<Effect>, DrillError> {
        let mut seen = 0;
        let mut last_news = Instant::now();
        loop {
            let effects = self
                .effects()
                .await
                .map_err(DrillError::because("read the consumer's effects"))?;
            if effects.len() != seen {
                seen = effects.len();
                last_news = Instant::now();
            }
            let now = Instant::now();
            // Complete is not the end: a repeated delivery may still do harm, so it must also be quiet.
            let patience = if seen >= expected {
                Duration::from_millis(500)
            } else {
                Duration::from_secs(15)
            };
            if now >= deadline || now.duration_since(last_news) >= patience {
                return Ok(effects);
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn effects(&self) -> sqlx::Result<Vec<Effect>> {
        let rows: Vec<(Uuid, String)> =
            sqlx::query_as("SELECT payment, kind FROM effects ORDER BY seq")
                .fetch_all(&self.state.pool)
                .await?;
        Ok(rows
            .into_iter()
            .map(|(payment, kind)| Effect { payment, kind })
            .collect())
    }
}

/// Takes one delivery: verify, look whether it is known, apply, all in one transaction.
async fn take(State(consumer): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let now = clock::now();
    let delivery = match consumer.verifier.verify(&headers, body.clone(), now) {
        Ok(delivery) => delivery,
        Err(error) => return Error::from(error).into_response(),
    };
    // From the body alone, which is what was signed: no header can make another event of it.
    let none: [(&str, &str); 0] = [];
    let event = cloudevents::Received::read(
        Binding::Http,
        Some(STRUCTURED),
        none,
        delivery.body,
        "events",
    );
    let Ok(event) = event else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let tenant = event.header("tenant");
    if !consumer
        .tenants
        .iter()
        .any(|known| Some(known.name.as_str()) == tenant)
    {
        // What another run has left behind in this database is none of this run's business.
        return StatusCode::NO_CONTENT.into_response();
    }
    consumer.deliveries.fetch_add(1, Ordering::Relaxed);
    if consumer.sabotage == Some(Sabotage::LoseEvent) && rand::random_ratio(1, 20) {
        return StatusCode::NO_CONTENT.into_response();
    }
    let received = consumer
        .webhooks
        .receive(
            &consumer.verifier,
            "payments",
            &headers,
            body,
            now,
            move |mut tx, _| async move {
                let paid: Event =
                    serde_json::from_slice(event.payload()).map_err(Error::internal)?;
                sqlx::query("INSERT INTO effects (payment, kind) VALUES (?1, ?2)")
                    .bind(paid.id)
                    .bind(event.event_type())
                    .execute(&mut **tx)
                    .await
                    .map_err(Error::internal)?;
                Ok::<_, Error>(())
            },
        )
        .await;
    match received {
        Ok(Received::First(()) | Received::Duplicate) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}
