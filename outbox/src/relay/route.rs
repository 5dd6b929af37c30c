//! Which sink takes a topic, and whether that sink may be asked.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use mainstay_retry::Backoff;
use tokio::time::Instant;

use super::BuildError;
use crate::{
    gate::{Gate, Pass},
    message::Message,
    pattern::Pattern,
    plan::{KeyPolicy, Way},
    sink::{LaneRef, Outcomes, Sink, SinkDown},
};

/// [`Sink`] behind a pointer: a relay has several, of different types.
pub(super) trait DynSink: Send + Sync + 'static {
    fn publish<'a>(
        &'a self,
        lane: LaneRef,
        batch: &'a [Message],
    ) -> BoxFuture<'a, Result<Outcomes, SinkDown>>;
}

impl<S: Sink> DynSink for S {
    fn publish<'a>(
        &'a self,
        lane: LaneRef,
        batch: &'a [Message],
    ) -> BoxFuture<'a, Result<Outcomes, SinkDown>> {
        Box::pin(Sink::publish(self, lane, batch))
    }
}

/// A relay's sinks, each behind its gate.
#[derive(Default)]
pub(super) struct Routes(Vec<Route>);

pub(super) struct Route {
    pub(super) pattern: Pattern,
    pub(super) sink: Arc<dyn DynSink>,
    pub(super) gate: Gate,
    /// Messages under way.
    pub(super) in_flight: usize,
}

impl Routes {
    pub(super) fn add(
        &mut self,
        pattern: &str,
        sink: impl Sink,
        backoff: Backoff,
    ) -> Result<(), BuildError> {
        let Some(parsed) = Pattern::parse(pattern) else {
            return Err(BuildError::Pattern(pattern.to_owned()));
        };
        if self.0.iter().any(|route| route.pattern == parsed) {
            return Err(BuildError::Duplicate(pattern.to_owned()));
        }
        self.0.push(Route {
            pattern: parsed,
            sink: Arc::new(sink),
            gate: Gate::new(backoff),
            in_flight: 0,
        });
        Ok(())
    }

    pub(super) fn set_backoff(&mut self, backoff: Backoff) {
        for route in &mut self.0 {
            route.gate = Gate::new(backoff);
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get_mut(&mut self, route: usize) -> Option<&mut Route> {
        self.0.get_mut(route)
    }

    /// As they were given to the builder.
    pub(super) fn topics(&self, route: usize) -> &str {
        self.0.get(route).map_or("", |route| route.pattern.as_str())
    }

    pub(super) fn sink(&self, route: usize) -> Option<Arc<dyn DynSink>> {
        self.0.get(route).map(|route| Arc::clone(&route.sink))
    }

    /// The way of a topic: by the longest pattern that fits, an exact one before any prefix. To each sink there may be `most`
    /// messages under way.
    pub(super) fn way(&self, topic: &str, most: usize, now: Instant) -> Way {
        let Some((at, route)) = self.of(topic) else {
            return Way::None;
        };
        let pass = match route.gate.pass(now) {
            _ if route.in_flight >= most => Pass::Shut,
            // It will soon be full again: what was passed meanwhile is not given up for that.
            Pass::Open if route.in_flight > most / 2 => Pass::Paced(u32::MAX),
            pass => pass,
        };
        Way::Route { route: at, pass }
    }

    /// How many more messages may be under way to each.
    pub(super) fn room(&self, most: usize) -> HashMap<usize, usize> {
        let routes = self.0.iter().enumerate();
        let room = |(at, route): (usize, &Route)| (at, most.saturating_sub(route.in_flight));
        routes.map(room).collect()
    }

    fn of(&self, topic: &str) -> Option<(usize, &Route)> {
        let all = self.0.iter().enumerate();
        let fitting = all.filter(|(_, route)| route.pattern.fits(topic));
        fitting.max_by_key(|(_, route)| route.pattern.rank())
    }

    /// The topics, as they were given to the builder, of the sinks that are not down as far as is known.
    pub(super) fn not_down(&self, now: Instant, long: Duration) -> impl Iterator<Item = &str> {
        let up = self
            .0
            .iter()
            .filter(move |route| !route.gate.is_down(now, long));
        up.map(|route| route.pattern.as_str())
    }

    pub(super) fn any_open(&self, now: Instant) -> bool {
        self.0
            .iter()
            .any(|route| route.gate.pass(now) == Pass::Open)
    }

    /// When the next probe is due, if every sink is shut; `None` when something may be claimed now.
    pub(super) fn all_shut_until(&self, now: Instant) -> Option<Instant> {
        let all = self
            .0
            .iter()
            .all(|route| route.gate.pass(now) == Pass::Shut);
        let until = self.0.iter().map(|route| route.gate.until(now)).min();
        until.filter(|_| all)
    }
}

/// What a message's failure means for its key, by topic.
#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    pub(super) default: KeyPolicy,
    rules: Vec<(Pattern, KeyPolicy)>,
}

impl Policies {
    pub(super) fn add(&mut self, pattern: &str, policy: KeyPolicy) -> Result<(), BuildError> {
        let Some(parsed) = Pattern::parse(pattern) else {
            return Err(BuildError::Pattern(pattern.to_owned()));
        };
        self.rules.retain(|(known, _)| *known != parsed);
        self.rules.push((parsed, policy));
        Ok(())
    }

    /// By the most specific pattern that fits.
    pub(super) fn of(&self, topic: &str) -> KeyPolicy {
        let fitting = self.rules.iter().filter(|(pattern, _)| pattern.fits(topic));
        fitting
            .max_by_key(|(pattern, _)| pattern.rank())
            .map_or(self.default, |(_, policy)| *policy)
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|route| &route.pattern))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::MemorySink;

    fn routes(patterns: &[&str]) -> Result<Routes, BuildError> {
        let mut routes = Routes::default();
        for pattern in patterns {
            routes.add(
                pattern,
                MemorySink::new(),
                Backoff::constant(Duration::ZERO),
            )?;
        }
        Ok(routes)
    }

    #[tokio::test]
    async fn the_most_specific_pattern_wins() {
        let routes = routes(&["*", "hooks.*", "hooks.a", "hooks.a*"]).unwrap();
        let way = |topic| match routes.way(topic, 1, Instant::now()) {
            Way::Route { route, .. } => route,
            Way::None => panic!("{topic} has no way"),
        };
        assert_eq!(
            ["x", "hooks.b", "hooks.a", "hooks.ab"].map(way),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn the_most_specific_policy_wins_and_the_last_word_of_one_pattern() {
        let mut policies = Policies::default();
        for (pattern, policy) in [
            ("hooks.*", KeyPolicy::Park),
            ("hooks.a", KeyPolicy::Block),
            ("hooks.*", KeyPolicy::Skip),
        ] {
            policies.add(pattern, policy).unwrap();
        }
        assert_eq!(policies.of("hooks.b"), KeyPolicy::Skip);
        assert_eq!(policies.of("hooks.a"), KeyPolicy::Block);
        assert_eq!(policies.of("other"), KeyPolicy::Block);
        assert!(policies.add("a*b", KeyPolicy::Skip).is_err());
    }

    #[test]
    fn patterns_that_cannot_be_meant_are_refused() {
        assert!(matches!(routes(&["a*b"]), Err(BuildError::Pattern(_))));
        assert!(matches!(routes(&[""]), Err(BuildError::Pattern(_))));
        assert!(matches!(routes(&["a", "a"]), Err(BuildError::Duplicate(_))));
    }
}
