//! Other people's queues and outboxes, each as its documentation or its own bench sets it up to be fast.

pub mod apalis;
pub mod graphile;
pub mod outbox_postgres;
pub mod sqlxmq;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use sqlx08::migrate::Migrator;
use sqlx08::postgres::PgPoolOptions;

use super::Arrived;

/// Where handlers that take no state say that a message has come: one race runs at a time.
static NOW: Mutex<Option<Arrived>> = Mutex::new(None);

fn count_for(arrived: Arrived) {
    *NOW.lock().unwrap() = Some(arrived);
}

fn one_came() {
    if let Some(arrived) = &*NOW.lock().unwrap() {
        arrived.add(1);
    }
}

pub async fn pool(url: &str, connections: u32) -> sqlx08::PgPool {
    let options = PgPoolOptions::new()
        .max_connections(connections)
        .test_before_acquire(false);
    options.connect(url).await.unwrap()
}

/// Some publish their tables as migrations in their source, for users to copy: they are run from where cargo has put it.
pub async fn migrate(pool: &sqlx08::PgPool, package: &str) {
    let folder = source(package).join("migrations");
    let migrator = Migrator::new(folder).await.unwrap();
    migrator.run(pool).await.unwrap();
}

fn source(package: &str) -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--manifest-path",
            manifest,
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let found = packages
        .iter()
        .find(|found| found["name"] == package)
        .unwrap();
    let mut path = PathBuf::from(found["manifest_path"].as_str().unwrap());
    path.pop();
    path
}
