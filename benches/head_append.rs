//! The head of the local store with its write-ahead log: what a sample, a new series and a series that is there cost.
//!
//! 200,000 series of ten labels in batches of 1,000, as scrapes of 200 targets; a quarter never changes, half are counters,
//! the rest gauges. Prints CPU time per new series and per sample, and resident bytes per series: while it is scraped, after an
//! hour of samples, and after it has been replaced by another one (churn) and truncated. Targets: at most 8 µs per new series,
//! 5 M samples a second on one core, 700 bytes per active and 150 per churned-out series.
//!
//! The allocator is the program's. It gives back what is free after ten seconds, for which the bench waits before it looks.
//!
//! Not a criterion bench, since memory is not a matter of repetition. Exits at once without `--bench`; with `--test` it takes a
//! fiftieth of the series.

use std::io::Write;
use std::sync::Arc;

use model::clock::ManualClock;
use model::{Appendable, Labels, Sample, SeriesRef};
use tsdb::{Config, Db};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const TARGETS: u64 = 200;
const SERIES_PER_TARGET: u64 = 1_000;
const INTERVAL_MS: i64 = 15_000;
const START_MS: i64 = 1_700_006_400_000;

fn labels(target: u64, series: u64, generation: u64) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("http_server_requests_{}_total", series / 20)),
        ("cluster", "production-eu-west-1".into()),
        ("container", "application".into()),
        ("endpoint", "metrics".into()),
        ("instance", format!("10.{}.{}.{}:8080", generation % 250, target / 250, target % 250)),
        ("job", "payment-service".into()),
        ("method", ["GET", "POST", "PUT", "DELETE"][(series % 4) as usize].into()),
        ("namespace", "payments".into()),
        ("pod", format!("payment-service-{generation:x}-{target:05}")),
        ("status", format!("{}", 200 + series / 4 % 5)),
    ])
}

fn value(series: u64, step: u64) -> f64 {
    match series % 4 {
        0 => 42.0,
        1 | 2 => (series * 1_000 + step * 37 + (step * 7_919 + series) % 29) as f64,
        _ => 350.0 + ((step / 8 + series) * 31 % 17) as f64 * 0.5,
    }
}

/// Lets the allocator give back what is free, which it does when it is called after its ten seconds.
fn settle() {
    std::thread::sleep(std::time::Duration::from_secs(11));
    for size in (0..100_000).map(|i| i % 2_000) {
        std::hint::black_box(vec![0_u8; size]);
    }
}

/// Resident bytes of this process.
#[allow(clippy::disallowed_methods, reason = "a bench reads what the kernel says of it")]
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// CPU time of this process in seconds, in ticks of a hundredth.
#[allow(clippy::disallowed_methods, reason = "a bench reads what the kernel says of it")]
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = fields[11..13].iter().filter_map(|f| f.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn say(what: &str, value: f64, unit: &str) {
    writeln!(std::io::stdout(), "head_append/{what}: {value:.2} {unit}").expect("stdout");
}

/// Scrapes every target once; new series are made for references that are not known.
fn scrape(db: &Db, refs: &mut [SeriesRef], step: u64, generation: u64) {
    let t = START_MS + step as i64 * INTERVAL_MS;
    for target in 0..refs.len() as u64 / SERIES_PER_TARGET {
        let mut a = db.appender().expect("open");
        for series in 0..SERIES_PER_TARGET {
            let slot = &mut refs[(target * SERIES_PER_TARGET + series) as usize];
            let v = value(series, step);
            if *slot == SeriesRef::NONE || a.append_float(*slot, t, v).is_err() {
                let l = labels(target, series, generation);
                *slot = a.append(SeriesRef::NONE, &l, Sample::float(t, v)).expect("accepted");
            }
        }
        a.commit().expect("committed");
    }
}

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let config = Config { retention_ms: 0, ..Config::new(dir.path()) };
    let db =
        Db::open(config, Arc::new(ManualClock::new(START_MS)), &prometheus::Registry::new()).expect("opens");
    let targets = if std::env::args().any(|a| a == "--test") { TARGETS / 50 } else { TARGETS };
    let all = (targets * SERIES_PER_TARGET) as f64;
    let mut refs = vec![SeriesRef::NONE; all as usize];
    let empty = resident_bytes();
    let per_series = |from: u64| {
        if targets == TARGETS {
            settle();
        }
        (resident_bytes() as f64 - from as f64) / all
    };

    let (cpu, labels_cpu) = (cpu_seconds(), label_cost(targets));
    scrape(&db, &mut refs, 0, 0);
    say("new_series", (cpu_seconds() - cpu) / all * 1e6 - labels_cpu, "µs CPU per series");
    say("new_series", per_series(empty), "bytes resident per series");

    let (cpu, steps) = (cpu_seconds(), 240);
    for step in 1..=steps {
        scrape(&db, &mut refs, step, 0);
        if step % 4 == 0 {
            db.maintain().expect("maintained");
        }
    }
    say("append", all * steps as f64 / (cpu_seconds() - cpu) / 1e6, "M samples per CPU second");
    let active = per_series(empty);
    say("active", active, "bytes resident per series after an hour");

    // Every series is replaced by another one; then hours pass, so that the first ones leave and the others have as much in
    // memory as those had: they end as those did, right after chunks were finished, with which a range of blocks ends here.
    refs.fill(SeriesRef::NONE);
    for step in (steps + 4..=6 * 240).step_by(4) {
        scrape(&db, &mut refs, step, 1);
        db.maintain().expect("maintained");
    }
    let later = per_series(empty);
    say("churned", later, "bytes resident per active series, as many having left");
    say("churned", later - active, "bytes more than before, per series that left");
}

/// What building the labels alone costs, in µs per series.
fn label_cost(targets: u64) -> f64 {
    let cpu = cpu_seconds();
    for target in 0..targets {
        for series in 0..SERIES_PER_TARGET {
            std::hint::black_box(labels(target, series, 7));
        }
    }
    (cpu_seconds() - cpu) / (targets * SERIES_PER_TARGET) as f64 * 1e6
}
