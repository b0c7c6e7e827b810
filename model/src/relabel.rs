//! Relabeling: rules that rewrite a label set or drop its bearer, as Prometheus has them.
//!
//! The rules serve discovered targets, scraped series, remote write and alerts alike, so they live beside [`Labels`]
//! and know nothing of configuration files. [`RelabelRule::validated`] holds the checks, in Prometheus's words.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config>.
//!
//! [`Labels`]: crate::Labels

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use md5::{Digest, Md5};

use crate::labels::{LabelsBuilder, Quoted, is_legacy_label_name, is_legacy_metric_name};
use crate::regexp::Regexp;

/// Separator between the values of several source labels when none is given.
pub const DEFAULT_SEPARATOR: &str = ";";
/// Regular expression when none is given.
pub const DEFAULT_REGEX: &str = "(.*)";
/// Replacement when none is given.
pub const DEFAULT_REPLACEMENT: &str = "$1";

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum RelabelAction {
    /// Writes the replacement to the target label when the source matches.
    #[default]
    Replace,
    /// Drops what does not match.
    Keep,
    /// Drops what matches.
    Drop,
    /// Drops what differs from the target label.
    KeepEqual,
    /// Drops what equals the target label.
    DropEqual,
    /// Writes a hash of the source modulo a number to the target label.
    HashMod,
    /// Copies labels whose name matches to the name that the replacement gives.
    LabelMap,
    /// Removes labels whose name matches.
    LabelDrop,
    /// Removes labels whose name does not match.
    LabelKeep,
    /// Writes the source in lower case to the target label.
    Lowercase,
    /// Writes the source in upper case to the target label.
    Uppercase,
}

impl RelabelAction {
    /// The name in configuration files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }

    /// The action of a name, in any case.
    ///
    /// # Errors
    /// When there is none of that name, the empty one included.
    pub fn parse(s: &str) -> Result<Self, RelabelError> {
        const ALL: [RelabelAction; 11] = [
            RelabelAction::Replace,
            RelabelAction::Keep,
            RelabelAction::Drop,
            RelabelAction::KeepEqual,
            RelabelAction::DropEqual,
            RelabelAction::HashMod,
            RelabelAction::LabelMap,
            RelabelAction::LabelDrop,
            RelabelAction::LabelKeep,
            RelabelAction::Lowercase,
            RelabelAction::Uppercase,
        ];
        ALL.into_iter()
            .find(|a| a.as_str().eq_ignore_ascii_case(s))
            .ok_or_else(|| RelabelError(format!("unknown relabel action {}", Quoted(s))))
    }
}

impl fmt::Display for RelabelAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which label names are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum NameValidation {
    /// Any non-empty UTF-8 string.
    #[default]
    Utf8,
    /// `[a-zA-Z_][a-zA-Z0-9_]*`, and `:` too in metric names.
    Legacy,
}

impl NameValidation {
    /// Whether `name` may be a label's name.
    #[must_use]
    pub fn is_label_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => is_legacy_label_name(name),
        }
    }

    /// Whether `name` may be a metric's name.
    #[must_use]
    pub fn is_metric_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => is_legacy_metric_name(name),
        }
    }
}

/// Why a rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RelabelError(String);

/// One relabeling rule. Start from `RelabelRule::default()`, set what the configuration names, and end with
/// [`RelabelRule::validated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelabelRule {
    /// Labels whose values are joined to the source; absent ones count as empty.
    pub source_labels: Vec<String>,
    /// Stands between the values.
    pub separator: String,
    /// What the source (or the label name, for `label*` actions) must match as a whole.
    pub regex: Regexp,
    /// Modulus of `hashmod`; not 0 there.
    pub modulus: u64,
    /// Label that is written or compared. `replace` expands references to groups in it.
    pub target_label: String,
    /// What is written, references to groups expanded.
    pub replacement: String,
    /// What is done.
    pub action: RelabelAction,
    /// Which names `replace` may write.
    pub names: NameValidation,
}

static ANYTHING: LazyLock<Regexp> =
    LazyLock::new(|| Regexp::new(DEFAULT_REGEX).expect("the default expression compiles"));

impl Default for RelabelRule {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: DEFAULT_SEPARATOR.into(),
            regex: ANYTHING.clone(),
            modulus: 0,
            target_label: String::new(),
            replacement: DEFAULT_REPLACEMENT.into(),
            action: RelabelAction::Replace,
            names: NameValidation::Utf8,
        }
    }
}

impl RelabelRule {
    /// The rule itself when it makes sense.
    ///
    /// # Errors
    /// What is missing, or set and of no effect, for the rule's action.
    pub fn validated(self) -> Result<Self, RelabelError> {
        match self.problem() {
            None => Ok(self),
            Some(text) => Err(RelabelError(text)),
        }
    }

    fn problem(&self) -> Option<String> {
        use RelabelAction as A;
        let action = self.action;
        let bad_target =
            || Some(format!("{} is invalid 'target_label' for {action} action", Quoted(&self.target_label)));
        if action == A::HashMod && self.modulus == 0 {
            return Some("relabel configuration for hashmod requires non-zero modulus".into());
        }
        let writes = matches!(
            action,
            A::Replace | A::HashMod | A::Lowercase | A::Uppercase | A::KeepEqual | A::DropEqual
        );
        if writes && self.target_label.is_empty() {
            return Some(format!("relabel configuration for {action} action requires 'target_label' value"));
        }
        let target_valid = self.names.is_label_name(&self.target_label);
        if action == A::Replace {
            let valid = if has_reference(&self.target_label) {
                self.is_name_template(&self.target_label)
            } else {
                target_valid
            };
            if !valid {
                return bad_target();
            }
        }
        if matches!(action, A::Lowercase | A::Uppercase | A::KeepEqual | A::DropEqual) {
            if !target_valid {
                return bad_target();
            }
            if self.replacement != DEFAULT_REPLACEMENT {
                return Some(format!("'replacement' can not be set for {action} action"));
            }
        }
        if action == A::LabelMap && !self.is_name_template(&self.replacement) {
            let replacement = Quoted(&self.replacement);
            return Some(format!("{replacement} is invalid 'replacement' for {action} action"));
        }
        if action == A::HashMod && !target_valid {
            return bad_target();
        }
        self.superfluous()
    }

    /// Fields that are set although the action does not read them.
    fn superfluous(&self) -> Option<String> {
        use RelabelAction as A;
        let others = self.modulus != 0
            || self.separator != DEFAULT_SEPARATOR
            || self.replacement != DEFAULT_REPLACEMENT;
        match self.action {
            A::KeepEqual | A::DropEqual if others || self.regex.as_str() != DEFAULT_REGEX => Some(format!(
                "{} action requires only 'source_labels' and `target_label`, and no other fields",
                self.action
            )),
            A::LabelDrop | A::LabelKeep
                if others || !self.source_labels.is_empty() || !self.target_label.is_empty() =>
            {
                Some(format!("{} action requires only 'regex', and no other fields", self.action))
            }
            _ => None,
        }
    }

    /// Whether references to groups and valid characters together can make a label name.
    fn is_name_template(&self, template: &str) -> bool {
        match self.names {
            NameValidation::Utf8 => !template.is_empty(),
            NameValidation::Legacy => is_legacy_template(template),
        }
    }

    /// The values of the source labels, joined; `buffer` is used only when there are several.
    fn source<'a>(&self, labels: &'a LabelsBuilder, buffer: &'a mut String) -> &'a str {
        if let [name] = self.source_labels.as_slice() {
            return labels.get(name);
        }
        buffer.clear();
        for (i, name) in self.source_labels.iter().enumerate() {
            if i > 0 {
                buffer.push_str(&self.separator);
            }
            buffer.push_str(labels.get(name));
        }
        buffer
    }

    /// Whether to keep the bearer of the labels.
    fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        use RelabelAction as A;
        match self.action {
            A::LabelMap => self.map_names(labels),
            A::LabelDrop => labels.retain(|name, _| !self.regex.is_match(name)),
            A::LabelKeep => labels.retain(|name, _| self.regex.is_match(name)),
            _ => return self.apply_to_source(labels),
        }
        true
    }

    fn apply_to_source(&self, labels: &mut LabelsBuilder) -> bool {
        // The builder's own buffer, so that a rule allocates nothing and a dropped bearer costs nothing.
        let mut buffer = std::mem::take(&mut labels.scratch);
        let keep = match self.verdict(self.source(labels, &mut buffer), labels) {
            Verdict::Keep => true,
            Verdict::Drop => false,
            Verdict::Set(name, value) => {
                labels.set(&name, &value);
                true
            }
        };
        labels.scratch = buffer;
        keep
    }

    /// What the rule says of a source.
    fn verdict(&self, source: &str, labels: &LabelsBuilder) -> Verdict<'_> {
        use RelabelAction as A;
        let target = || Cow::Borrowed(self.target_label.as_str());
        let keep_if = |keep| if keep { Verdict::Keep } else { Verdict::Drop };
        match self.action {
            A::Keep => keep_if(self.regex.is_match(source)),
            A::Drop => keep_if(!self.regex.is_match(source)),
            A::KeepEqual => keep_if(labels.get(&self.target_label) == source),
            A::DropEqual => keep_if(labels.get(&self.target_label) != source),
            A::Replace => self.replace(source),
            A::HashMod => {
                let digest = Md5::digest(source.as_bytes());
                let (_, low) = digest.split_at(8);
                let hash = low.iter().fold(0_u64, |acc, b| (acc << 8) | u64::from(*b));
                let value = hash.checked_rem(self.modulus).unwrap_or(0).to_string();
                Verdict::Set(target(), value.into())
            }
            A::Lowercase => Verdict::Set(target(), source.chars().map(simple_lower).collect()),
            A::Uppercase => Verdict::Set(target(), source.chars().map(simple_upper).collect()),
            A::LabelMap | A::LabelDrop | A::LabelKeep => Verdict::Keep,
        }
    }

    fn replace(&self, source: &str) -> Verdict<'_> {
        if !has_reference(&self.target_label) {
            // What nearly every rule is needs no capture groups.
            let target = Cow::Borrowed(self.target_label.as_str());
            if !has_reference(&self.replacement) {
                if self.regex.is_match(source) {
                    return Verdict::Set(target, Cow::Borrowed(&self.replacement));
                }
                return Verdict::Keep;
            }
            if self.replacement == DEFAULT_REPLACEMENT && self.regex.as_str() == DEFAULT_REGEX {
                return Verdict::Set(target, source.to_owned().into());
            }
            return match self.regex.expand(source, &self.replacement) {
                Some(value) if self.names.is_label_name(&target) => Verdict::Set(target, value.into()),
                _ => Verdict::Keep,
            };
        }
        let Some(target) = self.regex.expand(source, &self.target_label) else { return Verdict::Keep };
        if !self.names.is_label_name(&target) {
            return Verdict::Keep;
        }
        let value = self.regex.expand(source, &self.replacement).unwrap_or_default();
        Verdict::Set(target.into(), value.into())
    }

    fn map_names(&self, labels: &mut LabelsBuilder) {
        let renamed: Vec<(String, String)> = labels
            .iter()
            .filter_map(|(n, v)| self.regex.expand(n, &self.replacement).map(|to| (to, v.to_owned())))
            .collect();
        for (name, value) in renamed {
            if !name.is_empty() {
                labels.set(&name, &value);
            }
        }
    }
}

/// What a rule that looks at a source says.
enum Verdict<'a> {
    Keep,
    Drop,
    Set(Cow<'a, str>, Cow<'a, str>),
}

/// Applies `rules` in order. False: a rule says to drop the bearer of the labels, which are then as far as that rule
/// found them.
#[must_use]
pub fn process(rules: &[RelabelRule], labels: &mut LabelsBuilder) -> bool {
    rules.iter().all(|r| r.apply(labels))
}

fn has_reference(template: &str) -> bool {
    template.contains('$')
}

/// `[a-zA-Z_]`, `$name` and `${name}` in front, then word characters and more of the same.
fn is_legacy_template(template: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = template;
    let mut first = true;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c == '$' {
            let (name, tail) = match rest.strip_prefix('{') {
                Some(inner) => match inner.split_once('}') {
                    Some(parts) => parts,
                    None => return false,
                },
                None => rest.split_at(rest.find(|c| !word(c)).unwrap_or(rest.len())),
            };
            if name.is_empty() || !name.chars().all(word) {
                return false;
            }
            rest = tail;
        } else if !word(c) || (first && c.is_ascii_digit()) {
            return false;
        }
        first = false;
    }
    !first
}

/// One character for one character, as Go maps case; where the full mapping has several, the character stays.
fn simple_lower(c: char) -> char {
    if c == '\u{130}' {
        return 'i';
    }
    only(c.to_lowercase()).unwrap_or(c)
}

fn simple_upper(c: char) -> char {
    only(c.to_uppercase()).unwrap_or(c)
}

fn only(mut chars: impl Iterator<Item = char>) -> Option<char> {
    chars.next().filter(|_| chars.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: RelabelAction) -> RelabelRule {
        RelabelRule { action, ..RelabelRule::default() }
    }

    fn re(s: &str) -> Regexp {
        Regexp::new(s).expect("valid")
    }

    fn from(labels: &[&str]) -> RelabelRule {
        RelabelRule {
            source_labels: labels.iter().map(|l| (*l).to_owned()).collect(),
            ..RelabelRule::default()
        }
    }

    /// `expect` is the label set afterwards, or `None` when it is dropped.
    fn check(rule: RelabelRule, input: &[(&str, &str)], expect: Option<&str>) {
        let rule = rule.validated().expect("makes sense");
        let mut b = LabelsBuilder::new();
        for (n, v) in input {
            b.set(n, v);
        }
        let kept = process(std::slice::from_ref(&rule), &mut b);
        assert_eq!(kept.then(|| b.build().to_string()).as_deref(), expect, "{rule:?}");
    }

    const AB: [(&str, &str); 2] = [("a", "foo"), ("b", "Bar-7")];

    #[test]
    fn replace() {
        let to = |target: &str, regex: &str, replacement: &str| RelabelRule {
            target_label: target.into(),
            regex: re(regex),
            replacement: replacement.into(),
            ..from(&["a", "b"])
        };
        check(to("d", "(.*)", "$1"), &AB, Some("{a=\"foo\", b=\"Bar-7\", d=\"foo;Bar-7\"}"));
        check(to("d", "f(.*);(.*)-7", "${2}x${1}"), &AB, Some("{a=\"foo\", b=\"Bar-7\", d=\"Barxoo\"}"));
        check(to("d", "no", "x"), &AB, Some("{a=\"foo\", b=\"Bar-7\"}"));
        check(to("a", "foo.*", ""), &AB, Some("{b=\"Bar-7\"}"));
        check(to("a", "foo.*(x?)", "$1"), &AB, Some("{b=\"Bar-7\"}"));
        check(to("l_$1", "(f)oo.*", "v"), &AB, Some("{a=\"foo\", b=\"Bar-7\", l_f=\"v\"}"));
        check(to("${2}", "(f)oo.*", "v"), &AB, Some("{a=\"foo\", b=\"Bar-7\"}"));
        let always =
            RelabelRule { target_label: "d".into(), replacement: "v".into(), ..RelabelRule::default() };
        check(always, &[], Some("{d=\"v\"}"));
    }

    #[test]
    fn keep_and_drop() {
        let with = |action, regex| RelabelRule { action, regex: re(regex), ..from(&["a"]) };
        check(with(RelabelAction::Keep, "f.."), &AB, Some("{a=\"foo\", b=\"Bar-7\"}"));
        check(with(RelabelAction::Keep, "f"), &AB, None);
        check(with(RelabelAction::Drop, "f.."), &AB, None);
        check(with(RelabelAction::Drop, "f"), &AB, Some("{a=\"foo\", b=\"Bar-7\"}"));
        let equal =
            |action, target: &str| RelabelRule { action, target_label: target.into(), ..from(&["a"]) };
        check(equal(RelabelAction::KeepEqual, "c"), &[("a", "1"), ("c", "1")], Some("{a=\"1\", c=\"1\"}"));
        check(equal(RelabelAction::KeepEqual, "c"), &AB, None);
        check(equal(RelabelAction::DropEqual, "c"), &[("a", "1"), ("c", "1")], None);
        check(equal(RelabelAction::DropEqual, "c"), &AB, Some("{a=\"foo\", b=\"Bar-7\"}"));
    }

    #[test]
    fn hash_and_case() {
        let to_d = |action| RelabelRule { action, target_label: "d".into(), ..from(&["b"]) };
        // MD5 of the empty string ends in e9800998ecf8427e.
        let hashmod = RelabelRule { modulus: u64::MAX, ..to_d(RelabelAction::HashMod) };
        let low = 0xe980_0998_ecf8_427e_u64;
        check(hashmod, &[("a", "1")], Some(&format!("{{a=\"1\", d=\"{low}\"}}")));
        check(to_d(RelabelAction::Lowercase), &AB, Some("{a=\"foo\", b=\"Bar-7\", d=\"bar-7\"}"));
        check(to_d(RelabelAction::Uppercase), &AB, Some("{a=\"foo\", b=\"Bar-7\", d=\"BAR-7\"}"));
        check(to_d(RelabelAction::Uppercase), &[("b", "ß")], Some("{b=\"ß\", d=\"ß\"}"));
    }

    #[test]
    fn label_names() {
        let with = |action, regex, replacement: &str| RelabelRule {
            regex: re(regex),
            replacement: replacement.into(),
            ..rule(action)
        };
        let meta = [("__meta_x", "1"), ("__meta_y", "2"), ("a", "3")];
        check(
            with(RelabelAction::LabelMap, "__meta_(.)", "k_$1"),
            &meta,
            Some("{__meta_x=\"1\", __meta_y=\"2\", a=\"3\", k_x=\"1\", k_y=\"2\"}"),
        );
        check(with(RelabelAction::LabelDrop, "__meta_.*", "$1"), &meta, Some("{a=\"3\"}"));
        check(with(RelabelAction::LabelKeep, "a|b", "$1"), &meta, Some("{a=\"3\"}"));
    }

    #[test]
    fn refuses_what_prometheus_refuses() {
        use RelabelAction as A;
        let target = |action, t: &str| RelabelRule { target_label: t.into(), ..rule(action) };
        let legacy = |r: RelabelRule| RelabelRule { names: NameValidation::Legacy, ..r };
        for (r, error) in [
            (rule(A::HashMod), "relabel configuration for hashmod requires non-zero modulus"),
            (rule(A::Replace), "relabel configuration for replace action requires 'target_label' value"),
            (legacy(target(A::Replace, "a-b")), "\"a-b\" is invalid 'target_label' for replace action"),
            (legacy(target(A::Replace, "a${x")), "\"a${x\" is invalid 'target_label' for replace action"),
            (
                RelabelRule { replacement: "x".into(), ..target(A::Lowercase, "a") },
                "'replacement' can not be set for lowercase action",
            ),
            (
                legacy(RelabelRule { replacement: "-".into(), ..rule(A::LabelMap) }),
                "\"-\" is invalid 'replacement' for labelmap action",
            ),
            (
                RelabelRule { separator: "-".into(), ..target(A::KeepEqual, "a") },
                "keepequal action requires only 'source_labels' and `target_label`, and no other fields",
            ),
            (target(A::LabelDrop, "a"), "labeldrop action requires only 'regex', and no other fields"),
        ] {
            assert_eq!(r.validated().expect_err(error).to_string(), error);
        }
        assert!(legacy(target(A::Replace, "a_${1}_$2")).validated().is_ok());
        assert!(target(A::Replace, "a-b").validated().is_ok());
        assert_eq!(RelabelAction::parse("LabelMap"), Ok(A::LabelMap));
        assert!(RelabelAction::parse("nope").is_err());
    }
}
