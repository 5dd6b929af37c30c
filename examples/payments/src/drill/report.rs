//! The report: what was asked, what was done to it, and what the audit found, as a table.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{audit::Verdict, fleet::Fleet, network::Faults};

/// Everything that a report tells.
#[derive(Debug)]
pub struct Report<'a> {
    /// Draws the same faults again.
    pub seed: u64,
    /// How long it hurt.
    pub seconds: u64,
    /// Who asked.
    pub fleet: &'a Fleet,
    /// What happened between the fleet and the service.
    pub upstream: &'a Faults,
    /// What happened between the service and the consumer.
    pub downstream: &'a Faults,
    /// How often the service was killed.
    pub kills: u64,
    /// Events that reached the consumer, repeated ones included.
    pub deliveries: u64,
    /// Payments that the service lists.
    pub payments: usize,
    /// Events that the consumer applied.
    pub effects: usize,
    /// What the audit found.
    pub verdict: &'a Verdict,
    /// The service ended in time when it was asked to.
    pub stopped_cleanly: bool,
    /// All in all.
    pub clean: bool,
}

/// Prints the report to standard output.
pub fn print(report: &Report<'_>) {
    println!("\ndrill of {} s, seed {}", report.seconds, report.seed);
    section("asked");
    row("logical calls", report.fleet.calls());
    row("HTTP attempts", report.fleet.attempts());
    row("duplicates sent", duplicates(report));
    row("answers replayed", report.fleet.replayed());
    section("done to it");
    for ((kind, up), (_, down)) in report
        .upstream
        .by_kind()
        .into_iter()
        .zip(report.downstream.by_kind())
    {
        row(kind, up + down);
    }
    row(
        "connections refused",
        loaded(&report.upstream.refused) + loaded(&report.downstream.refused),
    );
    row("kills (SIGKILL)", report.kills);
    section("came of it");
    row("payments stored", report.payments);
    row("events delivered", report.deliveries);
    row("effects applied", report.effects);
    section("audit");
    for (name, findings) in report.verdict.findings() {
        row(name, findings.iter().map(|(count, _)| count).sum::<usize>());
        for (count, what) in findings.iter().filter(|(count, _)| *count > 0) {
            println!("      {count} {what}");
        }
    }
    if !report.stopped_cleanly {
        println!("  the service did not end cleanly when asked to");
    }
    if report.payments == 0 {
        println!("  nothing was paid: this drill proves nothing");
    }
    let conclusion = if report.clean {
        "clean: every acknowledged payment took effect exactly once"
    } else {
        "NOT CLEAN"
    };
    println!("\n{conclusion}");
}

/// Requests that said again what had been said: by the client stack, by its caller, and by the network in both links.
fn duplicates(report: &Report<'_>) -> u64 {
    let said_once = report.fleet.calls() + report.fleet.notices();
    let again = report.fleet.attempts().saturating_sub(said_once);
    again
        + loaded(&report.upstream.requests_duplicated)
        + loaded(&report.downstream.requests_duplicated)
}

fn loaded(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn section(name: &str) {
    println!("\n{name}");
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("  {name:<22}{value:>9}");
}
