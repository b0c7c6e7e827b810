//! What strings an expression takes, told without a regular-expression engine, as far as that is possible.
//!
//! Most expressions of selectors are alternatives of texts with wildcards (`.*`, `.+`) between them: `a|b`, `api-.*`,
//! `.*(x|y).*`. A [`Shape`] is such a list. Where an expression is more than that, its shape is wider: what the shape does
//! not take, the expression does not take either, and for the rest the engine is asked.
//!
//! A shape that ignores case holds lower-case ASCII and judges ASCII only: beyond it, case has its own rules.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use memchr::memmem::Finder;
use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind, Look};
use xxhash_rust::xxh3::Xxh3Default;

/// Most alternatives that products (`(a|b)(c|d)`, classes) are written out to.
const PRODUCT_MAX: usize = 256;
/// Most alternatives of all.
const ALTERNATIVES_MAX: usize = 1 << 16;
/// Most alternatives of a shape that is wider than its expression.
const FILTERS_MAX: usize = 16;
/// Up to so many texts are written out in all their cases, since a store can look them up one by one.
const CASES_MAX: usize = 16;
/// From so many texts on they are looked up by hash.
const HASHED_MIN: usize = 16;

/// What a shape says of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Match,
    NoMatch,
    /// The engine must be asked.
    Unknown,
}

/// Alternatives of an expression.
#[derive(Debug)]
pub(super) struct Shape {
    /// Those without wildcards; sorted.
    texts: Vec<String>,
    /// The same, when there are many.
    hashed: HashSet<Box<[u8]>, BuildHasherDefault<Xxh3Default>>,
    /// Bit `n` stands for texts of `n` bytes, the last one for all longer ones.
    lengths: u64,
    /// Those with wildcards, sorted by prefix.
    globs: Vec<Glob>,
    /// All globs have a prefix at least this long.
    prefix_len: usize,
    /// Whether case does not count.
    folded: bool,
    /// Whether the expression takes exactly what the shape takes.
    exact: bool,
}

/// Texts with wildcards between them.
#[derive(Debug)]
struct Glob {
    prefix: Vec<u8>,
    /// Whether the wildcard before it takes a character at least; and a text.
    middle: Vec<(bool, Finder<'static>)>,
    /// Whether the last wildcard takes a character at least.
    last_takes_one: bool,
    suffix: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// Any characters; whether it is one at least.
    Any(bool),
}

/// Pieces in order; no two texts or wildcards side by side.
type Chain = Vec<Piece>;

#[derive(Clone, Copy)]
struct Mode {
    folded: bool,
    exact: bool,
}

impl Shape {
    /// The shape of an expression that is anchored at both ends; `None` when nothing is known.
    pub(super) fn of(hir: &Hir) -> Option<Self> {
        let hir = without_anchors(hir);
        let exact = |folded| expand(&hir, Mode { folded, exact: true });
        let (chains, mode) = match exact(false) {
            Some(chains) if chains.len() <= CASES_MAX => (chains, Mode { folded: false, exact: true }),
            Some(chains) => match exact(true) {
                Some(fewer) if fewer.len() < chains.len() => (fewer, Mode { folded: true, exact: true }),
                _ => (chains, Mode { folded: false, exact: true }),
            },
            None => match exact(true) {
                Some(chains) => (chains, Mode { folded: true, exact: true }),
                None => {
                    let mode = Mode { folded: false, exact: false };
                    (expand(&hir, mode).filter(|c| c.len() <= FILTERS_MAX)?, mode)
                }
            },
        };
        // Several searches through a whole string take longer than the engine's one.
        let searching = |c: &&Chain| matches!(c.as_slice(), [Piece::Any(_), .., Piece::Any(_)]);
        if chains.iter().filter(searching).count() > 1 {
            return None;
        }
        if !mode.exact && chains.iter().any(|c| !c.iter().any(|p| matches!(p, Piece::Text(_)))) {
            return None;
        }
        Some(Self::new(chains, mode))
    }

    fn new(chains: Vec<Chain>, mode: Mode) -> Self {
        let (mut texts, mut globs) = (Vec::new(), Vec::new());
        for chain in chains {
            match <[Piece; 1]>::try_from(chain) {
                Ok([Piece::Text(text)]) => texts.push(text),
                Ok(wildcard) => globs.push(Glob::new(wildcard.into())),
                Err(chain) if chain.is_empty() => texts.push(String::new()),
                Err(chain) => globs.push(Glob::new(chain)),
            }
        }
        texts.sort_unstable();
        texts.dedup();
        globs.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        let hashed = match texts.len() {
            HASHED_MIN.. => texts.iter().map(|t| t.as_bytes().into()).collect(),
            _ => HashSet::default(),
        };
        Self {
            lengths: texts.iter().fold(0, |mask, t| mask | length_bit(t.len())),
            prefix_len: globs.iter().map(|g| g.prefix.len()).min().unwrap_or(0),
            texts,
            hashed,
            globs,
            folded: mode.folded,
            exact: mode.exact,
        }
    }

    /// Whether the engine is never needed for ASCII.
    pub(super) fn is_exact(&self) -> bool {
        self.exact
    }

    /// Judges a string.
    pub(super) fn judge(&self, s: &str) -> Judgement {
        let taken = if !self.folded {
            self.takes(s.as_bytes())
        } else if !s.is_ascii() {
            return Judgement::Unknown;
        } else {
            let mut buffer = [0; 128];
            match buffer.get_mut(..s.len()) {
                Some(lower) => {
                    lower.copy_from_slice(s.as_bytes());
                    lower.make_ascii_lowercase();
                    self.takes(lower)
                }
                None => self.takes(s.to_ascii_lowercase().as_bytes()),
            }
        };
        match (taken, self.exact) {
            (false, _) => Judgement::NoMatch,
            (true, true) => Judgement::Match,
            (true, false) => Judgement::Unknown,
        }
    }

    fn takes(&self, s: &[u8]) -> bool {
        if self.lengths & length_bit(s.len()) != 0 {
            let found = if self.hashed.is_empty() {
                self.texts.iter().any(|t| t.as_bytes() == s)
            } else {
                self.hashed.contains(s)
            };
            if found {
                return true;
            }
        }
        let mut globs = self.globs.as_slice();
        if self.prefix_len > 0 && !globs.is_empty() {
            let Some(head) = s.get(..self.prefix_len) else { return false };
            globs = &globs[globs.partition_point(|g| &g.prefix[..self.prefix_len] < head)..];
            globs = &globs[..globs.partition_point(|g| &g.prefix[..self.prefix_len] == head)];
        }
        globs.iter().any(|g| g.takes(s))
    }

    /// All strings that are taken, sorted, when there are finitely many.
    pub(super) fn set(&self) -> Option<&[String]> {
        (self.exact && !self.folded && self.globs.is_empty()).then_some(&self.texts)
    }

    /// What is taken begins with one of these, of which none is the beginning of another one; sorted.
    pub(super) fn prefixes(&self) -> Vec<String> {
        let anything = vec![String::new()];
        if self.folded {
            return anything;
        }
        let globs = self.globs.iter().map(|g| String::from_utf8_lossy(&g.prefix).into_owned());
        let mut all: Vec<String> = self.texts.iter().cloned().chain(globs).collect();
        all.sort_unstable();
        all.dedup_by(|later, kept| later.starts_with(kept.as_str()));
        if all.is_empty() { anything } else { all }
    }
}

fn length_bit(len: usize) -> u64 {
    1 << len.min(63)
}

impl Glob {
    fn new(chain: Chain) -> Self {
        let mut out =
            Self { prefix: Vec::new(), middle: Vec::new(), last_takes_one: false, suffix: Vec::new() };
        let (mut takes_one, last) = (None, chain.len() - 1);
        for (i, piece) in chain.into_iter().enumerate() {
            match (piece, takes_one) {
                (Piece::Any(one), _) => takes_one = Some(one),
                (Piece::Text(text), None) => out.prefix = text.into_bytes(),
                (Piece::Text(text), Some(_)) if i == last => out.suffix = text.into_bytes(),
                (Piece::Text(text), Some(one)) => out.middle.push((one, Finder::new(&text).into_owned())),
            }
        }
        out.last_takes_one = takes_one.expect("an alternative without wildcards is a text");
        out
    }

    fn takes(&self, s: &[u8]) -> bool {
        let Some(mut rest) = s.strip_prefix(self.prefix.as_slice()) else { return false };
        // The first place of each text leaves most for those after it.
        for (takes_one, finder) in &self.middle {
            let from = usize::from(*takes_one);
            let Some(at) = rest.get(from..).and_then(|r| finder.find(r)) else { return false };
            rest = &rest[from + at + finder.needle().len()..];
        }
        rest.len() >= self.suffix.len() + usize::from(self.last_takes_one) && rest.ends_with(&self.suffix)
    }
}

/// The expression without `^` at its start and `$` at its end, where they say nothing new.
pub(super) fn without_anchors(hir: &Hir) -> Hir {
    let HirKind::Concat(parts) = hir.kind() else { return hir.clone() };
    let mut parts = parts.as_slice();
    while let [first, rest @ ..] = parts
        && matches!(first.kind(), HirKind::Look(Look::Start))
    {
        parts = rest;
    }
    while let [rest @ .., last] = parts
        && matches!(last.kind(), HirKind::Look(Look::End))
    {
        parts = rest;
    }
    Hir::concat(parts.to_vec())
}

/// The alternatives of an expression, or, where it need not be exact, of a wider one.
fn expand(hir: &Hir, mode: Mode) -> Option<Vec<Chain>> {
    let known = match hir.kind() {
        HirKind::Empty => Some(vec![Vec::new()]),
        HirKind::Literal(l) => text(&l.0, mode).map(|t| vec![vec![Piece::Text(t)]]),
        HirKind::Class(Class::Unicode(c)) => class(c, mode),
        HirKind::Class(_) => None,
        // Something between characters: without it, more is taken.
        HirKind::Look(_) => (!mode.exact).then(|| vec![Vec::new()]),
        HirKind::Capture(c) => expand(&c.sub, mode),
        HirKind::Repetition(r) => match (r.min, r.max) {
            (0 | 1, None) if is_any(&r.sub) => Some(vec![vec![Piece::Any(r.min == 1)]]),
            (0, Some(1)) => expand(&r.sub, mode).map(|mut chains| {
                chains.push(Vec::new());
                chains
            }),
            _ => None,
        },
        HirKind::Alternation(alternatives) => {
            let mut out = Vec::new();
            for a in alternatives {
                out.extend(expand(a, mode)?);
                if out.len() > ALTERNATIVES_MAX {
                    return None;
                }
            }
            Some(out)
        }
        HirKind::Concat(parts) => concat(parts, mode),
    };
    known.or_else(|| (!mode.exact).then(|| vec![vec![Piece::Any(false)]]))
}

fn concat(parts: &[Hir], mode: Mode) -> Option<Vec<Chain>> {
    let anything = || vec![vec![Piece::Any(false)]];
    let mut out: Vec<Chain> = vec![Vec::new()];
    for part in parts {
        let mut tails = expand(part, mode)?;
        let most = if mode.exact { PRODUCT_MAX } else { FILTERS_MAX };
        if out.len() > 1 && tails.len() > 1 && out.len() * tails.len() > most {
            if mode.exact {
                return None;
            }
            tails = anything();
        }
        out = match tails.as_slice() {
            [tail] => {
                for chain in &mut out {
                    append(chain, tail, mode)?;
                }
                out
            }
            tails => {
                let mut product = Vec::with_capacity(out.len() * tails.len());
                for (head, tail) in out.iter().flat_map(|head| tails.iter().map(move |t| (head, t))) {
                    let mut chain = head.clone();
                    append(&mut chain, tail, mode)?;
                    product.push(chain);
                }
                product
            }
        };
    }
    Some(out)
}

/// Puts two chains together. Two wildcards that both take a character are more than one wildcard can say.
fn append(chain: &mut Chain, tail: &[Piece], mode: Mode) -> Option<()> {
    for piece in tail {
        match (chain.last_mut(), piece) {
            (Some(Piece::Text(a)), Piece::Text(b)) => a.push_str(b),
            (Some(Piece::Any(true)), Piece::Any(true)) if mode.exact => return None,
            (Some(Piece::Any(a)), Piece::Any(b)) => *a |= b,
            (_, piece) => chain.push(piece.clone()),
        }
    }
    Some(())
}

fn text(bytes: &[u8], mode: Mode) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let has_case = |b: u8| !b.is_ascii() || b.is_ascii_alphabetic();
    (!mode.folded || !text.bytes().any(has_case)).then(|| text.to_owned())
}

/// The characters of a small class. Where case does not count, both cases of each letter must be in it; other characters
/// than ASCII do not matter then.
fn class(class: &ClassUnicode, mode: Mode) -> Option<Vec<Chain>> {
    let ranges = class.ranges().iter().map(|r| r.start()..=r.end());
    let count: usize = class.ranges().iter().map(|r| r.end() as usize - r.start() as usize + 1).sum();
    if count > PRODUCT_MAX {
        return None;
    }
    let mut characters: Vec<char> = ranges.flatten().collect();
    if mode.folded {
        let has = |c: char| characters.contains(&c);
        let swapped =
            |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        let ascii = characters.iter().copied().filter(char::is_ascii);
        if !ascii.clone().all(|c| has(swapped(c))) {
            return None;
        }
        characters = ascii.filter(|c| !c.is_ascii_uppercase()).collect();
    }
    (!characters.is_empty()).then(|| characters.into_iter().map(|c| vec![Piece::Text(c.into())]).collect())
}

/// Whether an expression takes any one character.
pub(super) fn is_any(hir: &Hir) -> bool {
    let HirKind::Class(Class::Unicode(c)) = hir.kind() else { return false };
    matches!(c.ranges(), [r] if r.start() == '\0' && r.end() == char::MAX)
}
