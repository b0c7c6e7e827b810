//! The symbol table of an index: all label names and values of a block, sorted. Spec: docs/formats/blocks.md#index.
//!
//! Of version 2 every eighth offset is kept in memory and the strings between are walked over; of version 1, where series
//! name a symbol by its offset in the file, all offsets are kept.

use bytes::Bytes;
use model::labels::MAX_LEN_BYTES;

use crate::varint::Reader;

/// One of so many symbols is remembered: half a byte each, and a look-up steps over four strings on average.
const STRIDE: usize = 8;

/// A symbol table in a mapped file.
#[derive(Default)]
pub(crate) struct SymbolTable {
    /// The strings one after the other, each with its length before it.
    strings: Bytes,
    /// Offsets in `strings`.
    sampled: Vec<u32>,
    stride: usize,
    count: usize,
    /// What series of version 1 count from: where `strings` begins in the file.
    v1_base: Option<u64>,
}

impl SymbolTable {
    /// Reads the body of the section: a count and strings. `v1_base` is the offset of `body` in the file for version 1.
    /// `None` when it is damaged.
    pub(crate) fn load(body: Bytes, v1_base: Option<u64>) -> Option<Self> {
        let strings = body.slice(4.min(body.len())..);
        let count = Reader::new(&body).be32()? as usize;
        let stride = if v1_base.is_some() { 1 } else { STRIDE };
        let mut sampled = Vec::with_capacity(count.min(strings.len()) / stride + 1);
        let mut r = Reader::new(&strings);
        let mut before: Option<&str> = None;
        for i in 0..count {
            if i % stride == 0 {
                sampled.push(u32::try_from(strings.len() - r.len()).ok()?);
            }
            let symbol = r.str()?;
            // Positions stand for strings in comparisons, and label sets take no longer ones.
            if before.is_some_and(|b| b >= symbol) || symbol.len() > MAX_LEN_BYTES {
                return None;
            }
            before = Some(symbol);
        }
        let used = strings.len() - r.len();
        let strings = strings.slice(..used);
        Some(Self { strings, sampled, stride, count, v1_base: v1_base.map(|b| b + 4) })
    }

    /// Number of symbols.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.sampled.len() * 4
    }

    /// The symbol with this position.
    pub(crate) fn get(&self, position: u32) -> Option<&str> {
        let position = position as usize;
        if position >= self.count {
            return None;
        }
        let mut r = Reader::new(&self.strings[self.sampled[position / self.stride] as usize..]);
        for _ in 0..position % self.stride {
            r.skip_str()?;
        }
        r.str()
    }

    /// The position of a string.
    pub(crate) fn find(&self, symbol: &str) -> Option<u32> {
        let at = |i: usize| Reader::new(&self.strings[self.sampled[i] as usize..]).str();
        let (mut low, mut high) = (0, self.sampled.len());
        while low < high {
            let middle = low.midpoint(high);
            if at(middle)? <= symbol {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let first = low.checked_sub(1)? * self.stride;
        let last = (first + self.stride).min(self.count);
        (first as u32..last as u32).find(|i| self.get(*i) == Some(symbol))
    }

    /// The position that a series of the file means by `name`.
    pub(crate) fn position(&self, name: u64) -> Option<u32> {
        match self.v1_base {
            None => u32::try_from(name).ok(),
            Some(base) => {
                let offset = u32::try_from(name.checked_sub(base)?).ok()?;
                self.sampled.binary_search(&offset).ok().map(|p| p as u32)
            }
        }
    }

    /// The symbol after the first `bytes_read` bytes of the table, for walking all of it without holding on to it; adds its
    /// length to `bytes_read`. `None` at the end.
    pub(crate) fn walk(&self, bytes_read: &mut usize) -> Option<&str> {
        let mut r = Reader::new(self.strings.get(*bytes_read..)?);
        let symbol = r.str()?;
        *bytes_read = self.strings.len() - r.len();
        Some(symbol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::varint::{put_be32, put_str};

    #[test]
    fn symbols_are_found_by_position_and_by_offset() {
        let names: Vec<String> = (0..100).map(|i| format!("{i:03}{}", "x".repeat(i))).collect();
        let mut body = Vec::new();
        put_be32(&mut body, 100);
        let mut offsets = Vec::new();
        for n in &names {
            offsets.push(1000 + body.len() as u64);
            put_str(&mut body, n);
        }
        let body = Bytes::from(body);
        let t = SymbolTable::load(body.clone(), None).expect("whole");
        let v1 = SymbolTable::load(body.clone(), Some(1000)).expect("whole");
        let mut read = 0;
        for (i, n) in names.iter().enumerate() {
            assert_eq!((t.get(i as u32), v1.get(i as u32)), (Some(n.as_str()), Some(n.as_str())));
            assert_eq!((t.position(i as u64), v1.position(offsets[i])), (Some(i as u32), Some(i as u32)));
            assert_eq!((t.find(n), v1.find(n)), (Some(i as u32), Some(i as u32)));
            assert_eq!(t.walk(&mut read), Some(n.as_str()));
        }
        assert_eq!((t.find(""), t.find("0505"), t.find("1")), (None, None, None));
        assert_eq!((t.len(), t.get(100), t.walk(&mut read), v1.position(1001)), (100, None, None, None));
        assert!(SymbolTable::load(body.slice(..body.len() - 1), None).is_none());
    }
}
