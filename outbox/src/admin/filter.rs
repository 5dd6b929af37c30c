//! Which messages an operator means.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::DeadCause;
use crate::{
    event::EventId,
    message::{from_micros, to_micros},
    store::Select,
};

/// Which messages are meant. There is no filter that means all of them without saying so: [`Filter::all`].
///
/// ```
/// use mainstay_outbox::{DeadCause, Filter};
///
/// let refused = Filter::topic("hooks.*").and(Filter::cause(DeadCause::Rejected));
/// # let _ = refused;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Filter {
    select: Select,
}

impl Filter {
    /// Every message.
    pub fn all() -> Self {
        Self {
            select: Select::default(),
        }
    }

    /// Those of a topic, or of all topics that begin so: `orders`, `hooks.*`.
    pub fn topic(pattern: impl Into<String>) -> Self {
        let mut topic = pattern.into();
        let prefix = topic.ends_with('*');
        if prefix {
            topic.pop();
        }
        Self {
            select: Select {
                topic: Some(topic),
                prefix,
                ..Select::default()
            },
        }
    }

    /// Those of a key.
    pub fn key(key: impl AsRef<[u8]>) -> Self {
        Self {
            select: Select {
                key: Some(key.as_ref().to_vec()),
                ..Select::default()
            },
        }
    }

    /// The one event.
    pub fn id(id: impl Into<EventId>) -> Self {
        Self {
            select: Select {
                event_id: Some(id.into().as_uuid()),
                ..Select::default()
            },
        }
    }

    /// Those given up for this cause. Only dead letters have one: of others it selects none.
    pub fn cause(cause: DeadCause) -> Self {
        Self {
            select: Select {
                cause: Some(cause.as_str()),
                ..Select::default()
            },
        }
    }

    /// Those not before this: dead letters by when they died, deliveries by when they were delivered, pending messages by
    /// when they were enqueued, each on the database's clock.
    pub fn since(time: SystemTime) -> Self {
        Self {
            select: Select {
                since_micros: Some(to_micros(time)),
                ..Select::default()
            },
        }
    }

    /// Those before this; otherwise as [`since`](Self::since).
    pub fn until(time: SystemTime) -> Self {
        Self {
            select: Select {
                until_micros: Some(to_micros(time)),
                ..Select::default()
            },
        }
    }

    /// Those that both mean. Where both name one thing, the other's name holds, but for times, of which the narrower does.
    pub fn and(mut self, other: Self) -> Self {
        let (mine, other) = (&mut self.select, other.select);
        if other.topic.is_some() {
            (mine.topic, mine.prefix) = (other.topic, other.prefix);
        }
        mine.key = other.key.or(mine.key.take());
        mine.event_id = other.event_id.or(mine.event_id);
        mine.cause = other.cause.or(mine.cause);
        mine.since_micros = mine.since_micros.max(other.since_micros);
        mine.until_micros = match (mine.until_micros, other.until_micros) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        self
    }

    pub(super) fn select(&self) -> Select {
        self.select.clone()
    }

    /// For the audit row. Keys that are not text are told in hexadecimal.
    pub(super) fn detail(&self) -> Value {
        let Select {
            topic,
            prefix,
            key,
            event_id,
            cause,
            since_micros,
            until_micros,
        } = &self.select;
        let mut said = Map::new();
        let mut say = |name: &str, value: Value| said.insert(name.to_owned(), value);
        if let Some(topic) = topic {
            let star = if *prefix { "*" } else { "" };
            say("topic", json!(format!("{topic}{star}")));
        }
        if let Some(key) = key {
            match std::str::from_utf8(key) {
                Ok(text) => say("key", json!(text)),
                Err(_) => say("key_hex", json!(hex(key))),
            };
        }
        if let Some(id) = event_id {
            say("id", json!(id.to_string()));
        }
        if let Some(cause) = cause {
            say("cause", json!(cause));
        }
        for (name, micros) in [("since", since_micros), ("until", until_micros)] {
            if let Some(micros) = micros {
                let seconds = from_micros(*micros).duration_since(SystemTime::UNIX_EPOCH);
                say(name, json!(seconds.unwrap_or_default().as_secs_f64()));
            }
        }
        if said.is_empty() {
            json!("all")
        } else {
            Value::Object(said)
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn what_is_said_together_must_hold_together() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let both = Filter::topic("hooks.*")
            .and(Filter::cause(DeadCause::Rejected))
            .and(Filter::since(at(10)).and(Filter::since(at(5))))
            .and(Filter::until(at(20)))
            .and(Filter::until(at(30)));
        assert_eq!(
            both.select(),
            Select {
                topic: Some("hooks.".to_owned()),
                prefix: true,
                cause: Some("rejected"),
                since_micros: Some(10_000_000),
                until_micros: Some(20_000_000),
                ..Select::default()
            }
        );
        assert_eq!(Filter::all().select(), Select::default());
    }

    #[test]
    fn the_audit_says_what_was_asked() {
        let id = EventId::generate();
        for (filter, said) in [
            (Filter::all(), json!("all")),
            (Filter::topic("a"), json!({ "topic": "a" })),
            (Filter::topic("*"), json!({ "topic": "*" })),
            (
                Filter::key("k").and(Filter::id(id)),
                json!({ "key": "k", "id": id.as_uuid().to_string() }),
            ),
            (Filter::key([0, 255]), json!({ "key_hex": "00ff" })),
            (Filter::since(UNIX_EPOCH), json!({ "since": 0.0 })),
        ] {
            assert_eq!(filter.detail(), said);
        }
    }
}
