//! Scripts to commands.
//!
//! A script is read line by line; blank lines and comments end a block.

use model::Labels;
use model::duration::parse_ms;

use crate::notation::{Row, SeriesValue, StartOffsets, parse_number, parse_row};

/// A command and the line it begins on, counted from 1.
pub(crate) struct Located {
    pub(crate) line: usize,
    pub(crate) command: Result<Command, String>,
    /// The query, for reports; empty if it is no eval.
    pub(crate) query: String,
}

pub(crate) enum Command {
    Clear,
    Load(Load),
    Eval(Box<Eval>),
}

pub(crate) struct Load {
    pub(crate) step_ms: i64,
    /// Whether classic histograms are stored as native ones too.
    pub(crate) nhcb: bool,
    pub(crate) rows: Vec<LoadRow>,
}

pub(crate) struct LoadRow {
    pub(crate) labels: Labels,
    pub(crate) values: Vec<SeriesValue>,
    pub(crate) start_offsets: Option<StartOffsets>,
}

/// Times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    Instant(i64),
    Range { start: i64, end: i64, step: i64 },
}

pub(crate) struct Eval {
    pub(crate) when: When,
    pub(crate) query: String,
    pub(crate) expect: Expect,
}

/// What must come out.
#[derive(Default)]
pub(crate) struct Expect {
    pub(crate) fail: bool,
    pub(crate) fail_text: Vec<TextMatch>,
    pub(crate) ordered: bool,
    pub(crate) warn: AnnotationExpect,
    pub(crate) info: AnnotationExpect,
    pub(crate) string: Option<String>,
    /// Start and step of a matrix that an instant query gives.
    pub(crate) range_vector: Option<(i64, i64)>,
    pub(crate) scalar: Option<f64>,
    pub(crate) rows: Vec<(Labels, Vec<SeriesValue>)>,
}

#[derive(Default)]
pub(crate) struct AnnotationExpect {
    pub(crate) none: bool,
    /// One for each line.
    pub(crate) lines: Vec<TextMatch>,
}

pub(crate) enum TextMatch {
    Any,
    Equal(String),
    Regexp(regex::Regex),
}

impl TextMatch {
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Equal(expect) => expect.trim() == text.trim(),
            Self::Regexp(re) => re.is_match(text),
        }
    }
}

impl std::fmt::Display for TextMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Equal(t) => write!(f, "{t:?}"),
            Self::Regexp(re) => write!(f, "/{re}/"),
        }
    }
}

/// Most values that the rows of one script may stand for.
const VALUES_MAX: usize = 2_000_000;

/// Splits a script into commands. A command that cannot be read is an error in its place.
pub(crate) fn parse(text: &str) -> Vec<Located> {
    let mut room = Room(VALUES_MAX);
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|l| if l.starts_with('#') { "" } else { l }).collect();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        if line.is_empty() {
            at += 1;
            continue;
        }
        let first = at;
        at += 1;
        let word = line.split_whitespace().next().unwrap_or("").to_ascii_lowercase();
        let (command, query) = if word == "clear" {
            (Ok(Command::Clear), String::new())
        } else if word.starts_with("load") {
            let block = take_block(&lines, &mut at);
            (parse_load(line, block, &mut room).map(Command::Load), String::new())
        } else if word.starts_with("eval") {
            match parse_eval_head(line) {
                Ok(mut eval) => {
                    let query = eval.query.clone();
                    let done = parse_expectations(&lines, &mut at, &mut eval.expect, &mut room);
                    (done.map(|()| Command::Eval(Box::new(eval))), query)
                }
                Err(e) => {
                    take_block(&lines, &mut at);
                    (Err(e), (*line).to_owned())
                }
            }
        } else {
            (Err(format!("invalid command {line:?}")), String::new())
        };
        out.push(Located { line: first + 1, command, query });
    }
    out
}

/// How many values there may still be: a short row can stand for many.
struct Room(usize);

impl Room {
    fn take(&mut self, values: usize) -> Result<(), String> {
        self.0 = self
            .0
            .checked_sub(values)
            .ok_or_else(|| format!("the rows of this script stand for more than {VALUES_MAX} values"))?;
        Ok(())
    }
}

/// The lines up to the next blank one.
fn take_block<'a>(lines: &'a [&'a str], at: &mut usize) -> &'a [&'a str] {
    let rest = lines.get(*at..).unwrap_or_default();
    let len = rest.iter().position(|l| l.is_empty()).unwrap_or(rest.len());
    *at += len;
    &rest[..len]
}

// === load ===

fn parse_load(head: &str, block: &[&str], room: &mut Room) -> Result<Load, String> {
    let words: Vec<&str> = head.split_whitespace().collect();
    let (nhcb, step) = match words[..] {
        [w, step] if w.eq_ignore_ascii_case("load") => (false, step),
        [w, step] if w.eq_ignore_ascii_case("load_with_nhcb") => (true, step),
        _ => return Err(format!("invalid load command {head:?}")),
    };
    let mut load = Load { step_ms: parse_ms(step)?, nhcb, rows: Vec::new() };
    let mut pending: Option<(Labels, StartOffsets)> = None;
    for line in block {
        match parse_row(line)? {
            Row::StartTimestamps(labels, offsets) => {
                room.take(offsets.len())?;
                pending = Some((labels, offsets));
            }
            Row::Values(labels, values) => {
                room.take(values.len())?;
                let start_offsets = match pending.take() {
                    Some((of, _)) if of != labels => {
                        return Err(format!("start timestamps of {of} are not followed by its values"));
                    }
                    Some((_, offsets)) if offsets.len() != values.len() => {
                        return Err(format!(
                            "{labels} has {} values and {} start timestamps",
                            values.len(),
                            offsets.len()
                        ));
                    }
                    other => other.map(|(_, offsets)| offsets),
                };
                load.rows.push(LoadRow { labels, values, start_offsets });
            }
        }
    }
    match pending {
        Some((of, _)) => Err(format!("start timestamps of {of} are not followed by its values")),
        None => Ok(load),
    }
}

// === eval ===

/// Takes the next word off `rest`.
fn next_word<'a>(rest: &mut &'a str) -> &'a str {
    let text = rest.trim_start();
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    let (word, tail) = text.split_at(end);
    *rest = tail.trim_start();
    word
}

fn parse_eval_head(line: &str) -> Result<Eval, String> {
    let bad = || format!("invalid eval command {line:?}");
    let mut rest = line;
    let mut expect = Expect::default();
    match next_word(&mut rest).to_ascii_lowercase().as_str() {
        "eval" => {}
        "eval_fail" => expect.fail = true,
        "eval_warn" => expect.warn.lines.push(TextMatch::Any),
        "eval_info" => expect.info.lines.push(TextMatch::Any),
        "eval_ordered" => expect.ordered = true,
        _ => return Err(bad()),
    }
    let mut keyword = |rest: &mut &str, word: &str| {
        if next_word(rest).eq_ignore_ascii_case(word) { Ok(()) } else { Err(bad()) }
    };
    let kind = next_word(&mut rest);
    let when = if kind.eq_ignore_ascii_case("instant") {
        keyword(&mut rest, "at")?;
        When::Instant(parse_ms(next_word(&mut rest))?)
    } else if kind.eq_ignore_ascii_case("range") {
        let (start, end, step) = from_to_step(&mut rest, &mut keyword)?;
        When::Range { start, end, step }
    } else {
        return Err(bad());
    };
    Ok(Eval { when, query: rest.to_owned(), expect })
}

fn from_to_step(
    rest: &mut &str,
    keyword: &mut impl FnMut(&mut &str, &str) -> Result<(), String>,
) -> Result<(i64, i64, i64), String> {
    keyword(rest, "from")?;
    let start = parse_ms(next_word(rest))?;
    keyword(rest, "to")?;
    let end = parse_ms(next_word(rest))?;
    keyword(rest, "step")?;
    let step = parse_ms(next_word(rest))?;
    Ok((start, end, step))
}

fn parse_expectations(
    lines: &[&str],
    at: &mut usize,
    expect: &mut Expect,
    room: &mut Room,
) -> Result<(), String> {
    while let Some(line) = lines.get(*at).filter(|l| !l.is_empty()) {
        *at += 1;
        if let Some(value) = parse_number(line) {
            expect.scalar = Some(value);
            break;
        }
        let mut rest = *line;
        match next_word(&mut rest) {
            "expect" => parse_expect(rest, expect)?,
            "expected_fail_message" => {
                expect.fail_text.push(TextMatch::Equal(rest.to_owned()));
            }
            "expected_fail_regexp" => expect.fail_text.push(regexp(rest)?),
            _ => match parse_row(line)? {
                Row::Values(labels, values) => {
                    room.take(values.len())?;
                    expect.rows.push((labels, values));
                }
                Row::StartTimestamps(..) => return Err(format!("start timestamps in a result: {line}")),
            },
        }
    }
    Ok(())
}

fn parse_expect(text: &str, expect: &mut Expect) -> Result<(), String> {
    let mut rest = text;
    match next_word(&mut rest) {
        "fail" => {
            expect.fail = true;
            expect.fail_text.push(text_match(rest)?);
        }
        "warn" => expect.warn.lines.push(text_match(rest)?),
        "info" => expect.info.lines.push(text_match(rest)?),
        "no_warn" => expect.warn.none = true,
        "no_info" => expect.info.none = true,
        "ordered" => expect.ordered = true,
        "string" => {
            let options = promql::parser::ParserOptions::default();
            match promql::parser::parse(rest, &options) {
                Ok(promql::parser::Expr::String(s)) => expect.string = Some(s.value.clone()),
                _ => return Err(format!("not a string in quotes: {rest}")),
            }
        }
        "range" => {
            let mut keyword = |rest: &mut &str, word: &str| {
                if next_word(rest) == word { Ok(()) } else { Err(format!("invalid expectation {text:?}")) }
            };
            keyword(&mut rest, "vector")?;
            let (start, _, step) = from_to_step(&mut rest, &mut keyword)?;
            expect.range_vector = Some((start, step));
        }
        _ => return Err(format!("invalid expectation {text:?}")),
    }
    Ok(())
}

/// Nothing, `msg: TEXT` or `regex: RE`.
fn text_match(text: &str) -> Result<TextMatch, String> {
    if let Some(t) = text.strip_prefix("msg:") {
        return Ok(TextMatch::Equal(t.trim().to_owned()));
    }
    if let Some(t) = text.strip_prefix("regex:") {
        return regexp(t.trim());
    }
    if text.is_empty() { Ok(TextMatch::Any) } else { Err(format!("neither msg: nor regex: in {text:?}")) }
}

fn regexp(text: &str) -> Result<TextMatch, String> {
    regex::Regex::new(text).map(TextMatch::Regexp).map_err(|e| e.to_string())
}
