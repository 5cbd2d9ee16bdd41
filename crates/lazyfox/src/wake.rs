//! Wake-ups inside the process: who waits for a job, for work, or for something to do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lazyfox_core::id::{EndpointId, JobId};
use lazyfox_store::Loaded;
use tokio::sync::{Notify, watch};

/// All of them.
#[derive(Default)]
pub struct Wakes {
    jobs: Mutex<HashMap<JobId, Watchers>>,
    queues: Mutex<HashMap<EndpointId, Arc<Notify>>>,
    /// Demand or the fleet changed.
    pub scale: Notify,
    /// This server may be in charge of something else now, or does not want to be.
    pub charge: Notify,
    /// A deadline may have come nearer.
    pub deadlines: Notify,
    /// A delivery is due.
    pub outbox: Notify,
}

/// The job as it ended, where that is known without a look at the store.
type Ended = Option<Arc<Loaded>>;

/// Those who wait for one job.
struct Watchers {
    endpoint: EndpointId,
    changes: watch::Sender<Ended>,
}

/// A wait for changes of one job. Whatever happens after it was made is not missed.
pub struct JobWatch<'a> {
    wakes: &'a Wakes,
    job: JobId,
    changes: watch::Receiver<Ended>,
}

impl Wakes {
    /// Begins to watch a job.
    pub fn watch(&self, endpoint: &EndpointId, job: JobId) -> JobWatch<'_> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let watchers = jobs.entry(job).or_insert_with(|| Watchers {
            endpoint: endpoint.clone(),
            changes: watch::Sender::new(None),
        });
        let changes = watchers.changes.subscribe();
        JobWatch {
            wakes: self,
            job,
            changes,
        }
    }

    /// Tells those who watch the job that it changed.
    pub fn job(&self, job: JobId) {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watchers) = jobs.get(&job) {
            watchers.changes.send_replace(None);
        }
    }

    /// Gives those who watch a job what it came to, if there are any.
    pub fn ended(&self, job: JobId, ended: impl FnOnce() -> Loaded) {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watchers) = jobs.get(&job) {
            watchers.changes.send_replace(Some(Arc::new(ended())));
        }
    }

    /// The jobs that somebody watches.
    #[must_use]
    pub fn watched(&self) -> Vec<(EndpointId, JobId)> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter()
            .map(|(job, watchers)| (watchers.endpoint.clone(), *job))
            .collect()
    }

    /// The endpoints on which somebody polled.
    #[must_use]
    pub fn queues(&self) -> Vec<EndpointId> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.keys().cloned().collect()
    }

    /// Tells everybody, who then looks.
    pub fn all(&self) {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        for watchers in jobs.values() {
            watchers.changes.send_replace(None);
        }
        drop(jobs);
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for queue in queues.values() {
            queue.notify_waiters();
        }
        drop(queues);
        self.scale.notify_one();
        self.deadlines.notify_one();
        self.outbox.notify_one();
    }

    /// How many callers wait for a job.
    #[must_use]
    pub fn watchers(&self, job: JobId) -> usize {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.get(&job)
            .map_or(0, |watchers| watchers.changes.receiver_count())
    }

    /// Where the polls of an endpoint wait for work. `notify_one` for a new job wakes one of them;
    /// when it is gone by then, the wake-up passes on.
    pub fn queue(&self, endpoint: &EndpointId) -> Arc<Notify> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        match queues.get(endpoint) {
            Some(queue) => Arc::clone(queue),
            None => Arc::clone(queues.entry(endpoint.clone()).or_default()),
        }
    }
}

impl JobWatch<'_> {
    /// Returns when the job changed since this was called last, or since the watch began; with the job as
    /// it ended, where that was told.
    pub async fn changed(&mut self) -> Option<Arc<Loaded>> {
        // The sender stays in the map as long as this receiver lives.
        let _ = self.changes.changed().await;
        self.changes.borrow_and_update().clone()
    }
}

impl Drop for JobWatch<'_> {
    fn drop(&mut self) {
        let mut jobs = self
            .wakes
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // One receiver is this one.
        if jobs
            .get(&self.job)
            .is_some_and(|watchers| watchers.changes.receiver_count() <= 1)
        {
            jobs.remove(&self.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use lazyfox_core::time::Timestamp;

    use super::*;

    #[test]
    fn a_job_that_nobody_watches_any_more_takes_no_room() {
        let wakes = Wakes::default();
        let job = JobId::new(Timestamp::from_ms(1), [1; 16], false);
        let endpoint = "ep".parse().unwrap();
        let (first, second) = (wakes.watch(&endpoint, job), wakes.watch(&endpoint, job));
        assert_eq!(wakes.watchers(job), 2);
        drop(first);
        assert_eq!(wakes.watchers(job), 1);
        drop(second);
        assert!(wakes.jobs.lock().unwrap().is_empty());
    }
}
