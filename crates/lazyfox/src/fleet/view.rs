//! The fleet as it is shown: to `/health`, to lists of workers, to a job that asks why it waits.

use std::collections::HashSet;

use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::scale::Phase;
use lazyfox_core::time::Timestamp;

use super::worker::Worker;
use super::{Fleet, Gone};
use crate::providers::Release;

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

/// What a worker is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Started, has not asked for a job yet.
    Initializing,
    /// Asks for jobs and has none.
    Idle,
    /// Has a job.
    Running,
    /// Runs an older release and has no job.
    Outdated,
    /// Said that it is unhealthy.
    Unhealthy,
    /// Is asked to stop.
    Stopping,
}

/// A worker as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who.
    pub worker: WorkerId,
    /// What it does.
    pub state: State,
    /// Whether this server starts and stops it.
    pub managed: bool,
    /// The release that it runs.
    pub release: Release,
    /// Whether that is an older one.
    pub outdated: bool,
    /// What it is made with, as it says.
    pub runtime: Option<String>,
    /// The GPUs that are its own.
    pub gpus: Vec<String>,
    /// Jobs that it takes at once.
    pub slots: usize,
    /// Jobs that it runs.
    pub jobs: Vec<JobId>,
    /// Jobs that wait inside it.
    pub waiting: usize,
    /// When it was started, or first seen.
    pub started_at: Timestamp,
    /// Why it was started.
    pub why_started: String,
    /// How long it took until it asked for a job.
    pub ready_ms: Option<u64>,
    /// What its provider does to start it.
    pub step: Option<String>,
    /// Why it is to go, or cannot work.
    pub note: Option<String>,
}

/// What a waiting job has to know of the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Started, not ready.
    pub starting: u32,
    /// Since when the first of them is.
    pub starting_since: Option<Timestamp>,
    /// What is done for it.
    pub step: Option<String>,
    /// Ready, without a job.
    pub idle: u32,
    /// With a job.
    pub busy: u32,
    /// Jobs that they run at once, each.
    pub slots: u32,
    /// How long jobs take.
    pub run_ms: Option<u64>,
    /// How long starts take.
    pub start_ms: Option<u64>,
}

impl State {
    /// As lists spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initializing => "INITIALIZING",
            Self::Idle => "IDLE",
            Self::Running => "RUNNING",
            Self::Outdated => "OUTDATED",
            Self::Unhealthy => "UNHEALTHY",
            Self::Stopping => "STOPPING",
        }
    }

    fn of(entry: &Worker, holds: bool, outdated: bool) -> Self {
        if entry.unhealthy.is_some() {
            return Self::Unhealthy;
        }
        match entry.phase(holds) {
            Phase::Starting => Self::Initializing,
            Phase::Idle { .. } if outdated => Self::Outdated,
            Phase::Idle { .. } => Self::Idle,
            Phase::Busy { .. } => Self::Running,
            // It is done with only when its job is.
            Phase::Stopping if holds => Self::Running,
            Phase::Stopping => Self::Stopping,
        }
    }
}

impl Fleet {
    /// How many workers are in which condition.
    #[must_use]
    pub fn headcount(&self, endpoint: &EndpointId, holders: &HashSet<WorkerId>) -> Headcount {
        let mut count = Headcount::default();
        let state = self.state();
        for (worker, entry) in &state.workers {
            if entry.endpoint != *endpoint {
                continue;
            }
            match State::of(entry, holders.contains(worker), false) {
                State::Initializing => count.initializing += 1,
                State::Idle | State::Outdated if entry.asks() => count.idle += 1,
                State::Idle | State::Outdated => {}
                State::Running => count.running += 1,
                State::Unhealthy => count.unhealthy += 1,
                State::Stopping => {}
            }
        }
        let line = state.lines.get(endpoint);
        if line.is_some_and(|line| line.starts.failed_in_a_row > 0) {
            count.unhealthy += 1;
        }
        count
    }

    /// The endpoint's workers, the oldest first.
    #[must_use]
    pub fn seen(&self, endpoint: &EndpointId, holders: &HashSet<WorkerId>) -> Vec<Seen> {
        let state = self.state();
        let release = state.lines.get(endpoint).map(|line| line.release);
        let of_endpoint = state
            .workers
            .iter()
            .filter(|(_, entry)| entry.endpoint == *endpoint);
        let mut seen: Vec<Seen> = of_endpoint
            .map(|(worker, entry)| {
                let outdated = entry.managed && release.is_some_and(|it| it != entry.release);
                let retired = entry.retired.as_ref().map(|retired| retired.why.clone());
                Seen {
                    worker: worker.clone(),
                    state: State::of(entry, holders.contains(worker), outdated),
                    managed: entry.managed,
                    release: entry.release,
                    outdated,
                    runtime: entry.runtime.map(|runtime| runtime.to_string()),
                    gpus: entry.gpus.clone(),
                    slots: entry.slots,
                    jobs: entry.hands.running(),
                    waiting: entry.hands.waiting(),
                    started_at: entry.started_at,
                    why_started: entry.why.clone(),
                    ready_ms: entry.ready_ms(),
                    step: entry.preparing.clone().filter(|step| !step.is_empty()),
                    note: entry.unhealthy.clone().or(retired),
                }
            })
            .collect();
        seen.sort_by(|a, b| (a.started_at, &a.worker).cmp(&(b.started_at, &b.worker)));
        seen
    }

    /// Workers of the endpoint that are gone, the last first.
    #[must_use]
    pub fn gone(&self, endpoint: &EndpointId) -> Vec<Gone> {
        let state = self.state();
        let line = state.lines.get(endpoint);
        line.into_iter()
            .flat_map(|line| line.gone.iter().rev().cloned())
            .collect()
    }

    /// What a waiting job has to know of the endpoint's workers.
    #[must_use]
    pub fn outlook(&self, endpoint: &EndpointId, holders: &HashSet<WorkerId>) -> Outlook {
        let state = self.state();
        let mut outlook = Outlook::default();
        for (worker, entry) in &state.workers {
            if entry.endpoint != *endpoint {
                continue;
            }
            outlook.slots = outlook.slots.max(u32::try_from(entry.slots).unwrap_or(1));
            match entry.phase(holders.contains(worker)) {
                Phase::Starting => {
                    outlook.starting += 1;
                    if outlook
                        .starting_since
                        .is_none_or(|at| entry.started_at < at)
                    {
                        outlook.starting_since = Some(entry.started_at);
                        outlook.step = entry.preparing.clone().filter(|step| !step.is_empty());
                    }
                }
                Phase::Idle { .. } if entry.asks() => outlook.idle += 1,
                Phase::Idle { .. } => {}
                Phase::Busy { .. } => outlook.busy += 1,
                Phase::Stopping => {}
            }
        }
        if let Some(line) = state.lines.get(endpoint) {
            outlook.run_ms = line.pace.mean_ms();
            outlook.start_ms = line.start_ms;
        }
        outlook
    }

    /// How many of these workers could take a job now.
    #[must_use]
    pub fn fit_of(&self, workers: &[WorkerId]) -> u32 {
        let state = self.state();
        let fit = workers.iter().filter(|worker| {
            let entry = state.workers.get(*worker);
            entry.is_some_and(|it| it.retired.is_none() && it.first_poll_at.is_some())
        });
        u32::try_from(fit.count()).unwrap_or(u32::MAX)
    }
}
