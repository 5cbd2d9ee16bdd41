//! Records as lines of JSON. Times are milliseconds since 1970 (UTC), durations milliseconds.

use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lazyfox_core::delivery::{State as Sending, Try};
use lazyfox_core::id::{DeliveryId, EndpointId};
use lazyfox_core::job::Counter;
use lazyfox_core::time::Timestamp;
use lazyfox_store::moving::{CountersRecord, DeliveryRecord, EndpointRecord, Record};
use lazyfox_store::{Access, Key, Release, WebhookSecret};
use serde::{Deserialize, Serialize};

use self::job::JobLine;

mod job;

/// A line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Job(Box<JobLine>),
    Delivery(Box<DeliveryLine>),
    Counters(CountersLine),
    Endpoint(EndpointLine),
    WebhookSecret(SecretLine),
    Key(KeyLine),
}

impl Line {
    pub(super) fn of(record: Record) -> Self {
        match record {
            Record::Job(record) => Self::Job(Box::new(JobLine::of(*record))),
            Record::Delivery(record) => Self::Delivery(Box::new(DeliveryLine::of(record))),
            Record::Counters(record) => Self::Counters(CountersLine::of(&record)),
            Record::Endpoint(record) => Self::Endpoint(EndpointLine::of(record)),
            Record::Secret(endpoint, secret) => {
                Self::WebhookSecret(SecretLine::of(&endpoint, secret))
            }
            Record::Key(key) => Self::Key(KeyLine::of(key)),
        }
    }

    pub(super) fn record(self) -> Result<Record> {
        Ok(match self {
            Self::Job(line) => Record::Job(Box::new(line.record()?)),
            Self::Delivery(line) => Record::Delivery(line.record()?),
            Self::Counters(line) => Record::Counters(line.record()?),
            Self::Endpoint(line) => Record::Endpoint(line.record()?),
            Self::WebhookSecret(line) => {
                let (endpoint, secret) = line.record()?;
                Record::Secret(endpoint, secret)
            }
            Self::Key(line) => Record::Key(line.record()?),
        })
    }
}

/// A payload, byte for byte: a text as it is, anything else as base64.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Payload {
    Text(String),
    Bytes { base64: String },
}

impl Payload {
    fn of(bytes: &Bytes) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes {
                base64: STANDARD.encode(bytes),
            },
        }
    }

    fn bytes(self) -> Result<Bytes> {
        Ok(Bytes::from(match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes { base64 } => binary(&base64)?,
        }))
    }
}

fn binary(base64: &str) -> Result<Vec<u8>> {
    STANDARD.decode(base64).context("not base64")
}

fn hash(base64: &str) -> Result<[u8; 32]> {
    let bytes = binary(base64)?;
    bytes.try_into().map_err(|_| anyhow!("not 32 bytes"))
}

/// A name, without its text where it is none.
fn name<T: FromStr>(text: &str, what: &str) -> Result<T> {
    text.parse().map_err(|_| anyhow!("{what} is none"))
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_ms(ms)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeliveryLine {
    number: u64,
    id: String,
    endpoint: String,
    host: String,
    bytes: u64,
    state: String,
    created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_at: Option<i64>,
    tries: u32,
    round: u32,
    keep_until: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    made: Vec<TryLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TryLine {
    number: u32,
    at: i64,
    duration: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl DeliveryLine {
    fn of(record: DeliveryRecord) -> Self {
        let made = record.made.into_iter().map(|(number, made)| TryLine {
            number,
            at: made.at.as_ms(),
            duration: made.duration_ms,
            status: made.status,
            answer: made.answer,
            error: made.error,
        });
        Self {
            number: record.number,
            id: record.id.to_string(),
            endpoint: record.endpoint.to_string(),
            host: record.host,
            bytes: record.bytes,
            state: record.state.as_str().to_owned(),
            created_at: record.created_at.as_ms(),
            due_at: record.due_at.map(Timestamp::as_ms),
            tries: record.tries,
            round: record.round,
            keep_until: record.keep_until.as_ms(),
            made: made.collect(),
        }
    }

    fn record(self) -> Result<DeliveryRecord> {
        let made = self.made.into_iter().map(|line| {
            let made = Try {
                at: time(line.at),
                duration_ms: line.duration,
                status: line.status,
                answer: line.answer,
                error: line.error,
            };
            (line.number, made)
        });
        Ok(DeliveryRecord {
            number: self.number,
            endpoint: name(&self.endpoint, "the endpoint")?,
            id: name::<DeliveryId>(&self.id, "the id")?,
            host: self.host,
            bytes: self.bytes,
            state: Sending::parse(&self.state).context("the state is none")?,
            created_at: time(self.created_at),
            due_at: self.due_at.map(time),
            tries: self.tries,
            round: self.round,
            keep_until: time(self.keep_until),
            made: made.collect(),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CountersLine {
    endpoint: String,
    completed: u64,
    failed: u64,
    cancelled: u64,
    timed_out: u64,
    retried: u64,
}

impl CountersLine {
    fn of(record: &CountersRecord) -> Self {
        let value = |of| {
            let mut all = record.counters.iter();
            all.find(|(counter, _)| *counter == of)
                .map_or(0, |(_, value)| *value)
        };
        Self {
            endpoint: record.endpoint.to_string(),
            completed: value(Counter::Completed),
            failed: value(Counter::Failed),
            cancelled: value(Counter::Cancelled),
            timed_out: value(Counter::TimedOut),
            retried: value(Counter::Retried),
        }
    }

    fn record(self) -> Result<CountersRecord> {
        let counters = [
            (Counter::Completed, self.completed),
            (Counter::Failed, self.failed),
            (Counter::Cancelled, self.cancelled),
            (Counter::TimedOut, self.timed_out),
            (Counter::Retried, self.retried),
        ];
        Ok(CountersRecord {
            endpoint: name(&self.endpoint, "the endpoint")?,
            counters: counters
                .into_iter()
                .filter(|(_, value)| *value > 0)
                .collect(),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointLine {
    endpoint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    release: Option<ReleaseLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settings: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseLine {
    number: u32,
    since: i64,
    fingerprint: String,
}

impl EndpointLine {
    fn of(record: EndpointRecord) -> Self {
        Self {
            endpoint: record.endpoint.to_string(),
            release: record.release.map(|(release, fingerprint)| ReleaseLine {
                number: release.number,
                since: release.since.as_ms(),
                fingerprint: STANDARD.encode(fingerprint),
            }),
            settings: record.settings,
        }
    }

    fn record(self) -> Result<EndpointRecord> {
        let release = match self.release {
            Some(line) => {
                let release = Release {
                    number: line.number,
                    since: time(line.since),
                };
                Some((release, hash(&line.fingerprint)?))
            }
            None => None,
        };
        Ok(EndpointRecord {
            endpoint: name(&self.endpoint, "the endpoint")?,
            release,
            settings: self.settings,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretLine {
    endpoint: String,
    id: String,
    /// Sealed with the server's key.
    sealed: String,
    created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_until: Option<i64>,
}

impl SecretLine {
    fn of(endpoint: &EndpointId, secret: WebhookSecret) -> Self {
        Self {
            endpoint: endpoint.to_string(),
            id: secret.id,
            sealed: STANDARD.encode(secret.sealed),
            created_at: secret.created_at.as_ms(),
            valid_until: secret.valid_until.map(Timestamp::as_ms),
        }
    }

    fn record(self) -> Result<(EndpointId, WebhookSecret)> {
        let secret = WebhookSecret {
            id: self.id,
            sealed: binary(&self.sealed)?,
            created_at: time(self.created_at),
            valid_until: self.valid_until.map(time),
        };
        Ok((name(&self.endpoint, "the endpoint")?, secret))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyLine {
    id: String,
    label: String,
    /// SHA-256 of the key.
    hash: String,
    access: AccessLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoints: Option<Vec<String>>,
    created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked_at: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AccessLine {
    Admin,
    ReadWrite,
    ReadOnly,
}

impl KeyLine {
    fn of(key: Key) -> Self {
        let names = |all: Vec<EndpointId>| all.iter().map(EndpointId::to_string).collect();
        Self {
            id: key.id,
            label: key.label,
            hash: STANDARD.encode(key.hash),
            access: match key.access {
                Access::Admin => AccessLine::Admin,
                Access::ReadWrite => AccessLine::ReadWrite,
                Access::ReadOnly => AccessLine::ReadOnly,
            },
            endpoints: key.endpoints.map(names),
            created_at: key.created_at.as_ms(),
            revoked_at: key.revoked_at.map(Timestamp::as_ms),
        }
    }

    fn record(self) -> Result<Key> {
        let endpoints = self.endpoints.map(|names| {
            let mut endpoints = Vec::new();
            for text in names {
                endpoints.push(name(&text, "the endpoint")?);
            }
            Ok::<_, anyhow::Error>(endpoints)
        });
        Ok(Key {
            id: self.id,
            label: self.label,
            hash: hash(&self.hash)?,
            access: match self.access {
                AccessLine::Admin => Access::Admin,
                AccessLine::ReadWrite => Access::ReadWrite,
                AccessLine::ReadOnly => Access::ReadOnly,
            },
            endpoints: endpoints.transpose()?,
            created_at: time(self.created_at),
            revoked_at: self.revoked_at.map(time),
        })
    }
}
