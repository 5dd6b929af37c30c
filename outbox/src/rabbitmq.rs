//! The connection to RabbitMQ, which the sink and the consumer open alike.

#[cfg(feature = "rabbitmq-tls")]
use std::fmt;
use std::io;

#[cfg(feature = "rabbitmq-tls")]
use lapin::tcp::OwnedIdentity;
use lapin::{
    Connection, ConnectionProperties, ErrorKind,
    runtime::default_runtime,
    tcp::OwnedTLSConfig,
    uri::{AMQPScheme, AMQPUri},
};

use crate::sink::Reason;

const UNREACHABLE: &str = "no connection to RabbitMQ";

/// Where the broker is, and how its certificate is checked.
#[derive(Clone)]
pub(crate) struct Address {
    uri: String,
    tls: OwnedTLSConfig,
}

impl Address {
    pub(crate) fn new(uri: String) -> Self {
        Self {
            uri,
            tls: OwnedTLSConfig::default(),
        }
    }

    #[cfg(feature = "rabbitmq-tls")]
    pub(crate) fn with_tls(self, tls: RabbitMqTls) -> Self {
        Self {
            tls: tls.config,
            ..self
        }
    }

    /// A connection, or why there is none; the URI, user and password stay out of it.
    pub(crate) async fn connect(&self) -> Result<Connection, Reason> {
        let uri = target(&self.uri, cfg!(feature = "rabbitmq-tls"))?;
        let options = ConnectionProperties::default()
            .with_connection_name(concat!("mainstay-outbox/", env!("CARGO_PKG_VERSION")).into());
        let runtime = default_runtime().map_err(|_| UNREACHABLE)?;
        Connection::connect_uri_with_config(uri, options, self.tls.clone(), runtime)
            .await
            .map_err(|error| why(&error))
    }
}

/// The URI, read. Without TLS the client would speak to an `amqps` address **unencrypted**, and tell the password to whoever
/// answers: that is refused here.
fn target(uri: &str, tls: bool) -> Result<AMQPUri, Reason> {
    let uri: AMQPUri = uri
        .parse()
        .map_err(|_| "the URI of RabbitMQ is not amqp://user:password@host:port/vhost")?;
    if uri.scheme == AMQPScheme::AMQPS && !tls {
        return Err("amqps takes TLS, which the feature `rabbitmq-tls` adds".into());
    }
    Ok(uri)
}

/// What a handshake says of certificates is told, or nobody would find out what is wrong with them. All else may name the user:
/// that it failed has to do.
fn why(error: &lapin::Error) -> Reason {
    match error.kind() {
        // The kind that rustls gives its errors; those of a socket have kinds of their own.
        ErrorKind::IOError(error) if error.kind() == io::ErrorKind::InvalidData => {
            format!("no TLS with RabbitMQ: {error}").into()
        }
        _ => UNREACHABLE.into(),
    }
}

/// Whom a broker behind `amqps://` has to be, and who we are to it.
///
/// Its certificate has to be for the host that the URI names. By default it has to come from one of the authorities that
/// browsers trust: their list is compiled in, and the system's store is not read.
///
/// ```no_run
/// # fn example() -> Result<(), std::io::Error> {
/// use mainstay_outbox::sink::{RabbitMqSink, RabbitMqTls};
///
/// let tls = RabbitMqTls::default().root_certificates(std::fs::read_to_string("authority.pem")?);
/// let sink = RabbitMqSink::new("amqps://user:password@broker.internal", "events").tls(tls);
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "rabbitmq-tls")]
#[derive(Clone, Default)]
pub struct RabbitMqTls {
    config: OwnedTLSConfig,
}

#[cfg(feature = "rabbitmq-tls")]
impl RabbitMqTls {
    /// Trusts these authorities as well, certificates in PEM. What cannot be read is trusted by nobody: then there is no
    /// connection.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl AsRef<str>) -> Self {
        let roots = self.config.cert_chain.get_or_insert_default();
        roots.push_str(pem.as_ref());
        roots.push('\n');
        self
    }

    /// Shows the broker this certificate, as it asks for where it is set to `verify_peer`: the chain, ours first, and its key,
    /// unencrypted, both in PEM.
    #[must_use]
    pub fn client_certificate(
        mut self,
        chain: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.config.identity = Some(OwnedIdentity::PKCS8 {
            pem: chain.into(),
            key: key.into(),
        });
        self
    }
}

/// The key stays out.
#[cfg(feature = "rabbitmq-tls")]
impl fmt::Debug for RabbitMqTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqTls").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_that_asks_for_tls_is_refused_where_there_is_none() {
        for uri in ["amqps://user:secret@broker", "AMQPS://user:secret@broker:1"] {
            assert!(target(uri, true).is_ok());
            let refused = target(uri, false).unwrap_err();
            assert!(refused.as_str().contains("`rabbitmq-tls`"), "{refused}");
        }
        assert!(target("amqp://user:secret@broker", false).is_ok());
    }

    #[test]
    fn a_uri_that_cannot_be_read_is_not_repeated() {
        for uri in [
            "",
            "secret",
            "https://user:secret@broker",
            "amqp://:secret:@",
        ] {
            let refused = target(uri, true).unwrap_err();
            assert!(!refused.as_str().contains("secret"), "{refused}");
        }
    }

    /// With the feature, the test of TLS against a real server says the same of the other side.
    #[cfg(not(feature = "rabbitmq-tls"))]
    #[tokio::test]
    async fn without_tls_nothing_is_said_to_an_address_that_asks_for_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("amqps://user:secret@{}", listener.local_addr().unwrap());
        let address = Address::new(uri);
        tokio::select! {
            biased;
            _ = listener.accept() => panic!("somebody came, unencrypted"),
            refused = address.connect() => {
                assert!(refused.unwrap_err().as_str().contains("`rabbitmq-tls`"));
            }
        }
    }
}
