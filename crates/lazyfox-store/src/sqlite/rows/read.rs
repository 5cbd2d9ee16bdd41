//! From rows to jobs.

use bytes::Bytes;
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::job::{Attempt, End, Job, State, Status};
use lazyfox_core::policy::Terms;
use lazyfox_core::time::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::unavailable;
use crate::deaths;
use crate::engine::{Result, Seq};
use crate::{LIST_VISITS_MAX, Loaded, Page, Parts, Query, StoreError};

/// What [`job_of`] reads, in this order.
pub(super) const COLUMNS: &str = "seq, id, endpoint, status, created_at, queued_at, expires_at, \
     expiry_is_hard, awaited, retries, barred, worker, started_at, ended_at, error, forget_at, \
     execution_timeout, ttl, ttl_given, low_priority, retries_max, retention, retention_sync, \
     ttl_expiry_forgets, webhook IS NOT NULL, webhook_on_cancel, begun, deaths, poison_after";

/// How many those are.
pub(super) const COLUMNS_COUNT: usize = 29;

pub(super) fn ms(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_ms(ms)
}

/// A row as a job. Leases are not kept: a running job's is due at once, and whoever puts it into an
/// index gives it a new one.
pub(super) fn job_of(row: &Row<'_>) -> Result<(Seq, Job)> {
    let damaged = |what: &str| StoreError::Corrupt(format!("a job's {what} cannot be read"));
    let (seq, parts) = raw(row).map_err(unavailable)?;
    let attempt = match (&parts.worker, parts.started_at) {
        (Some(worker), Some(at)) => Some((
            worker.parse::<WorkerId>().map_err(|_| damaged("worker"))?,
            time(at),
        )),
        _ => None,
    };
    let end = || -> Result<End> {
        Ok(End {
            at: time(parts.ended_at.ok_or_else(|| damaged("end"))?),
            attempt: attempt.clone(),
            error: parts.error.clone(),
            forget_at: time(parts.forget_at.ok_or_else(|| damaged("retention"))?),
        })
    };
    let state = match parts.status.ok_or_else(|| damaged("status"))? {
        Status::InQueue => State::Queued,
        Status::InProgress => {
            let (worker, started_at) = attempt.clone().ok_or_else(|| damaged("worker"))?;
            State::Running(Attempt {
                worker,
                started_at,
                lease_until: started_at,
                begun: parts.begun,
            })
        }
        Status::Completed => State::Completed(end()?),
        Status::Failed => State::Failed(end()?),
        Status::Cancelled => State::Cancelled(end()?),
        Status::TimedOut => State::TimedOut(end()?),
    };
    let barred = parts
        .barred
        .as_deref()
        .unwrap_or_default()
        .split_whitespace();
    let job = Job {
        id: JobId::from_bytes(&parts.id).ok_or_else(|| damaged("id"))?,
        endpoint: parts.endpoint.parse().map_err(|_| damaged("endpoint"))?,
        terms: parts.terms,
        has_webhook: parts.has_webhook,
        created_at: time(parts.created_at),
        queued_at: time(parts.queued_at),
        expires_at: time(parts.expires_at),
        expiry_is_hard: parts.expiry_is_hard,
        awaited: parts.awaited,
        retries: parts.retries,
        barred: barred
            .map(|name| name.parse().map_err(|_| damaged("list of workers")))
            .collect::<Result<_>>()?,
        deaths: deaths::parse(parts.deaths.as_deref().unwrap_or_default())
            .ok_or_else(|| damaged("list of deaths"))?,
        state,
    };
    Ok((seq, job))
}

struct Raw {
    id: [u8; 17],
    endpoint: String,
    status: Option<Status>,
    created_at: i64,
    queued_at: i64,
    expires_at: i64,
    expiry_is_hard: bool,
    awaited: bool,
    retries: u32,
    barred: Option<String>,
    worker: Option<String>,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    error: Option<String>,
    forget_at: Option<i64>,
    terms: Terms,
    has_webhook: bool,
    begun: bool,
    deaths: Option<String>,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<(Seq, Raw)> {
    let unsigned = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let status = status_of(row)?;
    let terms = Terms {
        execution_timeout_ms: row.get::<_, Option<i64>>(16)?.map(i64::cast_unsigned),
        ttl_ms: unsigned(17)?,
        ttl_given: row.get(18)?,
        low_priority: row.get(19)?,
        retries_max: row.get(20)?,
        retention_ms: unsigned(21)?,
        retention_sync_ms: unsigned(22)?,
        ttl_expiry_forgets: row.get(23)?,
        webhook_on_cancel: row.get(25)?,
        poison_after: row.get(28)?,
    };
    let raw = Raw {
        id: row.get(1)?,
        endpoint: row.get(2)?,
        status,
        created_at: row.get(4)?,
        queued_at: row.get(5)?,
        expires_at: row.get(6)?,
        expiry_is_hard: row.get(7)?,
        awaited: row.get(8)?,
        retries: row.get(9)?,
        barred: row.get(10)?,
        worker: row.get(11)?,
        started_at: row.get(12)?,
        ended_at: row.get(13)?,
        error: row.get(14)?,
        forget_at: row.get(15)?,
        terms,
        has_webhook: row.get(24)?,
        begun: row.get(26)?,
        deaths: row.get(27)?,
    };
    Ok((seq_of(row)?, raw))
}

fn seq_of(row: &Row<'_>) -> rusqlite::Result<Seq> {
    row.get::<_, i64>(0).map(i64::cast_unsigned)
}

fn status_of(row: &Row<'_>) -> rusqlite::Result<Option<Status>> {
    Ok(match row.get_ref(3)? {
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(Status::parse),
        _ => None,
    })
}

/// A read that gives up on large outputs.
pub(in crate::sqlite) enum Load {
    Done(Option<Box<Loaded>>),
    TooLarge,
}

/// Reads a job; an output larger than `output_bytes_max` is not read.
pub(in crate::sqlite) fn load(
    connection: &Connection,
    endpoint: &EndpointId,
    id: JobId,
    parts: Parts,
    output_bytes_max: usize,
) -> Result<Load> {
    let sql = format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1");
    // One snapshot for the record and its payloads.
    let transaction = connection.unchecked_transaction().map_err(unavailable)?;
    let found = transaction
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement
                .query_row([id.to_bytes()], |row| Ok(job_of(row)))
                .optional()
        })
        .map_err(unavailable)?
        .transpose()?;
    let Some((seq, job)) = found.filter(|(_, job)| job.endpoint == *endpoint) else {
        return Ok(Load::Done(None));
    };
    let mut loaded = Box::new(Loaded {
        job,
        output: None,
        input: None,
    });
    if parts.output {
        match output_of(&transaction, seq, output_bytes_max)? {
            None => {}
            Some(Some(body)) => loaded.output = Some(Bytes::from(body)),
            Some(None) => return Ok(Load::TooLarge),
        }
    }
    if parts.input {
        loaded.input = Some(input_of(&transaction, seq)?);
    }
    Ok(Load::Done(Some(loaded)))
}

/// A job's output, if it has one: `Some(None)` when it is larger than this.
fn output_of(
    connection: &Connection,
    seq: Seq,
    bytes_max: usize,
) -> Result<Option<Option<Vec<u8>>>> {
    let max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "SELECT CASE WHEN length(body) <= ?2 THEN body END FROM outputs WHERE seq = ?1",
        )
        .and_then(|mut statement| {
            let row = statement.query_row(params![seq.cast_signed(), max], |row| row.get(0));
            row.optional()
        })
        .map_err(unavailable)
}

fn input_of(connection: &Connection, seq: Seq) -> Result<Bytes> {
    let body: Vec<u8> = connection
        .prepare_cached("SELECT body FROM inputs WHERE seq = ?1")
        .and_then(|mut statement| statement.query_row([seq.cast_signed()], |row| row.get(0)))
        .map_err(unavailable)?;
    Ok(Bytes::from(body))
}

/// Reads a page of jobs, newest first. Which jobs are meant is looked at here and not by SQLite, which could
/// not say how far it went for a page that is not full.
pub(in crate::sqlite) fn list(connection: &Connection, query: &Query) -> Result<Page> {
    let sql = format!("SELECT {COLUMNS} FROM jobs WHERE seq < ?1 ORDER BY seq DESC");
    let mut statement = connection.prepare_cached(&sql).map_err(unavailable)?;
    let before = query
        .before
        .map_or(i64::MAX, |seq| i64::try_from(seq).unwrap_or(i64::MAX));
    let mut rows = statement.query([before]).map_err(unavailable)?;
    let mut page = Page {
        jobs: Vec::new(),
        next: None,
    };
    let mut last = None;
    let mut visits = 0;
    while let Some(row) = rows.next().map_err(unavailable)? {
        let matches = is_meant(row, query).map_err(unavailable)?;
        if (matches && page.jobs.len() == query.limit) || visits == LIST_VISITS_MAX {
            page.next = last;
            break;
        }
        visits += 1;
        last = Some(seq_of(row).map_err(unavailable)?);
        if matches {
            page.jobs.push(job_of(row)?.1);
        }
    }
    Ok(page)
}

fn is_meant(row: &Row<'_>, query: &Query) -> rusqlite::Result<bool> {
    let endpoint = row.get_ref(2)?;
    let here =
        matches!(endpoint, ValueRef::Text(text) if text == query.endpoint.as_str().as_bytes());
    Ok(here && (query.status.is_none() || query.status == status_of(row)?))
}
