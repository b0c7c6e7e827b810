//! Words of a text: `title`.

/// Characters between two letters that do not end a word.
const WITHIN: [char; 5] = ['\'', '.', ':', '\u{2019}', '\u{b7}'];

/// The text with the first letter of each word as a capital; other letters stay.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Whether the word has had its letter.
    let mut within = false;
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next_is_letter = chars.peek().is_some_and(|c| c.is_alphabetic());
        if c.is_alphabetic() {
            if within {
                out.push(c);
            } else {
                out.extend(c.to_uppercase());
            }
            within = true;
        } else {
            let goes_on = c.is_alphanumeric()
                || c == '_'
                || (WITHIN.contains(&c) && before.is_alphabetic() && next_is_letter);
            within = within && goes_on;
            out.push(c);
        }
        before = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_begin_with_capitals() {
        for (text, expect) in [
            ("aa bB CC", "Aa BB CC"),
            ("don't stop-me now", "Don't Stop-Me Now"),
            ("foo_bar a.b", "Foo_bar A.b"),
            ("übung", "Übung"),
            ("", ""),
        ] {
            assert_eq!(title(text), expect);
        }
    }
}
