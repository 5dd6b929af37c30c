//! The keys that this process is working on. A duplicate that arrives meanwhile is answered from here, so a storm on
//! one key takes one connection and not one each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Fingerprint, Key, Scope};

/// Keys in flight, at most `max` of them. Clones share the same keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashMap<(Scope, Key), Stage>>>);

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
pub(crate) struct Ticket {
    all: InFlight,
    place: (Scope, Key),
}

impl InFlight {
    pub(crate) fn admit(
        &self,
        scope: Scope,
        key: &Key,
        fingerprint: &Fingerprint,
        max: usize,
    ) -> Result<Ticket, NotAdmitted> {
        let place = (scope, key.clone());
        let mut keys = self.keys();
        match keys.get(&place) {
            Some(Stage::Running(other)) if !other.matches(fingerprint) => {
                return Err(NotAdmitted::OtherInFlight);
            }
            Some(_) => return Err(NotAdmitted::InFlight),
            None if keys.len() >= max => return Err(NotAdmitted::Full),
            None => keys.insert(place.clone(), Stage::Claiming),
        };
        Ok(Ticket {
            all: self.clone(),
            place,
        })
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<(Scope, Key), Stage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Some(stage) = self.all.keys().get_mut(&self.place) {
            *stage = to;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.all.keys().remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_admitted_once_until_its_ticket_is_gone() {
        let keys = InFlight::default();
        let (scope, key) = (Scope::new("t", "p", "o"), Key::new("k").unwrap());
        let [this, that] = ["this", "that"].map(|body| Fingerprint::new("POST", "/", body));
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
        assert!(keys.keys().is_empty());
        assert!(keys.admit(scope, &key, &that, 2).is_ok());
    }
}
