//! The keys that this process is working on. A duplicate that arrives meanwhile is answered from here, or waits here, so
//! a storm on one key takes one connection and not one each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{Fingerprint, Key, Scope};

/// Keys in flight, at most `max` of them, and at most as many requests that wait for one. Clones share the same keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<Keys>>);

#[derive(Debug, Default)]
struct Keys {
    places: HashMap<(Scope, Key), Place>,
    waiting: usize,
}

#[derive(Debug)]
struct Place {
    stage: Stage,
    /// Both made by the first request that waits.
    ended: Option<CancellationToken>,
    /// Of this stage, while nothing is known.
    settled: Option<CancellationToken>,
}

/// How long a duplicate that is not to wait gives the store to say what the key stands for: a look or a commit takes
/// milliseconds, and without it all but one of several that only want the answer again would be sent away.
const PATIENCE: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Asking the store, or done with the handler: the key may come to stand for another request, so nothing is known.
    Claiming,
    /// The store had no record: this request is what the key will stand for, if it commits.
    Running(Fingerprint),
}

/// Why a key is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAdmitted {
    InFlight,
    OtherInFlight,
    Full,
}

/// Holds a key's place until dropped.
#[derive(Debug)]
pub struct Ticket {
    all: InFlight,
    place: (Scope, Key),
}

impl InFlight {
    fn admit(
        &self,
        scope: Scope,
        key: &Key,
        fingerprint: &Fingerprint,
        max: usize,
    ) -> Result<Ticket, NotAdmitted> {
        let place = (scope, key.clone());
        let mut keys = self.keys();
        match keys.places.get(&place).map(|place| place.stage) {
            Some(Stage::Running(other)) if !other.matches(fingerprint) => {
                return Err(NotAdmitted::OtherInFlight);
            }
            Some(_) => return Err(NotAdmitted::InFlight),
            None if keys.places.len() >= max => return Err(NotAdmitted::Full),
            None => {
                let claiming = Place {
                    stage: Stage::Claiming,
                    ended: None,
                    settled: None,
                };
                keys.places.insert(place.clone(), claiming);
            }
        }
        Ok(Ticket {
            all: self.clone(),
            place,
        })
    }

    /// As [`admit`](Self::admit), waiting until `deadline` for a request of this process that has the key; without one, only
    /// for the store's word on it. Many may wait; one at a time is admitted.
    pub(crate) async fn admit_by(
        &self,
        deadline: Option<Instant>,
        scope: Scope,
        key: &Key,
        fingerprint: &Fingerprint,
        max: usize,
    ) -> Result<Ticket, NotAdmitted> {
        let (until, deadline) = match deadline {
            Some(deadline) => (Until::Ended, deadline),
            None => (Until::Settled, Instant::now() + PATIENCE),
        };
        loop {
            match self.admit(scope, key, fingerprint, max) {
                Err(NotAdmitted::InFlight) => {}
                settled => return settled,
            }
            // Gone in between: ask again.
            let Some(waiting) = self.wait(until, scope, key, max)? else {
                continue;
            };
            if timeout_at(deadline, waiting.over.cancelled())
                .await
                .is_err()
            {
                return Err(NotAdmitted::InFlight);
            }
        }
    }

    fn wait(
        &self,
        until: Until,
        scope: Scope,
        key: &Key,
        max: usize,
    ) -> Result<Option<Waiting>, NotAdmitted> {
        let mut keys = self.keys();
        let full = keys.waiting >= max;
        let Some(place) = keys.places.get_mut(&(scope, key.clone())) else {
            return Ok(None);
        };
        let over = match (until, place.stage) {
            (Until::Ended, _) => &mut place.ended,
            (Until::Settled, Stage::Claiming) => &mut place.settled,
            (Until::Settled, Stage::Running(_)) => return Err(NotAdmitted::InFlight),
        };
        if full {
            return Err(NotAdmitted::Full);
        }
        let over = over.get_or_insert_default().clone();
        keys.waiting += 1;
        Ok(Some(Waiting {
            all: self.clone(),
            over,
        }))
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that waits, until dropped.
struct Waiting {
    all: InFlight,
    over: CancellationToken,
}

/// What somebody waits for.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// That the request which has the key is over.
    Ended,
    /// That it is known what the key stands for.
    Settled,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.keys().waiting -= 1;
    }
}

impl Ticket {
    /// From now on a different request under this key is a mismatch.
    pub(crate) fn running(&self, fingerprint: Fingerprint) {
        self.set(Stage::Running(fingerprint));
    }

    /// From now on a different request may be what the key stands for: it is in flight, no more is known.
    pub(crate) fn claiming(&self) {
        self.set(Stage::Claiming);
    }

    fn set(&self, to: Stage) {
        if let Some(place) = self.all.keys().places.get_mut(&self.place) {
            place.stage = to;
            if let Some(settled) = place.settled.take() {
                settled.cancel();
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let place = self.all.keys().places.remove(&self.place);
        let waited_for = place.map(|place| [place.ended, place.settled]);
        for over in waited_for.into_iter().flatten().flatten() {
            over.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Fingerprint {
        Fingerprint::new("POST", "/", body)
    }

    #[test]
    fn a_key_is_admitted_once_until_its_ticket_is_gone() {
        let keys = InFlight::default();
        let (scope, key) = (Scope::new("t", "p", "o"), Key::new("k").unwrap());
        let [this, that] = ["this", "that"].map(of);
        let ticket = keys.admit(scope, &key, &this, 2).unwrap();
        assert_eq!(
            keys.admit(scope, &key, &this, 2).unwrap_err(),
            NotAdmitted::InFlight
        );
        assert_eq!(
            keys.admit(scope, &key, &that, 2).unwrap_err(),
            NotAdmitted::InFlight,
            "not known to run yet"
        );
        ticket.running(this);
        assert_eq!(
            keys.admit(scope, &key, &this, 2).unwrap_err(),
            NotAdmitted::InFlight
        );
        assert_eq!(
            keys.admit(scope, &key, &that, 2).unwrap_err(),
            NotAdmitted::OtherInFlight
        );
        ticket.claiming();
        assert_eq!(
            keys.admit(scope, &key, &that, 2).unwrap_err(),
            NotAdmitted::InFlight
        );
        let other = keys
            .admit(Scope::new("u", "p", "o"), &key, &that, 2)
            .unwrap();
        assert_eq!(
            keys.admit(Scope::new("v", "p", "o"), &key, &that, 2)
                .unwrap_err(),
            NotAdmitted::Full
        );
        drop((ticket, other));
        assert!(keys.keys().places.is_empty());
        assert!(keys.admit(scope, &key, &that, 2).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_let_in_when_the_ticket_is_gone_and_told_when_it_is_not() {
        let keys = InFlight::default();
        let (scope, key, this) = (
            Scope::new("t", "p", "o"),
            Key::new("k").unwrap(),
            of("this"),
        );
        let ticket = keys.admit(scope, &key, &this, 1).unwrap();
        let by = |seconds| Some(Instant::now() + Duration::from_secs(seconds));
        let waiting = tokio::spawn({
            let (keys, key) = (keys.clone(), key.clone());
            async move { keys.admit_by(by(60), scope, &key, &this, 1).await }
        });
        while keys.keys().waiting == 0 {
            tokio::task::yield_now().await;
        }
        // As many may wait as may run.
        assert_eq!(
            keys.admit_by(by(1), scope, &key, &this, 1)
                .await
                .unwrap_err(),
            NotAdmitted::Full
        );
        drop(ticket);
        let ticket = waiting.await.unwrap().unwrap();
        assert_eq!(
            keys.admit_by(by(1), scope, &key, &this, 1)
                .await
                .unwrap_err(),
            NotAdmitted::InFlight,
            "in vain"
        );
        ticket.running(this);
        assert_eq!(
            keys.admit_by(by(1), scope, &key, &of("that"), 1)
                .await
                .unwrap_err(),
            NotAdmitted::OtherInFlight
        );
        assert_eq!(keys.keys().waiting, 0, "nobody is left waiting");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_wait_waits_for_the_stores_word_alone() {
        let keys = InFlight::default();
        let (scope, key) = (Scope::new("t", "p", "o"), Key::new("k").unwrap());
        let [this, that] = ["this", "that"].map(of);
        let spawn = |fingerprint: Fingerprint| {
            let (keys, key) = (keys.clone(), key.clone());
            tokio::spawn(async move { keys.admit_by(None, scope, &key, &fingerprint, 9).await })
        };
        let waiting = async |number| {
            while keys.keys().waiting < number {
                tokio::task::yield_now().await;
            }
        };
        let ticket = keys.admit(scope, &key, &this, 9).unwrap();
        let (same, other) = (spawn(this), spawn(that));
        waiting(2).await;
        ticket.running(this);
        assert_eq!(same.await.unwrap().unwrap_err(), NotAdmitted::InFlight);
        assert_eq!(
            other.await.unwrap().unwrap_err(),
            NotAdmitted::OtherInFlight
        );
        assert_eq!(
            spawn(this).await.unwrap().unwrap_err(),
            NotAdmitted::InFlight
        );

        // It commits: those who come now are let in one after another, for the answer is there.
        ticket.claiming();
        let late = [spawn(this), spawn(this)];
        waiting(2).await;
        drop(ticket);
        for late in late {
            drop(late.await.unwrap().unwrap());
        }
        // A store that does not answer keeps nobody for long.
        let _silent = keys.admit(scope, &key, &this, 9).unwrap();
        let since = Instant::now();
        assert_eq!(
            spawn(this).await.unwrap().unwrap_err(),
            NotAdmitted::InFlight
        );
        assert_eq!(since.elapsed(), PATIENCE);
        assert_eq!(keys.keys().waiting, 0, "nobody is left waiting");
    }
}
