//! What discovery hands to scraping: groups of targets, and the channel they come through.
//!
//! A cluster has tens of thousands of groups of some sixty labels each, nearly all with the names that other groups
//! have too. So a label set is two parts: its names, which all sets with the same names share, and its values, packed
//! into one string.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Index;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tokio::sync::watch;

/// Targets that one source knows, with labels they share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Which source this is, for example a file or a pod; unique within a job.
    pub source: Arc<str>,
    /// Labels of all targets of the group. A target's own label wins.
    pub labels: GroupLabels,
    /// Labels of each target; `__address__` says where it is.
    pub targets: Vec<GroupLabels>,
}

/// The groups of one job as they are now.
pub type TargetGroups = Arc<Vec<Arc<TargetGroup>>>;

/// Through which a job learns its targets. Discovery replaces the whole list; an unchanged group keeps its `Arc`, so
/// that comparing pointers tells what changed. When the sender is dropped, the last list stays in force.
pub type TargetGroupReceiver = watch::Receiver<TargetGroups>;

impl Default for TargetGroup {
    fn default() -> Self {
        Self { source: "".into(), labels: GroupLabels::default(), targets: Vec::new() }
    }
}

/// Labels by name, unique and in the order of their names. Unlike those of a series they may have empty values, which
/// hide what they stand before. Immutable and small.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct GroupLabels {
    names: Names,
    values: Box<str>,
}

impl GroupLabels {
    /// From pairs in any order; of several with one name the last counts.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut pairs: Vec<(N, V)> = pairs.into_iter().collect();
        pairs.sort_by(|(a, _), (b, _)| a.as_ref().cmp(b.as_ref()));
        pairs.dedup_by(|later, earlier| {
            let same = later.0.as_ref() == earlier.0.as_ref();
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        let mut values = String::with_capacity(pairs.iter().map(|(_, v)| packed_len(v.as_ref())).sum());
        pairs.iter().for_each(|(_, v)| push_packed(&mut values, v.as_ref()));
        let names: Vec<&str> = pairs.iter().map(|(n, _)| n.as_ref()).collect();
        Self { names: Names::shared(&names), values: values.into() }
    }

    /// The value of a label; `None` when it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.names.0.binary_search_by(|known| (**known).cmp(name)).ok()?;
        PackedStrings { rest: &self.values }.nth(at)
    }

    /// Pairs in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names.0.iter().map(|name| &**name).zip(PackedStrings { rest: &self.values })
    }

    /// Whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.0.is_empty()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for GroupLabels {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self::from_pairs(pairs)
    }
}

impl From<BTreeMap<String, String>> for GroupLabels {
    fn from(labels: BTreeMap<String, String>) -> Self {
        Self::from_pairs(labels)
    }
}

impl PartialEq<BTreeMap<String, String>> for GroupLabels {
    fn eq(&self, other: &BTreeMap<String, String>) -> bool {
        self.iter().eq(other.iter().map(|(n, v)| (n.as_str(), v.as_str())))
    }
}

impl Index<&str> for GroupLabels {
    type Output = str;

    /// # Panics
    /// When the label is not there.
    fn index(&self, name: &str) -> &str {
        self.get(name).unwrap_or_else(|| panic!("no label {name:?} in {self:?}"))
    }
}

impl fmt::Debug for GroupLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

// === impl Names ===

/// A list of names that everyone with the same list shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names(Arc<[Box<str>]>);

/// The lists in use. Lists that nobody uses any more are forgotten when the table has doubled.
#[derive(Default)]
struct NameTable {
    lists: HashSet<Arc<[Box<str>]>>,
    purge_at: usize,
}

/// Lists of names below which the table is not searched for unused ones.
const NAME_LISTS_MIN: usize = 1024;

static NAMES: LazyLock<Mutex<NameTable>> = LazyLock::new(Mutex::default);
static NO_NAMES: LazyLock<Arc<[Box<str>]>> = LazyLock::new(|| Arc::from([]));

impl Names {
    pub(crate) fn shared(names: &[&str]) -> Self {
        let list: Vec<Box<str>> = names.iter().map(|name| Box::from(*name)).collect();
        let mut table = NAMES.lock();
        if let Some(known) = table.lists.get(list.as_slice()) {
            return Self(Arc::clone(known));
        }
        if table.lists.len() >= table.purge_at {
            table.lists.retain(|list| Arc::strong_count(list) > 1);
            table.purge_at = NAME_LISTS_MIN.max(2 * table.lists.len());
        }
        let list: Arc<[Box<str>]> = list.into();
        table.lists.insert(Arc::clone(&list));
        Self(list)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}

impl Default for Names {
    fn default() -> Self {
        Self(Arc::clone(&NO_NAMES))
    }
}

// === packed strings ===

/// Lengths below this are one byte; of longer strings it stands before four bytes of seven bits each.
const LONG_LEN: usize = 127;
/// What four bytes of seven bits can say.
const LEN_BYTES_MAX: usize = (1 << 28) - 1;

fn packed_len(s: &str) -> usize {
    s.len() + if s.len() < LONG_LEN { 1 } else { 5 }
}

/// Appends a string and its length. What exceeds 256 MiB is cut, which no source of targets can send.
pub(crate) fn push_packed(out: &mut String, s: &str) {
    let s = if s.len() > LEN_BYTES_MAX { &s[..s.floor_char_boundary(LEN_BYTES_MAX)] } else { s };
    if s.len() < LONG_LEN {
        out.push(s.len() as u8 as char);
    } else {
        out.push(LONG_LEN as u8 as char);
        [21, 14, 7, 0].iter().for_each(|shift| out.push((s.len() >> shift & 0x7f) as u8 as char));
    }
    out.push_str(s);
}

/// Reads what [`push_packed`] wrote.
pub(crate) struct PackedStrings<'a> {
    pub(crate) rest: &'a str,
}

impl<'a> Iterator for PackedStrings<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let bytes = self.rest.as_bytes();
        let (start, len) = match usize::from(*bytes.first()?) {
            LONG_LEN => (5, bytes[1..5].iter().fold(0, |len, b| len << 7 | usize::from(*b))),
            len => (1, len),
        };
        let s = &self.rest[start..start + len];
        self.rest = &self.rest[start + len..];
        Some(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_the_last_of_a_name_counts() {
        let labels = GroupLabels::from_pairs([("b", "1"), ("a", "ü"), ("b", "2"), ("c", ""), ("b", "3")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "ü"), ("b", "3"), ("c", "")]);
        assert_eq!((labels.get("b"), labels.get("c"), labels.get("d")), (Some("3"), Some(""), None));
        assert_eq!(&labels["a"], "ü");
        assert!(GroupLabels::default().is_empty());
        assert_eq!(GroupLabels::default(), GroupLabels::from_pairs::<&str, &str>([]));
    }

    #[test]
    fn strings_of_any_length_come_back() {
        for len in [0, 1, 126, 127, 128, 129, 16_383, 70_000] {
            let value = "é".repeat(len / 2) + if len % 2 == 1 { "x" } else { "" };
            let labels = GroupLabels::from_pairs([("a", value.as_str()), ("b", "end")]);
            assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", value.as_str()), ("b", "end")]);
        }
    }

    #[test]
    fn equal_names_are_kept_once_and_forgotten_when_unused() {
        let one = GroupLabels::from_pairs([("test_shared_x", "1"), ("test_shared_y", "2")]);
        let two = GroupLabels::from_pairs([("test_shared_y", "4"), ("test_shared_x", "3")]);
        assert!(Arc::ptr_eq(&one.names.0, &two.names.0));
        for i in 0..5 * NAME_LISTS_MIN {
            GroupLabels::from_pairs([(format!("test_passing_{i}"), "")]);
        }
        let passing = |lists: &HashSet<Arc<[Box<str>]>>| {
            lists.iter().filter(|list| list.iter().any(|name| name.starts_with("test_passing_"))).count()
        };
        assert!(passing(&NAMES.lock().lists) <= 3 * NAME_LISTS_MIN);
    }
}
