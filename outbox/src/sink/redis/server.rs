//! The connection to the server, and what its silence says.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, Pipeline as Commands, RedisError, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

/// No answer about any single entry.
pub(super) enum Silence {
    Down(String),
    Late,
    /// What was sent ended the connection, or something else did.
    Lost(String),
}

/// Texts of errors may repeat addresses and keys; codes do not.
fn answered(error: &RedisError) -> Option<String> {
    let code = error.code()?;
    Some(format!("the server answered {code}"))
}

/// The one connection, opened when it is needed.
pub(super) struct Server {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Server {
    pub(super) const fn new(client: Client) -> Self {
        Self {
            client,
            connection: Mutex::const_new(None),
        }
    }

    pub(super) async fn run(
        &self,
        commands: &Commands,
        within: Duration,
    ) -> Result<Value, Silence> {
        let until = Instant::now() + within;
        let mut connection = match timeout_at(until, self.connected(within)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                let said = answered(&error);
                let said = said.unwrap_or_else(|| "no connection to Redis".to_owned());
                return Err(Silence::Down(said));
            }
            Err(_) => return Err(Silence::Down("Redis does not answer in time".to_owned())),
        };
        let silence = match timeout_at(until, commands.query_async(&mut connection)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if error.is_timeout() => Silence::Late,
            Ok(Err(error)) => {
                let said = answered(&error);
                Silence::Lost(said.unwrap_or_else(|| "the connection to Redis was lost".to_owned()))
            }
            Err(_) => Silence::Late,
        };
        // Whatever it was: a fresh connection is the cheapest way to be sure of the next answers.
        self.forget().await;
        Err(silence)
    }

    /// Whether the server answers at all, if only to refuse.
    pub(super) async fn lives(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        let Ok(Ok(mut connection)) = timeout_at(until, self.connected(within)).await else {
            return false;
        };
        let ping = redis::cmd("PING");
        match timeout_at(until, ping.query_async::<Value>(&mut connection)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.code().is_some(),
            Err(_) => false,
        }
    }

    async fn connected(&self, within: Duration) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.connection.lock().await;
        if let Some(known) = connection.as_ref() {
            return Ok(known.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(within))
            .set_response_timeout(Some(within));
        let opened = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        Ok(connection.insert(opened.await?).clone())
    }

    async fn forget(&self) {
        self.connection.lock().await.take();
    }
}
