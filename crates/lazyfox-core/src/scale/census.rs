//! The fleet in numbers, counted once for each plan.

use super::{Member, Phase};
use crate::time::Timestamp;

/// Everything about the fleet that decisions are made from.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// Workers that exist.
    pub(super) total: u32,
    /// Workers of the current release that are not stopping.
    pub(super) current: Count,
    /// Workers of older releases that are not stopping.
    pub(super) outdated: Count,
    /// Workers that are stopping.
    pub(super) stopping: u32,
    /// There is one of an older release, stopping or not.
    pub(super) any_outdated: bool,
    /// Jobs that workers which start or are idle will take in a moment. Free slots of busy workers are
    /// not in it: such a worker may not want them, and nobody else would be started for the job.
    pub(super) coming: u64,
    /// When the newest was started.
    pub(super) last_start_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) starting: u32,
    pub(super) idle: u32,
    pub(super) busy: u32,
}

impl Count {
    /// Those that can take jobs now.
    pub(super) fn ready(self) -> u32 {
        self.idle + self.busy
    }

    pub(super) fn serving(self) -> u32 {
        self.starting + self.ready()
    }
}

impl Census {
    pub(super) fn of(fleet: &[Member]) -> Self {
        let mut census = Self::default();
        for member in fleet {
            census.total += 1;
            census.any_outdated |= member.outdated;
            census.last_start_at = census.last_start_at.max(Some(member.started_at));
            let count = if member.outdated {
                &mut census.outdated
            } else {
                &mut census.current
            };
            match member.phase {
                Phase::Starting => count.starting += 1,
                Phase::Idle { .. } => count.idle += 1,
                Phase::Busy { .. } => count.busy += 1,
                Phase::Stopping => census.stopping += 1,
            }
            if matches!(member.phase, Phase::Starting | Phase::Idle { .. }) {
                census.coming += u64::from(member.slots.max(1));
            }
        }
        census
    }

    /// Workers that are there or will be in a moment, and that nobody asked to stop.
    pub(super) fn serving(&self) -> u32 {
        self.current.serving() + self.outdated.serving()
    }

    /// Workers that can take jobs now.
    pub(super) fn ready(&self) -> u32 {
        self.current.ready() + self.outdated.ready()
    }

    pub(super) fn busy(&self) -> u32 {
        self.current.busy + self.outdated.busy
    }
}
