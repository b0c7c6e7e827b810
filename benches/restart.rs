//! The local store from `kill -9` to the first answer.
//!
//! A process of its own takes five million series of ten labels and as many scrapes of them as a node takes in minutes, and is
//! killed with -9 while it goes on. Then the store is started again, and the bench prints how long it takes until a batch is
//! accepted, until everything is there (all series are counted, and one series by its labels has all samples), and what that cost.
//! The target is two seconds. `SERIES` and `STEPS` in the environment give other sizes, `RESTART_DIR` another directory.
//!
//! Not a criterion bench, since a start happens once. Exits at once without `--bench`; with `--test` it takes 2,000 series.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use model::clock::ManualClock;
use model::{Appendable, Labels, Matcher, Queryable, Sample, SelectHints, SeriesRef};
use tsdb::{Config, Db};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SERIES_PER_BATCH: u64 = 1_000;
const INTERVAL_MS: i64 = 15_000;
const START_MS: i64 = 1_700_006_400_000;
/// What makes this program the one that is killed: the directory.
const WRITER: &str = "RESTART_WRITER";

/// What is scraped: so many series so many times.
#[derive(Clone, Copy)]
struct Load {
    series: u64,
    steps: u64,
}

impl Load {
    fn of_environment(is_test: bool) -> Self {
        let number = |name, default| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
        let (series, steps) = if is_test { (2_000, 4) } else { (5_000_000, 20) };
        Self { series: number("SERIES", series), steps: number("STEPS", steps) }
    }

    fn end_ms(self) -> i64 {
        START_MS + self.steps as i64 * INTERVAL_MS
    }
}

fn labels(i: u64) -> Labels {
    let (target, series) = (i / SERIES_PER_BATCH, i % SERIES_PER_BATCH);
    Labels::from_pairs([
        ("__name__", format!("http_server_requests_{}_total", series / 20)),
        ("cluster", "production-eu-west-1".into()),
        ("container", "application".into()),
        ("endpoint", "metrics".into()),
        ("instance", format!("10.{}.{}.{}:8080", target >> 16, target >> 8 & 255, target & 255)),
        ("job", "payment-service".into()),
        ("method", ["GET", "POST", "PUT", "DELETE"][(series % 4) as usize].into()),
        ("namespace", "payments".into()),
        ("pod", format!("payment-service-{target:05}")),
        ("status", format!("{}", 200 + series / 4 % 5)),
    ])
}

fn value(i: u64, step: u64) -> f64 {
    match i % 4 {
        0 => 42.0,
        1 | 2 => (i * 1_000 + step * 37 + (step * 7_919 + i) % 29) as f64,
        _ => 350.0 + ((step / 8 + i) * 31 % 17) as f64 * 0.5,
    }
}

fn config(dir: &Path) -> Config {
    Config { retention_ms: 0, ..Config::new(dir) }
}

/// Takes the load, says so, and goes on until it is killed.
fn write(dir: &Path, load: Load) {
    let clock = Arc::new(ManualClock::new(load.end_ms()));
    let db = Db::open(config(dir), clock, &prometheus::Registry::new()).expect("opens");
    let mut refs = vec![SeriesRef::NONE; load.series as usize];
    for step in 0.. {
        let t = START_MS + step as i64 * INTERVAL_MS;
        for batch in 0..load.series.div_ceil(SERIES_PER_BATCH) {
            let mut a = db.appender().expect("open");
            for i in batch * SERIES_PER_BATCH..load.series.min((batch + 1) * SERIES_PER_BATCH) {
                let slot = &mut refs[i as usize];
                if *slot == SeriesRef::NONE {
                    let sample = Sample::float(t, value(i, step));
                    *slot = a.append(SeriesRef::NONE, &labels(i), sample).expect("accepted");
                } else {
                    a.append_float(*slot, t, value(i, step)).expect("accepted");
                }
            }
            a.commit().expect("committed");
        }
        if step == load.steps + 1 {
            writeln!(std::io::stdout(), "taken").expect("stdout");
        }
        db.maintain().expect("maintained");
    }
}

/// Lets a process of its own take the load, and kills it.
fn write_and_kill(dir: &Path, load: Load) {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .arg("--bench")
        .envs([("SERIES", load.series.to_string()), ("STEPS", load.steps.to_string())])
        .env(WRITER, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read");
    assert_eq!(line, "taken\n");
    child.kill().expect("killed");
    child.wait().expect("ended");
}

/// Resident bytes of this process, and its CPU seconds.
#[allow(clippy::disallowed_methods, reason = "a bench reads what the kernel says of it")]
fn cost() -> (u64, f64) {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = text.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 4096;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = fields[11..13].iter().filter_map(|f| f.parse::<f64>().ok()).sum();
    (resident, ticks / 100.0)
}

fn say(what: &str, value: f64, unit: &str) {
    writeln!(std::io::stdout(), "restart/{what}: {value:.3} {unit}").expect("stdout");
}

/// Series of a selection, and samples of the first one up to the end of the load.
fn count(db: &Db, load: Load, matchers: &[Matcher]) -> (u64, usize) {
    let querier = db.querier(START_MS, load.end_ms()).expect("open");
    let mut set = querier.select(matchers, &SelectHints::default()).expect("selected");
    let (mut series, mut samples) = (0, 0);
    while let Some(s) = set.next().expect("read") {
        if series == 0 {
            let mut all = model::Samples::new();
            s.chunks.iter().for_each(|c| c.decode(START_MS, load.end_ms(), &mut all).expect("decoded"));
            // Chunks may hold more than was asked for: the load went on until the end.
            samples = all.timestamps_ms.iter().filter(|t| **t <= load.end_ms()).count();
        }
        series += 1;
    }
    (series, samples)
}

#[allow(clippy::disallowed_methods, reason = "a bench measures time")]
fn start_again(dir: &Path, load: Load) {
    let (begun, (_, cpu)) = (Instant::now(), cost());
    let clock = Arc::new(ManualClock::new(load.end_ms()));
    let db = Db::start(config(dir), clock, &prometheus::Registry::new()).expect("starts");
    let mut a = db.appender().expect("open");
    a.append(SeriesRef::NONE, &Labels::from_pairs([("__name__", "new")]), Sample::float(load.end_ms(), 1.0))
        .expect("accepted");
    a.commit().expect("committed");
    say("first_batch_accepted", begun.elapsed().as_secs_f64(), "s");
    db.wait_ready().expect("replayed");
    say("everything_there", begun.elapsed().as_secs_f64(), "s");
    let equal = |name, value: &str| Matcher::new(model::MatchOp::Equal, name, value).expect("valid");
    let last = labels(load.series - 1);
    let one: Vec<_> = last.iter().map(|(n, v)| equal(n, v)).collect();
    let (series, samples) = count(&db, load, &one);
    say("first_answer", begun.elapsed().as_secs_f64(), "s");
    assert_eq!((series, samples as u64), (1, load.steps + 1), "one series, each of its samples");
    let (resident, cpu_now) = cost();
    say("cpu", cpu_now - cpu, "s");
    say("resident", resident as f64 / load.series as f64, "bytes per series");
    let (all, samples) = count(&db, load, &[equal("job", "payment-service")]);
    assert_eq!((all, samples as u64), (load.series, load.steps + 1), "all series");
}

fn main() {
    let flag = |name: &str| std::env::args().any(|a| a == name);
    if !flag("--bench") {
        return;
    }
    let load = Load::of_environment(flag("--test"));
    if let Some(dir) = std::env::var_os(WRITER) {
        return write(Path::new(&dir), load);
    }
    let temporary = tempfile::tempdir().expect("directory");
    let given = std::env::var_os("RESTART_DIR").map(std::path::PathBuf::from);
    let dir = given.as_deref().unwrap_or(temporary.path());
    if !dir.join("wal").exists() {
        write_and_kill(dir, load);
    }
    start_again(dir, load);
}
