//! What a group of operations needs is read and locked, in one round trip.
//!
//! Every statement waits for its locks in the order of the ids, so that groups seldom wait for each other
//! in a circle; where they do, the database ends one of them and it begins anew. The queue is read past
//! what others have locked.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use deadpool_postgres::Client;
use lazyfox_core::id::{DeliveryId, EndpointId, JobId, WorkerId};
use lazyfox_core::time::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connect::{Failure, failed};
use super::pipeline::{self, Asked};
use super::row::{Id, column, job_of, unsigned};
use super::set::{Became, Over, Set};
use super::{deliveries, sql};
use crate::StoreError;
use crate::engine::Seq;

/// Inputs that are read for one group, in bytes: a batch of the largest jobs must not fill the memory.
const INPUT_BYTES: i64 = 32 * 1024 * 1024;

/// What an operation needs to have in its set.
#[derive(Clone, Debug)]
pub(super) struct Needs {
    /// These jobs.
    pub(super) jobs: BTreeSet<Id>,
    /// Of these among them, how many bytes of chunks wait, and so many bytes of chunks.
    pub(super) chunks: BTreeMap<Id, usize>,
    /// Of these among them, the deliveries.
    pub(super) deliveries_of: BTreeSet<Id>,
    /// The jobs of these idempotency keys.
    pub(super) keys: BTreeSet<String>,
    /// So many of those that wait, with their inputs up to a size of all together.
    pub(super) heads: usize,
    /// The inputs of these, beyond that.
    pub(super) inputs: BTreeSet<Id>,
    /// What these workers hold of what they took since; and on which endpoints they may.
    pub(super) held: BTreeMap<WorkerId, Timestamp>,
    pub(super) held_on: BTreeSet<EndpointId>,
    /// What these workers took at this very time, with the inputs.
    pub(super) taken: BTreeSet<(WorkerId, Timestamp)>,
    /// The oldest of those that wait, up to this place.
    pub(super) waiting: Option<(Seq, usize)>,
    /// These deliveries.
    pub(super) deliveries: BTreeSet<u64>,
    /// Ended jobs that may be forgotten, if they are over by this time.
    pub(super) over: Vec<Over>,
    pub(super) over_by: Timestamp,
}

impl Default for Needs {
    fn default() -> Self {
        Self {
            jobs: BTreeSet::new(),
            chunks: BTreeMap::new(),
            deliveries_of: BTreeSet::new(),
            keys: BTreeSet::new(),
            heads: 0,
            inputs: BTreeSet::new(),
            held: BTreeMap::new(),
            held_on: BTreeSet::new(),
            taken: BTreeSet::new(),
            waiting: None,
            deliveries: BTreeSet::new(),
            over: Vec::new(),
            over_by: Timestamp::from_ms(i64::MIN),
        }
    }
}

impl Needs {
    pub(super) fn job(id: JobId) -> Self {
        Self {
            jobs: [Id::from(id)].into(),
            ..Self::default()
        }
    }

    pub(super) fn redelivery(ids: &[DeliveryId]) -> Self {
        let jobs: BTreeSet<Id> = ids.iter().map(|id| Id::from(id.job)).collect();
        Self {
            deliveries_of: jobs.clone(),
            jobs,
            ..Self::default()
        }
    }

    /// Whether there is nothing to read.
    pub(super) fn is_nothing(&self) -> bool {
        self.jobs.is_empty()
            && self.keys.is_empty()
            && self.heads == 0
            && self.held.is_empty()
            && self.taken.is_empty()
            && self.waiting.is_none()
            && self.deliveries.is_empty()
            && self.over.is_empty()
    }

    /// What two operations need together.
    pub(super) fn and(&mut self, more: &Self) {
        self.jobs.extend(&more.jobs);
        for (&id, &bytes) in &more.chunks {
            let most = self.chunks.entry(id).or_default();
            *most = (*most).max(bytes);
        }
        self.deliveries_of.extend(&more.deliveries_of);
        self.keys.extend(more.keys.iter().cloned());
        self.heads += more.heads;
        self.inputs.extend(&more.inputs);
        for (worker, &since) in &more.held {
            let least = self.held.entry(worker.clone()).or_insert(since);
            *least = (*least).min(since);
        }
        self.held_on.extend(more.held_on.iter().cloned());
        self.taken.extend(more.taken.iter().cloned());
        self.waiting = match (self.waiting, more.waiting) {
            (Some((a, n)), Some((b, m))) => Some((a.max(b), n + m)),
            (one, other) => one.or(other),
        };
        self.deliveries.extend(&more.deliveries);
        let known: BTreeSet<Seq> = self.over.iter().map(|over| over.seq).collect();
        let new = more.over.iter().filter(|over| !known.contains(&over.seq));
        self.over.extend(new.cloned());
        self.over_by = self.over_by.max(more.over_by);
    }
}

/// Reads what is needed; of what waits in the normal lane, from a place on. With a first statement that
/// begins the transaction, it is one round trip.
pub(super) async fn load(
    client: &Client,
    endpoint: &EndpointId,
    needs: &Needs,
    heads_from: Seq,
    begins: bool,
) -> Result<Set, Failure> {
    let wants = wants(endpoint, needs, heads_from);
    let mut asked = Vec::new();
    if begins {
        asked.push(Asked::batch("BEGIN"));
    }
    for want in &wants {
        let statement = client.prepare_cached(want.sql).await.map_err(failed)?;
        let params = want.params.iter().map(|it| &**it as &(dyn ToSql + Sync));
        asked.push(Asked::query(statement, params.collect()));
    }
    let mut answers = pipeline::run(client, asked).await?.into_iter();
    if begins {
        answers.next();
    }
    let mut set = Set::default();
    for (want, rows) in wants.iter().zip(answers) {
        want.part.read(&mut set, &rows, needs)?;
    }
    Ok(set)
}

/// A statement, and what its rows are of.
struct Want {
    part: Part,
    sql: &'static str,
    params: Vec<Box<dyn ToSql + Sync + Send>>,
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

macro_rules! want {
    ($wants:ident, $when:expr, $part:expr, $sql:expr, $($param:expr),+) => {
        if $when {
            let params = vec![$(Box::new($param) as Box<dyn ToSql + Sync + Send>),+];
            $wants.push(Want { part: $part, sql: $sql, params });
        }
    };
}

/// The statements that are needed, those that wait for locks first.
fn wants(endpoint: &EndpointId, needs: &Needs, heads_from: Seq) -> Vec<Want> {
    let on = || endpoint.as_str().to_owned();
    let ids = |ids: &mut dyn Iterator<Item = Id>| ids.collect::<Vec<Id>>();
    let mut wants = Vec::new();
    let jobs = ids(&mut needs.jobs.iter().copied());
    want!(wants, !jobs.is_empty(), Part::Jobs, sql::JOBS, on(), jobs);
    want_held(&mut wants, endpoint, needs);
    let keys: Vec<String> = needs.keys.iter().cloned().collect();
    want!(wants, !keys.is_empty(), Part::Keys, sql::KEYS, on(), keys);
    let (through, waiting) = needs.waiting.unwrap_or_default();
    let (through, waiting) = (i64::try_from(through).unwrap_or(i64::MAX), number(waiting));
    want!(
        wants,
        waiting > 0,
        Part::Jobs,
        sql::WAITING,
        on(),
        through,
        waiting
    );
    let heads = number(needs.heads);
    want!(
        wants,
        heads > 0,
        Part::Heads,
        sql::HEADS,
        on(),
        heads,
        INPUT_BYTES,
        heads_from.cast_signed()
    );
    let inputs = ids(&mut needs.inputs.iter().copied());
    want!(
        wants,
        !inputs.is_empty(),
        Part::Inputs,
        sql::INPUTS,
        on(),
        inputs
    );
    let chunked = ids(&mut needs.chunks.keys().copied());
    let bytes = number(needs.chunks.values().copied().max().unwrap_or_default());
    want!(
        wants,
        !chunked.is_empty(),
        Part::Chunks,
        sql::CHUNKS,
        on(),
        chunked,
        bytes
    );
    let over = ids(&mut needs.over.iter().map(|over| over.id.into()));
    let over_by = needs.over_by.as_ms();
    want!(
        wants,
        !over.is_empty(),
        Part::Over,
        sql::OVER,
        on(),
        over,
        over_by
    );
    want_deliveries(&mut wants, endpoint, needs);
    wants
}

/// What workers have.
fn want_held(wants: &mut Vec<Want>, endpoint: &EndpointId, needs: &Needs) {
    let on = || endpoint.as_str().to_owned();
    let held: Vec<String> = needs.held.keys().map(ToString::to_string).collect();
    let since: Vec<i64> = needs.held.values().map(|since| since.as_ms()).collect();
    let held_on: Vec<String> = needs.held_on.iter().map(ToString::to_string).collect();
    want!(
        wants,
        !held.is_empty(),
        Part::Jobs,
        sql::HELD,
        held_on,
        held,
        since
    );
    let takers: Vec<String> = needs.taken.iter().map(|(it, _)| it.to_string()).collect();
    let times: Vec<i64> = needs.taken.iter().map(|(_, at)| at.as_ms()).collect();
    want!(
        wants,
        !takers.is_empty(),
        Part::Taken,
        sql::TAKEN,
        on(),
        takers,
        times
    );
}

fn want_deliveries(wants: &mut Vec<Want>, endpoint: &EndpointId, needs: &Needs) {
    let on = || endpoint.as_str().to_owned();
    let over = needs.over.iter().filter(|over| over.has_webhook);
    let of_jobs = needs.deliveries_of.iter().copied();
    let delivered: Vec<Id> = of_jobs.chain(over.map(|over| over.id.into())).collect();
    want!(
        wants,
        !delivered.is_empty(),
        Part::Deliveries,
        sql::DELIVERIES_OF,
        on(),
        delivered
    );
    let numbers: Vec<i64> = needs.deliveries.iter().map(|it| it.cast_signed()).collect();
    want!(
        wants,
        !numbers.is_empty(),
        Part::Deliveries,
        sql::DELIVERIES,
        on(),
        numbers
    );
}

/// What rows are of.
enum Part {
    Jobs,
    Taken,
    Keys,
    Heads,
    Inputs,
    Chunks,
    Over,
    Deliveries,
}

impl Part {
    fn read(&self, set: &mut Set, rows: &[Row], needs: &Needs) -> Result<(), Failure> {
        match self {
            Self::Jobs => {
                for row in rows {
                    set.add(job_of(row)?);
                }
            }
            Self::Taken => {
                for row in rows {
                    read_with_input(set, row)?;
                }
            }
            Self::Keys => {
                for row in rows {
                    let found = job_of(row)?;
                    let (key, of): (String, Vec<u8>) = (
                        column(row, sql::JOB_COLUMNS)?,
                        column(row, sql::JOB_COLUMNS + 1)?,
                    );
                    let of = of.try_into().map_err(|_| {
                        StoreError::Corrupt("a fingerprint cannot be read".to_owned())
                    })?;
                    set.add_key(found, key, of);
                }
            }
            Self::Heads => {
                for row in rows {
                    let (seq, is_low) = read_with_input(set, row)?;
                    if !is_low {
                        set.first.get_or_insert(seq);
                    }
                }
            }
            Self::Inputs => read_inputs(set, rows)?,
            Self::Chunks => read_chunks(set, rows)?,
            // Locked by now, and still over: what somebody else deleted or kept meanwhile is not.
            Self::Over => {
                for row in rows {
                    let id: Id = column(row, 0)?;
                    set.over.push(Over {
                        seq: unsigned(row, 1)?,
                        id: id.job(),
                        has_webhook: column(row, 2)?,
                        key: column(row, 3)?,
                        became: Became::Nothing,
                    });
                }
                let order: BTreeMap<Seq, usize> = needs
                    .over
                    .iter()
                    .enumerate()
                    .map(|(at, over)| (over.seq, at))
                    .collect();
                set.over.sort_by_key(|over| order.get(&over.seq).copied());
            }
            Self::Deliveries => {
                for row in rows {
                    set.add_kept(deliveries::row_of(row)?);
                }
            }
        }
        Ok(())
    }
}

/// The job's place, and whether it is in the low lane.
fn read_with_input(set: &mut Set, row: &Row) -> Result<(Seq, bool), Failure> {
    let found = job_of(row)?;
    let is_low = found.job.terms.low_priority;
    let seq = set.add(found);
    let body: Option<Vec<u8>> = column(row, sql::JOB_COLUMNS)?;
    if let Some(body) = body {
        set.add_input(seq, Bytes::from(body), column(row, sql::JOB_COLUMNS + 1)?);
    }
    Ok((seq, is_low))
}

fn read_inputs(set: &mut Set, rows: &[Row]) -> Result<(), Failure> {
    for row in rows {
        let id: Id = column(row, 0)?;
        let body: Vec<u8> = column(row, 1)?;
        if let Some(seq) = set.seq_of(id.job()) {
            set.add_input(seq, Bytes::from(body), column(row, 2)?);
        }
    }
    Ok(())
}

fn read_chunks(set: &mut Set, rows: &[Row]) -> Result<(), Failure> {
    let mut jobs: BTreeMap<JobId, (usize, Vec<(i64, Bytes)>)> = BTreeMap::new();
    for row in rows {
        let id: Id = column(row, 0)?;
        let waiting: i64 = column(row, 1)?;
        let (_, bodies) = jobs
            .entry(id.job())
            .or_insert_with(|| (usize::try_from(waiting).unwrap_or(usize::MAX), Vec::new()));
        let body: Option<Vec<u8>> = column(row, 3)?;
        if let Some(body) = body {
            bodies.push((column(row, 2)?, Bytes::from(body)));
        }
    }
    for (job, (waiting, bodies)) in jobs {
        set.add_chunks(job, waiting, bodies);
    }
    Ok(())
}
