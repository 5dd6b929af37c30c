//! How failures are logged: each once, at the level of its category, with the chain of its causes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::Level;

use crate::{Category, Error, Problem};

/// The `tracing` target of the log line of a failure.
const TARGET: &str = "mainstay_errors";

/// How loud each category is.
///
/// The default is the category's own [`level`](Category::level): a caller's mistake is `debug` or
/// `info`, a timeout is `warn`, a bug is `error`.
#[derive(Debug, Clone)]
pub struct LogPolicy {
    levels: [Option<Level>; Category::ALL.len()],
}

impl LogPolicy {
    /// Logs failures of this category at another level.
    #[must_use]
    pub fn level(mut self, category: Category, level: Level) -> Self {
        self.set(category, Some(level));
        self
    }

    /// Does not log failures of this category.
    #[must_use]
    pub fn silence(mut self, category: Category) -> Self {
        self.set(category, None);
        self
    }

    fn set(&mut self, category: Category, level: Option<Level>) {
        if let Some(slot) = self.levels.get_mut(category as usize) {
            *slot = level;
        }
    }

    /// Writes the line. Field names follow OpenTelemetry; no field is called `error`, which would mark
    /// the span of a mere 404 as failed.
    pub(crate) fn log(&self, problem: &Problem, error: Option<&Error>) {
        let category = problem.category();
        let Some(level) = self.levels.get(category as usize).copied().flatten() else {
            return;
        };
        // One arm a level, because a level is part of the static call site; the chain is only built
        // when somebody listens.
        macro_rules! line {
            ($level:expr) => {
                if tracing::enabled!(target: TARGET, $level) {
                    let chain = error.map(chain);
                    tracing::event!(
                        target: TARGET,
                        $level,
                        "error.type" = problem.code(),
                        "error.chain" = chain,
                        category = category.as_str(),
                        status = problem.status(),
                        retry = problem.retry().as_str(),
                        outcome = problem.outcome().as_str(),
                        request_id = problem.request_id().map(crate::RequestId::as_str),
                        "request failed"
                    );
                }
            };
        }
        match level {
            Level::ERROR => line!(Level::ERROR),
            Level::WARN => line!(Level::WARN),
            Level::INFO => line!(Level::INFO),
            Level::DEBUG => line!(Level::DEBUG),
            Level::TRACE => line!(Level::TRACE),
        }
    }
}

/// The causes as one text. They are shown by code of the application, outside its future: a panic there would
/// take the answer with it.
fn chain(error: &Error) -> String {
    catch_unwind(AssertUnwindSafe(|| error.chain().join(": ")))
        .unwrap_or_else(|_| "a cause that panics when it is shown".to_owned())
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self {
            levels: Category::ALL.map(|category| Some(category.level())),
        }
    }
}
