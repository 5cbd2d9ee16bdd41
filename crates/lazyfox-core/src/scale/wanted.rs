//! What the scaler asks for.

use super::census::Census;
use super::{Demand, Reason, Scaler, Settings};
use crate::time::Timestamp;

/// How many workers there should be.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Within minimum and maximum.
    pub(super) count: u32,
    /// The count follows from the jobs alone, and not from how many workers there are.
    pub(super) firm: bool,
    /// Why so many.
    pub(super) reason: Reason,
    /// When time alone will change it.
    pub(super) again_at: Timestamp,
}

pub(super) fn wanted(
    demand: &Demand,
    census: &Census,
    settings: &Settings,
    now: Timestamp,
) -> Wanted {
    let asked = match settings.scaler {
        Scaler::RequestCount { per_worker } => by_count(demand, census, per_worker.max(1)),
        Scaler::QueueDelay { ms } => by_delay(demand, census, ms.max(1), now),
    };
    within_bounds(asked, settings)
}

fn within_bounds(asked: Wanted, settings: &Settings) -> Wanted {
    let max = settings.workers_max;
    let min = settings.workers_min.min(max);
    if max == 0 {
        return bound(0, Reason::Paused);
    }
    if asked.count > max {
        return bound(max, Reason::AtMaximum { max });
    }
    if asked.count < min {
        // The scaler may ask for one more later, when its minimum would still be more.
        return Wanted {
            again_at: asked.again_at,
            ..bound(min, Reason::WorkersMin { min })
        };
    }
    Wanted {
        firm: asked.firm || asked.count == max,
        ..asked
    }
}

/// What no passing of time changes.
fn bound(count: u32, reason: Reason) -> Wanted {
    Wanted {
        count,
        firm: true,
        reason,
        again_at: Timestamp::NEVER,
    }
}

/// One worker for so many jobs, waiting or running.
fn by_count(demand: &Demand, census: &Census, per_worker: u32) -> Wanted {
    let here = census.serving();
    let jobs = demand.queued.saturating_add(demand.running);
    let asked = jobs.div_ceil(u64::from(per_worker));
    let mut count = u32::try_from(asked).unwrap_or(u32::MAX);
    // Running jobs alone start nobody: they have a worker, and nobody knows which of them are of low
    // priority. A worker with many slots would else start others for the low ones that it holds.
    if demand.queued == 0 {
        count = count.min(here);
    }
    let reason = if count > here {
        Reason::RequestCount { jobs, per_worker }
    } else {
        enough(demand, census)
    };
    bound(count, reason)
}

/// The first worker at once, and one more for each further delay that the oldest job waits.
fn by_delay(demand: &Demand, census: &Census, ms: u64, now: Timestamp) -> Wanted {
    let here = census.serving();
    let Some(oldest_at) = demand.oldest_queued_at.filter(|_| demand.queued > 0) else {
        return bound(census.busy(), enough(demand, census));
    };
    let queued = demand.queued;
    if here == 0 {
        return bound(1, Reason::FirstJob { queued });
    }
    let keep = Wanted {
        count: here,
        firm: false,
        reason: Reason::Enough { workers: here },
        again_at: Timestamp::NEVER,
    };
    if census.coming >= queued {
        return keep;
    }
    // One step per delay: from the wait of the oldest job, and from the last start.
    let from = oldest_at.max(census.last_start_at.unwrap_or(oldest_at));
    let due_at = from.plus_ms(ms);
    let waited_ms = now.ms_since(oldest_at);
    if due_at <= now {
        Wanted {
            count: here.saturating_add(1),
            reason: Reason::QueueDelay { waited_ms, ms },
            again_at: now.plus_ms(ms),
            ..keep
        }
    } else {
        let left_ms = due_at.ms_since(now);
        Wanted {
            reason: Reason::Waiting { waited_ms, left_ms },
            again_at: due_at,
            ..keep
        }
    }
}

fn enough(demand: &Demand, census: &Census) -> Reason {
    let workers = census.serving();
    if workers == 0 && demand.queued == 0 && demand.queued_low > 0 {
        return Reason::LowPriorityOnly {
            queued: demand.queued_low,
        };
    }
    Reason::Enough { workers }
}
