//! How many workers an endpoint should have. A pure function of what waits, who is there, and the
//! settings, which says why; the pass that calls it logs the decision with its reason.
//!
//! [`plan`] puts the parts together in the order in which they overrule each other: `wanted` is what the
//! scaler asks for, `rollout` what the change to a newer release asks for on top, `starts` what earlier
//! failures leave of it, and `leaves` says who goes.

mod census;
mod leaves;
mod reason;
mod rollout;
mod starts;
mod wanted;

use crate::id::WorkerId;
use crate::limits;
use crate::time::Timestamp;

use self::census::Census;
use self::rollout::Rollout;
use self::starts::Attempt;

pub use self::reason::Reason;
pub use self::starts::{Starts, hold_off_ms};

/// How an endpoint scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Workers that are always kept.
    pub workers_min: u32,
    /// Workers that are never exceeded, except by `surge`; 0 pauses the endpoint.
    pub workers_max: u32,
    /// What makes it grow.
    pub scaler: Scaler,
    /// How long a worker without work stays.
    pub idle_timeout_ms: u64,
    /// Workers beyond the maximum while there are some of an older release, so that each is replaced
    /// before it goes. With 0, or without room, one has to go first.
    pub surge: u32,
    /// Starts that failed one after the other after which no more are tried; 0 is never.
    pub give_up_after: u32,
}

/// What makes an endpoint grow beyond its first worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaler {
    /// One more worker whenever the oldest job has waited this long, and again after each further
    /// such time.
    QueueDelay {
        /// Milliseconds; at least 1.
        ms: u64,
    },
    /// One worker for this many jobs, waiting or running.
    RequestCount {
        /// Jobs a worker; at least 1.
        per_worker: u32,
    },
}

/// What waits and runs on an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Waiting jobs of the normal lane.
    pub queued: u64,
    /// Waiting jobs of the low lane. They start no worker, but they keep one that is there.
    pub queued_low: u64,
    /// Jobs that workers hold.
    pub running: u64,
    /// Since when the first job of the normal lane has waited.
    pub oldest_queued_at: Option<Timestamp>,
}

/// A worker as the plan sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub worker: WorkerId,
    /// When it was started.
    pub started_at: Timestamp,
    /// What it does.
    pub phase: Phase,
    /// It runs an older release than the one that a start would run now.
    pub outdated: bool,
    /// Jobs that it takes at once; 1 where that is not known.
    pub slots: u32,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Started, has not asked for a job yet. It counts as capacity: otherwise each look at the
    /// queue during its start would start another.
    Starting,
    /// Asks for jobs and has none.
    Idle {
        /// Since when.
        since: Timestamp,
    },
    /// Holds a job.
    Busy {
        /// Since when, or at least since it was last free: one that is stuck has the earliest time.
        since: Timestamp,
    },
    /// Is asked to stop; takes no jobs, but exists and counts against the maximum.
    Stopping,
}

/// How many more workers there is room for, in GPUs for instance; `None` where nothing limits them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room(pub Option<u32>);

impl Room {
    /// No such limit.
    pub const UNLIMITED: Self = Self(None);

    fn of(self, workers: u32) -> u32 {
        self.0.map_or(workers, |room| workers.min(room))
    }
}

/// What to do now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Workers to start.
    pub start: u32,
    /// Workers that are to get no more jobs and to stop as soon as they hold none. All are idle, except
    /// for outdated ones that would never be idle because more jobs wait than can be taken.
    pub stop: Vec<Leave>,
    /// Workers that there should be, within minimum and maximum.
    pub want: u32,
    /// Of those that should be started now, how many there is no room for.
    pub throttled: u32,
    /// Why so many are started, or why none is.
    pub reason: Reason,
    /// When time alone will change the plan.
    pub again_at: Timestamp,
}

/// A worker that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// Who.
    pub worker: WorkerId,
    /// Why.
    pub why: Reason,
}

/// Decides.
///
/// `starts` are those of the current release. `room` is what is left beside all workers that exist, those
/// that are stopping included. Where several endpoints share it, a place that one of them gave up for a
/// newer release should be offered to that endpoint first.
#[must_use]
pub fn plan(
    demand: &Demand,
    fleet: &[Member],
    settings: &Settings,
    starts: &Starts,
    room: Room,
    now: Timestamp,
) -> Plan {
    let census = Census::of(fleet);
    let wanted = wanted::wanted(demand, &census, settings, now);
    let attempt = starts.attempt(settings.give_up_after, census.current.starting, now);
    let rollout = Rollout::of(demand, &census, settings, &wanted);

    let missing = wanted.count.saturating_sub(census.serving());
    let asked = missing.saturating_add(rollout.replacements);
    let places = most(settings, census.any_outdated).saturating_sub(census.total);
    let allowed = attempt.of(asked.min(places));
    let start = room.of(allowed);

    let reason = if asked == 0 || (start > 0 && missing > 0) {
        wanted.reason
    } else if start > 0 {
        Reason::Rollout {
            outdated: census.outdated.serving(),
        }
    } else if let Some(reason) = attempt.refusal(now) {
        reason
    } else if places == 0 {
        Reason::AtMaximum {
            max: settings.workers_max,
        }
    } else {
        Reason::NoRoom { missing: allowed }
    };

    let blocked = asked > 0 && start == 0 && attempt == Attempt::Free;
    let (stop, next_idle_at) = leaves::Leaves {
        demand,
        census: &census,
        settings,
        want: wanted.count,
        failing: starts.failed_in_a_row > 0,
        gives_way: blocked && rollout.may_give_way,
        now,
    }
    .of(fleet);
    let held_until = if asked > 0 {
        attempt.again_at()
    } else {
        Timestamp::NEVER
    };
    Plan {
        start,
        stop,
        want: wanted.count,
        throttled: allowed.min(missing).saturating_sub(start),
        reason,
        again_at: wanted.again_at.min(held_until).min(next_idle_at),
    }
}

/// How many workers may exist at most.
fn most(settings: &Settings, any_outdated: bool) -> u32 {
    let max = settings.workers_max;
    // A paused endpoint replaces nobody.
    if any_outdated && max > 0 {
        max.saturating_add(settings.surge)
    } else {
        max
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers_min: 0,
            workers_max: limits::WORKERS_MAX,
            scaler: Scaler::QueueDelay {
                ms: u64::from(limits::SCALER_VALUE) * 1000,
            },
            idle_timeout_ms: limits::IDLE_TIMEOUT_MS,
            surge: limits::SURGE,
            give_up_after: limits::GIVE_UP_AFTER,
        }
    }
}

#[cfg(test)]
mod tests;
