//! What the group of an expression takes that is a text, one group of any characters, and a text: `(.*)`, `(.+);`,
//! `Pod;(.*)`. Most rules of relabeling are of this form, and none of them needs a regular-expression engine.
//!
//! Since all of the string must match and the texts have fixed places, there is only one way to match, greedy or not.

use regex_syntax::hir::{Hir, HirKind};

use super::shape::{is_any, without_anchors};

#[derive(Debug)]
pub(super) struct OneGroup {
    prefix: String,
    suffix: String,
    /// The group takes a character at least.
    takes_one: bool,
}

impl OneGroup {
    /// `None` when the expression has another form.
    pub(super) fn of(hir: &Hir) -> Option<Self> {
        let hir = without_anchors(hir);
        let parts = match hir.kind() {
            HirKind::Concat(parts) => parts.as_slice(),
            _ => std::slice::from_ref(&hir),
        };
        let (prefix, group, suffix) = match parts {
            [group] => (String::new(), group, String::new()),
            [first, group] if text(first).is_some() => (text(first)?, group, String::new()),
            [group, last] => (String::new(), group, text(last)?),
            [first, group, last] => (text(first)?, group, text(last)?),
            _ => return None,
        };
        let HirKind::Capture(capture) = group.kind() else { return None };
        match capture.sub.kind() {
            HirKind::Repetition(r) if matches!((r.min, r.max), (0 | 1, None)) && is_any(&r.sub) => {
                Some(Self { prefix, suffix, takes_one: r.min == 1 })
            }
            _ => None,
        }
    }

    /// What the group takes; `None` when the string does not match.
    pub(super) fn take<'s>(&self, s: &'s str) -> Option<&'s str> {
        let rest = s.strip_prefix(self.prefix.as_str())?.strip_suffix(self.suffix.as_str())?;
        (!self.takes_one || !rest.is_empty()).then_some(rest)
    }
}

fn text(hir: &Hir) -> Option<String> {
    let HirKind::Literal(literal) = hir.kind() else { return None };
    String::from_utf8(literal.0.to_vec()).ok()
}
