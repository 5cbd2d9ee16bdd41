//! Deliveries, their tries, and what they are signed with, as rows.

use std::sync::Arc;

use bytes::Bytes;
use lazyfox_core::delivery::{Next, State, Try};
use lazyfox_core::id::{DeliveryId, EndpointId, JobId};
use lazyfox_core::job::Job;
use lazyfox_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::read::{COLUMNS, COLUMNS_COUNT, job_of};
use super::{SqlRows, key, unavailable};
use crate::engine::{DeliveryRow, Result, Seq};
use crate::{
    Delivery, DeliveryPage, DeliveryQuery, Due, LIST_VISITS_MAX, Loaded, Outgoing, Parts,
    Settlement, StoreError, Webhook, WebhookSecret,
};

/// What [`row_of`] reads, in this order.
pub(super) const FIELDS: &str = "number, endpoint, host, bytes, seq, job, n, state, created_at, due_at, tries, \
     round, keep_until";

fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(format!("a delivery's {what} cannot be read"))
}

pub(super) fn row_of(row: &Row<'_>) -> Result<DeliveryRow> {
    let read = || -> rusqlite::Result<_> {
        let names: (String, String, [u8; 17], String) =
            (row.get(1)?, row.get(2)?, row.get(5)?, row.get(7)?);
        let numbers: (i64, i64, i64) = (row.get(0)?, row.get(3)?, row.get(4)?);
        let counts: (u32, u32, u32) = (row.get(6)?, row.get(10)?, row.get(11)?);
        let times: (i64, Option<i64>, i64) = (row.get(8)?, row.get(9)?, row.get(12)?);
        Ok((names, numbers, counts, times))
    };
    let (names, (number, bytes, seq), (n, tries, round), times) = read().map_err(unavailable)?;
    let (endpoint, host, job, state) = names;
    let (created_at, due_at, keep_until) = times;
    let due = Due {
        number: number.cast_unsigned(),
        endpoint: endpoint.parse().map_err(|_| damaged("endpoint"))?,
        host: Arc::from(host),
        bytes: bytes.cast_unsigned(),
        due_at: Timestamp::from_ms(due_at.unwrap_or(created_at)),
    };
    let job = JobId::from_bytes(&job).ok_or_else(|| damaged("job"))?;
    Ok(DeliveryRow {
        due,
        seq: seq.cast_unsigned(),
        id: DeliveryId { job, number: n },
        state: State::parse(&state).ok_or_else(|| damaged("state"))?,
        created_at: Timestamp::from_ms(created_at),
        tries,
        round,
        keep_until: Timestamp::from_ms(keep_until),
    })
}

fn select(connection: &Connection, condition: &str, of: i64) -> Result<Vec<DeliveryRow>> {
    let sql = format!("SELECT {FIELDS} FROM deliveries WHERE {condition}");
    let mut statement = connection.prepare_cached(&sql).map_err(unavailable)?;
    let mut rows = statement.query([of]).map_err(unavailable)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(unavailable)? {
        found.push(row_of(row)?);
    }
    Ok(found)
}

impl SqlRows {
    /// Two plain statements and not one that does all: what reads from the table that it writes to, or
    /// returns what it has written, goes through a table of its own, which takes longer than the rest.
    pub(super) fn insert_delivery(
        &mut self,
        number: u64,
        seq: Seq,
        job: &Job,
        now: Timestamp,
    ) -> Result<Due> {
        // The sizes stand in the heads of their rows: the bodies are not read for it.
        let (host, n, bytes): (String, u32, i64) = self
            .connection
            .prepare_cached(
                "SELECT webhook_host, 1 + (SELECT count(*) FROM deliveries WHERE seq = ?1),
                     coalesce((SELECT length(body) FROM inputs WHERE seq = ?1), 0)
                         + coalesce((SELECT length(body) FROM outputs WHERE seq = ?1), 0)
                 FROM jobs WHERE seq = ?1",
            )
            .and_then(|mut statement| {
                statement.query_row([key(seq)], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
            })
            .map_err(unavailable)?;
        self.write(
            "INSERT INTO deliveries
                 (number, seq, job, n, endpoint, host, bytes, state, created_at, due_at, keep_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'pending', ?8, ?8, ?9)",
            params![
                key(number),
                key(seq),
                job.id.to_bytes(),
                n,
                job.endpoint.as_str(),
                host,
                bytes,
                now.as_ms(),
                Timestamp::NEVER.as_ms()
            ],
        )?;
        Ok(Due {
            number,
            endpoint: job.endpoint.clone(),
            host: Arc::from(host),
            bytes: bytes.cast_unsigned(),
            due_at: now,
        })
    }

    pub(super) fn settle_delivery(&mut self, settlement: &Settlement) -> Result<bool> {
        let due_at = match settlement.next {
            Next::Again(at) => Some(at.as_ms()),
            Next::Delivered | Next::GaveUp => None,
        };
        let changed = self.write(
            "UPDATE deliveries SET state = ?4, due_at = ?5, tries = tries + 1, round = round + 1,
                 keep_until = ?6
             WHERE number = ?1 AND due_at = ?2 AND round = ?3",
            params![
                key(settlement.due.number),
                settlement.due.due_at.as_ms(),
                settlement.round,
                settlement.next.state().as_str(),
                due_at,
                settlement.keep_until.as_ms()
            ],
        )?;
        Ok(changed > 0)
    }

    pub(super) fn max_delivery(&self) -> Result<u64> {
        let last = self
            .connection
            .query_row("SELECT max(number) FROM deliveries", [], |row| {
                row.get::<_, Option<i64>>(0)
            });
        Ok(last.map_err(unavailable)?.unwrap_or(0).cast_unsigned())
    }

    pub(super) fn select_delivery(&self, number: u64) -> Result<Option<DeliveryRow>> {
        let found = select(&self.connection, "number = ?1", key(number))?;
        Ok(found.into_iter().next())
    }

    pub(super) fn select_deliveries_of(&self, seq: Seq) -> Result<Vec<DeliveryRow>> {
        select(&self.connection, "seq = ?1 ORDER BY number", key(seq))
    }

    pub(super) fn write_delivery(&mut self, row: &DeliveryRow) -> Result<()> {
        self.write(
            "UPDATE deliveries SET state = ?2, due_at = ?3, tries = ?4, round = ?5, keep_until = ?6
             WHERE number = ?1",
            params![
                key(row.due.number),
                row.state.as_str(),
                (row.state == State::Pending).then(|| row.due.due_at.as_ms()),
                row.tries,
                row.round,
                row.keep_until.as_ms()
            ],
        )?;
        Ok(())
    }

    pub(super) fn insert_try(&mut self, number: u64, made: &Try) -> Result<()> {
        self.write(
            "INSERT INTO tries (number, try, at, duration, status, answer, error)
             VALUES (?1, (SELECT tries FROM deliveries WHERE number = ?1), ?2, ?3, ?4, ?5, ?6)",
            params![
                key(number),
                made.at.as_ms(),
                made.duration_ms.cast_signed(),
                made.status,
                made.answer,
                made.error
            ],
        )?;
        Ok(())
    }

    pub(super) fn delete_deliveries(&mut self, seq: Seq) -> Result<()> {
        self.write(
            "DELETE FROM tries WHERE number IN (SELECT number FROM deliveries WHERE seq = ?1)",
            [key(seq)],
        )?;
        self.write("DELETE FROM deliveries WHERE seq = ?1", [key(seq)])?;
        Ok(())
    }

    pub(super) fn scan_open(&self, each: &mut dyn FnMut(Due)) -> Result<()> {
        // Deliveries of one host share its name in memory, and there may be a million of them.
        let mut hosts: std::collections::HashSet<Arc<str>> = std::collections::HashSet::new();
        let sql = format!(
            "SELECT {FIELDS} FROM deliveries INDEXED BY deliveries_open
             WHERE due_at IS NOT NULL ORDER BY number"
        );
        let mut statement = self.connection.prepare_cached(&sql).map_err(unavailable)?;
        let mut rows = statement.query([]).map_err(unavailable)?;
        while let Some(row) = rows.next().map_err(unavailable)? {
            let mut due = row_of(row)?.due;
            match hosts.get(&due.host) {
                Some(known) => due.host = Arc::clone(known),
                None => {
                    hosts.insert(Arc::clone(&due.host));
                }
            }
            each(due);
        }
        Ok(())
    }

    pub(super) fn insert_secret(
        &mut self,
        endpoint: &EndpointId,
        secret: &WebhookSecret,
        previous_until: Timestamp,
    ) -> Result<()> {
        self.write(
            "DELETE FROM webhook_secrets WHERE endpoint = ?1 AND valid_until IS NOT NULL",
            [endpoint.as_str()],
        )?;
        self.write(
            "UPDATE webhook_secrets SET valid_until = ?2 WHERE endpoint = ?1",
            params![endpoint.as_str(), previous_until.as_ms()],
        )?;
        self.write(
            "INSERT INTO webhook_secrets (id, endpoint, secret, created_at) VALUES (?1, ?2, ?3, ?4)",
            params![
                secret.id,
                endpoint.as_str(),
                secret.sealed,
                secret.created_at.as_ms()
            ],
        )?;
        Ok(())
    }
}

/// Reads what an open delivery sends, in one statement and so from one snapshot.
pub(in crate::sqlite) fn outgoing(
    connection: &Connection,
    number: u64,
    parts: Parts,
) -> Result<Option<Outgoing>> {
    // What is read of the delivery stands behind the columns of the job.
    const OWN: usize = COLUMNS_COUNT;
    let part = |wanted: bool, table: &str| {
        if wanted {
            format!("(SELECT body FROM {table} WHERE seq = jobs.seq)")
        } else {
            "NULL".to_owned()
        }
    };
    let (output, input) = (part(parts.output, "outputs"), part(parts.input, "inputs"));
    // Not as a join: SQLite looks at what parameters of joins are bound to, and then prepares the statement
    // anew for each, which takes several times as long as to run it.
    let sql = format!(
        "SELECT {COLUMNS}, webhook, (SELECT n FROM deliveries WHERE number = ?1),
             (SELECT round FROM deliveries WHERE number = ?1), {output}, {input}
         FROM jobs
         WHERE seq = (SELECT seq FROM deliveries WHERE number = ?1 AND due_at IS NOT NULL)"
    );
    let read = |row: &Row<'_>| {
        let own: (Option<String>, u32, u32) = (row.get(OWN)?, row.get(OWN + 1)?, row.get(OWN + 2)?);
        let payloads: [Option<Vec<u8>>; 2] = [row.get(OWN + 3)?, row.get(OWN + 4)?];
        Ok((job_of(row), own, payloads))
    };
    let found = connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_row([key(number)], read).optional())
        .map_err(unavailable)?;
    let Some((job, (url, n, round), [output, input])) = found else {
        return Ok(None);
    };
    let (_, job) = job?;
    if parts.input && input.is_none() {
        return Err(StoreError::Corrupt(format!(
            "the input of {} is missing",
            job.id
        )));
    }
    Ok(Some(Outgoing {
        id: DeliveryId {
            job: job.id,
            number: n,
        },
        url: url.ok_or_else(|| damaged("URL"))?,
        round,
        loaded: Loaded {
            job,
            output: output.map(Bytes::from),
            input: input.map(Bytes::from),
        },
    }))
}

/// Reads a page of deliveries, newest first, looking at no more than its share of rows.
pub(in crate::sqlite) fn deliveries(
    connection: &Connection,
    query: &DeliveryQuery,
) -> Result<DeliveryPage> {
    let transaction = connection.unchecked_transaction().map_err(unavailable)?;
    // A job has few deliveries; without one, which are meant is looked at here and not by SQLite, which
    // could not say how far it went for a page that is not full.
    let of_job = match query.job {
        Some(_) => "AND seq = (SELECT seq FROM jobs WHERE id = ?2)",
        None => "AND ?2 IS NULL",
    };
    let sql =
        format!("SELECT {FIELDS} FROM deliveries WHERE number < ?1 {of_job} ORDER BY number DESC");
    let mut statement = transaction.prepare_cached(&sql).map_err(unavailable)?;
    let before = query
        .before
        .unwrap_or(u64::MAX)
        .min(i64::MAX.unsigned_abs());
    let job = query.job.map(JobId::to_bytes);
    let mut rows = statement
        .query(params![key(before), job])
        .map_err(unavailable)?;
    let mut page = DeliveryPage::default();
    let mut last = None;
    let mut visits = 0;
    while let Some(row) = rows.next().map_err(unavailable)? {
        let matches = is_meant(row, query).map_err(unavailable)?;
        if (matches && page.deliveries.len() == query.limit) || visits == LIST_VISITS_MAX {
            page.next = last;
            break;
        }
        visits += 1;
        last = Some(row.get::<_, i64>(0).map_err(unavailable)?.cast_unsigned());
        if matches {
            page.deliveries.push(listed(&transaction, row_of(row)?)?);
        }
    }
    Ok(page)
}

fn is_meant(row: &Row<'_>, query: &DeliveryQuery) -> rusqlite::Result<bool> {
    let is = |at: usize, text: &str| -> rusqlite::Result<bool> {
        Ok(row
            .get_ref(at)?
            .as_bytes()
            .is_ok_and(|bytes| bytes == text.as_bytes()))
    };
    // Nothing is read of what is another endpoint's: it may be damaged.
    Ok(is(1, query.endpoint.as_str())?
        && match query.state {
            Some(state) => is(7, state.as_str())?,
            None => true,
        }
        && query.created.contains(&Timestamp::from_ms(row.get(8)?)))
}

fn listed(connection: &Connection, row: DeliveryRow) -> Result<Delivery> {
    let url: Option<String> = connection
        .prepare_cached("SELECT webhook FROM jobs WHERE seq = ?1")
        .and_then(|mut statement| statement.query_row([key(row.seq)], |row| row.get(0)))
        .map_err(unavailable)?;
    Ok(Delivery {
        tries: tries(connection, row.due.number)?,
        id: row.id,
        state: row.state,
        webhook: Webhook {
            url: url.ok_or_else(|| damaged("URL"))?,
            host: row.due.host.to_string(),
        },
        bytes: row.due.bytes,
        created_at: row.created_at,
        due_at: (row.state == State::Pending).then_some(row.due.due_at),
    })
}

pub(super) fn tries(connection: &Connection, number: u64) -> Result<Vec<Try>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT at, duration, status, answer, error FROM tries WHERE number = ?1 ORDER BY try",
        )
        .map_err(unavailable)?;
    let rows = statement
        .query_map([key(number)], |row| {
            Ok(Try {
                at: Timestamp::from_ms(row.get(0)?),
                duration_ms: row.get::<_, i64>(1)?.cast_unsigned(),
                status: row.get(2)?,
                answer: row.get(3)?,
                error: row.get(4)?,
            })
        })
        .map_err(unavailable)?;
    rows.collect::<rusqlite::Result<_>>().map_err(unavailable)
}

/// Reads an endpoint's secrets, the newest first.
pub(in crate::sqlite) fn webhook_secrets(
    connection: &Connection,
    endpoint: &EndpointId,
) -> Result<Vec<WebhookSecret>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT id, secret, created_at, valid_until FROM webhook_secrets WHERE endpoint = ?1
             ORDER BY valid_until IS NULL DESC, created_at DESC",
        )
        .map_err(unavailable)?;
    let rows = statement
        .query_map([endpoint.as_str()], |row| {
            Ok(WebhookSecret {
                id: row.get(0)?,
                sealed: row.get(1)?,
                created_at: Timestamp::from_ms(row.get(2)?),
                valid_until: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_ms),
            })
        })
        .map_err(unavailable)?;
    rows.collect::<rusqlite::Result<_>>().map_err(unavailable)
}
