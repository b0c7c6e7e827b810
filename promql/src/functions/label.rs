//! Labels and strings: natural order, templates of `label_replace`, what a label name may be.

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

/// Fills in `$1`, `${name}` and `$$` of a template the way Go's `Regexp.Expand` does. A template that is not well
/// formed stands for itself from there on.
pub(crate) fn expand(template: &str, captures: &regex::Captures<'_>, out: &mut String) {
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let (name, tail) = match rest.strip_prefix('{') {
            Some(inner) => match inner.find('}') {
                Some(end) => (&inner[..end], &inner[end + 1..]),
                None => {
                    out.push('$');
                    continue;
                }
            },
            None => {
                let end = rest.find(|c: char| !(c == '_' || c.is_alphanumeric())).unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_alphanumeric()) {
            out.push('$');
            continue;
        }
        rest = tail;
        let group = match name.parse::<usize>() {
            Ok(n) => captures.get(n),
            Err(_) => captures.name(name),
        };
        out.push_str(group.map_or("", |m| m.as_str()));
    }
    out.push_str(rest);
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

    #[test]
    fn templates_expand() {
        let re = regex::Regex::new("^(?s:(.*)-(?P<x>.*))$").expect("valid");
        let caps = re.captures("a-b").expect("matches");
        let check = |template: &str, expect: &str| {
            let mut out = String::new();
            expand(template, &caps, &mut out);
            assert_eq!(out, expect, "{template}");
        };
        check("$1/$x", "a/b");
        check("${1}2", "a2");
        check("$12", "");
        check("$$1", "$1");
        check("100$", "100$");
    }
}
