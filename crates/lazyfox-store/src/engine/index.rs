//! The order of the queues, the deadlines of live jobs and the leases, in memory: some 60 bytes for a
//! waiting job.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::job::{Attempt, Counter, Job, State};
use lazyfox_core::scale::Demand;
use lazyfox_core::time::Timestamp;

use super::open::OpenDeliveries;
use super::{Kept, Result, Seq};
use crate::{LeaseMs, PLACES_COUNTED, Place, Survey};

#[derive(Default)]
pub(crate) struct Index {
    last_seq: Seq,
    queues: HashMap<EndpointId, Queue>,
    deadlines: BTreeSet<(Timestamp, Seq)>,
    running: HashMap<Seq, Job>,
    running_ids: HashMap<JobId, Seq>,
    held: HashMap<WorkerId, BTreeSet<Seq>>,
    chunk_bytes: HashMap<Seq, usize>,
    moved: BTreeSet<(EndpointId, Counter)>,
    pub(super) open: OpenDeliveries,
}

#[derive(Default)]
struct Queue {
    /// Cursor to the time since which the job waits.
    normal: BTreeMap<Seq, Timestamp>,
    low: BTreeMap<Seq, Timestamp>,
    running: u64,
    counters: BTreeMap<Counter, u64>,
}

/// Which lane a search stands in, and after which place.
#[derive(Clone, Copy)]
pub(crate) enum Cursor {
    Normal(Seq),
    Low(Seq),
}

impl Cursor {
    /// Behind all that waits in the same lane.
    pub(crate) fn lanes_end(self) -> Self {
        match self {
            Self::Normal(_) => Self::Normal(Seq::MAX - 1),
            Self::Low(_) => Self::Low(Seq::MAX - 1),
        }
    }

    pub(crate) fn is_of_other_lane(self, other: Self) -> bool {
        match (self, other) {
            (Self::Normal(_), Self::Normal(_)) | (Self::Low(_), Self::Low(_)) => false,
            (Self::Normal(_), Self::Low(_)) | (Self::Low(_), Self::Normal(_)) => true,
        }
    }
}

impl Index {
    pub(crate) fn derive<R: Kept>(
        rows: &mut R,
        now: Timestamp,
        lease_ms: &LeaseMs,
    ) -> Result<Self> {
        let mut index = Self::default();
        index.last_seq = rows.scan(&mut |seq, mut job| {
            if let State::Running(attempt) = &job.state {
                let lease_until = now.plus_ms(lease_ms(&job.endpoint));
                job.state = State::Running(Attempt {
                    lease_until,
                    ..attempt.clone()
                });
            }
            index.enter(seq, &job);
        })?;
        for (endpoint, counter, value) in rows.counters()? {
            index
                .queues
                .entry(endpoint)
                .or_default()
                .counters
                .insert(counter, value);
        }
        index.chunk_bytes = rows.chunk_bytes()?.into_iter().collect();
        index.open = OpenDeliveries::with_last(rows.last_delivery()?);
        rows.open_deliveries(&mut |due| index.open.enter(&due))?;
        Ok(index)
    }

    /// The same of a part of what is kept, where leases are as they are.
    pub(crate) fn over(
        live: impl Iterator<Item = (Seq, Job)>,
        chunk_bytes: impl Iterator<Item = (Seq, usize)>,
        last: Seq,
    ) -> Self {
        let mut index = Self {
            last_seq: last,
            chunk_bytes: chunk_bytes.filter(|(_, bytes)| *bytes > 0).collect(),
            open: OpenDeliveries::with_last(last),
            ..Self::default()
        };
        for (seq, job) in live {
            index.enter(seq, &job);
        }
        index
    }

    /// The latest place that is taken.
    pub(crate) fn last_seq(&self) -> Seq {
        self.last_seq
    }

    pub(crate) fn next_seq(&mut self) -> Seq {
        self.last_seq += 1;
        self.last_seq
    }

    /// Notes a live job; an ended one leaves no trace here.
    pub(crate) fn enter(&mut self, seq: Seq, job: &Job) {
        let queue = match self.queues.get_mut(&job.endpoint) {
            Some(queue) => queue,
            None => self.queues.entry(job.endpoint.clone()).or_default(),
        };
        match &job.state {
            State::Queued => {
                queue.lane(job).insert(seq, job.queued_at);
            }
            State::Running(attempt) => {
                queue.running += 1;
                self.running_ids.insert(job.id, seq);
                self.held
                    .entry(attempt.worker.clone())
                    .or_default()
                    .insert(seq);
                self.running.insert(seq, job.clone());
            }
            State::Completed(_) | State::Failed(_) | State::Cancelled(_) | State::TimedOut(_) => {
                return;
            }
        }
        self.deadlines.insert((job.deadline(), seq));
    }

    fn leave(&mut self, seq: Seq, job: &Job) {
        let Some(queue) = self.queues.get_mut(&job.endpoint) else {
            return;
        };
        match &job.state {
            State::Queued => {
                queue.lane(job).remove(&seq);
            }
            State::Running(attempt) => {
                queue.running = queue.running.saturating_sub(1);
                self.running_ids.remove(&job.id);
                self.running.remove(&seq);
                if let Some(held) = self.held.get_mut(&attempt.worker) {
                    held.remove(&seq);
                    if held.is_empty() {
                        self.held.remove(&attempt.worker);
                    }
                }
            }
            State::Completed(_) | State::Failed(_) | State::Cancelled(_) | State::TimedOut(_) => {
                return;
            }
        }
        self.deadlines.remove(&(job.deadline(), seq));
    }

    pub(crate) fn update(&mut self, seq: Seq, before: &Job, after: &Job) {
        self.leave(seq, before);
        self.enter(seq, after);
    }

    /// The next waiting job behind a place: the normal lane first, each lane in order of submission.
    pub(crate) fn next_waiting(
        &self,
        endpoint: &EndpointId,
        after: Option<Cursor>,
    ) -> Option<(Cursor, Seq)> {
        let queue = self.queues.get(endpoint)?;
        let normal_from = match after {
            None => Some(0),
            Some(Cursor::Normal(seq)) => Some(seq + 1),
            Some(Cursor::Low(_)) => None,
        };
        if let Some(from) = normal_from
            && let Some((&seq, _)) = queue.normal.range(from..).next()
        {
            return Some((Cursor::Normal(seq), seq));
        }
        let low_from = match after {
            None | Some(Cursor::Normal(_)) => 0,
            Some(Cursor::Low(seq)) => seq + 1,
        };
        let (&seq, _) = queue.low.range(low_from..).next()?;
        Some((Cursor::Low(seq), seq))
    }

    /// Where a job stands, if it waits.
    pub(crate) fn place(&self, seq: Seq, job: &Job) -> Option<Place> {
        let queue = self.queues.get(&job.endpoint)?;
        let low = job.terms.low_priority;
        let (lane, before) = if low {
            (&queue.low, queue.normal.len())
        } else {
            (&queue.normal, 0)
        };
        if !lane.contains_key(&seq) {
            return None;
        }
        // One more than is told, to know whether there is more.
        let uncounted = (PLACES_COUNTED + 1).saturating_sub(before);
        let ahead = before + lane.range(..seq).take(uncounted).count();
        Some(Place {
            ahead: ahead.min(PLACES_COUNTED) as u64,
            at_least: ahead > PLACES_COUNTED,
            low,
        })
    }

    pub(crate) fn running(&self, seq: Seq) -> Option<Job> {
        self.running.get(&seq).cloned()
    }

    pub(crate) fn running_by_id(&self, id: JobId) -> Option<(Seq, Job)> {
        let seq = *self.running_ids.get(&id)?;
        Some((seq, self.running(seq)?))
    }

    pub(crate) fn held_by(&self, worker: &WorkerId) -> Vec<(Seq, Job)> {
        let held = self.held.get(worker).into_iter().flatten();
        held.filter_map(|&seq| Some((seq, self.running(seq)?)))
            .collect()
    }

    pub(crate) fn due(&self, now: Timestamp, limit: usize) -> Vec<Seq> {
        let due = self
            .deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= now);
        due.take(limit).map(|(_, seq)| *seq).collect()
    }

    pub(crate) fn next_deadline(&self) -> Timestamp {
        self.deadlines
            .first()
            .map_or(Timestamp::NEVER, |(deadline, _)| *deadline)
    }

    pub(crate) fn chunk_bytes(&self, seq: Seq) -> usize {
        self.chunk_bytes.get(&seq).copied().unwrap_or_default()
    }

    pub(crate) fn add_chunk_bytes(&mut self, seq: Seq, bytes: usize) {
        *self.chunk_bytes.entry(seq).or_default() += bytes;
    }

    pub(crate) fn remove_chunk_bytes(&mut self, seq: Seq, bytes: usize) {
        match self.chunk_bytes(seq).saturating_sub(bytes) {
            0 => self.chunk_bytes.remove(&seq),
            left => self.chunk_bytes.insert(seq, left),
        };
    }

    /// Notes that a job has no chunks.
    pub(crate) fn forget(&mut self, seq: Seq) {
        self.chunk_bytes.remove(&seq);
    }

    pub(crate) fn count(&mut self, endpoint: &EndpointId, counter: Counter) {
        let queue = self.queues.entry(endpoint.clone()).or_default();
        *queue.counters.entry(counter).or_default() += 1;
        self.moved.insert((endpoint.clone(), counter));
    }

    pub(crate) fn moved_counters(&mut self) -> Vec<(EndpointId, Counter, u64)> {
        let moved = std::mem::take(&mut self.moved);
        moved
            .into_iter()
            .map(|(endpoint, counter)| {
                let counters = self.queues.get(&endpoint).map(|queue| &queue.counters);
                let value = counters
                    .and_then(|all| all.get(&counter).copied())
                    .unwrap_or_default();
                (endpoint, counter, value)
            })
            .collect()
    }

    pub(crate) fn survey(&self) -> Vec<Survey> {
        let mut holders: HashMap<&EndpointId, BTreeMap<WorkerId, usize>> = HashMap::new();
        for (worker, held) in &self.held {
            for job in held.iter().filter_map(|seq| self.running.get(seq)) {
                let here = holders.entry(&job.endpoint).or_default();
                *here.entry(worker.clone()).or_default() += 1;
            }
        }
        let mut surveys: Vec<Survey> = self
            .queues
            .iter()
            .map(|(endpoint, queue)| Survey {
                endpoint: endpoint.clone(),
                demand: queue.demand(),
                holders: holders
                    .remove(endpoint)
                    .unwrap_or_default()
                    .into_iter()
                    .collect(),
                counters: queue.counters.iter().map(|(&c, &n)| (c, n)).collect(),
            })
            .collect();
        surveys.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        surveys
    }
}

impl Queue {
    fn lane(&mut self, job: &Job) -> &mut BTreeMap<Seq, Timestamp> {
        if job.terms.low_priority {
            &mut self.low
        } else {
            &mut self.normal
        }
    }

    fn demand(&self) -> Demand {
        Demand {
            queued: self.normal.len() as u64,
            queued_low: self.low.len() as u64,
            running: self.running,
            oldest_queued_at: self.normal.first_key_value().map(|(_, &at)| at),
        }
    }
}
