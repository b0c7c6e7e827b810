//! Where numbers, durations and strings end. Section "Literals" of Prometheus's `querying/basics.md`.
//!
//! The scanners go as far as the text may still become a number or a duration, and no further: how much of a bad one an
//! error text quotes depends on it. Whether a number has a value is for [`super::super::number`] to find out, what the
//! escapes of a string stand for is for [`super::super::string`].

use super::Lexer;

const DIGITS: &[u8] = b"0123456789";
const HEX_DIGITS: &[u8] = b"0123456789abcdefABCDEF";

/// What the characters at a place are.
pub(super) enum Literal {
    Number,
    Duration,
    /// Neither.
    Bad,
}

/// Length and kind of the number or duration that `text` starts with.
pub(super) fn scan(text: &str) -> (usize, Literal) {
    let mut s = Scanner { text: text.as_bytes(), at: 0 };
    let kind = if s.number() {
        Literal::Number
    } else if s.rest_of_duration() {
        Literal::Duration
    } else {
        Literal::Bad
    };
    (s.at, kind)
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn is(&self, set: &[u8]) -> bool {
        self.text.get(self.at).is_some_and(|b| set.contains(b))
    }

    /// Takes one character of the set.
    fn accept(&mut self, set: &[u8]) -> bool {
        let is = self.is(set);
        self.at += usize::from(is);
        is
    }

    fn accept_all(&mut self, set: &[u8]) {
        while self.accept(set) {}
    }

    fn at_end(&self) -> bool {
        self.at == self.text.len()
    }

    fn at_alphanumeric(&self) -> bool {
        self.text.get(self.at).is_some_and(|b| *b == b'_' || b.is_ascii_alphanumeric())
    }

    fn number(&mut self) -> bool {
        let hex = self.accept(b"0") && self.accept(b"xX");
        let digits = if hex { HEX_DIGITS } else { DIGITS };
        if hex {
            self.accept(b"_");
        }
        self.accept(b".");
        self.accept(digits);
        let (mut dot, mut exponent) = (false, false);
        while self.is(digits) || self.is(b"._eE") {
            if (dot && self.accept(b".")) || (exponent && self.accept(b"eE")) {
                return false;
            }
            if self.accept(b".") {
                dot = true;
                if self.accept(b"_.") || hex {
                    return false;
                }
            } else if self.accept(b"eE") {
                exponent = true;
                self.accept(b"+-");
                if self.accept(b"._eE") || self.at_end() {
                    return false;
                }
            } else if self.accept(b"_") {
                if self.accept(b"._eE") || self.at_end() {
                    return false;
                }
            } else {
                self.accept_all(digits);
            }
        }
        self.at > 0 && !self.at_alphanumeric()
    }

    /// A unit after the number, and further numbers with theirs.
    fn rest_of_duration(&mut self) -> bool {
        if !self.accept(b"smhdwy") {
            return false;
        }
        self.accept(b"s");
        while self.accept(DIGITS) {
            self.accept_all(DIGITS);
            if !self.accept(b"smhdw") {
                return false;
            }
            self.accept(b"s");
        }
        let ends = !self.at_alphanumeric();
        self.at += usize::from(!ends);
        ends
    }
}

impl Lexer<'_> {
    /// Length of the string that starts at byte `start`, quotes included, or what is wrong with it.
    pub(super) fn string_len(&self, start: usize, quote: char) -> Result<usize, String> {
        let raw = quote == '`';
        let text = &self.input[start + 1..];
        let mut at = 0;
        loop {
            let special = |c: char| matches!(c, '\\' | '\n' | '\u{fffd}') || c == quote;
            let Some((skipped, c)) = text[at..].char_indices().find(|(_, c)| special(*c)) else {
                return Err(format!("unterminated {} string", if raw { "raw" } else { "quoted" }));
            };
            at += skipped;
            match c {
                c if c == quote => return Ok(at + 2),
                '\u{fffd}' => return Err("invalid UTF-8 rune".into()),
                '\n' if !raw => return Err("unterminated quoted string".into()),
                '\\' if !raw => at += 1 + super::super::string::escape_len(&text[at + 1..], quote)?,
                _ => at += 1,
            }
        }
    }
}
