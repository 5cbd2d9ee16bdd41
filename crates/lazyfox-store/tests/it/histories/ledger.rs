//! The promises, checked over a history by a bookkeeper that does not know how a store works: no accepted
//! job is lost, an end is final except through a retry, no job has two holders, results come from
//! the holder only, first attempts start in the order of submission, nobody pays for what others did to a
//! worker, and the numbers add up.

mod deliveries;
mod endpoints;
mod workers;

use std::collections::BTreeMap;

use bytes::Bytes;
use lazyfox_core::id::{DeliveryId, EndpointId, JobId, WorkerId};
use lazyfox_core::job::{self, Counter, Event, Job, Status};
use lazyfox_core::time::Timestamp;
use lazyfox_store::{
    Change, Delivery, DeliveryQuery, Due, Expired, Idempotency, Loaded, NewJob, Outbox, Outgoing,
    Redelivery, Settlement, Survey, Webhook,
};

pub(crate) use self::deliveries::Asked;
use self::deliveries::Deliveries;
use self::endpoints::Endpoints;
use crate::world::{input_of, without_lease};

/// A record that is kept for an open delivery's sake is looked at again so much later, at the latest.
const LOOK_AGAIN_MS: u64 = 10 * 60_000;

#[derive(Default)]
pub(crate) struct Ledger {
    /// In order of submission.
    entries: Vec<Entry>,
    counters: BTreeMap<(EndpointId, Counter), u64>,
    deliveries: Deliveries,
    endpoints: Endpoints,
}

struct Entry {
    job: Job,
    output: Option<Bytes>,
    secrets: Option<Vec<u8>>,
    webhook: Option<Webhook>,
    idempotency: Option<Idempotency>,
    attempts: u32,
    forgotten: bool,
}

impl Entry {
    fn holder(&self) -> Option<&WorkerId> {
        let attempt = self.job.state.last_attempt();
        attempt
            .filter(|_| self.job.status() == Status::InProgress)
            .map(|(worker, _)| worker)
    }

    /// Whether a poll of this worker may be answered with it.
    fn waits_for(&self, by: &WorkerId, now: Timestamp) -> bool {
        self.job.status() == Status::InQueue
            && self.job.expires_at > now
            && !self.job.barred.contains(by)
    }
}

impl Ledger {
    fn kept(&self, id: JobId) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.job.id == id && !entry.forgotten)
    }

    fn entry(&mut self, id: JobId) -> &mut Entry {
        let found = self
            .entries
            .iter_mut()
            .find(|entry| entry.job.id == id && !entry.forgotten);
        found.unwrap_or_else(|| panic!("{id} was never accepted, or is forgotten"))
    }

    fn by_key(&self, new: &NewJob) -> &Entry {
        let ours = new.idempotency.as_ref().unwrap();
        let found = self.entries.iter().find(|entry| {
            let theirs = entry.idempotency.as_ref();
            !entry.forgotten
                && entry.job.endpoint == new.job.endpoint
                && theirs.is_some_and(|theirs| theirs.key == ours.key)
        });
        found.expect("a key is only taken by a job that is kept")
    }

    pub(crate) fn holder(&self, id: JobId) -> Option<WorkerId> {
        self.kept(id).and_then(Entry::holder).cloned()
    }

    /// Since when its worker has it.
    pub(crate) fn since(&self, id: JobId) -> Option<Timestamp> {
        let attempt = self.kept(id)?.job.state.last_attempt();
        attempt.map(|(_, since)| since)
    }

    pub(crate) fn held(&self, by: &WorkerId) -> Vec<JobId> {
        let held = self.entries.iter().filter(|it| it.holder() == Some(by));
        held.map(|entry| entry.job.id).collect()
    }

    pub(crate) fn begun(&self, by: &WorkerId) -> Vec<JobId> {
        let held = self.entries.iter().filter(|it| it.holder() == Some(by));
        let begun = held.filter(|it| !it.job.waits_in_worker());
        begun.map(|entry| entry.job.id).collect()
    }

    pub(crate) fn ended(&self) -> Vec<(JobId, EndpointId)> {
        let ended = self
            .entries
            .iter()
            .filter(|entry| !entry.forgotten && entry.job.status().is_terminal());
        ended
            .map(|entry| (entry.job.id, entry.job.endpoint.clone()))
            .collect()
    }

    pub(crate) fn unfinished(&self) -> Vec<(JobId, EndpointId)> {
        let live = self
            .entries
            .iter()
            .filter(|entry| !entry.job.status().is_terminal());
        live.map(|entry| (entry.job.id, entry.job.endpoint.clone()))
            .collect()
    }

    pub(crate) fn accepted(&mut self, new: &NewJob) {
        self.entries.push(Entry {
            job: new.job.clone(),
            output: None,
            secrets: new.secrets.clone(),
            webhook: new.webhook.clone(),
            idempotency: new.idempotency.clone(),
            attempts: 0,
            forgotten: false,
        });
    }

    pub(crate) fn check_known(&self, new: &NewJob, known: JobId, status: Status) {
        let entry = self.by_key(new);
        assert_eq!(entry.idempotency, new.idempotency);
        assert_eq!((entry.job.id, entry.job.status()), (known, status));
    }

    pub(crate) fn check_conflict(&self, new: &NewJob, known: JobId) {
        let entry = self.by_key(new);
        assert_ne!(entry.idempotency, new.idempotency);
        assert_eq!(entry.job.id, known);
    }

    pub(crate) fn expired(&mut self, expired: &Expired, limit: usize, now: Timestamp) {
        assert!(expired.changes.len() <= limit);
        for change in &expired.changes {
            self.changed(change, &Event::Clock, None);
        }
        // A lost job whose ttl is over waits for a moment, for the next round to end it.
        let again = |change: &Change| {
            change.job.status() == Status::InQueue && change.job.expires_at <= now
        };
        let more = expired.changes.len() == limit || expired.changes.iter().any(again);
        assert!(more || expired.next > now, "something due was left out");
    }

    pub(crate) fn swept(&mut self, on: &EndpointId, changes: &[Change], limit: usize) {
        for change in changes {
            assert_eq!(change.before, Status::InQueue);
            assert_eq!(change.job.endpoint, *on);
            self.changed(change, &Event::Purge, None);
        }
        let waits =
            |entry: &&Entry| entry.job.endpoint == *on && entry.job.status() == Status::InQueue;
        let left = self.entries.iter().filter(waits).count();
        assert!(changes.len() == limit || (changes.len() < limit && left == 0));
    }

    /// A change that came of an event, with the output that came with it.
    pub(crate) fn changed(&mut self, change: &Change, event: &Event, output: Option<Bytes>) {
        let entry = self.entry(change.job.id);
        let (before, after) = (entry.job.status(), change.job.status());
        assert_eq!(change.before, before);
        if before.is_terminal() && before != after {
            assert_eq!(*event, Event::Retry, "an end is final");
            assert!(matches!(before, Status::Failed | Status::TimedOut));
            assert_eq!(after, Status::InQueue);
        }
        match event {
            Event::HandBack { worker, .. }
            | Event::Progress { worker }
            | Event::Begin { worker }
            | Event::Complete { worker, .. }
            | Event::Fail { worker, .. }
            | Event::Lost { worker, .. }
            | Event::Evict { worker } => {
                assert_eq!(entry.holder(), Some(worker), "only the holder may speak");
            }
            Event::Take { .. } | Event::Renew { .. } => unreachable!("not part of a history"),
            Event::Clock
            | Event::Cancel
            | Event::Purge
            | Event::Unservable { .. }
            | Event::Retry
            | Event::WaitEnded
            | Event::SetTtl { .. } => {}
        }
        if before == Status::InProgress {
            assert_eq!(change.holder.as_ref(), entry.holder());
        }
        entry.check_losses(change, event);
        let retried = change.job.retries > entry.job.retries;
        match event {
            Event::Progress { .. } | Event::Complete { .. } | Event::Fail { .. } => {
                entry.output = output;
            }
            Event::Lost { .. } | Event::Evict { .. } | Event::Retry => entry.output = None,
            // A lease that ran out is a lost worker; a timeout leaves what progress there was.
            Event::Clock if matches!(after, Status::InQueue | Status::Failed) => {
                entry.output = None;
            }
            _ => {}
        }
        if matches!(after, Status::Completed | Status::Cancelled) {
            entry.secrets = None;
        }
        entry.job = change.job.clone();
        self.note_end(&change.job, before, retried);
    }

    fn note_end(&mut self, job: &Job, before: Status, retried: bool) {
        let mut count = |counter| {
            let key = (job.endpoint.clone(), counter);
            *self.counters.entry(key).or_default() += 1;
        };
        if retried {
            count(Counter::Retried);
        }
        if before.is_terminal() && job.status() == Status::InQueue {
            self.deliveries.retried(job.id);
        }
        if before.is_terminal() {
            return;
        }
        let (counter, delivers) = match job.status() {
            Status::InQueue | Status::InProgress => return,
            Status::Completed => (Counter::Completed, true),
            Status::Failed => (Counter::Failed, true),
            Status::Cancelled => (Counter::Cancelled, job.terms.webhook_on_cancel),
            Status::TimedOut => (Counter::TimedOut, true),
        };
        count(counter);
        let entry = self.kept(job.id).unwrap();
        if let Some(webhook) = entry.webhook.clone().filter(|_| delivers) {
            let output = entry.output.clone();
            self.deliveries.ended(job, webhook, output.as_ref());
        }
    }

    pub(crate) fn deliveries_ever(&self) -> u64 {
        self.deliveries.last()
    }

    /// One of all deliveries that there ever were.
    pub(crate) fn delivery(&self, n: u64) -> Option<DeliveryId> {
        self.deliveries.nth(n)
    }

    pub(crate) fn number(&self, id: DeliveryId) -> u64 {
        self.deliveries.number(id)
    }

    /// A delivery as it was due last.
    pub(crate) fn due(&self, number: u64) -> Option<Due> {
        self.deliveries.due(number)
    }

    /// How often a delivery was tried in its present round.
    pub(crate) fn round(&self, number: u64) -> u32 {
        self.deliveries.round(number)
    }

    pub(crate) fn settled(&mut self, settlement: &Settlement) {
        self.deliveries.settled(settlement);
    }

    pub(crate) fn redelivered(
        &mut self,
        on: &EndpointId,
        ids: &[DeliveryId],
        became: &[Redelivery],
        now: Timestamp,
    ) {
        assert_eq!(became.len(), ids.len());
        for (id, became) in ids.iter().zip(became) {
            self.deliveries.redelivered(on, *id, *became, now);
        }
    }

    /// Takes out what a round of pruning must have deleted.
    pub(crate) fn pruned(
        &mut self,
        pruned: usize,
        limit: usize,
        now: Timestamp,
    ) -> Vec<(JobId, EndpointId)> {
        let mut over: Vec<(Timestamp, usize)> = Vec::new();
        for (place, entry) in self.entries.iter().enumerate() {
            let end = entry.job.state.end();
            if let Some(end) = end.filter(|end| end.forget_at <= now)
                && !entry.forgotten
                && self.deliveries.wanted_until(entry.job.id) <= now
            {
                over.push((end.forget_at, place));
            }
        }
        over.sort_unstable();
        over.truncate(limit);
        assert_eq!(pruned, over.len());
        over.into_iter()
            .map(|(_, place)| {
                let entry = &mut self.entries[place];
                entry.forgotten = true;
                self.deliveries.forgotten(entry.job.id);
                (entry.job.id, entry.job.endpoint.clone())
            })
            .collect()
    }

    /// What is left after a round of pruning may be kept longer than was said, for its delivery's sake: as
    /// long as that is, or for a while where it is open.
    pub(crate) fn postponed(&mut self, job: &Job, now: Timestamp) {
        let until = self.deliveries.wanted_until(job.id);
        let entry = self.entry(job.id);
        let forget_at = |job: &Job| job.state.end().unwrap().forget_at;
        let (before, after) = (forget_at(&entry.job), forget_at(job));
        if before != after {
            let again = match until {
                Timestamp::NEVER => now.plus_ms(LOOK_AGAIN_MS),
                until => until,
            };
            assert!(before <= now && now < after && after <= again);
            entry.job = job::kept_until(&entry.job, after);
        }
    }

    pub(crate) fn check_known_on(&self, id: JobId, on: &EndpointId) {
        let entry = self.kept(id).expect("only a kept job is known");
        assert_eq!(
            entry.job.endpoint, *on,
            "{id} is no business of this endpoint"
        );
    }

    pub(crate) fn check_unchanged(&self, job: &Job) {
        let entry = self.kept(job.id).expect("a refusal is about a kept job");
        assert_eq!(without_lease(job.clone()), without_lease(entry.job.clone()));
    }

    pub(crate) fn check_unknown(&self, id: JobId, on: &EndpointId) {
        let known = self.kept(id);
        assert!(known.is_none_or(|entry| entry.job.endpoint != *on));
    }

    pub(crate) fn check_loaded(&self, id: JobId, loaded: Option<&Loaded>) {
        let Some(entry) = self.kept(id) else {
            assert_eq!(loaded, None);
            return;
        };
        let loaded = loaded.expect("no accepted job is lost");
        assert_eq!(loaded.job, without_lease(entry.job.clone()));
        assert_eq!(loaded.input, Some(input_of(id)));
        assert_eq!(loaded.output, entry.output);
    }

    pub(crate) fn check_outbox(&self, outbox: &Outbox, asked: &Asked) {
        self.deliveries.check_outbox(outbox, asked);
    }

    /// What is open can be sent, and nothing else.
    pub(crate) fn check_outgoing(&self, number: u64, outgoing: Option<&Outgoing>) {
        self.deliveries.check_outgoing(number, outgoing);
        if let Some(outgoing) = outgoing {
            self.check_loaded(outgoing.id.job, Some(&outgoing.loaded));
            assert!(outgoing.loaded.job.status().is_terminal());
        }
    }

    pub(crate) fn check_deliveries(&self, query: &DeliveryQuery, listed: &[Delivery]) {
        assert_eq!(listed, self.deliveries.listed(query));
    }

    /// No end that is to be reported goes unreported.
    pub(crate) fn check_reports(&self) {
        for entry in &self.entries {
            let job = &entry.job;
            let reported = job.has_webhook && job.terms.reports(job.status());
            if reported && !entry.forgotten {
                assert!(self.deliveries.report(job), "nobody hears of {}", job.id);
            }
        }
    }

    pub(crate) fn check_survey(&self, surveys: &[Survey]) {
        for survey in surveys {
            let here = || {
                let kept = self.entries.iter().filter(|entry| !entry.forgotten);
                kept.filter(|entry| entry.job.endpoint == survey.endpoint)
            };
            let waiting = |low| {
                here().filter(move |entry| {
                    entry.job.status() == Status::InQueue && entry.job.terms.low_priority == low
                })
            };
            let demand = &survey.demand;
            assert_eq!(demand.queued, waiting(false).count() as u64);
            assert_eq!(demand.queued_low, waiting(true).count() as u64);
            let first = waiting(false).next().map(|entry| entry.job.queued_at);
            assert_eq!(demand.oldest_queued_at, first);

            let mut holders: BTreeMap<WorkerId, usize> = BTreeMap::new();
            for worker in here().filter_map(Entry::holder) {
                *holders.entry(worker.clone()).or_default() += 1;
            }
            assert_eq!(demand.running, holders.values().sum::<usize>() as u64);
            assert_eq!(survey.holders, holders.into_iter().collect::<Vec<_>>());

            let counters = self.counters.iter();
            let counters = counters
                .filter(|((endpoint, _), _)| *endpoint == survey.endpoint)
                .map(|((_, counter), &n)| (*counter, n));
            assert_eq!(survey.counters, counters.collect::<Vec<_>>());
        }
        let surveyed = |endpoint| surveys.iter().any(|survey| survey.endpoint == endpoint);
        for entry in &self.entries {
            assert!(surveyed(entry.job.endpoint.clone()));
        }
    }
}
