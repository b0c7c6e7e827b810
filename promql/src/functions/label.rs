//! Labels and strings: natural order, what a label name may be.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#sort_by_label>, `#label_join`, `#label_replace`.

/// Whether `a` comes before `b` in natural order: runs of digits compare by their number, anything else by its bytes.
/// This is no total order, and is not meant to be: nothing comes before or after an empty text, and numbers that differ
/// in leading zeros alone come before each other.
pub(crate) fn natural_less(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (chunks(a).peekable(), chunks(b).peekable());
    while let Some(x) = a.next() {
        let Some(y) = b.next() else { return false };
        let equal = match (number(x), number(y)) {
            (Some(m), Some(n)) if m != n => return m < n,
            (Some(_), Some(_)) => true,
            _ => x == y,
        };
        if !equal {
            return x < y;
        }
        if a.peek().is_none() {
            return true;
        }
        if b.peek().is_none() {
            return false;
        }
    }
    false
}

/// The number of a run of digits that is not too long.
fn number(chunk: &str) -> Option<i64> {
    chunk.as_bytes().first().filter(|c| c.is_ascii_digit()).and_then(|_| chunk.parse().ok())
}

/// Runs of digits and runs of anything else, in turn.
fn chunks(s: &str) -> impl Iterator<Item = &str> {
    let mut rest = s;
    std::iter::from_fn(move || {
        let first = rest.as_bytes().first()?.is_ascii_digit();
        let end = rest.bytes().position(|c| c.is_ascii_digit() != first).unwrap_or(rest.len());
        let (head, tail) = rest.split_at(end);
        rest = tail;
        Some(head)
    })
}

/// Label names are any UTF-8, but not empty. Escaped bytes that are no UTF-8 have become U+FFFD on reading.
pub(crate) fn is_label_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('\u{fffd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_compare_as_numbers() {
        for (a, b) in [("cpu9", "cpu10"), ("a", "cpu1"), ("cpu", "cpu1"), ("1", "a"), ("x2y", "x10y")] {
            assert!(natural_less(a, b) && !natural_less(b, a), "{a} {b}");
        }
        // Too long for a number: by bytes.
        assert!(natural_less("10000000000000000000", "9"));
    }

    #[test]
    fn some_texts_have_no_order() {
        assert!(!natural_less("", "a") && !natural_less("a", "") && !natural_less("", ""));
        assert!(natural_less("a1", "a01") && natural_less("a01", "a1") && natural_less("a", "a"));
    }
}
