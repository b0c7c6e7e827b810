//! The labels of a series: attributes under their label names, promoted attributes of the resource below them, and over them
//! `job` and `instance`, the scope, type and unit, and the name.

use model::MetricType;
use model::labels::{METRIC_NAME, Quoted, TYPE_LABEL, UNIT_LABEL};

use super::layer::{Layer, over};
use super::message::{Kind, Repeated};
use super::naming::unit_name;
use super::report::{Category, Fault};
use super::translate::{Family, ResourceLabels, Translator};
use super::{LabelsWriter, Sink};

impl<'a, S: Sink> Translator<'a, '_, S> {
    /// Sets what lies over the attributes of the metric's points.
    pub(crate) fn set_context(&mut self, family: &Family) {
        let context = &mut self.context;
        context.clear();
        push_identity(context, &self.resource);
        if let Some(scope) = &self.scope {
            context.push_all(scope);
        }
        let metadata = &family.metadata;
        if self.settings.type_and_unit_labels {
            if metadata.metric_type != MetricType::Unknown {
                context.push(TYPE_LABEL, metadata.metric_type.as_str());
            }
            if !metadata.unit.is_empty() {
                context.push(UNIT_LABEL, &unit_name(&metadata.unit, self.settings.utf8));
            }
        }
        if !matches!(family.kind, Kind::Histogram | Kind::Summary)
            || family.kind == Kind::Histogram && self.settings.convert_histograms_to_nhcb
        {
            context.push(METRIC_NAME, &family.name);
        }
        context.settle_last();
    }

    /// Sets the labels of a point, its name among them when all its series have one.
    pub(crate) fn set_point_labels(&mut self, attributes: Repeated<'a>) -> Result<(), Fault> {
        self.attributes.clear();
        self.attributes.add(attributes, |key| key != METRIC_NAME)?;
        self.set_attribute_labels("data point")?;
        let attributes = over(self.resource.promoted.iter(), self.attribute_labels.iter());
        write(&mut self.base, over(attributes, self.context.iter()));
        self.count_bytes(true)
    }

    /// Sets the labels of `target_info`.
    pub(crate) fn set_target_labels(&mut self, name: &str) -> Result<(), Fault> {
        self.set_attribute_labels("resource")?;
        let context = &mut self.context;
        context.clear();
        push_identity(context, &self.resource);
        context.push(METRIC_NAME, name);
        context.settle_last();
        write(&mut self.base, over(self.attribute_labels.iter(), self.context.iter()));
        self.count_bytes(true)
    }

    /// Gives the attributes their label names. Those that get the same are joined, in the order of their own names.
    fn set_attribute_labels(&mut self, whose: &str) -> Result<(), Fault> {
        let Self { attributes, attribute_labels, names, collided, report, settings, .. } = self;
        attributes.sort();
        attribute_labels.clear();
        if settings.utf8 {
            let mut before = None;
            for (key, value) in attributes.iter().filter(|(_, value)| !value.is_empty()) {
                if before == Some(key) {
                    return Err(Fault::from(format!("label name \"{key}\" is not unique: invalid sample")));
                }
                before = Some(key);
                attribute_labels.push(key, value);
            }
            return Ok(());
        }
        for (key, value) in attributes.iter() {
            attribute_labels.push(names.build(key)?, value);
        }
        attribute_labels.settle_joined(|label| {
            if collided.contains(label) {
                return;
            }
            let same = attributes.iter().filter(|(key, _)| names.build(key).is_ok_and(|name| name == label));
            let keys: Vec<String> = same.map(|(key, _)| Quoted(key).to_string()).collect();
            let (keys, quoted) = (keys.join(", "), Quoted(label));
            let text = format!(
                "{whose} attributes {keys} have the same label name {quoted}; their values are joined"
            );
            report.warnings.add(Category::LabelNameCollision, text);
            collided.insert(label.into());
        });
        Ok(())
    }
}

fn push_identity(context: &mut Layer, resource: &ResourceLabels) {
    for (name, value) in [("job", &resource.job), ("instance", &resource.instance)] {
        if !value.is_empty() {
            context.push(name, value);
        }
    }
}

/// Writes pairs that are sorted by name, but for those without a value.
pub(crate) fn write<'x>(out: &mut LabelsWriter, pairs: impl Iterator<Item = (&'x str, &'x str)>) {
    out.clear();
    pairs.filter(|(_, value)| !value.is_empty()).for_each(|(name, value)| out.push(name, value));
}
