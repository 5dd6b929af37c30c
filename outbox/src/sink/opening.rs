//! A sink that is given plain payloads although the table holds sealed ones.

use std::fmt;

use super::{LaneRef, Outcome, Outcomes, Sink, SinkDown};
use crate::{
    codec::{SEALED_BY, Seal},
    message::Message,
};

/// Opens sealed payloads before they are published: only the database holds sealed bytes then.
///
/// For sinks whose consumers hold no key; without it sealed messages are published as they are. What is not sealed is left
/// alone. A message that does not open spends an attempt, so that a key that is deployed late is waited for, and the rest of
/// its batch is published at the next look; unless an earlier one of its ordering key was not published, which it waits for.
#[derive(Clone)]
pub struct OpeningSink<S, K> {
    sink: S,
    seal: K,
}

impl<S: Sink, K: Seal> OpeningSink<S, K> {
    /// Opens with `seal` what goes to `sink`.
    pub const fn new(sink: S, seal: K) -> Self {
        Self { sink, seal }
    }
}

impl<S: fmt::Debug, K> fmt::Debug for OpeningSink<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpeningSink").field(&self.sink).finish()
    }
}

impl<S: Sink, K: Seal> Sink for OpeningSink<S, K> {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        let sealed = |message: &Message| message.header(SEALED_BY).is_some();
        if !batch.iter().any(sealed) {
            return self.sink.publish(lane, batch).await;
        }
        // Up to the first that does not open: those behind it may be of its key.
        let opened: Vec<Message> = batch
            .iter()
            .map_while(|message| message.clone().opened(&self.seal).ok())
            .collect();
        let shut = batch.get(opened.len());
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(opened.len() + 1);
        if !opened.is_empty() {
            outcomes.extend(self.sink.publish(lane, &opened).await?);
            outcomes.resize(opened.len(), Outcome::NotTried);
        }
        if let Some(shut) = shut {
            let key = shut.ordering_key();
            let mut before = batch.iter().zip(&outcomes);
            let waits = key.is_some()
                && before
                    .any(|(of, outcome)| of.ordering_key() == key && *outcome != Outcome::Acked);
            outcomes.push(match waits {
                true => Outcome::NotTried,
                false => Outcome::retry("the payload cannot be opened"),
            });
        }
        Ok(outcomes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{codec::SealError, event::Event, sink::MemorySink};

    /// Opens what key 1 sealed, which is nobody's encryption: the bytes as they are, with no media type in front.
    struct Plain;

    impl Seal for Plain {
        fn key_id(&self) -> u32 {
            1
        }

        fn seal(&self, _: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
            Ok(plain.to_vec())
        }

        fn open(&self, key_id: u32, _: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
            let known = key_id == 1;
            known.then(|| [&[0, 0], sealed].concat()).ok_or(SealError)
        }
    }

    fn sealed(key: Option<&str>, by: &str) -> Message {
        let event = Event::new("t").header(SEALED_BY, by);
        let event = match key {
            Some(key) => event.key(key),
            None => event,
        };
        Message::from_event(event, "/s", UNIX_EPOCH)
    }

    async fn publish(sink: &impl Sink, batch: &[Message]) -> Vec<Outcome> {
        let outcomes = sink.publish(LaneRef::detached(), batch).await.unwrap();
        outcomes.into_iter().collect()
    }

    #[tokio::test]
    async fn what_does_not_open_is_charged_unless_its_key_has_stopped_before_it() {
        let shut = Outcome::retry("the payload cannot be opened");
        let no = Outcome::retry("no");
        let refusing = MemorySink::new().respond(|_| Outcome::retry("no"));
        let refusing = OpeningSink::new(refusing, Plain);
        let (not, ack) = (Outcome::NotTried, Outcome::Acked);

        let same = [sealed(Some("k"), "1"), sealed(Some("k"), "9")];
        assert_eq!(publish(&refusing, &same).await, [no.clone(), not]);
        let other = [sealed(Some("k"), "1"), sealed(Some("l"), "9")];
        assert_eq!(publish(&refusing, &other).await, [no.clone(), shut.clone()]);
        let none = [sealed(None, "1"), sealed(None, "9")];
        assert_eq!(publish(&refusing, &none).await, [no, shut.clone()]);

        let taking = OpeningSink::new(MemorySink::new(), Plain);
        assert_eq!(publish(&taking, &same).await, [ack, shut]);
    }
}
