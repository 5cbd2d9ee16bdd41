//! How many workers an endpoint should have. A pure function of what waits, who is there, and the
//! settings; the pass that calls it logs the decision with these inputs.

use crate::id::WorkerId;
use crate::limits;
use crate::time::Timestamp;

/// How an endpoint scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Workers that are always kept.
    pub workers_min: u32,
    /// Workers that are never exceeded; 0 pauses the endpoint.
    pub workers_max: u32,
    /// What makes it grow.
    pub scaler: Scaler,
    /// How long a worker without work stays.
    pub idle_timeout_ms: u64,
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
    Busy,
    /// Is asked to stop; takes no jobs, but exists and counts against the maximum.
    Stopping,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Workers to start.
    pub start: u32,
    /// Workers to stop, all idle.
    pub stop: Vec<WorkerId>,
    /// When time alone will change the plan.
    pub again_at: Timestamp,
}

/// Decides. `hold_until` is when a start may be tried again after starts that failed.
#[must_use]
pub fn plan(
    demand: &Demand,
    fleet: &[Member],
    settings: &Settings,
    hold_until: Option<Timestamp>,
    now: Timestamp,
) -> Plan {
    let here = count(fleet, |phase| !matches!(phase, Phase::Stopping));
    let (want, look_again_at) = wanted(demand, fleet, settings, here, now);
    let mut again_at = look_again_at;

    let want = want.clamp(
        settings.workers_min.min(settings.workers_max),
        settings.workers_max,
    );
    let room = settings.workers_max.saturating_sub(size(fleet.len()));
    let mut start = want.saturating_sub(here).min(room);
    if start > 0
        && let Some(hold_until) = hold_until.filter(|&until| until > now)
    {
        start = 0;
        again_at = again_at.min(hold_until);
    }

    let (stop, next_idle_at) = stops(demand, fleet, settings, want, here, now);
    Plan {
        start,
        stop,
        again_at: again_at.min(next_idle_at),
    }
}

/// How many workers the scaler asks for, before the bounds, and when that changes by itself.
fn wanted(
    demand: &Demand,
    fleet: &[Member],
    settings: &Settings,
    here: u32,
    now: Timestamp,
) -> (u32, Timestamp) {
    match settings.scaler {
        Scaler::RequestCount { per_worker } => {
            let jobs = demand.queued.saturating_add(demand.running);
            let want = jobs.div_ceil(u64::from(per_worker.max(1)));
            (u32::try_from(want).unwrap_or(u32::MAX), Timestamp::NEVER)
        }
        Scaler::QueueDelay { ms } => {
            let Some(oldest) = demand.oldest_queued_at.filter(|_| demand.queued > 0) else {
                return (
                    count(fleet, |phase| matches!(phase, Phase::Busy)),
                    Timestamp::NEVER,
                );
            };
            if here == 0 {
                return (1, Timestamp::NEVER);
            }
            // Each worker that is starting or idle will take one of the waiting jobs.
            let coming = count(fleet, |phase| {
                matches!(phase, Phase::Starting | Phase::Idle { .. })
            });
            if u64::from(coming) >= demand.queued {
                return (here, Timestamp::NEVER);
            }
            // One step per delay: from the wait of the oldest job, and from the last start.
            let last_start = fleet
                .iter()
                .map(|member| member.started_at)
                .max()
                .unwrap_or(oldest);
            let due = oldest.max(last_start).plus_ms(ms.max(1));
            if due <= now {
                (here.saturating_add(1), now.plus_ms(ms.max(1)))
            } else {
                (here, due)
            }
        }
    }
}

/// Idle workers to stop, and when the next one's idle time will be over.
fn stops(
    demand: &Demand,
    fleet: &[Member],
    settings: &Settings,
    want: u32,
    here: u32,
    now: Timestamp,
) -> (Vec<WorkerId>, Timestamp) {
    let mut idle: Vec<(Timestamp, &Member)> = fleet
        .iter()
        .filter_map(|member| match member.phase {
            Phase::Idle { since } => Some((since, member)),
            Phase::Starting | Phase::Busy | Phase::Stopping => None,
        })
        .collect();
    idle.sort_by(|a, b| (a.0, &a.1.worker).cmp(&(b.0, &b.1.worker)));

    let floor = settings.workers_min.min(settings.workers_max).max(want);
    let mut over_max = here.saturating_sub(settings.workers_max);
    let mut spare = here.saturating_sub(floor);
    // A job that waits will be taken by an idle worker in a moment; low ones too.
    let work_waits = demand.queued > 0 || demand.queued_low > 0;

    let mut stop = Vec::new();
    let mut next_idle_at = Timestamp::NEVER;
    for (since, member) in idle {
        let idle_until = since.plus_ms(settings.idle_timeout_ms);
        if over_max > 0 {
            over_max -= 1;
            spare = spare.saturating_sub(1);
            stop.push(member.worker.clone());
        } else if spare > 0 && !work_waits {
            spare -= 1;
            if idle_until <= now {
                stop.push(member.worker.clone());
            } else {
                next_idle_at = next_idle_at.min(idle_until);
            }
        }
    }
    (stop, next_idle_at)
}

fn count(fleet: &[Member], is: impl Fn(&Phase) -> bool) -> u32 {
    size(fleet.iter().filter(|member| is(&member.phase)).count())
}

fn size(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Pauses between starts that fail one after the other: 5 s, 15 s, 1 min, then every 5 min.
#[must_use]
pub fn hold_off_ms(failures_in_a_row: u32) -> u64 {
    match failures_in_a_row {
        0 => 0,
        1 => 5_000,
        2 => 15_000,
        3 => 60_000,
        _ => 300_000,
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
        }
    }
}

#[cfg(test)]
mod tests;
