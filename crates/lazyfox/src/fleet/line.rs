//! What is known of an endpoint's workers in all: how starts went, how long things take, who is gone.

use std::collections::{HashMap, VecDeque};

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::prefetch::{Pace, Turn};
use lazyfox_core::scale::Starts;
use lazyfox_core::time::Timestamp;

use super::Fleet;
use crate::providers::{Exit, Release};

/// Workers that are gone and still shown. The last ones hold the reason of what goes wrong now.
const GONE_SHOWN: usize = 50;

/// How much a new start counts in what a start takes: the last few.
const START_WEIGHT: u64 = 4;

#[derive(Default)]
pub(super) struct Line {
    /// What workers are started with now.
    pub(super) release: Release,
    pub(super) starts: Starts,
    pub(super) last_failure: Option<String>,
    pub(super) pace: Pace,
    pub(super) start_ms: Option<u64>,
    pub(super) gone: VecDeque<Gone>,
}

/// A worker that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Who.
    pub worker: WorkerId,
    /// The release that it ran.
    pub release: Release,
    /// When it was started.
    pub started_at: Timestamp,
    /// Why it was started.
    pub why_started: String,
    /// How long it took until it asked for a job; `None` when it never did.
    pub ready_ms: Option<u64>,
    /// When its end was seen.
    pub ended_at: Timestamp,
    /// Why the server wanted it to end; `None` when it did not.
    pub why_stopped: Option<String>,
    /// How it ended.
    pub exit: Exit,
    /// The last lines of its output.
    pub last_lines: Vec<String>,
}

impl Line {
    /// A worker asked for its first job, so long after its start.
    pub(super) fn ready(&mut self, took_ms: Option<u64>) {
        self.starts = Starts::default();
        self.last_failure = None;
        if let Some(took_ms) = took_ms {
            let before = self.start_ms.unwrap_or(took_ms);
            self.start_ms = Some((before * (START_WEIGHT - 1) + took_ms) / START_WEIGHT);
        }
    }

    /// A start that was made at this time failed. Those that were made before another one failed say
    /// nothing that it did not say.
    pub(super) fn failed(&mut self, started_at: Timestamp, why: String, now: Timestamp) -> u32 {
        if self.starts.last_failed_at.is_none_or(|at| started_at > at) {
            self.starts.failed_in_a_row += 1;
            self.starts.last_failed_at = Some(now);
        }
        self.last_failure = Some(why);
        self.starts.failed_in_a_row
    }

    pub(super) fn went(&mut self, gone: Gone) {
        if self.gone.len() == GONE_SHOWN {
            self.gone.pop_front();
        }
        self.gone.push_back(gone);
    }
}

impl Fleet {
    /// How long a job of the endpoint took, in milliseconds.
    pub fn took_ms(&self, endpoint: &EndpointId, turn: Turn, ms: u64) {
        self.state()
            .line(endpoint)
            .pace
            .observe(turn, ms.saturating_mul(1_000));
    }

    /// A start failed, or a worker ended before it asked for a job. Returns how many of this release did in a
    /// row.
    pub fn start_failed(
        &self,
        endpoint: &EndpointId,
        release: Release,
        started_at: Timestamp,
        why: String,
        now: Timestamp,
    ) -> u32 {
        let mut state = self.state();
        let line = state.line(endpoint);
        // What became of the release before is no reason to hold this one off.
        if release == line.release {
            line.failed(started_at, why, now)
        } else {
            line.starts.failed_in_a_row
        }
    }

    /// Starts may be tried again at once: the jobs that waited for them have failed, or something changed.
    pub fn forget_failures(&self, endpoint: &EndpointId) {
        let mut state = self.state();
        let line = state.line(endpoint);
        line.starts = Starts::default();
        line.last_failure = None;
    }

    /// Workers of the endpoint are started with this release from now on. True when it is another one.
    pub fn release(&self, endpoint: &EndpointId, release: Release) -> bool {
        let mut state = self.state();
        let line = state.line(endpoint);
        if line.release == release {
            return false;
        }
        *line = Line {
            release,
            gone: std::mem::take(&mut line.gone),
            ..Line::default()
        };
        true
    }

    /// What workers of the endpoint are started with.
    #[must_use]
    pub fn release_of(&self, endpoint: &EndpointId) -> Release {
        let state = self.state();
        let line = state.lines.get(endpoint);
        line.map(|line| line.release).unwrap_or_default()
    }

    /// What workers of each endpoint are started with.
    #[must_use]
    pub fn releases(&self) -> HashMap<EndpointId, Release> {
        let state = self.state();
        let lines = state.lines.iter();
        lines.map(|(id, line)| (id.clone(), line.release)).collect()
    }

    /// How the last starts of the endpoint's workers went.
    #[must_use]
    pub fn starts(&self, endpoint: &EndpointId) -> (Starts, Option<String>) {
        let state = self.state();
        let line = state.lines.get(endpoint);
        line.map(|line| (line.starts, line.last_failure.clone()))
            .unwrap_or_default()
    }
}
