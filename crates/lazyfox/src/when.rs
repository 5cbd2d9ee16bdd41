//! Times as people type them: `15m` for a duration or that long ago, RFC 3339 for a point in time. And the
//! calendar for it.

use lazyfox_core::time::Timestamp;

const SECOND_MS: u64 = 1000;
const DAY_MS: u64 = 24 * 60 * 60 * SECOND_MS;

/// A point in time that may be counted from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// This many milliseconds ago.
    Ago(u64),
    /// Then.
    At(Timestamp),
}

impl When {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(at) = point(text) {
            return Ok(Self::At(at));
        }
        milliseconds(text).map(Self::Ago).map_err(|_| {
            "say how long ago (90s, 15m, 2h, 3d) or when (2026-05-01T12:03:04Z)".to_owned()
        })
    }

    /// The point in time, if it is `now`; nothing is before 1970.
    pub(crate) fn from(self, now: Timestamp) -> Timestamp {
        let at = match self {
            Self::Ago(ms) => now.as_ms().saturating_sub_unsigned(ms),
            Self::At(at) => at.as_ms(),
        };
        Timestamp::from_ms(at.max(0))
    }
}

/// A duration such as `90s`, `15m`, `2h` or `3d`, in milliseconds.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    let units = [
        ('s', SECOND_MS),
        ('m', 60 * SECOND_MS),
        ('h', 60 * 60 * SECOND_MS),
        ('d', DAY_MS),
    ];
    units
        .iter()
        .find_map(|(unit, unit_ms)| {
            let [number] = numbers(text.strip_suffix(*unit)?, ' ')?;
            number.unsigned_abs().checked_mul(*unit_ms)
        })
        .ok_or_else(|| "say a number and a unit: 90s, 15m, 2h or 3d".to_owned())
}

/// A point in time as RFC 3339 has it, in UTC and with milliseconds: `2026-05-01T12:03:04.567Z`. Up to the
/// year 9999 such texts sort by time.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let (seconds, ms) = (at.as_ms().div_euclid(1000), at.as_ms().rem_euclid(1000));
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// A point in time by RFC 3339; what is less than a millisecond is left out.
pub(crate) fn point(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-')?;
    let (time, offset_s) = match rest.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => {
            let (time, offset) = rest.split_at(rest.rfind(['+', '-'])?);
            let [hours, minutes] = numbers(&offset[1..], ':')?;
            let offset_s = (hours * 60 + minutes) * 60;
            (
                time,
                if offset.starts_with('-') {
                    -offset_s
                } else {
                    offset_s
                },
            )
        }
    };
    let (time, ms) = match time.split_once('.') {
        Some((time, fraction)) => (time, thousandths(fraction)?),
        None => (time, 0),
    };
    let [hour, minute, second] = numbers(time, ':')?;
    let days = days(year, month, day);
    let is_sound = civil(days) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    is_sound.then(|| Timestamp::from_ms(seconds * 1000 + ms))
}

/// The first three digits of a fraction.
fn thousandths(fraction: &str) -> Option<i64> {
    let is_fraction = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let digits: String = fraction.chars().chain("00".chars()).take(3).collect();
    is_fraction.then(|| digits.parse().ok()).flatten()
}

/// So many numbers, none of which is negative or too large to reckon with.
fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let number = |digits: &str| {
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.len() <= 7;
        is_number.then(|| digits.parse().ok()).flatten()
    };
    let found: Option<Vec<i64>> = text.split(separator).map(number).collect();
    found?.try_into().ok()
}

/// Year, month and day of a day counted from 1970-01-01. The year is taken to begin in March, so
/// that the leap day is its last and the months before it have a fixed pattern.
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    const MARCH_OF_YEAR_0: i64 = 719_468;
    let days = days + MARCH_OF_YEAR_0;
    let era = days.div_euclid(DAYS_OF_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_OF_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// The day counted from 1970-01-01: `civil` turned round. A day that no calendar has becomes another.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Days before each month of a year that begins in March.
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let year = year - i64::from(month <= 2);
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_777_636_984_999);

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, ms) in [
            ("0s", 0),
            ("90s", 90_000),
            ("15m", 900_000),
            ("2h", 7_200_000),
            ("3d", 259_200_000),
        ] {
            assert_eq!(milliseconds(text), Ok(ms), "{text}");
            let at = When::parse(text).unwrap().from(NOW);
            assert_eq!(NOW.ms_since(at), ms, "{text}");
        }
        for text in [
            "",
            "15",
            "h",
            "1.5h",
            "-1h",
            "+1h",
            "2 h",
            "1h30m",
            "2w",
            "99999999d",
        ] {
            assert!(milliseconds(text).is_err(), "{text}");
            assert!(When::parse(text).is_err(), "{text}");
        }
        let at = When::parse("9999999d").unwrap().from(NOW);
        assert_eq!(at, Timestamp::from_ms(0));
    }

    #[test]
    fn points_in_time_know_zones_and_leap_years() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
            ("2026-05-01T12:03:04Z", "2026-05-01T12:03:04.000Z"),
            ("2026-05-01 12:03:04.999z", "2026-05-01T12:03:04.999Z"),
            ("2026-05-01T12:03:04+02:30", "2026-05-01T09:33:04.000Z"),
            ("2026-12-31T23:00:00-01:00", "2027-01-01T00:00:00.000Z"),
            ("2026-05-01T12:03:04.5Z", "2026-05-01T12:03:04.500Z"),
            (
                "2026-05-01T12:03:04.0509999-00:00",
                "2026-05-01T12:03:04.050Z",
            ),
            ("2000-02-29T00:00:00Z", "2000-02-29T00:00:00.000Z"),
            ("2100-03-01T00:00:00Z", "2100-03-01T00:00:00.000Z"),
            ("9999999-12-31T23:59:59Z", "9999999-12-31T23:59:59.000Z"),
        ] {
            let at = When::parse(text).unwrap().from(NOW);
            assert_eq!(rfc3339(at), expected, "{text}");
        }
        for text in [
            "2026-05-01",
            "2026-05-01T12:03:04",
            "2026-05-01T12:03Z",
            "2026-05-01T12:03:04.Z",
            "2026-05-01T12:03:04.1.2Z",
            "2026-05-01T12:03:04.-1Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-05-01T24:00:00Z",
            "2026-05-01T12:03:04+2",
            "10000000-05-01T12:03:04Z",
            "T:Z",
            "é 1+é",
        ] {
            assert!(When::parse(text).is_err(), "{text}");
        }
    }
}
