//! What every embedded store does with an operation: look up, ask core, write, keep the index true.
//!
//! The engine is generic over [`Rows`], where records and payloads are kept. It owns the [`Index`]: the
//! order of the queues and the deadlines, in memory, derived from the rows by one scan. When a
//! commit fails, the index is thrown away and derived again, so it can never disagree with the disk.

mod deliveries;
mod endpoints;
mod index;
mod leases;
mod open;
mod tracked;

use bytes::Bytes;
use lazyfox_core::delivery::Try;
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::job::{self, Counter, Effect, Event, Job, State, Step};
use lazyfox_core::limits;
use lazyfox_core::time::Timestamp;

pub(crate) use self::deliveries::{DeliveryRow, Forgettable};
pub(crate) use self::endpoints::next_release;
pub(crate) use self::index::Index;
pub(crate) use self::open::OpenDeliveries;
use self::tracked::Tracked;
use crate::{
    Applied, Change, ChunksKept, Drained, Due, Expired, Key, LeaseMs, NewJob, Purged, Release,
    Settlement, StoreError, Submitted, Survey, WebhookSecret,
};

pub(crate) type Result<T> = std::result::Result<T, StoreError>;

/// A job's place in the order of submission; also its key in the rows.
pub(crate) type Seq = u64;

/// Where an engine keeps what must survive.
pub(crate) trait Rows {
    fn insert(&mut self, seq: Seq, new: &NewJob) -> Result<()>;
    fn by_id(&mut self, id: JobId) -> Result<Option<(Seq, Job)>>;
    fn by_seq(&mut self, seq: Seq) -> Result<Option<Job>>;
    fn by_idempotency_key(
        &mut self,
        endpoint: &EndpointId,
        key: &str,
    ) -> Result<Option<(Job, [u8; 32])>>;
    fn update(&mut self, seq: Seq, job: &Job) -> Result<()>;
    /// A lease was renewed. Rows that one server owns need not keep it: after a restart every lease is new.
    fn renewed(&mut self, _seq: Seq, _job: &Job) {}
    /// A search came to the end of what waits, as far as the index knows.
    fn ran_dry(&mut self) {}
    fn delete(&mut self, job: Forgettable) -> Result<()>;

    fn input(&mut self, seq: Seq) -> Result<(Bytes, Option<Vec<u8>>)>;
    fn wipe_secrets(&mut self, seq: Seq) -> Result<()>;
    fn keep_output(&mut self, seq: Seq, output: &Bytes) -> Result<()>;
    fn clear_output(&mut self, seq: Seq) -> Result<()>;

    fn append_chunk(&mut self, seq: Seq, chunk: &Bytes) -> Result<()>;
    fn take_chunks(&mut self, seq: Seq, bytes_max: usize) -> Result<(Vec<Bytes>, bool)>;
    fn clear_chunks(&mut self, seq: Seq) -> Result<()>;

    /// Ended jobs to forget: their retention is over.
    fn forgettable(&mut self, now: Timestamp, limit: usize) -> Result<Vec<Forgettable>>;
    /// Keeps an ended job until then, whether or not it can be read.
    fn postpone(&mut self, seq: Seq, until: Timestamp) -> Result<()>;

    /// Records a delivery of a job that has just ended, due at once.
    fn add_delivery(&mut self, number: u64, seq: Seq, job: &Job, now: Timestamp) -> Result<Due>;
    fn delivery(&mut self, number: u64) -> Result<Option<DeliveryRow>>;
    fn deliveries_of(&mut self, seq: Seq) -> Result<Vec<DeliveryRow>>;
    fn update_delivery(&mut self, row: &DeliveryRow) -> Result<()>;
    /// Does what a settlement says to a delivery that is due as it says; false when it is not. The try itself
    /// is not kept here.
    fn settle(&mut self, settlement: &Settlement) -> Result<bool>;
    /// Keeps the try that has just been counted.
    fn add_try(&mut self, number: u64, made: &Try) -> Result<()>;

    fn set_counter(&mut self, endpoint: &EndpointId, counter: Counter, value: u64) -> Result<()>;
}

/// What an index of everything is derived from.
pub(crate) trait Kept {
    /// Every live job in order of submission, then the highest place that is taken. Reads only: it
    /// must work where nothing can be written.
    fn scan(&mut self, each: &mut dyn FnMut(Seq, Job)) -> Result<Seq>;
    /// Bytes of chunks that wait for a reader, of every job that has any.
    fn chunk_bytes(&mut self) -> Result<Vec<(Seq, usize)>>;
    /// Every open delivery.
    fn open_deliveries(&mut self, each: &mut dyn FnMut(Due)) -> Result<()>;
    /// The highest number of all.
    fn last_delivery(&mut self) -> Result<u64>;
    fn counters(&mut self) -> Result<Vec<(EndpointId, Counter, u64)>>;
}

/// What is kept beside jobs and deliveries.
pub(crate) trait Registers {
    fn add_webhook_secret(
        &mut self,
        endpoint: &EndpointId,
        secret: &WebhookSecret,
        previous_until: Timestamp,
    ) -> Result<()>;

    /// An endpoint's latest release, and what it was known by.
    fn release(&mut self, endpoint: &EndpointId) -> Result<Option<(Release, [u8; 32])>>;
    fn set_release(
        &mut self,
        endpoint: &EndpointId,
        release: Release,
        fingerprint: &[u8; 32],
    ) -> Result<()>;
    fn set_override(&mut self, endpoint: &EndpointId, settings: Option<&str>) -> Result<()>;

    fn keys(&mut self) -> Result<Vec<Key>>;
    fn add_key(&mut self, key: &Key) -> Result<()>;
    fn revoke_key(&mut self, id: &str, now: Timestamp) -> Result<bool>;
}

/// Operations over rows and their index. One thread at a time.
pub(crate) struct Engine<R> {
    pub(crate) rows: R,
    index: Tracked<Index>,
    lease_ms: LeaseMs,
}

impl<R: Kept> Engine<R> {
    /// Derives the index. Leases are not kept, so each running job gets a new one: its worker has
    /// that long to show that it lives.
    pub(crate) fn open(mut rows: R, now: Timestamp, lease_ms: LeaseMs) -> Result<Self> {
        let index = Tracked::new(Index::derive(&mut rows, now, &lease_ms)?);
        Ok(Self {
            rows,
            index,
            lease_ms,
        })
    }

    /// After a failed commit: what the index learned from it is not on disk.
    pub(crate) fn rederive(&mut self, now: Timestamp) -> Result<()> {
        let index = Index::derive(&mut self.rows, now, &self.lease_ms)?;
        let before = std::mem::replace(&mut *self.index, index);
        self.index.open.number_after(&before.open);
        Ok(())
    }
}

impl<R: Rows> Engine<R> {
    /// Works on a part of what is kept: these live jobs, and chunks of these sizes. Whatever is new gets a
    /// number behind `last`.
    pub(crate) fn over(
        rows: R,
        live: impl Iterator<Item = (Seq, Job)>,
        chunk_bytes: impl Iterator<Item = (Seq, usize)>,
        last: Seq,
    ) -> Self {
        Self {
            rows,
            index: Tracked::new(Index::over(live, chunk_bytes, last)),
            lease_ms: crate::default_lease(),
        }
    }

    /// Grows whenever the index may have changed.
    pub(crate) fn index_changes(&self) -> u64 {
        self.index.changes()
    }

    /// Before a commit: counters that moved are written once a group, not once an operation.
    pub(crate) fn flush_counters(&mut self) -> Result<()> {
        for (endpoint, counter, value) in self.index.moved_counters() {
            self.rows.set_counter(&endpoint, counter, value)?;
        }
        Ok(())
    }

    /// Whether there is such a job, on whatever endpoint.
    pub(crate) fn knows(&mut self, id: JobId) -> bool {
        self.rows.by_id(id).is_ok_and(|found| found.is_some())
    }

    pub(crate) fn submit(&mut self, new: &NewJob) -> Result<Submitted> {
        if let Some(ours) = &new.idempotency
            && let Some((job, theirs)) =
                self.rows.by_idempotency_key(&new.job.endpoint, &ours.key)?
        {
            return Ok(if theirs == ours.fingerprint {
                Submitted::Known(job.id, job.status())
            } else {
                Submitted::Conflict(job.id)
            });
        }
        let seq = self.index.next_seq();
        self.rows.insert(seq, new)?;
        self.index.enter(seq, &new.job);
        Ok(Submitted::Accepted { taken: false })
    }

    /// What a submission came to with all that is in the same commit.
    pub(crate) fn submitted(&self, id: JobId, submitted: &mut Submitted) {
        if let Submitted::Accepted { taken } = submitted {
            *taken = self.index.running_by_id(id).is_some();
        }
    }

    pub(crate) fn apply(
        &mut self,
        endpoint: &EndpointId,
        id: JobId,
        event: Event,
        output: Option<&Bytes>,
        now: Timestamp,
    ) -> Result<Applied> {
        match self.find(endpoint, id)? {
            Some((seq, job)) => self.change(seq, &job, event, output, now),
            None => Ok(Applied::Unknown),
        }
    }

    pub(crate) fn expire(&mut self, now: Timestamp, limit: usize) -> Result<Expired> {
        let mut changes = Vec::new();
        for seq in self.index.due(now, limit) {
            let job = match self.index.running(seq) {
                Some(job) => job,
                None => self.row(seq)?,
            };
            changes.extend(self.change(seq, &job, Event::Clock, None, now)?.changed());
        }
        Ok(Expired {
            changes,
            next: self.index.next_deadline(),
        })
    }

    pub(crate) fn append_chunks(
        &mut self,
        endpoint: &EndpointId,
        id: JobId,
        worker: &WorkerId,
        chunks: &[Bytes],
    ) -> Result<ChunksKept> {
        let holder = match self.find(endpoint, id)? {
            Some((
                seq,
                Job {
                    state: State::Running(attempt),
                    ..
                },
            )) if attempt.worker == *worker => seq,
            Some(_) | None => return Ok(ChunksKept::NotHolder),
        };
        let bytes = chunks.iter().map(Bytes::len).sum();
        if self.index.chunk_bytes(holder).saturating_add(bytes) > limits::STREAM_BYTES {
            return Ok(ChunksKept::Full);
        }
        for chunk in chunks {
            self.rows.append_chunk(holder, chunk)?;
        }
        self.index.add_chunk_bytes(holder, bytes);
        Ok(ChunksKept::Kept)
    }

    pub(crate) fn drain(
        &mut self,
        endpoint: &EndpointId,
        id: JobId,
        bytes_max: usize,
    ) -> Result<Option<Drained>> {
        let Some((seq, job)) = self.find(endpoint, id)? else {
            return Ok(None);
        };
        let status = job.status();
        if self.index.chunk_bytes(seq) == 0 {
            return Ok(Some(Drained {
                status,
                chunks: Vec::new(),
                more: false,
            }));
        }
        let (chunks, more) = self.rows.take_chunks(seq, bytes_max)?;
        self.index
            .remove_chunk_bytes(seq, chunks.iter().map(Bytes::len).sum());
        Ok(Some(Drained {
            status,
            chunks,
            more,
        }))
    }

    pub(crate) fn sweep(
        &mut self,
        endpoint: &EndpointId,
        event: &Event,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Change>> {
        self.sweep_through(endpoint, event, Seq::MAX, limit, now)
    }

    pub(crate) fn purge(
        &mut self,
        endpoint: &EndpointId,
        through: Option<Seq>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Purged> {
        let through = through.unwrap_or(self.index.last_seq());
        let changes = self.sweep_through(endpoint, &Event::Purge, through, limit, now)?;
        Ok(Purged { changes, through })
    }

    fn sweep_through(
        &mut self,
        endpoint: &EndpointId,
        event: &Event,
        through: Seq,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        let mut from = None;
        while changes.len() < limit {
            let Some((cursor, seq)) = self.index.next_waiting(endpoint, from) else {
                break;
            };
            // What is behind it in the normal lane came later still; the low lane begins anew.
            from = Some(if seq > through {
                cursor.lanes_end()
            } else {
                cursor
            });
            if seq > through {
                continue;
            }
            let job = self.row(seq)?;
            changes.extend(self.change(seq, &job, event.clone(), None, now)?.changed());
        }
        Ok(changes)
    }

    pub(crate) fn survey(&self) -> Vec<Survey> {
        self.index.survey()
    }

    /// Asks core and writes what it says.
    fn change(
        &mut self,
        seq: Seq,
        job: &Job,
        event: Event,
        output: Option<&Bytes>,
        now: Timestamp,
    ) -> Result<Applied> {
        match job::apply(job, event, now) {
            Ok(step) => Ok(Applied::Changed(
                self.carry_out(seq, job, step, output, now)?,
            )),
            Err(refused) => Ok(Applied::Refused(refused, job.clone())),
        }
    }

    fn carry_out(
        &mut self,
        seq: Seq,
        job: &Job,
        step: Step,
        output: Option<&Bytes>,
        now: Timestamp,
    ) -> Result<Change> {
        // Read before anything is written: a damaged one then fails nobody else's operation.
        let earlier = if job.has_webhook && step.effects.contains(&Effect::Withdraw) {
            self.rows.deliveries_of(seq)?
        } else {
            Vec::new()
        };
        if step.job != *job {
            self.rows.update(seq, &step.job)?;
        }
        for effect in &step.effects {
            match effect {
                Effect::KeepOutput => match output {
                    Some(output) => self.rows.keep_output(seq, output)?,
                    // The result replaces what progress updates left.
                    None => self.rows.clear_output(seq)?,
                },
                Effect::ClearOutput => self.rows.clear_output(seq)?,
                Effect::ClearChunks => {
                    if self.index.chunk_bytes(seq) > 0 {
                        self.rows.clear_chunks(seq)?;
                        self.index.forget(seq);
                    }
                }
                Effect::WipeSecrets => self.rows.wipe_secrets(seq)?,
                Effect::Deliver => self.deliver(seq, &step.job, now)?,
                Effect::Withdraw => self.withdraw(&earlier)?,
                Effect::Count(counter) => self.index.count(&job.endpoint, *counter),
            }
        }
        self.index.update(seq, job, &step.job);
        let holder = job.state.last_attempt().map(|(worker, _)| worker.clone());
        Ok(Change {
            before: job.status(),
            holder,
            job: step.job,
        })
    }

    fn find(&mut self, endpoint: &EndpointId, id: JobId) -> Result<Option<(Seq, Job)>> {
        let found = match self.index.running_by_id(id) {
            Some(found) => Some(found),
            None => self.rows.by_id(id)?,
        };
        // A job is only known on its own endpoint: a key for one endpoint must not reach another's.
        Ok(found.filter(|(_, job)| job.endpoint == *endpoint))
    }

    fn row(&mut self, seq: Seq) -> Result<Job> {
        let job = self.rows.by_seq(seq)?;
        job.ok_or_else(|| {
            StoreError::Corrupt(format!("job number {seq} is in the queue but not on disk"))
        })
    }
}
