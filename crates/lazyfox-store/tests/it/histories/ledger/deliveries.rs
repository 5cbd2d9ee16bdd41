//! The promises about deliveries: each end that is to be reported has one, under an id that never changes and
//! never comes twice; what is settled stays settled until somebody wants it sent again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lazyfox_core::delivery::{Next, State};
use lazyfox_core::id::{DeliveryId, EndpointId, JobId};
use lazyfox_core::job::Job;
use lazyfox_core::limits;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::Bounds;
use lazyfox_store::{
    Delivery, DeliveryQuery, Due, Outbox, Outgoing, Redelivery, Settlement, Webhook,
};

use crate::world::{ROOM, input_of};

#[derive(Default)]
pub(super) struct Deliveries {
    /// By number: in the order in which the jobs ended.
    kept: BTreeMap<u64, Kept>,
    last: u64,
    ids: BTreeSet<DeliveryId>,
}

struct Kept {
    endpoint: EndpointId,
    listed: Delivery,
    /// Tries since the end, or since somebody wanted it sent again.
    round: u32,
    keep_until: Timestamp,
    /// Whether the end that it reports is still how the job ended.
    is_current: bool,
}

/// What an outbox was asked beside.
pub(crate) struct Asked {
    pub(crate) bounds: Bounds,
    /// A host that is left alone, and until when.
    pub(crate) silent: Option<(&'static str, Timestamp)>,
    pub(crate) now: Timestamp,
}

impl Asked {
    /// Until when the host of a delivery is left alone.
    fn silence_of(&self, kept: &Kept) -> Option<Timestamp> {
        let (host, until) = self.silent?;
        (host == kept.host()).then_some(until)
    }
}

impl Kept {
    fn host(&self) -> &str {
        &self.listed.webhook.host
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.listed.due_at.is_some_and(|at| at <= now)
    }
}

impl Deliveries {
    fn of(&mut self, job: JobId) -> impl Iterator<Item = &mut Kept> {
        let kept = self.kept.values_mut();
        kept.filter(move |kept| kept.listed.id.job == job)
    }

    /// A job ended, and is to be reported.
    pub(super) fn ended(&mut self, job: &Job, webhook: Webhook, output: Option<&Bytes>) {
        let number = self.of(job.id).count() + 1;
        let id = DeliveryId {
            job: job.id,
            number: u32::try_from(number).unwrap(),
        };
        assert!(self.ids.insert(id), "{id} came twice");
        let created_at = job.state.end().unwrap().at;
        let bytes = input_of(job.id).len() + output.map_or(0, Bytes::len);
        let listed = Delivery {
            id,
            state: State::Pending,
            webhook,
            bytes: bytes as u64,
            created_at,
            due_at: Some(created_at),
            tries: Vec::new(),
        };
        let kept = Kept {
            endpoint: job.endpoint.clone(),
            listed,
            round: 0,
            keep_until: Timestamp::NEVER,
            is_current: true,
        };
        self.last += 1;
        self.kept.insert(self.last, kept);
    }

    pub(super) fn retried(&mut self, job: JobId) {
        for kept in self.of(job) {
            kept.is_current = false;
            if kept.listed.state == State::Pending {
                kept.listed.state = State::Withdrawn;
                kept.listed.due_at = None;
                kept.keep_until = kept.listed.created_at;
            }
        }
    }

    pub(super) fn forgotten(&mut self, job: JobId) {
        self.kept.retain(|_, kept| kept.listed.id.job != job);
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn nth(&self, n: u64) -> Option<DeliveryId> {
        let n = usize::try_from(n).unwrap().checked_rem(self.ids.len())?;
        self.ids.iter().nth(n).copied()
    }

    pub(super) fn number(&self, id: DeliveryId) -> u64 {
        let found = self.kept.iter().find(|(_, kept)| kept.listed.id == id);
        *found.expect("no store makes up a delivery").0
    }

    /// As it was due last.
    pub(super) fn due(&self, number: u64) -> Option<Due> {
        let kept = self.kept.get(&number)?;
        Some(Due {
            number,
            endpoint: kept.endpoint.clone(),
            host: kept.host().into(),
            bytes: kept.listed.bytes,
            due_at: kept.listed.due_at.unwrap_or(kept.listed.created_at),
        })
    }

    pub(super) fn round(&self, number: u64) -> u32 {
        self.kept.get(&number).map_or(0, |kept| kept.round)
    }

    pub(super) fn settled(&mut self, settlement: &Settlement) {
        let Some(kept) = self.kept.get_mut(&settlement.due.number) else {
            return;
        };
        kept.listed.tries.push(settlement.made.clone());
        if kept.listed.state != State::Pending || kept.round != settlement.round {
            return;
        }
        kept.round += 1;
        kept.listed.state = settlement.next.state();
        kept.listed.due_at = match settlement.next {
            Next::Again(at) => Some(at),
            Next::Delivered | Next::GaveUp => None,
        };
        kept.keep_until = settlement.keep_until;
    }

    pub(super) fn redelivered(
        &mut self,
        on: &EndpointId,
        id: DeliveryId,
        became: Redelivery,
        now: Timestamp,
    ) {
        let mut of_job = self.of(id.job);
        let found = of_job.find(|kept| kept.listed.id == id && kept.endpoint == *on);
        let Some(kept) = found else {
            assert_eq!(became, Redelivery::Unknown);
            return;
        };
        if !kept.is_current {
            assert_eq!(became, Redelivery::Outdated);
            return;
        }
        assert_eq!(became, Redelivery::Due);
        kept.listed.state = State::Pending;
        kept.listed.due_at = Some(now);
        kept.round = 0;
    }

    /// How long a job's deliveries need its record.
    pub(super) fn wanted_until(&self, job: JobId) -> Timestamp {
        let kept = self.kept.values();
        let until = kept.filter(|kept| kept.listed.id.job == job);
        let until = until.map(|kept| match kept.listed.state {
            State::Pending => Timestamp::NEVER,
            State::Delivered | State::Failed | State::Withdrawn => kept.keep_until,
        });
        until.max().unwrap_or(Timestamp::from_ms(0))
    }

    /// Whether the present end of a job is or was reported.
    pub(super) fn report(&self, job: &Job) -> bool {
        let mut kept = self.kept.values();
        kept.any(|kept| kept.listed.id.job == job.id && kept.is_current)
    }

    pub(super) fn listed(&self, query: &DeliveryQuery) -> Vec<Delivery> {
        let newest_first = self.kept.values().rev();
        let meant = newest_first.filter(|kept| {
            let listed = &kept.listed;
            kept.endpoint == query.endpoint
                && query.job.is_none_or(|job| listed.id.job == job)
                && query.state.is_none_or(|state| listed.state == state)
                && query.created.contains(&listed.created_at)
        });
        meant.map(|kept| kept.listed.clone()).collect()
    }

    pub(super) fn check_outgoing(&self, number: u64, outgoing: Option<&Outgoing>) {
        let kept = self.kept.get(&number);
        let open = kept.filter(|kept| kept.listed.state == State::Pending);
        let sent = outgoing.map(|it| (it.id, it.round, &it.url));
        let meant = open.map(|it| (it.listed.id, it.round, &it.listed.webhook.url));
        assert_eq!(sent, meant);
    }

    pub(super) fn check_outbox(&self, outbox: &Outbox, asked: &Asked) {
        let mut seen = BTreeSet::new();
        for due in outbox.due.iter().chain(&outbox.held) {
            assert!(seen.insert(due.number), "twice at once");
            self.check_due(due, asked);
        }
        let over = |kept: &Kept| {
            let due_at = kept.listed.due_at.unwrap_or(Timestamp::NEVER);
            due_at.plus_ms(limits::WEBHOOK_HOLD_MS) <= asked.now
        };
        let waits_too_long = |kept: &&Kept| asked.silence_of(kept).is_some() && over(kept);
        let held = self.kept.values().filter(waits_too_long).count();
        assert_eq!(outbox.held.len(), held);

        let may_go = |kept: &&Kept| asked.silence_of(kept).is_none() && kept.is_due(asked.now);
        let some = self.kept.values().filter(may_go).count();
        if asked.bounds == ROOM {
            assert_eq!(outbox.due.len(), some, "there is room for all");
            self.check_turns(&outbox.due, asked);
        } else {
            let Bounds {
                in_all, per_host, ..
            } = asked.bounds;
            assert!(outbox.due.len() <= in_all);
            for due in &outbox.due {
                let to_host = outbox.due.iter().filter(|it| it.host == due.host);
                assert!(to_host.count() <= per_host);
            }
            assert!(some == 0 || !outbox.due.is_empty(), "there is a place");
        }
        assert_eq!(outbox.next, self.next(asked));
    }

    fn check_due(&self, due: &Due, asked: &Asked) {
        let kept = &self.kept[&due.number];
        assert!(kept.is_due(asked.now));
        assert_eq!((&due.endpoint, &*due.host), (&kept.endpoint, kept.host()));
        assert_eq!(due.bytes, kept.listed.bytes);
    }

    /// The longest due of an endpoint and host goes first, and both take turns.
    fn check_turns(&self, due: &[Due], asked: &Asked) {
        let mut lanes: BTreeMap<(&EndpointId, &str), Vec<(Timestamp, u64)>> = BTreeMap::new();
        for (&number, kept) in &self.kept {
            if let Some(at) = kept.listed.due_at.filter(|at| *at <= asked.now)
                && asked.silence_of(kept).is_none()
            {
                let lane = lanes.entry((&kept.endpoint, kept.host())).or_default();
                lane.push((at, number));
            }
        }
        for lane in lanes.values_mut() {
            lane.sort_unstable();
            lane.reverse();
        }
        let mut gone: BTreeMap<(&EndpointId, &str), usize> = BTreeMap::new();
        for due in due {
            let turn = (&due.endpoint, &*due.host);
            let of_lane = |lane| gone.get(&lane).copied().unwrap_or_default();
            let of_endpoint = |endpoint: &EndpointId| -> usize {
                let gone = gone.iter().filter(|((of, _), _)| *of == endpoint);
                gone.map(|(_, count)| count).sum()
            };
            for (&lane, left) in &lanes {
                assert!(left.is_empty() || of_endpoint(lane.0) >= of_endpoint(turn.0));
                let same = lane.0 == turn.0;
                assert!(left.is_empty() || !same || of_lane(lane) >= of_lane(turn));
            }
            let next = lanes.get_mut(&turn).and_then(Vec::pop);
            assert_eq!(next.map(|(_, number)| number), Some(due.number));
            *gone.entry(turn).or_default() += 1;
        }
    }

    fn next(&self, asked: &Asked) -> Timestamp {
        let others_due = |of: &Kept| {
            let mut kept = self.kept.values();
            kept.any(|it| {
                (&it.endpoint, it.host()) == (&of.endpoint, of.host()) && it.is_due(asked.now)
            })
        };
        let open = self
            .kept
            .values()
            .filter(|kept| kept.listed.due_at.is_some());
        let next = open.filter_map(|kept| match asked.silence_of(kept) {
            Some(until) if others_due(kept) => Some(until),
            Some(_) | None => kept.listed.due_at.filter(|at| *at > asked.now),
        });
        next.min().unwrap_or(Timestamp::NEVER)
    }
}
