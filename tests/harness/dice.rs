//! Random choices that can be made again: everything follows from the seed.

/// Whoever uses one says its seed when something fails.
#[derive(Debug)]
pub struct Dice(fastrand::Rng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0.usize(..n)
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    pub fn between(&mut self, least: i64, beyond: i64) -> i64 {
        self.0.i64(least..beyond)
    }

    pub fn seed(&mut self) -> u64 {
        self.0.u64(..)
    }
}
