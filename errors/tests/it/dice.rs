//! Cases made of seeds: cheap enough for a hundred thousand in a debug build, and each can be had again by
//! its number.
//!
//! `MAINSTAY_ERRORS_CASES` sets how many a property tries (default 100 000; ten million for a night).

/// How many cases each property tries.
pub fn cases() -> u64 {
    std::env::var("MAINSTAY_ERRORS_CASES").map_or(100_000, |n| n.parse().unwrap())
}

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    /// The throws of one case.
    pub fn of(case: u64) -> Self {
        Self(case.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.word() % end as u64).unwrap()
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// Letters that stand in no document of ours.
    pub fn secret(&mut self) -> String {
        (0..12)
            .map(|_| char::from(b"QZXJKVWY"[self.below(8)]))
            .collect()
    }

    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1))
            .map(|_| self.word().to_le_bytes()[0])
            .collect()
    }

    /// Text of characters that something somewhere treats specially, and of ordinary ones.
    pub fn text(&mut self, most: usize) -> String {
        const ODD: [char; 16] = [
            '"', '\\', '\0', '\n', '\r', '\u{7f}', '/', '~', '#', '%', 'ä', '\u{2028}', '\u{feff}',
            '\u{fffd}', '𝄞', '�',
        ];
        (0..self.below(most + 1))
            .map(|_| match self.below(3) {
                0 => ODD[self.below(ODD.len())],
                _ => char::from(b' ' + u8::try_from(self.below(95)).unwrap()),
            })
            .collect()
    }
}
