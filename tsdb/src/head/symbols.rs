//! [`Symbols`]: names and values of series that are about to go into a block, and what they are called there.

use std::collections::BTreeMap;

use model::StorageError;

use super::series::MemSeries;
use super::series_map::SeriesMap;

/// Names and values of some series, once each.
pub(crate) struct Symbols {
    /// With their number in the block, once they are written.
    texts: BTreeMap<Box<str>, u32>,
    /// Name and value of each pair by its number: places in `texts`, and then numbers in the block. Pairs of other series have
    /// none.
    pairs: Vec<(u32, u32)>,
}

impl SeriesMap {
    /// Names and values of series. Nobody removes these meanwhile.
    pub(crate) fn symbols<'a>(&self, series: impl Iterator<Item = &'a MemSeries>) -> Symbols {
        let index = self.index();
        let mut pairs = vec![(u32::MAX, u32::MAX); index.pair_numbers()];
        let mut of_pairs: Vec<(u32, (&str, &str))> = Vec::new();
        for pair in series.flat_map(|s| s.pairs.iter().copied()) {
            if std::mem::take(&mut pairs[pair as usize]) == (u32::MAX, u32::MAX) {
                of_pairs.push((pair, index.pair_text(pair)));
            }
        }
        let mut texts: BTreeMap<Box<str>, u32> = BTreeMap::new();
        for text in of_pairs.iter().flat_map(|(_, (n, v))| [*n, *v]) {
            if !texts.contains_key(text) {
                texts.insert(text.into(), 0);
            }
        }
        (0..).zip(texts.values_mut()).for_each(|(place, t)| *t = place);
        for (pair, (n, v)) in of_pairs {
            pairs[pair as usize] = (texts[n], texts[v]);
        }
        Symbols { texts, pairs }
    }
}

impl Symbols {
    /// Gives all of them in order; `add` says which number each has in the block.
    pub(crate) fn write(
        &mut self,
        mut add: impl FnMut(&str) -> Result<u32, StorageError>,
    ) -> Result<(), StorageError> {
        let numbers = self.texts.keys().map(|t| add(t)).collect::<Result<Vec<u32>, _>>()?;
        for (name, value) in self.pairs.iter_mut().filter(|p| p.0 != u32::MAX) {
            (*name, *value) = (numbers[*name as usize], numbers[*value as usize]);
        }
        self.texts.clear();
        Ok(())
    }

    /// Labels of a series as numbers of the block, in order of their names.
    pub(crate) fn pairs_of(&self, series: &MemSeries) -> impl Iterator<Item = (u32, u32)> {
        series.pairs.iter().map(|p| self.pairs[*p as usize])
    }
}
