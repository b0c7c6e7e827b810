//! Calendar functions. Times are seconds since the Unix epoch, in UTC.
//!
//! The calendar is the proleptic Gregorian one, reckoned with 64 bits and as Go reckons: numbers that no time is far away
//! enough for (infinities, NaN) are the lowest time there is, whatever day that may be.
//!
//! Spec: <https://prometheus.io/docs/prometheus/latest/querying/functions/#day_of_month> and the sections of the functions
//! named here.

const DAY: u64 = 86_400;
const DAYS_OF_400_YEARS: u64 = 146_097;
const DAYS_OF_100_YEARS: u64 = 36_524;
const DAYS_OF_4_YEARS: u64 = 1_461;
/// From March 1 to the end of the year.
const MARCH_TO_DECEMBER: u64 = 306;
/// Years are counted from a March 1 so long before year 0.
const YEARS_BEFORE: u64 = 292_277_022_400;
/// Seconds from there to the Unix epoch.
const SECONDS_BEFORE: u64 = {
    let to_year_0 = YEARS_BEFORE / 400 * DAYS_OF_400_YEARS;
    // March 1 of year 0 comes 719,468 days before 1970.
    (to_year_0 + 719_468) * DAY
};

/// A moment, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    year: i64,
    /// From 1.
    month: u64,
    /// From 1.
    day: u64,
    /// From 1.
    day_of_year: u64,
    /// From Sunday, 0.
    weekday: u64,
    second_of_day: u64,
}

impl Moment {
    fn at(unix_seconds: i64) -> Self {
        let seconds = (unix_seconds as u64).wrapping_add(SECONDS_BEFORE);
        let days = seconds / DAY;
        let (cycles, rest) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
        let century = (rest / DAYS_OF_100_YEARS).min(3);
        let rest = rest - century * DAYS_OF_100_YEARS;
        let fours = rest / DAYS_OF_4_YEARS;
        let rest = rest - fours * DAYS_OF_4_YEARS;
        let single = (rest / 365).min(3);
        // Years and days of years that begin in March: the leap day is the last one.
        let day = rest - single * 365;
        let year = cycles * 400 + century * 100 + fours * 4 + single;
        let month = (5 * day + 2) / 153;
        let new_year = u64::from(day >= MARCH_TO_DECEMBER);
        let leap = single == 0 && (fours > 0 || century == 0);
        Self {
            year: year.wrapping_sub(YEARS_BEFORE).wrapping_add(new_year) as i64,
            month: month + 3 - 12 * new_year,
            day: day - (153 * month + 2) / 5 + 1,
            day_of_year: if new_year == 1 { day - MARCH_TO_DECEMBER + 1 } else { day + 60 + u64::from(leap) },
            // It begins with a Wednesday.
            weekday: (days + 3) % 7,
            second_of_day: seconds % DAY,
        }
    }

    fn days_in_month(&self) -> u64 {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

/// A calendar function, by name.
pub(crate) fn calendar(name: &str) -> Option<fn(&Moment) -> f64> {
    Some(match name {
        "days_in_month" => |t| t.days_in_month() as f64,
        "day_of_month" => |t| t.day as f64,
        "day_of_week" => |t| t.weekday as f64,
        "day_of_year" => |t| t.day_of_year as f64,
        "hour" => |t| (t.second_of_day / 3_600) as f64,
        "minute" => |t| (t.second_of_day % 3_600 / 60) as f64,
        "month" => |t| t.month as f64,
        "year" => |t| t.year as f64,
        _ => return None,
    })
}

/// The moment `seconds` after the epoch, cut to whole seconds toward zero.
pub(crate) fn at_seconds(f: fn(&Moment) -> f64, seconds: f64) -> f64 {
    const END: f64 = 9_223_372_036_854_775_808.0;
    let whole = if (-END..END).contains(&seconds) { seconds as i64 } else { i64::MIN };
    f(&Moment::at(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_calendar() {
        let check = |name: &str, seconds: f64, expect: f64| {
            assert_eq!(at_seconds(calendar(name).expect("known"), seconds), expect, "{name} {seconds}");
        };
        check("days_in_month", 1_454_284_800.0, 29.0);
        check("year", 1_136_239_445.0, 2006.0);
        check("day_of_week", 0.0, 4.0);
        check("day_of_year", 0.0, 1.0);
        check("hour", -1.0, 23.0);
        check("minute", -0.5, 0.0);
        check("year", -62_167_219_200.0, 0.0);
    }

    #[test]
    fn agrees_with_another_calendar() {
        use chrono::{DateTime, Datelike, Timelike};
        for i in -4_000_i64..4_000 {
            let seconds = i * 37 * 86_400 + i * 4_321;
            let expect = DateTime::from_timestamp(seconds, 0).expect("in range");
            let got = Moment::at(seconds);
            assert_eq!(
                (got.year, got.month, got.day, got.day_of_year, got.weekday, got.second_of_day),
                (
                    i64::from(expect.year()),
                    u64::from(expect.month()),
                    u64::from(expect.day()),
                    u64::from(expect.ordinal()),
                    u64::from(expect.weekday().num_days_from_sunday()),
                    u64::from(expect.num_seconds_from_midnight()),
                ),
                "{seconds}"
            );
        }
    }

    #[test]
    fn what_is_no_time_is_the_lowest() {
        for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e19] {
            let value = |name: &str| at_seconds(calendar(name).expect("known"), seconds);
            assert_eq!([value("hour"), value("minute"), value("month")], [15.0, 30.0, 12.0]);
            assert_eq!([value("day_of_month"), value("day_of_week")], [4.0, 0.0]);
            assert_eq!(value("year"), 292_277_026_596.0);
        }
    }
}
