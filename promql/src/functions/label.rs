//! Labels and strings: natural order, what a label name may be.

use std::cmp::Ordering;

/// Compares runs of digits by their number and everything else by its bytes.
pub(crate) fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (chunks(a), chunks(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => match compare_chunks(x, y) {
                Ordering::Equal => {}
                other => return other,
            },
        }
    }
}

fn compare_chunks(x: &str, y: &str) -> Ordering {
    let digits = |s: &str| s.as_bytes().first().is_some_and(u8::is_ascii_digit);
    if !(digits(x) && digits(y)) {
        return x.cmp(y);
    }
    let (a, b) = (x.trim_start_matches('0'), y.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b)).then_with(|| y.len().cmp(&x.len()))
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
        let mut names = ["cpu10", "cpu9", "cpu1", "a"];
        names.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(names, ["a", "cpu1", "cpu9", "cpu10"]);
    }
}
