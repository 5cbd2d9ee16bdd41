//! What one of several servers gets to know of what the others do.

use lazyfox_core::id::{EndpointId, JobId};

/// What somebody on this server waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// These jobs to end, or to stream.
    pub jobs: Vec<(EndpointId, JobId)>,
    /// These endpoints to have a job that waits.
    pub queues: Vec<EndpointId>,
    /// Whether anybody waits for any of it at this moment.
    pub someone: bool,
}

/// What others did, as far as it matters to those who wait. More may be named than happened, and a server
/// looks before it believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Jobs that ended, wait again, or stream.
    pub jobs: Vec<(EndpointId, JobId)>,
    /// Endpoints on which jobs wait, and how many came; [`News::ANY`] where that is not known.
    pub queues: Vec<(EndpointId, u64)>,
    /// Whether a deadline is due.
    pub deadlines: bool,
    /// Whether a delivery may be due.
    pub deliveries: bool,
    /// Whether settings were changed.
    pub settings: bool,
    /// Whether anything may have happened that nobody told.
    pub missed: bool,
}

impl News {
    /// Some jobs, nobody knows how many.
    pub const ANY: u64 = u64::MAX;

    /// Adds more.
    pub fn and(&mut self, more: Self) {
        self.jobs.extend(more.jobs);
        self.queues.extend(more.queues);
        self.deadlines |= more.deadlines;
        self.deliveries |= more.deliveries;
        self.settings |= more.settings;
        self.missed |= more.missed;
    }
}
