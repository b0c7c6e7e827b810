//! Measures the long-term store on text exposition scraped over time, or on made-up series: bytes per sample, CPU of
//! appending and sealing, speed of decoding.
//!
//! `longterm_measure [DIR | FILE.jsonl]`: each file in DIR is one scrape in the text format, in order of their names. The lines of a FILE are
//! series, `{"metric": {}, "values": ["1"], "timestamps": [0]}`, as VictoriaMetrics takes them but for the quotes: the bytes that it takes once
//! settled.
#![allow(clippy::print_stdout, reason = "a tool for developers")]

use std::collections::HashMap;
use std::error::Error;
use std::io::BufRead;
use std::sync::Arc;

use federation::store::{LongtermStore, StoreConfig};
use model::chunk::decode_chunks;
use model::clock::ManualClock;
use model::{
    Appendable, Clock, Labels, MatchOp, Matcher, Queryable, Sample, Samples, SelectHints, SeriesRef,
    SystemClock,
};

const T0: i64 = 1_790_000_000_000;
const INTERVAL_MS: i64 = 15_000;
const DAY_MS: i64 = 86_400_000;

fn main() -> Result<(), Box<dyn Error>> {
    let scrapes = match std::env::args().nth(1) {
        Some(file) if file.ends_with(".jsonl") => return settled_bytes(&file),
        Some(dir) => read_scrapes(&dir)?,
        None => made_up(2000, 1920),
    };
    let samples: usize = scrapes.iter().map(Vec::len).sum();
    println!("{} scrapes, {samples} samples", scrapes.len());

    let dir = tempfile::tempdir()?;
    let clock = Arc::new(ManualClock::new(T0));
    let config = StoreConfig { sync: false, ..StoreConfig::new(dir.path()) };
    let store = LongtermStore::open(config, clock.clone(), &prometheus::Registry::new())?;
    let wall = SystemClock::new();

    let mut refs: HashMap<Labels, SeriesRef> = HashMap::new();
    let mut took = std::time::Duration::ZERO;
    let cpu_before = cpu_seconds();
    for (k, scrape) in scrapes.iter().enumerate() {
        let t = T0 + k as i64 * INTERVAL_MS;
        clock.set_ms(t);
        let known: Vec<SeriesRef> =
            scrape.iter().map(|(l, _)| refs.get(l).copied().unwrap_or_default()).collect();
        let begin = wall.monotonic();
        let mut a = store.appender()?;
        for ((labels, v), r) in scrape.iter().zip(&known) {
            if *r == SeriesRef::NONE {
                let r = a.append(*r, labels, Sample::float(t, *v))?;
                refs.insert(labels.clone(), r);
            } else {
                a.append_float(*r, t, *v)?;
            }
        }
        a.commit()?;
        took += wall.monotonic() - begin;
    }
    let per = |d: std::time::Duration| d.as_secs_f64() * 1e6 / samples as f64;
    let cpu = (cpu_seconds() - cpu_before) * 1e6 / samples as f64;
    println!("append and commit: {:.3} us/sample (process CPU with the tool itself {cpu:.3})", per(took));

    clock.set_ms(T0 + scrapes.len() as i64 * INTERVAL_MS + DAY_MS);
    let (begin, cpu_before) = (wall.monotonic(), cpu_seconds());
    let report = store.maintain()?;
    let cpu = (cpu_seconds() - cpu_before) * 1e6 / samples as f64;
    println!("seal: {:.3} us/sample, CPU {cpu:.3}, {report:?}", per(wall.monotonic() - begin));

    let querier = store.querier(i64::MIN, i64::MAX)?;
    let begin = wall.monotonic();
    let mut set = querier.select(&[], &SelectHints::default())?;
    let (mut all, mut bytes, mut chunks) = (Vec::new(), 0, 0);
    let mut largest = Vec::new();
    while let Some(series) = set.next()? {
        let size = series.chunks.iter().map(|c| c.bytes().map_or(0, |b| b.len() + 4)).sum::<usize>();
        bytes += size;
        chunks += series.chunks.len();
        largest.push((size, series.labels.to_string()));
        all.push(series.chunks);
    }
    println!("select: {:.4} us/sample, {} series", per(wall.monotonic() - begin), all.len());
    let each = bytes as f64 / samples as f64;
    println!("{chunks} chunks, {bytes} bytes, {each:.4} bytes/sample with timestamps, head and checksum");
    largest.sort_unstable_by(|a, b| b.cmp(a));
    for (size, labels) in largest.iter().step_by(largest.len() / 20 + 1) {
        println!("  {size:6} bytes  {labels}");
    }
    let mut out = Samples::new();
    let mut decoded = 0;
    let (begin, cpu_before) = (wall.monotonic(), cpu_seconds());
    while decoded < 50_000_000 {
        for c in &all {
            decode_chunks(c, i64::MIN, i64::MAX, &mut out)?;
            decoded += out.len();
        }
    }
    let rate = |seconds: f64| decoded as f64 / seconds / 1e6;
    let (took, cpu) = (wall.monotonic() - begin, cpu_seconds() - cpu_before);
    println!("decode: {:.0} M samples/s, {:.0} per CPU second", rate(took.as_secs_f64()), rate(cpu));
    store.close()?;
    println!("{:#?}", store.stats());
    new_series()
}

/// Writes whole series, settles everything, and prints what it takes by column family.
fn settled_bytes(file: &str) -> Result<(), Box<dyn Error>> {
    let mut all: Vec<(Labels, Vec<i64>, Vec<f64>)> = Vec::new();
    for line in std::io::BufReader::new(std::fs::File::open(file)?).lines() {
        let row: serde_json::Value = serde_json::from_str(&line?)?;
        let pairs = row["metric"].as_object().ok_or("no metric")?.iter();
        let labels = Labels::from_pairs(pairs.map(|(n, v)| (n.as_str(), v.as_str().unwrap_or_default())));
        let numbers = |key: &str| row[key].as_array().cloned().unwrap_or_default();
        let ts = numbers("timestamps").iter().filter_map(serde_json::Value::as_i64).collect();
        // As texts, which are read to the last bit.
        let texts = numbers("values");
        let values = texts.iter().map(|v| v.as_str().unwrap_or_default().parse());
        let values = values.collect::<Result<Vec<f64>, _>>()?;
        all.push((labels, ts, values));
    }
    let last = all.iter().filter_map(|(_, ts, _)| ts.last().copied()).max().ok_or("no samples")?;
    let first = all.iter().filter_map(|(_, ts, _)| ts.first().copied()).min().ok_or("no samples")?;
    let samples: usize = all.iter().map(|(_, ts, _)| ts.len()).sum();
    let dir = tempfile::tempdir()?;
    let clock = Arc::new(ManualClock::new(last));
    let config = StoreConfig { sync: false, ..StoreConfig::new(dir.path()) };
    let store = LongtermStore::open(config, clock.clone(), &prometheus::Registry::new())?;
    let mut refs = vec![(SeriesRef::NONE, 0); all.len()];
    let mut until = first;
    while until <= last {
        until += 600_000;
        let mut a = store.appender()?;
        for ((labels, ts, values), (r, at)) in all.iter().zip(&mut refs) {
            while *at < ts.len() && ts[*at] < until {
                *r = a.append(*r, labels, Sample::float(ts[*at], values[*at]))?;
                *at += 1;
            }
        }
        a.commit()?;
    }
    clock.set_ms(last + 2 * DAY_MS);
    store.maintain()?;
    store.compact()?;
    let stats = store.stats();
    println!("{} series, {samples} samples, {} bytes in memory", all.len(), stats.open_bytes);
    for (family, bytes) in &stats.family_bytes {
        println!("{family:10} {bytes:10} bytes {:.4} per sample", *bytes as f64 / samples as f64);
    }
    println!(
        "all        {:10} bytes {:.4} per sample",
        stats.disk_bytes,
        stats.disk_bytes as f64 / samples as f64
    );
    Ok(())
}

/// Many series with one sample each, in batches as an agent sends them, then a restart and a selection of one of them.
fn new_series() -> Result<(), Box<dyn Error>> {
    const BATCH: usize = 2000;
    const SERIES: usize = 200_000;
    let dir = tempfile::tempdir()?;
    let clock = Arc::new(ManualClock::new(T0));
    let config = StoreConfig { sync: false, ..StoreConfig::new(dir.path()) };
    let open = || LongtermStore::open(config.clone(), clock.clone(), &prometheus::Registry::new());
    let store = open()?;
    let wall = SystemClock::new();
    let labels: Vec<Labels> = (0..SERIES)
        .map(|i| {
            let (pod, n) = (i / 100, i % 100);
            Labels::from_pairs([
                ("__name__", format!("container_metric_{n}")),
                ("container", format!("c{}", pod % 3)),
                ("image", format!("registry.example/app-{}:v1", pod % 50)),
                ("instance", format!("10.0.{}.{}:10250", pod / 2500, pod % 250)),
                ("job", "cadvisor".to_owned()),
                ("namespace", format!("ns-{}", pod % 20)),
                ("node", format!("node-{}", pod % 40)),
                ("pod", format!("app-{}-{pod:x}", pod % 50)),
            ])
        })
        .collect();
    let (begin, cpu_before) = (wall.monotonic(), cpu_seconds());
    for batch in labels.chunks(BATCH) {
        let mut a = store.appender()?;
        for l in batch {
            a.append(SeriesRef::NONE, l, Sample::float(T0, 1.0))?;
        }
        a.commit()?;
    }
    let per = |x: f64| x * 1e6 / SERIES as f64;
    let (took, cpu) = ((wall.monotonic() - begin).as_secs_f64(), cpu_seconds() - cpu_before);
    println!("new series: {:.2} us each, CPU {:.2}", per(took), per(cpu));
    drop(store);
    let begin = wall.monotonic();
    let store = open()?;
    println!("restart from the journal: {:.0} ms", (wall.monotonic() - begin).as_secs_f64() * 1e3);
    let querier = store.querier(T0, T0)?;
    for matchers in [
        vec![Matcher::equal("pod", "app-7-7")],
        vec![Matcher::equal("__name__", "container_metric_7"), Matcher::equal("namespace", "ns-3")],
        vec![Matcher::new(MatchOp::Regexp, "pod", "app-7-.*")?],
        vec![],
    ] {
        let begin = wall.monotonic();
        let mut set = querier.select(&matchers, &SelectHints::default())?;
        let mut n = 0;
        while set.next()?.is_some() {
            n += 1;
        }
        let text: Vec<_> = matchers.iter().map(ToString::to_string).collect();
        println!("select {text:?}: {n} series, {:.2} ms", (wall.monotonic() - begin).as_secs_f64() * 1e3);
    }
    Ok(())
}

/// User and system time of the process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

type Scrape = Vec<(Labels, f64)>;

fn read_scrapes(dir: &str) -> std::io::Result<Vec<Scrape>> {
    let mut files = std::fs::read_dir(dir)?.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    files.iter().map(|f| Ok(parse(&std::fs::read_to_string(f)?))).collect()
}

/// Just enough of the text format for well-behaved exporters.
fn parse(text: &str) -> Scrape {
    let mut out = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, rest) = series.split_once('{').unwrap_or((series, ""));
        let mut pairs = vec![("__name__".to_owned(), name.to_owned())];
        pairs.push(("instance".into(), "host:9100".into()));
        pairs.push(("job".into(), "node".into()));
        for pair in rest.trim_end_matches('}').split("\",").filter(|p| !p.is_empty()) {
            if let Some((n, v)) = pair.split_once("=\"") {
                pairs.push((n.to_owned(), v.trim_end_matches('"').to_owned()));
            }
        }
        out.push((Labels::from_pairs(pairs), value));
    }
    out
}

/// Six of ten constant, counters with noise, gauges with two decimals, one with many.
fn made_up(series: usize, scrapes: i64) -> Vec<Scrape> {
    let mut random = 1_u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as f64 / f64::from(1_u32 << 31)
    };
    let labels: Vec<Labels> = (0..series)
        .map(|i| Labels::from_pairs([("__name__", format!("m{}", i % 100)), ("i", (i / 100).to_string())]))
        .collect();
    let mut state: Vec<f64> = (0..series).map(|i| (i % 50) as f64 * 100.0).collect();
    (0..scrapes)
        .map(|_| {
            for (i, v) in state.iter_mut().enumerate() {
                match i % 10 {
                    0..=5 => {}
                    6 | 7 => *v += (next() * 200.0).round(),
                    8 => *v = ((*v + next() - 0.5) * 100.0).round() / 100.0,
                    _ => *v += next() * 15.0,
                }
            }
            labels.iter().cloned().zip(state.iter().copied()).collect()
        })
        .collect()
}
