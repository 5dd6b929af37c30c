//! A payment service built on mainstay, and the drill that hurts it.
//!
//! `serve` runs the service; `drill` starts it as a child process behind a bad network, kills it over and over,
//! and then audits what became of every payment. Copy the first, learn from the second.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program speaks to the person who started it"
)]
#![expect(
    unreachable_pub,
    reason = "in a program, `pub` marks what a module offers its neighbours"
)]

mod api;
mod app;
mod auth;
mod clock;
mod config;
mod drill;
mod payment;
mod store;
mod telemetry;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    version,
    about = "A payment service built on mainstay, and the drill that hurts it"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service. Everything is configured by the environment; see the README.
    Serve,
    /// Run the service as a child, hurt it for a while, and audit what is left.
    Drill(drill::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve => app::serve().await,
        Command::Drill(options) => drill::run(options).await,
    };
    outcome.unwrap_or_else(|error| {
        // One line a person can act on: the chain of causes, joined.
        let mut line = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !line.contains(&text) {
                line = format!("{line}: {text}");
            }
            cause = error.source();
        }
        eprintln!("payments: {}", line.replace('\n', " "));
        ExitCode::FAILURE
    })
}
