//! What workers work on: what they were given, what they report, what they have to let go of.

use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::prefetch::Turn;
use lazyfox_core::time::Timestamp;

use super::Fleet;

impl Fleet {
    /// A worker got a job; `waits` behind others inside it.
    pub fn took(&self, worker: &WorkerId, job: JobId, waits: bool, now: Timestamp) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            entry.let_go.remove(&job);
            entry.hands.given(job, waits, now);
        }
    }

    /// A worker speaks of a job before its end. True when it waited inside the worker until now.
    pub fn begins(&self, worker: &WorkerId, job: JobId, now: Timestamp) -> bool {
        let mut state = self.state();
        let entry = state.workers.get_mut(worker);
        entry.is_some_and(|entry| entry.hands.begins(job, now))
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
        let runs = entry.hands.taken_away(job);
        if runs {
            entry.must_let_go(job, now);
        }
        runs
    }

    /// A heartbeat that can be believed names jobs that the worker does not hold, at the second time:
    /// it works for nothing, for instance because its job was cancelled while the server was away.
    pub fn names_unheld(&self, worker: &WorkerId, jobs: &[JobId], now: Timestamp) {
        let mut state = self.state();
        let Some(entry) = state.workers.get_mut(worker) else {
            return;
        };
        let seen = std::mem::take(&mut entry.named_unheld);
        for &job in jobs {
            if entry.hands.is_void(job) {
                // It only waits there. When its turn comes it is in the way, and the worker is told then.
                continue;
            }
            if seen.contains(&job) {
                entry.must_let_go(job, now);
            } else {
                entry.named_unheld.insert(job);
            }
        }
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
        let (began_at, in_the_way) = entry.hands.reported(job, now);
        if entry.let_go.remove(&job).is_some() {
            entry.free_since = now;
        }
        if let Some(void) = in_the_way {
            entry.must_let_go(void, now);
        }
        let able = entry.able();
        if !(able.keeps_to_its_slots && able.starts_beside_running) {
            // It may take another one now.
            entry.calls.send_replace(());
        }
        began_at.map(|began_at| (began_at, turn))
    }

    /// A heartbeat names jobs of which it is not written that they run, beside `running` of which
    /// it is. Gives those that have begun, and that is to be written now.
    pub fn begin(
        &self,
        worker: &WorkerId,
        named: Vec<JobId>,
        running: usize,
        now: Timestamp,
    ) -> Vec<JobId> {
        let mut state = self.state();
        let Some(entry) = state.workers.get_mut(worker) else {
            return named;
        };
        let free = entry.slots.saturating_sub(running);
        entry.hands.begin(named, free, now)
    }

    /// A worker that can be believed says what it works on. Gives the jobs that it should work on
    /// and has lost.
    pub fn works_only_on(&self, worker: &WorkerId, named: &[JobId], now: Timestamp) -> Vec<JobId> {
        let mut state = self.state();
        let Some(entry) = state.workers.get_mut(worker) else {
            return Vec::new();
        };
        entry.let_go_but_for(named, now);
        entry.hands.named(named, now)
    }

    /// A worker that can be believed says that it works on nothing.
    pub fn works_on_nothing(&self, worker: &WorkerId, now: Timestamp) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            entry.let_go_but_for(&[], now);
            entry.hands.empty_but_for_new(now);
        }
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

    /// The jobs that a worker has to stop and was not told of.
    #[must_use]
    pub fn tell_to_stop(&self, worker: &WorkerId) -> Vec<JobId> {
        let mut state = self.state();
        let Some(entry) = state.workers.get_mut(worker) else {
            return Vec::new();
        };
        let untold = entry.let_go.iter_mut().filter(|(_, it)| !it.told);
        let mut jobs: Vec<JobId> = untold
            .map(|(&job, it)| {
                it.told = true;
                job
            })
            .collect();
        jobs.sort_unstable();
        jobs
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
