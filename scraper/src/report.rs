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

/// Report series of one target.
pub(crate) struct Report {
    series: Vec<(Labels, SeriesRef)>,
    written: bool,
}

impl Report {
    pub(crate) fn new(target_labels: &Labels, extra: bool) -> Self {
        let names = NAMES.iter().chain(if extra { EXTRA_NAMES.as_slice() } else { &[] });
        let series = names.map(|name| {
            let mut b = LabelsBuilder::from_labels(target_labels);
            (b.set(METRIC_NAME, name).build(), SeriesRef::NONE)
        });
        Self { series: series.collect(), written: false }
    }

    /// Appends the values, in the order of the names; those of names that are not on are left out.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub(crate) fn append(
        &mut self,
        timestamp_ms: i64,
        values: [f64; 8],
        app: &mut dyn Appender,
    ) -> Result<(), ScrapeFailure> {
        self.written = true;
        for ((labels, series), value) in self.series.iter_mut().zip(values) {
            append_one(labels, series, timestamp_ms, value, app)?;
        }
        Ok(())
    }

    /// Appends stale markers, if ever anything was appended.
    ///
    /// # Errors
    /// When the store cannot take them.
    pub(crate) fn append_stale(
        &mut self,
        timestamp_ms: i64,
        app: &mut dyn Appender,
    ) -> Result<(), ScrapeFailure> {
        if self.written {
            self.append(timestamp_ms, [stale_nan(); 8], app)?;
        }
        Ok(())
    }
}

fn append_one(
    labels: &Labels,
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
        result = app
            .append(SeriesRef::NONE, labels, Sample::float(timestamp_ms, value))
            .map(|known| *series = known);
    }
    match result {
        Err(AppendError::Storage(e)) => Err(e.into()),
        // Out of order is expected when a target goes away and comes back with a new loop.
        _ => Ok(()),
    }
}
