//! What a group changed is written as whole statements, and committed, in one round trip.

use std::collections::BTreeMap;

use deadpool_postgres::Client;
use lazyfox_core::delivery::State as Sending;
use lazyfox_core::id::EndpointId;
use lazyfox_core::job::{Counter, State};
use tokio_postgres::types::ToSql;

use super::connect::{Failure, failed};
use super::pipeline::{self, Asked};
use super::row::{Id, Raw, ms, text, unsigned};
use super::set::{Became, Entry, Set};
use super::sql;
use crate::engine::Seq;
use crate::{deaths, texts};

type Params = Vec<Box<dyn ToSql + Sync + Send>>;

/// A statement with its parameters behind the endpoint.
struct Write {
    sql: &'static str,
    params: Params,
}

macro_rules! params {
    ($($param:expr),+ $(,)?) => {
        vec![$(Box::new($param) as Box<dyn tokio_postgres::types::ToSql + Sync + Send>),+]
    };
}

mod bodies;

/// Writes and commits, and gives the first place that new jobs got on each endpoint. `begins` says that
/// there is no transaction yet.
pub(super) async fn commit(
    client: &Client,
    endpoint: &EndpointId,
    set: &Set,
    begins: bool,
    new_queue: bool,
) -> Result<Vec<(EndpointId, Seq)>, Failure> {
    let mut writes = Vec::new();
    if new_queue {
        writes.push(Write {
            sql: sql::INSERT_QUEUE,
            params: Vec::new(),
        });
    }
    // A worker may hold jobs of two endpoints, where somebody uses its name twice.
    let mut endpoints: BTreeMap<&EndpointId, Vec<(Seq, &Entry)>> = BTreeMap::new();
    for (&seq, entry) in &set.entries {
        let of = endpoints.entry(&entry.job.endpoint).or_default();
        of.push((seq, entry));
    }
    let mut all: Vec<(&EndpointId, Write)> = Vec::new();
    all.extend(writes.into_iter().map(|write| (endpoint, write)));
    for (on, entries) in &endpoints {
        let mut writes = Vec::new();
        insert_jobs(&mut writes, entries);
        update_jobs(&mut writes, entries);
        bodies::payloads(&mut writes, entries);
        bodies::chunks(&mut writes, entries);
        new_deliveries(&mut writes, set, on);
        counts(&mut writes, set, on);
        all.extend(writes.into_iter().map(|write| (*on, write)));
    }
    let mut writes = Vec::new();
    kept_deliveries(&mut writes, set);
    tries(&mut writes, set);
    forget(&mut writes, set);
    all.extend(writes.into_iter().map(|write| (endpoint, write)));
    send(client, &all, begins).await
}

async fn send(
    client: &Client,
    writes: &[(&EndpointId, Write)],
    begins: bool,
) -> Result<Vec<(EndpointId, Seq)>, Failure> {
    if writes.is_empty() {
        if !begins {
            client.batch_execute("COMMIT").await.map_err(failed)?;
        }
        return Ok(Vec::new());
    }
    let names: Vec<&str> = writes.iter().map(|(on, _)| on.as_str()).collect();
    let mut asked = Vec::new();
    if begins {
        asked.push(Asked::batch("BEGIN"));
    }
    for ((_, write), name) in writes.iter().zip(&names) {
        let statement = client.prepare_cached(write.sql).await.map_err(failed)?;
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![name];
        params.extend(write.params.iter().map(|it| &**it as &(dyn ToSql + Sync)));
        asked.push(Asked::query(statement, params));
    }
    asked.push(Asked::batch("COMMIT"));
    let answers = pipeline::run(client, asked).await?;
    let mut firsts = Vec::new();
    for ((on, write), rows) in writes.iter().zip(answers.iter().skip(usize::from(begins))) {
        if let (sql::INSERT_JOBS, Some(row)) = (write.sql, rows.first()) {
            firsts.push(((*on).clone(), unsigned(row, 0)?));
        }
    }
    Ok(firsts)
}

/// The columns that change, as arrays.
#[derive(Default)]
struct Rows {
    ids: Vec<Id>,
    statuses: Vec<&'static str>,
    queued_at: Vec<i64>,
    expires_at: Vec<i64>,
    expiry_is_hard: Vec<bool>,
    awaited: Vec<bool>,
    retries: Vec<i32>,
    barred: Vec<Option<String>>,
    deaths: Vec<Option<String>>,
    workers: Vec<Option<String>>,
    started_at: Vec<Option<i64>>,
    lease_until: Vec<Option<i64>>,
    begun: Vec<bool>,
    ended_at: Vec<Option<i64>>,
    errors: Vec<Option<String>>,
    forget_at: Vec<Option<i64>>,
    deadlines: Vec<Option<i64>>,
    has_secrets: Vec<bool>,
    has_output: Vec<bool>,
}

impl Rows {
    fn push(&mut self, entry: &Entry) {
        let job = &entry.job;
        let end = job.state.end();
        let attempt = job.state.last_attempt();
        self.ids.push(job.id.into());
        self.statuses.push(job.status().as_str());
        self.queued_at.push(job.queued_at.as_ms());
        self.expires_at.push(job.expires_at.as_ms());
        self.expiry_is_hard.push(job.expiry_is_hard);
        self.awaited.push(job.awaited);
        self.retries.push(job.retries.cast_signed());
        self.barred.push(texts::worker_names(&job.barred));
        self.deaths
            .push(deaths::text(&job.deaths).map(|it| text(&it)));
        self.workers
            .push(attempt.map(|(worker, _)| worker.to_string()));
        self.started_at.push(attempt.map(|(_, at)| at.as_ms()));
        self.lease_until.push(match &job.state {
            State::Running(attempt) => Some(attempt.lease_until.as_ms()),
            State::Queued
            | State::Completed(_)
            | State::Failed(_)
            | State::Cancelled(_)
            | State::TimedOut(_) => None,
        });
        self.begun.push(!job.waits_in_worker());
        self.ended_at.push(end.map(|end| end.at.as_ms()));
        let error = end.and_then(|end| end.error.as_deref());
        self.errors.push(error.map(text));
        self.forget_at.push(end.map(|end| end.forget_at.as_ms()));
        self.deadlines
            .push(end.is_none().then(|| job.deadline().as_ms()));
        self.has_secrets.push(entry.keeps_secrets());
        self.has_output.push(entry.has_output());
    }

    fn params(self) -> Params {
        params![
            self.ids,
            self.statuses,
            self.queued_at,
            self.expires_at,
            self.expiry_is_hard,
            self.awaited,
            self.retries,
            self.barred,
            self.deaths,
            self.workers,
            self.started_at,
            self.lease_until,
            self.begun,
            self.ended_at,
            self.errors,
            self.forget_at,
            self.deadlines,
            self.has_secrets,
            self.has_output,
        ]
    }
}

fn insert_jobs(writes: &mut Vec<Write>, entries: &[(Seq, &Entry)]) {
    let new: Vec<_> = entries
        .iter()
        .filter_map(|(_, entry)| Some((*entry, entry.new.as_ref()?)))
        .collect();
    if new.is_empty() {
        return;
    }
    let mut rows = Rows::default();
    for (entry, _) in &new {
        rows.push(entry);
    }
    macro_rules! each {
        ($name:ident => $value:expr) => {
            new.iter().map(|(_, $name)| $value).collect::<Vec<_>>()
        };
    }
    let ids = rows.ids.clone();
    let mut params = rows.params();
    params.extend(params![
        each!(it => it.job.terms.low_priority),
        each!(it => it.job.created_at.as_ms()),
        each!(it => it.job.terms.execution_timeout_ms.map(ms)),
        each!(it => ms(it.job.terms.ttl_ms)),
        each!(it => it.job.terms.ttl_given),
        each!(it => it.job.terms.retries_max.cast_signed()),
        each!(it => ms(it.job.terms.retention_ms)),
        each!(it => ms(it.job.terms.retention_sync_ms)),
        each!(it => it.job.terms.ttl_expiry_forgets),
        each!(it => it.job.terms.webhook_on_cancel),
        each!(it => it.job.terms.poison_after.cast_signed()),
        each!(it => it.webhook.as_ref().map(|webhook| webhook.url.clone())),
        each!(it => it.webhook.as_ref().map_or(String::new(), |it| it.host.clone())),
        each!(it => it.idempotency.as_ref().map(|it| it.key.clone())),
    ]);
    writes.push(Write {
        sql: sql::INSERT_JOBS,
        params,
    });
    let secrets: Vec<Option<Vec<u8>>> = new
        .iter()
        .map(|(entry, new)| new.secrets.clone().filter(|_| entry.keeps_secrets()))
        .collect();
    writes.push(Write {
        sql: sql::INSERT_INPUTS,
        params: params![ids, each!(it => Raw(it.input.clone())), secrets,],
    });
    let keyed = new.iter().filter_map(|(entry, new)| {
        let used = new.idempotency.as_ref()?;
        Some((entry.job.id, used.key.clone(), used.fingerprint.to_vec()))
    });
    let (mut keys, mut ids, mut fingerprints) = (Vec::new(), Vec::<Id>::new(), Vec::new());
    for (id, key, fingerprint) in keyed {
        keys.push(key);
        ids.push(id.into());
        fingerprints.push(fingerprint);
    }
    if !keys.is_empty() {
        writes.push(Write {
            sql: sql::INSERT_KEYS,
            params: params![keys, ids, fingerprints],
        });
    }
}

fn update_jobs(writes: &mut Vec<Write>, entries: &[(Seq, &Entry)]) {
    let mut rows = Rows::default();
    for (_, entry) in entries.iter().filter(|(_, entry)| entry.is_changed()) {
        rows.push(entry);
    }
    if rows.ids.is_empty() {
        return;
    }
    writes.push(Write {
        sql: sql::UPDATE_JOBS,
        params: rows.params(),
    });
}

fn due_at(row: &crate::engine::DeliveryRow) -> Option<i64> {
    (row.state == Sending::Pending).then(|| row.due.due_at.as_ms())
}

fn new_deliveries(writes: &mut Vec<Write>, set: &Set, on: &EndpointId) {
    let new: Vec<_> = set
        .deliveries
        .values()
        .filter(|sent| sent.kept.is_none() && sent.row.due.endpoint == *on)
        .map(|sent| &sent.row)
        .collect();
    if new.is_empty() {
        return;
    }
    let mut counts: BTreeMap<Id, i32> = BTreeMap::new();
    let nth: Vec<i32> = new
        .iter()
        .map(|row| {
            let count = counts.entry(row.id.job.into()).or_default();
            *count += 1;
            *count
        })
        .collect();
    macro_rules! each {
        ($row:ident => $value:expr) => {
            new.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    writes.push(Write {
        sql: sql::INSERT_DELIVERIES,
        params: params![
            each!(row => Id::from(row.id.job)),
            nth,
            each!(row => row.state.as_str()),
            each!(row => row.created_at.as_ms()),
            each!(row => due_at(row)),
            each!(row => row.tries.cast_signed()),
            each!(row => row.round.cast_signed()),
            each!(row => row.keep_until.as_ms()),
        ],
    });
}

fn kept_deliveries(writes: &mut Vec<Write>, set: &Set) {
    let changed: Vec<_> = set
        .deliveries
        .values()
        .filter(|sent| sent.kept.as_ref().is_some_and(|kept| *kept != sent.row))
        .map(|sent| &sent.row)
        .collect();
    if changed.is_empty() {
        return;
    }
    macro_rules! each {
        ($row:ident => $value:expr) => {
            changed.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    writes.push(Write {
        sql: sql::UPDATE_DELIVERIES,
        params: params![
            each!(row => row.due.number.cast_signed()),
            each!(row => row.state.as_str()),
            each!(row => due_at(row)),
            each!(row => row.tries.cast_signed()),
            each!(row => row.round.cast_signed()),
            each!(row => row.keep_until.as_ms()),
        ],
    });
}

fn tries(writes: &mut Vec<Write>, set: &Set) {
    if set.tries.is_empty() {
        return;
    }
    macro_rules! each {
        ($it:ident => $value:expr) => {
            set.tries.iter().map(|$it| $value).collect::<Vec<_>>()
        };
    }
    writes.push(Write {
        sql: sql::INSERT_TRIES,
        params: params![
            each!(it => it.number.cast_signed()),
            each!(it => it.count.cast_signed()),
            each!(it => it.made.at.as_ms()),
            each!(it => ms(it.made.duration_ms)),
            each!(it => it.made.status.map(i32::from)),
            each!(it => it.made.answer.as_deref().map(text)),
            each!(it => it.made.error.as_deref().map(text)),
        ],
    });
}

fn counts(writes: &mut Vec<Write>, set: &Set, on: &EndpointId) {
    let of = |counter: Counter| -> i64 {
        let counts = set.counts.iter();
        let of = counts.filter(|(endpoint, of, _)| endpoint == on && *of == counter);
        ms(of.map(|(_, _, n)| n).sum())
    };
    let all = [
        Counter::Completed,
        Counter::Failed,
        Counter::Cancelled,
        Counter::TimedOut,
        Counter::Retried,
    ]
    .map(of);
    let [completed, failed, cancelled, timed_out, retried] = all;
    if all.iter().any(|count| *count > 0) {
        writes.push(Write {
            sql: sql::INSERT_COUNTS,
            params: params![completed, failed, cancelled, timed_out, retried],
        });
    }
}

fn forget(writes: &mut Vec<Write>, set: &Set) {
    let (mut gone, mut reported) = (Vec::<Id>::new(), Vec::<Id>::new());
    let (mut keys, mut keyed) = (Vec::new(), Vec::<Id>::new());
    let (mut kept, mut until) = (Vec::<Id>::new(), Vec::new());
    for over in &set.over {
        match over.became {
            Became::Nothing => {}
            Became::Forgotten => {
                gone.push(over.id.into());
                if over.has_webhook {
                    reported.push(over.id.into());
                }
                if let Some(key) = &over.key {
                    keys.push(key.clone());
                    keyed.push(over.id.into());
                }
            }
            Became::Postponed(to) => {
                kept.push(over.id.into());
                until.push(to.as_ms());
            }
        }
    }
    if !kept.is_empty() {
        writes.push(Write {
            sql: sql::POSTPONE,
            params: params![kept, until],
        });
    }
    if !reported.is_empty() {
        writes.extend(sql::FORGET_DELIVERIES.map(|sql| Write {
            sql,
            params: params![reported.clone()],
        }));
    }
    if !keys.is_empty() {
        writes.push(Write {
            sql: sql::FORGET_KEYS,
            params: params![keys, keyed],
        });
    }
    if !gone.is_empty() {
        writes.extend(sql::FORGET.map(|sql| Write {
            sql,
            params: params![gone.clone()],
        }));
    }
}
