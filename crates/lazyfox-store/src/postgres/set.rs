//! The rows that a group of operations works on: read and locked before it, changed in memory by the same
//! engine that runs the embedded stores, and written back as whole statements.
//!
//! The set knows a part of what is kept. What an operation needs beyond it was to be asked for before.

mod chunks;
mod deliveries;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use lazyfox_core::delivery::Try;
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::job::{Counter, Job, State, Status};
use lazyfox_core::time::Timestamp;

pub(super) use self::deliveries::{Sent, SentTry};
use super::row::Found;
use crate::engine::{DeliveryRow, Forgettable, Result, Rows, Seq};
use crate::{Due, Handout, NewJob, News, Settlement, StoreError};

/// Places of jobs that are submitted by this very group; the database numbers them when they are written.
/// Behind all that is kept, as they will be.
pub(super) const NEW_FROM: Seq = 1 << 62;

#[derive(Default)]
pub(super) struct Set {
    pub(super) entries: BTreeMap<Seq, Entry>,
    ids: HashMap<JobId, Seq>,
    /// By idempotency key: what it was used for, before or in this group.
    keys: HashMap<(EndpointId, String), Used>,
    pub(super) deliveries: BTreeMap<u64, Sent>,
    pub(super) tries: Vec<SentTry>,
    pub(super) counts: Vec<(EndpointId, Counter, u64)>,
    /// Ended jobs that may be forgotten, in the order in which to look at them.
    pub(super) over: Vec<Over>,
    /// Whether a search for waiting jobs came to the end of what was read.
    pub(super) ran_dry: bool,
    /// Whether an earlier try of this group sent a commit to which no answer came.
    pub(super) unanswered: bool,
    /// A job that would have gone out, but its input was not read.
    pub(super) unread: Option<JobId>,
    /// The first job of the normal lane that was read in the order of the queue.
    pub(super) first: Option<Seq>,
}

/// A job of the set.
pub(super) struct Entry {
    /// As it was read; `None` when it is submitted by this group.
    pub(super) kept: Option<Job>,
    /// As it is now.
    pub(super) job: Job,
    /// Its submission, if that is in this group.
    pub(super) new: Option<NewJob>,
    /// Its input and its sealed `s3Config`, if they were read.
    input: Option<(Bytes, Option<Vec<u8>>)>,
    pub(super) has_secrets: bool,
    pub(super) wiped: bool,
    had_output: bool,
    pub(super) output: Output,
    pub(super) chunks: Chunks,
}

/// What an idempotency key was used for.
struct Used {
    seq: Seq,
    fingerprint: [u8; 32],
    /// The job as it was read, where it is not of this group.
    read: Option<Job>,
}

/// What becomes of a job's output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    Untouched,
    Kept(Bytes),
    Cleared,
}

/// What becomes of a job's chunks.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Bytes that wait; `None` where nobody looked.
    bytes: Option<usize>,
    /// With their numbers, as many as were read.
    bodies: Vec<(i64, Bytes)>,
    /// Whether there are more than those.
    more: bool,
    pub(super) taken_through: Option<i64>,
    pub(super) appended: Vec<Bytes>,
    pub(super) cleared: bool,
}

/// An ended job whose retention is over.
#[derive(Clone, Debug)]
pub(super) struct Over {
    pub(super) seq: Seq,
    pub(super) id: JobId,
    pub(super) has_webhook: bool,
    /// Its idempotency key; known when it is locked.
    pub(super) key: Option<String>,
    pub(super) became: Became,
}

/// What pruning did to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Became {
    Nothing,
    Forgotten,
    Postponed(Timestamp),
}

fn missing(seq: Seq) -> StoreError {
    StoreError::Corrupt(format!("job number {seq} is in the queue but not on disk"))
}

impl Set {
    /// A job that was read.
    pub(super) fn add(&mut self, found: Found) -> Seq {
        let seq = found.seq;
        self.ids.insert(found.job.id, seq);
        self.entries.entry(seq).or_insert_with(|| Entry {
            kept: Some(found.job.clone()),
            job: found.job,
            new: None,
            input: None,
            has_secrets: found.has_secrets,
            wiped: false,
            had_output: found.has_output,
            output: Output::Untouched,
            chunks: Chunks::default(),
        });
        seq
    }

    pub(super) fn add_input(&mut self, seq: Seq, body: Bytes, secrets: Option<Vec<u8>>) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.input = Some((body, secrets));
        }
    }

    /// A job that was read by its key. It is not locked: others may change it, so this group must not.
    pub(super) fn add_key(&mut self, found: Found, key: String, fingerprint: [u8; 32]) {
        let place = (found.job.endpoint.clone(), key);
        let used = Used {
            seq: found.seq,
            fingerprint,
            read: Some(found.job),
        };
        self.keys.insert(place, used);
    }

    /// Live jobs.
    pub(super) fn live(&self) -> impl Iterator<Item = (Seq, &Job)> {
        let live = self
            .entries
            .iter()
            .filter(|(_, entry)| match entry.job.state {
                State::Queued | State::Running(_) => true,
                State::Completed(_)
                | State::Failed(_)
                | State::Cancelled(_)
                | State::TimedOut(_) => false,
            });
        live.map(|(&seq, entry)| (seq, &entry.job))
    }

    /// What others who wait should hear of. After a try that may have happened it is not known what
    /// changed, and jobs are named that did not.
    pub(super) fn news(&self, may_have_happened: bool) -> News {
        let mut news = News::default();
        let mut queues: BTreeMap<&EndpointId, u64> = BTreeMap::new();
        for entry in self.entries.values() {
            let before = entry.kept.as_ref().map(Job::status);
            let after = entry.job.status();
            let unchanged = before == Some(after) && entry.chunks.appended.is_empty();
            if unchanged && !may_have_happened {
                continue;
            }
            if after == Status::InQueue {
                *queues.entry(&entry.job.endpoint).or_default() += 1;
            }
            if before.is_some() && after != Status::InProgress || !entry.chunks.appended.is_empty()
            {
                news.jobs.push((entry.job.endpoint.clone(), entry.job.id));
            }
        }
        let queues = queues.into_iter();
        news.queues = queues
            .map(|(endpoint, count)| (endpoint.clone(), count))
            .collect();
        news
    }

    /// The first places at which jobs wait now that did not before, beside those that are new. After a try
    /// that may have happened, of any that wait.
    pub(super) fn returned(&self, may_have_happened: bool) -> Vec<(EndpointId, Seq)> {
        let mut firsts: BTreeMap<&EndpointId, Seq> = BTreeMap::new();
        for (&seq, entry) in &self.entries {
            let waited = entry.kept.as_ref().map(|kept| kept.state == State::Queued);
            let came = waited.is_some_and(|waited| !waited || may_have_happened);
            if came && entry.job.state == State::Queued {
                firsts.entry(&entry.job.endpoint).or_insert(seq);
            }
        }
        let firsts = firsts.into_iter();
        firsts.map(|(on, seq)| (on.clone(), seq)).collect()
    }

    /// How many jobs wait, as far as was read.
    pub(super) fn waiting(&self) -> usize {
        let waiting = self.entries.values();
        waiting
            .filter(|entry| entry.kept.is_some() && entry.job.state == State::Queued)
            .count()
    }

    /// Since when this worker has what it holds now.
    pub(super) fn held_since(&self, worker: &WorkerId) -> Option<Timestamp> {
        let running = self.entries.values().filter_map(|entry| {
            let (holder, since) = entry.job.state.last_attempt()?;
            let runs = entry.job.status() == Status::InProgress;
            (runs && holder == worker).then_some(since)
        });
        running.min()
    }

    /// Those of these jobs that the worker has had since then, as they were read.
    pub(super) fn given(&self, worker: &WorkerId, at: Timestamp, jobs: &[JobId]) -> Vec<Handout> {
        let entries = jobs.iter().filter_map(|id| {
            let entry = self.entries.get(self.ids.get(id)?)?;
            let kept = entry.kept.as_ref()?;
            let holds = kept.status() == Status::InProgress
                && kept.state.last_attempt() == Some((worker, at));
            let (input, secrets) = entry.input.clone().filter(|_| holds)?;
            Some(Handout {
                job: kept.clone(),
                input,
                secrets,
            })
        });
        entries.collect()
    }

    pub(super) fn seq_of(&self, id: JobId) -> Option<Seq> {
        self.ids.get(&id).copied()
    }

    fn entry(&mut self, seq: Seq) -> Result<&mut Entry> {
        self.entries.get_mut(&seq).ok_or_else(|| missing(seq))
    }
}

impl Entry {
    /// Whether the row is to be written.
    pub(super) fn is_changed(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| *kept != self.job)
            || (self.kept.is_some() && self.has_output() != self.had_output)
            || (self.kept.is_some() && self.wiped && self.has_secrets)
    }

    /// Whether there is an output after this group.
    pub(super) fn has_output(&self) -> bool {
        match self.output {
            Output::Untouched => self.had_output,
            Output::Kept(_) => true,
            Output::Cleared => false,
        }
    }

    /// Whether there was one before.
    pub(super) fn had_output(&self) -> bool {
        self.had_output
    }

    /// Whether there are secrets after this group.
    pub(super) fn keeps_secrets(&self) -> bool {
        self.has_secrets && !self.wiped
    }
}

impl Rows for Set {
    fn insert(&mut self, seq: Seq, new: &NewJob) -> Result<()> {
        let job = &new.job;
        self.ids.insert(job.id, seq);
        if let Some(key) = &new.idempotency {
            let used = Used {
                seq,
                fingerprint: key.fingerprint,
                read: None,
            };
            self.keys
                .insert((job.endpoint.clone(), key.key.clone()), used);
        }
        let entry = Entry {
            kept: None,
            job: job.clone(),
            input: Some((new.input.clone(), new.secrets.clone())),
            has_secrets: new.secrets.is_some(),
            new: Some(new.clone()),
            wiped: false,
            had_output: false,
            output: Output::Untouched,
            chunks: Chunks::default(),
        };
        self.entries.insert(seq, entry);
        Ok(())
    }

    fn by_id(&mut self, id: JobId) -> Result<Option<(Seq, Job)>> {
        let Some(seq) = self.seq_of(id) else {
            return Ok(None);
        };
        Ok(self.by_seq(seq)?.map(|job| (seq, job)))
    }

    fn by_seq(&mut self, seq: Seq) -> Result<Option<Job>> {
        Ok(self.entries.get(&seq).map(|entry| entry.job.clone()))
    }

    fn by_idempotency_key(
        &mut self,
        endpoint: &EndpointId,
        key: &str,
    ) -> Result<Option<(Job, [u8; 32])>> {
        let used = self.keys.get(&(endpoint.clone(), key.to_owned()));
        Ok(used.and_then(|used| {
            let ours = self.entries.get(&used.seq).map(|entry| &entry.job);
            let job = ours.or(used.read.as_ref())?;
            Some((job.clone(), used.fingerprint))
        }))
    }

    fn update(&mut self, seq: Seq, job: &Job) -> Result<()> {
        self.entry(seq)?.job = job.clone();
        Ok(())
    }

    fn renewed(&mut self, seq: Seq, job: &Job) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.job = job.clone();
        }
    }

    fn ran_dry(&mut self) {
        self.ran_dry = true;
    }

    fn delete(&mut self, job: Forgettable) -> Result<()> {
        self.became(job.seq, Became::Forgotten);
        Ok(())
    }

    fn input(&mut self, seq: Seq) -> Result<(Bytes, Option<Vec<u8>>)> {
        let entry = self.entry(seq)?;
        let (wiped, id) = (entry.wiped, entry.job.id);
        let input = entry.input.clone().map(|(body, secrets)| {
            let secrets = secrets.filter(|_| !wiped);
            (body, secrets)
        });
        // There is a bound on what is read for all of a group, and jobs that are passed over count too.
        self.unread = Some(id).filter(|_| input.is_none());
        input.ok_or_else(|| StoreError::Unavailable(format!("the input of {seq} was not read")))
    }

    fn wipe_secrets(&mut self, seq: Seq) -> Result<()> {
        self.entry(seq)?.wiped = true;
        Ok(())
    }

    fn keep_output(&mut self, seq: Seq, output: &Bytes) -> Result<()> {
        self.entry(seq)?.output = Output::Kept(output.clone());
        Ok(())
    }

    fn clear_output(&mut self, seq: Seq) -> Result<()> {
        self.entry(seq)?.output = Output::Cleared;
        Ok(())
    }

    fn append_chunk(&mut self, seq: Seq, chunk: &Bytes) -> Result<()> {
        self.entry(seq)?.chunks.appended.push(chunk.clone());
        Ok(())
    }

    fn take_chunks(&mut self, seq: Seq, bytes_max: usize) -> Result<(Vec<Bytes>, bool)> {
        let chunks = &mut self.entry(seq)?.chunks;
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut bodies = std::mem::take(&mut chunks.bodies).into_iter().peekable();
        while let Some((_, body)) = bodies.peek() {
            if !taken.is_empty() && bytes + body.len() > bytes_max {
                break;
            }
            bytes += body.len();
            if let Some((n, body)) = bodies.next() {
                chunks.taken_through = Some(n);
                taken.push(body);
            }
        }
        chunks.bodies = bodies.collect();
        let appended = std::mem::take(&mut chunks.appended);
        if chunks.bodies.is_empty() && !chunks.more {
            // Those that came with this group are there too, and are never written.
            let mut appended = appended.into_iter().peekable();
            while let Some(body) = appended.peek() {
                if !taken.is_empty() && bytes + body.len() > bytes_max {
                    break;
                }
                bytes += body.len();
                taken.extend(appended.next());
            }
            chunks.appended = appended.collect();
        } else {
            chunks.appended = appended;
        }
        let more = chunks.more || !chunks.bodies.is_empty() || !chunks.appended.is_empty();
        Ok((taken, more))
    }

    fn clear_chunks(&mut self, seq: Seq) -> Result<()> {
        let chunks = &mut self.entry(seq)?.chunks;
        chunks.cleared = true;
        chunks.bodies.clear();
        chunks.appended.clear();
        chunks.more = false;
        Ok(())
    }

    fn forgettable(&mut self, _: Timestamp, limit: usize) -> Result<Vec<Forgettable>> {
        let open = self.over.iter().filter(|it| it.became == Became::Nothing);
        let open = open.take(limit).map(|it| Forgettable {
            seq: it.seq,
            has_webhook: it.has_webhook,
        });
        Ok(open.collect())
    }

    fn postpone(&mut self, seq: Seq, until: Timestamp) -> Result<()> {
        self.became(seq, Became::Postponed(until));
        Ok(())
    }

    fn add_delivery(&mut self, number: u64, seq: Seq, job: &Job, now: Timestamp) -> Result<Due> {
        Ok(self.add_sent(number, seq, job, now))
    }

    fn delivery(&mut self, number: u64) -> Result<Option<DeliveryRow>> {
        Ok(self.sent(number))
    }

    fn deliveries_of(&mut self, seq: Seq) -> Result<Vec<DeliveryRow>> {
        Ok(self.sent_of(seq))
    }

    fn update_delivery(&mut self, row: &DeliveryRow) -> Result<()> {
        self.update_sent(row);
        Ok(())
    }

    fn settle(&mut self, settlement: &Settlement) -> Result<bool> {
        Ok(self.settle_sent(settlement))
    }

    fn add_try(&mut self, number: u64, made: &Try) -> Result<()> {
        self.add_sent_try(number, made);
        Ok(())
    }

    fn set_counter(&mut self, endpoint: &EndpointId, counter: Counter, value: u64) -> Result<()> {
        self.counts.push((endpoint.clone(), counter, value));
        Ok(())
    }
}

impl Set {
    fn became(&mut self, seq: Seq, became: Became) {
        if let Some(over) = self.over.iter_mut().find(|over| over.seq == seq) {
            over.became = became;
        }
    }
}

#[cfg(test)]
mod tests;
