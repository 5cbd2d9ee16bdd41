//! The workers as this server knows them: from the provider that started them and from what they say.
//!
//! Nothing here is kept on disk. Who holds which job is the store's to know; after a restart the rest
//! is learned again from polls, heartbeats and the provider's list.

mod worker;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::scale::{self, Member, Phase};
use lazyfox_core::sdk::{Abilities, Runtime};
use lazyfox_core::time::Timestamp;
use tokio::sync::watch;

use self::worker::Worker;

/// A worker that nobody here started is forgotten after so long without a sign of life.
const STRANGER_FORGOTTEN_MS: u64 = 5 * 60_000;

/// A worker that shall stop is answered every second. One that comes back after a longer pause under the
/// same name was started anew by whoever runs it.
const STARTED_ANEW_MS: u64 = 3_000;

/// All workers, and what is known of each endpoint's starts.
#[derive(Default)]
pub struct Fleet {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    workers: HashMap<WorkerId, Worker>,
    starts: HashMap<EndpointId, Starts>,
}

#[derive(Default)]
struct Starts {
    failed: scale::Starts,
    last_failure: Option<String>,
}

/// What to do about a worker that should go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It holds nothing (any more): ask it to stop.
    AskToStop(WorkerId),
    /// It had its time: end it.
    Kill(WorkerId, &'static str),
}

/// What was known of a worker that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// It never asked for a job.
    pub never_asked: bool,
    /// Why it was to go, if it was.
    pub retired: Option<String>,
}

/// Numbers for `/health`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headcount {
    /// Asks for jobs and has none.
    pub idle: u32,
    /// Started, has not asked yet.
    pub initializing: u32,
    /// Has a job.
    pub running: u32,
    /// Said that it is unhealthy, or its endpoint's starts fail.
    pub unhealthy: u32,
}

impl Fleet {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The provider starts or has found a worker.
    pub fn managed(&self, endpoint: &EndpointId, worker: &WorkerId, since: Timestamp) {
        let mut state = self.state();
        let entry = state.entry(endpoint, worker, since);
        entry.managed = true;
        entry.started_at = since;
    }

    /// The provider has found a worker that an earlier run of this server started. It asked for work
    /// then, so it is not starting now.
    pub fn adopted(
        &self,
        endpoint: &EndpointId,
        worker: &WorkerId,
        since: Timestamp,
        now: Timestamp,
    ) {
        let mut state = self.state();
        let entry = state.entry(endpoint, worker, now);
        entry.managed = true;
        entry.started_at = since;
        entry.first_poll_at = Some(now);
        entry.last_poll_at = now;
    }

    /// A worker asks for work. True when this is its first time.
    pub fn polled(
        &self,
        endpoint: &EndpointId,
        worker: &WorkerId,
        runtime: Option<Runtime>,
        now: Timestamp,
    ) -> bool {
        let mut state = self.state();
        let entry = state.entry(endpoint, worker, now);
        if !entry.managed && now.ms_since(entry.last_poll_at) > STARTED_ANEW_MS {
            entry.retired = None;
            entry.unhealthy = None;
            entry.let_go.clear();
        }
        entry.last_poll_at = now;
        entry.last_seen_at = now;
        entry.runtime = runtime.or(entry.runtime);
        if entry.first_poll_at.is_some() {
            return false;
        }
        entry.first_poll_at = Some(now);
        entry.free_since = now;
        state.starts.remove(endpoint);
        true
    }

    /// A worker sends a sign of life. One that is not known stays so: the SDK's heartbeat outlives its
    /// worker, and only who asks for work is one.
    pub fn beat(&self, worker: &WorkerId, runtime: Option<Runtime>, now: Timestamp) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            entry.last_seen_at = now;
            entry.runtime = runtime.or(entry.runtime);
        }
    }

    /// A worker says that it cannot work.
    pub fn unhealthy(&self, worker: &WorkerId, reason: String) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            entry.unhealthy = Some(reason.clone());
            entry.retire(&format!("unhealthy: {reason}"));
        }
    }

    /// What the worker can be trusted with.
    #[must_use]
    pub fn abilities(&self, worker: &WorkerId) -> Abilities {
        Abilities::of(
            self.state()
                .workers
                .get(worker)
                .and_then(|entry| entry.runtime),
        )
    }

    /// A worker got a job.
    pub fn took(&self, worker: &WorkerId, job: JobId) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            entry.let_go.remove(&job);
        }
    }

    /// A worker's hold on a job ended: its idle time counts anew.
    pub fn freed(&self, worker: &WorkerId, now: Timestamp) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            entry.free_since = now;
        }
    }

    /// A worker may still work on a job that it no longer holds.
    pub fn must_let_go(&self, worker: &WorkerId, job: JobId, now: Timestamp) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            entry.must_let_go(job, now);
        }
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
            if seen.contains(&job) {
                entry.must_let_go(job, now);
            } else {
                entry.named_unheld.insert(job);
            }
        }
    }

    /// A worker reported a job, or speaks without naming it: it does not work on it any more.
    pub fn has_let_go(&self, worker: &WorkerId, job: JobId, now: Timestamp) {
        if let Some(entry) = self.state().workers.get_mut(worker)
            && entry.let_go.remove(&job).is_some()
        {
            entry.free_since = now;
        }
    }

    /// A worker that can be believed says what it works on.
    pub fn works_only_on(&self, worker: &WorkerId, named: &[JobId], now: Timestamp) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            let before = entry.let_go.len();
            entry.let_go.retain(|job, _| named.contains(job));
            if entry.let_go.len() < before {
                entry.free_since = now;
            }
        }
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

    /// As [`Fleet::retire`], for a worker that the provider can replace. A worker that somebody else
    /// runs stays: it is barred from the job that was taken from it, and good for others.
    pub fn retire_managed(&self, worker: &WorkerId, why: &str) {
        if let Some(entry) = self.state().workers.get_mut(worker)
            && entry.managed
        {
            entry.retire(why);
        }
    }

    /// A worker gets no further jobs and goes when it holds none.
    pub fn retire(&self, worker: &WorkerId, why: &str) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            entry.retire(why);
        }
    }

    /// Whether a worker gets no further jobs.
    #[must_use]
    pub fn is_retired(&self, worker: &WorkerId) -> bool {
        self.state()
            .workers
            .get(worker)
            .is_some_and(|entry| entry.retired.is_some())
    }

    /// Wakes the worker's parked polls.
    #[must_use]
    pub fn calls(&self, worker: &WorkerId) -> Option<watch::Receiver<()>> {
        self.state()
            .workers
            .get(worker)
            .map(|entry| entry.calls.subscribe())
    }

    /// How many polls of a worker wait for something to happen.
    #[must_use]
    pub fn parked(&self, worker: &WorkerId) -> usize {
        self.state()
            .workers
            .get(worker)
            .map_or(0, |entry| entry.calls.receiver_count())
    }

    /// A worker has ended. What was known of it, if it was known.
    pub fn ended(&self, worker: &WorkerId) -> Option<Left> {
        let entry = self.state().workers.remove(worker)?;
        // Its open polls, if any, find no worker and end.
        entry.calls.send_replace(());
        Some(Left {
            never_asked: entry.first_poll_at.is_none(),
            retired: entry.retired.map(|retired| retired.why),
        })
    }

    /// A start failed, or a worker ended before it asked for a job. Returns how many did in a row.
    pub fn start_failed(&self, endpoint: &EndpointId, why: String, now: Timestamp) -> u32 {
        let mut state = self.state();
        let starts = state.starts.entry(endpoint.clone()).or_default();
        starts.failed.failed_in_a_row += 1;
        starts.failed.last_failed_at = Some(now);
        starts.last_failure = Some(why);
        starts.failed.failed_in_a_row
    }

    /// Starts may be tried again at once: the jobs that waited for them have failed.
    pub fn forget_failures(&self, endpoint: &EndpointId) {
        self.state().starts.remove(endpoint);
    }

    /// The endpoint's starts that failed one after the other.
    #[must_use]
    pub fn failed_starts(&self, endpoint: &EndpointId) -> scale::Starts {
        let state = self.state();
        let starts = state.starts.get(endpoint);
        starts.map(|starts| starts.failed).unwrap_or_default()
    }

    /// Why the last of them failed.
    #[must_use]
    pub fn last_failure(&self, endpoint: &EndpointId) -> Option<String> {
        self.state().starts.get(endpoint)?.last_failure.clone()
    }

    /// Whether a worker of the endpoint that is to stay has asked for work.
    #[must_use]
    pub fn serves(&self, endpoint: &EndpointId) -> bool {
        self.state().workers.values().any(|entry| {
            entry.endpoint == *endpoint && entry.first_poll_at.is_some() && entry.retired.is_none()
        })
    }

    /// The endpoint's workers as the plan sees them; `holders` are those that hold jobs. Workers that
    /// somebody else runs are not in it: nobody here could stop them, and whether they stay is not known.
    #[must_use]
    pub fn members(&self, endpoint: &EndpointId, holders: &[WorkerId]) -> Vec<Member> {
        let state = self.state();
        let mut members: Vec<Member> = state
            .workers
            .iter()
            .filter(|(_, entry)| entry.managed && entry.endpoint == *endpoint)
            .map(|(worker, entry)| Member {
                worker: worker.clone(),
                started_at: entry.started_at,
                phase: entry.phase(holders.contains(worker)),
                outdated: false,
                slots: 1,
            })
            .collect();
        members.sort_by(|a, b| a.worker.cmp(&b.worker));
        members
    }

    /// How many workers are in which condition.
    #[must_use]
    pub fn headcount(&self, endpoint: &EndpointId, holders: &[WorkerId]) -> Headcount {
        let mut count = Headcount::default();
        let state = self.state();
        for (worker, entry) in &state.workers {
            if entry.endpoint != *endpoint {
                continue;
            }
            if entry.unhealthy.is_some() {
                count.unhealthy += 1;
                continue;
            }
            match entry.phase(holders.contains(worker)) {
                Phase::Starting => count.initializing += 1,
                Phase::Idle { .. } => count.idle += 1,
                Phase::Busy { .. } => count.running += 1,
                Phase::Stopping => {}
            }
        }
        if state
            .starts
            .get(endpoint)
            .is_some_and(|starts| starts.failed.failed_in_a_row > 0)
        {
            count.unhealthy += 1;
        }
        count
    }

    /// What to do about workers that should go. Each thing is said once. `holders` hold jobs.
    pub fn duties(
        &self,
        holders: &[WorkerId],
        init_timeout_ms: impl Fn(&EndpointId) -> u64,
        grace: Grace,
        now: Timestamp,
    ) -> Vec<Duty> {
        let mut state = self.state();
        state.workers.retain(|worker, entry| {
            entry.managed
                || holders.contains(worker)
                || now.ms_since(entry.last_seen_at) < STRANGER_FORGOTTEN_MS
        });
        let mut duties = Vec::new();
        for (worker, entry) in &mut state.workers {
            if entry.managed {
                let limit_ms = init_timeout_ms(&entry.endpoint);
                duties.extend(entry.duty(worker, holders.contains(worker), limit_ms, grace, now));
            } else {
                // Nobody here can end it. Its version may be one that never says that it let go.
                entry
                    .let_go
                    .retain(|_, it| now.ms_since(it.since) < grace.release_ms);
            }
        }
        duties
    }

    /// Every worker that the provider runs goes when it holds no job.
    pub fn retire_all(&self, why: &str) {
        for entry in self
            .state()
            .workers
            .values_mut()
            .filter(|entry| entry.managed)
        {
            entry.retire(why);
        }
    }

    /// All workers that the provider runs.
    #[must_use]
    pub fn all_managed(&self) -> Vec<WorkerId> {
        let state = self.state();
        let managed = state.workers.iter().filter(|(_, entry)| entry.managed);
        managed.map(|(worker, _)| worker.clone()).collect()
    }

    /// Whether there is any worker, or any start that failed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let state = self.state();
        state.workers.is_empty() && state.starts.is_empty()
    }
}

/// How long a worker has, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    /// To let go of a job that was taken from it.
    pub release_ms: u64,
    /// To stop when it was asked to.
    pub stop_ms: u64,
}

impl State {
    fn entry(&mut self, endpoint: &EndpointId, worker: &WorkerId, now: Timestamp) -> &mut Worker {
        self.workers
            .entry(worker.clone())
            .or_insert_with(|| Worker::new(endpoint.clone(), now))
    }
}

#[cfg(test)]
mod tests;
