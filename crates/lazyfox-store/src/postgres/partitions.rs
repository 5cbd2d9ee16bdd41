//! Jobs and what belongs to them are kept in partitions by the time in their ids. When a partition's jobs
//! are forgotten it is dropped, and its dead rows with it: that works also while some old snapshot keeps
//! the vacuum from clearing anything.
//!
//! Each server looks after that when it prunes; what changes is done by one at a time. Nobody may ever
//! wait long: new tables are made beside the old ones and attached when they are there. A partition that
//! goes is detached, with the few rows that are left moved first, and read through and dropped when
//! nobody sees it any more. What needs a lock gives up after a moment, and is tried again later. A row
//! that has no partition of its time is in the default one, where only the vacuum clears.

mod spans;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Client, Pool, Transaction};
use lazyfox_core::time::Timestamp;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use self::spans::{Pace, Span, make, past};
use super::connect::{self, Failure, failed};
use super::row::{Id, column};
use super::set::Set;
use crate::engine::Result;

/// The tables that have partitions. Their partitions are the same.
const TABLES: [&str; 4] = ["jobs", "inputs", "outputs", "chunks"];
/// Who changes partitions holds this lock of the database; the number has no meaning.
const LOCK: i64 = 0x6c61_7a79_666f_7802;
/// Time between two looks where there is something to do, while jobs come and else.
const EVERY_MS: u64 = 10_000;
const IDLE_MS: u64 = 60_000;
/// Time between two looks where there is nothing to do, or it cannot be done.
const SELDOM_MS: u64 = 600_000;
/// To look for what can go takes no more than this part of the time.
const SHARE: u32 = 50;
/// So many jobs are moved out of a partition that goes, at the most, with so many bytes of payloads.
const FEW: usize = 1_000;
const FEW_BYTES: i64 = 8 * 1024 * 1024;
/// How long to wait for a lock, and for all, in milliseconds: everybody else waits behind whoever waits.
const PATIENCE_MS: u32 = 100;
const PATIENCE_ALL_MS: u32 = 200;
/// How long any other step may take that everybody waits for. Where the default partition has become so
/// large that it cannot be read in this time, no partition is attached.
const STEP_MS: u32 = 1_000;
/// How long it may take to read what nobody else sees.
const READ_MS: u32 = 600_000;
/// How long the database may say nothing.
const SILENCE: Duration = Duration::from_secs(900);

type Fallible<T> = std::result::Result<T, Failure>;

/// What this server knows of the partitions.
#[derive(Default)]
pub(super) struct Partitions {
    state: Mutex<State>,
    /// Whoever looks after them.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// How many jobs came through this server lately.
    pace: Pace,
    seen: Option<Seen>,
}

/// The latest look.
struct Seen {
    at: Timestamp,
    spans: Vec<Span>,
    /// When to look again at the earliest.
    again_at: Timestamp,
}

/// What is there: partitions, and tables that were partitions.
struct Found {
    spans: Vec<Span>,
    loose: Vec<Span>,
}

/// A partition that can go, and the keys of what is left in it.
struct Ripe {
    span: Span,
    endpoints: Vec<String>,
    ids: Vec<Id>,
}

impl Partitions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a group of this server has just committed.
    pub(super) fn committed(&self, set: &Set) {
        let new = set.entries.values().filter(|entry| entry.new.is_some());
        let mut state = None;
        for entry in new {
            let state = state.get_or_insert_with(|| self.state());
            state.pace.add(entry.job.created_at);
        }
    }

    /// Whether to look, and whether jobs come.
    fn is_due(&self, now: Timestamp) -> Option<bool> {
        let state = self.state();
        let is_busy = state.pace.is_busy(now);
        let Some(seen) = &state.seen else {
            return Some(is_busy);
        };
        let something =
            || make(&seen.spans, now, is_busy).is_some() || !past(&seen.spans, now).is_empty();
        let pause = if is_busy { EVERY_MS } else { IDLE_MS };
        let due = now < seen.at
            || now >= seen.at.plus_ms(SELDOM_MS)
            || (now >= seen.again_at.max(seen.at.plus_ms(pause)) && something());
        due.then_some(is_busy)
    }

    /// Makes and drops partitions where that is needed. Somebody in the way is no failure.
    pub(super) async fn keep(&self, pool: &Pool, now: Timestamp) -> Result<()> {
        let Ok(_turn) = self.turn.try_lock() else {
            return Ok(());
        };
        let Some(is_busy) = self.is_due(now) else {
            return Ok(());
        };
        let mut looked = Duration::ZERO;
        let kept = kept(pool, now, is_busy, &mut looked).await;
        let mut state = self.state();
        let known = || state.seen.as_ref().map(|seen| seen.spans.clone());
        let (spans, pause, outcome) = match kept {
            Ok(spans) => (spans, 0, Ok(())),
            Err(failure) if is_passing(&failure) => (known().unwrap_or_default(), 0, Ok(())),
            Err(failure) => {
                let error = failure.into_error();
                (known().unwrap_or_default(), SELDOM_MS, Err(error))
            }
        };
        let looked = u64::try_from((looked * SHARE).as_millis()).unwrap_or(SELDOM_MS);
        state.seen = Some(Seen {
            at: now,
            spans,
            again_at: now.plus_ms(pause.max(looked.min(SELDOM_MS))),
        });
        outcome
    }
}

/// Whether somebody was in the way, or something is not as it was a moment ago: the next time it will
/// work. A row from the future in the default partition is such a thing too.
fn is_passing(failure: &Failure) -> bool {
    match failure {
        Failure::Database(error) => error.code().is_none_or(|code| {
            [
                SqlState::LOCK_NOT_AVAILABLE,
                SqlState::T_R_DEADLOCK_DETECTED,
                SqlState::CHECK_VIOLATION,
                SqlState::UNDEFINED_TABLE,
                SqlState::DUPLICATE_TABLE,
            ]
            .contains(code)
        }),
        Failure::NoConnection(_) => true,
        Failure::Operation(_) | Failure::Unknown(_) => false,
    }
}

/// One round. Gives the partitions that there are after it, and how long it took to look for what can go.
async fn kept(
    pool: &Pool,
    now: Timestamp,
    is_busy: bool,
    looked: &mut Duration,
) -> Fallible<Vec<Span>> {
    connect::in_time(pool, SILENCE, async |client| {
        round(client, now, is_busy, looked).await
    })
    .await
}

async fn round(
    client: &mut Client,
    now: Timestamp,
    is_busy: bool,
    looked: &mut Duration,
) -> Fallible<Vec<Span>> {
    let found = look(client).await?;
    let began_at = Instant::now();
    let mut ripe = Vec::new();
    for span in past(&found.spans, now) {
        ripe.extend(ripe_of(client, span).await?);
    }
    *looked = began_at.elapsed();
    let makes = make(&found.spans, now, is_busy).is_some();
    if !makes && ripe.is_empty() && found.loose.is_empty() {
        return Ok(found.spans);
    }
    // What cannot go is no reason to make nothing.
    let mut gone = Ok(());
    for ripe in &ripe {
        gone = let_go(client, ripe).await;
        if gone.is_err() {
            break;
        }
    }
    let swept = sweep(client).await;
    if makes {
        make_next(client, now, is_busy).await?;
    }
    gone?;
    swept?;
    Ok(look(client).await?.spans)
}

async fn look(client: &impl deadpool_postgres::GenericClient) -> Fallible<Found> {
    let sql = "SELECT c.relname::text, c.relispartition
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'lazyfox' AND c.relkind = 'r' AND c.relname ~ '^jobs_[0-9]+_[0-9]+$'";
    let rows = client.query(sql, &[]).await.map_err(failed)?;
    let mut found = Found {
        spans: Vec::new(),
        loose: Vec::new(),
    };
    for row in &rows {
        let Some(span) = Span::parse(column(row, 0)?) else {
            continue;
        };
        match column(row, 1)? {
            true => found.spans.push(span),
            false => found.loose.push(span),
        }
    }
    found.spans.sort_unstable();
    Ok(found)
}

/// A partition of the past, if so little is left in it that it can go: much less than there was, or its
/// jobs would be written a second time for nothing. Nobody waits for this, and nothing is locked.
async fn ripe_of(client: &mut Client, span: Span) -> Fallible<Option<Ripe>> {
    let transaction = client.transaction().await.map_err(failed)?;
    batch(&transaction, &within(READ_MS)).await?;
    let table = span.of("jobs");
    // The youngest are forgotten last.
    let left = format!(
        "SELECT endpoint, id FROM lazyfox.{table} ORDER BY endpoint DESC, id DESC LIMIT $1"
    );
    let most = i64::try_from(FEW + 1).unwrap_or(i64::MAX);
    let rows = match transaction.query(&left, &[&most]).await {
        Ok(rows) => rows,
        // Another server was here.
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let pages = format!(
        "SELECT pg_catalog.pg_relation_size(pg_catalog.to_regclass('lazyfox.{table}')) \
         / pg_catalog.current_setting('block_size')::int8"
    );
    let row = transaction.query_one(&pages, &[]).await.map_err(failed)?;
    let pages: Option<i64> = column(&row, 0)?;
    let pages = pages.map_or(0, |pages| usize::try_from(pages).unwrap_or(usize::MAX));
    if rows.len() > FEW.min(pages) {
        return Ok(None);
    }
    let mut ripe = Ripe {
        span,
        endpoints: Vec::new(),
        ids: Vec::new(),
    };
    for row in &rows {
        ripe.endpoints.push(column(row, 0)?);
        ripe.ids.push(column(row, 1)?);
    }
    let is_small = ripe.ids.is_empty() || bytes_of(&transaction, &ripe).await? <= FEW_BYTES;
    Ok(is_small.then_some(ripe))
}

/// The size of payloads that would be moved.
async fn bytes_of(transaction: &Transaction<'_>, ripe: &Ripe) -> Fallible<i64> {
    let mut sums = Vec::new();
    for table in &TABLES[1..] {
        sums.push(format!(
            "SELECT sum(octet_length(t.body)) AS bytes
             FROM (SELECT * FROM unnest($1::text[], $2::uuid[]) AS u(endpoint, id) OFFSET 0) AS u
             JOIN lazyfox.{} t ON t.endpoint = u.endpoint AND t.id = u.id",
            ripe.span.of(table)
        ));
    }
    let sql = format!(
        "SELECT coalesce(sum(bytes), 0)::int8 FROM ({}) AS s",
        sums.join(" UNION ALL ")
    );
    let keys: [&(dyn ToSql + Sync); 2] = [&ripe.endpoints, &ripe.ids];
    match transaction.query_one(&sql, &keys).await {
        Ok(row) => Ok(column(&row, 0)?),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(i64::MAX),
        Err(error) => Err(failed(error)),
    }
}

/// Whether this server may change partitions until its transaction ends.
async fn is_alone(transaction: &Transaction<'_>) -> Fallible<bool> {
    let lock = format!("SELECT pg_catalog.pg_try_advisory_xact_lock({LOCK})");
    let row = transaction.query_one(&lock, &[]).await.map_err(failed)?;
    Ok(column(&row, 0)?)
}

async fn batch(transaction: &Transaction<'_>, sql: &str) -> Fallible<()> {
    transaction.batch_execute(sql).await.map_err(failed)
}

/// Locks everything, in a moment or not at all.
async fn lock(transaction: &Transaction<'_>, span: Option<Span>) -> Fallible<()> {
    let mut names = Vec::new();
    for table in TABLES {
        names.push(format!("ONLY lazyfox.{table}"));
    }
    for table in TABLES {
        names.push(format!("lazyfox.{table}_default"));
        names.extend(span.map(|span| format!("lazyfox.{}", span.of(table))));
    }
    let patience = format!("SET LOCAL lock_timeout = {PATIENCE_MS}");
    batch(transaction, &patience).await?;
    batch(transaction, &within(PATIENCE_ALL_MS)).await?;
    let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", "));
    batch(transaction, &lock).await?;
    batch(transaction, &within(STEP_MS)).await
}

fn within(ms: u32) -> String {
    format!("SET LOCAL statement_timeout = {ms}")
}

/// Detaches a partition, and moves what is left in it into the default one.
async fn let_go(client: &mut Client, ripe: &Ripe) -> Fallible<()> {
    let transaction = client.transaction().await.map_err(failed)?;
    let alone = is_alone(&transaction).await?;
    if !alone || !look(&transaction).await?.spans.contains(&ripe.span) {
        return Ok(());
    }
    lock(&transaction, Some(ripe.span)).await?;
    for table in TABLES {
        let part = ripe.span.of(table);
        let detach = format!("ALTER TABLE lazyfox.{table} DETACH PARTITION lazyfox.{part}");
        batch(&transaction, &detach).await?;
    }
    move_rows(&transaction, ripe).await?;
    transaction.commit().await.map_err(failed)
}

/// From tables that are no partitions any more.
async fn move_rows(transaction: &Transaction<'_>, ripe: &Ripe) -> Fallible<()> {
    if ripe.ids.is_empty() {
        return Ok(());
    }
    for table in TABLES {
        let from = ripe.span.of(table);
        let moved = format!(
            "WITH gone AS (
                 DELETE FROM lazyfox.{from} t
                 USING (SELECT * FROM unnest($1::text[], $2::uuid[]) AS u(endpoint, id)
                        OFFSET 0) AS u
                 WHERE t.endpoint = u.endpoint AND t.id = u.id
                 RETURNING t.*)
             INSERT INTO lazyfox.{table} SELECT * FROM gone ON CONFLICT DO NOTHING"
        );
        let keys: [&(dyn ToSql + Sync); 2] = [&ripe.endpoints, &ripe.ids];
        transaction.execute(&moved, &keys).await.map_err(failed)?;
    }
    Ok(())
}

/// Drops tables that were partitions. Should a row have come into one after it was looked through, and
/// before it was detached, it is moved now.
async fn sweep(client: &mut Client) -> Fallible<()> {
    let transaction = client.transaction().await.map_err(failed)?;
    if !is_alone(&transaction).await? {
        return Ok(());
    }
    batch(&transaction, &within(READ_MS)).await?;
    batch(&transaction, "SET LOCAL enable_seqscan = on").await?;
    for span in look(&transaction).await?.loose {
        let late = format!("SELECT endpoint, id FROM lazyfox.{}", span.of("jobs"));
        let rows = transaction.query(&late, &[]).await.map_err(failed)?;
        let keys: Result<Vec<(String, Id)>> = rows
            .iter()
            .map(|row| Ok((column(row, 0)?, column(row, 1)?)))
            .collect();
        let (endpoints, ids) = keys?.into_iter().unzip();
        let late = Ripe {
            span,
            endpoints,
            ids,
        };
        move_rows(&transaction, &late).await?;
        for table in TABLES {
            let drop = format!("DROP TABLE IF EXISTS lazyfox.{}", span.of(table));
            batch(&transaction, &drop).await?;
        }
    }
    transaction.commit().await.map_err(failed)
}

/// Makes the next partition, if it is still needed.
async fn make_next(client: &mut Client, now: Timestamp, is_busy: bool) -> Fallible<()> {
    let transaction = client.transaction().await.map_err(failed)?;
    if !is_alone(&transaction).await? {
        return Ok(());
    }
    let there = look(&transaction).await?.spans;
    let Some(span) = make(&there, now, is_busy) else {
        return Ok(());
    };
    // This takes much longer than the rest, and is in nobody's way.
    for table in TABLES {
        let part = span.of(table);
        let create = format!("CREATE TABLE lazyfox.{part} (LIKE lazyfox.{table} INCLUDING ALL)");
        batch(&transaction, &create).await?;
    }
    lock(&transaction, None).await?;
    attach(&transaction, span).await?;
    transaction.commit().await.map_err(failed)
}

async fn attach(transaction: &Transaction<'_>, span: Span) -> Fallible<()> {
    for table in TABLES {
        let (part, bounds) = (span.of(table), span.bounds());
        let attach =
            format!("ALTER TABLE lazyfox.{table} ATTACH PARTITION lazyfox.{part} {bounds}");
        batch(transaction, &attach).await?;
    }
    Ok(())
}

/// Before a store is filled that is empty and locked: a partition for all that is older than now.
pub(super) async fn make_past(transaction: &Transaction<'_>, now: Timestamp) -> Fallible<()> {
    if !look(transaction).await?.spans.is_empty() {
        return Ok(());
    }
    let Some(span) = Span::until(now) else {
        return Ok(());
    };
    for table in TABLES {
        let (part, bounds) = (span.of(table), span.bounds());
        let create = format!("CREATE TABLE lazyfox.{part} PARTITION OF lazyfox.{table} {bounds}");
        batch(transaction, &create).await?;
    }
    Ok(())
}
