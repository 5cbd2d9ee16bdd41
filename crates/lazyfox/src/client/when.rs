//! Times as people type them: `15m` for a duration or that long ago, RFC 3339 for a point in time.

use lazyfox_core::time::Timestamp;

use super::times::civil;

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
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(at) = point(text) {
            return Ok(Self::At(at));
        }
        milliseconds(text).map(Self::Ago).map_err(|_| {
            "say how long ago (90s, 15m, 2h, 3d) or when (2026-05-01T12:03:04Z)".to_owned()
        })
    }

    /// The point in time, if it is `now`; nothing is before 1970.
    pub(super) fn from(self, now: Timestamp) -> Timestamp {
        let at = match self {
            Self::Ago(ms) => now.as_ms().saturating_sub_unsigned(ms),
            Self::At(at) => at.as_ms(),
        };
        Timestamp::from_ms(at.max(0))
    }
}

/// A duration such as `90s`, `15m`, `2h` or `3d`, in milliseconds.
pub(super) fn milliseconds(text: &str) -> Result<u64, String> {
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

/// A point in time by RFC 3339; fractions of seconds are left out.
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
    let [hour, minute, second] = numbers(time.split('.').next()?, ':')?;
    let days = days(year, month, day);
    let is_sound = civil(days) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    is_sound.then(|| Timestamp::from_ms(seconds * 1000))
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
    use crate::client::times::utc;

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
            ("1970-01-01T00:00:00Z", "1970-01-01 00:00:00"),
            ("2026-05-01T12:03:04Z", "2026-05-01 12:03:04"),
            ("2026-05-01 12:03:04.999z", "2026-05-01 12:03:04"),
            ("2026-05-01T12:03:04+02:30", "2026-05-01 09:33:04"),
            ("2026-12-31T23:00:00-01:00", "2027-01-01 00:00:00"),
            ("2000-02-29T00:00:00Z", "2000-02-29 00:00:00"),
            ("2100-03-01T00:00:00Z", "2100-03-01 00:00:00"),
            ("9999999-12-31T23:59:59Z", "9999999-12-31 23:59:59"),
        ] {
            let at = When::parse(text).unwrap().from(NOW);
            assert_eq!(utc(at.as_ms()), expected, "{text}");
        }
        for text in [
            "2026-05-01",
            "2026-05-01T12:03:04",
            "2026-05-01T12:03Z",
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
