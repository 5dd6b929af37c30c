//! Which sink takes a topic, and whether that sink may be asked.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use mainstay_retry::Backoff;
use tokio::time::Instant;

use super::BuildError;
use crate::{
    gate::{Gate, Pass},
    message::Message,
    plan::Way,
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
    pub(super) pattern: String,
    pub(super) sink: Arc<dyn DynSink>,
    pub(super) gate: Gate,
}

impl Routes {
    pub(super) fn add(
        &mut self,
        pattern: &str,
        sink: impl Sink,
        backoff: Backoff,
    ) -> Result<(), BuildError> {
        let stem = pattern.strip_suffix('*').unwrap_or(pattern);
        if pattern.is_empty() || stem.contains('*') {
            return Err(BuildError::Pattern(pattern.to_owned()));
        }
        if self.0.iter().any(|route| route.pattern == pattern) {
            return Err(BuildError::Duplicate(pattern.to_owned()));
        }
        self.0.push(Route {
            pattern: pattern.to_owned(),
            sink: Arc::new(sink),
            gate: Gate::new(backoff),
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

    pub(super) fn sink(&self, route: usize) -> Option<Arc<dyn DynSink>> {
        self.0.get(route).map(|route| Arc::clone(&route.sink))
    }

    /// The way of a topic: by the longest pattern that fits, an exact one before any prefix.
    pub(super) fn way(&self, topic: &str, now: Instant) -> Way {
        let fitting = self.0.iter().enumerate().filter_map(|(at, route)| {
            let exact = route.pattern == topic;
            let prefix = route
                .pattern
                .strip_suffix('*')
                .is_some_and(|stem| topic.starts_with(stem));
            (exact || prefix).then_some(((exact, route.pattern.len()), at, route))
        });
        match fitting.max_by_key(|(rank, ..)| *rank) {
            Some((_, at, route)) => Way::Route {
                route: at,
                pass: route.gate.pass(now),
            },
            None => Way::None,
        }
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

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|route| &route.pattern))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let way = |topic| match routes.way(topic, Instant::now()) {
            Way::Route { route, .. } => route,
            Way::None => panic!("{topic} has no way"),
        };
        assert_eq!(
            ["x", "hooks.b", "hooks.a", "hooks.ab"].map(way),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn patterns_that_cannot_be_meant_are_refused() {
        assert!(matches!(routes(&["a*b"]), Err(BuildError::Pattern(_))));
        assert!(matches!(routes(&[""]), Err(BuildError::Pattern(_))));
        assert!(matches!(routes(&["a", "a"]), Err(BuildError::Duplicate(_))));
    }
}
