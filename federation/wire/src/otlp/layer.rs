//! Label pairs on their way into a series: layers, sorted by name, of which an upper one hides a lower one.
//!
//! Everything is linear in the text, or n log n in the number of attributes, whatever the sender names them; [`Layer`] keeps its
//! buffers from series to series.

use std::collections::HashMap;
use std::iter::Peekable;
use std::ops::Range;

use super::message::Repeated;
use super::naming::LabelNames;
use super::value::KeyValue;
use crate::error::Error;

/// Most attributes of one point, resource or scope.
pub(crate) const ATTRIBUTES_MAX: usize = 10_000;
/// Most bytes of the values of one list of attributes, as text.
const TEXT_MAX: usize = 64 << 20;
/// Names that are remembered.
const NAMES_MAX: usize = 50_000;

/// Label names by the names of attributes, each made once for a request.
pub(crate) struct Names<'a> {
    namer: LabelNames,
    made: HashMap<&'a str, Box<str>>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(namer: LabelNames) -> Self {
        Self { namer, made: HashMap::new() }
    }

    pub(crate) fn build(&mut self, key: &'a str) -> Result<&str, String> {
        if !self.made.contains_key(key) {
            if self.made.len() >= NAMES_MAX {
                self.made.clear();
            }
            self.made.insert(key, self.namer.build(key)?.into());
        }
        Ok(&self.made[key])
    }

    /// A name that is met once.
    pub(crate) fn build_once(&self, key: &str) -> Result<String, String> {
        self.namer.build(key)
    }
}

/// Attributes with their values as text.
#[derive(Default)]
pub(crate) struct Attributes<'a> {
    text: String,
    list: Vec<(&'a str, Range<usize>)>,
}

impl<'a> Attributes<'a> {
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
    }

    /// Adds those whose key `keep` takes.
    pub(crate) fn add(
        &mut self,
        mut attributes: Repeated<'a>,
        keep: impl Fn(&str) -> bool,
    ) -> Result<(), Error> {
        while let Some(message) = attributes.next()? {
            let KeyValue { key, value } = KeyValue::read(message)?;
            if !keep(key) {
                continue;
            }
            let start = self.text.len();
            value.write_text(&mut self.text)?;
            self.list.push((key, start..self.text.len()));
            if self.list.len() > ATTRIBUTES_MAX {
                return Err(Error::Limit(format!("more than {ATTRIBUTES_MAX} attributes in one place")));
            }
            if self.text.len() > TEXT_MAX {
                return Err(Error::Limit(format!("attributes of more than {TEXT_MAX} bytes in one place")));
            }
        }
        Ok(())
    }

    /// Sorts by key; of equal keys the first stays first.
    pub(crate) fn sort(&mut self) {
        if !self.list.is_sorted_by_key(|(key, _)| key) {
            self.list.sort_by_key(|(key, _)| *key);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, &str)> + Clone {
        self.list.iter().map(|(key, value)| (*key, &self.text[value.clone()]))
    }

    /// The first value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }
}

/// Pairs that are sorted by name once they are settled. An empty value hides what is below.
#[derive(Default)]
pub(crate) struct Layer {
    text: String,
    pairs: Vec<(Range<usize>, Range<usize>)>,
}

impl Layer {
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.pairs.clear();
    }

    pub(crate) fn push(&mut self, name: &str, value: &str) {
        let at = self.text.len();
        self.text.push_str(name);
        self.text.push_str(value);
        let between = at + name.len();
        self.pairs.push((at..between, between..self.text.len()));
    }

    pub(crate) fn push_all(&mut self, other: &Self) {
        other.iter().for_each(|(name, value)| self.push(name, value));
    }

    fn sort(&mut self) {
        let text = &self.text;
        self.pairs.sort_by(|a, b| text[a.0.clone()].cmp(&text[b.0.clone()]));
    }

    /// Sorts by name; of several pairs with one name the last counts.
    pub(crate) fn settle_last(&mut self) {
        self.sort();
        let text = &self.text;
        self.pairs.dedup_by(|later, kept| {
            let same = text[later.0.clone()] == text[kept.0.clone()];
            if same {
                *kept = later.clone();
            }
            same
        });
    }

    /// Takes pairs with an empty value out and sorts by name; values of one name are joined with `;`, once one is not empty.
    /// Tells `collided` names that were joined.
    pub(crate) fn settle_joined(&mut self, mut collided: impl FnMut(&str)) {
        let text = &self.text;
        if self.pairs.is_sorted_by(|a, b| text[a.0.clone()] < text[b.0.clone()]) {
            self.pairs.retain(|(_, value)| !value.is_empty());
            return;
        }
        self.sort();
        let (text, pairs) = (std::mem::take(&mut self.text), std::mem::take(&mut self.pairs));
        let same = |a: &(Range<usize>, Range<usize>), b: &(Range<usize>, Range<usize>)| {
            text[a.0.clone()] == text[b.0.clone()]
        };
        for group in pairs.chunk_by(same) {
            let mut values = group.iter().map(|(_, value)| &text[value.clone()]).skip_while(|v| v.is_empty());
            let Some(first) = values.next() else { continue };
            let name = &text[group[0].0.clone()];
            self.push(name, first);
            let mut joined = false;
            for value in values {
                self.text.push(';');
                self.text.push_str(value);
                joined = true;
            }
            if joined {
                let end = self.text.len();
                if let Some((_, value)) = self.pairs.last_mut() {
                    value.end = end;
                }
                collided(name);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.pairs.iter().map(|(name, value)| (&self.text[name.clone()], &self.text[value.clone()]))
    }
}

/// Two sorted streams of pairs as one, in which the upper hides the lower.
pub(crate) struct Over<L: Iterator, U: Iterator> {
    lower: Peekable<L>,
    upper: Peekable<U>,
}

/// Lays `upper` over `lower`.
pub(crate) fn over<'x, L, U>(lower: L, upper: U) -> Over<L::IntoIter, U::IntoIter>
where
    L: IntoIterator<Item = (&'x str, &'x str)>,
    U: IntoIterator<Item = (&'x str, &'x str)>,
{
    Over { lower: lower.into_iter().peekable(), upper: upper.into_iter().peekable() }
}

impl<'x, L, U> Iterator for Over<L, U>
where
    L: Iterator<Item = (&'x str, &'x str)>,
    U: Iterator<Item = (&'x str, &'x str)>,
{
    type Item = (&'x str, &'x str);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (Some((low, _)), Some((up, _))) = (self.lower.peek(), self.upper.peek()) else {
            return self.lower.next().or_else(|| self.upper.next());
        };
        match low.cmp(up) {
            std::cmp::Ordering::Less => self.lower.next(),
            std::cmp::Ordering::Greater => self.upper.next(),
            std::cmp::Ordering::Equal => {
                self.lower.next();
                self.upper.next()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(pairs: &[(&str, &str)]) -> Layer {
        let mut layer = Layer::default();
        pairs.iter().for_each(|(name, value)| layer.push(name, value));
        layer
    }

    #[test]
    fn the_last_counts_or_all_are_joined() {
        let pairs = [("b", "1"), ("a", ""), ("b", ""), ("a", "2"), ("a", ""), ("a", "3")];
        let mut last = layer(&pairs);
        last.settle_last();
        assert_eq!(last.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "")]);
        let (mut joined, mut collided) = (layer(&pairs), Vec::new());
        joined.settle_joined(|name| collided.push(name.to_owned()));
        assert_eq!(joined.iter().collect::<Vec<_>>(), [("a", "2;;3"), ("b", "1;")]);
        assert_eq!(collided, ["a", "b"]);
        let mut sorted = layer(&[("a", ""), ("b", "1")]);
        sorted.settle_joined(|_| panic!("nothing collides"));
        assert_eq!(sorted.iter().collect::<Vec<_>>(), [("b", "1")]);
    }

    #[test]
    fn an_upper_layer_hides_a_lower_one() {
        let (low, up) = (layer(&[("a", "1"), ("b", "2"), ("d", "3")]), layer(&[("b", ""), ("c", "4")]));
        let pairs: Vec<_> = over(low.iter(), up.iter()).collect();
        assert_eq!(pairs, [("a", "1"), ("b", ""), ("c", "4"), ("d", "3")]);
        assert_eq!(over(low.iter(), []).count(), 3);
        assert_eq!(over([], up.iter()).count(), 2);
    }
}
