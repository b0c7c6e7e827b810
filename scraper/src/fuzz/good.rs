//! Good bodies in each format, with every kind of family.

pub(super) const TEXT: &str = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\",y=\"\\\\ \\n\"} 7 1000\na_total{x=\"2\"} 1e3\n\
# TYPE h histogram\nh_bucket{le=\"0.1\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 1.5\nh_count 3\n\
# TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum -Inf\ns_count 0\n{\"dots.in\",\"l.x\"=\"v\"} 0x1p-2\n";

pub(super) const OPEN_METRICS: &str = "# TYPE a counter\n# UNIT a_seconds seconds\na_total{x=\"1\"} 7 1.5 # {t=\"abc\"} 0.5 1.2\n\
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
pub(super) fn protobuf(kind: u8) -> Vec<u8> {
    let label = field(1, &[field(1, b"x"), field(2, b"1")].concat());
    let exemplar = [field(1, &[field(1, b"t"), field(2, b"abc")].concat()), double(2, 0.5)].concat();
    let metric = match kind {
        0 => field(3, &[double(1, 7.0), field(2, &exemplar)].concat()),
        1 => field(2, &double(1, -1.0)),
        2 => {
            let quantile = field(3, &[double(1, 0.5), double(2, 1.0)].concat());
            field(4, &[int(1, 2), double(2, 3.0), quantile].concat())
        }
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

/// Each body after bytes that choose how it is read.
pub(super) fn with_choices(bodies: &[&[u8]]) -> Vec<Vec<u8>> {
    let choices = [0, 0b111, 0b1_1111, 0b11_1001, 0b101_0101];
    bodies.iter().flat_map(|body| choices.map(|choice| [&[choice], *body].concat())).collect()
}
