//! What would be scraped: discovered targets with their labels before and after relabeling, without scraping any.

use std::sync::Arc;

use model::Labels;

use crate::config::ScrapeConfig;
use crate::target::{Origin, TargetFactory};
use crate::target_group::TargetGroup;

/// A discovered target.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// Labels before relabeling.
    pub discovered: Labels,
    /// Labels after relabeling, those included that only say how to scrape it. Empty when the target is dropped or
    /// cannot be scraped.
    pub labels: Labels,
    /// Why it cannot be scraped.
    pub error: Option<String>,
}

/// What becomes of the targets of `groups` in a job, in the order of the groups.
#[must_use]
pub fn preview(config: &Arc<ScrapeConfig>, groups: &[Arc<TargetGroup>]) -> Vec<Preview> {
    let factory = TargetFactory::new(Arc::clone(config));
    let mut out = Vec::new();
    for group in groups {
        for index in 0..u32::try_from(group.targets.len()).unwrap_or(u32::MAX) {
            let discovered = factory.discovered(&Origin { group: Arc::clone(group), index });
            let (labels, error) = match factory.relabeled(group, index) {
                Ok(labels) => (labels.unwrap_or_default(), None),
                Err(error) => (Labels::empty(), Some(error)),
            };
            out.push(Preview { discovered, labels, error });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use model::relabel::{RelabelAction, RelabelRule};

    use super::*;
    use crate::target_group::GroupLabels;

    #[test]
    fn targets_are_shown_as_they_become() {
        let drop = RelabelRule {
            action: RelabelAction::Drop,
            source_labels: vec!["__address__".into()],
            regex: model::Regexp::new("b:1").unwrap(),
            ..RelabelRule::default()
        };
        let config = Arc::new(ScrapeConfig {
            job_name: "j".into(),
            relabel_rules: vec![drop],
            ..ScrapeConfig::default()
        });
        let targets = ["a:1", "b:1", "c/d"].map(|a| GroupLabels::from_pairs([("__address__", a)])).into();
        let labels = GroupLabels::from_pairs([("__meta_x", "y")]);
        let shown = preview(&config, &[Arc::new(TargetGroup { source: "s".into(), labels, targets })]);
        let [good, dropped, bad] = &shown[..] else { panic!("{shown:?}") };
        assert_eq!((good.discovered.value("__meta_x"), good.discovered.value("instance")), ("y", ""));
        assert_eq!((good.labels.value("__meta_x"), good.labels.value("instance")), ("", "a:1"));
        assert_eq!(good.labels.value("__metrics_path__"), "/metrics");
        assert!(dropped.labels.is_empty() && dropped.error.is_none());
        assert!(bad.labels.is_empty());
        assert_eq!(bad.error.as_deref(), Some("\"c/d\" is not a valid hostname"));
    }
}
