//! The change to a newer release: which workers are started so that outdated ones can go.
//!
//! Idle outdated workers are replaced one after the other; busy ones are left alone, since they will be
//! idle. Only while more jobs wait than are about to be taken would they never be, so then some are
//! replaced all the same, and go after the job that they have.

use super::census::Census;
use super::wanted::Wanted;
use super::{Demand, Settings};

#[derive(Debug, Default)]
pub(super) struct Rollout {
    /// Workers to start beside those that are missing.
    pub(super) replacements: u32,
    /// If none can be started, an outdated one may go first.
    pub(super) may_give_way: bool,
}

impl Rollout {
    pub(super) fn of(
        demand: &Demand,
        census: &Census,
        settings: &Settings,
        wanted: &Wanted,
    ) -> Self {
        let (current, outdated) = (census.current, census.outdated.serving());
        // An outdated worker that is not wanted anyway needs no replacement.
        let behind = wanted.count.saturating_sub(current.serving());
        let candidates = candidates(demand, census, wanted).min(behind);
        if candidates == 0 {
            return Self::default();
        }

        let missing = wanted.count.saturating_sub(census.serving());
        let excess = census.serving().saturating_sub(wanted.count);
        let under_way = excess.max(current.starting.saturating_add(missing));
        let pace = settings.surge.max(1).saturating_sub(under_way);
        // What QUEUE_DELAY asks for grows with the workers that are there. Were each replacement followed
        // by another, one outdated worker that is stuck would fill the endpoint up to its maximum.
        let most = if demand.queued > 0 && !wanted.firm {
            outdated.saturating_sub(current.serving())
        } else {
            outdated
        };
        Self {
            replacements: candidates.min(pace).min(most),
            // One at a time: whoever is starting or stopping will make a place, or fill it.
            may_give_way: current.starting == 0 && census.stopping == 0,
        }
    }
}

/// Outdated workers that should be replaced now.
fn candidates(demand: &Demand, census: &Census, wanted: &Wanted) -> u32 {
    let outdated = census.outdated;
    if demand.queued > 0 {
        // Else those that are idle are about to be busy, and whoever is busy will be idle.
        let never_idle = demand.queued > census.coming;
        return if never_idle { outdated.serving() } else { 0 };
    }
    if demand.queued_low > 0 {
        // These keep one worker and start none, so one of the current release is all they get.
        let needs_one = census.current.serving() == 0 && outdated.busy > 0;
        return u32::from(needs_one);
    }
    let excess = census.serving().saturating_sub(wanted.count);
    outdated.idle.saturating_sub(excess)
}
