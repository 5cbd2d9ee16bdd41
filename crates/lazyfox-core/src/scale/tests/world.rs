//! A small world around [`plan`]: jobs arrive, workers start after some time or fail to, take jobs,
//! finish them and stop. Time jumps from event to event. The plan is asked before and after jobs are
//! handed out, as in a server where neither waits for the other.

use std::collections::VecDeque;

use super::*;

/// What is sent when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) at_ms: u64,
    pub(super) run_ms: u64,
    pub(super) low: bool,
}

pub(super) struct Worker {
    pub(super) member: Member,
    /// When its start is over, and whether it failed.
    ready_at: Timestamp,
    fails: bool,
    /// Whether it was asked to stop, and when that is over.
    is_leaving: bool,
    gone_at: Timestamp,
    /// When each of its jobs ends.
    jobs: Vec<Timestamp>,
}

pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) start_ms: u64,
    pub(super) stop_ms: u64,
    pub(super) slots: u32,
    /// How many workers fit on the machine.
    pub(super) places: Option<u32>,
    /// Whether starts of the current release fail.
    pub(super) fails: bool,
    pub(super) starts: Starts,
    pub(super) now: Timestamp,
    pub(super) started: u32,
    pub(super) served: usize,
    /// What the plan said last.
    pub(super) last: Option<Plan>,
    /// Workers that were there, after every change.
    pub(super) sizes: Vec<u32>,
    pub(super) arrivals: VecDeque<Arrival>,
    pub(super) lanes: [VecDeque<(Timestamp, u64)>; 2],
    pub(super) workers: Vec<Worker>,
}

impl World {
    pub(super) fn new(settings: Settings, arrivals: &[Arrival]) -> Self {
        let mut arrivals = arrivals.to_vec();
        arrivals.sort_by_key(|arrival| arrival.at_ms);
        Self {
            settings,
            start_ms: 3_000,
            stop_ms: 500,
            slots: 1,
            places: None,
            fails: false,
            starts: Starts::default(),
            now: NOW,
            started: 0,
            served: 0,
            last: None,
            sizes: Vec::new(),
            arrivals: arrivals.into(),
            lanes: Default::default(),
            workers: Vec::new(),
        }
    }

    /// How many jobs will come.
    pub(super) fn expected(&self) -> usize {
        self.arrivals.len()
    }

    /// No job ever comes, but these workers are there; who is busy will be for five seconds more.
    pub(super) fn arrive_nothing(&mut self, fleet: Vec<Member>) {
        self.arrivals.clear();
        self.workers = fleet
            .into_iter()
            .map(|member| self.seated(member))
            .collect();
    }

    fn seated(&self, member: Member) -> Worker {
        let is_leaving = member.phase == Phase::Stopping;
        let is_busy = matches!(member.phase, Phase::Busy { .. });
        Worker {
            ready_at: self.now.plus_ms(self.start_ms),
            fails: false,
            is_leaving,
            gone_at: if is_leaving {
                self.now.plus_ms(self.stop_ms)
            } else {
                Timestamp::NEVER
            },
            jobs: if is_busy {
                vec![self.now.plus_ms(5_000)]
            } else {
                Vec::new()
            },
            member,
        }
    }

    /// Somebody gets a job that never ends.
    pub(super) fn get_stuck(&mut self) {
        let worker = self.workers.first_mut().unwrap();
        worker.jobs.push(Timestamp::from_ms(i64::MAX - 1));
        worker.member.phase = Phase::Busy { since: self.now };
    }

    /// A newer release: everybody who is there is outdated.
    pub(super) fn release(&mut self) {
        for worker in &mut self.workers {
            worker.member.outdated = true;
        }
        self.starts = Starts::default();
    }

    pub(super) fn submit(&mut self, run_ms: u64, low: bool) {
        self.lanes[usize::from(low)].push_back((self.now, run_ms));
    }

    pub(super) fn ready(&self) -> u32 {
        self.count(|member| matches!(member.phase, Phase::Idle { .. } | Phase::Busy { .. }))
    }

    pub(super) fn count(&self, is: impl Fn(&Member) -> bool) -> u32 {
        let found = self.workers.iter().filter(|worker| is(&worker.member));
        u32::try_from(found.count()).unwrap()
    }

    pub(super) fn waiting(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    pub(super) fn is_rolling(&self) -> bool {
        self.count(|member| member.outdated) > 0
    }

    /// Lives until nothing will ever happen, or until this many milliseconds after the beginning; looks
    /// at itself after every event.
    pub(super) fn live(&mut self, until_ms: u64, mut look: impl FnMut(&Self)) {
        let until = NOW.plus_ms(until_ms);
        loop {
            self.happen();
            self.act();
            self.hand_out();
            let mut rounds = 0;
            while self.act() {
                self.hand_out();
                rounds += 1;
                assert!(rounds < 50, "the plan keeps changing its mind");
            }
            look(self);
            let next = self.next_at();
            if next > until || next == Timestamp::NEVER {
                self.now = until;
                return;
            }
            assert!(next > self.now, "an event of the past");
            self.now = next;
        }
    }

    fn next_at(&self) -> Timestamp {
        let plan_at = self.last.as_ref().map(|plan| plan.again_at);
        let arrival_at = self.arrivals.front().map(|it| NOW.plus_ms(it.at_ms));
        let workers = self.workers.iter().flat_map(|worker| {
            let start = (worker.member.phase == Phase::Starting).then_some(worker.ready_at);
            let ends = worker.jobs.iter().copied();
            ends.chain(start).chain([worker.gone_at])
        });
        let next = workers.chain(plan_at).chain(arrival_at).min();
        next.unwrap_or(Timestamp::NEVER)
    }

    /// Everything that is due by itself.
    fn happen(&mut self) {
        let now = self.now;
        while let Some(arrival) = self
            .arrivals
            .pop_front_if(|it| NOW.plus_ms(it.at_ms) <= now)
        {
            self.submit(arrival.run_ms, arrival.low);
        }
        for worker in &mut self.workers {
            let held = worker.jobs.len();
            worker.jobs.retain(|&ends_at| ends_at > now);
            self.served += held - worker.jobs.len();
            if worker.jobs.is_empty() && held > 0 {
                if worker.is_leaving {
                    worker.gone_at = now.plus_ms(self.stop_ms);
                } else {
                    worker.member.phase = Phase::Idle { since: now };
                }
            }
            if worker.member.phase == Phase::Starting && worker.ready_at <= now {
                if worker.fails {
                    worker.gone_at = now;
                    self.starts.failed_in_a_row += 1;
                    self.starts.last_failed_at = Some(now);
                } else {
                    worker.member.phase = Phase::Idle { since: now };
                    self.starts = Starts::default();
                }
            }
        }
        self.workers.retain(|worker| worker.gone_at > now);
    }

    /// Whoever was idle for longest gets the next job, those of the normal lane first.
    fn hand_out(&mut self) {
        let now = self.now;
        self.workers
            .sort_by_key(|worker| match worker.member.phase {
                Phase::Idle { since } => since,
                Phase::Starting | Phase::Busy { .. } | Phase::Stopping => Timestamp::NEVER,
            });
        let slots = usize::try_from(self.slots).unwrap();
        for worker in &mut self.workers {
            let takes = matches!(worker.member.phase, Phase::Idle { .. } | Phase::Busy { .. });
            while takes && worker.jobs.len() < slots {
                let [normal, low] = &mut self.lanes;
                let Some((_, run_ms)) = normal.pop_front().or_else(|| low.pop_front()) else {
                    return;
                };
                worker.jobs.push(now.plus_ms(run_ms.max(1)));
                worker.member.phase = Phase::Busy { since: now };
            }
        }
    }

    pub(super) fn demand(&self) -> Demand {
        let [normal, low] = &self.lanes;
        let running: usize = self.workers.iter().map(|worker| worker.jobs.len()).sum();
        Demand {
            queued: normal.len() as u64,
            queued_low: low.len() as u64,
            running: running as u64,
            oldest_queued_at: normal.front().map(|(at, _)| *at),
        }
    }

    /// Does what the plan says, and checks that it may be done. Whether it said anything.
    fn act(&mut self) -> bool {
        let fleet: Vec<Member> = self.workers.iter().map(|it| it.member.clone()).collect();
        let total = u32::try_from(fleet.len()).unwrap();
        let room = Room(self.places.map(|places| places.saturating_sub(total)));
        let (demand, settings) = (self.demand(), self.settings);
        let ask = || plan(&demand, &fleet, &settings, &self.starts, room, self.now);
        let plan = ask();
        assert_eq!(plan, ask(), "the same question has the same answer");
        self.check(&plan, total, room);

        for leave in &plan.stop {
            let mut workers = self.workers.iter_mut();
            let worker = workers.find(|it| it.member.worker == leave.worker).unwrap();
            worker.member.phase = Phase::Stopping;
            worker.is_leaving = true;
            if worker.jobs.is_empty() {
                worker.gone_at = self.now.plus_ms(self.stop_ms);
            }
        }
        for _ in 0..plan.start {
            self.started += 1;
            let mut member = member(self.started as usize, Phase::Starting, self.now);
            member.slots = self.slots;
            self.workers.push(Worker {
                member,
                ready_at: self.now.plus_ms(self.start_ms),
                fails: self.fails,
                is_leaving: false,
                gone_at: Timestamp::NEVER,
                jobs: Vec::new(),
            });
        }
        let acted = plan.start > 0 || !plan.stop.is_empty();
        if acted {
            self.sizes.push(u32::try_from(self.workers.len()).unwrap());
        }
        self.last = Some(plan);
        acted
    }

    /// What holds for every plan, whatever the world is like.
    fn check(&self, plan: &Plan, total: u32, room: Room) {
        let Settings {
            workers_min,
            workers_max,
            surge,
            ..
        } = self.settings;
        let min = workers_min.min(workers_max);
        let surge = if self.is_rolling() { surge } else { 0 };
        assert!(
            plan.start == 0 || total + plan.start <= workers_max + surge,
            "above the maximum"
        );
        assert!(room.0.is_none_or(|room| plan.start <= room), "no room");
        assert!(
            (min..=workers_max).contains(&plan.want),
            "want is out of bounds"
        );
        assert!(plan.again_at > self.now, "the past");
        let why_in = |reasons: &[&str]| reasons.contains(&plan.reason.as_str());
        let causes = [
            "first_job",
            "queue_delay",
            "request_count",
            "workers_min",
            "rollout",
        ];
        // What is wanted is cut by the maximum at times, and some are started all the same.
        assert!(
            plan.start == 0 || why_in(&causes) || why_in(&["at_maximum"]),
            "{plan:?}"
        );

        for leave in &plan.stop {
            let worker = self
                .workers
                .iter()
                .find(|it| it.member.worker == leave.worker);
            let member = &worker.unwrap().member;
            let is_idle = matches!(member.phase, Phase::Idle { .. });
            assert!(
                is_idle || (leave.why == Reason::Outdated && member.outdated),
                "{leave:?}"
            );
        }
        let gives_way = self.is_rolling() && (surge == 0 || self.places.is_some());
        let stops = u32::try_from(plan.stop.len()).unwrap();
        assert!(
            stops == 0 || gives_way || self.ready() - stops >= plan.want,
            "fewer can take jobs than are wanted: {plan:?}"
        );
    }
}
