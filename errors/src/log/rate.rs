//! How many lines of one code pass: a window for each code, `now` handed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The most codes that are counted one by one. A service has dozens; documents of other services, which are
/// passed on under their own codes, may have any number. With [`CODE_BYTES_MAX`] this bounds the table to
/// about 50 KiB.
const CODES_MAX: usize = 256;

/// The longest code that is counted by itself, in bytes; a registry's own are a quarter of that.
const CODE_BYTES_MAX: usize = 128;

/// So many lines in so long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) lines: u32,
    pub(super) per: Duration,
}

/// The window of each code that has failed lately.
#[derive(Debug, Default)]
pub(super) struct Windows {
    of_code: HashMap<Box<str>, Window>,
    /// What all codes share for which there is no place.
    surplus: Window,
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl Windows {
    /// Whether a line of this code may pass, and how many before it did not.
    pub(super) fn turn(&mut self, code: &str, now: Instant, rate: Rate) -> Option<u64> {
        if let Some(window) = self.of_code.get_mut(code) {
            return window.turn(now, rate);
        }
        if code.len() > CODE_BYTES_MAX {
            return self.surplus.turn(now, rate);
        }
        if self.of_code.len() >= CODES_MAX {
            self.forget_the_quiet(now, rate);
        }
        if self.of_code.len() >= CODES_MAX {
            return self.surplus.turn(now, rate);
        }
        self.of_code.entry(code.into()).or_default().turn(now, rate)
    }

    /// Makes place: a code whose window is over starts afresh with its next line anyway. What it still had
    /// to say of suppressed lines, the shared window says.
    fn forget_the_quiet(&mut self, now: Instant, rate: Rate) {
        let surplus = &mut self.surplus;
        self.of_code.retain(|_, window| {
            let over = window.is_over(now, rate);
            if over {
                surplus.suppressed = surplus.suppressed.saturating_add(window.suppressed);
            }
            !over
        });
    }
}

impl Window {
    fn is_over(&self, now: Instant, rate: Rate) -> bool {
        self.began
            .is_none_or(|began| now.saturating_duration_since(began) >= rate.per)
    }

    fn turn(&mut self, now: Instant, rate: Rate) -> Option<u64> {
        if self.is_over(now, rate) {
            self.began = Some(now);
            self.lines = 0;
        }
        if self.lines >= rate.lines {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        lines: 2,
        per: Duration::from_secs(1),
    };

    #[expect(clippy::disallowed_methods, reason = "any instant does to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_line_after_a_full_window_says_how_many_were_left_out() {
        let (mut windows, start) = (Windows::default(), start());
        let mut turn = |millis| windows.turn("down", start + Duration::from_millis(millis), RATE);
        assert_eq!(
            [turn(0), turn(1), turn(2), turn(999)],
            [Some(0), Some(0), None, None]
        );
        assert_eq!(
            [turn(1000), turn(1001), turn(1002)],
            [Some(2), Some(0), None]
        );
        assert_eq!(turn(5000), Some(1));
    }

    #[test]
    fn one_code_does_not_silence_another() {
        let (mut windows, now) = (Windows::default(), start());
        for _ in 0..100 {
            windows.turn("loud", now, RATE);
        }
        assert_eq!(windows.turn("quiet", now, RATE), Some(0));
    }

    #[test]
    fn a_clock_that_goes_back_does_not_open_the_window() {
        let (mut windows, now) = (Windows::default(), start() + Duration::from_secs(9));
        let mut turn = |now| windows.turn("down", now, RATE);
        assert_eq!([turn(now), turn(now)], [Some(0), Some(0)]);
        assert_eq!(turn(now - Duration::from_secs(5)), None);
    }

    #[test]
    fn invented_codes_share_one_window_and_no_more_memory() {
        let (mut windows, now) = (Windows::default(), start());
        let passed = (0..10_000)
            .filter(|at| windows.turn(&format!("made_up_{at}"), now, RATE).is_some())
            .count();
        assert_eq!(passed, CODES_MAX + RATE.lines as usize);
        assert_eq!(windows.of_code.len(), CODES_MAX);
        let long = "x".repeat(CODE_BYTES_MAX + 1);
        let later = now + RATE.per;
        assert_eq!(
            windows.turn(&long, later, RATE),
            Some(10_000 - passed as u64)
        );
    }

    #[test]
    fn a_full_table_makes_place_when_its_codes_fall_silent() {
        let (mut windows, now) = (Windows::default(), start());
        for at in 0..=CODES_MAX {
            for _ in 0..3 {
                windows.turn(&format!("made_up_{at}"), now, RATE);
            }
        }
        let later = now + RATE.per;
        assert_eq!(windows.turn("a_real_one", later, RATE), Some(0));
        assert_eq!(windows.of_code.len(), 1);
        // Each of 256 left one out, and so did the one that had no place.
        assert_eq!(windows.surplus.turn(later, RATE), Some(257));
    }
}
