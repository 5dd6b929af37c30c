//! The throttle of gRFC A6: a count that failures lower, and no retries while it is at half or less.

use std::{fmt, sync::Arc, time::Instant};

use super::{Budget, BudgetFault, InvalidBudget};
use crate::{
    sync::{AtomicU64, Ordering},
    verdict::{Kind, Verdict},
};

/// gRPC's retry throttle: each attempt that fails in a retryable way takes one token, each that succeeds adds
/// `token_ratio`, and retries are allowed while more than half of `max_tokens` is left.
///
/// Failures lower it whether they are retried or not, so it reacts to the share of failures and not to retries. It
/// starts full. One is meant for each server name.
///
/// ```
/// use mainstay_retry::GrpcThrottle;
///
/// let throttle = GrpcThrottle::new(10.0, 0.1)?; // the values that gRFC A6 uses as its example
/// assert!(throttle.allows());
/// # Ok::<(), mainstay_retry::InvalidBudget>(())
/// ```
pub struct GrpcThrottle {
    /// The three numbers that must change together: see [`Fill`].
    fill: AtomicU64,
}

/// In thousandths of a token, the grain of gRFC A6. Each is at most a million, which 20 bits hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fill {
    tokens: u64,
    max: u64,
    ratio: u64,
}

const TOKEN: u64 = 1_000;
const BITS: u32 = 20;
const MASK: u64 = (1 << BITS) - 1;

impl Fill {
    const fn unpack(word: u64) -> Self {
        Self {
            tokens: word & MASK,
            max: (word >> BITS) & MASK,
            ratio: (word >> (2 * BITS)) & MASK,
        }
    }

    const fn pack(self) -> u64 {
        self.tokens | self.max << BITS | self.ratio << (2 * BITS)
    }

    fn settings(max_tokens: f64, token_ratio: f64) -> Result<Self, InvalidBudget> {
        let max = thousandths(max_tokens);
        let ratio = thousandths(token_ratio);
        InvalidBudget::check([
            max.is_none().then_some(BudgetFault::MaxTokens(max_tokens)),
            ratio
                .is_none()
                .then_some(BudgetFault::TokenRatio(token_ratio)),
        ])?;
        let max = max.unwrap_or_default();
        Ok(Self {
            tokens: max,
            max,
            ratio: ratio.unwrap_or_default(),
        })
    }

    const fn allows(self) -> bool {
        self.tokens * 2 > self.max
    }
}

/// Tokens as thousandths, of which there must be at least one and at most a million.
fn thousandths(tokens: f64) -> Option<u64> {
    let thousandths = (tokens * TOKEN as f64).round();
    (1.0..=1e6)
        .contains(&thousandths)
        .then_some(thousandths as u64)
}

impl GrpcThrottle {
    /// A full throttle. Both numbers count to the third decimal.
    ///
    /// # Errors
    /// [`InvalidBudget`] when either is below 0.001, above 1,000 or not a number.
    pub fn new(max_tokens: f64, token_ratio: f64) -> Result<Self, InvalidBudget> {
        let fill = Fill::settings(max_tokens, token_ratio)?;
        Ok(Self {
            fill: AtomicU64::new(fill.pack()),
        })
    }

    /// [`new`](Self::new), ready to be handed to several layers.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn shared(max_tokens: f64, token_ratio: f64) -> Result<Arc<Self>, InvalidBudget> {
        Self::new(max_tokens, token_ratio).map(Arc::new)
    }

    /// Takes new settings, as from a service config that was read again. The new count is as full, in proportion, as
    /// the old one was.
    ///
    /// # Errors
    /// As [`new`](Self::new); nothing is changed then.
    pub fn reconfigure(&self, max_tokens: f64, token_ratio: f64) -> Result<(), InvalidBudget> {
        let new = Fill::settings(max_tokens, token_ratio)?;
        self.update(|old| Fill {
            tokens: new.max * old.tokens / old.max.max(1),
            ..new
        });
        Ok(())
    }

    /// Whether a retry would be allowed now.
    pub fn allows(&self) -> bool {
        self.now().allows()
    }

    /// The tokens now left.
    pub fn tokens(&self) -> f64 {
        self.now().tokens as f64 / TOKEN as f64
    }

    fn now(&self) -> Fill {
        Fill::unpack(self.fill.load(Ordering::Relaxed))
    }

    /// One atomic change; nothing is written when nothing changes.
    fn update(&self, change: impl Fn(Fill) -> Fill) {
        // Relaxed: the word guards no other memory.
        let mut word = self.fill.load(Ordering::Relaxed);
        loop {
            let next = change(Fill::unpack(word)).pack();
            if next == word {
                return;
            }
            match self
                .fill
                .compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
    }
}

impl Budget for GrpcThrottle {
    fn credit(&self, verdict: Verdict, _repeats: Option<Kind>) {
        match verdict {
            Verdict::Success => self.update(|fill| Fill {
                tokens: (fill.tokens + fill.ratio).min(fill.max),
                ..fill
            }),
            // A refusal to be asked again counts as the failure it came with.
            Verdict::Retryable(..) | Verdict::Failure(Kind::Throttled | Kind::Overloaded) => {
                self.update(|fill| Fill {
                    tokens: fill.tokens.saturating_sub(TOKEN),
                    ..fill
                });
            }
            Verdict::Failure(_) | Verdict::Ignore => {}
        }
    }

    fn try_spend(&self, _now: Instant, _kind: Kind) -> bool {
        self.allows()
    }
}

impl fmt::Debug for GrpcThrottle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fill { tokens, max, ratio } = self.now();
        let tokens_of = |parts: u64| parts as f64 / TOKEN as f64;
        f.debug_struct("GrpcThrottle")
            .field("tokens", &tokens_of(tokens))
            .field("max_tokens", &tokens_of(max))
            .field("token_ratio", &tokens_of(ratio))
            .finish()
    }
}

#[cfg(test)]
#[cfg(not(mainstay_loom))]
mod tests {
    use super::*;

    fn fail(throttle: &GrpcThrottle) -> bool {
        throttle.credit(Verdict::Retryable(Kind::Overloaded, None), None);
        throttle.try_spend(tokio::time::Instant::now().into_std(), Kind::Overloaded)
    }

    fn succeed(throttle: &GrpcThrottle) {
        throttle.credit(Verdict::Success, None);
    }

    #[test]
    fn the_count_follows_grpcs_own_trace() {
        let throttle = GrpcThrottle::new(4.0, 1.6).unwrap();
        // S and F with the tokens after it; for F also whether a retry is allowed.
        let trace: &[(char, f64, bool)] = &[
            ('F', 3.0, true),
            ('S', 4.0, true),
            ('F', 3.0, true),
            ('F', 2.0, false),
            ('F', 1.0, false),
            ('F', 0.0, false),
            ('F', 0.0, false),
            ('S', 1.6, false),
            ('S', 3.2, true),
            ('F', 2.2, true),
            ('F', 1.2, false),
            ('S', 2.8, true),
            ('F', 1.8, false),
            ('S', 3.4, true),
            ('F', 2.4, true),
        ];
        for (step, (event, tokens, allowed)) in trace.iter().enumerate() {
            match event {
                'S' => succeed(&throttle),
                _ => assert_eq!(fail(&throttle), *allowed, "step {step}"),
            }
            assert_eq!(throttle.tokens(), *tokens, "step {step}");
            assert_eq!(throttle.allows(), *allowed, "step {step}");
        }
    }

    #[test]
    fn new_settings_inherit_the_fill_for_everybody_who_holds_it() {
        let old = GrpcThrottle::shared(4.0, 1.0).unwrap();
        assert!(fail(&old));
        let new = Arc::clone(&old);
        new.reconfigure(10.0, 3.0).unwrap();
        assert_eq!(new.tokens(), 7.5);
        assert!(fail(&old) && fail(&old) && !fail(&old));
        assert_eq!(new.tokens(), 4.5);
        assert!(!fail(&new));
        succeed(&new);
        assert_eq!(new.tokens(), 6.5);
        assert!(fail(&old));
        assert!(!fail(&new));
        assert_eq!(new.tokens(), 4.5);
    }

    #[test]
    fn nonsense_is_refused_by_name_and_changes_nothing() {
        let throttle = GrpcThrottle::new(4.0, 1.0).unwrap();
        for bad in [0.0, -1.0, 0.0001, 1_000.1, f64::NAN, f64::INFINITY] {
            let error = throttle.reconfigure(bad, bad).unwrap_err();
            assert!(matches!(
                error.faults(),
                [BudgetFault::MaxTokens(_), BudgetFault::TokenRatio(_)]
            ));
        }
        assert_eq!(throttle.tokens(), 4.0);
        assert!(GrpcThrottle::new(1_000.0, 1_000.0).is_ok());
    }

    #[test]
    fn a_refusal_to_be_asked_again_counts_and_a_callers_mistake_does_not() {
        let throttle = GrpcThrottle::new(4.0, 1.0).unwrap();
        throttle.credit(Verdict::Ignore, None);
        throttle.credit(Verdict::Failure(Kind::CircuitOpen), None);
        assert_eq!(throttle.tokens(), 4.0);
        throttle.credit(Verdict::Failure(Kind::Overloaded), None);
        assert_eq!(throttle.tokens(), 3.0);
    }

    #[test]
    fn any_packed_settings_come_back() {
        for (tokens, max, ratio) in [(0, 1, 1), (1_000_000, 1_000_000, 1_000_000), (7, 9, 3)] {
            let fill = Fill { tokens, max, ratio };
            assert_eq!(Fill::unpack(fill.pack()), fill);
        }
    }
}
