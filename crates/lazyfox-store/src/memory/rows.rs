//! Rows as maps.

mod deliveries;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use lazyfox_core::delivery::{State, Try};
use lazyfox_core::id::{EndpointId, JobId};
use lazyfox_core::job::{self, Counter, Job};
use lazyfox_core::time::Timestamp;

use self::deliveries::Deliveries;
use crate::engine::{DeliveryRow, Forgettable, Kept, Registers, Result, Rows, Seq};
use crate::{
    Due, Key, LIST_VISITS_MAX, Loaded, NewJob, Page, Parts, Query, Release, Settlement, StoreError,
    Webhook, WebhookSecret,
};

#[derive(Default)]
pub(crate) struct MapRows {
    records: BTreeMap<Seq, Record>,
    ids: HashMap<JobId, Seq>,
    idempotency: HashMap<(EndpointId, String), Seq>,
    /// Ended jobs by the time at which they are forgotten.
    forget: BTreeSet<(Timestamp, Seq)>,
    deliveries: Deliveries,
    releases: HashMap<EndpointId, (Release, [u8; 32])>,
    overrides: BTreeMap<EndpointId, String>,
    keys: Vec<Key>,
}

struct Record {
    job: Job,
    input: Bytes,
    output: Option<Bytes>,
    chunks: VecDeque<Bytes>,
    secrets: Option<Vec<u8>>,
    webhook: Option<Webhook>,
    idempotency: Option<crate::Idempotency>,
}

impl MapRows {
    fn record(&mut self, seq: Seq) -> Result<&mut Record> {
        let record = self.records.get_mut(&seq);
        record.ok_or_else(|| StoreError::Corrupt(format!("there is no job number {seq}")))
    }

    pub(super) fn secrets(&self, endpoint: &EndpointId) -> Vec<WebhookSecret> {
        self.deliveries.secrets(endpoint)
    }

    pub(super) fn overrides(&self) -> Vec<(EndpointId, String)> {
        let kept = self.overrides.iter();
        kept.map(|(endpoint, settings)| (endpoint.clone(), settings.clone()))
            .collect()
    }

    pub(super) fn load(&self, endpoint: &EndpointId, id: JobId, parts: Parts) -> Option<Loaded> {
        let record = self.records.get(self.ids.get(&id)?)?;
        (record.job.endpoint == *endpoint).then(|| record.loaded(parts))
    }

    pub(super) fn list(&self, query: &Query) -> Page {
        let mut jobs = Vec::new();
        let mut next = None;
        let records = self.records.range(..query.before.unwrap_or(Seq::MAX));
        for (visits, (&seq, record)) in records.rev().enumerate() {
            let job = &record.job;
            let matches = job.endpoint == query.endpoint
                && query.status.is_none_or(|status| job.status() == status);
            if (matches && jobs.len() == query.limit) || visits == LIST_VISITS_MAX {
                return Page { jobs, next };
            }
            next = Some(seq);
            if matches {
                jobs.push(job.clone());
            }
        }
        Page { jobs, next: None }
    }
}

impl Record {
    fn loaded(&self, parts: Parts) -> Loaded {
        Loaded {
            job: self.job.clone(),
            output: self.output.clone().filter(|_| parts.output),
            input: parts.input.then(|| self.input.clone()),
        }
    }
}

impl Rows for MapRows {
    fn insert(&mut self, seq: Seq, new: &NewJob) -> Result<()> {
        if let Some(idempotency) = &new.idempotency {
            self.idempotency
                .insert((new.job.endpoint.clone(), idempotency.key.clone()), seq);
        }
        self.ids.insert(new.job.id, seq);
        let record = Record {
            job: new.job.clone(),
            input: new.input.clone(),
            output: None,
            chunks: VecDeque::new(),
            secrets: new.secrets.clone(),
            webhook: new.webhook.clone(),
            idempotency: new.idempotency.clone(),
        };
        self.records.insert(seq, record);
        Ok(())
    }

    fn by_id(&mut self, id: JobId) -> Result<Option<(Seq, Job)>> {
        let Some(&seq) = self.ids.get(&id) else {
            return Ok(None);
        };
        Ok(self.by_seq(seq)?.map(|job| (seq, job)))
    }

    fn by_seq(&mut self, seq: Seq) -> Result<Option<Job>> {
        Ok(self.records.get(&seq).map(|record| record.job.clone()))
    }

    fn by_idempotency_key(
        &mut self,
        endpoint: &EndpointId,
        key: &str,
    ) -> Result<Option<(Job, [u8; 32])>> {
        let seq = self.idempotency.get(&(endpoint.clone(), key.to_owned()));
        let record = seq.and_then(|seq| self.records.get(seq));
        Ok(record.and_then(|record| {
            let fingerprint = record.idempotency.as_ref()?.fingerprint;
            Some((record.job.clone(), fingerprint))
        }))
    }

    fn update(&mut self, seq: Seq, job: &Job) -> Result<()> {
        let before = std::mem::replace(&mut self.record(seq)?.job, job.clone());
        if let Some(end) = before.state.end() {
            self.forget.remove(&(end.forget_at, seq));
        }
        if let Some(end) = job.state.end() {
            self.forget.insert((end.forget_at, seq));
        }
        Ok(())
    }

    fn delete(&mut self, Forgettable { seq, .. }: Forgettable) -> Result<()> {
        let Some(record) = self.records.remove(&seq) else {
            return Ok(());
        };
        self.ids.remove(&record.job.id);
        if let Some(idempotency) = record.idempotency {
            self.idempotency
                .remove(&(record.job.endpoint.clone(), idempotency.key));
        }
        if let Some(end) = record.job.state.end() {
            self.forget.remove(&(end.forget_at, seq));
        }
        if record.job.has_webhook {
            self.deliveries.forget(seq);
        }
        Ok(())
    }

    fn input(&mut self, seq: Seq) -> Result<(Bytes, Option<Vec<u8>>)> {
        let record = self.record(seq)?;
        Ok((record.input.clone(), record.secrets.clone()))
    }

    fn wipe_secrets(&mut self, seq: Seq) -> Result<()> {
        self.record(seq)?.secrets = None;
        Ok(())
    }

    fn keep_output(&mut self, seq: Seq, output: &Bytes) -> Result<()> {
        self.record(seq)?.output = Some(output.clone());
        Ok(())
    }

    fn clear_output(&mut self, seq: Seq) -> Result<()> {
        self.record(seq)?.output = None;
        Ok(())
    }

    fn append_chunk(&mut self, seq: Seq, chunk: &Bytes) -> Result<()> {
        self.record(seq)?.chunks.push_back(chunk.clone());
        Ok(())
    }

    fn take_chunks(&mut self, seq: Seq, bytes_max: usize) -> Result<(Vec<Bytes>, bool)> {
        let chunks = &mut self.record(seq)?.chunks;
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(chunk) = chunks.front() {
            if !taken.is_empty() && bytes + chunk.len() > bytes_max {
                break;
            }
            bytes += chunk.len();
            taken.extend(chunks.pop_front());
        }
        Ok((taken, !chunks.is_empty()))
    }

    fn clear_chunks(&mut self, seq: Seq) -> Result<()> {
        self.record(seq)?.chunks.clear();
        Ok(())
    }

    fn forgettable(&mut self, now: Timestamp, limit: usize) -> Result<Vec<Forgettable>> {
        let over = self.forget.iter().take_while(|(at, _)| *at <= now);
        let over = over.take(limit).map(|&(_, seq)| Forgettable {
            seq,
            has_webhook: self.records.get(&seq).is_some_and(|it| it.job.has_webhook),
        });
        Ok(over.collect())
    }

    fn postpone(&mut self, seq: Seq, until: Timestamp) -> Result<()> {
        let kept = job::kept_until(&self.record(seq)?.job, until);
        self.update(seq, &kept)
    }

    fn add_delivery(&mut self, number: u64, seq: Seq, job: &Job, now: Timestamp) -> Result<Due> {
        let row = self.new_delivery(number, seq, job, now)?;
        let due = row.due.clone();
        self.deliveries.add(row);
        Ok(due)
    }

    fn delivery(&mut self, number: u64) -> Result<Option<DeliveryRow>> {
        let found = self.deliveries.rows.get(&number);
        Ok(found.map(|(row, _)| row.clone()))
    }

    fn deliveries_of(&mut self, seq: Seq) -> Result<Vec<DeliveryRow>> {
        Ok(self.deliveries.of(seq))
    }

    fn update_delivery(&mut self, row: &DeliveryRow) -> Result<()> {
        if let Some((kept, _)) = self.deliveries.rows.get_mut(&row.due.number) {
            *kept = row.clone();
        }
        Ok(())
    }

    fn settle(&mut self, settlement: &Settlement) -> Result<bool> {
        Ok(self.deliveries.settle(settlement))
    }

    fn add_try(&mut self, number: u64, made: &Try) -> Result<()> {
        if let Some((_, tries)) = self.deliveries.rows.get_mut(&number) {
            tries.push(made.clone());
        }
        Ok(())
    }

    fn set_counter(&mut self, _: &EndpointId, _: Counter, _: u64) -> Result<()> {
        // The index counts, and it lives as long as this store.
        Ok(())
    }
}

impl Kept for MapRows {
    fn scan(&mut self, each: &mut dyn FnMut(Seq, Job)) -> Result<Seq> {
        for (&seq, record) in &self.records {
            each(seq, record.job.clone());
        }
        Ok(self.records.last_key_value().map_or(0, |(&seq, _)| seq))
    }

    fn chunk_bytes(&mut self) -> Result<Vec<(Seq, usize)>> {
        let with_chunks = self
            .records
            .iter()
            .filter(|(_, record)| !record.chunks.is_empty());
        Ok(with_chunks
            .map(|(&seq, record)| (seq, record.chunks.iter().map(Bytes::len).sum()))
            .collect())
    }

    fn open_deliveries(&mut self, each: &mut dyn FnMut(Due)) -> Result<()> {
        let rows = self.deliveries.rows.values().map(|(row, _)| row);
        rows.filter(|row| row.state == State::Pending)
            .for_each(|row| each(row.due.clone()));
        Ok(())
    }

    fn last_delivery(&mut self) -> Result<u64> {
        let last = self.deliveries.rows.last_key_value();
        Ok(last.map_or(0, |(&number, _)| number))
    }

    fn counters(&mut self) -> Result<Vec<(EndpointId, Counter, u64)>> {
        Ok(Vec::new())
    }
}

impl Registers for MapRows {
    fn add_webhook_secret(
        &mut self,
        endpoint: &EndpointId,
        secret: &WebhookSecret,
        previous_until: Timestamp,
    ) -> Result<()> {
        self.deliveries.add_secret(endpoint, secret, previous_until);
        Ok(())
    }

    fn release(&mut self, endpoint: &EndpointId) -> Result<Option<(Release, [u8; 32])>> {
        Ok(self.releases.get(endpoint).copied())
    }

    fn set_release(
        &mut self,
        endpoint: &EndpointId,
        release: Release,
        fingerprint: &[u8; 32],
    ) -> Result<()> {
        self.releases
            .insert(endpoint.clone(), (release, *fingerprint));
        Ok(())
    }

    fn set_override(&mut self, endpoint: &EndpointId, settings: Option<&str>) -> Result<()> {
        match settings {
            Some(text) => self.overrides.insert(endpoint.clone(), text.to_owned()),
            None => self.overrides.remove(endpoint),
        };
        Ok(())
    }

    fn keys(&mut self) -> Result<Vec<Key>> {
        let mut keys = self.keys.clone();
        keys.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(keys)
    }

    fn add_key(&mut self, key: &Key) -> Result<()> {
        self.keys.push(key.clone());
        Ok(())
    }

    fn revoke_key(&mut self, id: &str, now: Timestamp) -> Result<bool> {
        let key = self.keys.iter_mut().find(|key| key.id == id);
        Ok(key.map(|key| key.revoked_at.get_or_insert(now)).is_some())
    }
}
