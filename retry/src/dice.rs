//! Random numbers that a test can have the same again.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicU64, Ordering},
};

/// SplitMix64 (Steele, Lea, Flood 2014): one atomic addition for a draw, and any seed is a good one.
#[derive(Debug)]
pub(crate) struct Dice {
    state: AtomicU64,
}

impl Dice {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            state: AtomicU64::new(seed),
        }
    }

    /// Evenly from 0 up to but not including 1.
    pub(crate) fn roll(&self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn word(&self) -> u64 {
        let state = self.state.fetch_add(Self::STEP, Ordering::Relaxed);
        let mut z = state.wrapping_add(Self::STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// By reference, for they are shared: who draws needs them only for the moment.
impl rand::TryRng for &Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.word() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.word())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            for (byte, drawn) in chunk.iter_mut().zip(self.word().to_le_bytes()) {
                *byte = drawn;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_are_even_and_the_same_for_the_same_seed() {
        let rolls = |seed| {
            let dice = Dice::new(seed);
            (0..10_000).map(|_| dice.roll()).collect::<Vec<_>>()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        for seed in [0, 7, u64::MAX] {
            let rolls = rolls(seed);
            assert!(rolls.iter().all(|roll| (0.0..1.0).contains(roll)));
            for tenth in 0..10 {
                let low = f64::from(tenth) / 10.0;
                let hits = rolls
                    .iter()
                    .filter(|&&roll| roll >= low && roll < low + 0.1);
                let hits = hits.count();
                assert!((900..1_100).contains(&hits), "{seed} {tenth}: {hits}");
            }
        }
    }
}
