//! `relabel_configs` and its kin.

use model::relabel::{RelabelAction, RelabelRule};
use serde::{Deserialize, Serialize};

use super::scalar::{RegexText, present, whole};
use super::yaml::{At, Problem};

/// One relabeling rule as written; `None` where the default applies.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Relabel {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_labels: Option<Vec<String>>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub regex: Option<RegexText>,
    #[serde(deserialize_with = "whole", skip_serializing_if = "Option::is_none")]
    pub modulus: Option<u64>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub target_label: Option<String>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
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
        if a.is_empty() {
            return Err(r.problem("relabel action cannot be empty"));
        }
        rule.action = RelabelAction::parse(a).map_err(|e| r.problem(e.to_string()))?;
    }
    if let Some(v) = source_labels {
        if v.iter().any(String::is_empty) {
            return Err(r.problem("\"\" is not a valid label name"));
        }
        rule.source_labels.clone_from(v);
    }
    if let Some(v) = separator {
        rule.separator.clone_from(v);
    }
    let compares = matches!(rule.action, RelabelAction::KeepEqual | RelabelAction::DropEqual);
    if compares && regex.is_some() {
        let action = action.as_deref().unwrap_or_default().to_lowercase();
        let text = "action requires only 'source_labels' and `target_label`, and no other fields";
        return Err(r.problem(format!("{action} {text}")));
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
