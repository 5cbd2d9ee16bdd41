//! What workers ask for and say, and what they get.

use bytes::Bytes;
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::job::Job;
use lazyfox_core::time::Timestamp;

use crate::Change;

/// A worker's poll.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Whose jobs.
    pub endpoint: EndpointId,
    /// Who asks.
    pub worker: WorkerId,
    /// How many it can take.
    pub count: usize,
    /// What it gets beyond that.
    pub extra: Extra,
    /// Length of each lease.
    pub lease_ms: u64,
    /// The worker says that it works on nothing: what it took before this time is lost.
    pub disowns_before: Option<Timestamp>,
}

/// Jobs that go out beyond what a worker asked for, to wait inside it until those before them are done. They
/// are of the lane of the last one that it asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// At most so many, and none where not even what was asked for is there.
    pub count: usize,
    /// The first in line that may be ended before this time, while it waits there, stays where it is, and so
    /// does what is behind it.
    pub not_expiring_before: Timestamp,
}

impl Ask {
    /// The most that go out.
    pub(crate) fn most(&self) -> usize {
        match self.count {
            // Somebody has to begin.
            0 => 0,
            count => count.saturating_add(self.extra.count),
        }
    }
}

/// What a poll came to.
#[derive(Clone, Debug, Default)]
pub struct Leased {
    /// Jobs for the worker.
    pub handouts: Vec<Handout>,
    /// Jobs it had and disowned.
    pub lost: Vec<Change>,
}

/// A job on its way to a worker.
#[derive(Clone, Debug)]
pub struct Handout {
    /// The job, running.
    pub job: Job,
    /// Its input.
    pub input: Bytes,
    /// Its sealed `s3Config`.
    pub secrets: Option<Vec<u8>>,
}

/// A heartbeat.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Who.
    pub worker: WorkerId,
    /// Whose jobs it works on, as it says.
    pub endpoint: EndpointId,
    /// The jobs it names; `None` where its version cannot be trusted to name all of them, and
    /// then every lease of the worker is renewed. Those that wait inside the worker are named by none, and
    /// are renewed with any that is.
    pub jobs: Option<Vec<JobId>>,
    /// Length of the leases from now.
    pub lease_ms: u64,
}

/// What a heartbeat came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Named jobs that the worker does not hold (any more): it should stop them.
    pub not_held: Vec<JobId>,
    /// Named jobs that waited inside the worker, in order of submission: it has begun with them, or
    /// will next. Nothing is written yet, that is for
    /// [`Event::Begin`](lazyfox_core::job::Event::Begin).
    pub begun: Vec<JobId>,
    /// Whether the worker holds any job.
    pub holds: bool,
}

/// What can happen to all jobs of a worker at once.
#[derive(Clone, Debug)]
pub enum HolderEvent {
    /// The worker is gone, or lost touch.
    Lost {
        /// What is known of it, as a fragment of a sentence.
        how: String,
        /// Whether its process or container ended, and not by the server's hand.
        died: bool,
        /// Jobs known to have begun although that was not written. Where none of the worker's jobs has begun,
        /// by this or by what was written, the one that it had first counts as begun: somebody must be to
        /// blame, or it would go round for ever.
        begun: Vec<JobId>,
    },
    /// The server stops it for another job's sake.
    Evict,
}
