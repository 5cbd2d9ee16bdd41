//! What a worker works on: the jobs that run, and those that wait inside it.
//!
//! A worker that was given more jobs than it has slots runs them in the order in which it got them, and does
//! not say when it starts one. The end of one is the start of the next.

use std::collections::VecDeque;

use lazyfox_core::id::JobId;
use lazyfox_core::prefetch::Turn;
use lazyfox_core::time::Timestamp;

/// What was handed out this long ago has reached the worker if it ever will.
const ON_ITS_WAY_MS: u64 = 5_000;

/// A job that runs this long has its start written down: its execution timeout counts from then. Shorter ones
/// are reported before anybody could ask.
const WORTH_WRITING_MS: u64 = 1_000;

/// In how many heartbeats one after the other a job must be left out to be lost. The first may have been
/// under way when the job came.
const LEFT_OUT: u32 = 2;

#[derive(Default)]
pub(super) struct Hands {
    running: Vec<Running>,
    /// In the order in which the worker will run them.
    waiting: VecDeque<Waiting>,
}

struct Running {
    job: JobId,
    given_at: Timestamp,
    began_at: Timestamp,
    /// Whether the store knows that it runs.
    written: bool,
    /// Heartbeats since that did not name it.
    left_out: u32,
}

struct Waiting {
    job: JobId,
    given_at: Timestamp,
    /// It was taken from the worker while it waited. It is run all the same, for nothing.
    void: bool,
}

impl Hands {
    /// A job was handed out; `waits` behind others inside the worker.
    pub(super) fn given(&mut self, job: JobId, waits: bool, now: Timestamp) {
        self.forget(job);
        if waits {
            self.waiting.push_back(Waiting {
                job,
                given_at: now,
                void: false,
            });
        } else {
            self.running.push(Running {
                job,
                given_at: now,
                began_at: now,
                written: true,
                left_out: 0,
            });
        }
    }

    /// Whether a job that runs was asked for, or waited inside the worker.
    pub(super) fn turn(&self, job: JobId) -> Turn {
        let running = self.running.iter().find(|it| it.job == job);
        match running {
            Some(it) if it.began_at > it.given_at => Turn::Next,
            Some(_) | None => Turn::First,
        }
    }

    /// The worker reported a job. Gives when it began; the next one begins now. Gives that one too when it
    /// was taken from the worker while it waited: now it is in the way.
    pub(super) fn reported(
        &mut self,
        job: JobId,
        now: Timestamp,
    ) -> (Option<Timestamp>, Option<JobId>) {
        let began_at = if let Some(at) = self.running.iter().position(|it| it.job == job) {
            Some(self.running.swap_remove(at).began_at)
        } else if let Some(at) = self.waiting.iter().position(|it| it.job == job) {
            // It was not run in its turn; when it began is not known.
            self.waiting.remove(at);
            return (None, None);
        } else {
            return (None, None);
        };
        (began_at, self.begin_next(now))
    }

    fn begin_next(&mut self, now: Timestamp) -> Option<JobId> {
        let next = self.waiting.pop_front()?;
        self.running.push(Running {
            job: next.job,
            given_at: next.given_at,
            began_at: now,
            written: false,
            left_out: 0,
        });
        next.void.then_some(next.job)
    }

    /// The worker speaks of a job that waited inside it: it runs. False when it did not wait.
    pub(super) fn begins(&mut self, job: JobId, now: Timestamp) -> bool {
        let Some(at) = self.waiting.iter().position(|it| it.job == job) else {
            return false;
        };
        let waiting = self.waiting.remove(at);
        self.running.extend(waiting.map(|it| Running {
            job: it.job,
            given_at: it.given_at,
            began_at: now,
            written: true,
            left_out: 0,
        }));
        true
    }

    /// A job was taken from the worker. True when it runs: the worker has to let go of it.
    pub(super) fn taken_away(&mut self, job: JobId) -> bool {
        for waiting in &mut self.waiting {
            if waiting.job == job {
                waiting.void = true;
                return false;
            }
        }
        true
    }

    /// The job never reached the worker, or is not worked on any more.
    pub(super) fn forget(&mut self, job: JobId) {
        self.running.retain(|it| it.job != job);
        self.waiting.retain(|it| it.job != job);
    }

    /// A heartbeat names jobs of which it is not written that they run. Of those that wait, the SDK names as
    /// many as it has slots, beside those that run; so only the first `free` of them begin. Gives these.
    pub(super) fn begin(
        &mut self,
        mut named: Vec<JobId>,
        free: usize,
        now: Timestamp,
    ) -> Vec<JobId> {
        let turn = |job: &JobId| {
            let runs = self.running.iter().any(|it| it.job == *job);
            let place = self.waiting.iter().position(|it| it.job == *job);
            (!runs, place.is_none(), place)
        };
        // What an earlier run of the server handed out is not known here, and stays in its order.
        named.sort_by_key(turn);
        named.truncate(free);
        for running in &mut self.running {
            running.written |= named.contains(&running.job);
        }
        for &job in &named {
            self.begins(job, now);
        }
        named
    }

    /// Whether a job was taken from the worker that waits inside it all the same.
    pub(super) fn is_void(&self, job: JobId) -> bool {
        self.waiting.iter().any(|it| it.void && it.job == job)
    }

    /// A heartbeat that can be believed names what runs. Gives the jobs that it left out too often.
    pub(super) fn named(&mut self, named: &[JobId], now: Timestamp) -> Vec<JobId> {
        let mut lost = Vec::new();
        for running in &mut self.running {
            if named.contains(&running.job) {
                running.left_out = 0;
            } else if now.ms_since(running.given_at) >= ON_ITS_WAY_MS {
                running.left_out += 1;
                if running.left_out >= LEFT_OUT {
                    lost.push(running.job);
                }
            }
        }
        lost
    }

    /// A poll that can be believed says that nothing runs.
    pub(super) fn empty_but_for_new(&mut self, now: Timestamp) {
        let old = |given_at: Timestamp| now.ms_since(given_at) >= ON_ITS_WAY_MS;
        self.running.retain(|it| !old(it.given_at));
        self.waiting.retain(|it| !old(it.given_at));
    }

    /// Jobs whose start has to be written down now; each is said once.
    pub(super) fn unwritten(&mut self, now: Timestamp) -> Vec<JobId> {
        let due = |it: &&mut Running| !it.written && now.ms_since(it.began_at) >= WORTH_WRITING_MS;
        let running = self.running.iter_mut().filter(due);
        running
            .map(|it| {
                it.written = true;
                it.job
            })
            .collect()
    }

    /// The jobs that are known to run, the longest first.
    pub(super) fn running(&self) -> Vec<JobId> {
        let mut running: Vec<&Running> = self.running.iter().collect();
        running.sort_by_key(|it| (it.began_at, it.job));
        running.into_iter().map(|it| it.job).collect()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn len(&self) -> usize {
        self.running.len() + self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    fn job(n: u8) -> JobId {
        JobId::new(at(0), [n; 16], false)
    }

    /// One runs and two wait, since 1 s.
    fn hands() -> Hands {
        let mut hands = Hands::default();
        hands.given(job(1), false, at(1_000));
        hands.given(job(2), true, at(1_000));
        hands.given(job(3), true, at(1_000));
        hands
    }

    #[test]
    fn the_end_of_one_is_the_start_of_the_next() {
        let mut hands = hands();
        assert_eq!(hands.reported(job(1), at(1_300)), (Some(at(1_000)), None));
        assert_eq!(hands.running(), [job(2)]);
        assert_eq!(hands.reported(job(2), at(1_310)), (Some(at(1_300)), None));
        assert_eq!(hands.reported(job(3), at(1_400)), (Some(at(1_310)), None));
        assert_eq!(hands.len(), 0);
    }

    #[test]
    fn what_is_reported_out_of_turn_starts_nothing() {
        let mut hands = hands();
        assert_eq!(hands.reported(job(3), at(1_300)), (None, None));
        assert_eq!(hands.reported(job(9), at(1_300)), (None, None));
        assert_eq!((hands.running(), hands.waiting()), (vec![job(1)], 1));
    }

    #[test]
    fn what_is_taken_away_while_it_waits_is_in_the_way_when_its_turn_comes() {
        let mut hands = hands();
        assert!(hands.taken_away(job(1)));
        assert!(!hands.taken_away(job(2)));
        assert_eq!(
            hands.reported(job(1), at(1_300)),
            (Some(at(1_000)), Some(job(2)))
        );
        assert!(hands.taken_away(job(2)));
    }

    #[test]
    fn only_starts_of_longer_jobs_are_written_and_once() {
        let mut hands = hands();
        hands.reported(job(1), at(1_300));
        assert_eq!(hands.unwritten(at(2_299)), []);
        assert_eq!(hands.unwritten(at(2_300)), [job(2)]);
        assert_eq!(hands.unwritten(at(9_000)), []);
    }

    #[test]
    fn a_job_that_heartbeats_leave_out_twice_is_lost_and_waiting_ones_are_not() {
        let mut hands = hands();
        assert_eq!(hands.named(&[], at(5_999)), []);
        assert_eq!(hands.named(&[], at(6_000)), []);
        assert_eq!(hands.named(&[job(1)], at(8_000)), []);
        assert_eq!(hands.named(&[], at(9_000)), []);
        assert_eq!(hands.named(&[], at(10_000)), [job(1)]);
    }

    #[test]
    fn of_the_waiting_jobs_that_a_heartbeat_names_only_as_many_begin_as_can_run() {
        let mut hands = hands();
        // One slot, which is taken by what is written to run.
        assert_eq!(hands.begin(vec![job(2)], 0, at(3_000)), []);
        assert_eq!((hands.running(), hands.waiting()), (vec![job(1)], 2));
        // Its report was lost.
        let begun = hands.begin(vec![job(3), job(2)], 1, at(3_000));
        assert_eq!(begun, [job(2)]);
        assert_eq!(
            (hands.running(), hands.waiting()),
            (vec![job(1), job(2)], 1)
        );
        assert_eq!(hands.reported(job(2), at(3_500)), (Some(at(3_000)), None));
    }

    #[test]
    fn what_runs_begins_before_what_waits_and_what_is_not_known() {
        let mut hands = hands();
        hands.reported(job(1), at(1_300));
        let named = || vec![job(9), job(3), job(2)];
        assert_eq!(hands.begin(named(), 1, at(1_400)), [job(2)]);
        assert_eq!(hands.unwritten(at(9_000)), []);
        let begun = hands.begin(named(), 3, at(1_400));
        assert_eq!(begun, [job(2), job(3), job(9)]);
    }

    #[test]
    fn a_poll_that_disowns_all_does_not_mean_what_is_on_its_way() {
        let mut hands = hands();
        hands.given(job(4), false, at(5_000));
        hands.empty_but_for_new(at(6_000));
        assert_eq!((hands.running(), hands.waiting()), (vec![job(4)], 0));
    }
}
