//! Times and durations as Go's `time` prints them, in UTC.

use chrono::{DateTime, Datelike, Timelike, Utc};

fn utc(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::UNIX_EPOCH)
}

/// As `Time.String`.
pub(super) fn text(ms: i64) -> String {
    format(ms, "2006-01-02 15:04:05.999999999 -0700 MST")
}

/// A number of the calendar or the clock, by the name of Go's method.
pub(super) fn part(ms: i64, method: &str) -> Option<i64> {
    let time = utc(ms);
    Some(match method {
        "Year" => i64::from(time.year()),
        "Day" => i64::from(time.day()),
        "Hour" => i64::from(time.hour()),
        "Minute" => i64::from(time.minute()),
        "Second" => i64::from(time.second()),
        "Nanosecond" => ms.rem_euclid(1000) * 1_000_000,
        "YearDay" => i64::from(time.ordinal()),
        _ => return None,
    })
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Number and name of the month.
pub(super) fn month(ms: i64) -> (i64, &'static str) {
    let n = utc(ms).month0() as usize;
    (n as i64 + 1, MONTHS[n])
}

/// Number and name of the day of the week; Sunday is 0.
pub(super) fn weekday(ms: i64) -> (i64, &'static str) {
    let n = utc(ms).weekday().num_days_from_sunday() as usize;
    (n as i64, WEEKDAYS[n])
}

/// What stands for the parts of a time in a layout; longer ones before those they begin with.
const PARTS: [&str; 33] = [
    "January",
    "Jan",
    "Monday",
    "Mon",
    "MST",
    "2006",
    "-07:00:00",
    "-070000",
    "-07:00",
    "-0700",
    "-07",
    "Z07:00:00",
    "Z070000",
    "Z07:00",
    "Z0700",
    "Z07",
    "002",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "__2",
    "_2006",
    "_2",
    "15",
    "PM",
    "pm",
    "1",
    "2",
    "3",
    "4",
];

/// As `Time.Format`.
pub(super) fn format(ms: i64, layout: &str) -> String {
    let mut out = String::new();
    let mut rest = layout;
    while let Some(c) = rest.chars().next() {
        if let Some(len) = fraction(rest, &out) {
            push_fraction(&mut out, ms, &rest[..len]);
            rest = &rest[len..];
        } else if let Some(part) = next_part(rest) {
            push_part(&mut out, ms, part);
            rest = &rest[part.len()..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

fn next_part(text: &str) -> Option<&'static str> {
    if text.starts_with('5') {
        return Some("5");
    }
    // A month's name goes on only with small letters of its own.
    PARTS.into_iter().find(|part| {
        text.starts_with(part)
            && !(matches!(*part, "Jan" | "Mon") && text[3..].starts_with(|c: char| c.is_ascii_lowercase()))
    })
}

/// Length of `.000` or `,999`, when that is what comes next.
fn fraction(text: &str, before: &str) -> Option<usize> {
    let rest = text.strip_prefix(['.', ','])?;
    let digit = rest.chars().next().filter(|c| *c == '0' || *c == '9')?;
    let len = rest.chars().take_while(|c| *c == digit).count();
    let ends = !rest[len..].starts_with(|c: char| c.is_ascii_digit());
    (ends && !before.is_empty()).then_some(len + 1)
}

fn push_fraction(out: &mut String, ms: i64, part: &str) {
    let digits = format!("{:09}", ms.rem_euclid(1000) * 1_000_000);
    let len = (part.len() - 1).min(9);
    let mut digits = &digits[..len];
    if part.ends_with('9') {
        digits = digits.trim_end_matches('0');
        if digits.is_empty() {
            return;
        }
    }
    out.push_str(&part[..1]);
    out.push_str(digits);
}

fn push_part(out: &mut String, ms: i64, part: &str) {
    let time = utc(ms);
    let hour12 = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    let text = match part {
        "January" => month(ms).1.to_owned(),
        "Jan" => month(ms).1[..3].to_owned(),
        "Monday" => weekday(ms).1.to_owned(),
        "Mon" => weekday(ms).1[..3].to_owned(),
        "MST" => "UTC".to_owned(),
        "2006" => format!("{:04}", time.year()),
        "_2006" => format!("_{:04}", time.year()),
        "06" => format!("{:02}", time.year().rem_euclid(100)),
        "-07:00:00" => "+00:00:00".to_owned(),
        "-070000" => "+000000".to_owned(),
        "-07:00" => "+00:00".to_owned(),
        "-0700" => "+0000".to_owned(),
        "-07" => "+00".to_owned(),
        "002" => format!("{:03}", time.ordinal()),
        "__2" => format!("{:3}", time.ordinal()),
        "01" => format!("{:02}", time.month()),
        "1" => time.month().to_string(),
        "02" => format!("{:02}", time.day()),
        "_2" => format!("{:2}", time.day()),
        "2" => time.day().to_string(),
        "15" => format!("{:02}", time.hour()),
        "03" => format!("{hour12:02}"),
        "3" => hour12.to_string(),
        "04" => format!("{:02}", time.minute()),
        "4" => time.minute().to_string(),
        "05" => format!("{:02}", time.second()),
        "5" => time.second().to_string(),
        "PM" => if time.hour() >= 12 { "PM" } else { "AM" }.to_owned(),
        "pm" => if time.hour() >= 12 { "pm" } else { "am" }.to_owned(),
        // The zones that are written `Z` in UTC.
        _ => "Z".to_owned(),
    };
    out.push_str(&text);
}

/// As `Duration.String`.
pub(super) fn duration(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let total = ns.unsigned_abs();
    if total == 0 {
        return "0s".to_owned();
    }
    for (unit, name) in [(1_000, "ns"), (1_000_000, "µs"), (1_000_000_000, "ms")] {
        if total < unit {
            return format!("{sign}{}{name}", decimal(total, unit / 1000));
        }
    }
    let (hours, minutes) = (total / 3_600_000_000_000, total / 60_000_000_000 % 60);
    let seconds = decimal(total % 60_000_000_000, 1_000_000_000);
    if hours > 0 {
        format!("{sign}{hours}h{minutes}m{seconds}s")
    } else if minutes > 0 {
        format!("{sign}{minutes}m{seconds}s")
    } else {
        format!("{sign}{seconds}s")
    }
}

/// `n / unit` without zeros at its end.
fn decimal(n: u64, unit: u64) -> String {
    let (whole, part) = (n / unit, n % unit);
    if part == 0 {
        return whole.to_string();
    }
    let digits = unit.to_string().len() - 1;
    format!("{whole}.{}", format!("{part:0digits$}").trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_go_prints_them() {
        let ms = 1_136_214_245_678;
        for (layout, expect) in [
            ("2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05Z"),
            ("Mon Jan _2 15:04:05.000 2006", "Mon Jan  2 15:04:05.678 2006"),
            ("Monday, 02-Jan-06 3:04PM MST", "Monday, 02-Jan-06 3:04PM UTC"),
            ("January 2 at 03:04:05,9999 pm -0700", "January 2 at 03:04:05,678 pm +0000"),
        ] {
            assert_eq!(format(ms, layout), expect);
        }
        assert_eq!(text(1_700_000_000_000), "2023-11-14 22:13:20 +0000 UTC");
        assert_eq!(text(1_700_000_000_500), "2023-11-14 22:13:20.5 +0000 UTC");
        assert_eq!((month(ms), weekday(ms), part(ms, "YearDay")), ((1, "January"), (1, "Monday"), Some(2)));
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (ns, expect) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (-1_500_000_000, "-1.5s"),
            (60_000_000_000, "1m0s"),
            (3_661_000_000_001, "1h1m1.000000001s"),
        ] {
            assert_eq!(duration(ns), expect);
        }
    }
}
