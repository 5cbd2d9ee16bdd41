//! How many short jobs a worker is given ahead of time.
//!
//! Workers of the public SDK's versions 1.7.6 to 1.12 ask for jobs once a second at most, and only
//! when they have a free slot. However short its jobs are, a worker with one slot then does one a
//! second. Those versions run a longer list than they asked for one job after the other, so they are
//! given as many as fit into somewhat more than a second.

use crate::limits;

/// What a slot is given at once takes about so long, in microseconds. When the last job of a list has
/// begun, the SDK pauses for a second before it asks again: with a list of one second it would stand
/// idle for half of the time. With longer lists the jobs at their end wait for longer behind one that
/// turns out slow, and cannot be had back.
const FILL_US: f64 = 1_500_000.0;

/// Most jobs that go ahead in one answer.
const AT_ONCE: usize = limits::PREFETCH_MAX as usize;

/// How many observations count: what is older than so many has faded.
const MEMORY: u32 = 64;

/// Until its pace is known well, a worker is given this many times the jobs that were seen.
const GROWTH: usize = 8;

/// How long the jobs of an endpoint took lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// From the hand-out to the report, of jobs that were asked for: the way there is in it.
    first: Estimate,
    /// Of jobs that were there already when the one before them ended.
    next: Estimate,
}

/// Which jobs were observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// One that the worker asked for.
    First,
    /// One that waited inside the worker.
    Next,
}

/// A mean and how far single values are from it, the last ones counting most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Estimate {
    seen: u32,
    mean_us: f64,
    deviation_us: f64,
}

impl Estimate {
    fn observe(&mut self, us: u64) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "2^53 microseconds are 285 years"
        )]
        let us = us as f64;
        self.seen = self.seen.saturating_add(1);
        if self.seen == 1 {
            (self.mean_us, self.deviation_us) = (us, us / 2.0);
            return;
        }
        let weight = 1.0 / f64::from(self.seen.min(MEMORY));
        let off = us - self.mean_us;
        self.mean_us += weight * off;
        self.deviation_us += weight * (off.abs() - self.deviation_us);
    }
}

impl Pace {
    /// A job took so long, in microseconds.
    pub fn observe(&mut self, turn: Turn, us: u64) {
        match turn {
            Turn::First => self.first.observe(us),
            Turn::Next => self.next.observe(us),
        }
    }

    /// How long a job takes on average, in milliseconds; `None` before the first.
    #[must_use]
    pub fn mean_ms(&self) -> Option<u64> {
        let known = if self.next.seen > 0 {
            self.next
        } else {
            self.first
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of durations, which a cast bounds"
        )]
        let ms = (known.mean_us / 1000.0).round() as u64;
        (known.seen > 0).then_some(ms)
    }

    /// How many jobs are done in the time of a list after the first one: so many that a list of
    /// them takes no longer with some certainty. The sum of n jobs strays by the deviation times the
    /// root of n.
    fn behind_one(&self) -> usize {
        // What was not seen yet is not shorter than what was.
        let next = if self.next.seen > 0 {
            self.next
        } else {
            self.first
        };
        let room = FILL_US - self.first.mean_us;
        if self.first.seen == 0 || room <= 0.0 {
            return 0;
        }
        // Zero-length jobs still have to be sent and reported.
        let mean = next.mean_us.max(FILL_US / f64::from(limits::PREFETCH_MAX));
        let stray = 2.0 * next.deviation_us;
        let root = ((stray * stray + 4.0 * mean * room).sqrt() - stray) / (2.0 * mean);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and PREFETCH_MAX"
        )]
        let jobs = (root * root) as usize;
        let seen = usize::try_from(self.first.seen.saturating_add(self.next.seen));
        let known = GROWTH.saturating_mul(seen.unwrap_or(usize::MAX));
        jobs.min(known)
    }
}

/// How many jobs a worker that asks is given beyond the `free` slots that it asks for. `most` bounds
/// the jobs for each slot.
#[must_use]
pub fn extra(pace: &Pace, free: usize, most: usize) -> usize {
    let per_slot = pace.behind_one().min(most.saturating_sub(1));
    // One commit writes all of them, and nobody else gets them.
    free.saturating_mul(per_slot).min(AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = limits::PREFETCH_MAX as usize;

    /// Jobs that take so long, of which each first one is on its way for so long beside.
    fn pace(way_us: u64, us: impl IntoIterator<Item = u64>) -> Pace {
        let mut pace = Pace::default();
        for us in us {
            pace.observe(Turn::First, way_us + us);
            pace.observe(Turn::Next, us);
        }
        pace
    }

    #[test]
    fn nothing_is_given_ahead_before_a_job_was_seen() {
        assert_eq!(extra(&Pace::default(), 1, MOST), 0);
        assert_eq!(Pace::default().mean_ms(), None);
    }

    #[test]
    fn the_first_observations_open_it_step_by_step() {
        let mut pace = Pace::default();
        pace.observe(Turn::First, 1000);
        assert_eq!(extra(&pace, 1, MOST), 8);
        (0..8).for_each(|_| pace.observe(Turn::Next, 1000));
        assert_eq!(extra(&pace, 1, MOST), 72);
    }

    #[test]
    fn a_long_way_to_the_worker_is_no_reason_once_jobs_waited_there() {
        let mut pace = Pace::default();
        (0..20).for_each(|_| pace.observe(Turn::First, 100_000));
        assert_eq!(extra(&pace, 1, MOST), 13);
        (0..300).for_each(|_| pace.observe(Turn::Next, 1000));
        let jobs = extra(&pace, 1, MOST);
        assert!((1250..=1400).contains(&jobs), "{jobs}");
    }

    #[test]
    fn steady_short_jobs_fill_the_time() {
        let jobs = extra(&pace(100_000, [1000; 500]), 1, MOST);
        assert!((1350..=1400).contains(&jobs), "{jobs}");
        // What is measured in whole milliseconds comes as 0, 1 and 2.
        let rounded = [0, 1000, 2000].into_iter().cycle().take(900);
        let jobs = extra(&pace(100_000, rounded), 1, MOST);
        assert!((1300..=1400).contains(&jobs), "{jobs}");
    }

    #[test]
    fn four_slots_are_given_four_times_as_many() {
        let pace = pace(0, [10_000; 300]);
        assert_eq!(extra(&pace, 4, MOST), 4 * extra(&pace, 1, MOST));
    }

    #[test]
    fn one_answer_has_an_end() {
        assert_eq!(extra(&pace(0, [1000; 500]), 100, MOST), AT_ONCE);
    }

    #[test]
    fn jobs_of_a_second_and_more_are_not_given_ahead() {
        assert_eq!(extra(&pace(0, [800_000; 100]), 1, MOST), 0);
        assert_eq!(extra(&pace(0, [60_000_000; 3]), 4, MOST), 0);
        assert_eq!(extra(&pace(1_550_000, [1_000; 100]), 1, MOST), 0);
    }

    #[test]
    fn one_slow_job_closes_it_at_once_and_short_ones_open_it_again() {
        let mut pace = pace(0, [1000; 500]);
        pace.observe(Turn::Next, 30_000_000);
        assert!(extra(&pace, 1, MOST) <= 2, "{pace:?}");
        (0..1000).for_each(|_| pace.observe(Turn::Next, 1000));
        assert!(extra(&pace, 1, MOST) > 700, "{pace:?}");
    }

    #[test]
    fn irregular_jobs_get_less_than_their_mean_would_allow() {
        let regular = extra(&pace(0, [20_000; 600]), 1, MOST);
        let irregular = [1_000, 1_000, 1_000, 77_000].into_iter().cycle().take(600);
        assert!(extra(&pace(0, irregular), 1, MOST) < regular);
    }

    #[test]
    fn the_configured_most_holds_and_zero_length_jobs_are_bounded() {
        assert_eq!(extra(&pace(0, [1000; 500]), 1, 10), 9);
        assert_eq!(extra(&pace(0, [1000; 500]), 1, 1), 0);
        assert!(extra(&pace(0, [0; 5000]), 1, MOST) < MOST);
    }

    #[test]
    fn it_never_panics_whatever_is_observed() {
        let mut pace = Pace::default();
        for us in [0, u64::MAX, 1, u64::MAX, 0, 0] {
            for turn in [Turn::First, Turn::Next] {
                pace.observe(turn, us);
                let _ = extra(&pace, usize::MAX, usize::MAX);
                let _ = pace.mean_ms();
            }
        }
    }
}
