//! The connection to the broker, its channels, and what their errors say.

use std::{sync::Arc, time::Duration};

use lapin::{
    Channel, Connection, ErrorKind,
    options::ConfirmSelectOptions,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};
use tokio::{sync::Mutex, time::timeout};

use crate::{rabbitmq::Address, sink::SinkDown};

pub(super) const BLOCKED: &str = "the broker blocks publishers: an alarm of memory or disk";

/// What an error of a channel or connection says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The broker will not have one of the messages.
    Message,
    /// We may not publish one of the messages, or none: the code is the same for an exchange and for a routing key.
    Refused,
    /// No message is to blame.
    Sink(&'static str),
    /// The channel or the connection is gone, for a reason that another answer may tell.
    Gone(&'static str),
}

pub(super) fn fault(error: &lapin::Error) -> Fault {
    let ErrorKind::ProtocolError(error) = error.kind() else {
        return Fault::Gone("the connection to RabbitMQ was lost");
    };
    match error.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::CONTENTTOOLARGE) => {
            Fault::Message
        }
        // There is one exchange for all that the sink publishes.
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Fault::Sink("no such exchange"),
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => Fault::Refused,
        AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED) => {
            Fault::Sink("the broker closes its connections")
        }
        // Of something that was sent, as it seems, and without saying of what.
        AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => {
            Fault::Gone("the broker closed the connection")
        }
    }
}

/// The one connection, opened when it is needed.
pub(super) struct Broker {
    address: Address,
    connected: Mutex<Option<Arc<Connected>>>,
}

pub(super) struct Connected {
    connection: Connection,
    /// Channels in confirm mode on which nothing is awaited.
    idle: std::sync::Mutex<Vec<Channel>>,
}

/// A channel in confirm mode, for one call at a time: a returned message is told from others only within a channel.
///
/// Dropping it closes the channel, so that a call that is cut off leaves no awaited confirms to the next.
pub(super) struct Confirming {
    pub(super) channel: Channel,
    broker: Arc<Connected>,
}

impl Confirming {
    /// Whether an alarm of the broker keeps publishers waiting.
    pub(super) fn is_blocked(&self) -> bool {
        self.broker.connection.status().blocked()
    }

    pub(super) fn give_back(self) {
        if self.channel.status().connected()
            && let Ok(mut idle) = self.broker.idle.lock()
        {
            idle.push(self.channel);
        }
    }
}

impl Broker {
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            connected: Mutex::new(None),
        }
    }

    #[cfg(feature = "rabbitmq-tls")]
    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    pub(super) async fn channel(&self, within: Duration) -> Result<Confirming, SinkDown> {
        let opened = async {
            let broker = self.connected().await?;
            if broker.connection.status().blocked() {
                return Err(SinkDown::new(BLOCKED));
            }
            let idle = broker.idle.lock().ok().and_then(|mut idle| idle.pop());
            if let Some(channel) = idle.filter(|channel| channel.status().connected()) {
                return Ok(Confirming { channel, broker });
            }
            let lost = |_| SinkDown::new("no channel to RabbitMQ");
            let channel = broker.connection.create_channel().await.map_err(lost)?;
            let confirms = channel.confirm_select(ConfirmSelectOptions::default());
            confirms.await.map_err(lost)?;
            Ok(Confirming { channel, broker })
        };
        match timeout(within, opened).await {
            Ok(opened) => opened,
            Err(_) => {
                // A connection that opens no channel in time is of no use to the next call either.
                if let Ok(mut connected) = self.connected.try_lock() {
                    connected.take();
                }
                Err(SinkDown::new("RabbitMQ did not answer in time"))
            }
        }
    }

    /// The connection, or a new one: one caller connects, the others wait for it.
    async fn connected(&self) -> Result<Arc<Connected>, SinkDown> {
        let mut connected = self.connected.lock().await;
        if let Some(known) = connected.as_ref()
            && known.connection.status().connected()
        {
            return Ok(Arc::clone(known));
        }
        *connected = None;
        let fresh = Arc::new(Connected {
            connection: self.address.connect().await.map_err(SinkDown::new)?,
            idle: std::sync::Mutex::new(Vec::new()),
        });
        *connected = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// Uses another connection than this channel's from now on.
    pub(super) async fn forget(&self, stuck: &Confirming) {
        let mut connected = self.connected.lock().await;
        if connected
            .as_ref()
            .is_some_and(|of| Arc::ptr_eq(of, &stuck.broker))
        {
            connected.take();
        }
    }
}
