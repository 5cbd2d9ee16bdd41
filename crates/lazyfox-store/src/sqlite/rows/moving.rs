//! All rows as records and back, for a store that moves.

use bytes::Bytes;
use lazyfox_core::delivery::Try;
use lazyfox_core::id::EndpointId;
use lazyfox_core::job::{Job, State};
use lazyfox_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::keys;
use super::read::{COLUMNS, COLUMNS_COUNT, job_of};
use super::{SqlRows, deliveries, key, unavailable};
use crate::engine::{Registers as _, Result, Rows as _, Seq};
use crate::moving::{
    Contents, CountersRecord, DeliveryRecord, EndpointRecord, JobRecord, Record, canonical,
    counted, spelled,
};
use crate::texts::endpoint_of;
use crate::{Idempotency, NewJob, Release, StoreError, Webhook, WebhookSecret};

type Each<'a, E> = &'a mut dyn FnMut(Record) -> std::result::Result<(), E>;

impl SqlRows {
    /// How much there is of what is carried.
    pub(in crate::sqlite) fn contents(&self) -> Result<Contents> {
        let tables = [
            ("jobs", "jobs"),
            ("deliveries", "deliveries"),
            ("counters", "counters"),
            ("endpoints with releases or changed settings", "endpoints"),
            ("webhook secrets", "webhook_secrets"),
            ("API keys", "keys"),
        ];
        let count = |(name, table)| {
            let sql = format!("SELECT count(*) FROM {table}");
            let count = self
                .connection
                .query_row(&sql, [], |row| row.get::<_, i64>(0));
            Ok((name, count.map_err(unavailable)?.cast_unsigned()))
        };
        tables.into_iter().map(count).collect()
    }

    /// Gives every record, from one state of the database.
    pub(in crate::sqlite) fn each_record<E: From<StoreError>>(
        &mut self,
        each: Each<'_, E>,
    ) -> std::result::Result<(), E> {
        // `lazyfox key` may write beside this.
        let snapshot = if self.connection.is_autocommit() {
            Some(
                self.connection
                    .unchecked_transaction()
                    .map_err(unavailable)?,
            )
        } else {
            None
        };
        let connection = &self.connection;
        each_job(connection, each)?;
        each_delivery(connection, each)?;
        each_counters(connection, each)?;
        each_endpoint(connection, each)?;
        each_secret(connection, each)?;
        for mut key in keys::keys(connection)? {
            key.label = spelled(key.label);
            each(Record::Key(key))?;
        }
        drop(snapshot);
        Ok(())
    }

    /// Keeps a record in the transaction that is under way, or is begun with it.
    pub(in crate::sqlite) fn keep_record(&mut self, record: Record) -> Result<()> {
        match record {
            Record::Job(record) => self.keep_job(&record),
            Record::Delivery(record) => self.keep_delivery(&record),
            Record::Counters(record) => {
                let CountersRecord { endpoint, counters } = record;
                let mut each = counters.into_iter();
                each.try_for_each(|(counter, value)| self.set_counter(&endpoint, counter, value))
            }
            Record::Endpoint(record) => {
                if let Some((release, fingerprint)) = &record.release {
                    self.set_release(&record.endpoint, *release, fingerprint)?;
                }
                if let Some(settings) = &record.settings {
                    self.set_override(&record.endpoint, Some(settings))?;
                }
                Ok(())
            }
            Record::Secret(endpoint, secret) => self.keep_secret(&endpoint, &secret),
            Record::Key(key) => {
                self.add_key(&key)?;
                if let Some(at) = key.revoked_at {
                    self.revoke_key(&key.id, at)?;
                }
                Ok(())
            }
        }
    }

    fn keep_job(&mut self, record: &JobRecord) -> Result<()> {
        let JobRecord {
            seq,
            kept,
            output,
            chunks,
        } = record;
        // As it was submitted, and then what became of it: so there is one place that knows the columns.
        let submitted = NewJob {
            job: Job {
                state: State::Queued,
                ..kept.job.clone()
            },
            ..kept.clone()
        };
        self.insert(*seq, &submitted)?;
        self.update(*seq, &kept.job)?;
        if let Some(output) = output {
            self.keep_output(*seq, output)?;
        }
        let mut chunks = chunks.iter();
        chunks.try_for_each(|chunk| self.append_chunk(*seq, chunk))
    }

    fn keep_delivery(&mut self, record: &DeliveryRecord) -> Result<()> {
        let job = record.id.job;
        let missing = || StoreError::Corrupt(format!("a delivery's job {job} is missing"));
        let (seq, _) = self.by_id(job)?.ok_or_else(missing)?;
        self.write(
            "INSERT INTO deliveries (number, seq, job, n, endpoint, host, bytes, state, created_at,
                 due_at, tries, round, keep_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                key(record.number),
                key(seq),
                job.to_bytes(),
                record.id.number,
                record.endpoint.as_str(),
                record.host,
                record.bytes.cast_signed(),
                record.state.as_str(),
                record.created_at.as_ms(),
                record.due_at.map(Timestamp::as_ms),
                record.tries,
                record.round,
                record.keep_until.as_ms(),
            ],
        )?;
        for (n, made) in &record.made {
            self.write(
                "INSERT INTO tries (number, try, at, duration, status, answer, error)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    key(record.number),
                    n,
                    made.at.as_ms(),
                    made.duration_ms.cast_signed(),
                    made.status,
                    made.answer,
                    made.error
                ],
            )?;
        }
        Ok(())
    }

    fn keep_secret(&mut self, endpoint: &EndpointId, secret: &WebhookSecret) -> Result<()> {
        self.write(
            "INSERT INTO webhook_secrets (id, endpoint, secret, created_at, valid_until)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                secret.id,
                endpoint.as_str(),
                secret.sealed,
                secret.created_at.as_ms(),
                secret.valid_until.map(Timestamp::as_ms)
            ],
        )?;
        Ok(())
    }
}

/// Gives what each row of a statement is.
fn each_row<T, E: From<StoreError>>(
    connection: &Connection,
    sql: &str,
    of: impl Fn(&Row<'_>) -> Result<T>,
    mut each: impl FnMut(T) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut statement = connection.prepare(sql).map_err(unavailable)?;
    let mut rows = statement.query([]).map_err(unavailable)?;
    while let Some(row) = rows.next().map_err(unavailable)? {
        each(of(row)?)?;
    }
    Ok(())
}

fn each_job<E: From<StoreError>>(
    connection: &Connection,
    each: Each<'_, E>,
) -> std::result::Result<(), E> {
    let sql = format!(
        "SELECT {COLUMNS}, webhook, webhook_host, idempotency_key, fingerprint FROM jobs ORDER BY seq"
    );
    each_row(
        connection,
        &sql,
        |row| job_record(connection, row),
        |record| each(Record::Job(Box::new(record))),
    )
}

fn job_record(connection: &Connection, row: &Row<'_>) -> Result<JobRecord> {
    const OWN: usize = COLUMNS_COUNT;
    let (seq, job) = job_of(row)?;
    let beside = || -> rusqlite::Result<(Option<Webhook>, Option<Idempotency>)> {
        let host: String = row.get(OWN + 1)?;
        let webhook = row.get::<_, Option<String>>(OWN)?;
        let used: Option<String> = row.get(OWN + 2)?;
        let idempotency = match used {
            Some(key) => Some(Idempotency {
                key,
                fingerprint: row.get(OWN + 3)?,
            }),
            None => None,
        };
        Ok((webhook.map(|url| Webhook { url, host }), idempotency))
    };
    let (webhook, idempotency) = beside().map_err(unavailable)?;
    let (input, secrets) = input(connection, seq)?;
    Ok(JobRecord {
        seq,
        output: output(connection, seq)?,
        chunks: chunks(connection, seq)?,
        kept: NewJob {
            job: canonical(job),
            input,
            webhook,
            secrets,
            idempotency,
        },
    })
}

fn input(connection: &Connection, seq: Seq) -> Result<(Bytes, Option<Vec<u8>>)> {
    let found = connection
        .prepare_cached("SELECT body, secrets FROM inputs WHERE seq = ?1")
        .and_then(|mut statement| {
            let row = statement.query_row([key(seq)], |row| {
                Ok((Bytes::from(row.get::<_, Vec<u8>>(0)?), row.get(1)?))
            });
            row.optional()
        });
    let missing = || StoreError::Corrupt(format!("the input of job number {seq} is missing"));
    found.map_err(unavailable)?.ok_or_else(missing)
}

fn output(connection: &Connection, seq: Seq) -> Result<Option<Bytes>> {
    let found = connection
        .prepare_cached("SELECT body FROM outputs WHERE seq = ?1")
        .and_then(|mut statement| {
            let row = statement.query_row([key(seq)], |row| row.get::<_, Vec<u8>>(0));
            row.optional()
        });
    Ok(found.map_err(unavailable)?.map(Bytes::from))
}

fn chunks(connection: &Connection, seq: Seq) -> Result<Vec<Bytes>> {
    let mut statement = connection
        .prepare_cached("SELECT body FROM chunks WHERE seq = ?1 ORDER BY n")
        .map_err(unavailable)?;
    let rows = statement
        .query_map([key(seq)], |row| Ok(Bytes::from(row.get::<_, Vec<u8>>(0)?)))
        .map_err(unavailable)?;
    rows.collect::<rusqlite::Result<_>>().map_err(unavailable)
}

fn each_delivery<E: From<StoreError>>(
    connection: &Connection,
    each: Each<'_, E>,
) -> std::result::Result<(), E> {
    let sql = format!(
        "SELECT {} FROM deliveries ORDER BY number",
        deliveries::FIELDS
    );
    each_row(
        connection,
        &sql,
        |row| {
            let row = deliveries::row_of(row)?;
            let pending = row.state == lazyfox_core::delivery::State::Pending;
            Ok(DeliveryRecord {
                made: tries(connection, row.due.number)?,
                number: row.due.number,
                endpoint: row.due.endpoint,
                id: row.id,
                host: row.due.host.to_string(),
                bytes: row.due.bytes,
                state: row.state,
                created_at: row.created_at,
                due_at: pending.then_some(row.due.due_at),
                tries: row.tries,
                round: row.round,
                keep_until: row.keep_until,
            })
        },
        |record| each(Record::Delivery(record)),
    )
}

fn tries(connection: &Connection, number: u64) -> Result<Vec<(u32, Try)>> {
    let mut statement = connection
        .prepare_cached("SELECT try FROM tries WHERE number = ?1 ORDER BY try")
        .map_err(unavailable)?;
    let rows = statement
        .query_map([key(number)], |row| row.get(0))
        .map_err(unavailable)?;
    let numbers: Vec<u32> = rows.collect::<rusqlite::Result<_>>().map_err(unavailable)?;
    let made = deliveries::tries(connection, number)?
        .into_iter()
        .map(|made| Try {
            answer: made.answer.map(spelled),
            error: made.error.map(spelled),
            ..made
        });
    Ok(numbers.into_iter().zip(made).collect())
}

fn each_counters<E: From<StoreError>>(
    connection: &Connection,
    each: Each<'_, E>,
) -> std::result::Result<(), E> {
    let sql = "SELECT endpoint, sum(value) FILTER (WHERE counter = 'completed'),
             sum(value) FILTER (WHERE counter = 'failed'),
             sum(value) FILTER (WHERE counter = 'cancelled'),
             sum(value) FILTER (WHERE counter = 'timed_out'),
             sum(value) FILTER (WHERE counter = 'retried')
         FROM counters WHERE value > 0 GROUP BY endpoint ORDER BY endpoint";
    let of = |row: &Row<'_>| {
        let read = || -> rusqlite::Result<(String, [u64; 5])> {
            let mut values = [0; 5];
            for (value, at) in values.iter_mut().zip(1..) {
                *value = row.get::<_, Option<i64>>(at)?.unwrap_or(0).cast_unsigned();
            }
            Ok((row.get(0)?, values))
        };
        let (name, values) = read().map_err(unavailable)?;
        Ok(CountersRecord {
            endpoint: endpoint_of(&name)?,
            counters: counted(values),
        })
    };
    each_row(connection, sql, of, |record| each(Record::Counters(record)))
}

fn each_endpoint<E: From<StoreError>>(
    connection: &Connection,
    each: Each<'_, E>,
) -> std::result::Result<(), E> {
    let sql = "SELECT endpoint, number, released_at, fingerprint, settings FROM endpoints
         WHERE number IS NOT NULL OR settings IS NOT NULL ORDER BY endpoint";
    let of = |row: &Row<'_>| {
        let read = || -> rusqlite::Result<_> {
            let release = match row.get(1)? {
                Some(number) => {
                    let since = Timestamp::from_ms(row.get(2)?);
                    Some((Release { number, since }, row.get::<_, [u8; 32]>(3)?))
                }
                None => None,
            };
            let settings: Option<String> = row.get(4)?;
            Ok((row.get::<_, String>(0)?, release, settings.map(spelled)))
        };
        let (name, release, settings) = read().map_err(unavailable)?;
        Ok(EndpointRecord {
            endpoint: endpoint_of(&name)?,
            release,
            settings,
        })
    };
    each_row(connection, sql, of, |record| each(Record::Endpoint(record)))
}

fn each_secret<E: From<StoreError>>(
    connection: &Connection,
    each: Each<'_, E>,
) -> std::result::Result<(), E> {
    let sql = "SELECT endpoint, id, secret, created_at, valid_until FROM webhook_secrets
         ORDER BY endpoint, id";
    let of = |row: &Row<'_>| {
        let read = || -> rusqlite::Result<(String, WebhookSecret)> {
            let secret = WebhookSecret {
                id: row.get(1)?,
                sealed: row.get(2)?,
                created_at: Timestamp::from_ms(row.get(3)?),
                valid_until: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_ms),
            };
            Ok((row.get(0)?, secret))
        };
        let (name, secret) = read().map_err(unavailable)?;
        Ok((endpoint_of(&name)?, secret))
    };
    each_row(connection, sql, of, |(endpoint, secret)| {
        each(Record::Secret(endpoint, secret))
    })
}
