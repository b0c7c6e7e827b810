//! Bodies of any bytes as any format, scraped twice: whole and cut short. No panic, bounded memory, and an end.
//!
//! Begins with good bodies, which it writes into the folder that `ALMANAC_FUZZ_SEEDS` names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{AppendError, Appender, Exemplar, Labels, Metadata, Sample, SeriesRef, StorageError};
use scraper::exposition::negotiation::BodyFormat;
use scraper::exposition::{Format, HistogramOptions};
use scraper::sample_labels::{SampleRules, StartRules};
use scraper::series_cache::SeriesCache;

/// Takes everything, keeps nothing, and gives references.
struct NullAppender(u64);

impl Appender for NullAppender {
    fn append(&mut self, _: SeriesRef, _: &Labels, _: Sample) -> Result<SeriesRef, AppendError> {
        self.0 += 1;
        Ok(SeriesRef(self.0))
    }
    fn append_float(&mut self, _: SeriesRef, _: i64, _: f64) -> Result<(), AppendError> {
        Ok(())
    }
    fn append_exemplar(&mut self, _: SeriesRef, _: &Exemplar) -> Result<(), AppendError> {
        Ok(())
    }
    fn append_metadata(&mut self, _: SeriesRef, _: &Metadata) -> Result<(), AppendError> {
        Ok(())
    }
    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        Ok(())
    }
    fn rollback(self: Box<Self>) {}
}

const TEXT: &str = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\",y=\"\\\\ \\n\"} 7 1000\na_total{x=\"2\"} 1e3\n\
# TYPE h histogram\nh_bucket{le=\"0.1\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 1.5\nh_count 3\n\
# TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum -Inf\ns_count 0\n{\"dots.in\",\"l.x\"=\"v\"} 0x1p-2\n";
const OPEN_METRICS: &str = "# TYPE a counter\n# UNIT a_seconds seconds\na_total{x=\"1\"} 7 1.5 # {t=\"abc\"} 0.5 1.2\n\
a_created{x=\"1\"} 1\n# TYPE g gaugehistogram\ng_bucket{le=\"1\"} 1 # {} 1\ng_bucket{le=\"+Inf\"} 2\ng_gsum 1\ng_gcount 2\n\
# TYPE i info\ni_info{v=\"1\"} 1\n# TYPE e stateset\ne{e=\"on\"} 1\n# EOF\n";

/// A field of bytes of a protobuf message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn double(number: u8, v: f64) -> Vec<u8> {
    [&[number << 3 | 1][..], &v.to_le_bytes()].concat()
}

fn int(number: u8, v: u8) -> Vec<u8> {
    vec![number << 3, v]
}

/// A family of one metric: a counter with an exemplar, a gauge, a summary, or a native and classic histogram.
fn protobuf(kind: u8) -> Vec<u8> {
    let label = field(1, &[field(1, b"x"), field(2, b"1")].concat());
    let exemplar = [field(1, &[field(1, b"t"), field(2, b"abc")].concat()), double(2, 0.5)].concat();
    let metric = match kind {
        0 => field(3, &[double(1, 7.0), field(2, &exemplar)].concat()),
        1 => field(2, &double(1, -1.0)),
        2 => field(4, &[int(1, 2), double(2, 3.0), field(3, &[double(1, 0.5), double(2, 1.0)].concat())].concat()),
        _ => {
            let bucket = field(3, &[int(1, 1), double(2, 0.1)].concat());
            let span = field(12, &[int(1, 2), int(2, 2)].concat());
            let native = [int(5, 2), double(6, 0.01), int(7, 1), span, int(13, 2), int(13, 1)].concat();
            field(7, &[int(1, 3), double(2, 1.5), bucket, native].concat())
        }
    };
    let message = [
        field(1, b"m_total"),
        field(2, b"Help."),
        int(3, kind.min(4)),
        field(4, &[label, metric, int(6, 100)].concat()),
    ]
    .concat();
    [&[message.len() as u8], &message[..]].concat()
}

/// Good bodies after the byte that says how they are read.
fn seeds() -> Vec<Vec<u8>> {
    let protobuf: Vec<Vec<u8>> = [0, 1, 2, 4].into_iter().map(protobuf).collect();
    let mut bodies = vec![(0, TEXT.as_bytes().to_vec()), (1, OPEN_METRICS.as_bytes().to_vec()), (2, protobuf.concat())];
    bodies.extend(protobuf.into_iter().map(|b| (2, b)));
    let choices = |format: u8| [format, format | 0b11100, format | 0b1110_0100];
    bodies
        .iter()
        .flat_map(|(format, body)| choices(*format).map(|choice| [&[choice], &body[..]].concat()))
        .collect()
}

fn write_seeds() {
    if let Some(folder) = std::env::var_os("ALMANAC_FUZZ_SEEDS").map(std::path::PathBuf::from) {
        for (n, bytes) in seeds().into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{n:02}")), bytes).expect("the folder is there");
        }
    }
}

fuzz_target!(init: write_seeds(), |data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let bit = |n: u8| choice & (1 << n) != 0;
    let format = match choice & 3 {
        0 => BodyFormat::Text(Format::Text),
        1 => BodyFormat::Text(Format::OpenMetrics),
        _ => BodyFormat::Protobuf,
    };
    let histograms = HistogramOptions { native: bit(2), keep_classic: bit(3), convert_classic: bit(4) };
    let rules = SampleRules {
        starts: StartRules { read: bit(5), as_zeros: false },
        type_and_unit_labels: bit(6),
        append_metadata: bit(7),
        honor_timestamps: true,
        bucket_limit: 10,
        ..SampleRules::default()
    };
    let mut cache = SeriesCache::default();
    let mut app = NullAppender(0);
    for (scrape, body) in [body, body, &body[..body.len() / 2], body].into_iter().enumerate() {
        let now_ms = 1000 * scrape as i64;
        if cache.append(body, format, histograms, now_ms, &rules, &mut app).result.is_err() {
            cache.append_stale(now_ms, &mut app).expect("the appender takes everything");
        }
    }
});
