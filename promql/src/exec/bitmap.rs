//! One bit per step.

use super::batch::is_absent;

/// Which steps have something.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepBits {
    words: Box<[u64]>,
}

impl StepBits {
    pub(crate) fn new(steps: usize) -> Self {
        Self { words: vec![0; steps.div_ceil(64)].into() }
    }

    /// Bytes that the bits of so many steps take.
    pub(crate) fn bytes(steps: usize) -> u64 {
        (size_of::<Self>() + steps.div_ceil(64) * 8) as u64
    }

    #[inline]
    pub(crate) fn get(&self, step: usize) -> bool {
        self.words[step / 64] >> (step % 64) & 1 == 1
    }

    #[inline]
    pub(crate) fn set(&mut self, step: usize) {
        self.words[step / 64] |= 1 << (step % 64);
    }

    /// Sets the bits of all cells that are not absent.
    pub(crate) fn add_row(&mut self, values: &[f64]) {
        for (word, cells) in self.words.iter_mut().zip(values.chunks(64)) {
            *word |= bits_of(cells);
        }
    }

    /// Sets the bits that are set in `other`, which has as many.
    pub(crate) fn add(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, more)| *word |= more);
    }

    /// Like [`StepBits::add_row`]; whether a bit was set before.
    pub(crate) fn add_row_overlaps(&mut self, values: &[f64]) -> bool {
        let mut overlap = false;
        for (word, cells) in self.words.iter_mut().zip(values.chunks(64)) {
            let bits = bits_of(cells);
            overlap |= *word & bits != 0;
            *word |= bits;
        }
        overlap
    }
}

fn bits_of(cells: &[f64]) -> u64 {
    cells.iter().enumerate().fold(0, |acc, (i, v)| acc | (u64::from(!is_absent(*v)) << i))
}
