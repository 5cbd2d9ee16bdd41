//! How many short jobs a worker is given ahead of time.
//!
//! Workers of the public SDK's versions 1.7.6 to 1.12 ask for jobs once a second at most, and only when
//! they have a free slot. However short its jobs are, a worker with one slot then does one a second. Those
//! versions run a longer list than they asked for one job after the other, so they are given as many as fit
//! into about a second.

use crate::limits;

/// What a slot is given at once takes about so long, in microseconds. Below the second in which the
/// worker does not ask: a list that takes a little longer would cost a whole further second.
const FILL_US: f64 = 850_000.0;

/// The weight of a new observation, once there are this many.
const MEMORY: u32 = 64;

/// Until its pace is known well, a worker is given this many times the jobs that were seen.
const GROWTH: usize = 8;

/// How long the jobs of an endpoint took lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    seen: u32,
    mean_us: f64,
    deviation_us: f64,
}

impl Pace {
    /// A job took so long.
    pub fn observe(&mut self, us: u64) {
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

    /// How long a job takes on average, in milliseconds; `None` before the first.
    #[must_use]
    pub fn mean_ms(&self) -> Option<u64> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of durations, which a cast bounds"
        )]
        let ms = (self.mean_us / 1000.0).round() as u64;
        (self.seen > 0).then_some(ms)
    }

    /// How many jobs, one after the other, will be done in about a second: so many that a list of them takes
    /// no longer with some certainty. The mean of n jobs strays by the deviation over the root of n.
    fn per_fill(&self) -> usize {
        if self.seen == 0 {
            return 1;
        }
        // Zero-length jobs still have to be sent and reported.
        let mean = self.mean_us.max(FILL_US / f64::from(limits::PREFETCH_MAX));
        let stray = 2.0 * self.deviation_us;
        let root = ((stray * stray + 4.0 * mean * FILL_US).sqrt() - stray) / (2.0 * mean);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and PREFETCH_MAX"
        )]
        let jobs = (root * root) as usize;
        let known = GROWTH.saturating_mul(usize::try_from(self.seen).unwrap_or(usize::MAX));
        jobs.clamp(1, known)
    }
}

/// How many jobs a worker that asks is given beyond the `free` slots that it asks for. `most`
/// bounds the jobs for each slot.
#[must_use]
pub fn extra(pace: &Pace, free: usize, most: usize) -> usize {
    let per_slot = pace.per_fill().min(most).max(1);
    free.saturating_mul(per_slot - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(us: impl IntoIterator<Item = u64>) -> Pace {
        let mut pace = Pace::default();
        us.into_iter().for_each(|us| pace.observe(us));
        pace
    }

    #[test]
    fn nothing_is_given_ahead_before_a_job_was_seen() {
        assert_eq!(extra(&Pace::default(), 1, 2000), 0);
        assert_eq!(Pace::default().mean_ms(), None);
    }

    #[test]
    fn the_first_observations_open_it_step_by_step() {
        assert_eq!(extra(&pace([1000]), 1, 2000), 7);
        assert_eq!(extra(&pace([1000; 8]), 1, 2000), 63);
    }

    #[test]
    fn steady_short_jobs_fill_the_second() {
        let jobs = extra(&pace([1000; 500]), 1, 2000);
        assert!((780..=850).contains(&jobs), "{jobs}");
        // What is measured in whole milliseconds comes as 0, 1 and 2.
        let jobs = extra(
            &pace([0, 1000, 2000].into_iter().cycle().take(900)),
            1,
            2000,
        );
        assert!((750..=850).contains(&jobs), "{jobs}");
    }

    #[test]
    fn four_slots_are_given_four_times_as_many() {
        let pace = pace([10_000; 300]);
        assert_eq!(extra(&pace, 4, 2000), 4 * extra(&pace, 1, 2000));
    }

    #[test]
    fn jobs_of_half_a_second_and_more_are_not_given_ahead() {
        assert_eq!(extra(&pace([500_000; 100]), 1, 2000), 0);
        assert_eq!(extra(&pace([60_000_000; 3]), 4, 2000), 0);
    }

    #[test]
    fn one_slow_job_closes_it_at_once_and_short_ones_open_it_again() {
        let mut pace = pace([1000; 500]);
        pace.observe(30_000_000);
        assert!(extra(&pace, 1, 2000) < 2, "{pace:?}");
        (0..1000).for_each(|_| pace.observe(1000));
        assert!(extra(&pace, 1, 2000) > 700, "{pace:?}");
    }

    #[test]
    fn irregular_jobs_get_less_than_their_mean_would_allow() {
        let regular = extra(&pace([20_000; 600]), 1, 2000);
        let irregular = pace([1_000, 1_000, 1_000, 77_000].into_iter().cycle().take(600));
        assert!(extra(&irregular, 1, 2000) < regular, "{irregular:?}");
    }

    #[test]
    fn the_configured_most_holds_and_zero_length_jobs_are_bounded() {
        assert_eq!(extra(&pace([1000; 500]), 1, 10), 9);
        assert_eq!(extra(&pace([1000; 500]), 1, 1), 0);
        let most = usize::try_from(limits::PREFETCH_MAX).unwrap();
        assert!(extra(&pace([0; 5000]), 1, most) < most);
    }

    #[test]
    fn it_never_panics_whatever_is_observed() {
        let mut pace = Pace::default();
        for us in [0, u64::MAX, 1, u64::MAX, 0, 0] {
            pace.observe(us);
            let _ = extra(&pace, usize::MAX, usize::MAX);
            let _ = pace.mean_ms();
        }
    }
}
