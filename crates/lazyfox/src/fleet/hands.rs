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

/// The SDK makes the task that it can stop up to a tenth of a second after it got a job, or after it has
/// reported the one before. Told earlier it knows no such job, and forgets that it was told.
const TURN_MS: u64 = 500;

/// In how many heartbeats one after the other a job must be left out to be lost. The first may have been
/// under way when the job came.
const LEFT_OUT: u32 = 2;

#[derive(Default)]
pub(super) struct Hands {
    running: Vec<Running>,
    /// In the order in which the worker will run them.
    waiting: VecDeque<Waiting>,
    /// See [`Hands::in_the_way`].
    in_the_way: Vec<JobId>,
}

/// What a heartbeat that can be believed names.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// All of it.
    pub all: &'a [JobId],
    /// Of these, what the worker does not hold.
    pub not_held: &'a [JobId],
    /// Of these, what it holds, and of which it is not written that it runs: in order of submission.
    pub unwritten: &'a [JobId],
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

    /// The worker reported a job. Gives when it began; the next one begins now.
    pub(super) fn reported(&mut self, job: JobId, now: Timestamp) -> Option<Timestamp> {
        if let Some(at) = self.running.iter().position(|it| it.job == job) {
            let began_at = self.running.swap_remove(at).began_at;
            self.begin_next(now);
            return Some(began_at);
        }
        // It was run in the place of one that is gone. When it began is not known, and which one has the
        // place now will be said by a heartbeat: better than to take one that waits for one that runs.
        self.waiting.retain(|it| it.job != job);
        None
    }

    fn begin_next(&mut self, now: Timestamp) {
        if let Some(next) = self.waiting.pop_front() {
            self.start(next, false, now);
        }
    }

    fn start(&mut self, next: Waiting, written: bool, now: Timestamp) {
        self.running.push(Running {
            job: next.job,
            given_at: next.given_at,
            began_at: now,
            written,
            left_out: 0,
        });
        if next.void {
            self.in_the_way.push(next.job);
        }
    }

    /// The worker speaks of a job that waited inside it: it runs. False when it did not wait.
    pub(super) fn begins(&mut self, job: JobId, now: Timestamp) -> bool {
        let Some(at) = self.waiting.iter().position(|it| it.job == job) else {
            return false;
        };
        if let Some(next) = self.waiting.remove(at) {
            self.start(next, true, now);
        }
        true
    }

    /// A job was taken from the worker. When it runs, the worker has to let go of it: gives from when on it
    /// can be told so.
    pub(super) fn taken_away(&mut self, job: JobId, now: Timestamp) -> Option<Timestamp> {
        for waiting in &mut self.waiting {
            if waiting.job == job {
                waiting.void = true;
                return None;
            }
        }
        let running = self.running.iter().find(|it| it.job == job);
        // What an earlier run of the server handed out is not known here, and runs for long.
        Some(running.map_or(now, |it| it.began_at.plus_ms(TURN_MS).max(now)))
    }

    /// The job never reached the worker, or is not worked on any more.
    pub(super) fn forget(&mut self, job: JobId) {
        self.running.retain(|it| it.job != job);
        self.waiting.retain(|it| it.job != job);
    }

    /// A heartbeat that can be believed names these. Of those that wait, the SDK names as many as it has
    /// slots, beside those that run; so only the first `slots` of all run. Gives those of which that is to
    /// be written.
    pub(super) fn run(&mut self, named: &Named<'_>, slots: usize, now: Timestamp) -> Vec<JobId> {
        let is_new = |job: &JobId| named.unwritten.contains(job);
        // What an earlier run of the server handed out is not known here, and stays in its order.
        let others = named.all.iter().filter(|job| !is_new(job));
        let mut first: Vec<JobId> = others.chain(named.unwritten).copied().collect();
        first.sort_by_key(|job| {
            let is_held = !named.not_held.contains(job);
            let runs = self.running.iter().any(|it| it.job == *job) || (is_held && !is_new(job));
            let place = self.waiting.iter().position(|it| it.job == *job);
            (!runs, place.is_none(), place, !is_held)
        });
        first.truncate(slots);
        for running in &mut self.running {
            running.written |= first.contains(&running.job);
        }
        for &job in &first {
            self.begins(job, now);
        }
        first.retain(is_new);
        first
    }

    /// Whether a job was taken from the worker that waits inside it all the same.
    pub(super) fn is_void(&self, job: JobId) -> bool {
        self.waiting.iter().any(|it| it.void && it.job == job)
    }

    /// A heartbeat that can be believed names what runs. Gives the jobs that it left out too often: they
    /// are gone, and others have their places.
    pub(super) fn left_out(&mut self, named: &[JobId], now: Timestamp) -> Vec<JobId> {
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
        for &job in &lost {
            self.gone(job, now);
        }
        lost
    }

    /// The worker does not work on a job any more and did not report it: what it ran instead is not known,
    /// but that it is one job.
    pub(super) fn gone(&mut self, job: JobId, now: Timestamp) {
        if let Some(at) = self.running.iter().position(|it| it.job == job) {
            self.running.swap_remove(at);
            self.begin_next(now);
        }
    }

    /// Jobs that were taken from the worker while they waited, and that it runs now; each is said once.
    pub(super) fn in_the_way(&mut self) -> Vec<JobId> {
        std::mem::take(&mut self.in_the_way)
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

    /// The jobs that run or wait here.
    pub(super) fn all(&self) -> impl Iterator<Item = JobId> + '_ {
        let waiting = self.waiting.iter().filter(|it| !it.void);
        let running = self.running.iter().map(|it| it.job);
        running.chain(waiting.map(|it| it.job))
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
        assert_eq!(hands.reported(job(1), at(1_300)), Some(at(1_000)));
        assert_eq!(hands.running(), [job(2)]);
        assert_eq!(hands.reported(job(2), at(1_310)), Some(at(1_300)));
        assert_eq!(hands.reported(job(3), at(1_400)), Some(at(1_310)));
        assert_eq!(hands.len(), 0);
    }

    #[test]
    fn what_is_reported_out_of_turn_starts_nothing() {
        let mut hands = hands();
        assert_eq!(hands.reported(job(3), at(1_300)), None);
        assert_eq!(hands.reported(job(9), at(1_300)), None);
        assert_eq!((hands.running(), hands.waiting()), (vec![job(1)], 1));
    }

    #[test]
    fn what_is_taken_away_while_it_waits_is_in_the_way_when_its_turn_comes() {
        let mut hands = hands();
        assert_eq!(hands.taken_away(job(2), at(1_200)), None);
        assert_eq!(hands.in_the_way(), []);
        assert_eq!(hands.reported(job(1), at(1_300)), Some(at(1_000)));
        assert_eq!(
            (hands.in_the_way(), hands.in_the_way()),
            (vec![job(2)], vec![])
        );
        let told_from = |hands: &mut Hands, now| hands.taken_away(job(2), at(now));
        assert_eq!(told_from(&mut hands, 1_300), Some(at(1_800)));
        assert_eq!(told_from(&mut hands, 2_000), Some(at(2_000)));
    }

    #[test]
    fn a_worker_is_not_told_to_stop_what_it_may_not_have_begun_yet() {
        let mut hands = hands();
        assert_eq!(hands.taken_away(job(1), at(1_001)), Some(at(1_500)));
        assert_eq!(hands.taken_away(job(1), at(3_000)), Some(at(3_000)));
        assert_eq!(hands.taken_away(job(9), at(1_001)), Some(at(1_001)));
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
        assert_eq!(hands.left_out(&[], at(5_999)), []);
        assert_eq!(hands.left_out(&[], at(6_000)), []);
        assert_eq!(hands.left_out(&[job(1)], at(8_000)), []);
        assert_eq!(hands.left_out(&[], at(9_000)), []);
        assert_eq!(hands.left_out(&[], at(10_000)), [job(1)]);
        // Said once, and the next one has its place.
        assert_eq!(hands.running(), [job(2)]);
        assert_eq!(hands.left_out(&[job(2)], at(11_000)), []);
    }

    /// A heartbeat that names these; the store knows of `written` that they run, and holds no others than
    /// the first nine.
    fn run(hands: &mut Hands, named: &[u8], written: &[u8], slots: usize) -> Vec<JobId> {
        let jobs = |all: Vec<u8>| all.into_iter().map(job).collect::<Vec<_>>();
        let all = jobs(named.to_vec());
        let not_held = jobs(named.iter().copied().filter(|n| *n > 9).collect());
        let unwritten = named
            .iter()
            .copied()
            .filter(|n| *n <= 9 && !written.contains(n));
        let unwritten = jobs(unwritten.collect());
        let named = Named {
            all: &all,
            not_held: &not_held,
            unwritten: &unwritten,
        };
        hands.run(&named, slots, at(3_000))
    }

    #[test]
    fn of_the_waiting_jobs_that_a_heartbeat_names_only_as_many_begin_as_can_run() {
        let mut hands = hands();
        // One slot, which is taken by what is written to run.
        assert_eq!(run(&mut hands, &[2, 1], &[1], 1), []);
        assert_eq!((hands.running(), hands.waiting()), (vec![job(1)], 2));
        // Its report was lost.
        assert_eq!(run(&mut hands, &[3, 2], &[1], 1), [job(2)]);
        assert_eq!(
            (hands.running(), hands.waiting()),
            (vec![job(1), job(2)], 1)
        );
        assert_eq!(hands.reported(job(2), at(3_500)), Some(at(3_000)));
    }

    #[test]
    fn what_runs_comes_before_what_waits_and_that_before_what_is_not_known() {
        let mut hands = hands();
        hands.reported(job(1), at(1_300));
        let named = [11, 9, 8, 3, 2];
        assert_eq!(run(&mut hands, &named, &[8], 2), [job(2)]);
        assert_eq!(hands.unwritten(at(9_000)), []);
        let begun = [job(2), job(3), job(9)];
        assert_eq!(run(&mut hands, &named, &[8], 4), begun);
    }

    #[test]
    fn a_job_that_was_taken_away_is_in_the_way_however_its_turn_came() {
        let mut hands = hands();
        hands.taken_away(job(3), at(1_200));
        // Nobody reports the first: it was stopped.
        hands.reported(job(2), at(1_300));
        assert_eq!(hands.in_the_way(), []);
        let mut other = self::hands();
        other.taken_away(job(2), at(1_200));
        other.gone(job(1), at(2_000));
        assert_eq!(other.in_the_way(), [job(2)]);
        assert_eq!(run(&mut hands, &[3], &[], 1), [job(3)]);
        assert_eq!(hands.in_the_way(), [job(3)]);
    }

    #[test]
    fn a_poll_that_disowns_all_does_not_mean_what_is_on_its_way() {
        let mut hands = hands();
        hands.given(job(4), false, at(5_000));
        hands.empty_but_for_new(at(6_000));
        assert_eq!((hands.running(), hands.waiting()), (vec![job(4)], 0));
    }
}
