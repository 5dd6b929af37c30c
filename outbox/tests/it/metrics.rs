//! Gauges as a scraper sees them.

use std::time::Duration;

use mainstay_outbox::{Admin, Event, LagMonitor, MemorySink, OutboxDb};
use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::Pool;
use tokio_util::sync::CancellationToken;

use crate::support::{on_each, outbox, put, quick, until};

on_each!(gauges_follow_the_outbox);

async fn gauges_follow_the_outbox<Db: OutboxDb>(pool: Pool<Db>) {
    // The tests' runtime has one thread, so what is spawned finds the recorder too.
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let says = |line: &str| handle.render().lines().any(|one| one == line);

    let outbox = outbox(&pool, 2).await;
    put(&pool, &outbox, vec![Event::new("a"), Event::new("b")]).await;
    let cancel = CancellationToken::new();
    let monitor = LagMonitor::new(Admin::new(pool.clone()))
        .every(Duration::ZERO) // which is a second
        .spawn(cancel.clone());
    until("the backlog is seen", async || {
        says("mainstay_outbox_pending 2") && says("mainstay_outbox_health 2")
    })
    .await;
    let sink = MemorySink::new();
    let relay = quick(&pool, &outbox).sink("*", sink).build().await.unwrap();
    let relay = relay.spawn(CancellationToken::new());
    until("it is gone", async || {
        says("mainstay_outbox_pending 0") && says("mainstay_outbox_health 0")
    })
    .await;
    assert!(says("mainstay_outbox_enqueued 2") && says("mainstay_outbox_published 2"));
    assert!(says(r#"mainstay_outbox_lanes{verdict="idle"} 2"#));
    assert!(says("mainstay_outbox_lanes_held 2"));
    relay.drain(Duration::from_secs(5)).await;
    assert!(says("mainstay_outbox_lanes_held 0"));
    cancel.cancel();
    monitor.await.unwrap();
}
