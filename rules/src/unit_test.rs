//! Groups that are evaluated by hand, at any time: for tests of rules.

use std::sync::Arc;

use parking_lot::Mutex;
use promql::QueryOptions;

use crate::config::GroupConfig;
use crate::error::RulesError;
use crate::group::{Environment, Group, QueryFn};
use crate::manager::{RuleParts, TemplateContext};
use crate::metrics::Metrics;
use crate::status::GroupStatus;
use crate::template::Surroundings;

/// Groups and what they work with.
pub struct HandRun {
    groups: Mutex<Vec<Group>>,
    environment: Environment,
}

impl HandRun {
    /// Groups that were never evaluated, in the order in which they will be.
    ///
    /// # Errors
    /// When a rule cannot run.
    pub fn new(
        groups: Vec<GroupConfig>,
        parts: RuleParts,
        context: &TemplateContext,
    ) -> Result<Self, RulesError> {
        let metrics = Arc::new(Metrics::new(&prometheus::Registry::new(), &parts.clock)?);
        let (engine, queryable) = (parts.engine, Arc::clone(&parts.queryable));
        let query: QueryFn = Arc::new(move |query, ts_ms| {
            engine.instant(&*queryable, query, ts_ms, &QueryOptions::default()).map(|output| output.value)
        });
        let environment = Environment {
            query: Arc::clone(&query),
            queryable: parts.queryable,
            appendable: parts.appendable,
            clock: parts.clock,
            metrics,
            around: Surroundings {
                external_labels: context.external_labels.clone(),
                external_url: context.external_url.clone(),
                query,
            },
            timing: parts.timing,
            notify: parts.notify,
            tracer: parts.tracer,
        };
        let groups = groups.into_iter().map(Group::new).collect::<Result<_, _>>()?;
        Ok(Self { groups: Mutex::new(groups), environment })
    }

    /// Evaluates all groups at `ts_ms` and returns what is shown of them then. Blocks.
    pub fn evaluate(&self, ts_ms: i64) -> Vec<GroupStatus> {
        let mut groups = self.groups.lock();
        let evaluated = groups.iter_mut().map(|group| {
            group.evaluate(&self.environment, ts_ms);
            group.shown().lock().clone()
        });
        evaluated.collect()
    }
}
