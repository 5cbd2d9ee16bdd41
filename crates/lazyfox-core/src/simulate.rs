//! What a plan would have done: the jobs of a trace, run through [`scale::plan`] in a world where workers
//! start after some time and jobs take as long as they took. Time jumps from event to event.
//!
//! What it leaves out: starts that fail, releases, times to live, and the moments between a worker's end of
//! one job and its asking for the next. A worker that is told to stop is gone at once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::id::WorkerId;
use crate::scale::{self, Demand, Member, Phase, Room, Settings, Starts};
use crate::time::Timestamp;

/// A job of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it came, in milliseconds from any beginning.
    pub at_ms: u64,
    /// How long it runs.
    pub run_ms: u64,
    /// Of low priority: it starts no worker.
    pub low: bool,
}

/// Jobs in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    arrivals: Vec<Arrival>,
}

impl Trace {
    /// Of jobs in any order; those of the same time keep theirs.
    #[must_use]
    pub fn new(mut arrivals: Vec<Arrival>) -> Self {
        arrivals.sort_by_key(|arrival| arrival.at_ms);
        Self { arrivals }
    }

    /// The jobs, the first one first.
    #[must_use]
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }
}

/// Where the trace is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// How long a worker takes from its start until it asks for a job.
    pub start_ms: u64,
    /// Jobs that a worker takes at once; at least 1.
    pub slots: u32,
    /// The endpoint's.
    pub settings: Settings,
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many workers there were, from each time on at which that changed. The first one is of the time
    /// at which the first job came; the minimum is there by then.
    pub steps: Vec<Step>,
    /// When the last thing happened.
    pub ends_at_ms: u64,
    /// How long jobs of the normal lane waited.
    pub wait: Waits,
    /// How long those of low priority did.
    pub wait_low: Waits,
    /// Milliseconds of workers that were there, starting ones included: what they cost.
    pub worker_ms: u64,
    /// Of these, milliseconds of workers that had a job.
    pub busy_ms: u64,
    /// Workers that were started, beside those that were there at the beginning.
    pub starts: u32,
    /// Jobs that were run.
    pub served: u64,
    /// Jobs that still wait, because nothing would ever start a worker for them.
    pub left: u64,
    /// Workers at most.
    pub workers_most: u32,
}

/// A change of the number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at_ms: u64,
    /// Workers from then on, starting ones included.
    pub workers: u32,
}

/// How long jobs waited, of those that were run; zero where there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// How many there were.
    pub jobs: u64,
    /// Half of them waited no longer.
    pub p50_ms: u64,
    /// All but one in twenty waited no longer.
    pub p95_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

impl Waits {
    fn of(mut waits: Vec<u64>) -> Self {
        let jobs = waits.len();
        let mut rank = |percent: usize| {
            let nth = (jobs * percent).div_ceil(100).saturating_sub(1);
            if jobs == 0 {
                return 0;
            }
            let (_, wait_ms, _) = waits.select_nth_unstable(nth);
            *wait_ms
        };
        Self {
            jobs: jobs as u64,
            p50_ms: rank(50),
            p95_ms: rank(95),
            max_ms: rank(100),
        }
    }
}

/// Runs the trace.
#[must_use]
pub fn simulate(trace: &Trace, world: &World) -> Outcome {
    let Some(first) = trace.arrivals.first() else {
        return Outcome::default();
    };
    let mut run = Run::new(world, first.at_ms);
    let mut arrivals = trace.arrivals.iter().peekable();
    loop {
        while let Some(arrival) = arrivals.next_if(|it| it.at_ms <= run.now_ms) {
            run.lane(arrival.low).push_back(*arrival);
        }
        run.hand_out();
        let again_at_ms = run.scale();
        let arrival_at_ms = arrivals.peek().map(|it| it.at_ms);
        let event_at_ms = run.events.peek().map(|Reverse(event)| event.at_ms);
        let next = [arrival_at_ms, event_at_ms, again_at_ms];
        let Some(next_ms) = next.into_iter().flatten().min() else {
            return run.outcome();
        };
        run.pass_until(next_ms);
    }
}

/// Something that will happen to a worker.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at_ms: u64,
    what: What,
    key: u32,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Ready,
    Finished,
}

struct Run<'w> {
    world: &'w World,
    slots: u32,
    now_ms: u64,
    /// The fleet as the plan sees it, and beside it each worker's number and how many jobs it has.
    fleet: Vec<Member>,
    held: Vec<(u32, u32)>,
    /// Workers with a free slot, in the order in which they began to ask. Some may be gone.
    asking: VecDeque<u32>,
    lanes: [VecDeque<Arrival>; 2],
    events: BinaryHeap<Reverse<Event>>,
    running: u64,
    busy: u64,
    next_key: u32,
    waits: [Vec<u64>; 2],
    outcome: Outcome,
}

impl<'w> Run<'w> {
    fn new(world: &'w World, now_ms: u64) -> Self {
        let mut run = Self {
            world,
            slots: world.slots.max(1),
            now_ms,
            fleet: Vec::new(),
            held: Vec::new(),
            asking: VecDeque::new(),
            lanes: Default::default(),
            events: BinaryHeap::new(),
            running: 0,
            busy: 0,
            next_key: 0,
            waits: Default::default(),
            outcome: Outcome::default(),
        };
        let settings = &world.settings;
        for _ in 0..settings.workers_min.min(settings.workers_max) {
            let key = run.join(Phase::Idle { since: run.now() });
            run.asking.push_back(key);
        }
        run.note_size();
        run
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(i64::try_from(self.now_ms).unwrap_or(i64::MAX))
    }

    fn lane(&mut self, low: bool) -> &mut VecDeque<Arrival> {
        let [normal, low_lane] = &mut self.lanes;
        if low { low_lane } else { normal }
    }

    fn join(&mut self, phase: Phase) -> u32 {
        let key = self.next_key;
        self.next_key += 1;
        self.fleet.push(Member {
            worker: name(key),
            started_at: self.now(),
            phase,
            outdated: false,
            slots: self.slots,
        });
        self.held.push((key, 0));
        key
    }

    /// The worker of this number, unless it is gone.
    fn worker(&mut self, key: u32) -> Option<(&mut Member, &mut u32)> {
        let mut pairs = self.fleet.iter_mut().zip(&mut self.held);
        let (member, (_, jobs)) = pairs.find(|(_, (it, _))| *it == key)?;
        Some((member, jobs))
    }

    /// Moves the clock, and lets everything happen that is due by then.
    fn pass_until(&mut self, at_ms: u64) {
        let passed_ms = at_ms - self.now_ms;
        let passed = |workers: u64| passed_ms.saturating_mul(workers);
        let outcome = &mut self.outcome;
        outcome.worker_ms = outcome
            .worker_ms
            .saturating_add(passed(self.fleet.len() as u64));
        outcome.busy_ms = outcome.busy_ms.saturating_add(passed(self.busy));
        self.now_ms = at_ms;
        while let Some(Reverse(event)) = self.events.peek()
            && event.at_ms <= at_ms
        {
            let finished = event.what == What::Finished;
            let key = event.key;
            self.events.pop();
            if finished {
                self.finish(key);
            } else {
                self.ready(key);
            }
        }
    }

    fn ready(&mut self, key: u32) {
        let since = self.now();
        if let Some((member, _)) = self.worker(key) {
            member.phase = Phase::Idle { since };
            self.asking.push_back(key);
        }
    }

    fn finish(&mut self, key: u32) {
        let (since, slots) = (self.now(), self.slots);
        let Some((member, jobs)) = self.worker(key) else {
            return;
        };
        let was_full = *jobs == slots;
        *jobs -= 1;
        let is_free = *jobs == 0;
        if is_free {
            member.phase = Phase::Idle { since };
        }
        self.busy -= u64::from(is_free);
        if was_full {
            self.asking.push_back(key);
        }
        self.running -= 1;
        self.outcome.served += 1;
    }

    /// Whoever has asked for longest gets the next job, those of the normal lane first.
    fn hand_out(&mut self) {
        while self.lanes.iter().any(|lane| !lane.is_empty())
            && let Some(key) = self.asking.pop_front()
        {
            let (since, slots) = (self.now(), self.slots);
            let Some((member, jobs)) = self.worker(key) else {
                continue;
            };
            member.phase = Phase::Busy { since };
            *jobs += 1;
            let (was_free, asks_again) = (*jobs == 1, *jobs < slots);
            self.busy += u64::from(was_free);
            if asks_again {
                self.asking.push_back(key);
            }
            self.give(key);
        }
    }

    fn give(&mut self, key: u32) {
        let [normal, low] = &mut self.lanes;
        let Some(job) = normal.pop_front().or_else(|| low.pop_front()) else {
            return;
        };
        let [waits, waits_low] = &mut self.waits;
        let waits = if job.low { waits_low } else { waits };
        waits.push(self.now_ms - job.at_ms);
        self.running += 1;
        self.events.push(Reverse(Event {
            at_ms: self.now_ms.saturating_add(job.run_ms),
            what: What::Finished,
            key,
        }));
    }

    /// Does what the plan says until it says nothing more. Returns when time alone will change that.
    fn scale(&mut self) -> Option<u64> {
        let (starts, room) = (Starts::default(), Room::UNLIMITED);
        loop {
            let [normal, low] = &self.lanes;
            let oldest = normal.front().map(|job| job.at_ms);
            let demand = Demand {
                queued: normal.len() as u64,
                queued_low: low.len() as u64,
                running: self.running,
                oldest_queued_at: oldest.map(|ms| Timestamp::from_ms(ms.cast_signed())),
            };
            let (settings, now) = (&self.world.settings, self.now());
            let plan = scale::plan(&demand, &self.fleet, settings, &starts, room, now);
            if plan.start == 0 && plan.stop.is_empty() {
                let again_at = Some(plan.again_at).filter(|&at| at != Timestamp::NEVER);
                return again_at.map(|at| at.as_ms().unsigned_abs());
            }
            for leave in &plan.stop {
                let found = self.fleet.iter().position(|it| it.worker == leave.worker);
                if let Some(at) = found {
                    self.fleet.swap_remove(at);
                    self.held.swap_remove(at);
                }
            }
            for _ in 0..plan.start {
                let key = self.join(Phase::Starting);
                self.events.push(Reverse(Event {
                    at_ms: self.now_ms.saturating_add(self.world.start_ms),
                    what: What::Ready,
                    key,
                }));
            }
            self.outcome.starts += plan.start;
            self.note_size();
        }
    }

    fn note_size(&mut self) {
        let workers = u32::try_from(self.fleet.len()).unwrap_or(u32::MAX);
        let at_ms = self.now_ms;
        let outcome = &mut self.outcome;
        outcome.workers_most = outcome.workers_most.max(workers);
        match outcome.steps.last_mut() {
            Some(last) if last.at_ms == at_ms => last.workers = workers,
            Some(last) if last.workers == workers => {}
            Some(_) | None => outcome.steps.push(Step { at_ms, workers }),
        }
    }

    fn outcome(self) -> Outcome {
        let [waits, waits_low] = self.waits;
        let left: usize = self.lanes.iter().map(VecDeque::len).sum();
        Outcome {
            ends_at_ms: self.now_ms,
            wait: Waits::of(waits),
            wait_low: Waits::of(waits_low),
            left: left as u64,
            ..self.outcome
        }
    }
}

fn name(key: u32) -> WorkerId {
    let name = format!("w{key}");
    name.parse().expect("a letter and digits are a name")
}

#[cfg(test)]
mod tests;
