//! Which times partitions are of.

use lazyfox_core::time::Timestamp;

/// The shortest time that a partition is of.
const WIDTH_MIN_MS: i64 = 120_000;
/// A partition is of this part of the time since the oldest one ended, which is how long jobs are kept:
/// so many there are then, and one that is written to, and one ahead.
const PARTS: i64 = 5;
/// With so many partitions, each further one is four times as long. Every statement locks all of them.
const MANY: usize = 7;
const LENGTHENED_MAX: usize = 2;
/// A partition begins so far ahead that nobody has made an id of its time yet.
const LEAD_MS: i64 = 5_000;
/// And it is there so long before, at the most, in which it may fail to be made.
const AHEAD_MAX_MS: i64 = 600_000;
/// After its end, jobs may still come into it for so long: clocks differ, and a submit can be tried for
/// seconds.
const LATE_MS: i64 = 10_000;
/// With so many jobs within an hour or two, partitions are made.
const BUSY: u64 = 256;
const HOUR_MS: i64 = 3_600_000;
/// Times in ids are below that, in milliseconds since 1970.
const END_MS: i64 = 1 << 48;

/// From, up to but not at, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    from: i64,
    to: i64,
}

impl Span {
    fn new(from: i64, to: i64) -> Option<Self> {
        (0 <= from && from < to && to < END_MS).then_some(Self { from, to })
    }

    /// All that is older than now.
    pub(super) fn until(now: Timestamp) -> Option<Self> {
        Self::new(0, seconds(now.as_ms().saturating_add(LEAD_MS)))
    }

    /// The partition of a table; the time stands in its name.
    pub(super) fn of(self, table: &str) -> String {
        format!("{table}_{}_{}", self.from, self.to)
    }

    /// That of which a name says so.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.rsplitn(3, '_');
        let (to, from) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let span = Self::new(from, to)?;
        (span.of(parts.next()?) == name).then_some(span)
    }

    pub(super) fn bounds(self) -> String {
        let (from, to) = (uuid(self.from), uuid(self.to));
        format!("FOR VALUES FROM ('{from}') TO ('{to}')")
    }
}

/// The least id of a time.
fn uuid(ms: i64) -> String {
    format!(
        "{:08x}-{:04x}-0000-0000-000000000000",
        ms >> 16,
        ms & 0xffff
    )
}

/// Up to a whole second.
fn seconds(ms: i64) -> i64 {
    ms.saturating_add(999) / 1_000 * 1_000
}

/// The partition that is to be made now, if any is. `spans` are those that there are, in order.
pub(super) fn make(spans: &[Span], now: Timestamp, is_busy: bool) -> Option<Span> {
    if !is_busy {
        return None;
    }
    let now = now.as_ms();
    let kept_for = spans
        .first()
        .map_or(0, |oldest| now.saturating_sub(oldest.to));
    let lengthened = spans.len().saturating_sub(MANY).min(LENGTHENED_MAX);
    let width = (kept_for / PARTS).max(WIDTH_MIN_MS) << (2 * lengthened);
    // One that a wrong clock has made far ahead is only not to be overlapped.
    let (near, far) =
        spans.split_at(spans.partition_point(|span| span.from <= now.saturating_add(AHEAD_MAX_MS)));
    let last = near.last().map_or(0, |last| last.to);
    if last > now.saturating_add(width.min(AHEAD_MAX_MS)) {
        return None;
    }
    let from = seconds(last.max(now.saturating_add(LEAD_MS)));
    let to = seconds(from.saturating_add(width));
    let to = far.first().map_or(to, |next| to.min(next.from));
    Span::new(from, to)
}

/// Those in which no job is to come any more.
pub(super) fn past(spans: &[Span], now: Timestamp) -> Vec<Span> {
    let over = |span: &&Span| span.to.saturating_add(LATE_MS) <= now.as_ms();
    spans.iter().filter(over).copied().collect()
}

/// How many jobs came in this hour and the one before.
#[derive(Debug, Default)]
pub(super) struct Pace {
    hour: i64,
    now: u64,
    before: u64,
}

impl Pace {
    pub(super) fn add(&mut self, at: Timestamp) {
        let hour = at.as_ms() / HOUR_MS;
        if hour > self.hour {
            self.before = if hour == self.hour + 1 { self.now } else { 0 };
            (self.hour, self.now) = (hour, 0);
        }
        self.now += 1;
    }

    pub(super) fn is_busy(&self, now: Timestamp) -> bool {
        let jobs = match now.as_ms() / HOUR_MS - self.hour {
            ..=0 => self.now + self.before,
            1 => self.now,
            2.. => 0,
        };
        jobs >= BUSY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_800_000_000_000;
    const MINUTE: i64 = 60_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(START + ms)
    }

    fn span(from: i64, to: i64) -> Span {
        Span::new(START + from, START + to).unwrap()
    }

    #[test]
    fn a_name_and_bounds_say_the_time() {
        let span = span(0, 1_000);
        assert_eq!(span.of("jobs"), "jobs_1800000000000_1800000001000");
        assert_eq!(Span::parse(&span.of("jobs")), Some(span));
        for other in [
            "jobs_default",
            "jobs_2_1",
            "jobs_-1_2",
            "jobs_01_2",
            "jobs_1_281474976710656",
        ] {
            assert_eq!(Span::parse(other), None, "{other}");
        }
        assert_eq!(
            span.bounds(),
            "FOR VALUES FROM ('01a3185c-5000-0000-0000-000000000000') \
             TO ('01a3185c-53e8-0000-0000-000000000000')"
        );
    }

    #[test]
    fn partitions_follow_each_other_and_one_is_ahead() {
        assert_eq!(make(&[], at(0), false), None);
        let first = make(&[], at(1), true).unwrap();
        assert_eq!(first, span(6_000, 126_000));
        let mut spans = vec![first];
        assert_eq!(make(&spans, at(5_999), true), None);
        let second = make(&spans, at(6_000), true).unwrap();
        assert_eq!(second, span(126_000, 246_000));
        spans.push(second);
        assert_eq!(make(&spans, at(7_000), true), None);
        // One that is far ahead is in nobody's way.
        let far = span(500_000_000, 600_000_000);
        spans.push(far);
        assert_eq!(make(&spans, at(7_000), true), None);
        assert_eq!(
            make(&spans, at(499_300_000), true).unwrap(),
            span(499_305_000, 500_000_000)
        );
        spans.pop();
        // After a pause the next one begins anew.
        assert_eq!(
            make(&spans, at(300_000), true).unwrap(),
            span(305_000, 425_000)
        );
    }

    #[test]
    fn they_are_few_however_long_jobs_are_kept() {
        for (minutes, most) in [(1, 4), (30, 11), (24 * 60, 13), (7 * 24 * 60, 14)] {
            let (mut spans, mut seen) = (Vec::<Span>::new(), 0);
            for minute in 0..4 * minutes + 60 {
                let now = at(minute * MINUTE);
                spans.extend(make(&spans, now, true));
                let kept = |span: &Span| span.to + minutes * MINUTE + LATE_MS > now.as_ms();
                spans.retain(kept);
                seen = seen.max(spans.len());
                if minute > 3 * minutes + 30 {
                    let gone = now.as_ms() - spans.first().unwrap().from;
                    assert!(
                        gone < 4 * minutes * MINUTE + 6 * MINUTE,
                        "{minutes}: {gone}"
                    );
                }
            }
            assert!(
                seen <= most,
                "{seen} where jobs are kept for {minutes} minutes"
            );
        }
    }

    #[test]
    fn what_is_over_can_go_a_little_later() {
        let spans = [span(0, 1_000), span(1_000, 2_000)];
        assert_eq!(past(&spans, at(10_999)), []);
        assert_eq!(past(&spans, at(11_000)), [spans[0]]);
        assert_eq!(past(&spans, at(12_000)), spans);
    }

    #[test]
    fn jobs_count_for_an_hour_and_not_for_long() {
        let mut pace = Pace::default();
        let hour = |n: i64| Timestamp::from_ms(START / HOUR_MS * HOUR_MS + n * HOUR_MS);
        for _ in 0..BUSY - 1 {
            pace.add(hour(0));
        }
        assert!(!pace.is_busy(hour(0)));
        pace.add(hour(1));
        assert!(pace.is_busy(hour(1)));
        assert!(!pace.is_busy(hour(2)));
        for _ in 1..BUSY {
            pace.add(hour(1));
        }
        assert!(pace.is_busy(hour(2)));
        assert!(!pace.is_busy(hour(3)));
    }
}
