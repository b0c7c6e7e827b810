//! `promql-compare --left URL --right URL`: prints what differs; fails when something does that is not known.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a program whose output is its report")]

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use model::clock::SystemClock;
use promql_compare::{Client, Error, Options, Report, run};
use promql_testkit::generate::Profile;

/// Sends the same random queries to two Prometheus-compatible servers and tells what differs.
#[derive(Parser, Debug)]
struct Cli {
    /// One server, `http://host:port`. It must accept remote write, unless --no-load.
    #[arg(long)]
    left: String,
    /// The other one.
    #[arg(long)]
    right: String,
    /// What data and queries are made from; the same seed gives the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Queries to ask.
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// Stop after this many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Queries per data set.
    #[arg(long, default_value_t = 500)]
    per_data: u64,
    /// Which part of the language and which values.
    #[arg(long, value_enum, default_value_t = ProfileName::Old)]
    profile: ProfileName,
    /// Samples may lie on the bounds of windows, which 2.x and 3.x see differently.
    #[arg(long)]
    samples_on_bounds: bool,
    /// Native histograms too.
    #[arg(long)]
    native_histograms: bool,
    /// Where the first data set begins, milliseconds since the epoch.
    #[arg(long, default_value_t = 1_700_000_040_000)]
    start_ms: i64,
    /// The data is there already.
    #[arg(long)]
    no_load: bool,
    /// Greatest relative distance of values that count as equal.
    #[arg(long, default_value_t = 1e-12)]
    tolerance: f64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProfileName {
    /// What Prometheus 2.42 knows.
    #[value(name = "2.42")]
    Old,
    /// All of the language as of Prometheus 3.14, but what is behind feature flags of storages.
    #[value(name = "full")]
    Full,
}

fn main() -> ExitCode {
    match compare(&Cli::parse()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::from(u8::from(report.unexplained > 0))
        }
        Err(e) => {
            println!("{e}");
            ExitCode::from(2)
        }
    }
}

fn compare(cli: &Cli) -> Result<Report, Error> {
    let mut profile = match cli.profile {
        ProfileName::Old => Profile::prometheus_2_42(),
        // Remote write 1.0 carries no start timestamps.
        ProfileName::Full => Profile { start_timestamps: false, ..Profile::full() },
    };
    profile.samples_on_bounds |= cli.samples_on_bounds;
    profile.native_histograms |= cli.native_histograms;
    let options = Options {
        limit: cli.seconds.map(Duration::from_secs),
        queries_per_data: cli.per_data.max(1),
        start_ms: cli.start_ms,
        load: !cli.no_load,
        tolerance: cli.tolerance,
        count: if cli.seconds.is_some() { u64::MAX } else { cli.count },
        ..Options::new(cli.seed, cli.count, profile)
    };
    let (mut left, mut right) = (Client::new(&cli.left)?, Client::new(&cli.right)?);
    run(&mut left, &mut right, &options, &SystemClock::new())
}
