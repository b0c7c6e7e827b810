//! The walk over a request: resources, scopes, metrics, and what they have in common in the labels of their series.
//!
//! What one metric does wrong ends that metric and refuses the request; the others are gone through all the same, so that
//! its sender is told everything at once. Labels: `labels.rs`; points: `points.rs`; `target_info`: `target_info.rs`.

use std::collections::HashSet;
use std::sync::Arc;

use model::labels::Quoted;
use model::{AppendError, Exemplar, Metadata, MetricType, Sample};

use super::labels::write;
use super::layer::{Attributes, Layer, Names, over};
use super::message::{Kind, MESSAGE, Metric, Repeated, ResourceMetrics, ScopeMetrics, Temporality};
use super::naming::{LabelNames, MetricNames, unit_name};
use super::point::Point;
use super::report::{Category, Failure, Fault, Report, Stop};
use super::settings::Settings;
use super::target_info::Targets;
use super::{LabelsWriter, Sink};
use crate::error::Error;
use crate::proto::Cursor;

/// Resource attributes that make `job` and `instance`.
pub(crate) const IDENTIFYING: [&str; 3] = ["service.namespace", "service.name", "service.instance.id"];

/// Labels that all series of a resource have.
#[derive(Default)]
pub(crate) struct ResourceLabels {
    pub(crate) job: String,
    pub(crate) instance: String,
    pub(crate) promoted: Layer,
}

/// A request on its way into a store. Buffers are kept from series to series.
pub(crate) struct Translator<'a, 's, S> {
    pub(crate) settings: &'s Settings,
    sink: &'s mut S,
    max_ms: i64,
    pub(crate) report: Report,
    pub(crate) targets: Targets,
    pub(crate) names: Names<'a>,
    pub(crate) attributes: Attributes<'a>,
    /// Attributes under their label names.
    pub(crate) attribute_labels: Layer,
    pub(crate) resource: ResourceLabels,
    /// Of the scope; `None` when it has no name or is not asked for.
    pub(crate) scope: Option<Layer>,
    /// What lies over the attributes: labels of resource and scope, type and unit, and the name, unless the metric has
    /// series of several names.
    pub(crate) context: Layer,
    /// Labels of a point.
    pub(crate) base: LabelsWriter,
    /// Labels of a series, when a point has several.
    series: LabelsWriter,
    label_bytes: usize,
    pub(crate) collided: HashSet<Box<str>>,
}

/// A metric while its points are gone through.
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) temporality: Temporality,
    pub(crate) metadata: Metadata,
}

/// First and last time of a resource's points.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) first_nanos: u64,
    pub(crate) last_nanos: u64,
}

impl Times {
    fn add(&mut self, nanos: u64) {
        self.first_nanos = self.first_nanos.min(nanos);
        self.last_nanos = self.last_nanos.max(nanos);
    }
}

impl<'a, 's, S: Sink> Translator<'a, 's, S> {
    pub(crate) fn new(settings: &'s Settings, max_ms: i64, sink: &'s mut S) -> Self {
        let names = LabelNames {
            utf8: settings.utf8,
            key_before_underscore: settings.label_name_underscore_sanitization,
            keep_underscores: settings.label_name_preserve_multiple_underscores,
        };
        Self {
            settings,
            sink,
            max_ms,
            report: Report::default(),
            targets: Targets::default(),
            names: Names::new(names),
            attributes: Attributes::default(),
            attribute_labels: Layer::default(),
            resource: ResourceLabels::default(),
            scope: None,
            context: Layer::default(),
            base: LabelsWriter::new(),
            series: LabelsWriter::new(),
            label_bytes: 0,
            collided: HashSet::new(),
        }
    }

    pub(crate) fn request(mut self, body: &'a [u8]) -> Result<Report, Stop> {
        let mut all = Repeated::new(Cursor::new(body, MESSAGE), 1);
        let mut point = Point::new();
        while let Some(message) = all.next().map_err(Stop::Decode)? {
            let result = self.resource_metrics(message, &mut point);
            self.settle(result)?;
        }
        Ok(self.report)
    }

    /// Notes what a part of the request does wrong.
    fn settle(&mut self, result: Result<(), Fault>) -> Result<(), Stop> {
        match result {
            Ok(()) => {}
            Err(Fault::Metric(failure)) => self.report.refused.add(failure),
            Err(Fault::All(stop)) => return Err(stop),
        }
        Ok(())
    }

    fn resource_metrics(&mut self, message: Cursor<'a>, point: &mut Point<'a>) -> Result<(), Fault> {
        let ResourceMetrics { resources, mut scopes } = ResourceMetrics::read(message)?;
        self.set_resource(resources)?;
        let mut times = Times { first_nanos: u64::MAX, last_nanos: 0 };
        while let Some(message) = scopes.next()? {
            let scope = ScopeMetrics::read(message)?;
            let result = self.set_scope(&scope);
            let set = result.is_ok();
            self.settle(result).map_err(Fault::All)?;
            let mut metrics = if set { scope.metrics } else { Repeated::none() };
            while let Some(message) = metrics.next()? {
                let result = self.metric(message, point, &mut times);
                self.settle(result).map_err(Fault::All)?;
            }
        }
        if times.first_nanos < u64::MAX {
            self.target_info(resources, times)?;
        }
        Ok(())
    }

    fn set_resource(&mut self, mut resources: Repeated<'a>) -> Result<(), Fault> {
        self.attributes.clear();
        while let Some(resource) = resources.next()? {
            self.attributes.add(Repeated::new(resource, 1), |_| true)?;
        }
        let labels = &mut self.resource;
        let get = |key| self.attributes.get(key);
        labels.job.clear();
        if let Some(name) = get("service.name") {
            if let Some(namespace) = get("service.namespace") {
                labels.job.push_str(namespace);
                labels.job.push('/');
            }
            labels.job.push_str(name);
        }
        labels.instance.clear();
        labels.instance.push_str(get("service.instance.id").unwrap_or(""));
        labels.promoted.clear();
        for (key, value) in self.attributes.iter().filter(|(key, _)| self.settings.promote.has(key)) {
            labels.promoted.push(self.names.build(key)?, value);
        }
        labels.promoted.settle_last();
        Ok(())
    }

    fn set_scope(&mut self, scope: &ScopeMetrics<'a>) -> Result<(), Fault> {
        self.scope = None;
        if !self.settings.promote_scope_metadata || scope.name.is_empty() {
            return Ok(());
        }
        self.attributes.clear();
        self.attributes.add(scope.attributes, |_| true)?;
        let mut labels = Layer::default();
        for (key, value) in self.attributes.iter() {
            labels.push(&self.names.build_once(&format!("otel_scope_{key}"))?, value);
        }
        // Of equal names the last counts, also when it is empty.
        labels.settle_last();
        let mut settled = Layer::default();
        labels.iter().filter(|(_, value)| !value.is_empty()).for_each(|(n, v)| settled.push(n, v));
        settled.push("otel_scope_name", scope.name);
        settled.push("otel_scope_version", scope.version);
        settled.push("otel_scope_schema_url", scope.schema_url);
        settled.settle_last();
        self.scope = Some(settled);
        Ok(())
    }

    fn metric(&mut self, message: Cursor<'a>, point: &mut Point<'a>, times: &mut Times) -> Result<(), Fault> {
        let metric = Metric::read(message)?;
        let result = self.points(&metric, point, times);
        if let Err(Fault::Metric(_)) = result {
            // What the resource says of itself goes by all points, also those that were not come to.
            let mut points = metric.points;
            while let Some(message) = points.next()? {
                times.add(Point::time_of(message)?);
            }
        }
        result
    }

    fn points(&mut self, metric: &Metric<'a>, point: &mut Point<'a>, times: &mut Times) -> Result<(), Fault> {
        let name = metric.name;
        if metric.kind == Kind::Empty {
            return Err(Fault::from(format!(
                "could not get aggregation temporality for {name} as it has unsupported metric type Empty"
            )));
        }
        let delta = metric.temporality == Temporality::Delta;
        let allowed = metric.temporality == Temporality::Cumulative || delta && self.settings.allow_delta;
        if metric.aggregates() && !allowed {
            let name = Quoted(name);
            return Err(Fault::from(format!("invalid temporality and type combination for metric {name}")));
        }
        let names = MetricNames { suffixes: self.settings.suffixes, utf8: self.settings.utf8 };
        let family = Family {
            name: names.build(name, metric.unit, metric.kind, metric.monotonic)?,
            kind: metric.kind,
            temporality: metric.temporality,
            metadata: Metadata {
                metric_type: type_of(metric),
                unit: unit_name(metric.unit, false).into(),
                help: metric.description.into(),
            },
        };
        self.set_context(&family);
        let mut points = metric.points;
        let mut empty = true;
        while let Some(message) = points.next()? {
            empty = false;
            point.read(family.kind, message)?;
            times.add(point.time_nanos);
            self.point(&family, point)?;
        }
        if empty {
            self.warn(Category::EmptyDataPoints, || {
                format!("metric {name} has no data points and is dropped")
            });
        }
        Ok(())
    }

    pub(crate) fn warn(&mut self, category: Category, text: impl FnOnce() -> String) {
        self.report.warnings.add(category, text());
    }

    pub(crate) fn base(&self) -> &LabelsWriter {
        &self.base
    }

    /// Counts the labels of a series against the limit of the request.
    pub(crate) fn count_bytes(&mut self, base: bool) -> Result<(), Fault> {
        let labels = if base { &self.base } else { &self.series };
        self.label_bytes += labels.iter().as_packed().len();
        let limit = self.settings.max_label_bytes;
        if self.label_bytes > limit {
            let text = format!("labels of all series of the request take more than {limit} bytes");
            return Err(Fault::from(Error::Limit(text)));
        }
        Ok(())
    }

    // === Samples ===

    /// Appends a sample of the series that has the point's labels.
    pub(crate) fn append(
        &mut self,
        sample: Sample,
        exemplars: &[Exemplar],
        metadata: &Metadata,
    ) -> Result<(), Fault> {
        self.give(true, sample, exemplars, metadata)
    }

    /// Appends a sample of the series that has these labels, sorted by name, beside those of the point.
    pub(crate) fn append_with(
        &mut self,
        labels: &[(&str, &str)],
        sample: Sample,
        exemplars: &[Exemplar],
        metadata: &Metadata,
    ) -> Result<(), Fault> {
        write(&mut self.series, over(self.base.iter(), labels.iter().copied()));
        self.count_bytes(false)?;
        self.give(false, sample, exemplars, metadata)
    }

    fn give(
        &mut self,
        base: bool,
        sample: Sample,
        exemplars: &[Exemplar],
        metadata: &Metadata,
    ) -> Result<(), Fault> {
        if sample.timestamp_ms > self.max_ms {
            let reason = format!("{}: timestamp is too far in the future", AppendError::OutOfBounds);
            return Err(Fault::Metric(Failure::by_time(&reason)));
        }
        // A series that ends has no exemplars.
        let exemplars = if sample.value.is_stale() { &[] } else { exemplars };
        let labels = if base { &self.base } else { &self.series };
        if labels.iter().as_packed().is_empty() {
            return Err(Fault::from("empty labelset: invalid sample".to_owned()));
        }
        Ok(self.sink.append(labels, sample, exemplars, metadata)?)
    }
}

fn type_of(metric: &Metric<'_>) -> MetricType {
    match metric.kind {
        // There is no type for what is stored as deltas.
        _ if metric.aggregates() && metric.temporality == Temporality::Delta => MetricType::Unknown,
        Kind::Empty => MetricType::Unknown,
        Kind::Gauge => MetricType::Gauge,
        Kind::Sum if metric.monotonic => MetricType::Counter,
        Kind::Sum => MetricType::Gauge,
        Kind::Histogram | Kind::ExponentialHistogram => MetricType::Histogram,
        Kind::Summary => MetricType::Summary,
    }
}

/// What `target_info` says of itself.
pub(crate) fn target_metadata() -> Metadata {
    Metadata { metric_type: MetricType::Gauge, unit: Arc::from(""), help: Arc::from("Target metadata") }
}
