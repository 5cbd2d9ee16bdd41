//! Milliseconds as people read them.

use crate::when::civil;

/// A duration: `412 ms`, `8.7 s`, `3 min 20 s`, `2 h 05 min`.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A duration of which a person wants to know about how long: `9 s`, `3 min 20 s`.
pub(super) fn roughly(ms: u64) -> String {
    let seconds = ms.saturating_add(500) / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        _ => duration(seconds * 1000),
    }
}

/// A point in time, in UTC: `2026-05-01 12:03:04`.
pub(super) fn utc(ms_since_epoch: i64) -> String {
    let seconds = ms_since_epoch.div_euclid(1000);
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_two_or_three_digits() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_999, "59.9 s"),
            (200_000, "3 min 20 s"),
            (7_500_000, "2 h 05 min"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn rough_durations_are_whole_seconds() {
        for (ms, text) in [
            (0, "0 s"),
            (9_999, "10 s"),
            (59_499, "59 s"),
            (59_999, "1 min 00 s"),
            (7_500_000, "2 h 05 min"),
        ] {
            assert_eq!(roughly(ms), text);
        }
        assert!(roughly(u64::MAX).ends_with("min"));
    }

    #[test]
    fn dates_know_leap_years_and_the_time_before_1970() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00"),
            (-1_000, "1969-12-31 23:59:59"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_777_636_984_999, "2026-05-01 12:03:04"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(ms), text);
        }
    }
}
