//! What generators draw from a seed.

/// A source of pseudo-random numbers.
#[derive(Clone, Debug)]
pub(super) struct Rng(model::rng::Rng);

impl Rng {
    /// The same seed and `stream` give the same numbers; different streams of one seed have nothing in common.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut seeds = model::rng::Rng::new(seed ^ stream.wrapping_mul(0xa24b_aed4_963e_e407));
        Self(model::rng::Rng::new(seeds.next()))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// In `[0, n)`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0.below(n)
    }

    /// In `[low, high]`.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// True in `percent` of 100 cases.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `all`, which is not empty.
    pub(super) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        self.0.pick(all)
    }

    /// One of `all` by weight.
    pub(super) fn weighted<T: Copy>(&mut self, all: &[(u64, T)]) -> T {
        let mut at = self.below(all.iter().map(|(w, _)| w).sum());
        for (weight, item) in all {
            if at < *weight {
                return *item;
            }
            at -= weight;
        }
        all[0].1
    }

    /// Each of `all` with this chance, in order.
    pub(super) fn subset<T: Copy>(&mut self, all: &[T], percent: u64) -> Vec<T> {
        all.iter().copied().filter(|_| self.chance(percent)).collect()
    }
}
