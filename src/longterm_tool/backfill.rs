//! `almanac longterm backfill`: has a scraper node send its history, or sends that of a data directory.
//!
//! A data directory is read beside whoever uses it ([`tsdb::ReadOnly`]); how far it is sent is remembered in the state
//! directory, so that the same command goes on where it was interrupted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use federation::backlog::{BacklogStatus, LocalStore, NewRange, Reason};
use federation::config::{BacklogConfig, SenderConfig};
use federation::sender::{Sender, SenderHandle, SenderParts};
use model::storage::{WalPosition, WalRecord, WalSource, WalTail};
use model::{Labels, Querier, Queryable, StorageError, SystemClock};
use tokio::runtime::Runtime;
use tsdb::{ReadOnly, ReadOnlyDb};

use super::{Node, date, form, grouped, selectors};
use crate::cli::LongtermBackfillFlags;
use crate::tsdb_tool::progress::{Interrupt, Progress};

/// How often progress is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Sends history and waits for it.
///
/// # Errors
/// When a node does not answer, the directory cannot be read, or the user ends it.
pub(super) fn backfill(
    flags: &LongtermBackfillFlags,
    runtime: &Runtime,
    interrupt: &Interrupt,
) -> anyhow::Result<bool> {
    // Said before anything is begun.
    selectors(&flags.matchers)?;
    match &flags.data {
        Some(data) => from_data(data, flags, runtime, interrupt),
        None => from_node(flags, runtime, interrupt),
    }
}

/// Enqueues at a scraper node. Interrupted, the node goes on by itself.
#[allow(clippy::print_stdout, reason = "the command's output")]
fn from_node(
    flags: &LongtermBackfillFlags,
    runtime: &Runtime,
    interrupt: &Interrupt,
) -> anyhow::Result<bool> {
    let node = Node::new(&flags.url, runtime)?;
    let form = form(&flags.matchers, flags.start.map(|t| t.ms()), flags.end.map(|t| t.ms()));
    let answer = node.ask("/api/v1/longterm/backlog", Some(form))?;
    let Some(id) = answer["id"].as_u64() else { bail!("{} did not say the number of the range", flags.url) };
    println!("range {id} is in the backlog of {}", flags.url);
    if flags.detach {
        return Ok(true);
    }
    let mut progress = Progress::new(false);
    let mut most_windows = 0;
    loop {
        let status = node.ask("/api/v1/longterm/backlog", None)?;
        let range = status["ranges"].as_array().into_iter().flatten().find(|r| r["id"].as_u64() == Some(id));
        let Some(range) = range else { break };
        let left = status["windowsLeft"].as_u64().unwrap_or(0);
        most_windows = left.max(most_windows);
        let share = 1.0 - left as f64 / most_windows.max(1) as f64;
        progress.show(Some(share), range["samplesSent"].as_u64().unwrap_or(0), "samples");
        if interrupt.check().is_err() {
            progress.clear();
            println!("the scraper node goes on; `POST /api/v1/longterm/backlog?cancel={id}` ends it");
            return Ok(true);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    progress.clear();
    println!("range {id} is sent");
    Ok(true)
}

/// Sends from a data directory.
#[allow(clippy::print_stdout, reason = "the command's output")]
fn from_data(
    data: &Path,
    flags: &LongtermBackfillFlags,
    runtime: &Runtime,
    interrupt: &Interrupt,
) -> anyhow::Result<bool> {
    let url = flags.longterm_url.as_deref().context("--data needs --longterm-url")?;
    let store = Arc::new(DataDirectory::open(data)?);
    let Some(oldest) = store.min_time() else { bail!("{} holds no samples", data.display()) };
    println!("{} has samples from {} on", data.display(), date(oldest));
    let sender = start(&store, url, data, flags, runtime)?;
    let backlog = sender.backlog().context("a sender with a local store has a backlog")?.clone();
    let mut progress = Progress::new(false);
    let mut most_windows = 0;
    let interrupted = loop {
        let status = backlog.status();
        if status.ranges.is_empty() {
            break false;
        }
        most_windows = status.windows_left.max(most_windows);
        show(&mut progress, &status, most_windows);
        if interrupt.check().is_err() {
            break true;
        }
        std::thread::sleep(LOOK_INTERVAL);
    };
    progress.clear();
    let sent = backlog.status().sent;
    runtime.block_on(sender.stop(Duration::from_secs(10)));
    if interrupted {
        println!("{} samples are sent; the same command goes on from there", grouped(sent));
        return Ok(false);
    }
    println!("done: {} samples are in {url}", grouped(sent));
    Ok(true)
}

fn show(progress: &mut Progress, status: &BacklogStatus, most_windows: u64) {
    let share = 1.0 - status.windows_left as f64 / most_windows.max(1) as f64;
    progress.show(Some(share), status.sent, "samples");
}

/// Starts a sender that has a backlog and no log.
fn start(
    store: &Arc<DataDirectory>,
    url: &str,
    data: &Path,
    flags: &LongtermBackfillFlags,
    runtime: &Runtime,
) -> anyhow::Result<SenderHandle> {
    let sets = selectors(&flags.matchers)?;
    let clock = SystemClock::shared();
    let (mint, maxt) = (flags.start.map_or(i64::MIN, |t| t.ms()), flags.end.map(|t| t.ms()));
    // The name stands for the task: the same command finds what it had done.
    let what = format!("{} {:?} {mint} {maxt:?} {:?}", data.display(), flags.matchers, flags.external_labels);
    let name = format!("backfill {what}");
    let config = SenderConfig {
        external_labels: Labels::from_pairs(flags.external_labels.iter().map(|(n, v)| (n, v))),
        history_of_new_selectors: false,
        backlog: BacklogConfig {
            samples_per_second: flags.max_rate,
            in_flight: 4,
            ..BacklogConfig::default()
        },
        ..SenderConfig::longterm(
            name,
            format!("{}/api/v1/write", url.trim_end_matches('/')),
            &flags.state_dir,
            sets.clone(),
        )
    };
    let parts = SenderParts {
        source: Arc::new(NoLog),
        local: Some(store.clone()),
        remote: None,
        transport: None,
        clock: clock.clone(),
        registry: prometheus::Registry::new(),
        runtime: runtime.handle().clone(),
        tracer: model::trace::Tracer::default(),
    };
    let sender = Sender::start_with(config, parts)?;
    let backlog = sender.backlog().context("a sender with a local store has a backlog")?;
    if backlog.is_empty() {
        let maxt = maxt.unwrap_or_else(|| clock.now_ms());
        backlog.enqueue(NewRange {
            reason: Reason::Manual,
            selectors: sets,
            strip: Vec::new(),
            mint,
            maxt,
        })?;
    }
    Ok(sender)
}

/// A data directory as a source of history.
struct DataDirectory {
    db: ReadOnlyDb,
    oldest_ms: Option<i64>,
}

impl DataDirectory {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let opened = ReadOnly::open(path)
            .with_context(|| format!("cannot open the data directory {}", path.display()))?;
        let blocks = opened.blocks();
        let db = opened
            .queryable(i64::MAX, None, SystemClock::shared())
            .with_context(|| format!("cannot read the data directory {}", path.display()))?;
        let mut oldest_ms = blocks.iter().map(|b| b.min_time).min();
        if oldest_ms.is_none() {
            // Only a head: its oldest sample is looked for.
            oldest_ms = oldest(&db)?;
        }
        Ok(Self { db, oldest_ms })
    }
}

/// Timestamp of the oldest sample, by looking at the bounds of all chunks.
fn oldest(store: &dyn Queryable) -> anyhow::Result<Option<i64>> {
    let querier = store.querier(i64::MIN, i64::MAX)?;
    let mut set = querier.select(&[], &model::SelectHints::default())?;
    let mut oldest = None;
    while let Some(series) = set.next()? {
        let first = series.chunks.iter().map(|c| c.mint).min();
        oldest = match (oldest, first) {
            (Some(a), Some(b)) => Some(std::cmp::min(a, b)),
            (a, b) => a.or(b),
        };
    }
    Ok(oldest)
}

impl Queryable for DataDirectory {
    fn querier(&self, mint: i64, maxt: i64) -> Result<Box<dyn Querier>, StorageError> {
        self.db.querier(mint, maxt)
    }
}

impl LocalStore for DataDirectory {
    fn min_time(&self) -> Option<i64> {
        self.oldest_ms
    }
}

/// A log without records: all there is to send is history.
struct NoLog;

impl WalSource for NoLog {
    fn tail(&self, _from: Option<WalPosition>) -> Result<Box<dyn WalTail>, StorageError> {
        Ok(Box::new(Self))
    }

    fn end(&self) -> WalPosition {
        WalPosition::default()
    }

    fn hold(&self, _reader: &str, _position: Option<WalPosition>) {}
}

impl WalTail for NoLog {
    fn read(&mut self, _max: usize, _out: &mut Vec<WalRecord>) -> Result<WalPosition, StorageError> {
        Ok(WalPosition::default())
    }

    fn position(&self) -> WalPosition {
        WalPosition::default()
    }

    fn gap(&self) -> Option<WalPosition> {
        None
    }
}
