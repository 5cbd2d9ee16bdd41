//! Everything that a store holds, record by record, to be carried into another one.
//!
//! Records of a store always come in the same order and say the same, whatever keeps them: what differs from
//! store to store by its nature (leases, claims of deliveries) is no part of them. So what was carried can be
//! read back and compared.

use bytes::Bytes;
use lazyfox_core::delivery::{State as Sending, Try};
use lazyfox_core::id::{DeliveryId, EndpointId};
use lazyfox_core::job::{Counter, Job, State};
use lazyfox_core::time::Timestamp;

use crate::{Key, NewJob, Release, StoreError, WebhookSecret};

/// One thing that is kept. A store's records come in the order of these.
#[derive(Clone, Debug)]
pub enum Record {
    /// A job with its payloads, in the order of submission.
    Job(Box<JobRecord>),
    /// A webhook to be delivered, in the order in which jobs ended.
    Delivery(DeliveryRecord),
    /// What is counted over the life of an endpoint.
    Counters(CountersRecord),
    /// What is known of an endpoint beside its jobs.
    Endpoint(EndpointRecord),
    /// What an endpoint's deliveries are signed with.
    Secret(EndpointId, WebhookSecret),
    /// An API key.
    Key(Key),
}

/// A job as it is kept.
#[derive(Clone, Debug)]
pub struct JobRecord {
    /// Its place in the order of submission.
    pub seq: u64,
    /// The job as it is now, with what came with its submission; secrets as far as they are not wiped.
    pub kept: NewJob,
    /// Its output.
    pub output: Option<Bytes>,
    /// Chunks of its stream that no reader has taken yet.
    pub chunks: Vec<Bytes>,
}

/// A delivery as it is kept.
#[derive(Clone, Debug)]
pub struct DeliveryRecord {
    /// Its place in the order in which jobs ended.
    pub number: u64,
    /// Whose it is.
    pub endpoint: EndpointId,
    /// Its name.
    pub id: DeliveryId,
    /// Where it goes.
    pub host: String,
    /// Bytes of what it carries.
    pub bytes: u64,
    /// Where it is in its life.
    pub state: Sending,
    /// When the job ended.
    pub created_at: Timestamp,
    /// When the next try is due, if one is.
    pub due_at: Option<Timestamp>,
    /// How many tries there were.
    pub tries: u32,
    /// Those of the present round.
    pub round: u32,
    /// How long it is kept.
    pub keep_until: Timestamp,
    /// The tries that are kept, with their numbers.
    pub made: Vec<(u32, Try)>,
}

/// What is counted over the life of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountersRecord {
    /// Which.
    pub endpoint: EndpointId,
    /// What is not zero.
    pub counters: Vec<(Counter, u64)>,
}

/// What is known of an endpoint beside its jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRecord {
    /// Which.
    pub endpoint: EndpointId,
    /// The latest release of its workers, and its fingerprint.
    pub release: Option<(Release, [u8; 32])>,
    /// A JSON text of the settings that were changed while a server ran.
    pub settings: Option<String>,
}

/// Whoever brings records to an empty store, and looks at what has become of them there.
pub trait Carrier<E: From<StoreError>> {
    /// The next record to be kept.
    ///
    /// # Errors
    /// Then nothing of all is kept.
    fn next(&mut self) -> Result<Option<Record>, E>;

    /// A record as it is read back, when all are written and before they are committed.
    ///
    /// # Errors
    /// Then nothing of all is kept.
    fn read_back(&mut self, record: Record) -> Result<(), E>;

    /// Whether all came back; the commit follows.
    ///
    /// # Errors
    /// Then nothing of all is kept.
    fn confirm(&mut self) -> Result<(), E>;
}

/// What a store holds, counted by what it is, without what there is none of.
pub(crate) type Contents = Vec<(&'static str, u64)>;

/// Why nothing can be carried into a store that holds something.
pub(crate) fn refusal(place: &str, contents: &Contents) -> Option<StoreError> {
    let counted = contents.iter().filter(|(_, count)| *count > 0);
    let parts: Vec<String> = counted
        .map(|(of, count)| format!("{of}: {count}"))
        .collect();
    (!parts.is_empty()).then(|| {
        StoreError::Open(format!(
            "the store {place} is not empty ({}); an import goes into a new one, which no server has \
             used yet",
            parts.join(", ")
        ))
    })
}

/// The counters in the order of records, without those that are zero.
pub(crate) fn counted(of: [u64; 5]) -> Vec<(Counter, u64)> {
    let counters = [
        Counter::Completed,
        Counter::Failed,
        Counter::Cancelled,
        Counter::TimedOut,
        Counter::Retried,
    ];
    let pairs = counters.into_iter().zip(of);
    pairs.filter(|(_, value)| *value > 0).collect()
}

/// One spelling of texts: not every store can tell these two characters apart.
pub(crate) fn spelled(text: String) -> String {
    if text.contains('\u{ffff}') {
        text.replace('\u{ffff}', "\0")
    } else {
        text
    }
}

/// A job without what only means something to the server that has it.
pub(crate) fn canonical(mut job: Job) -> Job {
    for death in &mut job.deaths {
        death.how = spelled(std::mem::take(&mut death.how));
    }
    match &mut job.state {
        // No /runsync caller is carried along.
        State::Queued => job.awaited = false,
        State::Running(attempt) => {
            job.awaited = false;
            attempt.lease_until = attempt.started_at;
        }
        State::Completed(end)
        | State::Failed(end)
        | State::Cancelled(end)
        | State::TimedOut(end) => end.error = end.error.take().map(spelled),
    }
    job
}
