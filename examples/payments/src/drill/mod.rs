//! The drill: run the service, hurt it, and audit what became of every payment.
//!
//! ```text
//!  fleet ──▶ bad network ──▶ service (child, SIGKILLed) ──▶ bad network ──▶ consumer
//!  keys, retry, budget,       idempotency, payment,          signed events    inbox, effects
//!  breaker, deadline          outbox: one commit
//! ```
//!
//! The audit asks the service for every payment, page by page, and compares the list with what the fleet was told
//! and with what the consumer applied. It trusts nobody's word: a payment that was acknowledged must be there once,
//! its events must have been applied once, in order.

mod audit;
mod consumer;
mod fleet;
mod network;
mod report;
mod service;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use mainstay::idempotency::webhook::Secret;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use self::{consumer::Consumer, fleet::Fleet, network::Network, service::Service};

/// How long, after the last fault, everything may take to settle down.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How often the bar moves and the next kill is thought of.
const TICK: Duration = Duration::from_millis(100);

/// What `payments drill` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// How long to hurt the service, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Where the service keeps its data (`postgres://…` or `sqlite://…`). Default: a fresh SQLite file.
    #[arg(long)]
    database_url: Option<String>,
    /// How many clients pay at the same time.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=200))]
    clients: u16,
    /// Draws the same faults again. Default: a new seed, which the report names.
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the data and the service's log of a run, and say where they are.
    #[arg(long)]
    keep: bool,
    /// Breaks a guarantee on purpose, to see that the audit can fail.
    #[arg(long, hide = true)]
    sabotage: Option<Sabotage>,
}

/// A guarantee, broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// The client makes a key for each attempt instead of one for each call.
    DoubleEffect,
    /// The consumer acknowledges some events that it has not applied.
    LoseEvent,
}

/// Why the drill could not be held. A failed audit is not an error: it is the drill's result.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct DrillError {
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl DrillError {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
        }
    }

    fn io(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        Self::because(what)
    }

    fn because<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        what: &'static str,
    ) -> impl Fn(E) -> Self {
        move |error| Self {
            what: format!("could not {what}"),
            source: Some(error.into()),
        }
    }
}

/// Holds a drill. Exit status 0 says that the audit was clean, 1 that it was not.
///
/// # Errors
/// When the drill itself could not be held.
pub async fn run(options: Options) -> Result<ExitCode, Box<dyn std::error::Error + Send + Sync>> {
    let seed = options.seed.unwrap_or_else(rand::random);
    let mut rng = StdRng::seed_from_u64(seed);
    let scene = Scene::new(&options)?;

    let events_secret = Secret::generate();
    let consumer = Consumer::start(
        &scene.folder,
        events_secret.clone(),
        scene.tenants.clone(),
        options.sabotage,
    )
    .await?;
    let (_always, consumer_address) = watch::channel(Some(consumer.address));
    let downstream = Network::start(consumer_address, rng.random())
        .await
        .map_err(DrillError::io("start the network"))?;

    let provider_secret = Secret::generate();
    let mut service = Service::new(
        scene.environment(&provider_secret, &events_secret, &downstream),
        scene.folder.join("service.log"),
    );
    service.start().await?;
    let upstream = Network::start(service.address(), rng.random())
        .await
        .map_err(DrillError::io("start the network"))?;

    let fleet = Arc::new(Fleet::new(
        upstream.address,
        scene.tenants.clone(),
        provider_secret,
        options.sabotage,
    )?);
    let paying = fleet.start(options.clients);

    hurt(
        &options,
        &mut rng,
        &mut service,
        &fleet,
        [&upstream, &downstream],
    )
    .await?;

    upstream.calm_down();
    downstream.calm_down();
    fleet.finish();
    let deadline = Instant::now() + SETTLE_MAX;
    paying.join(deadline).await;
    let payments = fleet.walk(deadline).await?;
    let ledger = fleet.ledger();
    let settled = ledger.iter().filter(|call| call.settled).count();
    let effects = consumer.quiet(payments.len() + settled, deadline).await?;
    let stopped_cleanly = service.stop().await?;

    let verdict = audit::audit(&ledger, &payments, &effects);
    // Books without an entry agree and prove nothing.
    let clean = verdict.is_clean() && stopped_cleanly && !payments.is_empty();
    report::print(&report::Report {
        seed,
        seconds: options.seconds,
        fleet: &fleet,
        upstream: &upstream.faults,
        downstream: &downstream.faults,
        kills: service.kills,
        deliveries: consumer.deliveries(),
        payments: payments.len(),
        effects: effects.len(),
        verdict: &verdict,
        stopped_cleanly,
        clean,
    });
    scene.leave(clean);
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Kills and restarts the service until the time is up, while a bar shows what is going on.
async fn hurt(
    options: &Options,
    rng: &mut StdRng,
    service: &mut Service,
    fleet: &Fleet,
    networks: [&Network; 2],
) -> Result<(), DrillError> {
    let began = Instant::now();
    let end = began + Duration::from_secs(options.seconds);
    let bar = ProgressBar::new(options.seconds);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bar:30} {pos:>3}/{len} s  {msg}") {
        bar.set_style(style);
    }
    let mut next_kill = began + Duration::from_millis(rng.random_range(1_000..2_500));
    while Instant::now() < end {
        sleep_until(end.min(Instant::now() + TICK)).await;
        if Instant::now() >= next_kill {
            service.kill().await?;
            // Down for a moment: calls meet a closed port, and the breaker has something to do.
            sleep(Duration::from_millis(rng.random_range(50..400))).await;
            service.start().await?;
            next_kill = Instant::now() + Duration::from_millis(rng.random_range(1_500..3_500));
        }
        let faults: u64 = networks.iter().map(|network| network.faults.total()).sum();
        bar.set_position(began.elapsed().as_secs());
        bar.set_message(format!(
            "{} payments asked for, {faults} faults, {} kills",
            fleet.calls(),
            service.kills
        ));
    }
    bar.finish_and_clear();
    Ok(())
}

/// The folder, the tenants and the database of one drill.
struct Scene {
    folder: PathBuf,
    keep: bool,
    database_url: String,
    tenants: Vec<fleet::Tenant>,
}

impl Scene {
    fn new(options: &Options) -> Result<Self, DrillError> {
        let run: u32 = rand::random();
        let folder = std::env::temp_dir().join(format!("mainstay-drill-{run:08x}"));
        std::fs::create_dir_all(&folder).map_err(DrillError::io("make a folder for the drill"))?;
        let database_url = options
            .database_url
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", folder.join("payments.db").display()));
        // Tenants of this run only: a database that has seen other runs does not disturb the audit.
        let tenants = (0..3)
            .map(|n| fleet::Tenant {
                name: format!("drill-{run:08x}-{n}"),
                token: format!("token-{:032x}", rand::random::<u128>()),
            })
            .collect();
        Ok(Self {
            folder,
            keep: options.keep,
            database_url,
            tenants,
        })
    }

    fn environment(
        &self,
        provider: &Secret,
        events: &Secret,
        downstream: &Network,
    ) -> Vec<(&'static str, String)> {
        let tenants: Vec<_> = self
            .tenants
            .iter()
            .map(|tenant| format!("{}={}", tenant.token, tenant.name))
            .collect();
        vec![
            ("PAYMENTS_ADDR", "127.0.0.1:0".to_owned()),
            ("DATABASE_URL", self.database_url.clone()),
            ("PAYMENTS_TENANTS", tenants.join(",")),
            ("PAYMENTS_WEBHOOK_SECRET", provider.expose()),
            (
                "PAYMENTS_CURSOR_KEY",
                format!("{:064x}", rand::random::<u128>()),
            ),
            (
                "PAYMENTS_EVENTS_URL",
                format!("http://{}/events", downstream.address),
            ),
            ("PAYMENTS_EVENTS_SECRET", events.expose()),
            ("PAYMENTS_EVENTS_ALLOW_PRIVATE", "1".to_owned()),
            // The child dies every few seconds: its successor must not wait longer than that for its lanes.
            ("PAYMENTS_OUTBOX_LEASE_SECONDS", "1".to_owned()),
        ]
    }

    fn leave(&self, clean: bool) {
        if self.keep || !clean {
            println!(
                "data and the service's log are kept in {}",
                self.folder.display()
            );
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
