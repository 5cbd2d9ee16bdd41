//! What workers work on: what they were given, what they report, what they have to let go of.

use std::collections::{HashMap, HashSet};

use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::prefetch::Turn;
use lazyfox_core::time::Timestamp;

use super::Fleet;
use super::hands::Named;

/// Workers say with every poll that they work on nothing. To look each time whether that is so would cost as
/// much as the job between two polls, and what is lost is not missed within a second.
const COMPARE_EVERY_MS: u64 = 1_000;

/// What follows from a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Jobs that have begun, which is to be written.
    pub begun: Vec<JobId>,
    /// Jobs that the worker should work on and has lost.
    pub lost: Vec<JobId>,
}

impl Fleet {
    /// A worker got a job; `waits` behind others inside it.
    pub fn took(&self, worker: &WorkerId, job: JobId, waits: bool, now: Timestamp) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            entry.let_go.remove(&job);
            entry.hands.given(job, waits, now);
        }
    }

    /// Who works on which of these jobs, as far as they were given out here.
    #[must_use]
    pub fn with_any(&self, jobs: &HashSet<JobId>) -> HashMap<JobId, WorkerId> {
        let state = self.state();
        let hands = state.workers.iter().flat_map(|(worker, entry)| {
            let here = entry.hands.all().filter(|job| jobs.contains(job));
            here.map(move |job| (job, worker.clone()))
        });
        hands.collect()
    }

    /// A worker speaks of a job before its end. True when it waited inside the worker until now.
    pub fn begins(&self, worker: &WorkerId, job: JobId, now: Timestamp) -> bool {
        let mut state = self.state();
        let Some(entry) = state.workers.get_mut(worker) else {
            return false;
        };
        let begins = entry.hands.begins(job, now);
        entry.clear_the_way(now);
        begins
    }

    /// A job never reached the worker.
    pub fn handed_back(&self, worker: &WorkerId, job: JobId) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            entry.hands.forget(job);
        }
    }

    /// A worker's hold on a job ended: its idle time counts anew.
    pub fn freed(&self, worker: &WorkerId, now: Timestamp) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            entry.free_since = now;
        }
    }

    /// A worker may still work on a job that it no longer holds. False when it cannot have begun.
    pub fn must_let_go(&self, worker: &WorkerId, job: JobId, now: Timestamp) -> bool {
        let mut state = self.state();
        let Some(entry) = state.workers.get_mut(worker) else {
            return false;
        };
        let tell_at = entry.hands.taken_away(job, now);
        if let Some(tell_at) = tell_at {
            entry.must_let_go(job, tell_at, now);
        }
        tell_at.is_some()
    }

    /// A worker reported a job: it does not work on it any more. Gives since when it did, where
    /// that is known, and how it had come to it.
    pub fn reported(
        &self,
        worker: &WorkerId,
        job: JobId,
        now: Timestamp,
    ) -> Option<(Timestamp, Turn)> {
        let mut state = self.state();
        let entry = state.workers.get_mut(worker)?;
        let turn = entry.hands.turn(job);
        let began_at = entry.hands.reported(job, now);
        if entry.let_go.remove(&job).is_some() {
            entry.free_since = now;
        }
        entry.clear_the_way(now);
        let able = entry.able();
        if !(able.keeps_to_its_slots && able.starts_beside_running) {
            // It may take another one now.
            entry.calls.send_replace(());
        }
        began_at.map(|began_at| (began_at, turn))
    }

    /// A worker that can be believed says what it works on.
    pub fn heard(&self, worker: &WorkerId, named: &Named<'_>, now: Timestamp) -> Heard {
        let mut state = self.state();
        let Some(entry) = state.workers.get_mut(worker) else {
            return Heard {
                begun: named.unwritten.to_vec(),
                lost: Vec::new(),
            };
        };
        entry.let_go_but_for(named.all, now);
        let lost = entry.hands.left_out(named.all, now);
        let begun = entry.hands.run(named, entry.slots, now);
        entry.clear_the_way(now);
        entry.names_unheld(named.not_held, now);
        Heard { begun, lost }
    }

    /// A worker that can be believed says that it works on nothing. True when it is time to see whether it
    /// holds anything all the same.
    pub fn works_on_nothing(&self, worker: &WorkerId, now: Timestamp) -> bool {
        let mut state = self.state();
        let Some(entry) = state.workers.get_mut(worker) else {
            return true;
        };
        entry.let_go_but_for(&[], now);
        entry.hands.empty_but_for_new(now);
        let is_time =
            now.ms_since(entry.compared_at) >= COMPARE_EVERY_MS || now < entry.compared_at;
        if is_time {
            entry.compared_at = now;
        }
        is_time
    }

    /// Jobs whose start has to be written down now, with their workers and endpoints; each is said once.
    #[must_use]
    pub fn begun(&self, now: Timestamp) -> Vec<(EndpointId, WorkerId, JobId)> {
        let mut begun = Vec::new();
        for (worker, entry) in &mut self.state().workers {
            let jobs = entry.hands.unwritten(now).into_iter();
            begun.extend(jobs.map(|job| (entry.endpoint.clone(), worker.clone(), job)));
        }
        begun
    }

    /// The jobs that a worker has to stop and was not told of, and when there will be others.
    #[must_use]
    pub fn tell_to_stop(&self, worker: &WorkerId, now: Timestamp) -> (Vec<JobId>, Timestamp) {
        let mut state = self.state();
        let Some(entry) = state.workers.get_mut(worker) else {
            return (Vec::new(), Timestamp::NEVER);
        };
        let mut jobs = Vec::new();
        let mut again_at = Timestamp::NEVER;
        for (&job, it) in entry.let_go.iter_mut().filter(|(_, it)| !it.told) {
            if it.tell_at <= now {
                it.told = true;
                jobs.push(job);
            } else {
                again_at = again_at.min(it.tell_at);
            }
        }
        jobs.sort_unstable();
        (jobs, again_at)
    }

    /// Of a worker that has ended: the jobs that it is known to have run, and whether it ended by itself.
    #[must_use]
    pub fn last_of(&self, worker: &WorkerId) -> (Vec<JobId>, bool) {
        let state = self.state();
        let Some(entry) = state.workers.get(worker) else {
            return (Vec::new(), true);
        };
        let killed = entry.retired.as_ref().is_some_and(|it| it.killed);
        (entry.hands.running(), !killed)
    }
}
