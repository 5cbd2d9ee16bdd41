//! A job as a line.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lazyfox_core::id::WorkerId;
use lazyfox_core::job::{Attempt, Death, End, Job, State, Status};
use lazyfox_core::policy::Terms;
use lazyfox_core::time::Timestamp;
use lazyfox_store::moving::JobRecord;
use lazyfox_store::{Idempotency, NewJob, Webhook};
use serde::{Deserialize, Serialize};

use super::{Payload, binary, hash, name, time};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct JobLine {
    seq: u64,
    id: String,
    endpoint: String,
    status: String,
    created_at: i64,
    queued_at: i64,
    expires_at: i64,
    expiry_is_hard: bool,
    awaited: bool,
    retries: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    barred: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deaths: Vec<DeathLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<AttemptLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<EndLine>,
    terms: TermsLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    webhook: Option<WebhookLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency: Option<IdempotencyLine>,
    input: Payload,
    /// Sealed with the server's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secrets: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<Payload>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chunks: Vec<Payload>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeathLine {
    worker: String,
    how: String,
}

/// The attempt that runs, or ran last.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttemptLine {
    worker: String,
    started_at: i64,
    /// Of one that runs: whether the worker is known to work on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begun: Option<bool>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndLine {
    at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    forget_at: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TermsLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    execution_timeout: Option<u64>,
    ttl: u64,
    ttl_given: bool,
    low_priority: bool,
    retries_max: u32,
    poison_after: u32,
    retention: u64,
    retention_sync: u64,
    ttl_expiry_forgets: bool,
    webhook_on_cancel: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookLine {
    url: String,
    host: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdempotencyLine {
    key: String,
    fingerprint: String,
}

impl TermsLine {
    fn of(terms: &Terms) -> Self {
        Self {
            execution_timeout: terms.execution_timeout_ms,
            ttl: terms.ttl_ms,
            ttl_given: terms.ttl_given,
            low_priority: terms.low_priority,
            retries_max: terms.retries_max,
            poison_after: terms.poison_after,
            retention: terms.retention_ms,
            retention_sync: terms.retention_sync_ms,
            ttl_expiry_forgets: terms.ttl_expiry_forgets,
            webhook_on_cancel: terms.webhook_on_cancel,
        }
    }

    fn terms(self) -> Terms {
        Terms {
            execution_timeout_ms: self.execution_timeout,
            ttl_ms: self.ttl,
            ttl_given: self.ttl_given,
            low_priority: self.low_priority,
            retries_max: self.retries_max,
            poison_after: self.poison_after,
            retention_ms: self.retention,
            retention_sync_ms: self.retention_sync,
            ttl_expiry_forgets: self.ttl_expiry_forgets,
            webhook_on_cancel: self.webhook_on_cancel,
        }
    }
}

fn attempt_of(state: &State) -> Option<AttemptLine> {
    let begun = match state {
        State::Running(attempt) => Some(attempt.begun),
        State::Queued
        | State::Completed(_)
        | State::Failed(_)
        | State::Cancelled(_)
        | State::TimedOut(_) => None,
    };
    let (worker, started_at) = state.last_attempt()?;
    Some(AttemptLine {
        worker: worker.to_string(),
        started_at: started_at.as_ms(),
        begun,
    })
}

impl JobLine {
    pub(super) fn of(record: JobRecord) -> Self {
        let NewJob {
            job,
            input,
            webhook,
            secrets,
            idempotency,
        } = record.kept;
        let deaths = job.deaths.iter().map(|death| DeathLine {
            worker: death.worker.to_string(),
            how: death.how.clone(),
        });
        Self {
            seq: record.seq,
            id: job.id.to_string(),
            endpoint: job.endpoint.to_string(),
            status: job.status().as_str().to_owned(),
            created_at: job.created_at.as_ms(),
            queued_at: job.queued_at.as_ms(),
            expires_at: job.expires_at.as_ms(),
            expiry_is_hard: job.expiry_is_hard,
            awaited: job.awaited,
            retries: job.retries,
            barred: job.barred.iter().map(WorkerId::to_string).collect(),
            deaths: deaths.collect(),
            attempt: attempt_of(&job.state),
            end: job.state.end().map(|end| EndLine {
                at: end.at.as_ms(),
                error: end.error.clone(),
                forget_at: end.forget_at.as_ms(),
            }),
            terms: TermsLine::of(&job.terms),
            webhook: webhook.map(|Webhook { url, host }| WebhookLine { url, host }),
            idempotency: idempotency.map(|it| IdempotencyLine {
                key: it.key,
                fingerprint: STANDARD.encode(it.fingerprint),
            }),
            input: Payload::of(&input),
            secrets: secrets.map(|sealed| STANDARD.encode(sealed)),
            output: record.output.as_ref().map(Payload::of),
            chunks: record.chunks.iter().map(Payload::of).collect(),
        }
    }

    pub(super) fn record(self) -> Result<JobRecord> {
        let state = self.state()?;
        let mut barred = Vec::new();
        for worker in &self.barred {
            barred.push(name(worker, "a worker")?);
        }
        let mut deaths = Vec::new();
        for DeathLine { worker, how } in self.deaths {
            let worker = name(&worker, "a worker")?;
            deaths.push(Death { worker, how });
        }
        let mut chunks = Vec::new();
        for chunk in self.chunks {
            chunks.push(chunk.bytes()?);
        }
        let idempotency = match self.idempotency {
            Some(line) => Some(Idempotency {
                fingerprint: hash(&line.fingerprint)?,
                key: line.key,
            }),
            None => None,
        };
        let job = Job {
            id: name(&self.id, "the id")?,
            endpoint: name(&self.endpoint, "the endpoint")?,
            terms: self.terms.terms(),
            has_webhook: self.webhook.is_some(),
            created_at: time(self.created_at),
            queued_at: time(self.queued_at),
            expires_at: time(self.expires_at),
            expiry_is_hard: self.expiry_is_hard,
            awaited: self.awaited,
            retries: self.retries,
            barred,
            deaths,
            state,
        };
        Ok(JobRecord {
            seq: self.seq,
            kept: NewJob {
                job,
                input: self.input.bytes()?,
                webhook: self
                    .webhook
                    .map(|WebhookLine { url, host }| Webhook { url, host }),
                secrets: self.secrets.map(|sealed| binary(&sealed)).transpose()?,
                idempotency,
            },
            output: self.output.map(Payload::bytes).transpose()?,
            chunks,
        })
    }

    fn state(&self) -> Result<State> {
        let attempt = match &self.attempt {
            Some(line) => Some((
                name::<WorkerId>(&line.worker, "the worker")?,
                time(line.started_at),
            )),
            None => None,
        };
        let end = |attempt: Option<(WorkerId, Timestamp)>| -> Result<End> {
            let line = self.end.as_ref().context("it has no end")?;
            Ok(End {
                at: time(line.at),
                attempt,
                error: line.error.clone(),
                forget_at: time(line.forget_at),
            })
        };
        let status = Status::parse(&self.status).context("the status is none")?;
        Ok(match status {
            Status::InQueue => State::Queued,
            Status::InProgress => {
                let (worker, started_at) = attempt.context("it has no attempt")?;
                let begun = self.attempt.as_ref().and_then(|line| line.begun);
                State::Running(Attempt {
                    worker,
                    started_at,
                    lease_until: started_at,
                    begun: begun.context("the attempt does not say whether it has begun")?,
                })
            }
            Status::Completed => State::Completed(end(attempt)?),
            Status::Failed => State::Failed(end(attempt)?),
            Status::Cancelled => State::Cancelled(end(attempt)?),
            Status::TimedOut => State::TimedOut(end(attempt)?),
        })
    }
}
