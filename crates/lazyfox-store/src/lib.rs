//! Lazyfox remembers here: one object-safe [`Store`], shaped by what must be atomic, not by tables.
//!
//! Decisions are core's ([`lazyfox_core::job::apply`]); a store loads, asks core, and writes the new job
//! with everything that follows from it in one commit. Callers never batch, the store does: operations
//! of concurrent callers are committed as a group, and each caller is answered after its commit.

#![deny(clippy::indexing_slicing)]

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use lazyfox_core::id::{DeliveryId, EndpointId, JobId, WorkerId};
use lazyfox_core::job::{Counter, Event, Job, Refused, Status};
use lazyfox_core::limits;
use lazyfox_core::scale::Demand;
use lazyfox_core::time::Timestamp;
use lazyfox_core::traffic::Traffic;

mod charges;
mod deaths;
mod deliveries;
mod engine;
pub mod memory;
pub mod moving;
mod news;
pub mod postgres;
pub mod sqlite;
mod texts;
mod work;
mod workers;

pub use self::charges::{Bid, Charge, Charges, Elsewhere, Holder, Peer, Shared};
pub use self::deliveries::{
    Delivery, DeliveryPage, DeliveryQuery, Due, Outbox, Outgoing, Redelivery, Settlement, Webhook,
    WebhookSecret,
};
pub use self::news::{News, Watched};
pub use self::workers::{Ask, Extra, Handout, Heartbeat, HolderEvent, Leased, Renewed};

/// A store's answer, as a boxed future: nothing next to a disk write, and it keeps the trait object-safe.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Jobs that one call of [`Store::list`] looks at: some 10 ms of reading. Without a bound, asking for a
/// rare status, or for a quiet endpoint beside a busy one, would read all jobs there are.
pub const LIST_VISITS_MAX: usize = 50_000;

/// Jobs that are counted to tell a job's place: some 1 ms. The count would hold up everybody, and nobody who
/// stands behind so many asks for the last digit.
pub const PLACES_COUNTED: usize = 100_000;

/// How long the new lease of a running job is after a restart, by its endpoint. Leases are not kept, and
/// what an endpoint grants is the configuration's to say.
pub type LeaseMs = Box<dyn Fn(&EndpointId) -> u64 + Send>;

fn default_lease() -> LeaseMs {
    Box::new(|_| limits::LEASE_MS)
}

/// Where jobs, payloads, deliveries and keys are kept.
pub trait Store: Send + Sync {
    /// Keeps a new job. The answer comes when it is as safe as the store can make it.
    fn submit(&self, new: NewJob, now: Timestamp) -> Answer<'_, Submitted>;

    /// Whether an operation usually waits for others before it is carried out, so that a worker which is
    /// woken while a job is on its way gets it in the same commit.
    fn gathers(&self) -> bool {
        false
    }

    /// Hands out the oldest waiting jobs of the normal lane, else of the low lane, each as a new attempt, and
    /// as many more as [`Ask::extra`] says. One that cannot be read is passed over; where nothing but such
    /// wait, [`StoreError::Corrupt`] says so.
    fn lease(&self, ask: Ask, now: Timestamp) -> Answer<'_, Leased>;

    /// Lets an event happen to a job. `output` is what came with it, kept if core says so.
    fn apply(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        event: Event,
        output: Option<Bytes>,
        now: Timestamp,
    ) -> Answer<'_, Applied>;

    /// Lets the clock's event happen to the jobs whose deadline is due, at most `limit` of them.
    fn expire(&self, now: Timestamp, limit: usize) -> Answer<'_, Expired>;

    /// Renews the leases that a heartbeat names. Not durable: after a restart every lease is new.
    fn renew(&self, beat: Heartbeat, now: Timestamp) -> Answer<'_, Renewed>;

    /// Lets `event` happen to every job that the worker holds.
    fn apply_to_held(
        &self,
        worker: &WorkerId,
        event: HolderEvent,
        now: Timestamp,
    ) -> Answer<'_, Vec<Change>>;

    /// Keeps chunks of a stream, if the worker holds the job.
    fn append_chunks(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        worker: &WorkerId,
        chunks: Vec<Bytes>,
    ) -> Answer<'_, ChunksKept>;

    /// Takes the oldest chunks off a stream, about `bytes_max` of them.
    fn drain(
        &self,
        endpoint: &EndpointId,
        job: JobId,
        bytes_max: usize,
    ) -> Answer<'_, Option<Drained>>;

    /// Reads a job.
    fn load(&self, endpoint: &EndpointId, job: JobId, parts: Parts) -> Answer<'_, Option<Loaded>>;

    /// Reads a page of an endpoint's jobs, newest first. A page may have fewer jobs than asked for,
    /// even none, and go on all the same: one call looks at [`LIST_VISITS_MAX`] jobs at most, where a store
    /// has all in one order of whatever endpoint.
    fn list(&self, query: Query) -> Answer<'_, Page>;

    /// Lets [`Event::Purge`] or [`Event::Unservable`] happen to the `limit` oldest waiting jobs.
    fn sweep(
        &self,
        endpoint: &EndpointId,
        event: Event,
        limit: usize,
        now: Timestamp,
    ) -> Answer<'_, Vec<Change>>;

    /// Lets [`Event::Purge`] happen to the `limit` oldest waiting jobs that were submitted no later than
    /// `through`, a place as [`Purged::through`] gave it; without one, to any that waits now.
    fn purge(
        &self,
        endpoint: &EndpointId,
        through: Option<u64>,
        limit: usize,
        now: Timestamp,
    ) -> Answer<'_, Purged>;

    /// What waits and runs, on every endpoint that ever had a job.
    fn survey(&self) -> Answer<'_, Vec<Survey>>;

    /// Where a job stands among those that wait; `None` when it does not wait.
    fn place(&self, endpoint: &EndpointId, job: JobId) -> Answer<'_, Option<Place>>;

    /// Deletes ended jobs whose retention is over and whose deliveries are no longer kept, at most `limit`.
    fn prune(&self, now: Timestamp, limit: usize) -> Answer<'_, usize>;

    /// Chooses what is to be sent now, beside the traffic that there is.
    fn outbox(&self, traffic: Traffic, now: Timestamp) -> Answer<'_, Outbox>;

    /// Reads what a delivery sends; `None` when it is not open any more.
    fn outgoing<'a>(&'a self, due: &'a Due, parts: Parts) -> Answer<'a, Option<Outgoing>>;

    /// Keeps tries, and what follows from each where the delivery is as it was when the try began. Gives the
    /// numbers of those that are damaged, of which nothing could be kept.
    fn settle(&self, settlements: Vec<Settlement>) -> Answer<'_, Vec<u64>>;

    /// Reads a page of an endpoint's deliveries, newest first. As with [`Store::list`], a page may be short
    /// and go on all the same.
    fn deliveries(&self, query: DeliveryQuery) -> Answer<'_, DeliveryPage>;

    /// Makes deliveries due once more, whatever became of them, each with a new round of tries.
    fn redeliver(
        &self,
        endpoint: &EndpointId,
        deliveries: Vec<DeliveryId>,
        now: Timestamp,
    ) -> Answer<'_, Vec<Redelivery>>;

    /// What an endpoint's deliveries are signed with, the newest first; those that are over too.
    fn webhook_secrets(&self, endpoint: &EndpointId) -> Answer<'_, Vec<WebhookSecret>>;

    /// Keeps a new secret. The one before is valid until `previous_until` at the longest; there is never
    /// one before that.
    fn add_webhook_secret(
        &self,
        endpoint: &EndpointId,
        secret: WebhookSecret,
        previous_until: Timestamp,
    ) -> Answer<'_, ()>;

    /// Which release of its workers an endpoint is at: the same one for as long as the fingerprint is the
    /// latest one, and else the next, from now on.
    fn release(
        &self,
        endpoint: &EndpointId,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> Answer<'_, Release>;

    /// Keeps a JSON text of an endpoint's settings that were changed while the server ran, in place of the
    /// one before; `None` forgets it.
    fn set_override(&self, endpoint: &EndpointId, settings: Option<String>) -> Answer<'_, ()>;

    /// What was changed and is kept, by endpoint.
    fn overrides(&self) -> Answer<'_, Vec<(EndpointId, String)>>;

    /// Waits for what other servers do, or may have done, to what is watched then. A store that one server
    /// owns never answers. Asked by one caller at a time, again and again.
    fn news<'a>(
        &'a self,
        watched: &'a (dyn Fn() -> Watched + Send + Sync),
        now: &'a (dyn Fn() -> Timestamp + Send + Sync),
    ) -> Answer<'a, News> {
        let _ = (watched, now);
        Box::pin(std::future::pending())
    }

    /// Says that this server is there, and shares out who starts the workers of which endpoint. It keeps
    /// what it is in charge of, and is given what nobody is.
    fn charge(&self, bid: Bid) -> Answer<'_, Charges>;

    /// Notes a worker before it is started. False when this server is not in charge of the endpoint (any
    /// more) in that term: nothing may be started then. Without a term it is one that runs already, and is
    /// noted whoever is in charge.
    fn enlist(
        &self,
        endpoint: &EndpointId,
        worker: &WorkerId,
        term: Option<u64>,
    ) -> Answer<'_, bool>;

    /// Forgets a worker of this server that has ended.
    fn unlist(&self, endpoint: &EndpointId, worker: &WorkerId) -> Answer<'_, ()>;

    /// Gives back what this server is in charge of, and says that it is not there any more.
    fn leave(&self) -> Answer<'_, ()>;

    /// All API keys, revoked ones too, the oldest first.
    fn keys(&self) -> Answer<'_, Vec<Key>>;

    /// Keeps a new API key.
    fn add_key(&self, key: Key) -> Answer<'_, ()>;

    /// Revokes a key; false when there is none of that id.
    fn revoke_key(&self, id: &str, now: Timestamp) -> Answer<'_, bool>;
}

/// A job at its submission, with what is kept beside it.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// The job.
    pub job: Job,
    /// `input` as it came, byte for byte.
    pub input: Bytes,
    /// Where its end is reported.
    pub webhook: Option<Webhook>,
    /// `s3Config`, sealed by the caller: no store ever sees it in the clear.
    pub secrets: Option<Vec<u8>>,
    /// The client's idempotency key.
    pub idempotency: Option<Idempotency>,
}

/// A client's word that two requests are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, unique within the endpoint.
    pub key: String,
    /// A hash of the request: the same key with another request is a mistake.
    pub fingerprint: [u8; 32],
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is kept.
    Accepted {
        /// Whether a worker got it in the same commit. Otherwise somebody may have to be told of it.
        taken: bool,
    },
    /// The same request came before, as this job.
    Known(JobId, Status),
    /// The idempotency key was used for another request.
    Conflict(JobId),
}

/// A job that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub before: Status,
    /// Who held it.
    pub holder: Option<WorkerId>,
    /// What it is.
    pub job: Job,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It changed the job.
    Changed(Change),
    /// It changed nothing; the job is as it was.
    Refused(Refused, Job),
    /// There is no such job.
    Unknown,
}

/// What a round of deadlines came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Jobs that changed.
    pub changes: Vec<Change>,
    /// When the next deadline is; or earlier, where it is not known: nothing is due before.
    pub next: Timestamp,
}

/// What became of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunksKept {
    /// Kept.
    Kept,
    /// The worker does not hold the job.
    NotHolder,
    /// More chunks wait for a reader than a job may have.
    Full,
}

/// Chunks taken off a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// The job's status.
    pub status: Status,
    /// In the order they came.
    pub chunks: Vec<Bytes>,
    /// Whether more are kept.
    pub more: bool,
}

/// What one step of a purge came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purged {
    /// Jobs that changed.
    pub changes: Vec<Change>,
    /// The latest place that the purge reaches, for its next step: what is submitted from now on is not
    /// meant by it.
    pub through: u64,
}

/// Which payloads to read with a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The output.
    pub output: bool,
    /// The input.
    pub input: bool,
}

/// A job as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The job.
    pub job: Job,
    /// Its output, if asked for and there.
    pub output: Option<Bytes>,
    /// Its input, if asked for.
    pub input: Option<Bytes>,
}

/// Which jobs to list.
#[derive(Clone, Debug)]
pub struct Query {
    /// Of this endpoint.
    pub endpoint: EndpointId,
    /// With this status.
    pub status: Option<Status>,
    /// At most so many.
    pub limit: usize,
    /// Older than this place, as [`Page::next`] gave it.
    pub before: Option<u64>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Newest first.
    pub jobs: Vec<Job>,
    /// Where the next page begins, if there may be one.
    pub next: Option<u64>,
}

/// One endpoint's jobs in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Which.
    pub endpoint: EndpointId,
    /// What waits and runs.
    pub demand: Demand,
    /// Who holds how many jobs.
    pub holders: Vec<(WorkerId, usize)>,
    /// Ends and retries over the life of the endpoint.
    pub counters: Vec<(Counter, u64)>,
}

/// Where a waiting job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// How many jobs go out before it.
    pub ahead: u64,
    /// Whether there are more than that: they are counted up to [`PLACES_COUNTED`].
    pub at_least: bool,
    /// Whether it waits in the low lane.
    pub low: bool,
}

/// A release of an endpoint's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The first is 1.
    pub number: u32,
    /// Since when it is the latest one.
    pub since: Timestamp,
}

/// An API key; the key itself is shown once and never kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its public name in lists.
    pub id: String,
    /// What it is for, in its maker's words.
    pub label: String,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
    /// What it may do.
    pub access: Access,
    /// Where; `None` is everywhere.
    pub endpoints: Option<Vec<EndpointId>>,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when, if it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything, on every endpoint.
    Admin,
    /// Submit, read, cancel, retry, purge.
    ReadWrite,
    /// Read.
    ReadOnly,
}

/// Why a store could not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Not now (disk full, I/O error, shutting down): nothing of the operation happened.
    Unavailable(String),
    /// Not now either, and whether the operation happened is not known: its commit was on its way.
    Unknown(String),
    /// What is kept cannot be read.
    Corrupt(String),
    /// The store cannot be opened; the text says what to do.
    Open(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "the store is unavailable: {why}"),
            Self::Unknown(why) => write!(f, "the store gave no answer: {why}"),
            Self::Corrupt(what) => write!(f, "the store is damaged: {what}"),
            Self::Open(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for StoreError {}

impl Survey {
    /// Who holds jobs.
    pub fn workers(&self) -> impl Iterator<Item = WorkerId> {
        self.holders.iter().map(|(worker, _)| worker.clone())
    }
}

impl Applied {
    /// The change, if there was one.
    #[must_use]
    pub fn changed(self) -> Option<Change> {
        match self {
            Self::Changed(change) => Some(change),
            Self::Refused(..) | Self::Unknown => None,
        }
    }
}
