//! Flags of the commands beside the nodes: checks, tests, queries and data directories.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{duration, label_pair, time};
use crate::config::scalar::Ms;

/// `almanac check …`
#[derive(Subcommand, Debug)]
pub enum CheckCommand {
    /// Check configuration files, and the files they name.
    Config {
        /// Configuration files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Only check the syntax, not the files that are named.
        #[arg(long = "syntax-only")]
        syntax_only: bool,
        /// Check the file for an agent, which has neither rules nor alerts nor remote read.
        #[arg(long)]
        agent: bool,
        /// What to look at beyond mistakes: all, duplicate-rules, too-long-scrape-interval, none.
        #[arg(long, default_value = "duplicate-rules")]
        lint: String,
        /// Exit with code 3 when only that was found.
        #[arg(long = "lint-fatal")]
        lint_fatal: bool,
        /// Leave out keys of rule files that nobody knows, instead of refusing the file.
        #[arg(long = "ignore-unknown-fields")]
        ignore_unknown_fields: bool,
        /// The server's lookback, which scrape intervals are held against.
        #[arg(long = "query.lookback-delta", default_value = "5m", value_parser = duration)]
        lookback_delta: Ms,
        /// Features of PromQL that the rules may use.
        #[command(flatten)]
        features: FeatureFlags,
    },
    /// Check rule files.
    Rules {
        /// Rule files; standard input when there is none.
        files: Vec<PathBuf>,
        /// What to look at beyond mistakes: all, duplicate-rules, none.
        #[arg(long, default_value = "duplicate-rules")]
        lint: String,
        /// Exit with code 3 when only that was found.
        #[arg(long = "lint-fatal")]
        lint_fatal: bool,
        /// Leave out keys that nobody knows, instead of refusing the file.
        #[arg(long = "ignore-unknown-fields")]
        ignore_unknown_fields: bool,
        /// Features of PromQL that the rules may use.
        #[command(flatten)]
        features: FeatureFlags,
    },
    /// Check metrics, given on standard input in the text format: their names, types, units and labels.
    Metrics {
        /// Print how many series each metric has.
        #[arg(long)]
        extended: bool,
        /// What to look at: all, none.
        #[arg(long, default_value = "all")]
        lint: String,
    },
    /// Discover the targets of a job, and print them before and after relabeling.
    ServiceDiscovery {
        /// Configuration file.
        config_file: PathBuf,
        /// Name of the job.
        job: String,
        /// How long to wait for discovery that does not answer.
        #[arg(long, default_value = "30s", value_parser = duration)]
        timeout: Ms,
    },
    /// Check files of `--web.config.file`, certificates included.
    WebConfig {
        /// Files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Check whether a server is healthy.
    Healthy {
        /// Which one.
        #[command(flatten)]
        server: ServerFlags,
    },
    /// Check whether a server is ready.
    Ready {
        /// Which one.
        #[command(flatten)]
        server: ServerFlags,
    },
}

/// Features that change what PromQL is.
#[derive(Args, Debug, Clone)]
pub struct FeatureFlags {
    /// Comma-separated feature names to enable, as the server has them. Repeatable.
    #[arg(long = "enable-feature", value_delimiter = ',')]
    pub features: Vec<String>,
}

/// Flags of a server that is asked.
#[derive(Args, Debug, Clone)]
pub struct ServerFlags {
    /// Address of the server.
    #[arg(long, default_value = "http://localhost:9090")]
    pub url: String,
    /// File with the settings of the HTTP client.
    #[arg(long = "http.config.file", value_name = "FILE")]
    pub http_config: Option<PathBuf>,
}

/// `almanac promql …`
#[derive(Subcommand, Debug)]
pub enum PromqlCommand {
    /// Print the plan of a query: what is read, in which order it is put together, and what is shared or evaluated once.
    Explain {
        /// The query.
        query: String,
        /// First evaluation time: seconds since the epoch. Now, when absent.
        #[arg(long)]
        start: Option<f64>,
        /// Last evaluation time; an instant query at the start, when absent.
        #[arg(long, requires = "start")]
        end: Option<f64>,
        /// Step between them.
        #[arg(long, default_value = "1m", value_parser = duration)]
        step: Ms,
    },
    /// Print a query as the API's `format_query` does.
    Format {
        /// The query.
        query: String,
    },
}

/// `almanac tsdb …`, with promtool's arguments.
#[derive(Subcommand, Debug)]
pub enum TsdbCommand {
    /// List the blocks.
    List {
        /// Print human readable values.
        #[arg(long = "human-readable", short = 'r')]
        human_readable: bool,
        /// Data directory.
        #[arg(default_value = "data/")]
        path: PathBuf,
    },
    /// Analyze churn, label pair cardinality and compaction efficiency.
    Analyze(AnalyzeFlags),
    /// Print series with their samples, or only series.
    Dump {
        /// What to print.
        #[command(flatten)]
        flags: DumpFlags,
        /// Output format.
        #[arg(long, value_enum, default_value_t = DumpFormat::Prom)]
        format: DumpFormat,
    },
    /// Print floats in the OpenMetrics text format.
    DumpOpenmetrics(DumpFlags),
    /// Make blocks from samples.
    CreateBlocksFrom {
        /// Flags of all sources.
        #[command(flatten)]
        shared: BackfillFlags,
        /// Where the samples come from.
        #[command(subcommand)]
        what: BackfillCommand,
    },
    /// Run benchmarks.
    Bench {
        /// Which one.
        #[command(subcommand)]
        what: BenchCommand,
    },
}

/// `almanac tsdb create-blocks-from …`
#[derive(Subcommand, Debug)]
pub enum BackfillCommand {
    /// A file in the OpenMetrics text format, with timestamps.
    Openmetrics(OpenmetricsFlags),
    /// Recording rules, evaluated by a server that has the data. Alerting rules are left out.
    Rules(RuleImportFlags),
}

/// `almanac tsdb bench …`
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Append the series of a file again and again, and measure how fast that is.
    Write(BenchWriteFlags),
}

/// Flags of `almanac tsdb bench write`.
#[derive(Args, Debug)]
pub struct BenchWriteFlags {
    /// Directory to write to. What it holds is removed first.
    #[arg(long, default_value = "benchout")]
    pub out: PathBuf,
    /// Number of series to read.
    #[arg(long, default_value_t = 10_000)]
    pub metrics: usize,
    /// Number of scrapes to simulate.
    #[arg(long, default_value_t = 3000)]
    pub scrapes: usize,
    /// File with the labels of one series a line: `{"__name__":"up","job":"x"}`.
    pub file: PathBuf,
}

/// Flags of `almanac tsdb create-blocks-from rules`.
#[derive(Args, Debug)]
pub struct RuleImportFlags {
    /// HTTP client configuration file for the server.
    #[arg(long = "http.config.file", value_name = "FILE")]
    pub http_config: Option<PathBuf>,
    /// The server that has the data.
    #[arg(long, default_value = "http://localhost:9090")]
    pub url: String,
    /// The time to start at: RFC 3339 or seconds since the Unix epoch.
    #[arg(long, value_parser = time, allow_hyphen_values = true)]
    pub start: Ms,
    /// The time to end at; three hours ago when absent.
    #[arg(long, value_parser = time, allow_hyphen_values = true)]
    pub end: Option<Ms>,
    /// Directory in which blocks are made.
    #[arg(long = "output-dir", default_value = "data/")]
    pub output: PathBuf,
    /// Interval of rule groups that name none.
    #[arg(long = "eval-interval", default_value = "60s", value_parser = duration)]
    pub eval_interval: Ms,
    /// Rule files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// Flags of `almanac tsdb analyze`.
#[derive(Args, Debug)]
pub struct AnalyzeFlags {
    /// How many items to show in each list.
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// Analyze chunks too.
    #[arg(long)]
    pub extended: bool,
    /// Only the series that pass this selector.
    #[arg(long = "match", default_value = "")]
    pub matchers: String,
    /// Data directory.
    #[arg(default_value = "data/")]
    pub path: PathBuf,
    /// Block to analyze; the last one when absent.
    pub block: Option<String>,
}

/// Flags of `almanac tsdb dump`.
#[derive(Args, Debug)]
pub struct DumpFlags {
    /// Directory in which a sandbox for replaying the write-ahead log is made; the data directory when absent. It is
    /// removed at the end.
    #[arg(long = "sandbox-dir-root")]
    pub sandbox: Option<PathBuf>,
    /// First timestamp, in milliseconds since the Unix epoch.
    #[arg(long = "min-time", default_value_t = i64::MIN, allow_hyphen_values = true)]
    pub min_time: i64,
    /// Last timestamp, in milliseconds since the Unix epoch.
    #[arg(long = "max-time", default_value_t = i64::MAX, allow_hyphen_values = true)]
    pub max_time: i64,
    /// Series selector. Repeatable.
    #[arg(long = "match", default_value = "{__name__=~'(?s:.*)'}")]
    pub matchers: Vec<String>,
    /// Data directory.
    #[arg(default_value = "data/")]
    pub path: PathBuf,
}

/// Formats of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DumpFormat {
    /// Labels, value and timestamp of each sample.
    Prom,
    /// The labels of each series as JSON.
    Seriesjson,
    /// The OpenMetrics text format.
    #[value(skip)]
    Openmetrics,
}

/// Flags of all of `almanac tsdb create-blocks-from`.
#[derive(Args, Debug)]
pub struct BackfillFlags {
    /// Print human readable values.
    #[arg(long = "human-readable", short = 'r', global = true)]
    pub human_readable: bool,
    /// Do not print created blocks.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Maximum duration a block may span. Anything less than 2h is ignored.
    #[arg(long = "max-block-duration", value_parser = duration, default_value = "2h", hide = true, global = true)]
    pub max_block_duration: Ms,
}

/// Flags of `almanac tsdb create-blocks-from openmetrics`.
#[derive(Args, Debug)]
pub struct OpenmetricsFlags {
    /// Label to attach to all series, as `name=value`. Repeatable.
    #[arg(long = "label", value_parser = label_pair)]
    pub labels: Vec<(String, String)>,
    /// File to read.
    pub input: PathBuf,
    /// Directory in which blocks are made.
    #[arg(default_value = "data/")]
    pub output: PathBuf,
}

/// `almanac test …`
#[derive(Subcommand, Debug)]
pub enum TestCommand {
    /// Run unit tests of rules.
    Rules(TestRulesFlags),
    /// Run PromQL test scripts; the last line says `N passed, M failed`.
    Promql {
        /// Scripts.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The storage to run them on.
        #[arg(long, value_enum, default_value_t = TestStorageKind::Memory)]
        storage: TestStorageKind,
        /// Print only failures and the last line.
        #[arg(long, short)]
        quiet: bool,
    },
}

/// Flags of `almanac test rules`.
#[derive(Args, Debug)]
pub struct TestRulesFlags {
    /// The unit test files.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Only test groups whose names match the regular expression. Repeatable.
    #[arg(long)]
    pub run: Vec<String>,
    /// Leave out keys of rule files that nobody knows, instead of refusing them.
    #[arg(long = "ignore-unknown-fields")]
    pub ignore_unknown_fields: bool,
    /// Features of PromQL that the rules may use.
    #[command(flatten)]
    pub features: FeatureFlags,
}

/// Storages that scripts run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TestStorageKind {
    /// Plain maps in memory.
    Memory,
    /// The local TSDB, in a temporary folder.
    Tsdb,
    /// The long-term store, in a temporary folder.
    Longterm,
}
