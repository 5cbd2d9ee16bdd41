//! What is asked and answered about deliveries.

use std::ops::Range;
use std::sync::Arc;

use lazyfox_core::delivery::{Next, State, Try};
use lazyfox_core::id::{DeliveryId, EndpointId, JobId};
use lazyfox_core::time::Timestamp;

use crate::Loaded;

/// Where a job's end is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The URL as the client gave it.
    pub url: String,
    /// Host and port, in one spelling: what deliveries are bounded by.
    pub host: String,
}

/// What is to be sent now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    /// In the order in which to send them.
    pub due: Vec<Due>,
    /// Due for longer than a delivery waits for a host that does not answer.
    pub held: Vec<Due>,
    /// When to look again; what waits for a place is not counted in.
    pub next: Timestamp,
}

/// A delivery that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// What the store calls it.
    pub number: u64,
    /// Whose it is.
    pub endpoint: EndpointId,
    /// Where it goes.
    pub host: Arc<str>,
    /// Bytes of what it carries, input and output.
    pub bytes: u64,
    /// Since when it is due.
    pub due_at: Timestamp,
}

/// A delivery with all that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its name, the same over its tries.
    pub id: DeliveryId,
    /// Where to.
    pub url: String,
    /// Tries made in this round so far.
    pub round: u32,
    /// The job as it ended.
    pub loaded: Loaded,
}

/// A try, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The delivery, as it was due for this try.
    pub due: Due,
    /// Tries that were made in the round before this one. When it is no longer so, a new round has begun
    /// meanwhile: the try is kept, and nothing follows from it.
    pub round: u32,
    /// The try.
    pub made: Try,
    /// What follows.
    pub next: Next,
    /// How long the delivery is kept then.
    pub keep_until: Timestamp,
}

/// A delivery as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its name.
    pub id: DeliveryId,
    /// Where it is in its life.
    pub state: State,
    /// Where it goes.
    pub webhook: Webhook,
    /// Bytes of what it carries.
    pub bytes: u64,
    /// When the job ended.
    pub created_at: Timestamp,
    /// When the next try is due, if one is.
    pub due_at: Option<Timestamp>,
    /// All tries, the first one first.
    pub tries: Vec<Try>,
}

/// Which deliveries to list.
#[derive(Clone, Debug)]
pub struct DeliveryQuery {
    /// Of this endpoint.
    pub endpoint: EndpointId,
    /// Of this job.
    pub job: Option<JobId>,
    /// In this state.
    pub state: Option<State>,
    /// Of jobs that ended in this time.
    pub created: Range<Timestamp>,
    /// At most so many.
    pub limit: usize,
    /// Older than this place, as [`DeliveryPage::next`] gave it.
    pub before: Option<u64>,
}

/// A page of deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryPage {
    /// Newest first.
    pub deliveries: Vec<Delivery>,
    /// Where the next page begins, if there may be one.
    pub next: Option<u64>,
}

/// What became of the wish to send a delivery again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redelivery {
    /// It is due now, and a new round begins.
    Due,
    /// There is no such delivery.
    Unknown,
    /// The end that it reported is none any more: the job was retried.
    Outdated,
}

/// What an endpoint's deliveries are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSecret {
    /// Its name in lists.
    pub id: String,
    /// Sealed by the caller: no store ever sees it in the clear.
    pub sealed: Vec<u8>,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when; `None` for the newest.
    pub valid_until: Option<Timestamp>,
}

impl DeliveryQuery {
    /// All deliveries of an endpoint.
    #[must_use]
    pub fn of(endpoint: EndpointId) -> Self {
        Self {
            endpoint,
            job: None,
            state: None,
            created: Timestamp::from_ms(i64::MIN)..Timestamp::NEVER,
            limit: usize::MAX,
            before: None,
        }
    }
}
