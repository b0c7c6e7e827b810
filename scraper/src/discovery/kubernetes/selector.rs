//! Checks label and field selectors before an API server has to refuse them.
//!
//! Spec: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors> and
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/>. The text itself is passed on
//! untouched.

use crate::discovery::error::DiscoveryError;

/// Accepts `a=b`, `a==b`, `a!=b`, joined by commas; a backslash escapes `,`, `=` and itself in a value.
pub(in crate::discovery) fn check_field(selector: &str) -> Result<(), DiscoveryError> {
    let fail = |why: &str| Err(refuse("field", selector, why));
    for term in split_unescaped(selector) {
        if term.is_empty() {
            continue;
        }
        let Some(at) = term.find('=') else { return fail("each term needs `=`, `==` or `!=`") };
        let value = term[at + 1..].strip_prefix('=').unwrap_or(&term[at + 1..]);
        let mut rest = value.chars();
        while let Some(c) = rest.next() {
            let escaped = c == '\\';
            if c == '=' || (escaped && !matches!(rest.next(), Some('\\' | ',' | '='))) {
                return fail("a value must write `\\`, `,` and `=` with a backslash before them");
            }
        }
    }
    Ok(())
}

/// Accepts equality terms (`a=b`, `a==b`, `a!=b`), set terms (`a in (b,c)`, `a notin (b)`), existence (`a`, `!a`) and
/// comparison (`a>1`, `a<1`), joined by commas.
pub(in crate::discovery) fn check_label(selector: &str) -> Result<(), DiscoveryError> {
    let fail = |why: &str| Err(refuse("label", selector, why));
    if selector.trim().is_empty() {
        return Ok(());
    }
    let mut rest = selector;
    loop {
        let end = match term_end(rest) {
            Some(end) => end,
            None => return fail("a parenthesis is not closed or not opened"),
        };
        if let Err(why) = check_label_term(rest[..end].trim()) {
            return fail(why);
        }
        if end == rest.len() {
            return Ok(());
        }
        rest = &rest[end + 1..];
    }
}

fn refuse(kind: &str, selector: &str, why: &str) -> DiscoveryError {
    DiscoveryError::Config(format!("kubernetes_sd_configs: {kind} selector {selector:?}: {why}"))
}

/// Splits at commas that no backslash precedes.
fn split_unescaped(selector: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in selector.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&selector[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    terms
}

/// Where the first term ends: at a comma outside parentheses or at the end of the text.
fn term_end(text: &str) -> Option<usize> {
    let mut depth = 0_i32;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => return Some(i),
            _ => {}
        }
        if !(0..=1).contains(&depth) {
            return None;
        }
    }
    (depth == 0).then_some(text.len())
}

fn check_label_term(term: &str) -> Result<(), &'static str> {
    if let Some((head, values)) = term.strip_suffix(')').and_then(|term| term.split_once('(')) {
        let mut words = head.split_whitespace();
        let (key, operator) = (words.next(), words.next());
        if !matches!(operator, Some("in" | "notin")) || words.next().is_some() {
            return Err("values in parentheses need `in` or `notin` before them");
        }
        check_label_key(key.unwrap_or_default())?;
        return values.split(',').try_for_each(|value| check_label_value(value.trim()));
    }
    if let Some(at) = term.find(['=', '<', '>']) {
        let key = term[..at].strip_suffix('!').unwrap_or(&term[..at]);
        let value = &term[at + 1..];
        let value = if term[at..].starts_with("==") { &value[1..] } else { value };
        check_label_key(key.trim())?;
        if term[at..].starts_with('=') {
            return check_label_value(value.trim());
        }
        return match value.trim().parse::<i64>() {
            Ok(_) => Ok(()),
            Err(_) => Err("`<` and `>` compare with a whole number"),
        };
    }
    check_label_key(term.strip_prefix('!').unwrap_or(term).trim())
}

fn check_label_key(key: &str) -> Result<(), &'static str> {
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
    let prefix_ok =
        prefix.len() <= 253 && prefix.bytes().all(|c| c.is_ascii_alphanumeric() || b"-.".contains(&c));
    if name.is_empty() || !prefix_ok || check_label_value(name).is_err() {
        return Err(
            "a key is a name of letters, digits, `-`, `_`, `.`, with a DNS prefix and `/` or without",
        );
    }
    Ok(())
}

fn check_label_value(value: &str) -> Result<(), &'static str> {
    let inner = value.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    let edge = |c: Option<&u8>| c.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    if value.len() > 63 || !inner || !edge(bytes.first()) || !edge(bytes.last()) {
        return Err(
            "a value is at most 63 letters, digits, `-`, `_`, `.`, beginning and ending with a letter or digit",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check_field, check_label};

    #[test]
    fn selectors_that_a_server_takes() {
        for good in [
            "",
            "foo=bar",
            "foo in (bar,baz)",
            "foo notin (bar), x",
            "!foo",
            "a.b/c==d,e!=f",
            "n>1,m<2",
            "environment in (production), tier in (frontend)",
            "a=",
        ] {
            check_label(good).unwrap();
        }
        for good in ["", "metadata.status=Running", "a==b,c!=d", "a=b\\,c", "a="] {
            check_field(good).unwrap();
        }
    }

    #[test]
    fn selectors_that_a_server_refuses() {
        for bad in ["foo in (", "foo (a)", "a=b c", "=a", "a,,b", "a in b", "n>x", "a=-b", "a)b("] {
            assert!(check_label(bad).is_err(), "{bad:?}");
        }
        for bad in ["a", "a=b=c", "a=b\\c"] {
            assert!(check_field(bad).is_err(), "{bad:?}");
        }
    }
}
