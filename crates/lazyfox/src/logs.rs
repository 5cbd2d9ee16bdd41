//! What workers say and what becomes of them, kept for each endpoint, from the first byte on and beyond the
//! worker's end and the server's.
//!
//! Whoever has a line appends it to a `queue` and goes on. One thread writes what has gathered, in the
//! order of its coming (`writer`, `segments`). A line has a number that is never used twice, and the
//! files are in the order of the numbers; so everybody who reads, a follower too, is a place in the files
//! and nothing else (`reader`): no line can be lost or doubled between what was and what comes, and a
//! slow reader costs no memory.

mod jobs;
mod queue;
mod reader;
mod record;
pub(crate) mod sdk;
mod segments;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::time::Timestamp;
use tokio::sync::{Semaphore, oneshot, watch};

pub(crate) use self::jobs::Jobs;
use self::queue::Queue;
pub use self::reader::{Begin, Filter, Most, Page, Reader, Write};
pub use self::record::Record;
pub(crate) use self::record::{source, word};
use crate::clock::Clock;
use crate::providers::{Output, Source};

/// Those who may follow an endpoint's log at once.
pub const FOLLOWERS_MAX: usize = 64;

/// Files read at once: reading is short, and many readers shall not take the machine from the jobs.
const READS_AT_ONCE: usize = 4;

/// A line before it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was seen.
    pub at: Timestamp,
    /// In whose log it stands.
    pub endpoint: EndpointId,
    /// Who says it, or of whom it is said.
    pub worker: WorkerId,
    /// The job that it is about, if that is known.
    pub job: Option<JobId>,
    /// Who says it.
    pub source: Source,
    /// The line. A text of several lines becomes several.
    pub text: String,
}

/// The logs of all endpoints.
pub struct Logs {
    queue: Arc<Queue>,
    clock: Clock,
    /// What workers work on, by what they say.
    jobs: Mutex<Jobs>,
    followers: Arc<Followers>,
    reads: Arc<Semaphore>,
    /// True when the writer has written its last.
    ended: watch::Receiver<bool>,
}

impl Logs {
    /// Keeps at most `bytes_max` of each endpoint in a directory of its own below `dir`. Nothing is made
    /// there before there is a line.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn open(dir: &Path, bytes_max: u64, clock: Clock) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        let (ending, ended) = watch::channel(false);
        let (taking, dir) = (Arc::clone(&queue), dir.to_owned());
        std::thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || {
                writer::write(&taking, &dir, bytes_max);
                ending.send_replace(true);
            })
            .context("cannot start the thread that keeps the logs of workers")?;
        Ok(Self::on(queue, ended, clock))
    }

    /// Keeps nothing: for parts of a server without a whole one.
    #[must_use]
    pub fn none(clock: Clock) -> Self {
        Self::on(Arc::new(Queue::closed()), watch::channel(true).1, clock)
    }

    fn on(queue: Arc<Queue>, ended: watch::Receiver<bool>, clock: Clock) -> Self {
        Self {
            queue,
            clock,
            jobs: Mutex::default(),
            followers: Arc::default(),
            reads: Arc::new(Semaphore::new(READS_AT_ONCE)),
            ended,
        }
    }

    /// Keeps a line. Returns at once; when lines come faster than the disk takes them, some are left out,
    /// and a line says how many.
    pub fn append(&self, line: Line) {
        self.queue.append(line);
    }

    /// Keeps what a worker or its provider says, and finds out for which job.
    pub fn say(&self, endpoint: &EndpointId, worker: &WorkerId, source: Source, text: &str) {
        let job = match source {
            Source::Worker => self.jobs().job_of(worker, text),
            Source::System => None,
        };
        self.append(Line {
            at: self.clock.now(),
            endpoint: endpoint.clone(),
            worker: worker.clone(),
            job,
            source,
            text: text.to_owned(),
        });
    }

    /// Keeps what this server does with a worker: a fragment of a sentence.
    pub fn system(&self, endpoint: &EndpointId, worker: &WorkerId, text: &str) {
        self.say(endpoint, worker, Source::System, text);
    }

    /// Keeps how a worker ended; it will say nothing more.
    pub fn ended(&self, endpoint: &EndpointId, worker: &WorkerId, how: &str) {
        self.jobs().forget(worker);
        self.system(endpoint, worker, how);
    }

    /// Begins to read an endpoint's log, with everything that was appended before. `None` when nothing is
    /// kept any more, because the server is being stopped.
    pub async fn read(&self, endpoint: &EndpointId, filter: Filter) -> Option<Reader> {
        let (answer, opened) = oneshot::channel();
        self.queue.request(endpoint.clone(), answer);
        let (dir, heads) = opened.await.ok()?;
        Some(Reader::new(dir, heads, filter, Arc::clone(&self.reads)))
    }

    /// A place among those who follow an endpoint's log; `None` when [`FOLLOWERS_MAX`] do.
    #[must_use]
    pub fn follow(&self, endpoint: &EndpointId) -> Option<Place> {
        let mut followers = self.followers.lock();
        let count = followers.entry(endpoint.clone()).or_default();
        if *count == FOLLOWERS_MAX {
            return None;
        }
        *count += 1;
        Some(Place {
            followers: Arc::clone(&self.followers),
            endpoint: endpoint.clone(),
        })
    }

    /// Returns when everything that was appended is written. Nothing is kept from then on, and readers
    /// come to an end.
    pub async fn close(&self) {
        self.queue.close();
        // Its sender says so as the last thing it does.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// How many follow which endpoint.
#[derive(Default)]
struct Followers(Mutex<HashMap<EndpointId, usize>>);

impl Followers {
    fn lock(&self) -> MutexGuard<'_, HashMap<EndpointId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of those who follow an endpoint's log, until it is dropped.
pub struct Place {
    followers: Arc<Followers>,
    endpoint: EndpointId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut followers = self.followers.lock();
        if let Some(count) = followers.get_mut(&self.endpoint) {
            *count -= 1;
            if *count == 0 {
                followers.remove(&self.endpoint);
            }
        }
    }
}

/// Hands on what workers say, and keeps it.
pub struct Kept {
    /// Where it is kept.
    pub logs: Arc<Logs>,
    /// Where it goes as well.
    pub on: Arc<dyn Output>,
}

impl Output for Kept {
    fn line(&self, endpoint: &EndpointId, worker: &WorkerId, source: Source, line: &str) {
        self.on.line(endpoint, worker, source, line);
        self.logs.say(endpoint, worker, source, line);
    }

    fn runs(&self, worker: &WorkerId) {
        self.on.runs(worker);
    }
}
