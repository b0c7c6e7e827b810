//! RE2's syntax, as Go's `regexp/syntax` reads it with Perl's flags, rewritten for the `regex` crate.
//!
//! [`translate`] refuses what Go refuses, in its words. Groups come out without names, since Go allows more names, and one
//! name twice. Characters inside of classes and punctuation come out escaped, since the crate gives some of it a meaning.
//! The result may match between the bytes of a character (`\B`), so it is for the engine of bytes.
//!
//! Spec: <https://github.com/google/re2/wiki/Syntax>.

use std::fmt::Write as _;

/// Most copies that counted repetitions, multiplied where they are nested, may make of something.
const REPEAT_MAX: u32 = 1000;
/// Matches nothing.
const NOTHING: &str = "[a&&b]";

const DIGIT: &str = "0-9";
const WORD: &str = "0-9A-Za-z_";
const SPACE: &str = r"\t\n\x0C\r\x20";

const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

const CATEGORIES: &str = "C Cc Cf Cn Co Cs L LC Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs";

const SCRIPTS: &str = "\
    Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki \
    Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee \
    Chorasmian Common Coptic Cuneiform Cypriot Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan \
    Egyptian_Hieroglyphs Elbasan Elymaic Ethiopic Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi \
    Gurmukhi Han Hangul Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic Inherited \
    Inscriptional_Pahlavi Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kawi Kayah_Li Kharoshthi \
    Khitan_Small_Script Khmer Khojki Khudawadi Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian \
    Mahajani Makasar Malayalam Mandaic Manichaean Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui \
    Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian Mro Multani Myanmar Nabataean Nag_Mundari \
    Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong Ogham Ol_Chiki Old_Hungarian Old_Italic \
    Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian Old_Turkic Old_Uyghur Oriya Osage \
    Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan \
    Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese Syloti_Nagri \
    Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan Tifinagh \
    Tirhuta Toto Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square";

/// An expression in the crate's syntax.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Translated {
    pub(super) text: String,
    /// Names of groups with their numbers, in order.
    pub(super) names: Vec<(String, usize)>,
}

/// Rewrites an expression.
///
/// # Errors
/// What is wrong with it.
pub(super) fn translate(pattern: &str) -> Result<Translated, String> {
    let mut t = Translator { pattern, ..Translator::default() };
    t.all()?;
    Ok(t.done)
}

#[derive(Default)]
struct Translator<'a> {
    pattern: &'a str,
    done: Translated,
    /// Groups that are open around the current one.
    outer: Vec<Copies>,
    current: Copies,
    captures: usize,
    /// Flags that hold from the next item on. They are not written before, since a repetition that follows them is one of the
    /// item before them.
    flags: String,
}

/// How many copies counted repetitions make of what is in a group.
#[derive(Clone, Copy, Default)]
struct Copies {
    /// Most of all that is before the last item.
    most: u32,
    /// Of the last item, which a repetition would repeat.
    last: Option<u32>,
}

impl Copies {
    fn most(self) -> u32 {
        self.most.max(self.last.unwrap_or(1))
    }

    fn push(&mut self, copies: u32) {
        *self = Self { most: self.most(), last: Some(copies) };
    }
}

/// What is wrong, and the part of the expression that is.
fn wrong(what: &str, part: &str) -> String {
    format!("{what}: `{part}`")
}

/// The part of `from` before `rest`, which is its end.
fn before<'a>(from: &'a str, rest: &str) -> &'a str {
    &from[..from.len() - rest.len()]
}

impl<'a> Translator<'a> {
    fn all(&mut self) -> Result<(), String> {
        let mut rest = self.pattern;
        // From the last repetition on, if it came just before.
        let mut repeated: Option<&str> = None;
        while let Some(c) = rest.chars().next() {
            let tail = &rest[c.len_utf8()..];
            let was_repeated = repeated.take();
            rest = match c {
                '(' if tail.starts_with('?') => self.flags_or_group(rest)?,
                '(' => {
                    self.captures += 1;
                    self.open("(");
                    tail
                }
                '|' => {
                    self.current = Copies { most: self.current.most(), last: None };
                    self.write("|");
                    tail
                }
                ')' => {
                    let inner = self.current.most();
                    self.current = self.outer.pop().ok_or_else(|| wrong("unexpected )", self.pattern))?;
                    self.item(")", inner);
                    tail
                }
                '^' | '$' | '.' => {
                    self.item(c.encode_utf8(&mut [0; 4]), 1);
                    tail
                }
                '[' => self.class(rest)?,
                '*' | '+' | '?' => {
                    let after = self.repeat(rest, tail, was_repeated, None)?;
                    repeated = Some(rest);
                    after
                }
                '{' => match counts(rest) {
                    Some((min, max, after)) => {
                        if min > REPEAT_MAX || max.is_some_and(|max| max > REPEAT_MAX || min > max) {
                            return Err(wrong("invalid repeat count", before(rest, after)));
                        }
                        let after = self.repeat(rest, after, was_repeated, Some((min, max)))?;
                        repeated = Some(rest);
                        after
                    }
                    None => {
                        self.literal(u32::from(c));
                        tail
                    }
                },
                '\\' => self.escaped(rest)?,
                _ => {
                    self.literal(u32::from(c));
                    tail
                }
            };
        }
        if self.outer.is_empty() { Ok(()) } else { Err(wrong("missing closing )", self.pattern)) }
    }

    fn write(&mut self, text: &str) {
        self.done.text.push_str(&std::mem::take(&mut self.flags));
        self.done.text.push_str(text);
    }

    fn item(&mut self, text: &str, copies: u32) {
        self.write(text);
        self.current.push(copies);
    }

    fn literal(&mut self, code: u32) {
        self.write("");
        match char::from_u32(code) {
            Some(c) => push_char(c, &mut self.done.text),
            None => self.done.text.push_str(NOTHING),
        }
        self.current.push(1);
    }

    fn open(&mut self, text: &str) {
        self.write(text);
        self.outer.push(std::mem::take(&mut self.current));
    }

    /// `(?…`: a group with a name, flags, or a group with flags. Gives what follows.
    fn flags_or_group(&mut self, from: &'a str) -> Result<&'a str, String> {
        let named = if from.len() > 4 && from.starts_with("(?P<") { Some(4) } else { None };
        if let Some(at) = named.or((from.len() > 3 && from.starts_with("(?<")).then_some(3)) {
            let end = from.find('>').ok_or_else(|| wrong("invalid named capture", from))?;
            let name = from.get(at..end).unwrap_or("");
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                return Err(wrong("invalid named capture", &from[..=end]));
            }
            self.captures += 1;
            self.done.names.push((name.to_owned(), self.captures));
            self.open("(");
            return Ok(&from[end + 1..]);
        }
        let mut flags: Vec<(char, bool)> = Vec::new();
        let (mut on, mut saw_flag) = (true, true);
        let mut end = 2;
        for c in from[2..].chars() {
            end += c.len_utf8();
            match c {
                'i' | 'm' | 's' | 'U' => {
                    flags.retain(|(f, _)| *f != c);
                    flags.push((c, on));
                    saw_flag = true;
                }
                '-' if on => (on, saw_flag) = (false, false),
                ':' | ')' if saw_flag => {
                    let text: String = flags.iter().filter(|f| f.1).map(|f| f.0).collect();
                    let off: String = flags.iter().filter(|f| !f.1).map(|f| f.0).collect();
                    let text = if off.is_empty() { text } else { format!("{text}-{off}") };
                    if c == ':' {
                        self.open(&format!("(?{text}:"));
                    } else if !text.is_empty() {
                        self.flags.push_str(&format!("(?{text})"));
                    }
                    return Ok(&from[end..]);
                }
                _ => break,
            }
        }
        Err(wrong("invalid or unsupported Perl syntax", &from[..end]))
    }

    /// A repetition that stands between `from` and `after`; gives what follows.
    fn repeat(
        &mut self,
        from: &'a str,
        after: &'a str,
        was_repeated: Option<&str>,
        counts: Option<(u32, Option<u32>)>,
    ) -> Result<&'a str, String> {
        let after = after.strip_prefix('?').unwrap_or(after);
        if let Some(first) = was_repeated {
            return Err(wrong("invalid nested repetition operator", before(first, after)));
        }
        let text = before(from, after);
        let Some(copies) = self.current.last else {
            return Err(wrong("missing argument to repetition operator", text));
        };
        if let Some((min, max)) = counts {
            let copies = match max.unwrap_or(min) {
                0 if max == Some(0) => 1,
                n => copies.saturating_mul(n.max(1)),
            };
            if (min >= 2 || max.is_some_and(|m| m >= 2)) && copies > REPEAT_MAX {
                return Err(wrong("invalid repeat count", text));
            }
            self.current.last = Some(copies);
        }
        self.done.text.push_str(text);
        Ok(after)
    }

    /// What begins with a backslash outside of a class.
    fn escaped(&mut self, from: &'a str) -> Result<&'a str, String> {
        let after = from.get(2..);
        match from.as_bytes().get(1) {
            Some(b'A') => self.item(r"\A", 1),
            Some(b'z') => self.item(r"\z", 1),
            Some(b'b') => self.item(r"(?-u:\b)", 1),
            Some(b'B') => self.item(r"(?-u:\B)", 1),
            Some(b'C') => return Err(wrong("invalid escape sequence", r"\C")),
            Some(b'Q') => {
                let quoted = &from[2..];
                let (quoted, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
                quoted.chars().for_each(|c| self.literal(u32::from(c)));
                return Ok(after);
            }
            _ => {
                let mut set = String::new();
                if let Some(after) = class_escape(from, false, &mut set)? {
                    self.item(&set, 1);
                    return Ok(after);
                }
                let (code, after) = char_escape(from)?;
                self.literal(code);
                return Ok(after);
            }
        }
        Ok(after.unwrap_or(""))
    }

    /// A class in brackets.
    fn class(&mut self, from: &'a str) -> Result<&'a str, String> {
        let mut out = String::from("[");
        let mut rest = &from[1..];
        if let Some(t) = rest.strip_prefix('^') {
            out.push('^');
            rest = t;
        }
        let begun = out.len();
        let mut first = true;
        while first || !rest.starts_with(']') {
            first = false;
            if let Some(end) = rest.strip_prefix("[:").and_then(|t| t.find(":]")) {
                let name = &rest[2..end + 2];
                let whole = &rest[..end + 4];
                if !POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
                    return Err(wrong("invalid character class range", whole));
                }
                out.push_str(whole);
                rest = &rest[end + 4..];
                continue;
            }
            if let Some(after) = class_escape(rest, true, &mut out)? {
                rest = after;
                continue;
            }
            let range = rest;
            let (low, mut after) = class_char(rest, from)?;
            let mut high = low;
            if after.len() >= 2 && after.starts_with('-') && !after[1..].starts_with(']') {
                (high, after) = class_char(&after[1..], from)?;
                if high < low {
                    return Err(wrong("invalid character class range", before(range, after)));
                }
            }
            push_range(low, high, &mut out);
            rest = after;
        }
        match (out.len() == begun, begun) {
            // Only halves of surrogate pairs, which no text has.
            (true, 1) => out = NOTHING.to_owned(),
            (true, _) => out = r"(?s:.)".to_owned(),
            (false, _) => out.push(']'),
        }
        self.item(&out, 1);
        Ok(&rest[1..])
    }
}

/// The numbers of `{n}`, `{n,}` or `{n,m}`, if the text begins with that, and what follows.
fn counts(from: &str) -> Option<(u32, Option<u32>, &str)> {
    let number = |s: &mut &str| -> Option<u32> {
        let digits = s.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 1 && s.starts_with('0') {
            return None;
        }
        let (text, after) = s.split_at(digits);
        *s = after;
        // More than can be counted is more than is allowed.
        Some(text.parse().unwrap_or(u32::MAX))
    };
    let mut rest = from.strip_prefix('{')?;
    let min = number(&mut rest)?;
    let max = match rest.strip_prefix(',') {
        None => Some(min),
        Some(t) => {
            rest = t;
            if rest.starts_with('}') { None } else { Some(number(&mut rest)?) }
        }
    };
    Some((min, max, rest.strip_prefix('}')?))
}

/// Writes `\d`, `\pL` and their kin, if the text begins with one; gives what follows.
fn class_escape<'a>(from: &'a str, in_class: bool, out: &mut String) -> Result<Option<&'a str>, String> {
    let Some(kind) = from.strip_prefix('\\').and_then(|t| t.chars().next()) else { return Ok(None) };
    let set = match kind {
        'd' | 'D' => DIGIT,
        'w' | 'W' => WORD,
        's' | 'S' => SPACE,
        'p' | 'P' => return unicode_class(from, kind == 'P', out),
        _ => return Ok(None),
    };
    match (kind.is_ascii_uppercase(), in_class) {
        (true, _) => out.push_str(&format!("[^{set}]")),
        (false, true) => out.push_str(set),
        (false, false) => out.push_str(&format!("[{set}]")),
    }
    Ok(Some(&from[2..]))
}

fn unicode_class<'a>(from: &'a str, negated: bool, out: &mut String) -> Result<Option<&'a str>, String> {
    let refuse = |part: &str| Err(wrong("invalid character class range", part));
    let name_on = &from[2..];
    let (name, whole) = match name_on.chars().next() {
        None => return refuse(from),
        Some('{') => match from.find('}') {
            Some(end) => (&from[3..end], &from[..=end]),
            None => return refuse(from),
        },
        Some(c) => (&name_on[..c.len_utf8()], &from[..2 + c.len_utf8()]),
    };
    let (name, negated) = name.strip_prefix('^').map_or((name, negated), |n| (n, !negated));
    let known = |list: &str| list.split(' ').any(|n| n == name);
    if name == "Any" {
        out.push_str(if negated { NOTHING } else { "[\\x{0}-\\x{10FFFF}]" });
    } else if known(CATEGORIES) || known(SCRIPTS) {
        let p = if negated { 'P' } else { 'p' };
        // No text has characters of `Cs`.
        match name {
            "Cs" if negated => out.push_str("[\\x{0}-\\x{10FFFF}]"),
            "Cs" => out.push_str(NOTHING),
            _ => out.push_str(&format!("\\{p}{{{name}}}")),
        }
    } else {
        return refuse(whole);
    }
    Ok(Some(&from[whole.len()..]))
}

/// One character of a class that begins at `class`; gives what follows too.
fn class_char<'a>(from: &'a str, class: &str) -> Result<(u32, &'a str), String> {
    match from.chars().next() {
        None => Err(wrong("missing closing ]", class)),
        Some('\\') => char_escape(from),
        Some(c) => Ok((u32::from(c), &from[c.len_utf8()..])),
    }
}

/// The character that an escape stands for, and what follows.
fn char_escape(from: &str) -> Result<(u32, &str), String> {
    let Some(c) = from[1..].chars().next() else {
        return Err(wrong("trailing backslash at end of expression", ""));
    };
    let after = &from[1 + c.len_utf8()..];
    let refuse = |rest: &str| Err(wrong("invalid escape sequence", before(from, rest)));
    let code = match c {
        '1'..='7' if !after.starts_with(|c| matches!(c, '0'..='7')) => return refuse(after),
        '0'..='7' => {
            let digits = after.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
            let octal = |code: u32, b: u8| code * 8 + u32::from(b - b'0');
            let code = after[..digits].bytes().fold(u32::from(c) - u32::from('0'), octal);
            return Ok((code, &after[digits..]));
        }
        'x' => return hex_escape(from, after),
        'a' => 7,
        'f' => 12,
        'n' => 10,
        'r' => 13,
        't' => 9,
        'v' => 11,
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
        _ => return refuse(after),
    };
    Ok((code, after))
}

/// `\x12` or `\x{1234}`; `digits` is what follows the `x`.
fn hex_escape<'a>(from: &str, digits: &'a str) -> Result<(u32, &'a str), String> {
    // The error shows all up to the character that is wrong.
    let refuse = |read: usize| {
        let next = digits[read..].chars().next().map_or(0, char::len_utf8);
        Err(wrong("invalid escape sequence", before(from, &digits[read + next..])))
    };
    let braced = digits.strip_prefix('{');
    let Some(braced) = braced else {
        for at in 0..2 {
            if !digits.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit) {
                return refuse(at);
            }
        }
        return Ok((u32::from_str_radix(&digits[..2], 16).map_err(|e| e.to_string())?, &digits[2..]));
    };
    let mut code = 0;
    for (at, c) in braced.char_indices() {
        match c.to_digit(16) {
            Some(digit) => {
                code = code * 16 + digit;
                if code > u32::from(char::MAX) {
                    return refuse(1 + at);
                }
            }
            None if c == '}' && at > 0 => return Ok((code, &braced[at + 1..])),
            None => return refuse(1 + at),
        }
    }
    refuse(digits.len())
}

/// Writes a character so that it has no other meaning.
fn push_char(c: char, out: &mut String) {
    if c.is_alphanumeric() || c == '_' {
        out.push(c);
    } else {
        write!(out, "\\x{{{:x}}}", u32::from(c)).expect("a string takes everything");
    }
}

/// Writes a range for a class, without halves of surrogate pairs.
fn push_range(low: u32, high: u32, out: &mut String) {
    const HALVES: std::ops::RangeInclusive<u32> = 0xD800..=0xDFFF;
    let low = if HALVES.contains(&low) { 0xE000 } else { low };
    let high = if HALVES.contains(&high) { 0xD7FF } else { high };
    let (Some(low), Some(high)) = (char::from_u32(low), char::from_u32(high)) else { return };
    if low <= high {
        push_char(low, out);
        if low < high {
            out.push('-');
            push_char(high, out);
        }
    }
}
