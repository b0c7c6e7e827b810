//! `/api/v1/status/cardinality`: how the soft limits of series stand, and what grows. It is almanac's own.

use std::sync::Arc;

use crate::app::{Answer, App, Request};
use crate::body::BodyOut;
use crate::failure::Failure;

/// How a soft limit of series stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoftLimit {
    /// Series from which new ones are refused; 0 for no limit.
    pub limit: usize,
    /// How many more there may be of those that the section `longterm` selects.
    pub reserve: usize,
    /// Series that count.
    pub current: usize,
}

/// A metric or label of new series.
#[derive(Clone, Debug, Default)]
pub struct Growing {
    /// Its name.
    pub name: String,
    /// New series that have it, the refused ones included.
    pub new: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Of a label: an estimate of its different values among them.
    pub values: Option<u64>,
}

/// How a job stands.
#[derive(Clone, Debug, Default)]
pub struct JobCardinality {
    /// The job.
    pub job: String,
    /// Its limit.
    pub limit: SoftLimit,
    /// Series that its targets expose and that are left out now.
    pub refused: usize,
    /// Series refused since the start, by reason.
    pub refused_total: Vec<(&'static str, u64)>,
    /// New series of the last hour, the refused ones included.
    pub new_in_last_hour: u64,
    /// Seconds that the lists look back.
    pub window_seconds: u64,
    /// Metrics with most new series.
    pub metrics: Vec<Growing>,
    /// Labels with most values in new series.
    pub labels: Vec<Growing>,
}

/// How all soft limits stand.
#[derive(Clone, Debug, Default)]
pub struct Cardinality {
    /// Over all jobs that are counted.
    pub server: SoftLimit,
    /// Jobs that are counted, sorted by name.
    pub jobs: Vec<JobCardinality>,
}

/// `/api/v1/status/cardinality`
pub(crate) fn cardinality(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let limit = crate::status::list_limit(request)?;
    let c = app.deps.targets.cardinality(limit);
    Ok(Answer::data(move |out| {
        out.raw("{\"server\":{");
        write_limit(out, &c.server);
        out.raw("},\"jobs\":");
        out.list(&c.jobs, write_job);
        out.raw("}");
    }))
}

fn write_limit(out: &mut BodyOut, limit: &SoftLimit) {
    out.raw("\"softLimit\":");
    out.int(limit.limit);
    out.raw(",\"reserve\":");
    out.int(limit.reserve);
    out.raw(",\"current\":");
    out.int(limit.current);
}

fn write_job(out: &mut BodyOut, job: &JobCardinality) {
    out.raw("{\"job\":");
    out.string(&job.job);
    out.raw(",");
    write_limit(out, &job.limit);
    out.raw(",\"refused\":");
    out.int(job.refused);
    out.raw(",\"refusedTotal\":{");
    for (i, (reason, n)) in job.refused_total.iter().enumerate() {
        out.raw(if i > 0 { "," } else { "" });
        out.string(reason);
        out.raw(":");
        out.int(*n);
    }
    out.raw("},\"newSeriesLastHour\":");
    out.int(job.new_in_last_hour);
    out.raw(",\"windowSeconds\":");
    out.int(job.window_seconds);
    out.raw(",\"metricNames\":");
    out.list(&job.metrics, write_growing);
    out.raw(",\"labelNames\":");
    out.list(&job.labels, write_growing);
    out.raw("}");
}

fn write_growing(out: &mut BodyOut, growing: &Growing) {
    out.raw("{\"name\":");
    out.string(&growing.name);
    out.raw(",\"newSeries\":");
    out.int(growing.new);
    out.raw(",\"refused\":");
    out.int(growing.refused);
    if let Some(values) = growing.values {
        out.raw(",\"values\":");
        out.int(values);
    }
    out.raw("}");
}
