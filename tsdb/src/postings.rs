//! From matchers to series: the algebra on sorted lists of series, shared by the head and by blocks.
//!
//! Semantics as Prometheus has them: an absent label has the empty value, so a matcher that takes the empty value keeps
//! every series but those with a value it refuses; any other matcher keeps the series with a value it takes.

use std::borrow::Cow;

use model::{MatchOp, Matcher, StorageError};

/// Sorted, unique ids of series.
pub(crate) type List<'a> = Cow<'a, [u64]>;

/// An index from label pairs to series.
pub(crate) trait PostingsIndex {
    /// All series.
    fn all(&self) -> Result<List<'_>, StorageError>;

    /// Series with this label pair.
    fn get(&self, name: &str, value: &str) -> Result<List<'_>, StorageError>;

    /// Series with a value of `name` that begins with `prefix` and passes, in order of the values: one sorted list each.
    fn matching<'a>(
        &'a self,
        name: &str,
        prefix: &str,
        pass: &mut dyn FnMut(&str) -> bool,
        out: &mut Vec<List<'a>>,
    ) -> Result<(), StorageError>;
}

/// Ids of the series that pass all matchers, sorted.
pub(crate) fn resolve(index: &impl PostingsIndex, matchers: &[Matcher]) -> Result<Vec<u64>, StorageError> {
    let mut keep: Vec<List<'_>> = Vec::new();
    let mut drop: Vec<List<'_>> = Vec::new();
    for m in matchers {
        if m.matches("") {
            if !takes_everything(m) {
                drop.extend(refused(index, m)?);
            }
        } else {
            let list = taken(index, m)?;
            if list.is_empty() {
                return Ok(Vec::new());
            }
            keep.push(list);
        }
    }
    keep.sort_by_key(|l| l.len());
    let mut keep = keep.into_iter();
    let mut out = match keep.next() {
        Some(first) => first.into_owned(),
        None => index.all()?.into_owned(),
    };
    keep.for_each(|l| intersect(&mut out, &l));
    drop.iter().for_each(|l| subtract(&mut out, l));
    Ok(out)
}

fn takes_everything(m: &Matcher) -> bool {
    m.op == MatchOp::Regexp && m.value == ".*"
}

fn prefix(m: &Matcher) -> &str {
    m.regexp().map_or("", |r| r.prefix())
}

/// Series with a value that `m`, which refuses the empty value, takes.
fn taken<'a>(index: &'a impl PostingsIndex, m: &Matcher) -> Result<List<'a>, StorageError> {
    let mut lists = Vec::new();
    match (m.op, m.regexp().and_then(|r| r.literal_set())) {
        (MatchOp::Equal, _) => return index.get(&m.name, &m.value),
        (MatchOp::Regexp, Some(set)) => {
            for v in set {
                lists.push(index.get(&m.name, v)?);
            }
        }
        (MatchOp::Regexp, None) => {
            index.matching(&m.name, prefix(m), &mut |v| m.matches(v), &mut lists)?;
        }
        _ => index.matching(&m.name, "", &mut |v| m.matches(v), &mut lists)?,
    }
    Ok(union(lists))
}

/// Series with a value that `m`, which takes the empty value, refuses.
fn refused<'a>(index: &'a impl PostingsIndex, m: &Matcher) -> Result<Vec<List<'a>>, StorageError> {
    let mut lists = Vec::new();
    match (m.op, m.regexp().and_then(|r| r.literal_set())) {
        (MatchOp::NotEqual, _) => lists.push(index.get(&m.name, &m.value)?),
        (MatchOp::NotRegexp, Some(set)) => {
            for v in set {
                lists.push(index.get(&m.name, v)?);
            }
        }
        (MatchOp::NotRegexp, None) => {
            index.matching(&m.name, prefix(m), &mut |v| !m.matches(v), &mut lists)?;
        }
        _ => index.matching(&m.name, "", &mut |v| !m.matches(v), &mut lists)?,
    }
    // One pass over the result instead of one for each value.
    Ok(if lists.len() > 1 { vec![union(lists)] } else { lists })
}

fn union(mut lists: Vec<List<'_>>) -> List<'_> {
    match lists.len() {
        0 => Cow::Borrowed(&[]),
        1 => lists.swap_remove(0),
        _ => {
            let mut all: Vec<u64> = Vec::with_capacity(lists.iter().map(|l| l.len()).sum());
            lists.iter().for_each(|l| all.extend_from_slice(l));
            // The sort finds the sorted runs, which makes this a merge.
            all.sort();
            all.dedup();
            Cow::Owned(all)
        }
    }
}

/// Keeps what is also in `other`. Galloping: cost follows the shorter list.
pub(crate) fn intersect(out: &mut Vec<u64>, other: &[u64]) {
    let mut rest = other;
    out.retain(|id| {
        rest = skip_below(rest, *id);
        rest.first() == Some(id)
    });
}

/// Keeps what is not in `other`.
pub(crate) fn subtract(out: &mut Vec<u64>, other: &[u64]) {
    let mut rest = other;
    out.retain(|id| {
        rest = skip_below(rest, *id);
        rest.first() != Some(id)
    });
}

/// The part of a sorted list from the first entry on that is not below `id`.
fn skip_below(list: &[u64], id: u64) -> &[u64] {
    let mut step = 1;
    while step < list.len() && list[step] < id {
        step *= 2;
    }
    let window = &list[..(step + 1).min(list.len())];
    &list[window.partition_point(|x| *x < id)..]
}
