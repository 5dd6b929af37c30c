//! `mainstay-outbox`: look after an outbox from the command line.
//!
//! ```text
//! export DATABASE_URL=postgres://ops@db/shop      # or sqlite://shop.db, mysql://..
//! mainstay-outbox lag                             # how far behind, as a whole; --by-topic
//! mainstay-outbox lanes                           # who has which lane, and what to think of it
//! mainstay-outbox peek --topic 'hooks.*' -n 5     # what waits, and why
//! mainstay-outbox dead --cause rejected           # what was given up
//! mainstay-outbox redrive --topic hooks.a --per-second 50
//! mainstay-outbox pause 'hooks.*'
//! mainstay-outbox verify                          # what should not be
//! ```
//!
//! An outbox in a schema of its own on Postgres: `postgres://ops@db/shop?options=-csearch_path=billing`.
//!
//! Exit codes: 0 done; 1 the database or the outbox failed; 2 the command line is wrong; 3 `verify` or `health` found
//! something that fails; 4 a change was not confirmed. `--json` prints one document to standard output, whose members stay;
//! whatever else there is to say goes to standard error. Payloads and headers are shown with `--payload` only.

mod args;
mod change;
mod document;
mod look;
mod progress;
mod table;

use std::{
    error::Error as StdError,
    io::{self, Write},
    process::ExitCode,
    str::FromStr,
};

use clap::Parser;
use mainstay_outbox::{Admin, OutboxDb, migrate, migrate_with_lanes};
use serde_json::{Value, json};
use sqlx::Pool;

use self::args::{Cli, Command};

/// What a command has to say.
struct Answer {
    /// With `--json`.
    json: Value,
    /// For people.
    text: String,
    exit: u8,
}

impl Answer {
    fn new(json: Value, text: impl Into<String>) -> Self {
        Self {
            json,
            text: text.into(),
            exit: 0,
        }
    }

    const fn exit(mut self, code: u8) -> Self {
        self.exit = code;
        self
    }
}

/// Why a command has nothing to say.
enum Failure {
    Failed(Box<dyn StdError>),
    /// The command line means nothing.
    Usage(String),
    NotConfirmed,
}

impl<E: StdError + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answered = match runtime {
        Ok(runtime) => runtime.block_on(connected(&cli)),
        Err(error) => Err(error.into()),
    };
    // Whoever reads may have gone away: `| head` is no failure.
    match answered {
        Ok(answer) => {
            let mut out = io::stdout().lock();
            let _ = if cli.json {
                writeln!(out, "{:#}", answer.json)
            } else {
                writeln!(out, "{}", answer.text.trim_end())
            };
            ExitCode::from(answer.exit)
        }
        Err(failure) => {
            let mut err = io::stderr().lock();
            match failure {
                Failure::Failed(error) => {
                    let mut said = format!("error: {error}");
                    let mut cause = error.source();
                    while let Some(error) = cause {
                        // Some errors tell their source themselves.
                        let why = error.to_string();
                        if !said.ends_with(&why) {
                            said.push_str(": ");
                            said.push_str(&why);
                        }
                        cause = error.source();
                    }
                    let _ = writeln!(err, "{said}");
                    ExitCode::from(1)
                }
                Failure::Usage(what) => {
                    let _ = writeln!(err, "error: {what}");
                    ExitCode::from(2)
                }
                Failure::NotConfirmed => {
                    let _ = writeln!(err, "nothing was changed: confirm, or say --yes");
                    ExitCode::from(4)
                }
            }
        }
    }
}

/// Connects to the database whose scheme the address has. One connection at a time is enough, two for a change whose
/// task is cut off.
async fn connected(cli: &Cli) -> Result<Answer, Failure> {
    let url = cli.database_url.as_str();
    if url.is_empty() {
        let what = "say which database: --database-url or DATABASE_URL";
        return Err(Failure::Usage(what.to_owned()));
    }
    match url.split_once(':').map_or(url, |(scheme, _)| scheme) {
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => {
            let pool = sqlx::postgres::PgPoolOptions::new().max_connections(2);
            run(pool.connect(url).await?, cli).await
        }
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let options = sqlx::sqlite::SqliteConnectOptions::from_str(url)?;
            // Only who makes tables may make the file: a misspelt name is not an empty outbox.
            let options = match cli.command {
                Command::Migrate { .. } => options.create_if_missing(true),
                _ => options,
            };
            let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(2);
            run(pool.connect_with(options).await?, cli).await
        }
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => {
            let pool = sqlx::mysql::MySqlPoolOptions::new().max_connections(2);
            run(pool.connect(url).await?, cli).await
        }
        // The rest of an address may hold a password.
        scheme => Err(Failure::Usage(format!(
            "no database of the scheme {scheme:?} is built in"
        ))),
    }
}

async fn run<Db: OutboxDb>(pool: Pool<Db>, cli: &Cli) -> Result<Answer, Failure> {
    if let Command::Migrate { lanes } = &cli.command {
        match lanes {
            Some(lanes) => migrate_with_lanes(&pool, *lanes).await?,
            None => migrate(&pool).await?,
        }
        return Ok(Answer::new(json!({ "migrated": true }), "migrated"));
    }
    let admin = Admin::new(pool).actor(&cli.actor);
    // To verify finds that too, and says what it means.
    if !matches!(cli.command, Command::Verify) {
        admin.check_schema().await?;
    }
    match &cli.command {
        Command::Lag { by_topic: false } => look::lag(&admin).await,
        Command::Lag { by_topic: true } => look::lag_by_topic(&admin).await,
        Command::Lanes => look::lanes(&admin).await,
        Command::Peek(list) => look::peek(&admin, list).await,
        Command::Dead(list) => look::dead(&admin, list).await,
        Command::Paused => look::paused(&admin).await,
        Command::Audit { count } => look::audit(&admin, *count).await,
        Command::Verify => look::verify(&admin).await,
        Command::Health => look::health(&admin).await,
        Command::Redrive(bulk) => change::redrive(&admin, bulk).await,
        Command::Discard(bulk) => change::discard(&admin, bulk).await,
        Command::Replay(bulk) => change::replay(&admin, bulk).await,
        Command::Pause { pattern } => change::pause(&admin, pattern).await,
        Command::Resume { pattern } => change::resume(&admin, pattern).await,
        Command::Migrate { .. } => Err(Failure::Usage("migrated above".to_owned())),
    }
}
