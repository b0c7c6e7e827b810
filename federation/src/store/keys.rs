//! Keys of the column families, and the calendar behind their months. Spec: docs/formats/longterm.md.
//!
//! Everything is big-endian, so that RocksDB sorts by the parts of a key in their order. Values are elsewhere.

/// Calendar months (UTC) since January 1970.
pub(super) type Month = u16;

/// Milliseconds of a day.
pub(super) const DAY_MS: i64 = 86_400_000;

/// Last timestamp taken: the end of the month before `Month::MAX`, which thus never has data. Far beyond any clock.
pub(super) const MAX_TIMESTAMP_MS: i64 = month_start_ms_wide(Month::MAX as i64) - 1;

/// The month of a timestamp; timestamps outside `[0, MAX_TIMESTAMP_MS]` are clamped.
pub(super) fn month_of(timestamp_ms: i64) -> Month {
    let days = timestamp_ms.clamp(0, MAX_TIMESTAMP_MS) / DAY_MS;
    // Years of 400-year cycles that begin in March, as in Howard Hinnant's "chrono-compatible date algorithms".
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    ((year - 1970) * 12 + month - 1) as Month
}

/// First millisecond of a month.
pub(super) const fn month_start_ms(month: Month) -> i64 {
    month_start_ms_wide(month as i64)
}

/// First millisecond after a month.
pub(super) const fn month_end_ms(month: Month) -> i64 {
    month_start_ms_wide(month as i64 + 1)
}

const fn month_start_ms_wide(month: i64) -> i64 {
    let (year, m) = (1970 + month / 12, month % 12 + 1);
    let y = if m <= 2 { year - 1 } else { year };
    let (era, yoe) = (y / 400, y % 400);
    let mp = (m + 9) % 12;
    let doy = (153 * mp + 2) / 5;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    (era * 146_097 + doe - 719_468) * DAY_MS
}

/// `2026-11`, for people.
pub(super) fn month_name(month: Month) -> String {
    format!("{:04}-{:02}", 1970 + month / 12, month % 12 + 1)
}

/// A moving window on the month of the timestamps seen last, so that neighbours cost two comparisons.
#[derive(Clone, Copy)]
pub(super) struct MonthCursor {
    start_ms: i64,
    end_ms: i64,
    month: Month,
}

impl MonthCursor {
    pub(super) fn new() -> Self {
        Self { start_ms: 0, end_ms: 0, month: 0 }
    }

    #[inline]
    pub(super) fn month_of(&mut self, timestamp_ms: i64) -> Month {
        if timestamp_ms < self.start_ms || timestamp_ms >= self.end_ms {
            self.month = month_of(timestamp_ms);
            self.start_ms = month_start_ms(self.month);
            self.end_ms = month_end_ms(self.month);
        }
        self.month
    }
}

/// Key of `raw`, `exemplars` and rollups.
pub(super) const SAMPLE_KEY_LEN_BYTES: usize = 18;

pub(super) fn sample_key(month: Month, series: u64, timestamp_ms: i64) -> [u8; SAMPLE_KEY_LEN_BYTES] {
    debug_assert!(timestamp_ms >= 0);
    let mut k = [0; SAMPLE_KEY_LEN_BYTES];
    k[..2].copy_from_slice(&month.to_be_bytes());
    k[2..10].copy_from_slice(&series.to_be_bytes());
    k[10..].copy_from_slice(&timestamp_ms.to_be_bytes());
    k
}

/// Parts of a key of `raw` or `exemplars`; `None` when it is none.
pub(super) fn parse_sample_key(key: &[u8]) -> Option<(Month, u64, i64)> {
    let key: &[u8; SAMPLE_KEY_LEN_BYTES] = key.try_into().ok()?;
    let month = Month::from_be_bytes(key[..2].try_into().ok()?);
    let series = u64::from_be_bytes(key[2..10].try_into().ok()?);
    let timestamp = i64::from_be_bytes(key[10..].try_into().ok()?);
    (timestamp >= 0).then_some((month, series, timestamp))
}

/// Key of `ids`.
pub(super) fn id_key(hash: u64, series: u64) -> [u8; 16] {
    let mut k = [0; 16];
    k[..8].copy_from_slice(&hash.to_be_bytes());
    k[8..].copy_from_slice(&series.to_be_bytes());
    k
}

/// Key of `ts`.
pub(super) fn ts_key(month: Month, hash: u64) -> [u8; 10] {
    let mut k = [0; 10];
    k[..2].copy_from_slice(&month.to_be_bytes());
    k[2..].copy_from_slice(&hash.to_be_bytes());
    k
}

/// Parts of a key of `ts`; `None` when it is none.
pub(super) fn parse_ts_key(key: &[u8]) -> Option<(Month, u64)> {
    let key: &[u8; 10] = key.try_into().ok()?;
    let (month, hash) = key.split_first_chunk::<2>()?;
    Some((Month::from_be_bytes(*month), u64::from_be_bytes(hash.try_into().ok()?)))
}

/// Key of the postings of all series of a month.
pub(super) fn all_series_key(month: Month) -> [u8; 4] {
    let m = month.to_be_bytes();
    [m[0], m[1], 0, 0]
}

/// Longest label name the index can hold.
pub(super) const MAX_LABEL_NAME_LEN_BYTES: usize = u16::MAX as usize;

/// Begin of all index keys of a label name.
pub(super) fn index_prefix(month: Month, name: &str) -> Vec<u8> {
    assert!(!name.is_empty() && name.len() <= MAX_LABEL_NAME_LEN_BYTES, "checked where labels enter");
    let mut k = Vec::with_capacity(4 + name.len() + 32);
    k.extend_from_slice(&month.to_be_bytes());
    k.extend_from_slice(&(name.len() as u16).to_be_bytes());
    k.extend_from_slice(name.as_bytes());
    k
}

/// Key of the postings of one label pair.
pub(super) fn index_key(month: Month, name: &str, value: &str) -> Vec<u8> {
    let mut k = index_prefix(month, name);
    k.extend_from_slice(value.as_bytes());
    k
}

/// Name and value of an index key; `None` for the entry of all series and for what is no index key.
pub(super) fn parse_index_key(key: &[u8]) -> Option<(Month, &str, &str)> {
    let (month, rest) = key.split_first_chunk::<2>()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (name, value) = rest.split_at_checked(u16::from_be_bytes(*len) as usize)?;
    if name.is_empty() {
        return None;
    }
    Some((Month::from_be_bytes(*month), std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
}

/// The smallest key that is greater than all keys with this prefix; `None` when there is none.
pub(super) fn prefix_successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut k = prefix.to_vec();
    while let Some(last) = k.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(k);
        }
        k.pop();
    }
    None
}

/// Begin and end `[from, to)` of all keys of a month, in `raw`, `exemplars`, `index` and rollups.
pub(super) fn month_range(month: Month) -> ([u8; 2], [u8; 2]) {
    assert!(month < Month::MAX, "the last month does not end");
    (month.to_be_bytes(), (month + 1).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_the_calendar() {
        for (ms, month, name) in [
            (0, 0, "1970-01"),
            (951_782_399_999, 361, "2000-02"),   // 2000-02-28T23:59:59.999Z
            (951_868_800_000, 362, "2000-03"),   // 2000-03-01, after the leap day below
            (951_782_400_000, 361, "2000-02"),   // 2000-02-29
            (1_798_761_600_000, 684, "2027-01"), // 2027-01-01
            (1_798_761_599_999, 683, "2026-12"),
        ] {
            assert_eq!((month_of(ms), month_name(month_of(ms)).as_str()), (month, name), "{ms}");
        }
        for m in 0..Month::MAX - 1 {
            assert_eq!(month_end_ms(m), month_start_ms(m + 1));
            assert_eq!((month_of(month_start_ms(m)), month_of(month_end_ms(m) - 1)), (m, m));
        }
        let mut cursor = MonthCursor::new();
        for ms in [0, 951_782_400_000, 951_868_800_000, 5, 951_782_399_999] {
            assert_eq!(cursor.month_of(ms), month_of(ms));
        }
    }

    #[test]
    fn keys_round_trip_and_sort() {
        assert_eq!(parse_sample_key(&sample_key(7, 1 << 40, 99)), Some((7, 1 << 40, 99)));
        assert!(sample_key(1, 2, 3) < sample_key(1, 2, 4) && sample_key(1, 9, 9) < sample_key(2, 0, 0));
        assert_eq!(parse_index_key(&index_key(3, "job", "a\0b")), Some((3, "job", "a\0b")));
        assert_eq!(parse_index_key(&all_series_key(3)), None);
        assert_eq!(parse_index_key(b"\0\x03\0\x09ab"), None);
        assert_eq!(prefix_successor(&[1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(prefix_successor(&[0xff]), None);
    }
}
