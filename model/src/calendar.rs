//! Dates of timestamps, in UTC and the Gregorian calendar.

/// A date and the time of that day, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// Year.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl DateTime {
    /// The date of a timestamp in milliseconds since the Unix epoch.
    #[must_use]
    pub fn from_ms(ms: i64) -> Self {
        let (days, seconds) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) / 1000);
        // Days since the first of March of the year 0, in eras of 400 years: the leap day is the last of its year.
        let from_march = days + 719_468;
        let (era, day_of_era) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month: month as u8,
            day: (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u8,
            hour: (seconds / 3600) as u8,
            minute: (seconds / 60 % 60) as u8,
            second: (seconds % 60) as u8,
        }
    }
}

/// A timestamp in milliseconds in RFC 3339, without trailing zeros, as Go's `RFC3339Nano` has it.
#[must_use]
pub fn rfc3339(ms: i64) -> String {
    let DateTime { year, month, day, hour, minute, second } = DateTime::from_ms(ms);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    let fraction = ms.rem_euclid(1000);
    if fraction != 0 {
        text.push_str(format!(".{fraction:03}").trim_end_matches('0'));
    }
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_texts() {
        for (ms, text) in [(0, "1970-01-01T00:00:00Z"), (1_704_067_200_120, "2024-01-01T00:00:00.12Z")] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn timestamps_are_dates() {
        for (s, date, time) in [
            (0, (1970, 1, 1), (0, 0, 0)),
            (-1, (1969, 12, 31), (23, 59, 59)),
            (951_782_399, (2000, 2, 28), (23, 59, 59)),
            (951_782_400, (2000, 2, 29), (0, 0, 0)),
            (1_709_251_199, (2024, 2, 29), (23, 59, 59)),
            (1_735_689_600, (2025, 1, 1), (0, 0, 0)),
        ] {
            let d = DateTime::from_ms(s * 1000);
            assert_eq!(((d.year, d.month, d.day), (d.hour, d.minute, d.second)), (date, time), "{s}");
        }
    }
}
