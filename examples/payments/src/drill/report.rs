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
}

/// Prints the report to standard output.
pub fn print(report: &Report<'_>) {
    let verdict = report.verdict;
    let attempts = report.fleet.attempts();
    let both = |of: fn(&Faults) -> &AtomicU64| {
        of(report.upstream).load(Ordering::Relaxed) + of(report.downstream).load(Ordering::Relaxed)
    };
    let duplicates = |faults: &Faults| faults.requests_duplicated.load(Ordering::Relaxed);

    println!("\ndrill of {} s, seed {}", report.seconds, report.seed);
    section("asked");
    row("logical calls", report.fleet.calls());
    row("HTTP attempts", attempts);
    row(
        "duplicates sent",
        duplicates(report.upstream) + duplicates(report.downstream),
    );
    row("answers replayed", report.fleet.replayed());
    section("done to it");
    row("requests dropped", both(|faults| &faults.requests_dropped));
    row(
        "requests duplicated",
        both(|faults| &faults.requests_duplicated),
    );
    row(
        "requests truncated",
        both(|faults| &faults.requests_truncated),
    );
    row("answers dropped", both(|faults| &faults.answers_dropped));
    row(
        "answers duplicated",
        both(|faults| &faults.answers_duplicated),
    );
    row(
        "answers truncated",
        both(|faults| &faults.answers_truncated),
    );
    row("messages delayed", both(|faults| &faults.delayed));
    row("connections refused", both(|faults| &faults.refused));
    row("kills (SIGKILL)", report.kills);
    section("came of it");
    row("payments stored", report.payments);
    row("events delivered", report.deliveries);
    row("effects applied", report.effects);
    section("audit");
    found(
        "lost",
        verdict.lost(),
        &[
            (verdict.payments_lost, "acknowledged payments are not there"),
            (
                verdict.settlements_lost,
                "acknowledged settlements are not there",
            ),
            (verdict.effects_lost, "events were never applied"),
        ],
    );
    found(
        "double",
        verdict.double(),
        &[
            (
                verdict.payments_double,
                "payments exist again under the same reference",
            ),
            (
                verdict.payments_untold,
                "payments exist that were refused or never asked for",
            ),
            (verdict.effects_double, "events were applied again"),
        ],
    );
    found(
        "out of order",
        verdict.out_of_order + verdict.listing_wrong,
        &[
            (
                verdict.out_of_order,
                "payments were settled downstream before they were created",
            ),
            (verdict.listing_wrong, "rows appeared on two pages"),
        ],
    );
    found(
        "unresolved",
        verdict.unresolved,
        &[(verdict.unresolved, "calls never heard what came of them")],
    );
    if !report.stopped_cleanly {
        println!("  the service did not end cleanly when asked to");
    }
    let clean = verdict.is_clean() && report.stopped_cleanly;
    println!(
        "\n{}",
        if clean {
            "clean: every acknowledged payment took effect exactly once"
        } else {
            "NOT CLEAN"
        }
    );
}

fn section(name: &str) {
    println!("\n{name}");
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("  {name:<22}{value:>9}");
}

fn found(name: &str, total: usize, details: &[(usize, &str)]) {
    row(name, total);
    for (count, what) in details.iter().filter(|(count, _)| *count > 0) {
        println!("      {count} {what}");
    }
}
