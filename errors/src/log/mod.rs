//! How failures are logged: each once, at the level of its category, with the chain of its causes, and
//! no more of one kind than a person can read.

mod rate;
mod span;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

use self::rate::{Rate, Windows};
use crate::{Category, Error, Problem};

/// The `tracing` target of the log line of a failure.
const TARGET: &str = "mainstay_errors";

/// How loud each category is, and how often one code may repeat itself.
///
/// The default is the category's own [`level`](Category::level): a caller's mistake is `debug` or
/// `info`, a timeout is `warn`, a bug is `error`; and [`LINES_PER_SECOND`](Self::LINES_PER_SECOND) lines of
/// one code. A dependency that is down fails every request in the same way: the tenth line of a second says
/// what the first said, and ten thousand of them cost more than the failure. The next line that passes says
/// in `suppressed` how many did not.
///
/// Clones share one count, so that the many copies which axum makes of a layer are one voice.
///
/// # Spans
///
/// With each failure, whatever its level, `error.type` (the code) is recorded on the current span and on the
/// one in which the [`Error`] was made, and for a 5xx `otel.status_code` is `ERROR`; a 4xx leaves the status
/// unset and nothing ever writes a description, as the OpenTelemetry conventions for HTTP servers ask. A span
/// takes only fields it was declared with, so the span of the request needs them, and the layer that opens it
/// must be outside [`ProblemLayer`](crate::ProblemLayer):
///
/// ```
/// # let request = http::Request::new(());
/// let span = tracing::info_span!(
///     "request",
///     otel.kind = "server",
///     http.request.method = %request.method(),
///     error.type = tracing::field::Empty,
///     otel.status_code = tracing::field::Empty,
/// );
/// # let _ = span;
/// ```
///
/// The line is a child of the span in which the [`Error`] was made, so that it stands in the trace where the
/// failure happened. No field is called `error`, which would mark the span of a mere 404 as failed; so would
/// an event at the level `error`, which is why no 4xx has that level by default.
#[derive(Debug, Clone)]
pub struct LogPolicy {
    levels: [Option<Level>; Category::ALL.len()],
    rate: Option<Rate>,
    windows: Arc<Mutex<Windows>>,
}

impl LogPolicy {
    /// How many lines of one code pass in a second unless [`at_most`](Self::at_most) says otherwise: enough to
    /// see several callers and causes of one failure, and with 256 codes in an outage still under three
    /// thousand lines a second.
    pub const LINES_PER_SECOND: u32 = 10;

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

    /// Lets at most this many lines of one code pass in each period, counted from the first of them. Of no
    /// lines it makes one, because [`silence`](Self::silence) says that better; a period of zero has no limit.
    ///
    /// 256 codes are counted one by one; all others, which only documents of other services can
    /// bring, share one count.
    #[must_use]
    pub fn at_most(mut self, lines: u32, per: Duration) -> Self {
        self.rate = (per > Duration::ZERO).then_some(Rate {
            lines: lines.max(1),
            per,
        });
        self
    }

    /// Lets every line pass, for a log that limits by itself.
    #[must_use]
    pub fn unlimited(mut self) -> Self {
        self.rate = None;
        self
    }

    fn set(&mut self, category: Category, level: Option<Level>) {
        if let Some(slot) = self.levels.get_mut(category as usize) {
            *slot = level;
        }
    }

    /// Logs an error where it ends: in a job, in a consumer, wherever no layer answers it. One that is
    /// returned to [`ProblemLayer`](crate::ProblemLayer) is logged there; logging it here too would say it twice.
    ///
    /// ```
    /// use mainstay_errors::{Error, LogPolicy};
    ///
    /// # fn settle() -> Result<(), Error> { Ok(()) }
    /// let policy = LogPolicy::default();
    /// if let Err(error) = settle() {
    ///     policy.log_error(&error.context("settling the day"));
    /// }
    /// ```
    pub fn log_error(&self, error: &Error) {
        self.log(&error.to_problem(), Some(error));
    }

    /// Marks the spans and writes the line, if its turn has come. Field names follow OpenTelemetry.
    pub(crate) fn log(&self, problem: &Problem, error: Option<&Error>) {
        let parent = span::mark(problem, error);
        let category = problem.category();
        let Some(level) = self.levels.get(category as usize).copied().flatten() else {
            return;
        };
        // One arm a level, because a level is part of the static call site; the chain is only built
        // when somebody listens.
        macro_rules! line {
            ($level:expr) => {
                if tracing::enabled!(target: TARGET, $level)
                    && let Some(suppressed) = self.turn(problem.code())
                {
                    let chain = error.map(chain);
                    tracing::event!(
                        target: TARGET,
                        parent: parent,
                        $level,
                        "error.type" = problem.code(),
                        "error.chain" = chain,
                        category = category.as_str(),
                        status = problem.status(),
                        retry = problem.retry().as_str(),
                        outcome = problem.outcome().as_str(),
                        request_id = problem.request_id().map(crate::RequestId::as_str),
                        suppressed = (suppressed > 0).then_some(suppressed),
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

    /// Whether a line of this code may pass now, and how many before it did not.
    fn turn(&self, code: &str) -> Option<u64> {
        let Some(rate) = self.rate else {
            return Some(0);
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "how many lines pass a second; no answer hangs on it"
        )]
        let now = Instant::now();
        // Counts are right after every statement, so a panic elsewhere cannot have broken them.
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.turn(code, now, rate)
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
            rate: Some(Rate {
                lines: Self::LINES_PER_SECOND,
                per: Duration::from_secs(1),
            }),
            windows: Arc::default(),
        }
    }
}
