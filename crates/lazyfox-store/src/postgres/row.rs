//! Jobs as rows and back.

use lazyfox_core::id::{JobId, WorkerId};
use lazyfox_core::job::{Attempt, End, Job, State, Status};
use lazyfox_core::policy::Terms;
use lazyfox_core::time::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::StoreError;
use crate::deaths;
use crate::engine::{Result, Seq};
pub(super) use crate::texts::endpoint_of;

const HAS_SECRETS: usize = 30;
const HAS_OUTPUT: usize = 31;

/// A job's id as the database has it: a UUID, whose variant bits are both set for a sync job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id([u8; 16]);

/// Where the variant stands, and its bits in ids that this program makes.
const VARIANT_AT: usize = 8;
const VARIANT_BITS: u8 = 0xc0;
const VARIANT: u8 = 0x80;

impl From<JobId> for Id {
    fn from(id: JobId) -> Self {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(id.to_bytes().first_chunk::<16>().expect("17 bytes"));
        if id.is_sync() {
            uuid[VARIANT_AT] |= VARIANT_BITS;
        }
        Self(uuid)
    }
}

impl Id {
    pub(super) fn job(self) -> JobId {
        let mut bytes = [0; 17];
        bytes[..16].copy_from_slice(&self.0);
        if self.0[VARIANT_AT] & VARIANT_BITS == VARIANT_BITS {
            bytes[VARIANT_AT] = (bytes[VARIANT_AT] & !VARIANT_BITS) | VARIANT;
            bytes[16] = 1;
        }
        JobId::from_bytes(&bytes).expect("the last byte is 0 or 1")
    }
}

impl ToSql for Id {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::UUID
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Id {
    fn from_sql(
        _: &Type,
        raw: &'a [u8],
    ) -> std::result::Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::UUID
    }
}

/// Bytes that are sent without a copy of them.
#[derive(Debug)]
pub(super) struct Raw(pub(super) bytes::Bytes);

impl ToSql for Raw {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::BYTEA
    }

    to_sql_checked!();
}

/// A text as the database can have it, which knows no zero byte. U+FFFF is no character, and stands for it.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{ffff}")
}

/// The reverse of [`text`].
pub(super) fn plain(text: String) -> String {
    if text.contains('\u{ffff}') {
        text.replace('\u{ffff}', "\0")
    } else {
        text
    }
}

pub(super) fn ms(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

pub(super) fn time(ms: i64) -> Timestamp {
    Timestamp::from_ms(ms)
}

/// A column that cannot be read as what it should be: the row is not ours, or damaged.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at)
        .map_err(|e| StoreError::Corrupt(e.to_string()))
}

pub(super) fn unsigned(row: &Row, at: usize) -> Result<u64> {
    column::<i64>(row, at).map(i64::cast_unsigned)
}

fn small(row: &Row, at: usize) -> Result<u32> {
    column::<i32>(row, at).map(i32::cast_unsigned)
}

fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(format!("a job's {what} cannot be read"))
}

/// A job, and what its row knows of its payloads.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) seq: Seq,
    pub(super) job: Job,
    pub(super) has_secrets: bool,
    pub(super) has_output: bool,
}

/// A row as a job.
pub(super) fn job_of(row: &Row) -> Result<Found> {
    let attempt = attempt_of(row)?;
    let state = state_of(row, attempt)?;
    let names = |at| -> Result<Option<String>> { column(row, at) };
    let barred = names(10)?.unwrap_or_default();
    let workers = barred.split_whitespace();
    let deaths = plain(names(27)?.unwrap_or_default());
    let job = Job {
        id: column::<Id>(row, 1)?.job(),
        endpoint: endpoint_of(column(row, 2)?)?,
        terms: terms_of(row)?,
        has_webhook: column(row, 24)?,
        created_at: time(column(row, 4)?),
        queued_at: time(column(row, 5)?),
        expires_at: time(column(row, 6)?),
        expiry_is_hard: column(row, 7)?,
        awaited: column(row, 8)?,
        retries: small(row, 9)?,
        barred: workers
            .map(|name| name.parse().map_err(|_| damaged("list of workers")))
            .collect::<Result<_>>()?,
        deaths: deaths::parse(&deaths).ok_or_else(|| damaged("list of deaths"))?,
        state,
    };
    Ok(Found {
        seq: unsigned(row, 0)?,
        job,
        has_secrets: column(row, HAS_SECRETS)?,
        has_output: column(row, HAS_OUTPUT)?,
    })
}

fn attempt_of(row: &Row) -> Result<Option<(WorkerId, Timestamp)>> {
    let worker: Option<&str> = column(row, 11)?;
    let started_at: Option<i64> = column(row, 12)?;
    Ok(match (worker, started_at) {
        (Some(worker), Some(at)) => {
            Some((worker.parse().map_err(|_| damaged("worker"))?, time(at)))
        }
        _ => None,
    })
}

fn state_of(row: &Row, attempt: Option<(WorkerId, Timestamp)>) -> Result<State> {
    let end = |attempt| -> Result<End> {
        let moment = |at, what: &str| -> Result<Timestamp> {
            let ms: Option<i64> = column(row, at)?;
            ms.map(time).ok_or_else(|| damaged(what))
        };
        Ok(End {
            at: moment(13, "end")?,
            attempt,
            error: column::<Option<String>>(row, 14)?.map(plain),
            forget_at: moment(15, "retention")?,
        })
    };
    let status = Status::parse(column(row, 3)?).ok_or_else(|| damaged("status"))?;
    Ok(match status {
        Status::InQueue => State::Queued,
        Status::InProgress => {
            let (worker, started_at) = attempt.ok_or_else(|| damaged("worker"))?;
            let lease_until: Option<i64> = column(row, 29)?;
            State::Running(Attempt {
                worker,
                started_at,
                lease_until: lease_until.map(time).ok_or_else(|| damaged("lease"))?,
                begun: column(row, 26)?,
            })
        }
        Status::Completed => State::Completed(end(attempt)?),
        Status::Failed => State::Failed(end(attempt)?),
        Status::Cancelled => State::Cancelled(end(attempt)?),
        Status::TimedOut => State::TimedOut(end(attempt)?),
    })
}

fn terms_of(row: &Row) -> Result<Terms> {
    Ok(Terms {
        execution_timeout_ms: column::<Option<i64>>(row, 16)?.map(i64::cast_unsigned),
        ttl_ms: unsigned(row, 17)?,
        ttl_given: column(row, 18)?,
        low_priority: column(row, 19)?,
        retries_max: small(row, 20)?,
        retention_ms: unsigned(row, 21)?,
        retention_sync_ms: unsigned(row, 22)?,
        ttl_expiry_forgets: column(row, 23)?,
        webhook_on_cancel: column(row, 25)?,
        poison_after: small(row, 28)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_with_its_prefix() {
        for (random, sync) in [([0; 16], true), ([255; 16], false), ([7; 16], true)] {
            let id = JobId::new(Timestamp::from_ms(1_800_000_000_000), random, sync);
            assert_eq!(Id::from(id).job(), id);
        }
    }

    #[test]
    fn any_text_of_a_worker_comes_back() {
        for words in ["", "a\0b\0", "é\n\\"] {
            let kept = text(words);
            assert!(!kept.contains('\0'));
            assert_eq!(plain(kept), words);
        }
    }
}
