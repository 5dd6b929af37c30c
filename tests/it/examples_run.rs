//! Each one-file example does what its first lines say: it ends by itself, well, and prints what it is there to show.

use std::{env::consts::EXE_SUFFIX, path::PathBuf, process::Stdio, time::Duration};

/// The example's program. Cargo tells tests where binaries are, but not examples: this test is `…/deps/it-…`, and they
/// are in `…/examples`.
fn binary(example: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let folder = this.ancestors().nth(2).unwrap().join("examples");
    let program = folder.join(format!("{example}{EXE_SUFFIX}"));
    assert!(
        program.exists(),
        "{} is missing. `cargo test` builds examples before it runs tests, but not when other targets are chosen \
         (`--test it`): run `cargo build -p mainstay --examples` first",
        program.display()
    );
    program
}

/// What the example prints. They take well under a second; the limit is for one that hangs.
async fn run(example: &str) -> String {
    run_with(example, &[]).await
}

/// The same with arguments.
async fn run_with(example: &str, arguments: &[&str]) -> String {
    let process = tokio::process::Command::new(binary(example))
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(30), process)
        .await
        .expect("the example does not end")
        .expect("the example does not start");
    let printed = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{printed}\n{complaint}",
        output.status
    );
    printed
}

/// That these lines are among those printed, in this order.
#[track_caller]
fn assert_lines(printed: &str, lines: &[&str]) {
    let mut rest = printed.lines();
    for line in lines {
        assert!(
            rest.any(|printed| printed == *line),
            "{line:?} is missing (or out of order) in:\n{printed}"
        );
    }
}

/// What the first lines of an example say that it prints, for one that prints the same each time.
fn promised(source: &str) -> String {
    source
        .lines()
        .skip_while(|line| !line.starts_with("//! It prints"))
        .skip_while(|line| *line != "//! ```text")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect()
}

#[tokio::test]
async fn error_envelope_prints_what_it_says_and_leaks_nothing() {
    let printed = run("error_envelope").await;
    assert_eq!(
        printed,
        promised(include_str!("../../examples/error_envelope.rs"))
    );
    assert!(!printed.contains("10.0.0.7") && !printed.contains("password"));
}

#[tokio::test]
async fn resilient_client_rides_out_an_outage_and_says_what_that_saved() {
    let printed = run("resilient_client").await;
    // Not on a terminal it runs on virtual time, with seeds: no line depends on the machine.
    assert_lines(
        &printed,
        &[
            "0.40 s | server is well | budget 4 | attempts 20, saved  0 | breaker closed",
            "0.72 s | breaker closed -> open",
            "0.80 s | server fails   | budget 0 | attempts 40, saved 14 | breaker open, probe in 120ms",
            "0.92 s | breaker open -> half_open",
            "0.92 s | breaker half_open -> open",
            "1.32 s | breaker open -> half_open",
            "1.32 s | breaker half_open -> closed",
            "1.80 s | server is well | budget 4 | attempts 66, saved 94 | breaker closed",
            "saved:                94 attempts",
        ],
    );
    let source = include_str!("../../examples/resilient_client.rs");
    for line in printed.lines().filter(|line| !line.is_empty()) {
        assert!(
            source.contains(&format!("//! {line}\n")),
            "its first lines do not show {line:?}"
        );
    }
}

#[tokio::test]
async fn cursor_pages_go_to_the_end_and_back_and_refuse_a_tampered_cursor() {
    // A million rows take too long for a test.
    let printed = run_with("cursor_pages", &["20000"]).await;
    assert_lines(
        &printed,
        &[
            "there: 4 pages, 20000 rows; and back: 4 pages, 20000 rows",
            "each row once, in order: true",
            "# the SQL of a page in the middle: Ranges(2)",
            "the page before the middle is the same: true",
            "cursor_bad_signature: the cursor's signature does not match",
            "cursor_wrong_query: the cursor belongs to another list, filter or order",
        ],
    );
}

#[tokio::test]
async fn idempotent_orders_replays_and_refuses_by_the_key() {
    let printed = run("idempotent_orders").await;
    assert_lines(
        &printed,
        &[
            "key a, umbrella: 201 order 1: umbrella",
            "key a, umbrella: 201 order 1: umbrella (idempotent-replayed: true)",
            "orders: 1",
            "key a, raincoat: 422 idempotency_key_reused, retry: never",
            "key b, piano: 409 idempotency_key_in_flight, retry: after (retry-after: 1)",
            "orders: 3",
        ],
    );
}

#[tokio::test]
async fn idempotent_payment_happens_once_whatever_is_lost_repeated_or_killed() {
    let printed = run("idempotent_payment").await;
    let promised = promised(include_str!("../../examples/idempotent_payment.rs"));
    // How long the takeover took is another time each run.
    let without_time = |text: &str| {
        let lines = text.lines().filter(|line| !line.contains(" ms; "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_time(&printed), without_time(&promised));
}

#[tokio::test]
async fn idempotent_remote_goes_on_behind_what_is_done_and_charges_once() {
    assert_eq!(
        run("idempotent_remote").await,
        promised(include_str!("../../examples/idempotent_remote.rs"))
    );
}

#[tokio::test]
async fn outbox_relay_keeps_the_order_of_a_key_and_applies_each_event_once() {
    let printed = run("outbox_relay").await;
    assert_lines(
        &printed,
        &[
            "four events enqueued, one of them rolled back; pending: 3",
            "order-1 order.placed, attempt 1: the mail server is away, later",
            "order-1 order.placed, attempt 2: First, acknowledged",
            "order-1 order.paid, attempt 1: First, acknowledged",
            "three invoices enqueued while it is down; pending: 3, the first is at attempt 1",
            "it is back, and took: invoice-1, invoice-3",
            "invoice-2 was given up after 1 attempt: no such customer",
            "the customer exists now, redriven: 1; the broker took: invoice-2",
            "unsettled: 0, pending: 0, dead: 0",
        ],
    );
    assert_lines(
        &printed,
        &[
            "order-2 order.placed, attempt 1: First, acknowledgement lost",
            "order-2 order.placed, attempt 2: Duplicate, acknowledged",
        ],
    );
}

#[tokio::test]
#[ignore = "needs a server and the feature sink-nats; tests/run brings both"]
async fn broker_consumer_applies_what_went_through_nats_once() {
    let url = std::env::var("MAINSTAY_TEST_NATS_URL").expect("MAINSTAY_TEST_NATS_URL must be set");
    let printed = run_with("broker_consumer", &[&url]).await;
    assert_lines(
        &printed,
        &[
            "three events committed with their orders, and published: 3",
            "order-1 order.placed, attempt 1: First, acknowledgement lost",
            "order-1 order.placed, attempt 2: Duplicate",
            "order-1 order.paid, attempt 1: First",
            "acknowledged: 2, tried again: 1, dead letters: 1",
            "mails sent: order.placed, order.paid",
            "in the dead letters: order.refunded: no such order",
        ],
    );
    assert!(printed.contains("order-2 order.refunded, attempt 1: no such order, given up"));
}
