//! Breadth first, so that the first way to a broken promise is a shortest one.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;

pub trait Model {
    type State: Clone + Eq + Hash + Debug;

    fn start(&self) -> Self::State;
    /// Everything that may happen next, with what it is called.
    fn next(&self, state: &Self::State) -> Vec<(String, Self::State)>;
    /// Which promise does not hold here.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
}

/// How a promise is broken.
#[derive(Debug)]
pub struct Way {
    pub broken: &'static str,
    pub steps: Vec<String>,
}

/// The number of states that were reached, all of them sound; or the shortest way to one that is not.
pub fn explore<M: Model>(model: &M) -> Result<usize, Way> {
    let start = model.start();
    let mut came_from: HashMap<M::State, Option<(M::State, String)>> =
        HashMap::from([(start.clone(), None)]);
    let mut to_visit = VecDeque::from([start]);
    while let Some(state) = to_visit.pop_front() {
        if let Some(broken) = model.broken(&state) {
            let mut steps = Vec::new();
            let mut at = &state;
            while let Some(Some((before, step))) = came_from.get(at) {
                steps.push(step.clone());
                at = before;
            }
            steps.reverse();
            return Err(Way { broken, steps });
        }
        for (step, next) in model.next(&state) {
            if !came_from.contains_key(&next) {
                came_from.insert(next.clone(), Some((state.clone(), step)));
                to_visit.push_back(next);
            }
        }
    }
    Ok(came_from.len())
}
