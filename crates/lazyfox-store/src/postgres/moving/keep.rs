//! Records as rows, copied into the tables in batches.

use std::collections::BTreeSet;
use std::pin::pin;

use deadpool_postgres::Transaction;
use lazyfox_core::id::EndpointId;
use lazyfox_core::job::{Counter, State};
use lazyfox_core::time::Timestamp;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};

use super::super::connect::{Failure, failed};
use super::super::row::{Id, ms, text};
use crate::moving::{CountersRecord, DeliveryRecord, EndpointRecord, JobRecord, Record};
use crate::{Key, LeaseMs, WebhookSecret};
use crate::{deaths, texts};

/// Records of a batch, and bytes of payloads after which it is closed early.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

type Values = Vec<Box<dyn ToSql + Sync>>;
type Fallible = Result<(), Failure>;

/// A table, and the columns that are copied into it.
struct Table {
    into: &'static str,
    types: &'static [Type],
}

const JOBS: Table = Table {
    into: "jobs (endpoint, id, seq, status, low_priority, created_at, queued_at, expires_at, \
       expiry_is_hard, awaited, retries, barred, deaths, worker, started_at, lease_until, begun, \
           ended_at, error, forget_at, deadline, has_secrets, has_output, execution_timeout, ttl, \
       ttl_given, retries_max, retention, retention_sync, ttl_expiry_forgets, webhook_on_cancel, \
           poison_after, webhook, webhook_host, idempotency_key)",
    types: &[
        Type::TEXT,
        Type::UUID,
        Type::INT8,
        Type::TEXT,
        Type::BOOL,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::BOOL,
        Type::BOOL,
        Type::INT4,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::BOOL,
        Type::INT8,
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::BOOL,
        Type::BOOL,
        Type::INT8,
        Type::INT8,
        Type::BOOL,
        Type::INT4,
        Type::INT8,
        Type::INT8,
        Type::BOOL,
        Type::BOOL,
        Type::INT4,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
    ],
};
const KEYS: Table = Table {
    into: "idempotency (endpoint, key, id, fingerprint)",
    types: &[Type::TEXT, Type::TEXT, Type::UUID, Type::BYTEA],
};
const INPUTS: Table = Table {
    into: "inputs (endpoint, id, body, secrets)",
    types: &[Type::TEXT, Type::UUID, Type::BYTEA, Type::BYTEA],
};
const OUTPUTS: Table = Table {
    into: "outputs (endpoint, id, body)",
    types: &[Type::TEXT, Type::UUID, Type::BYTEA],
};
const CHUNKS: Table = Table {
    into: "chunks (endpoint, id, n, body)",
    types: &[Type::TEXT, Type::UUID, Type::INT8, Type::BYTEA],
};
const DELIVERIES: Table = Table {
    into: "deliveries (endpoint, number, id, n, host, bytes, state, created_at, due_at, tries, round, \
           keep_until)",
    types: &[
        Type::TEXT,
        Type::INT8,
        Type::UUID,
        Type::INT4,
        Type::TEXT,
        Type::INT8,
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::INT4,
        Type::INT4,
        Type::INT8,
    ],
};
const TRIES: Table = Table {
    into: "tries (endpoint, number, try, at, duration, status, answer, error)",
    types: &[
        Type::TEXT,
        Type::INT8,
        Type::INT4,
        Type::INT8,
        Type::INT8,
        Type::INT4,
        Type::TEXT,
        Type::TEXT,
    ],
};

macro_rules! values {
    ($($value:expr),+ $(,)?) => { vec![$(Box::new($value) as Box<dyn ToSql + Sync>),+] };
}

/// Rows that are copied together.
#[derive(Default)]
struct Batch {
    jobs: Vec<Values>,
    keys: Vec<Values>,
    inputs: Vec<Values>,
    outputs: Vec<Values>,
    chunks: Vec<Values>,
    deliveries: Vec<Values>,
    tries: Vec<Values>,
    bytes: usize,
}

/// Records on their way into the tables.
pub(super) struct Keeping<'a> {
    transaction: &'a Transaction<'a>,
    lease_ms: LeaseMs,
    now: Timestamp,
    batch: Batch,
    endpoints: BTreeSet<EndpointId>,
    last_job: u64,
    last_delivery: u64,
}

impl<'a> Keeping<'a> {
    pub(super) fn new(transaction: &'a Transaction<'a>, lease_ms: LeaseMs, now: Timestamp) -> Self {
        Self {
            transaction,
            lease_ms,
            now,
            batch: Batch::default(),
            endpoints: BTreeSet::new(),
            last_job: 0,
            last_delivery: 0,
        }
    }

    pub(super) async fn keep(&mut self, record: Record) -> Fallible {
        match record {
            Record::Job(record) => {
                self.last_job = self.last_job.max(record.seq);
                self.of(&record.kept.job.endpoint);
                self.add_job(*record);
            }
            Record::Delivery(record) => {
                self.last_delivery = self.last_delivery.max(record.number);
                self.add_delivery(record);
            }
            Record::Counters(record) => {
                self.of(&record.endpoint);
                self.keep_counters(&record).await?;
            }
            Record::Endpoint(record) => self.keep_endpoint(&record).await?,
            Record::Secret(endpoint, secret) => self.keep_secret(&endpoint, &secret).await?,
            Record::Key(key) => self.keep_key(&key).await?,
        }
        let batch = &self.batch;
        if batch.jobs.len() + batch.deliveries.len() >= BATCH || batch.bytes >= BATCH_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes what is left, and lets numbers go on behind those that are there.
    pub(super) async fn finish(&mut self) -> Fallible {
        self.flush().await?;
        let names: Vec<&str> = self.endpoints.iter().map(EndpointId::as_str).collect();
        let queues = "INSERT INTO lazyfox.queues (endpoint) SELECT * FROM unnest($1::text[])
            ON CONFLICT DO NOTHING";
        self.execute(queues, &[&names]).await?;
        let last = [
            ("lazyfox.jobs_seq", self.last_job),
            ("lazyfox.deliveries_number", self.last_delivery),
        ];
        for (sequence, last) in last.into_iter().filter(|(_, last)| *last > 0) {
            let set = format!("SELECT setval('{sequence}', $1)");
            self.execute(&set, &[&last.cast_signed()]).await?;
        }
        Ok(())
    }

    fn of(&mut self, endpoint: &EndpointId) {
        if !self.endpoints.contains(endpoint) {
            self.endpoints.insert(endpoint.clone());
        }
    }

    async fn execute(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Fallible {
        let done = self.transaction.execute(sql, params).await;
        done.map(drop).map_err(failed)
    }

    fn add_job(&mut self, record: JobRecord) {
        let endpoint = record.kept.job.endpoint.to_string();
        let id = Id::from(record.kept.job.id);
        let row = self.job_row(&record);
        let batch = &mut self.batch;
        batch.jobs.push(row);
        batch.bytes += record.kept.input.len();
        if let Some(used) = record.kept.idempotency {
            let fingerprint = used.fingerprint.to_vec();
            let row = values![endpoint.clone(), used.key, id, fingerprint];
            batch.keys.push(row);
        }
        let (input, secrets) = (record.kept.input.to_vec(), record.kept.secrets);
        batch
            .inputs
            .push(values![endpoint.clone(), id, input, secrets]);
        if let Some(output) = record.output {
            batch.bytes += output.len();
            let row = values![endpoint.clone(), id, output.to_vec()];
            batch.outputs.push(row);
        }
        for (n, chunk) in (1_i64..).zip(record.chunks) {
            batch.bytes += chunk.len();
            let row = values![endpoint.clone(), id, n, chunk.to_vec()];
            batch.chunks.push(row);
        }
    }

    fn job_row(&self, record: &JobRecord) -> Values {
        let mut job = record.kept.job.clone();
        let mut lease_until = None;
        if let State::Running(attempt) = &mut job.state {
            attempt.lease_until = self.now.plus_ms((self.lease_ms)(&job.endpoint));
            lease_until = Some(attempt.lease_until.as_ms());
        }
        let (end, attempt, terms) = (job.state.end(), job.state.last_attempt(), &job.terms);
        let (webhook, idempotency) = (&record.kept.webhook, &record.kept.idempotency);
        values![
            job.endpoint.to_string(),
            Id::from(job.id),
            record.seq.cast_signed(),
            job.status().as_str(),
            terms.low_priority,
            job.created_at.as_ms(),
            job.queued_at.as_ms(),
            job.expires_at.as_ms(),
            job.expiry_is_hard,
            job.awaited,
            job.retries.cast_signed(),
            texts::worker_names(&job.barred),
            deaths::text(&job.deaths).map(|it| text(&it)),
            attempt.map(|(worker, _)| worker.to_string()),
            attempt.map(|(_, at)| at.as_ms()),
            lease_until,
            !job.waits_in_worker(),
            end.map(|end| end.at.as_ms()),
            end.and_then(|end| end.error.as_deref()).map(text),
            end.map(|end| end.forget_at.as_ms()),
            end.is_none().then(|| job.deadline().as_ms()),
            record.kept.secrets.is_some(),
            record.output.is_some(),
            terms.execution_timeout_ms.map(ms),
            ms(terms.ttl_ms),
            terms.ttl_given,
            terms.retries_max.cast_signed(),
            ms(terms.retention_ms),
            ms(terms.retention_sync_ms),
            terms.ttl_expiry_forgets,
            terms.webhook_on_cancel,
            terms.poison_after.cast_signed(),
            webhook.as_ref().map(|it| it.url.clone()),
            webhook.as_ref().map_or(String::new(), |it| it.host.clone()),
            idempotency.as_ref().map(|it| it.key.clone()),
        ]
    }

    fn add_delivery(&mut self, record: DeliveryRecord) {
        let endpoint = record.endpoint.to_string();
        let number = record.number.cast_signed();
        self.batch.deliveries.push(values![
            endpoint.clone(),
            number,
            Id::from(record.id.job),
            record.id.number.cast_signed(),
            record.host,
            record.bytes.cast_signed(),
            record.state.as_str(),
            record.created_at.as_ms(),
            record.due_at.map(Timestamp::as_ms),
            record.tries.cast_signed(),
            record.round.cast_signed(),
            record.keep_until.as_ms(),
        ]);
        for (n, made) in record.made {
            self.batch.tries.push(values![
                endpoint.clone(),
                number,
                n.cast_signed(),
                made.at.as_ms(),
                made.duration_ms.cast_signed(),
                made.status.map(i32::from),
                made.answer.as_deref().map(text),
                made.error.as_deref().map(text),
            ]);
        }
    }

    async fn keep_counters(&self, record: &CountersRecord) -> Fallible {
        const SQL: &str = "
            INSERT INTO lazyfox.counts (endpoint, completed, failed, cancelled, timed_out, retried)
            VALUES ($1, $2, $3, $4, $5, $6)";
        let value = |of: Counter| {
            let mut all = record.counters.iter();
            let found = all.find(|(counter, _)| *counter == of);
            found.map_or(0, |(_, value)| value.cast_signed())
        };
        let params: [&(dyn ToSql + Sync); 6] = [
            &record.endpoint.as_str(),
            &value(Counter::Completed),
            &value(Counter::Failed),
            &value(Counter::Cancelled),
            &value(Counter::TimedOut),
            &value(Counter::Retried),
        ];
        self.execute(SQL, &params).await
    }

    async fn keep_endpoint(&self, record: &EndpointRecord) -> Fallible {
        const SQL: &str = "
            INSERT INTO lazyfox.endpoints (endpoint, number, fingerprint, released_at, settings)
            VALUES ($1, $2, $3, $4, $5)";
        let release = record.release.as_ref();
        let params: [&(dyn ToSql + Sync); 5] = [
            &record.endpoint.as_str(),
            &release.map(|(release, _)| i64::from(release.number)),
            &release.map(|(_, fingerprint)| &fingerprint[..]),
            &release.map(|(release, _)| release.since.as_ms()),
            &record.settings.as_deref().map(text),
        ];
        self.execute(SQL, &params).await
    }

    async fn keep_secret(&self, endpoint: &EndpointId, secret: &WebhookSecret) -> Fallible {
        const SQL: &str = "
            INSERT INTO lazyfox.webhook_secrets (endpoint, id, secret, created_at, valid_until)
            VALUES ($1, $2, $3, $4, $5)";
        let params: [&(dyn ToSql + Sync); 5] = [
            &endpoint.as_str(),
            &secret.id,
            &secret.sealed,
            &secret.created_at.as_ms(),
            &secret.valid_until.map(Timestamp::as_ms),
        ];
        self.execute(SQL, &params).await
    }

    async fn keep_key(&self, key: &Key) -> Fallible {
        const SQL: &str = "
            INSERT INTO lazyfox.keys (id, label, hash, access, endpoints, created_at, revoked_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let names = key.endpoints.as_deref().map(texts::endpoint_names);
        let params: [&(dyn ToSql + Sync); 7] = [
            &key.id,
            &text(&key.label),
            &&key.hash[..],
            &texts::access_name(key.access),
            &names,
            &key.created_at.as_ms(),
            &key.revoked_at.map(Timestamp::as_ms),
        ];
        self.execute(SQL, &params).await
    }

    async fn flush(&mut self) -> Fallible {
        let batch = std::mem::take(&mut self.batch);
        self.copy(JOBS, batch.jobs).await?;
        self.copy(KEYS, batch.keys).await?;
        self.copy(INPUTS, batch.inputs).await?;
        self.copy(OUTPUTS, batch.outputs).await?;
        self.copy(CHUNKS, batch.chunks).await?;
        self.copy(DELIVERIES, batch.deliveries).await?;
        self.copy(TRIES, batch.tries).await
    }

    async fn copy(&self, table: Table, rows: Vec<Values>) -> Fallible {
        if rows.is_empty() {
            return Ok(());
        }
        let sql = format!("COPY lazyfox.{} FROM STDIN BINARY", table.into);
        let sink = self.transaction.copy_in(&sql).await.map_err(failed)?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, table.types));
        for row in rows {
            writer.as_mut().write_raw(row).await.map_err(failed)?;
        }
        writer.finish().await.map(drop).map_err(failed)
    }
}
