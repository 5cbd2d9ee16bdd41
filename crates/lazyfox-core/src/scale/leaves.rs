//! Who goes.

use std::cmp::Reverse;

use super::census::Census;
use super::{Demand, Leave, Member, Phase, Reason, Settings, most};
use crate::id::WorkerId;
use crate::time::Timestamp;

/// What it depends on.
pub(super) struct Leaves<'a> {
    pub(super) demand: &'a Demand,
    pub(super) census: &'a Census,
    pub(super) settings: &'a Settings,
    /// Workers that are to be left.
    pub(super) want: u32,
    /// Workers of the current release do not start: those of older ones stay as if they were current.
    pub(super) failing: bool,
    /// There is no room for a replacement: one outdated worker goes before it.
    pub(super) gives_way: bool,
    pub(super) now: Timestamp,
}

/// An idle worker. Those that go first are less than others: outdated ones, then those that were idle for
/// longest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Idle<'f> {
    stays: bool,
    since: Timestamp,
    worker: &'f WorkerId,
    outdated: bool,
}

impl Leaves<'_> {
    /// Who goes now, and when time alone will let the next one go. Whoever goes, as many can take jobs as
    /// are wanted; only one that gives way is missed.
    pub(super) fn of(&self, fleet: &[Member]) -> (Vec<Leave>, Timestamp) {
        let census = self.census;
        if census.current.idle == 0 && census.outdated.ready() == 0 {
            return (Vec::new(), Timestamp::NEVER);
        }
        let mut stop = Vec::new();
        let mut idle = self.idle(fleet);
        let spare = |gone: usize| {
            census
                .ready()
                .saturating_sub(self.want.saturating_add(as_count(gone)))
        };

        // Those that are starting may be too many already, and yet they are not there to take jobs.
        let most = most(self.settings, census.outdated.serving() > 0);
        let over = census.serving().saturating_sub(most).min(spare(0));
        let why = match self.settings.workers_max {
            0 => Reason::Paused,
            max => Reason::OverMaximum { max },
        };
        stop.extend(
            idle.drain(..as_size(over).min(idle.len()))
                .map(|it| it.leave(why)),
        );

        let to_go = as_size(self.outdated_to_go(spare(stop.len())));
        let idle_outdated = idle.iter().take_while(|it| !it.stays).count();
        let idle_to_go = to_go.min(idle_outdated);
        stop.extend(
            idle.drain(..idle_to_go)
                .map(|it| it.leave(Reason::Outdated)),
        );
        if self.never_idle() {
            let busy = busy_outdated(fleet).into_iter().take(to_go - idle_to_go);
            stop.extend(busy.map(|worker| Leave {
                worker: worker.clone(),
                why: Reason::Outdated,
            }));
        }

        let next_idle_at = self.timed_out(&idle, spare(stop.len()), &mut stop);
        (stop, next_idle_at)
    }

    /// Those that had no work for long enough. Returns when the next one will have had none.
    fn timed_out(&self, idle: &[Idle], mut spare: u32, stop: &mut Vec<Leave>) -> Timestamp {
        let mut next_idle_at = Timestamp::NEVER;
        if self.work_waits() {
            return next_idle_at;
        }
        // One that is to take the place of an outdated worker waits for it to finish, however long that
        // is: it would be replaced by another just like it.
        let min = self.settings.workers_min.min(self.settings.workers_max);
        let mut spare_current = self.census.current.ready().saturating_sub(min);
        for idle in idle {
            if spare == 0 || (!idle.outdated && spare_current == 0) {
                continue;
            }
            spare -= 1;
            spare_current -= u32::from(!idle.outdated);
            let idle_until = idle.since.plus_ms(self.settings.idle_timeout_ms);
            if idle_until <= self.now {
                let for_ms = self.now.ms_since(idle.since);
                stop.push(idle.leave(Reason::Idle { for_ms }));
            } else {
                next_idle_at = next_idle_at.min(idle_until);
            }
        }
        next_idle_at
    }

    /// How many outdated workers go, if so many can be found. `spare` can without being missed.
    fn outdated_to_go(&self, spare: u32) -> u32 {
        let free = match (self.demand.queued, self.demand.queued_low) {
            (0, 0) => true,
            // These jobs keep one worker, and start none.
            (0, _) => self.census.current.ready() > 0,
            // What is idle takes a job in a moment, unless more wait than can be taken.
            (..) => self.never_idle(),
        };
        let spare = if free && !self.failing { spare } else { 0 };
        spare.max(u32::from(self.gives_way))
    }

    /// More jobs wait than are about to be taken: whoever finishes one gets the next.
    fn never_idle(&self) -> bool {
        self.demand.queued > self.census.coming
    }

    /// A job that waits will be taken by an idle worker in a moment; low ones too.
    fn work_waits(&self) -> bool {
        self.demand.queued > 0 || self.demand.queued_low > 0
    }

    fn idle<'f>(&self, fleet: &'f [Member]) -> Vec<Idle<'f>> {
        let idle = fleet.iter().filter_map(|member| match member.phase {
            Phase::Idle { since } => Some(Idle {
                stays: self.failing || !member.outdated,
                since,
                worker: &member.worker,
                outdated: member.outdated,
            }),
            Phase::Starting | Phase::Busy { .. } | Phase::Stopping => None,
        });
        let mut idle: Vec<Idle> = idle.collect();
        idle.sort_unstable();
        idle
    }
}

impl Idle<'_> {
    fn leave(&self, why: Reason) -> Leave {
        let worker = self.worker.clone();
        Leave { worker, why }
    }
}

/// The one that got its job last comes first: it is the least likely to be stuck with it, and one that is
/// asked to go and never does is in the way of the others.
fn busy_outdated(fleet: &[Member]) -> Vec<&WorkerId> {
    let outdated = fleet.iter().filter(|member| member.outdated);
    let mut busy: Vec<_> = outdated
        .filter_map(|member| match member.phase {
            Phase::Busy { since } => Some((Reverse(since), &member.worker)),
            Phase::Starting | Phase::Idle { .. } | Phase::Stopping => None,
        })
        .collect();
    busy.sort_unstable();
    busy.into_iter().map(|(_, worker)| worker).collect()
}

fn as_count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn as_size(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
