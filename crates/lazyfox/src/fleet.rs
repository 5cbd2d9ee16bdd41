//! The workers as this server knows them: from the provider that started them and from what they say.
//!
//! Nothing here is kept on disk. Who holds which job is the store's to know; after a restart the rest
//! is learned again from polls, heartbeats and the provider's list.

mod hands;
mod line;
mod offer;
mod view;
mod work;
mod worker;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::scale::Member;
use lazyfox_core::sdk::{Abilities, Runtime};
use lazyfox_core::time::Timestamp;
use tokio::sync::watch;

use self::hands::Hands;
pub use self::hands::Named;
pub use self::line::Gone;
use self::line::Line;
pub use self::offer::{Asked, Offer, OpenPoll};
pub use self::view::{Headcount, Seen, State as WorkerState};
pub use self::work::Heard;
use self::worker::Worker;
use crate::providers::{Ended, Release};

/// A worker that nobody here started is forgotten after so long without a sign of life.
const STRANGER_FORGOTTEN_MS: u64 = 60_000;

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
    lines: HashMap<EndpointId, Line>,
}

/// A worker that is started, or was found again.
#[derive(Clone, Debug)]
pub struct Enlisted {
    /// Who.
    pub worker: WorkerId,
    /// Whose jobs it takes.
    pub endpoint: EndpointId,
    /// The release that it runs.
    pub release: Release,
    /// The GPUs that are its own.
    pub gpus: Vec<String>,
    /// When it was started.
    pub started_at: Timestamp,
    /// Why.
    pub why: String,
    /// Whether its provider has to prepare the start: until it says that the program runs, the worker
    /// cannot be late.
    pub preparing: bool,
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
    /// The release that it ran.
    pub release: Release,
    /// When it was started.
    pub started_at: Timestamp,
    /// Why it was to go, if it was.
    pub retired: Option<String>,
}

/// What is known of a worker that lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Whose jobs it takes.
    pub endpoint: EndpointId,
    /// When it was started, if the provider runs it.
    pub started_at: Option<Timestamp>,
    /// Why it is to go, if it is.
    pub retired: Option<String>,
}

impl Fleet {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker is started.
    pub fn enlist(&self, new: Enlisted) {
        let mut state = self.state();
        let entry = state.entry(&new.endpoint, &new.worker, new.started_at);
        entry.enlist(new);
    }

    /// The provider has found a worker that an earlier run of this server started. One that is `young`
    /// may be starting still; any other has asked for work then.
    pub fn adopt(&self, found: Enlisted, young: bool, now: Timestamp) {
        let mut state = self.state();
        let entry = state.entry(&found.endpoint, &found.worker, now);
        entry.enlist(found);
        entry.found = true;
        entry.first_poll_at = (!young).then_some(now);
        entry.last_poll_at = now;
    }

    /// The provider says what it does to start a worker.
    pub fn prepares(&self, worker: &WorkerId, step: &str) {
        if let Some(entry) = self.state().workers.get_mut(worker)
            && let Some(preparing) = &mut entry.preparing
        {
            step.clone_into(preparing);
        }
    }

    /// A worker's program runs now.
    pub fn runs(&self, worker: &WorkerId, now: Timestamp) {
        if let Some(entry) = self.state().workers.get_mut(worker) {
            entry.preparing = None;
            entry.runs_since = now;
        }
    }

    /// The other endpoint that a worker of this name works for, if one does.
    #[must_use]
    pub fn elsewhere(&self, endpoint: &EndpointId, worker: &WorkerId) -> Option<EndpointId> {
        let state = self.state();
        let known = state.workers.get(worker)?;
        (known.endpoint != *endpoint).then(|| known.endpoint.clone())
    }

    /// A worker asks for work. When this is its first time, how long that took since its start.
    pub fn polled(
        &self,
        endpoint: &EndpointId,
        worker: &WorkerId,
        runtime: Option<Runtime>,
        now: Timestamp,
    ) -> Option<u64> {
        let mut state = self.state();
        let entry = state.entry(endpoint, worker, now);
        let was_to_go = entry.retired.is_some();
        if !entry.managed && was_to_go && now.ms_since(entry.last_poll_at) > STARTED_ANEW_MS {
            entry.retired = None;
            entry.unhealthy = None;
            entry.let_go.clear();
            entry.hands = Hands::default();
        }
        entry.last_poll_at = now;
        entry.last_seen_at = now;
        entry.runtime = runtime.or(entry.runtime);
        if entry.first_poll_at.is_some() {
            return None;
        }
        entry.first_poll_at = Some(now);
        entry.free_since = now;
        let (managed, release, found) = (entry.managed, entry.release, entry.found);
        let took_ms = now.ms_since(entry.started_at);
        let line = state.line(endpoint);
        // An old worker that is found again says nothing about the starts of today.
        if !managed || release == line.release {
            line.ready((managed && !found).then_some(took_ms));
        }
        // When a worker that was found again became ready is not known.
        (!found).then_some(took_ms)
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

    /// What is known of a worker, if it is.
    #[must_use]
    pub fn about(&self, worker: &WorkerId) -> Option<About> {
        let state = self.state();
        let entry = state.workers.get(worker)?;
        Some(About {
            endpoint: entry.endpoint.clone(),
            started_at: entry.managed.then_some(entry.started_at),
            retired: entry.retired.as_ref().map(|retired| retired.why.clone()),
        })
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
    pub fn ended(&self, end: &Ended, now: Timestamp) -> Option<Left> {
        let mut state = self.state();
        let entry = state.workers.remove(&end.worker)?;
        // Its open polls, if any, find no worker and end.
        entry.calls.send_replace(());
        let ready_ms = entry.ready_ms();
        let why_stopped = entry.retired.map(|retired| retired.why);
        state.line(&entry.endpoint).went(Gone {
            worker: end.worker.clone(),
            release: entry.release,
            started_at: entry.started_at,
            why_started: entry.why,
            ready_ms,
            ended_at: now,
            why_stopped: why_stopped.clone(),
            exit: end.exit.clone(),
            last_lines: end.last_lines.clone(),
        });
        Some(Left {
            never_asked: entry.first_poll_at.is_none(),
            release: entry.release,
            started_at: entry.started_at,
            retired: why_stopped,
        })
    }

    /// Workers of endpoints that are not there any more, or that have somebody else start them, go.
    pub fn retire_without(&self, has_workers: impl Fn(&EndpointId) -> bool) {
        for entry in self.state().workers.values_mut() {
            if entry.managed && entry.retired.is_none() && !has_workers(&entry.endpoint) {
                entry.retire("the configuration has no such workers any more");
            }
        }
    }

    /// Workers of these endpoints go, for this reason.
    pub fn retire_where(&self, why: impl Fn(&EndpointId) -> Option<String>) {
        for entry in self.state().workers.values_mut() {
            if entry.managed
                && entry.retired.is_none()
                && let Some(why) = why(&entry.endpoint)
            {
                entry.retire(&why);
            }
        }
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
    pub fn members(&self, endpoint: &EndpointId, holders: &HashSet<WorkerId>) -> Vec<Member> {
        let state = self.state();
        let release = state.lines.get(endpoint).map(|line| line.release);
        let mut members: Vec<Member> = state
            .workers
            .iter()
            .filter(|(_, entry)| entry.managed && entry.endpoint == *endpoint)
            .map(|(worker, entry)| Member {
                worker: worker.clone(),
                started_at: entry.started_at,
                phase: entry.phase(holders.contains(worker)),
                outdated: release.is_some_and(|release| entry.release != release),
                slots: u32::try_from(entry.slots).unwrap_or(u32::MAX),
            })
            .collect();
        members.sort_by(|a, b| a.worker.cmp(&b.worker));
        members
    }

    /// The GPUs that workers have for themselves.
    #[must_use]
    pub fn gpus_used(&self) -> Vec<String> {
        let state = self.state();
        let used = state.workers.values().flat_map(|entry| &entry.gpus);
        used.cloned().collect()
    }

    /// What to do about workers that should go. Each thing is said once. `holders` hold jobs.
    pub fn duties(
        &self,
        holders: &HashSet<WorkerId>,
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
        let mut failed = Vec::new();
        for (worker, entry) in &mut state.workers {
            if entry.managed {
                let limit_ms = init_timeout_ms(&entry.endpoint);
                let duty = entry.duty(worker, holders.contains(worker), limit_ms, grace, now);
                if let Some(Duty::Kill(_, why)) = &duty
                    && entry.first_poll_at.is_none()
                {
                    let (endpoint, started_at) = (entry.endpoint.clone(), entry.started_at);
                    failed.push((endpoint, entry.release, started_at, *why));
                }
                duties.extend(duty);
            } else {
                // Nobody here can end it. Its version may be one that never says that it let go.
                let Worker { let_go, hands, .. } = entry;
                let_go.retain(|&job, it| {
                    let clings = now.ms_since(it.since) < grace.release_ms;
                    if !clings {
                        hands.gone(job, now);
                    }
                    clings
                });
            }
        }
        // Known before the next plan is made, or it would start the next one in the same breath.
        for (endpoint, release, started_at, why) in failed {
            let line = state.line(&endpoint);
            if release == line.release {
                line.failed(started_at, why.to_owned(), now);
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

    /// How many workers of the endpoint this server runs.
    #[must_use]
    pub fn managed_of(&self, endpoint: &EndpointId) -> u32 {
        let state = self.state();
        let of_endpoint = |it: &&Worker| it.managed && it.endpoint == *endpoint;
        u32::try_from(state.workers.values().filter(of_endpoint).count()).unwrap_or(u32::MAX)
    }

    /// All workers that the provider runs.
    #[must_use]
    pub fn all_managed(&self) -> Vec<WorkerId> {
        let state = self.state();
        let managed = state.workers.iter().filter(|(_, entry)| entry.managed);
        managed.map(|(worker, _)| worker.clone()).collect()
    }

    /// All workers that the provider runs, with their endpoints.
    #[must_use]
    pub fn managed(&self) -> Vec<(EndpointId, WorkerId)> {
        let state = self.state();
        let managed = state.workers.iter().filter(|(_, entry)| entry.managed);
        managed
            .map(|(worker, entry)| (entry.endpoint.clone(), worker.clone()))
            .collect()
    }

    /// Whether there is no worker.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state().workers.is_empty()
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

    fn line(&mut self, endpoint: &EndpointId) -> &mut Line {
        self.lines.entry(endpoint.clone()).or_default()
    }
}

#[cfg(test)]
mod tests;
