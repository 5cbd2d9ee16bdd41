//! Reads that change nothing and lock nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use deadpool_postgres::Pool;
use lazyfox_core::id::{EndpointId, JobId};
use lazyfox_core::job::Counter;
use lazyfox_core::scale::Demand;
use tokio::sync::oneshot;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connect::{self, Failure, failed};
use super::floors::Floors;
use super::lanes::Lanes;
use super::pipeline::{self, Asked};
use super::pulse::Knowledge;
use super::row::{Id, column, endpoint_of, job_of, time, unsigned};
use super::sql;
use crate::engine::{Result, Seq};
use crate::{
    Answer, LIST_VISITS_MAX, Loaded, PLACES_COUNTED, Page, Parts, Place, Query, StoreError, Survey,
};

/// Outputs up to this size are read together with others.
const SMALL: i64 = 256 * 1024;
/// Jobs that are read at once.
const TOGETHER_MAX: usize = 256;
/// Reads of one endpoint that are under way at once.
const AT_ONCE: usize = 2;

type Fallible<T> = std::result::Result<T, Failure>;

/// Reads jobs for whoever asks at the same time in one statement.
pub(super) struct Loads {
    pool: Pool,
    lanes: Lanes<Wanted>,
}

struct Wanted {
    job: JobId,
    parts: Parts,
    reply: oneshot::Sender<Result<Option<Loaded>>>,
}

impl Loads {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            lanes: Lanes::new(AT_ONCE, 1),
        }
    }

    pub(super) fn load<'a>(
        self: &'a Arc<Self>,
        endpoint: &EndpointId,
        job: JobId,
        parts: Parts,
    ) -> Answer<'a, Option<Loaded>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            if self.lanes.enter(&endpoint, Wanted { job, parts, reply }) {
                tokio::spawn(Arc::clone(self).work(endpoint));
            }
            let stopped = || StoreError::Unavailable("the store is shut down".to_owned());
            answer.await.map_err(|_| stopped())?
        })
    }

    async fn work(self: Arc<Self>, endpoint: EndpointId) {
        loop {
            tokio::task::yield_now().await;
            let group = self.lanes.next(&endpoint, |waiting| {
                let many = waiting.len().min(TOGETHER_MAX);
                waiting.drain(..many).collect()
            });
            let Some(group) = group else {
                return;
            };
            self.read(&endpoint, group).await;
        }
    }

    async fn read(&self, endpoint: &EndpointId, group: Vec<Wanted>) {
        let wanted: Vec<(JobId, Parts)> = group.iter().map(|it| (it.job, it.parts)).collect();
        let answers = connect::again(&self.pool, || {
            Box::pin(together(&self.pool, endpoint, &wanted, SMALL))
        });
        let answers = match answers.await {
            Ok(answers) => answers,
            Err(failure) => {
                let error = failure.into_error();
                for wanted in group {
                    let _ = wanted.reply.send(Err(error.clone()));
                }
                return;
            }
        };
        for (wanted, read) in group.into_iter().zip(answers) {
            let answer = match read {
                Read::Done(loaded) => Ok(loaded.map(|loaded| *loaded)),
                Read::Damaged(error) => Err(error),
                Read::Large => self.alone(endpoint, wanted.job, wanted.parts).await,
            };
            // A caller that went away needs no answer.
            let _ = wanted.reply.send(answer);
        }
    }

    async fn alone(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        parts: Parts,
    ) -> Result<Option<Loaded>> {
        let wanted = [(job, parts)];
        let read = connect::again(&self.pool, || {
            Box::pin(together(&self.pool, endpoint, &wanted, i64::MAX))
        });
        match read.await.map_err(Failure::into_error)?.pop() {
            Some(Read::Done(loaded)) => Ok(loaded.map(|loaded| *loaded)),
            Some(Read::Damaged(error)) => Err(error),
            Some(Read::Large) | None => Ok(None),
        }
    }
}

enum Read {
    Done(Option<Box<Loaded>>),
    Large,
    Damaged(StoreError),
}

async fn together(
    pool: &Pool,
    endpoint: &EndpointId,
    wanted: &[(JobId, Parts)],
    small: i64,
) -> Fallible<Vec<Read>> {
    const OWN: usize = sql::JOB_COLUMNS;
    let client = connect::client(pool).await?;
    let ids: Vec<Id> = wanted.iter().map(|(job, _)| Id::from(*job)).collect();
    let outputs: Vec<bool> = wanted.iter().map(|(_, parts)| parts.output).collect();
    let inputs: Vec<bool> = wanted.iter().map(|(_, parts)| parts.input).collect();
    let small = i32::try_from(small).unwrap_or(i32::MAX);
    let rows = connect::rows(
        &client,
        sql::LOAD,
        &[&endpoint.as_str(), &ids, &outputs, &inputs, &small],
    )
    .await?;
    let mut reads: Vec<Read> = wanted.iter().map(|_| Read::Done(None)).collect();
    for row in &rows {
        let place: i64 = column(row, OWN)?;
        let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
        let (Some(read), Some((job, parts))) = (reads.get_mut(place), wanted.get(place)) else {
            continue;
        };
        *read = match loaded(row, *parts) {
            // The same key may stand for another spelling of an id.
            Ok(Read::Done(Some(loaded))) if loaded.job.id != *job => Read::Done(None),
            Ok(read) => read,
            Err(error) => Read::Damaged(error),
        };
    }
    Ok(reads)
}

fn loaded(row: &tokio_postgres::Row, parts: Parts) -> Result<Read> {
    const OWN: usize = sql::JOB_COLUMNS;
    let large: Option<bool> = column(row, OWN + 1)?;
    if large == Some(true) {
        return Ok(Read::Large);
    }
    let output: Option<Vec<u8>> = column(row, OWN + 2)?;
    let input: Option<Vec<u8>> = column(row, OWN + 3)?;
    let job = job_of(row)?.job;
    if parts.input && input.is_none() {
        let what = format!("the input of {} is missing", job.id);
        return Err(StoreError::Corrupt(what));
    }
    Ok(Read::Done(Some(Box::new(Loaded {
        job,
        output: output.map(Bytes::from),
        input: input.map(Bytes::from),
    }))))
}

/// A page of jobs, the newest first.
pub(super) async fn list(pool: &Pool, query: &Query) -> Fallible<Page> {
    let client = connect::client(pool).await?;
    let on = query.endpoint.as_str();
    let before = query
        .before
        .map_or(i64::MAX, |it| i64::try_from(it).unwrap_or(i64::MAX));
    let visits = i64::try_from(LIST_VISITS_MAX).unwrap_or(i64::MAX);
    let status = query.status.map(|status| status.as_str());
    let limit = i64::try_from(query.limit.saturating_add(1)).unwrap_or(i64::MAX);
    let rows = connect::rows(
        &client,
        sql::LIST,
        &[&on, &before, &visits, &status, &limit],
    )
    .await?;
    let (mut jobs, mut last) = (Vec::new(), None);
    for row in rows.iter().take(query.limit) {
        let found = job_of(row)?;
        last = Some(found.seq);
        jobs.push(found.job);
    }
    let next = if rows.len() > query.limit {
        last
    } else {
        // What lies behind the last that was looked at, if anything does.
        let seen = visits - 1;
        let end = connect::row(&client, sql::LIST_END, &[&on, &before, &seen]).await?;
        end.map(|row| unsigned(&row, 0)).transpose()?
    };
    Ok(Page { jobs, next })
}

/// Every endpoint's jobs in numbers.
pub(super) async fn survey(
    pool: &Pool,
    knowledge: &Knowledge,
    floors: &Floors,
) -> Fallible<Vec<Survey>> {
    let client = connect::client(pool).await?;
    let (on, from): (Vec<String>, Vec<i64>) = floors
        .all()
        .into_iter()
        .map(|(endpoint, seq)| (endpoint.to_string(), seq.cast_signed()))
        .unzip();
    let deadline = knowledge.floors().deadline;
    let mut asked = Vec::new();
    let params: [(&str, Vec<&(dyn ToSql + Sync)>); 3] = [
        (sql::DEMAND, vec![&on, &from, &deadline]),
        (sql::HOLDERS, vec![&deadline]),
        (sql::COUNTS, Vec::new()),
    ];
    for (sql, params) in params {
        let statement = client.prepare_cached(sql).await.map_err(failed)?;
        asked.push(Asked::query(statement, params));
    }
    let answers = pipeline::run(&client, asked).await?;
    match answers.as_slice() {
        [demands, holders, counts] => Ok(surveys_of(demands, holders, counts)?),
        _ => Ok(Vec::new()),
    }
}

fn surveys_of(demands: &[Row], holders: &[Row], counts: &[Row]) -> Result<Vec<Survey>> {
    let mut surveys = BTreeMap::new();
    for row in demands {
        let endpoint = endpoint_of(column(row, 0)?)?;
        let oldest: Option<i64> = column(row, 4)?;
        let survey = Survey {
            endpoint: endpoint.clone(),
            demand: Demand {
                queued: unsigned(row, 1)?,
                queued_low: unsigned(row, 2)?,
                running: unsigned(row, 3)?,
                oldest_queued_at: oldest.map(time),
            },
            holders: Vec::new(),
            counters: Vec::new(),
        };
        surveys.insert(endpoint, survey);
    }
    for row in holders {
        let worker: &str = column(row, 1)?;
        let worker = worker
            .parse()
            .map_err(|_| StoreError::Corrupt(format!("{worker} is not a worker's name")))?;
        let count = usize::try_from(column::<i64>(row, 2)?).unwrap_or(usize::MAX);
        if let Some(survey) = surveys.get_mut(&endpoint_of(column(row, 0)?)?) {
            survey.holders.push((worker, count));
        }
    }
    for row in counts {
        let Some(survey) = surveys.get_mut(&endpoint_of(column(row, 0)?)?) else {
            continue;
        };
        let counters = [
            Counter::Completed,
            Counter::Failed,
            Counter::Cancelled,
            Counter::TimedOut,
            Counter::Retried,
        ];
        for (at, counter) in (1..).zip(counters) {
            let count = unsigned(row, at)?;
            if count > 0 {
                survey.counters.push((counter, count));
            }
        }
    }
    Ok(surveys.into_values().collect())
}

/// Where a job stands among those that wait.
pub(super) async fn place(
    pool: &Pool,
    endpoint: &EndpointId,
    job: JobId,
    from: Seq,
) -> Fallible<Option<Place>> {
    let client = connect::client(pool).await?;
    // One more than is told, to know whether there is more.
    let most = i64::try_from(PLACES_COUNTED + 1).unwrap_or(i64::MAX);
    let row = connect::row(
        &client,
        sql::PLACE,
        &[
            &endpoint.as_str(),
            &Id::from(job),
            &most,
            &from.cast_signed(),
        ],
    )
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let (low, ahead): (bool, u64) = (column(&row, 0)?, unsigned(&row, 1)?);
    let counted = PLACES_COUNTED as u64;
    Ok(Some(Place {
        ahead: ahead.min(counted),
        at_least: ahead > counted,
        low,
    }))
}
