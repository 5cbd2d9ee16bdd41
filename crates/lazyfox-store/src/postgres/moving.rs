//! What a database holds, given away or filled in as a whole.

mod keep;
mod sql;

use bytes::Bytes;
use deadpool_postgres::{Client, Pool, Transaction};
use lazyfox_core::delivery::{State as Sending, Try};
use lazyfox_core::time::Timestamp;
use tokio_postgres::{IsolationLevel, Row};

use self::keep::Keeping;
use super::connect::{self, Access, Failure, failed};
use super::row::{column, endpoint_of, job_of, plain, time, unsigned};
use super::sql::{DELIVERY_COLUMNS, JOB_COLUMNS};
use super::{deliveries, partitions, registers, schema};
use crate::engine::Result;
use crate::moving::{
    Carrier, Contents, CountersRecord, DeliveryRecord, EndpointRecord, JobRecord, Record,
    canonical, counted, refusal, spelled,
};
use crate::postgres::Format;
use crate::{Idempotency, LeaseMs, NewJob, Release, StoreError, Webhook, WebhookSecret};

/// Rows that are asked for at once in the beginning, and at the most.
const ROWS: i32 = 8;
const ROWS_MAX: i32 = 32;
/// How large an answer may become, in bytes, before fewer rows are asked for.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// To read or write everything takes as long as it takes, and the plans for that are not those of a server.
const PATIENTLY: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 10000; \
     SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL enable_seqscan = on";

/// Nobody writes between the look whether there is nothing, and the commit.
const ALONE: &str = "LOCK TABLE lazyfox.jobs, lazyfox.deliveries, lazyfox.counts, lazyfox.endpoints, \
     lazyfox.webhook_secrets, lazyfox.keys, lazyfox.queues IN ACCESS EXCLUSIVE MODE";

/// No partition goes between the look at the tables and the first row of them: a snapshot that is older
/// than that has the rows in neither place.
const TOGETHER: &str = "LOCK TABLE lazyfox.jobs, lazyfox.inputs, lazyfox.outputs, lazyfox.chunks \
     IN ACCESS SHARE MODE";

/// All that a database holds.
pub struct Holdings {
    pool: Pool,
    place: String,
}

/// What follows from each record.
type Each<'a, E> = &'a mut dyn FnMut(Record) -> std::result::Result<(), E>;

/// What reads a row of one kind.
type Reader = fn(&Row) -> Result<Record>;

impl Holdings {
    /// Opens the tables of a database, beside servers that may be running.
    ///
    /// # Errors
    /// [`StoreError::Open`] when it cannot be reached, or has no tables of this program's format.
    pub async fn open(access: &Access) -> Result<Self> {
        let opened = Self {
            pool: access.pool()?,
            place: access.place(),
        };
        let format = schema::check(&opened.pool, &opened.place).await?;
        if format == Format::None {
            let text = "there is no store in it";
            return Err(schema::open_error(&opened.place, text));
        }
        match schema::refusal(format, &opened.place) {
            Some(refusal) => Err(refusal),
            None => Ok(opened),
        }
    }

    /// The same, making the tables where there are none.
    ///
    /// # Errors
    /// As [`Holdings::open`].
    pub async fn make(access: &Access) -> Result<Self> {
        let pool = access.pool()?;
        let place = access.place();
        if schema::check(&pool, &place).await? == Format::None {
            schema::migrate(&pool, &place, &[]).await?;
        }
        Self::open(access).await
    }

    /// Gives every record, from one snapshot.
    ///
    /// # Errors
    /// The first one of `each`; or when something cannot be read.
    pub async fn each<E: From<StoreError>>(&self, each: Each<'_, E>) -> std::result::Result<(), E> {
        let mut client = self.client().await?;
        let begun = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await;
        let transaction = begun.map_err(|e| self.explain(failed(e)))?;
        self.batch(&transaction, PATIENTLY).await?;
        self.batch(&transaction, TOGETHER).await?;
        self.read(&transaction, each).await
    }

    /// Fills an empty store in one transaction. Leases of running jobs begin now.
    ///
    /// # Errors
    /// The first one of the carrier; when the store is not empty, or refuses. Nothing is kept then.
    pub async fn fill<E: From<StoreError>>(
        &self,
        lease_ms: LeaseMs,
        now: Timestamp,
        carrier: &mut dyn Carrier<E>,
    ) -> std::result::Result<(), E> {
        let mut client = self.client().await?;
        let begun = client.transaction().await;
        let transaction = begun.map_err(|e| self.explain(failed(e)))?;
        self.batch(&transaction, PATIENTLY).await?;
        self.batch(&transaction, ALONE).await?;
        let contents = contents(&transaction).await;
        let contents = contents.map_err(|failure| self.explain(failure))?;
        if let Some(refusal) = refusal(&format!("at {}", self.place), &contents) {
            return Err(refusal.into());
        }
        let made = partitions::make_past(&transaction, now).await;
        made.map_err(|failure| self.explain(failure))?;
        let mut keeping = Keeping::new(&transaction, lease_ms, now);
        while let Some(record) = carrier.next()? {
            let kept = keeping.keep(record).await;
            kept.map_err(|failure| self.explain(failure))?;
        }
        let finished = keeping.finish().await;
        finished.map_err(|failure| self.explain(failure))?;
        self.read(&transaction, &mut |record| carrier.read_back(record))
            .await?;
        carrier.confirm()?;
        let committed = transaction.commit().await;
        Ok(committed.map_err(|e| self.explain(failed(e)))?)
    }

    async fn client(&self) -> Result<Client> {
        let client = connect::client(&self.pool).await;
        client.map_err(|failure| self.explain(failure))
    }

    async fn batch(&self, transaction: &Transaction<'_>, sql: &str) -> Result<()> {
        let done = transaction.batch_execute(sql).await;
        done.map_err(|e| self.explain(failed(e)))
    }

    fn explain(&self, failure: Failure) -> StoreError {
        schema::explain(&self.place, failure)
    }

    async fn read<E: From<StoreError>>(
        &self,
        transaction: &Transaction<'_>,
        each: Each<'_, E>,
    ) -> std::result::Result<(), E> {
        let kinds: [(&str, Reader); 6] = [
            (sql::JOBS, job_record),
            (sql::DELIVERIES, delivery_record),
            (sql::COUNTERS, counters_record),
            (sql::ENDPOINTS, endpoint_record),
            (sql::SECRETS, secret_record),
            (sql::KEYS, key_record),
        ];
        for (sql, of) in kinds {
            let bound = transaction.bind(sql, &[]).await;
            let portal = bound.map_err(|e| self.explain(failed(e)))?;
            let mut count = ROWS;
            loop {
                let rows = transaction.query_portal(&portal, count).await;
                let rows = rows.map_err(|e| self.explain(failed(e)))?;
                let is_last = i32::try_from(rows.len()).is_ok_and(|found| found < count);
                let bytes: usize = rows.iter().map(Row::raw_size_bytes).sum();
                for row in rows {
                    each(of(&row)?)?;
                }
                if is_last {
                    break;
                }
                count = if bytes > ANSWER_BYTES {
                    (count / 4).max(1)
                } else {
                    (count * 2).min(ROWS_MAX)
                };
            }
        }
        Ok(())
    }
}

async fn contents(transaction: &Transaction<'_>) -> std::result::Result<Contents, Failure> {
    let tables = [
        ("jobs", "jobs"),
        ("deliveries", "deliveries"),
        ("counters", "counts"),
        ("endpoints with releases or changed settings", "endpoints"),
        ("webhook secrets", "webhook_secrets"),
        ("API keys", "keys"),
    ];
    let mut contents = Vec::new();
    for (name, table) in tables {
        let sql = format!("SELECT count(*) FROM lazyfox.{table}");
        let row = transaction.query_one(&sql, &[]).await.map_err(failed)?;
        contents.push((name, unsigned(&row, 0)?));
    }
    Ok(contents)
}

fn job_record(row: &Row) -> Result<Record> {
    const OWN: usize = JOB_COLUMNS;
    let found = job_of(row)?;
    let host: String = column(row, OWN + 1)?;
    let url: Option<String> = column(row, OWN)?;
    let used: Option<String> = column(row, OWN + 2)?;
    let idempotency = match used {
        Some(key) => Some(Idempotency {
            key,
            fingerprint: hash(row, OWN + 3)?,
        }),
        None => None,
    };
    let input: Option<Vec<u8>> = column(row, OWN + 4)?;
    let missing = || StoreError::Corrupt(format!("the input of {} is missing", found.job.id));
    let output: Option<Vec<u8>> = column(row, OWN + 6)?;
    let chunks: Option<Vec<Vec<u8>>> = column(row, OWN + 7)?;
    Ok(Record::Job(Box::new(JobRecord {
        seq: found.seq,
        output: output.map(Bytes::from),
        chunks: chunks
            .unwrap_or_default()
            .into_iter()
            .map(Bytes::from)
            .collect(),
        kept: NewJob {
            input: Bytes::from(input.ok_or_else(missing)?),
            job: canonical(found.job),
            webhook: url.map(|url| Webhook { url, host }),
            secrets: column(row, OWN + 5)?,
            idempotency,
        },
    })))
}

fn hash(row: &Row, at: usize) -> Result<[u8; 32]> {
    let bytes: Vec<u8> = column(row, at)?;
    let unreadable = |_| StoreError::Corrupt("a fingerprint cannot be read".to_owned());
    bytes.try_into().map_err(unreadable)
}

fn delivery_record(row: &Row) -> Result<Record> {
    let kept = deliveries::row_of(row)?;
    Ok(Record::Delivery(DeliveryRecord {
        number: kept.due.number,
        endpoint: kept.due.endpoint,
        id: kept.id,
        host: kept.due.host.to_string(),
        bytes: kept.due.bytes,
        state: kept.state,
        created_at: kept.created_at,
        due_at: (kept.state == Sending::Pending).then_some(kept.due.due_at),
        tries: kept.tries,
        round: kept.round,
        keep_until: kept.keep_until,
        made: tries(row)?,
    }))
}

/// The tries of a delivery stand behind it, each column as an array.
fn tries(row: &Row) -> Result<Vec<(u32, Try)>> {
    const OWN: usize = DELIVERY_COLUMNS;
    let numbers: Vec<i32> = column::<Option<_>>(row, OWN)?.unwrap_or_default();
    let times: Vec<i64> = column::<Option<_>>(row, OWN + 1)?.unwrap_or_default();
    let durations: Vec<i64> = column::<Option<_>>(row, OWN + 2)?.unwrap_or_default();
    let statuses: Vec<Option<i32>> = column::<Option<_>>(row, OWN + 3)?.unwrap_or_default();
    let answers: Vec<Option<String>> = column::<Option<_>>(row, OWN + 4)?.unwrap_or_default();
    let errors: Vec<Option<String>> = column::<Option<_>>(row, OWN + 5)?.unwrap_or_default();
    let when = numbers.into_iter().zip(times).zip(durations);
    let what = statuses.into_iter().zip(answers).zip(errors);
    let tries = when.zip(what);
    let made = tries.map(|(((number, at), duration), ((status, answer), error))| {
        let made = Try {
            at: time(at),
            duration_ms: duration.cast_unsigned(),
            status: status.and_then(|status| u16::try_from(status).ok()),
            answer: answer.map(plain),
            error: error.map(plain),
        };
        (number.cast_unsigned(), made)
    });
    Ok(made.collect())
}

fn counters_record(row: &Row) -> Result<Record> {
    let mut values = [0; 5];
    for (value, at) in values.iter_mut().zip(1..) {
        *value = unsigned(row, at)?;
    }
    Ok(Record::Counters(CountersRecord {
        endpoint: endpoint_of(column(row, 0)?)?,
        counters: counted(values),
    }))
}

fn endpoint_record(row: &Row) -> Result<Record> {
    let unreadable = |_| StoreError::Corrupt("a release cannot be read".to_owned());
    let release = match column::<Option<i64>>(row, 1)? {
        Some(number) => {
            let release = Release {
                number: u32::try_from(number).map_err(unreadable)?,
                since: time(column(row, 2)?),
            };
            Some((release, hash(row, 3)?))
        }
        None => None,
    };
    let settings: Option<String> = column(row, 4)?;
    Ok(Record::Endpoint(EndpointRecord {
        endpoint: endpoint_of(column(row, 0)?)?,
        release,
        settings: settings.map(spelled),
    }))
}

fn secret_record(row: &Row) -> Result<Record> {
    let secret = WebhookSecret {
        id: column(row, 1)?,
        sealed: column(row, 2)?,
        created_at: time(column(row, 3)?),
        valid_until: column::<Option<i64>>(row, 4)?.map(time),
    };
    Ok(Record::Secret(endpoint_of(column(row, 0)?)?, secret))
}

fn key_record(row: &Row) -> Result<Record> {
    Ok(Record::Key(registers::key_of(row)?))
}
