//! The series that a scrape loop writes about its own scrapes: `up` and the rest.
//!
//! Spec: <https://prometheus.io/docs/concepts/jobs_instances/#automatically-generated-labels-and-time-series>.

use model::labels::METRIC_NAME;
use model::{AppendError, Appender, Labels, LabelsBuilder, Sample, SeriesRef, stale_nan};

use crate::error::ScrapeFailure;

const NAMES: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];
const EXTRA_NAMES: [&str; 3] = ["scrape_timeout_seconds", "scrape_sample_limit", "scrape_body_size_bytes"];
/// Not one of Prometheus's: samples of series that the cardinality guard leaves out.
const REFUSED_NAME: &str = "scrape_series_refused";
const ALL: usize = NAMES.len() + EXTRA_NAMES.len() + 1;

/// Which series there are beside those that are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extra {
    None,
    /// Those of Prometheus.
    Prometheus,
    /// And the one that tells of refused series.
    Refused,
}

/// Report series of one target. Their labels are put together where the store does not know their references: there are as
/// many reports as targets.
#[derive(Default)]
pub(crate) struct Report {
    series: [SeriesRef; ALL],
    /// How many were written last.
    written: u8,
}

impl Report {
    /// Appends the values, in the order of the names.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub(crate) fn append(
        &mut self,
        target_labels: &Labels,
        extra: Extra,
        timestamp_ms: i64,
        values: [f64; ALL],
        app: &mut dyn Appender,
    ) -> Result<(), ScrapeFailure> {
        self.written = match extra {
            Extra::None => NAMES.len(),
            Extra::Prometheus => NAMES.len() + EXTRA_NAMES.len(),
            Extra::Refused => ALL,
        } as u8;
        self.append_all(target_labels, timestamp_ms, values, app)
    }

    /// Appends stale markers, if ever anything was appended.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub(crate) fn append_stale(
        &mut self,
        target_labels: &Labels,
        timestamp_ms: i64,
        app: &mut dyn Appender,
    ) -> Result<(), ScrapeFailure> {
        self.append_all(target_labels, timestamp_ms, [stale_nan(); ALL], app)
    }

    fn append_all(
        &mut self,
        target_labels: &Labels,
        timestamp_ms: i64,
        values: [f64; ALL],
        app: &mut dyn Appender,
    ) -> Result<(), ScrapeFailure> {
        let names = NAMES.iter().chain(&EXTRA_NAMES).chain([&REFUSED_NAME]).take(usize::from(self.written));
        for ((name, series), value) in names.zip(&mut self.series).zip(values) {
            append_one(name, target_labels, series, timestamp_ms, value, app)?;
        }
        Ok(())
    }
}

fn append_one(
    name: &str,
    target_labels: &Labels,
    series: &mut SeriesRef,
    timestamp_ms: i64,
    value: f64,
    app: &mut dyn Appender,
) -> Result<(), ScrapeFailure> {
    let mut result = Err(AppendError::UnknownRef);
    if *series != SeriesRef::NONE {
        result = app.append_float(*series, timestamp_ms, value);
    }
    if let Err(AppendError::UnknownRef) = result {
        let labels = LabelsBuilder::from_labels(target_labels).set(METRIC_NAME, name).build();
        result = app
            .append(SeriesRef::NONE, &labels, Sample::float(timestamp_ms, value))
            .map(|known| *series = known);
    }
    match result {
        Err(AppendError::Storage(e)) => Err(e.into()),
        // Out of order is expected when a target goes away and comes back with a new loop.
        _ => Ok(()),
    }
}
