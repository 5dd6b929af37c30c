//! One lane of the claim engine: three messages, two relays, and what the statements of the store do to each other.
//!
//! Ids are drawn in order; transactions commit in any. Message 0 has a key of its own. Messages 1 and 2 share one, and the
//! rule that puts their writers in order (a row lock, or the key's lock) keeps 2 from being drawn before 1 has ended.

use super::search;

pub const MESSAGES: usize = 3;
const ATTEMPTS_MAX: u8 = 2;

/// The engine, and which of its rules are kept. All are, in [`Model::default`].
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// What may go wrong, how often.
    pub budget: Budget,
    /// Relays write only in the epoch in which they were given the lane.
    pub fenced: bool,
    /// What was in flight when a lane changes hands is charged an attempt.
    pub charges: bool,
    /// Used-up messages are claimed, to be given up; peers filter them out of the claim.
    pub claims_used_up: bool,
    /// A message that waits holds back its key.
    pub blocks: bool,
    /// After a message that failed, later ones of its key are not tried in that batch.
    pub cuts: bool,
    /// The mark passes an id only when those who may have drawn a lower one have ended, or are remembered.
    pub mark_waits: bool,
    /// And only as far as a look has come that saw them ended.
    pub mark_looks_again: bool,
    /// Putting back a dead letter sends the marks back to the start.
    pub rewinds: bool,
    /// A lane is given back only when nothing of it is in flight.
    pub releases_idle: bool,
    /// And what is recorded there all the same, by a record whose answer was lost, is forgotten.
    pub releases_forget: bool,
    /// What was settled and has no record is not written again.
    pub settles_once: bool,
    /// The key of a message that was given up is parked: what follows it is set aside.
    pub parks: bool,
    /// A message is set aside only while its key is still parked when that is written down.
    pub parks_by_row: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            fenced: true,
            charges: true,
            claims_used_up: true,
            blocks: true,
            cuts: true,
            mark_waits: true,
            mark_looks_again: true,
            rewinds: true,
            releases_idle: true,
            releases_forget: true,
            settles_once: true,
            parks: false,
            parks_by_row: true,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub kills: u8,
    pub pauses: u8,
    pub refusals: u8,
    pub rollbacks: u8,
    pub releases: u8,
    pub redrives: u8,
    /// Statements that take effect and whose answers are lost.
    pub lost: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Row {
    Unborn,
    /// Its transaction is open.
    Drawn,
    RolledBack,
    Pending {
        attempts: u8,
        waits: bool,
        suspect: bool,
    },
    Delivered,
    Dead,
}

/// Message 0 has a key, 1 and 2 have another.
fn key(message: usize) -> u8 {
    u8::from(message > 0)
}

/// Messages as bits.
type Set = u8;

fn has(set: Set, message: usize) -> bool {
    set & (1 << message) != 0
}

fn put(set: &mut Set, message: usize) {
    *set |= 1 << message;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Idle,
    /// Candidates were read; nothing is written yet.
    Looked {
        take: Set,
        dead: Set,
        park: Set,
        head: u8,
    },
    Publishing {
        batch: Set,
        dead: Set,
        park: Set,
        acked: Set,
        refused: Set,
        untried: Set,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Relay {
    epoch: Option<u8>,
    step: Step,
    mark: u8,
    /// The next mark, and the writers that have to end first.
    next: Option<(u8, Set)>,
    /// Writers the mark has passed.
    stragglers: Set,
    rewinds_seen: u8,
}

const FRESH: Relay = Relay {
    epoch: None,
    step: Step::Idle,
    mark: 0,
    next: None,
    stragglers: 0,
    rewinds_seen: 0,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lane {
    owner: Option<u8>,
    live: bool,
    epoch: u8,
    in_flight: Set,
    /// Whether there is a record, even if nothing is in flight.
    recorded: bool,
    rewinds: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    rows: [Row; MESSAGES],
    lane: Lane,
    relays: [Relay; 2],
    parked: bool,
    /// Set aside because their key was parked.
    aside: Set,
    left: Budget,
    // What an observer saw.
    deliveries: [u8; MESSAGES],
    /// Dead letters that were put back: those after them had been let go on.
    redriven: Set,
    /// Of those the ones that were not published since.
    put_back: Set,
    /// Attempts that ended badly since the message was last put in its place.
    spent: [u8; MESSAGES],
    faults: u8,
    broken: Option<&'static str>,
}

impl State {
    fn pending(&self, message: usize) -> Option<(u8, bool, bool)> {
        match self.rows[message] {
            Row::Pending {
                attempts,
                waits,
                suspect,
            } => Some((attempts, waits, suspect)),
            _ => None,
        }
    }

    fn owns(&self, relay: usize) -> bool {
        let epoch = self.relays[relay].epoch;
        self.lane.owner == Some(relay as u8) && epoch == Some(self.lane.epoch)
    }

    fn open_writers(&self) -> Set {
        let mut set = 0;
        for message in 0..MESSAGES {
            if self.rows[message] == Row::Drawn {
                put(&mut set, message);
            }
        }
        set
    }

    /// Whether an earlier message of its key is on its way and `test`s so.
    fn earlier(&self, message: usize, test: impl Fn(usize) -> bool) -> bool {
        (0..message).any(|other| key(other) == key(message) && test(other))
    }
}

impl search::Model for Model {
    type State = State;

    fn start(&self) -> State {
        State {
            rows: [Row::Unborn; MESSAGES],
            lane: Lane {
                owner: None,
                live: false,
                epoch: 0,
                in_flight: 0,
                recorded: false,
                rewinds: 0,
            },
            relays: [FRESH; 2],
            parked: false,
            aside: 0,
            left: self.budget,
            deliveries: [0; MESSAGES],
            redriven: 0,
            put_back: 0,
            spent: [0; MESSAGES],
            faults: 0,
            broken: None,
        }
    }

    fn next(&self, state: &State) -> Vec<(String, State)> {
        let mut next = Vec::new();
        self.writers(state, &mut next);
        self.surroundings(state, &mut next);
        for relay in 0..2 {
            self.relay(state, relay, &mut next);
        }
        next
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        if state.broken.is_some() {
            return state.broken;
        }
        if state.aside != 0 && !state.parked {
            return Some("set aside for ever");
        }
        let too_much = |message: usize| {
            let attempts = state.pending(message).map_or(0, |(attempts, ..)| attempts);
            attempts > state.spent[message]
        };
        if state.faults == 0 && (0..MESSAGES).any(too_much) {
            return Some("charged for an attempt that was not made");
        }
        let repeated: u8 = state.deliveries.iter().map(|n| n.saturating_sub(1)).sum();
        let redriven = self.budget.redrives - state.left.redrives;
        if repeated > (state.faults + redriven) * MESSAGES as u8 {
            return Some("more duplicates than kills and pauses explain");
        }
        // Nothing can happen any more, and yet something was to be delivered.
        let waiting = (0..MESSAGES).any(|message| state.pending(message).is_some());
        (waiting && self.next(state).is_empty()).then_some("stranded")
    }
}

impl Model {
    fn writers(&self, state: &State, next: &mut Vec<(String, State)>) {
        if let Some(message) = (0..MESSAGES).find(|&m| state.rows[m] == Row::Unborn)
            && !state.earlier(message, |other| state.rows[other] == Row::Drawn)
        {
            let mut to = *state;
            to.rows[message] = Row::Drawn;
            next.push((format!("draw {message}"), to));
        }
        for message in (0..MESSAGES).filter(|&m| state.rows[m] == Row::Drawn) {
            let mut to = *state;
            to.rows[message] = Row::Pending {
                attempts: 0,
                waits: false,
                suspect: false,
            };
            next.push((format!("commit {message}"), to));
            if state.left.rollbacks > 0 {
                let mut to = *state;
                to.left.rollbacks -= 1;
                to.rows[message] = Row::RolledBack;
                next.push((format!("roll back {message}"), to));
            }
        }
    }

    /// Time, kills, pauses and operators.
    fn surroundings(&self, state: &State, next: &mut Vec<(String, State)>) {
        for message in 0..MESSAGES {
            if let Some((attempts, true, suspect)) = state.pending(message) {
                let mut to = *state;
                to.rows[message] = Row::Pending {
                    attempts,
                    waits: false,
                    suspect,
                };
                next.push((format!("the wait of {message} ends"), to));
            }
        }
        if state.left.pauses > 0 && state.lane.live {
            let mut to = *state;
            to.left.pauses -= 1;
            to.faults += 1;
            to.lane.live = false;
            next.push(("the lease runs out".to_owned(), to));
        }
        for relay in 0..2 {
            if state.left.kills == 0 || state.relays[relay].epoch.is_none() {
                continue;
            }
            let mut to = *state;
            to.left.kills -= 1;
            to.faults += 1;
            let current = state.owns(relay);
            if current {
                to.lane.live = false;
            }
            if current
                && let Step::Publishing {
                    batch,
                    acked,
                    refused,
                    untried,
                    ..
                } = state.relays[relay].step
            {
                // Whichever it was at, an attempt of it is over.
                let at = batch & !acked & !refused & !untried;
                if at != 0 {
                    to.spent[at.trailing_zeros() as usize] += 1;
                }
            }
            to.relays[relay] = FRESH;
            next.push((format!("relay {relay} is killed"), to));
        }
        let letters: Vec<usize> = (0..MESSAGES)
            .filter(|&m| state.rows[m] == Row::Dead)
            .collect();
        if state.left.redrives > 0 && !letters.is_empty() {
            let mut to = *state;
            to.left.redrives -= 1;
            for message in letters {
                to.rows[message] = Row::Pending {
                    attempts: 0,
                    waits: false,
                    suspect: false,
                };
                to.spent[message] = 0;
                put(&mut to.put_back, message);
                if !self.parks {
                    put(&mut to.redriven, message);
                }
            }
            to.parked = false;
            to.aside = 0;
            if self.rewinds {
                to.lane.rewinds += 1;
            }
            next.push(("redrive".to_owned(), to));
        }
    }

    fn relay(&self, state: &State, at: usize, next: &mut Vec<(String, State)>) {
        let relay = state.relays[at];
        if relay.epoch.is_none() {
            if !state.lane.live {
                next.push((format!("relay {at} takes the lane"), self.take(state, at)));
            }
            return;
        }
        let current = state.owns(at);
        let mine = current || !self.fenced;
        if relay.rewinds_seen != state.lane.rewinds {
            let mut to = *state;
            to.relays[at].rewinds_seen = state.lane.rewinds;
            to.relays[at].mark = 0;
            to.relays[at].next = None;
            next.push((format!("relay {at} sees that it has to go back"), to));
        }
        self.marks(state, at, next);
        match relay.step {
            Step::Idle => {
                if let Some(looked) = self.look(state, at) {
                    let mut to = *state;
                    to.relays[at].step = looked;
                    next.push((format!("relay {at} looks"), to));
                    self.look_and_move(state, at, looked, next);
                }
                if state.left.releases > 0 && current {
                    let mut to = release(state, at);
                    if self.releases_forget {
                        to.lane.in_flight = 0;
                        to.lane.recorded = false;
                    }
                    next.push((format!("relay {at} gives the lane back"), to));
                }
            }
            Step::Looked {
                take,
                dead,
                park,
                head,
            } => {
                let mut to = *state;
                if mine {
                    to.lane.in_flight = take;
                    to.lane.recorded = true;
                    to.lane.live |= current;
                    if state.left.lost > 0 {
                        let mut to = to;
                        to.left.lost -= 1;
                        to.relays[at].step = Step::Idle;
                        next.push((format!("relay {at} records, and is not told"), to));
                    }
                    // Who could still bring something below the head has begun by now.
                    let seen = (head, state.open_writers());
                    to.relays[at].next.get_or_insert(seen);
                    to.relays[at].step = Step::Publishing {
                        batch: take,
                        dead,
                        park,
                        acked: 0,
                        refused: 0,
                        untried: 0,
                    };
                    if !self.mark_waits {
                        to.relays[at].mark = head;
                    }
                } else {
                    to.relays[at] = FRESH;
                }
                next.push((format!("relay {at} records"), to));
            }
            Step::Publishing {
                batch,
                acked,
                refused,
                untried,
                ..
            } => {
                let left = batch & !acked & !refused & !untried;
                if left == 0 {
                    let to = self.settle(state, at, mine);
                    if state.left.lost > 0 && mine {
                        let mut to = to;
                        to.left.lost -= 1;
                        to.relays[at].step = relay.step;
                        next.push((format!("relay {at} settles, and is not told"), to));
                    }
                    next.push((format!("relay {at} settles"), to));
                } else {
                    self.publish(state, at, left.trailing_zeros() as usize, next);
                }
                if state.left.releases > 0 && current && !self.releases_idle {
                    next.push((
                        format!("relay {at} gives the lane back"),
                        release(state, at),
                    ));
                }
            }
        }
    }

    fn take(&self, state: &State, at: usize) -> State {
        let mut to = *state;
        if self.charges {
            for message in (0..MESSAGES).filter(|&m| has(state.lane.in_flight, m)) {
                if let Some((attempts, waits, _)) = state.pending(message) {
                    to.rows[message] = Row::Pending {
                        attempts: attempts + 1,
                        waits,
                        suspect: true,
                    };
                }
            }
        }
        to.lane = Lane {
            owner: Some(at as u8),
            live: true,
            epoch: state.lane.epoch + 1,
            in_flight: 0,
            recorded: false,
            rewinds: state.lane.rewinds,
        };
        to.relays[at] = Relay {
            epoch: Some(to.lane.epoch),
            rewinds_seen: state.lane.rewinds,
            ..FRESH
        };
        to
    }

    /// A look that is to move the mark: it began at the old one, so it has seen whatever those who ended left below.
    fn look_and_move(
        &self,
        state: &State,
        at: usize,
        looked: Step,
        next: &mut Vec<(String, State)>,
    ) {
        let (Some((mark, writers)), Step::Looked { head, .. }) = (state.relays[at].next, looked)
        else {
            return;
        };
        let open = writers & state.open_writers();
        let mut to = *state;
        to.relays[at].step = looked;
        to.relays[at].next = None;
        to.relays[at].mark = mark.min(head);
        // After a while it does not wait for those who are slow, and remembers them.
        to.relays[at].stragglers |= open;
        let how = if open == 0 { "" } else { " past writers" };
        next.push((format!("relay {at} looks and moves its mark{how}"), to));
    }

    fn marks(&self, state: &State, at: usize, next: &mut Vec<(String, State)>) {
        let relay = state.relays[at];
        if let Some((mark, writers)) = relay.next
            && !self.mark_looks_again
            && writers & state.open_writers() == 0
        {
            let mut to = *state;
            to.relays[at].next = None;
            to.relays[at].mark = mark;
            next.push((format!("the mark of relay {at} moves"), to));
        }
        let ended = relay.stragglers & !state.open_writers();
        if ended != 0 {
            let mut to = *state;
            to.relays[at].stragglers &= !ended;
            to.relays[at].mark = 0;
            to.relays[at].next = None;
            next.push((format!("relay {at} looks for what a straggler left"), to));
        }
    }

    /// What the lane holds that is due; `None` when there is nothing to do.
    fn look(&self, state: &State, at: usize) -> Option<Step> {
        let from = usize::from(state.relays[at].mark);
        let (mut take, mut dead, mut park) = (0, 0, 0);
        let mut head = None;
        for message in from..MESSAGES {
            let Some((attempts, waits, suspect)) = state.pending(message) else {
                continue;
            };
            head.get_or_insert(message as u8);
            let held_back = |other| matches!(state.pending(other), Some((_, true, _)));
            let given_up = |other| has(dead, other);
            if waits
                || (self.blocks && state.earlier(message, held_back))
                || state.earlier(message, given_up)
            {
                continue;
            }
            if attempts >= ATTEMPTS_MAX {
                if self.claims_used_up {
                    put(&mut dead, message);
                }
            } else if state.parked && key(message) == 1 {
                put(&mut park, message);
            } else if suspect {
                if take == 0 {
                    put(&mut take, message);
                }
                break;
            } else {
                put(&mut take, message);
            }
        }
        (take != 0 || dead != 0 || park != 0).then(|| Step::Looked {
            take,
            dead,
            park,
            head: head.unwrap_or_default(),
        })
    }

    fn publish(&self, state: &State, at: usize, message: usize, next: &mut Vec<(String, State)>) {
        let mut to = *state;
        to.put_back &= !(1 << message);
        to.deliveries[message] = (state.deliveries[message] + 1).min(9);
        if state.spent[message] >= ATTEMPTS_MAX {
            to.broken = Some("tried more often than is allowed");
        }
        let overtaken = |other: usize| {
            let pending = matches!(state.rows[other], Row::Pending { .. });
            pending && state.deliveries[other] == 0 && !has(state.redriven, other)
        };
        if state.deliveries[message] == 0 && state.earlier(message, overtaken) {
            to.broken = Some("out of order");
        }
        let set_aside =
            |other: usize| state.deliveries[other] == 0 && state.rows[other] == Row::Dead;
        if self.parks && state.deliveries[message] == 0 && state.earlier(message, set_aside) {
            to.broken = Some("overtook what was set aside");
        }
        if matches!(state.rows[message], Row::RolledBack | Row::Drawn) {
            to.broken = Some("delivered what did not commit");
        }
        if let Step::Publishing { acked, .. } = &mut to.relays[at].step {
            put(acked, message);
        }
        next.push((format!("relay {at} delivers {message}"), to));
        if state.left.refusals > 0 {
            let mut to = *state;
            to.put_back &= !(1 << message);
            to.left.refusals -= 1;
            // A relay that lost its lane was charged when it did.
            to.spent[message] += u8::from(state.owns(at));
            if let Step::Publishing {
                batch,
                refused,
                untried,
                ..
            } = &mut to.relays[at].step
            {
                put(refused, message);
                for later in message + 1..MESSAGES {
                    if self.cuts && has(*batch, later) && key(later) == key(message) {
                        put(untried, later);
                    }
                }
            }
            next.push((format!("the sink refuses {message} of relay {at}"), to));
        }
    }

    fn settle(&self, state: &State, at: usize, mine: bool) -> State {
        let mut to = *state;
        let Step::Publishing {
            dead,
            park,
            acked,
            refused,
            ..
        } = state.relays[at].step
        else {
            return to;
        };
        if !mine {
            to.relays[at] = FRESH;
            return to;
        }
        to.relays[at].step = Step::Idle;
        if self.settles_once && !state.lane.recorded {
            return to;
        }
        to.lane.in_flight = 0;
        to.lane.recorded = false;
        for message in 0..MESSAGES {
            let Some((attempts, _, _)) = state.pending(message) else {
                continue;
            };
            let spent = attempts + 1;
            let given_up = has(dead, message) && attempts < ATTEMPTS_MAX;
            if has(state.put_back, message) && (has(acked | refused, message) || given_up) {
                to.broken = Some("a redrive was undone");
            }
            if has(acked, message) {
                to.rows[message] = Row::Delivered;
            } else if has(dead, message) || (has(refused, message) && spent >= ATTEMPTS_MAX) {
                to.rows[message] = Row::Dead;
                to.parked |= self.parks && key(message) == 1;
            } else if has(park, message) {
                if state.parked || !self.parks_by_row {
                    to.rows[message] = Row::Dead;
                    put(&mut to.aside, message);
                }
            } else if has(refused, message) {
                to.rows[message] = Row::Pending {
                    attempts: spent,
                    waits: true,
                    suspect: false,
                };
            }
        }
        to
    }
}

fn release(state: &State, at: usize) -> State {
    let mut to = *state;
    to.left.releases -= 1;
    to.lane.owner = None;
    to.lane.live = false;
    if matches!(state.relays[at].step, Step::Idle) {
        to.relays[at] = FRESH;
    }
    to
}
