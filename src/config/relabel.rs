//! `relabel_configs` and its kin.

use model::relabel::{RelabelAction, RelabelRule};
use serde::{Deserialize, Serialize};

use super::scalar::RegexText;
use super::yaml::{At, Problem};

/// One relabeling rule as written; `None` where the default applies.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Relabel {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_labels: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<RegexText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modulus: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<At<String>>,
}

/// Checks rules and turns them into what runs.
///
/// # Errors
/// The first rule that contradicts itself.
pub fn rules(
    list: &[At<Relabel>],
    names: model::relabel::NameValidation,
) -> Result<Vec<RelabelRule>, Problem> {
    list.iter().map(|r| rule(r, names)).collect()
}

fn rule(r: &At<Relabel>, names: model::relabel::NameValidation) -> Result<RelabelRule, Problem> {
    let mut rule = RelabelRule { names, ..RelabelRule::default() };
    let Relabel { source_labels, separator, regex, modulus, target_label, replacement, action } = &r.value;
    if let Some(a) = action {
        rule.action = RelabelAction::parse(a).map_err(|e| a.problem(e.to_string()))?;
    }
    if let Some(v) = source_labels {
        rule.source_labels.clone_from(v);
    }
    if let Some(v) = separator {
        rule.separator.clone_from(v);
    }
    if let Some(v) = regex {
        rule.regex = v.0.clone();
    }
    if let Some(v) = modulus {
        rule.modulus = *v;
    }
    if let Some(v) = target_label {
        rule.target_label.clone_from(v);
    }
    if let Some(v) = replacement {
        rule.replacement.clone_from(v);
    }
    rule.validated().map_err(|e| r.problem(e.to_string()))
}
