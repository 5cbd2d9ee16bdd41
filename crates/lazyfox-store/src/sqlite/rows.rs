//! Jobs as rows: the only place that knows the encoding.

mod deliveries;
mod endpoints;
mod errors;
mod keys;
mod moving;
mod read;

use bytes::Bytes;
use lazyfox_core::delivery::Try;
use lazyfox_core::id::{EndpointId, JobId};
use lazyfox_core::job::{Counter, Job};
use lazyfox_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

pub(super) use self::deliveries::{deliveries, outgoing, webhook_secrets};
pub(super) use self::endpoints::overrides;
use self::errors::{is_refusal, unavailable};
pub(super) use self::keys::keys;
use self::read::{COLUMNS, job_of, ms};
pub(super) use self::read::{Load, list, load};
use crate::engine::{DeliveryRow, Forgettable, Kept, Registers, Result, Rows, Seq};
use crate::{Due, Key, NewJob, Release, Settlement, StoreError, WebhookSecret};
use crate::{deaths, texts};

/// The writer's connection. A transaction begins with the first write of a group.
pub(super) struct SqlRows {
    connection: Connection,
    writing: bool,
    writes: u64,
    refused: bool,
}

impl SqlRows {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            writing: false,
            writes: 0,
            refused: false,
        }
    }

    /// Whether a write since the last rollback was refused for what it says, and not by the disk.
    pub(super) fn refused(&self) -> bool {
        self.refused
    }

    /// How many writes were tried so far.
    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    /// At the start of a server: no /runsync caller outlives the one that it waited on.
    pub(super) fn end_waits(&mut self) -> Result<()> {
        self.write(
            "UPDATE jobs SET awaited = 0 WHERE awaited = 1 AND ended_at IS NULL",
            [],
        )?;
        self.commit()
    }

    pub(super) fn commit(&mut self) -> Result<()> {
        if self.writing {
            self.connection
                .execute_batch("COMMIT")
                .map_err(unavailable)?;
            self.writing = false;
        }
        Ok(())
    }

    pub(super) fn rollback(&mut self) {
        // After some errors SQLite has rolled back by itself, and then says so here.
        let _ = self.connection.execute_batch("ROLLBACK");
        self.writing = false;
        self.refused = false;
    }

    /// Copies the WAL into the database, so that a stopped server leaves one file.
    pub(super) fn close(&mut self) {
        let _ = self
            .connection
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    fn write(&mut self, sql: &str, params: impl rusqlite::Params) -> Result<usize> {
        self.writes += 1;
        if !self.writing {
            self.connection
                .execute_batch("BEGIN IMMEDIATE")
                .map_err(unavailable)?;
            self.writing = true;
        }
        let mut statement = self.connection.prepare_cached(sql).map_err(unavailable)?;
        let written = statement.execute(params);
        self.refused |= written.as_ref().is_err_and(is_refusal);
        written.map_err(unavailable)
    }
}

fn key(seq: Seq) -> i64 {
    // Places are counted from 1; they cannot reach the sign bit.
    seq.cast_signed()
}

impl Rows for SqlRows {
    fn insert(&mut self, seq: Seq, new: &NewJob) -> Result<()> {
        let NewJob {
            job,
            input,
            webhook,
            secrets,
            idempotency,
        } = new;
        let terms = &job.terms;
        self.write(
            "INSERT INTO jobs (seq, id, endpoint, status, created_at, queued_at, expires_at,
                 expiry_is_hard, awaited, retries, execution_timeout, ttl, ttl_given, low_priority,
                 retries_max, retention, retention_sync, ttl_expiry_forgets, webhook_on_cancel,
                 poison_after, webhook, webhook_host, idempotency_key, fingerprint)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                 ?18, ?19, ?20, ?21, ?22, ?23, ?24)",
            params![
                key(seq),
                job.id.to_bytes(),
                job.endpoint.as_str(),
                job.status().as_str(),
                job.created_at.as_ms(),
                job.queued_at.as_ms(),
                job.expires_at.as_ms(),
                job.expiry_is_hard,
                job.awaited,
                job.retries,
                terms.execution_timeout_ms.map(ms),
                ms(terms.ttl_ms),
                terms.ttl_given,
                terms.low_priority,
                terms.retries_max,
                ms(terms.retention_ms),
                ms(terms.retention_sync_ms),
                terms.ttl_expiry_forgets,
                terms.webhook_on_cancel,
                terms.poison_after,
                webhook.as_ref().map(|it| &it.url),
                webhook.as_ref().map_or("", |it| &it.host),
                idempotency.as_ref().map(|it| &it.key),
                idempotency.as_ref().map(|it| &it.fingerprint[..]),
            ],
        )?;
        self.write(
            "INSERT INTO inputs (seq, body, secrets) VALUES (?1, ?2, ?3)",
            params![key(seq), &input[..], secrets],
        )?;
        Ok(())
    }

    fn by_id(&mut self, id: JobId) -> Result<Option<(Seq, Job)>> {
        let sql = select_jobs("WHERE id = ?1");
        let mut statement = self.connection.prepare_cached(&sql).map_err(unavailable)?;
        let row = statement.query_row([id.to_bytes()], |row| Ok(job_of(row)));
        row.optional().map_err(unavailable)?.transpose()
    }

    fn by_seq(&mut self, seq: Seq) -> Result<Option<Job>> {
        let sql = select_jobs("WHERE seq = ?1");
        let mut statement = self.connection.prepare_cached(&sql).map_err(unavailable)?;
        let row = statement.query_row([key(seq)], |row| Ok(job_of(row)));
        Ok(row
            .optional()
            .map_err(unavailable)?
            .transpose()?
            .map(|(_, job)| job))
    }

    fn by_idempotency_key(
        &mut self,
        endpoint: &EndpointId,
        text: &str,
    ) -> Result<Option<(Job, [u8; 32])>> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT seq, fingerprint FROM jobs WHERE endpoint = ?1 AND idempotency_key = ?2",
            )
            .and_then(|mut statement| {
                statement
                    .query_row(params![endpoint.as_str(), text], |row| {
                        Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 32]>(1)?))
                    })
                    .optional()
            })
            .map_err(unavailable)?;
        let Some((seq, fingerprint)) = found else {
            return Ok(None);
        };
        Ok(self
            .by_seq(seq.cast_unsigned())?
            .map(|job| (job, fingerprint)))
    }

    fn update(&mut self, seq: Seq, job: &Job) -> Result<()> {
        let attempt = job.state.last_attempt();
        let end = job.state.end();
        self.write(
            "UPDATE jobs SET status = ?2, queued_at = ?3, expires_at = ?4, expiry_is_hard = ?5,
                 awaited = ?6, retries = ?7, barred = ?8, worker = ?9, started_at = ?10,
                 ended_at = ?11, error = ?12, forget_at = ?13, begun = ?14, deaths = ?15
             WHERE seq = ?1",
            params![
                key(seq),
                job.status().as_str(),
                job.queued_at.as_ms(),
                job.expires_at.as_ms(),
                job.expiry_is_hard,
                job.awaited,
                job.retries,
                texts::worker_names(&job.barred),
                attempt.map(|(worker, _)| worker.as_str()),
                attempt.map(|(_, started_at)| started_at.as_ms()),
                end.map(|end| end.at.as_ms()),
                end.and_then(|end| end.error.as_deref()),
                end.map(|end| end.forget_at.as_ms()),
                !job.waits_in_worker(),
                deaths::text(&job.deaths),
            ],
        )?;
        Ok(())
    }

    fn delete(&mut self, job: Forgettable) -> Result<()> {
        if job.has_webhook {
            self.delete_deliveries(job.seq)?;
        }
        for sql in [
            "DELETE FROM jobs WHERE seq = ?1",
            "DELETE FROM inputs WHERE seq = ?1",
            "DELETE FROM outputs WHERE seq = ?1",
            "DELETE FROM chunks WHERE seq = ?1",
        ] {
            self.write(sql, [key(job.seq)])?;
        }
        Ok(())
    }

    fn input(&mut self, seq: Seq) -> Result<(Bytes, Option<Vec<u8>>)> {
        self.connection
            .prepare_cached("SELECT body, secrets FROM inputs WHERE seq = ?1")
            .and_then(|mut statement| {
                statement.query_row([key(seq)], |row| {
                    Ok((Bytes::from(row.get::<_, Vec<u8>>(0)?), row.get(1)?))
                })
            })
            .optional()
            .map_err(unavailable)?
            .ok_or_else(|| StoreError::Corrupt(format!("the input of job number {seq} is missing")))
    }

    fn wipe_secrets(&mut self, seq: Seq) -> Result<()> {
        self.write(
            "UPDATE inputs SET secrets = NULL WHERE seq = ?1 AND secrets IS NOT NULL",
            [key(seq)],
        )?;
        Ok(())
    }

    fn keep_output(&mut self, seq: Seq, output: &Bytes) -> Result<()> {
        self.write(
            "INSERT INTO outputs (seq, body) VALUES (?1, ?2)
             ON CONFLICT (seq) DO UPDATE SET body = excluded.body",
            params![key(seq), &output[..]],
        )?;
        Ok(())
    }

    fn clear_output(&mut self, seq: Seq) -> Result<()> {
        self.write("DELETE FROM outputs WHERE seq = ?1", [key(seq)])?;
        Ok(())
    }

    fn append_chunk(&mut self, seq: Seq, chunk: &Bytes) -> Result<()> {
        self.write(
            "INSERT INTO chunks (seq, n, body)
             SELECT ?1, coalesce(max(n), 0) + 1, ?2 FROM chunks WHERE seq = ?1",
            params![key(seq), &chunk[..]],
        )?;
        Ok(())
    }

    fn take_chunks(&mut self, seq: Seq, bytes_max: usize) -> Result<(Vec<Bytes>, bool)> {
        let mut taken = Vec::new();
        let mut last = 0_i64;
        let mut more = false;
        {
            let mut statement = self
                .connection
                .prepare_cached("SELECT n, body FROM chunks WHERE seq = ?1 ORDER BY n")
                .map_err(unavailable)?;
            let mut rows = statement.query([key(seq)]).map_err(unavailable)?;
            let mut bytes = 0;
            while let Some(row) = rows.next().map_err(unavailable)? {
                let body: Vec<u8> = row.get(1).map_err(unavailable)?;
                bytes += body.len();
                if !taken.is_empty() && bytes > bytes_max {
                    more = true;
                    break;
                }
                last = row.get(0).map_err(unavailable)?;
                taken.push(Bytes::from(body));
            }
        }
        self.write(
            "DELETE FROM chunks WHERE seq = ?1 AND n <= ?2",
            [key(seq), last],
        )?;
        Ok((taken, more))
    }

    fn clear_chunks(&mut self, seq: Seq) -> Result<()> {
        self.write("DELETE FROM chunks WHERE seq = ?1", [key(seq)])?;
        Ok(())
    }

    fn forgettable(&mut self, now: Timestamp, limit: usize) -> Result<Vec<Forgettable>> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT seq, webhook IS NOT NULL FROM jobs WHERE forget_at <= ?1
                 ORDER BY forget_at, seq LIMIT ?2",
            )
            .map_err(unavailable)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement
            .query_map([now.as_ms(), limit], |row| {
                Ok(Forgettable {
                    seq: row.get::<_, i64>(0)?.cast_unsigned(),
                    has_webhook: row.get(1)?,
                })
            })
            .map_err(unavailable)?;
        rows.collect::<rusqlite::Result<_>>().map_err(unavailable)
    }

    fn postpone(&mut self, seq: Seq, until: Timestamp) -> Result<()> {
        self.write(
            "UPDATE jobs SET forget_at = max(forget_at, ?2) WHERE seq = ?1",
            [key(seq), until.as_ms()],
        )?;
        Ok(())
    }

    fn add_delivery(&mut self, number: u64, seq: Seq, job: &Job, now: Timestamp) -> Result<Due> {
        self.insert_delivery(number, seq, job, now)
    }

    fn delivery(&mut self, number: u64) -> Result<Option<DeliveryRow>> {
        self.select_delivery(number)
    }

    fn deliveries_of(&mut self, seq: Seq) -> Result<Vec<DeliveryRow>> {
        self.select_deliveries_of(seq)
    }

    fn update_delivery(&mut self, row: &DeliveryRow) -> Result<()> {
        self.write_delivery(row)
    }

    fn settle(&mut self, settlement: &Settlement) -> Result<bool> {
        self.settle_delivery(settlement)
    }

    fn add_try(&mut self, number: u64, made: &Try) -> Result<()> {
        self.insert_try(number, made)
    }

    fn set_counter(&mut self, endpoint: &EndpointId, counter: Counter, value: u64) -> Result<()> {
        self.write(
            "INSERT INTO counters (endpoint, counter, value) VALUES (?1, ?2, ?3)
             ON CONFLICT (endpoint, counter) DO UPDATE SET value = excluded.value",
            params![
                endpoint.as_str(),
                keys::counter_name(counter),
                value.cast_signed()
            ],
        )?;
        Ok(())
    }
}

impl Kept for SqlRows {
    fn scan(&mut self, each: &mut dyn FnMut(Seq, Job)) -> Result<Seq> {
        let sql = select_jobs("WHERE ended_at IS NULL ORDER BY seq");
        let mut statement = self.connection.prepare_cached(&sql).map_err(unavailable)?;
        let mut rows = statement.query([]).map_err(unavailable)?;
        while let Some(row) = rows.next().map_err(unavailable)? {
            let (seq, job) = job_of(row)?;
            each(seq, job);
        }
        let last: Option<i64> = self
            .connection
            .query_row("SELECT max(seq) FROM jobs", [], |row| row.get(0))
            .map_err(unavailable)?;
        Ok(last.unwrap_or_default().cast_unsigned())
    }

    fn chunk_bytes(&mut self) -> Result<Vec<(Seq, usize)>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT seq, sum(length(body)) FROM chunks GROUP BY seq")
            .map_err(unavailable)?;
        let rows = statement
            .query_map([], |row| {
                let bytes: i64 = row.get(1)?;
                Ok((
                    row.get::<_, i64>(0)?.cast_unsigned(),
                    usize::try_from(bytes).unwrap_or(0),
                ))
            })
            .map_err(unavailable)?;
        rows.collect::<rusqlite::Result<_>>().map_err(unavailable)
    }

    fn open_deliveries(&mut self, each: &mut dyn FnMut(Due)) -> Result<()> {
        self.scan_open(each)
    }

    fn last_delivery(&mut self) -> Result<u64> {
        self.max_delivery()
    }

    fn counters(&mut self) -> Result<Vec<(EndpointId, Counter, u64)>> {
        keys::counters(&self.connection)
    }
}

impl Registers for SqlRows {
    fn add_webhook_secret(
        &mut self,
        endpoint: &EndpointId,
        secret: &WebhookSecret,
        previous_until: Timestamp,
    ) -> Result<()> {
        self.insert_secret(endpoint, secret, previous_until)
    }

    fn release(&mut self, endpoint: &EndpointId) -> Result<Option<(Release, [u8; 32])>> {
        self.select_release(endpoint)
    }

    fn set_release(
        &mut self,
        endpoint: &EndpointId,
        release: Release,
        fingerprint: &[u8; 32],
    ) -> Result<()> {
        self.write_release(endpoint, release, fingerprint)
    }

    fn set_override(&mut self, endpoint: &EndpointId, settings: Option<&str>) -> Result<()> {
        self.write_override(endpoint, settings)
    }

    fn keys(&mut self) -> Result<Vec<Key>> {
        keys::keys(&self.connection)
    }

    fn add_key(&mut self, new: &Key) -> Result<()> {
        self.insert_key(new)
    }

    fn revoke_key(&mut self, id: &str, now: Timestamp) -> Result<bool> {
        self.write_revocation(id, now)
    }
}

fn select_jobs(condition: &str) -> String {
    format!("SELECT {COLUMNS} FROM jobs {condition}")
}
