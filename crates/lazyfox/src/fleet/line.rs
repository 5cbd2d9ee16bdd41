//! What is known of an endpoint's workers in all: how starts went, how long things take, who is gone.

use std::collections::VecDeque;

use lazyfox_core::id::WorkerId;
use lazyfox_core::prefetch::Pace;
use lazyfox_core::scale::Starts;
use lazyfox_core::time::Timestamp;

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
    /// Polls for work that are open now, of all its workers.
    pub(super) open_polls: usize,
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

    pub(super) fn failed(&mut self, why: String, now: Timestamp) -> u32 {
        self.starts.failed_in_a_row += 1;
        self.starts.last_failed_at = Some(now);
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
