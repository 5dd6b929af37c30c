//! The audit: three books compared, the fleet's, the service's and the consumer's. Pure.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

/// What the fleet was told about one logical call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Names the call across all books: each call has a reference of its own.
    pub reference: String,
    /// What came of it, as far as the caller knows.
    pub told: Told,
    /// The provider's notice that it is settled was acknowledged.
    pub settled: bool,
}

/// The truth as told to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// 201, with this id.
    Accepted(Uuid),
    /// A problem that says that nothing was done.
    Refused,
    /// Nobody ever said.
    Nothing,
}

/// A payment as the service lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: Uuid,
    /// Its reference.
    pub reference: String,
    /// It is shown as settled.
    pub settled: bool,
}

/// An event that the consumer applied; effects stand in the order of their application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Whose payment.
    pub payment: Uuid,
    /// The type of the event.
    pub kind: String,
}

/// What the consumer calls the birth of a payment.
pub const CREATED: &str = "payment.created";
/// What it calls its settlement.
pub const SETTLED: &str = "payment.settled";

/// What the comparison found. All zero is clean.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged calls without a payment.
    pub payments_lost: usize,
    /// Calls with more than one payment.
    pub payments_double: usize,
    /// Payments that nobody asked for, or that the caller was told do not exist.
    pub payments_untold: usize,
    /// Payments whose listing skipped, repeated or misordered a row.
    pub listing_wrong: usize,
    /// Settlements that were acknowledged and are not shown.
    pub settlements_lost: usize,
    /// Events that were never applied.
    pub effects_lost: usize,
    /// Events that were applied more than once.
    pub effects_double: usize,
    /// Payments whose events were applied in the wrong order.
    pub out_of_order: usize,
    /// Calls whose outcome nobody ever told.
    pub unresolved: usize,
}

impl Verdict {
    /// Nothing was found.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// Everything that was found, under the four headings of the report.
    pub const fn findings(&self) -> [(&'static str, [(usize, &'static str); 3]); 4] {
        const NONE: (usize, &str) = (0, "");
        [
            (
                "lost",
                [
                    (self.payments_lost, "acknowledged payments are not there"),
                    (
                        self.settlements_lost,
                        "acknowledged settlements are not there",
                    ),
                    (self.effects_lost, "events were never applied"),
                ],
            ),
            (
                "double",
                [
                    (
                        self.payments_double,
                        "payments exist again under the same reference",
                    ),
                    (
                        self.payments_untold,
                        "payments exist that were refused or never asked for",
                    ),
                    (self.effects_double, "events were applied again"),
                ],
            ),
            (
                "out of order",
                [
                    (
                        self.out_of_order,
                        "payments were settled downstream before they were created",
                    ),
                    (self.listing_wrong, "rows appeared on two pages"),
                    NONE,
                ],
            ),
            (
                "unresolved",
                [
                    (self.unresolved, "calls never heard what came of them"),
                    NONE,
                    NONE,
                ],
            ),
        ]
    }
}

/// Compares the books. Empty books agree and prove nothing: whoever calls this looks that there was something to compare.
pub fn audit(calls: &[Call], payments: &[Listed], effects: &[Effect]) -> Verdict {
    let mut verdict = Verdict::default();

    let mut ids_of: HashMap<&str, Vec<Uuid>> = HashMap::new();
    let mut listed: HashMap<Uuid, &Listed> = HashMap::new();
    for payment in payments {
        if listed.insert(payment.id, payment).is_some() {
            verdict.listing_wrong += 1; // the same row on two pages
        } else {
            ids_of
                .entry(&payment.reference)
                .or_default()
                .push(payment.id);
        }
    }

    let asked: HashSet<&str> = calls.iter().map(|call| call.reference.as_str()).collect();
    verdict.payments_untold += payments
        .iter()
        .filter(|payment| !asked.contains(payment.reference.as_str()))
        .count();
    let mut must_be_settled = HashSet::new();
    for call in calls {
        let ids = ids_of
            .get(call.reference.as_str())
            .map_or(&[][..], Vec::as_slice);
        verdict.payments_double += ids.len().saturating_sub(1);
        match call.told {
            Told::Accepted(id) => {
                verdict.payments_lost += usize::from(!ids.contains(&id));
                if call.settled {
                    must_be_settled.insert(id);
                    verdict.settlements_lost +=
                        usize::from(listed.get(&id).is_some_and(|payment| !payment.settled));
                }
            }
            Told::Refused => verdict.payments_untold += ids.len(),
            Told::Nothing => verdict.unresolved += 1,
        }
    }

    let mut applied: HashMap<(Uuid, &str), (usize, usize)> = HashMap::new(); // how often, and where first
    for (at, effect) in effects.iter().enumerate() {
        applied
            .entry((effect.payment, effect.kind.as_str()))
            .or_insert((0, at))
            .0 += 1;
    }
    verdict.effects_double += applied.values().map(|(times, _)| times - 1).sum::<usize>();
    for id in listed.keys() {
        let created = applied.get(&(*id, CREATED));
        let settled = applied.get(&(*id, SETTLED));
        verdict.effects_lost += usize::from(created.is_none());
        verdict.effects_lost += usize::from(settled.is_none() && must_be_settled.contains(id));
        if let (Some((_, created)), Some((_, settled))) = (created, settled) {
            verdict.out_of_order += usize::from(settled < created);
        }
    }
    verdict.effects_double += applied
        .keys()
        .filter(|(id, _)| !listed.contains_key(id))
        .count(); // events of payments that do not exist
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }
    fn call(n: u128, told: Told) -> Call {
        Call {
            reference: format!("r{n}"),
            told,
            settled: true,
        }
    }
    fn listed(n: u128) -> Listed {
        Listed {
            id: id(n),
            reference: format!("r{n}"),
            settled: true,
        }
    }
    fn effect(n: u128, kind: &str) -> Effect {
        Effect {
            payment: id(n),
            kind: kind.to_owned(),
        }
    }
    fn good() -> (Vec<Call>, Vec<Listed>, Vec<Effect>) {
        (
            vec![
                call(1, Told::Accepted(id(1))),
                call(2, Told::Accepted(id(2))),
            ],
            vec![listed(1), listed(2)],
            vec![
                effect(1, CREATED),
                effect(2, CREATED),
                effect(2, SETTLED),
                effect(1, SETTLED),
            ],
        )
    }

    #[test]
    fn books_that_agree_are_clean() {
        let (calls, payments, effects) = good();
        assert!(audit(&calls, &payments, &effects).is_clean());
    }

    #[test]
    fn each_way_to_be_wrong_has_its_own_figure() {
        type Spoil = fn(&mut Vec<Call>, &mut Vec<Listed>, &mut Vec<Effect>);
        let cases: [(&str, Spoil, Verdict); 9] = [
            (
                "payment gone",
                |_, p, e| {
                    p.remove(0);
                    e.retain(|e| e.payment != id(1));
                },
                Verdict {
                    payments_lost: 1,
                    ..Verdict::default()
                },
            ),
            (
                "payment twice",
                |_, p, e| {
                    p.push(Listed {
                        id: id(9),
                        reference: "r1".into(),
                        settled: false,
                    });
                    e.push(effect(9, CREATED));
                },
                Verdict {
                    payments_double: 1,
                    ..Verdict::default()
                },
            ),
            (
                "refused, yet there",
                |c, _, _| c[0].told = Told::Refused,
                Verdict {
                    payments_untold: 1,
                    ..Verdict::default()
                },
            ),
            (
                "row on two pages",
                |_, p, _| p.push(p[0].clone()),
                Verdict {
                    listing_wrong: 1,
                    ..Verdict::default()
                },
            ),
            (
                "settlement gone",
                |_, p, _| p[0].settled = false,
                Verdict {
                    settlements_lost: 1,
                    ..Verdict::default()
                },
            ),
            (
                "event gone",
                |_, _, e| {
                    e.remove(3);
                },
                Verdict {
                    effects_lost: 1,
                    ..Verdict::default()
                },
            ),
            (
                "event twice",
                |_, _, e| e.push(effect(1, CREATED)),
                Verdict {
                    effects_double: 1,
                    ..Verdict::default()
                },
            ),
            (
                "order swapped",
                |_, _, e| e.swap(1, 2),
                Verdict {
                    out_of_order: 1,
                    ..Verdict::default()
                },
            ),
            (
                "nobody told",
                |c, _, _| c[0].told = Told::Nothing,
                Verdict {
                    unresolved: 1,
                    ..Verdict::default()
                },
            ),
        ];
        for (name, spoil, expected) in cases {
            let (mut calls, mut payments, mut effects) = good();
            spoil(&mut calls, &mut payments, &mut effects);
            assert_eq!(audit(&calls, &payments, &effects), expected, "{name}");
        }
    }

    #[test]
    fn an_event_of_a_payment_that_does_not_exist_is_an_effect_too_many() {
        let (calls, payments, mut effects) = good();
        effects.push(effect(7, CREATED));
        assert_eq!(
            audit(&calls, &payments, &effects),
            Verdict {
                effects_double: 1,
                ..Verdict::default()
            }
        );
    }
}
