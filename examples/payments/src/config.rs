//! What the environment says. Secrets come from here and nowhere else.

use std::{collections::HashMap, env, net::SocketAddr, time::Duration};

use mainstay::idempotency::webhook::Secret;

/// The whole configuration of `payments serve`.
#[derive(Debug)]
pub struct Config {
    /// `PAYMENTS_ADDR`, default `127.0.0.1:8080`; port 0 takes a free one.
    pub addr: SocketAddr,
    /// `DATABASE_URL`: `sqlite://…` or `postgres://…`; default a SQLite file in the system's temporary folder.
    pub database_url: String,
    /// `PAYMENTS_TENANTS`: who may call, as `token=tenant` pairs split by commas.
    pub tenants: Tenants,
    /// `PAYMENTS_WEBHOOK_SECRET` (`whsec_…`): what the payment provider signs with. Unset: a random one.
    pub webhook_secret: Configured<Secret>,
    /// `PAYMENTS_CURSOR_KEY`: at least 32 characters that sign page cursors. Unset: random, so that cursors end with the process.
    pub cursor_key: Configured<Vec<u8>>,
    /// Where events go.
    pub events: Events,
    /// `PAYMENTS_OUTBOX_LEASE_SECONDS`, default 10: how long events of a killed process wait for the next one.
    pub outbox_lease: Duration,
    /// `PAYMENTS_DRAIN_SECONDS`, default 10: how long a shutdown waits for work in flight.
    pub drain: Duration,
}

/// A secret, and whether somebody chose it.
pub enum Configured<T> {
    /// From the environment.
    Given(T),
    /// Made up at start, because the environment is silent.
    Random(T),
}

impl<T> Configured<T> {
    /// The value, wherever it came from.
    pub const fn get(&self) -> &T {
        match self {
            Self::Given(value) | Self::Random(value) => value,
        }
    }

    /// Whether it was made up.
    pub const fn is_random(&self) -> bool {
        matches!(self, Self::Random(_))
    }
}

impl<T> std::fmt::Debug for Configured<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_random() {
            "Random(..)"
        } else {
            "Given(..)"
        })
    }
}

/// Bearer tokens and whose they are.
pub struct Tenants {
    by_token: HashMap<String, String>,
    /// The development tokens, which everybody knows, are in force.
    pub are_default: bool,
}

impl Tenants {
    const DEVELOPMENT: &str = "dev-acme=acme,dev-globex=globex";

    /// Reads `token=tenant` pairs that are split by commas.
    ///
    /// # Errors
    /// When one is not a pair, or there is none.
    pub fn parse(list: &str, are_default: bool) -> Result<Self, ConfigError> {
        let by_token = list
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
            .map(|pair| match pair.split_once('=') {
                Some((token, tenant)) if !token.is_empty() && !tenant.is_empty() => {
                    Ok((token.to_owned(), tenant.to_owned()))
                }
                // The pair is not shown: half of it is a secret.
                _ => Err(ConfigError::new(
                    "PAYMENTS_TENANTS",
                    "must be token=tenant pairs split by commas",
                )),
            })
            .collect::<Result<HashMap<_, _>, _>>()?;
        if by_token.is_empty() {
            return Err(ConfigError::new("PAYMENTS_TENANTS", "names no tenant"));
        }
        Ok(Self {
            by_token,
            are_default,
        })
    }

    /// Whose token this is.
    pub fn tenant_of(&self, token: &str) -> Option<&str> {
        self.by_token.get(token).map(String::as_str)
    }
}

impl std::fmt::Debug for Tenants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tenants({})", self.by_token.len())
    }
}

/// Where the relay takes the events.
#[derive(Debug)]
pub enum Events {
    /// A subscriber inside this process, which logs them: nobody else asked.
    InProcess,
    /// `PAYMENTS_EVENTS_URL`: signed webhooks to a consumer.
    Webhook {
        /// The consumer's endpoint.
        url: String,
        /// `PAYMENTS_EVENTS_SECRET` (`whsec_…`).
        secret: Secret,
        /// `PAYMENTS_EVENTS_ALLOW_PRIVATE=1`: the consumer may live on a private address.
        allow_private: bool,
    },
}

/// A variable of the environment that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable} {problem}")]
pub struct ConfigError {
    variable: &'static str,
    problem: &'static str,
}

impl ConfigError {
    const fn new(variable: &'static str, problem: &'static str) -> Self {
        Self { variable, problem }
    }
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// Names the first variable that cannot be used.
    pub fn from_env() -> Result<Self, ConfigError> {
        let addr = var("PAYMENTS_ADDR").unwrap_or_else(|| "127.0.0.1:8080".to_owned());
        let events = match var("PAYMENTS_EVENTS_URL") {
            None => Events::InProcess,
            Some(url) => Events::Webhook {
                url,
                secret: var("PAYMENTS_EVENTS_SECRET")
                    .ok_or(ConfigError::new(
                        "PAYMENTS_EVENTS_SECRET",
                        "is needed with PAYMENTS_EVENTS_URL",
                    ))
                    .and_then(|text| secret("PAYMENTS_EVENTS_SECRET", &text))?,
                allow_private: var("PAYMENTS_EVENTS_ALLOW_PRIVATE")
                    .is_some_and(|value| value == "1"),
            },
        };
        Ok(Self {
            addr: addr.parse().map_err(|_| {
                ConfigError::new(
                    "PAYMENTS_ADDR",
                    "must be an address and a port, such as 127.0.0.1:8080",
                )
            })?,
            database_url: var("DATABASE_URL").unwrap_or_else(default_database_url),
            tenants: match var("PAYMENTS_TENANTS") {
                Some(list) => Tenants::parse(&list, false)?,
                None => Tenants::parse(Tenants::DEVELOPMENT, true)?,
            },
            webhook_secret: match var("PAYMENTS_WEBHOOK_SECRET") {
                Some(text) => Configured::Given(secret("PAYMENTS_WEBHOOK_SECRET", &text)?),
                None => Configured::Random(Secret::generate()),
            },
            cursor_key: match var("PAYMENTS_CURSOR_KEY") {
                Some(key) if key.len() >= 32 => Configured::Given(key.into_bytes()),
                Some(_) => {
                    return Err(ConfigError::new(
                        "PAYMENTS_CURSOR_KEY",
                        "must have at least 32 characters",
                    ));
                }
                None => Configured::Random(rand::random::<[u8; 32]>().to_vec()),
            },
            events,
            outbox_lease: seconds("PAYMENTS_OUTBOX_LEASE_SECONDS", 10)?,
            drain: seconds("PAYMENTS_DRAIN_SECONDS", 10)?,
        })
    }
}

fn var(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn secret(variable: &'static str, text: &str) -> Result<Secret, ConfigError> {
    text.parse()
        .map_err(|_| ConfigError::new(variable, "must be whsec_ and then base64 of 24 to 64 bytes"))
}

fn seconds(variable: &'static str, default: u64) -> Result<Duration, ConfigError> {
    match var(variable).map(|value| value.parse::<u64>()) {
        None => Ok(Duration::from_secs(default)),
        Some(Ok(seconds @ 1..=3600)) => Ok(Duration::from_secs(seconds)),
        Some(_) => Err(ConfigError::new(
            variable,
            "must be whole seconds from 1 to 3600",
        )),
    }
}

fn default_database_url() -> String {
    format!(
        "sqlite://{}",
        env::temp_dir().join("mainstay-payments.db").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_pairs_split_by_commas() {
        let tenants = Tenants::parse("a=acme, b=globex,", false).unwrap();
        assert_eq!(tenants.tenant_of("a"), Some("acme"));
        assert_eq!(tenants.tenant_of("b"), Some("globex"));
        assert_eq!(tenants.tenant_of("c"), None);
    }

    #[test]
    fn a_half_pair_or_an_empty_list_is_refused_without_showing_the_token() {
        for list in ["a", "a=", "=acme", "", ","] {
            let error = Tenants::parse(list, false).unwrap_err().to_string();
            assert!(error.starts_with("PAYMENTS_TENANTS"), "{list}: {error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let tenants = Tenants::parse("hunter2=acme", false).unwrap();
        assert!(!format!("{tenants:?} {:?}", Configured::Given("hunter2")).contains("hunter2"));
    }
}
