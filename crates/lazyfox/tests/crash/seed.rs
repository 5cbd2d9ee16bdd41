//! Chance that can be repeated.

use std::hash::{BuildHasher as _, RandomState};

/// The variable that repeats a run.
pub(crate) const VARIABLE: &str = "LAZYFOX_CRASH_SEED";

/// The seed of this run: another one each time, or the given one.
pub(crate) fn of_this_run() -> u64 {
    match std::env::var(VARIABLE) {
        Ok(text) => text.parse().expect("the seed is a number"),
        Err(_) => RandomState::new().hash_one("seed"),
    }
}

/// The splitmix64 generator: good enough to choose moments, and four lines.
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice of their own for each thread.
    pub(crate) fn new(seed: u64, thread: u64) -> Self {
        Self(seed.wrapping_add(thread.wrapping_mul(0xd1b5_4a32_d192_ed03)))
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// True in this many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
