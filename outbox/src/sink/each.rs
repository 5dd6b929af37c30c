//! Publishing message by message: keys side by side, each key in order.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};

use super::{LaneRef, Outcome, Outcomes, SinkDown};
use crate::message::Message;

/// Publishes a batch one message at a time, up to `concurrency` keys at once, each key in order.
///
/// A key stops at its first message that is not acked; its later ones are [`Outcome::NotTried`]. When `publish` says
/// [`SinkDown`], nothing further is started: what was acked before stays acked, the rest is not tried. Only when nothing
/// at all could be done is the whole batch `SinkDown`. Starts nothing more either once the lane says
/// [`is_held`](LaneRef::is_held) no longer.
///
/// # Errors
/// [`SinkDown`] when it was met and no message of the batch had any other outcome.
///
/// # Cancel safety
/// Dropping it drops the publishes under way; their outcome is unknown.
pub async fn publish_each<'a, F, Fut>(
    lane: &LaneRef,
    batch: &'a [Message],
    concurrency: usize,
    publish: F,
) -> Result<Outcomes, SinkDown>
where
    F: Fn(&'a Message) -> Fut + Sync,
    Fut: Future<Output = Result<Outcome, SinkDown>> + Send,
{
    let down = std::sync::OnceLock::new();
    let runs: Vec<_> = by_key(batch)
        .into_iter()
        .map(|run| one_key(run, lane, &down, &publish))
        .collect();
    let results: Vec<Vec<(usize, Outcome)>> = stream::iter(runs)
        .buffer_unordered(concurrency.max(1))
        .collect()
        .await;
    let mut outcomes = vec![Outcome::NotTried; batch.len()];
    let mut done = false;
    for (at, outcome) in results.into_iter().flatten() {
        if let Some(slot) = outcomes.get_mut(at) {
            done = true;
            *slot = outcome;
        }
    }
    match down.into_inner() {
        Some(down) if !done => Err(down),
        _ => Ok(outcomes.into_iter().collect()),
    }
}

/// One key's messages in order, until one is not acked.
async fn one_key<'a, F, Fut>(
    run: Vec<(usize, &'a Message)>,
    lane: &LaneRef,
    down: &std::sync::OnceLock<SinkDown>,
    publish: &F,
) -> Vec<(usize, Outcome)>
where
    F: Fn(&'a Message) -> Fut,
    Fut: Future<Output = Result<Outcome, SinkDown>>,
{
    let mut done = Vec::with_capacity(run.len());
    for (at, message) in run {
        if down.get().is_some() || !lane.is_held() {
            break;
        }
        match publish(message).await {
            Ok(outcome) => {
                let go_on = outcome == Outcome::Acked;
                done.push((at, outcome));
                if !go_on {
                    break;
                }
            }
            Err(error) => {
                // Several keys may meet the outage at once: one report of it is enough.
                let _ = down.set(error);
                break;
            }
        }
    }
    done
}

/// The batch's messages grouped by key, in order of each key's first message; those without a key stand alone.
fn by_key(batch: &[Message]) -> Vec<Vec<(usize, &Message)>> {
    let mut runs: Vec<Vec<(usize, &Message)>> = Vec::new();
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    for (at, message) in batch.iter().enumerate() {
        let run = message
            .ordering_key()
            .and_then(|key| known.get(key).copied());
        match run.and_then(|run| runs.get_mut(run)) {
            Some(run) => run.push((at, message)),
            None => {
                if let Some(key) = message.ordering_key() {
                    known.insert(key, runs.len());
                }
                runs.push(vec![(at, message)]);
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::UNIX_EPOCH};

    use super::*;
    use crate::event::Event;

    fn batch(keys: &[&str]) -> Vec<Message> {
        let message = |key: &&str| {
            let event = Event::new("t").subject(*key);
            let event = if key.is_empty() {
                event.subject("none")
            } else {
                event.key(*key)
            };
            Message::from_event(event, "/s", UNIX_EPOCH)
        };
        keys.iter().map(message).collect()
    }

    #[tokio::test]
    async fn a_key_stops_at_its_first_failure_and_others_go_on() {
        let batch = batch(&["a", "b", "a", "", "b"]);
        let seen = Mutex::new(Vec::new());
        let outcomes = publish_each(&LaneRef::detached(), &batch, 4, async |m: &Message| {
            seen.lock().unwrap().push(m.id());
            Ok(if m.key() == Some(b"a") {
                Outcome::reject("no")
            } else {
                Outcome::Acked
            })
        })
        .await
        .unwrap();
        let acked: Vec<_> = outcomes.iter().map(|o| *o == Outcome::Acked).collect();
        assert_eq!(acked, [false, true, false, true, true]);
        assert_eq!(outcomes.iter().nth(2), Some(&Outcome::NotTried));
        assert!(!seen.lock().unwrap().contains(&batch[2].id()));
    }

    #[tokio::test]
    async fn an_outage_half_way_keeps_what_was_acked() {
        let batch = batch(&["a", "a", "a"]);
        let outcomes = publish_each(&LaneRef::detached(), &batch, 4, async |m: &Message| {
            if m.id() == batch[1].id() {
                Err(SinkDown::new("gone"))
            } else {
                Ok(Outcome::Acked)
            }
        })
        .await
        .unwrap();
        let outcomes: Vec<_> = outcomes.into_iter().collect();
        assert_eq!(
            outcomes,
            [Outcome::Acked, Outcome::NotTried, Outcome::NotTried]
        );
    }

    #[tokio::test]
    async fn an_outage_from_the_start_is_the_whole_sinks() {
        let batch = batch(&["a", "b"]);
        let lane = LaneRef::detached();
        let all_down = publish_each(&lane, &batch, 1, async |_: &Message| {
            Err(SinkDown::new("gone"))
        });
        assert_eq!(all_down.await, Err(SinkDown::new("gone")));
    }
}
