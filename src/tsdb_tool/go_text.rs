//! Dates, durations and sizes as Go's packages print and read them.

use model::calendar::DateTime;

const SECOND_NS: u64 = 1_000_000_000;

/// As Go prints a time: `2006-01-02 15:04:05 +0000 UTC`.
pub(super) fn date(ms: i64) -> String {
    let d = DateTime::from_ms(ms);
    let (year, month, day) = (d.year, d.month, d.day);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} +0000 UTC", d.hour, d.minute, d.second)
}

/// As Go prints a duration: `2h0m0s`, `1.5s`, `20ms`.
pub(super) fn duration_ms(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}", duration_ns(u128::from(ms.unsigned_abs()) * 1_000_000))
}

/// The same for nanoseconds: `1.25µs`, `3ns`.
pub(super) fn duration_ns(ns: u128) -> String {
    let ns = u64::try_from(ns).unwrap_or(u64::MAX);
    let decimal = |n: u64, unit: u64, name: &str| {
        let digits = unit.ilog10() as usize;
        let fraction = format!(".{:0digits$}", n % unit);
        let fraction = if n.is_multiple_of(unit) { "" } else { fraction.trim_end_matches('0') };
        format!("{}{fraction}{name}", n / unit)
    };
    match ns {
        0 => "0s".into(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => decimal(ns, 1_000, "µs"),
        1_000_000..SECOND_NS => decimal(ns, 1_000_000, "ms"),
        _ => {
            let (h, m) = (ns / (3600 * SECOND_NS), ns / (60 * SECOND_NS) % 60);
            let seconds = decimal(ns % (60 * SECOND_NS), SECOND_NS, "s");
            match (h, m) {
                (0, 0) => seconds,
                (0, _) => format!("{m}m{seconds}"),
                _ => format!("{h}h{m}m{seconds}"),
            }
        }
    }
}

/// All units that are not zero: `1MiB5KiB12B`.
pub(super) fn bytes(mut n: u64) -> String {
    let mut parts = Vec::new();
    for (i, unit) in ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter().enumerate() {
        if !n.is_multiple_of(1024) || i == 0 && n == 0 {
            parts.push(format!("{}{unit}", n % 1024));
        }
        n /= 1024;
        if n == 0 {
            break;
        }
    }
    parts.reverse();
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_promtool_does() {
        for (ms, text) in [
            (0, "0s"),
            (20, "20ms"),
            (1500, "1.5s"),
            (-1500, "-1.5s"),
            (61_000, "1m1s"),
            (7_200_000, "2h0m0s"),
            (7_199_999, "1h59m59.999s"),
        ] {
            assert_eq!(duration_ms(ms), text);
        }
        for (ns, text) in
            [(3, "3ns"), (1_250, "1.25µs"), (1_234_567, "1.234567ms"), (61_000_000_001, "1m1.000000001s")]
        {
            assert_eq!(duration_ns(ns), text);
        }
        for (n, text) in [(0, "0B"), (1024, "1KiB"), (1_048_577, "1MiB1B"), (1536, "1KiB512B")] {
            assert_eq!(bytes(n), text);
        }
    }
}
