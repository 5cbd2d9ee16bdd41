//! How many jobs a poll is answered with: what the worker asks for, held against what its version can bear.

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::prefetch;
use lazyfox_core::sdk::{Abilities, SlotsBy};

use super::Fleet;
use super::worker::Worker;
use crate::config::Prefetch;

/// A worker whose start usually takes no longer than this comes soon, in milliseconds.
const SOON_MS: u64 = 10_000;

/// What a poll may be answered with now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// So many jobs that start at once.
    pub count: usize,
    /// So many more that wait inside the worker.
    pub extra: usize,
}

/// A poll for work, for as long as it is open.
pub struct OpenPoll<'a> {
    fleet: &'a Fleet,
    endpoint: &'a EndpointId,
    worker: &'a WorkerId,
}

/// What a poll asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// How many jobs.
    pub count: usize,
    /// Whether it is a poll for one job, which is not widened by itself when more slots become free.
    pub single: bool,
}

impl Fleet {
    /// A poll of a worker is open until the answer is dropped.
    #[must_use]
    pub fn open_poll<'a>(
        &'a self,
        endpoint: &'a EndpointId,
        worker: &'a WorkerId,
        asked: usize,
    ) -> OpenPoll<'a> {
        let mut state = self.state();
        if let Some(entry) = state.workers.get_mut(worker) {
            entry.open_polls += 1;
            entry.slots = entry.slots.max(asked);
        }
        OpenPoll {
            fleet: self,
            endpoint,
            worker,
        }
    }

    /// A poll was open to its end: there was nothing.
    pub fn poll_ended_empty(&self, worker: &WorkerId) {
        if let Some(entry) = self.state().workers.get_mut(worker)
            && entry.able().slots_by == SlotsBy::Polls
        {
            entry.polls_kept = entry.polls_kept.max(Some(entry.open_polls));
            entry.slots = entry.slots.max(entry.open_polls);
        }
    }

    /// What a worker's open poll may be answered with now; `None` when it has to wait, whatever there is.
    /// `others_can_start` is whether a further worker could be started.
    #[must_use]
    pub fn offer(
        &self,
        poll: &OpenPoll<'_>,
        asked: Asked,
        prefetch: Prefetch,
        others_can_start: bool,
    ) -> Option<Offer> {
        let state = self.state();
        let entry = state.workers.get(poll.worker)?;
        let pace = state.lines.get(poll.endpoint).map(|line| line.pace);
        let able = entry.able();
        let others_idle = || {
            let others = state.workers.iter().filter(|(id, _)| *id != poll.worker);
            others
                .into_iter()
                .any(|(_, it)| it.waits_for_work_of(poll.endpoint))
        };
        let held = entry.hands.len();
        if held > 0 && !able.starts_beside_running && (others_can_start || others_idle()) {
            return None;
        }
        let mut count = asked.count;
        if asked.single && able.takes_more {
            count = count.max(entry.slots.saturating_sub(held));
        }
        if !able.keeps_to_its_slots {
            count = count.min(entry.slots_kept().saturating_sub(held));
        }
        if count == 0 {
            return None;
        }
        let most = match prefetch {
            Prefetch::Off => 1,
            Prefetch::Auto => usize::MAX,
            Prefetch::Jobs(most) => usize::try_from(most).unwrap_or(usize::MAX),
        };
        // One that comes soon is there for the jobs that wait. Where a start takes minutes, it is not.
        let start_ms = state
            .lines
            .get(poll.endpoint)
            .and_then(|line| line.start_ms);
        let comes_soon = start_ms.is_none_or(|ms| ms <= SOON_MS);
        let others_come = || {
            let mut others = state.workers.values();
            comes_soon && others.any(|it| it.starts_for(poll.endpoint))
        };
        let is_alone = || !others_idle() && !others_come();
        let extra = if able.takes_more && entry.hands.waiting() == 0 && is_alone() {
            prefetch::extra(&pace.unwrap_or_default(), count, most)
        } else {
            0
        };
        Some(Offer { count, extra })
    }
}

impl Worker {
    /// Whether it would take a job of the endpoint now.
    fn waits_for_work_of(&self, endpoint: &EndpointId) -> bool {
        self.endpoint == *endpoint
            && self.open_polls > 0
            && self.hands.len() == 0
            && self.retired.is_none()
    }

    /// Whether it will take jobs of the endpoint when its start is over.
    fn starts_for(&self, endpoint: &EndpointId) -> bool {
        self.endpoint == *endpoint && self.first_poll_at.is_none() && self.retired.is_none()
    }

    pub(super) fn able(&self) -> Abilities {
        Abilities::of(self.runtime)
    }

    /// The jobs that it should hold at most, where it would take more.
    fn slots_kept(&self) -> usize {
        match self.able().slots_by {
            SlotsBy::Batch => self.slots,
            SlotsBy::One => 1,
            // Before it was idle once, any number would be a guess, and one too small would halve it.
            SlotsBy::Polls => self.polls_kept.unwrap_or(usize::MAX),
        }
    }
}

impl Drop for OpenPoll<'_> {
    fn drop(&mut self) {
        let mut state = self.fleet.state();
        if let Some(entry) = state.workers.get_mut(self.worker) {
            entry.open_polls = entry.open_polls.saturating_sub(1);
        }
    }
}
