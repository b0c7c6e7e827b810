//! Calendar functions. Times are seconds since the Unix epoch, in UTC.

use chrono::{DateTime, Datelike, Timelike, Utc};

/// A calendar function, by name.
pub(crate) fn calendar(name: &str) -> Option<fn(&DateTime<Utc>) -> f64> {
    Some(match name {
        "days_in_month" => days_in_month,
        "day_of_month" => |t| f64::from(t.day()),
        "day_of_week" => |t| f64::from(t.weekday().num_days_from_sunday()),
        "day_of_year" => |t| f64::from(t.ordinal()),
        "hour" => |t| f64::from(t.hour()),
        "minute" => |t| f64::from(t.minute()),
        "month" => |t| f64::from(t.month()),
        "year" => |t| f64::from(t.year()),
        _ => return None,
    })
}

/// The moment `seconds` after the epoch, cut to whole seconds toward zero; NaN when the calendar does not reach it.
pub(crate) fn at_seconds(f: fn(&DateTime<Utc>) -> f64, seconds: f64) -> f64 {
    let whole = if seconds.is_nan() { i64::MIN } else { seconds as i64 };
    DateTime::from_timestamp(whole, 0).map_or(f64::NAN, |t| f(&t))
}

fn days_in_month(t: &DateTime<Utc>) -> f64 {
    let leap = t.date_naive().leap_year();
    match t.month() {
        2 if leap => 29.0,
        2 => 28.0,
        4 | 6 | 9 | 11 => 30.0,
        _ => 31.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_calendar() {
        let check = |name: &str, seconds: f64, expect: f64| {
            assert_eq!(at_seconds(calendar(name).expect("known"), seconds), expect, "{name}");
        };
        check("days_in_month", 1_454_284_800.0, 29.0);
        check("year", 1_136_239_445.0, 2006.0);
        check("day_of_week", 0.0, 4.0);
        check("day_of_year", 0.0, 1.0);
        assert!(at_seconds(calendar("year").expect("known"), f64::NAN).is_nan());
    }
}
