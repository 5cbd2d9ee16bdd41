//! The jobs that this worker works on: what heartbeats name, and what can be stopped.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

/// How many jobs are remembered that were to be stopped before they came.
const EARLY_STOPS: usize = 100;

/// All jobs at hand. A job whose result is not handed in yet is one of them.
#[derive(Default)]
pub(super) struct Held {
    state: Mutex<State>,
    /// A job that was to be stopped is at hand no longer: the server wants to hear of that soon.
    pub(super) let_go: Notify,
}

#[derive(Default)]
struct State {
    jobs: HashMap<String, watch::Sender<bool>>,
    /// Said to be over, once, and not at hand: the words came over another connection than the job,
    /// and may have been faster. No job comes to a worker twice.
    early_stops: VecDeque<String>,
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in hand; `None` when it is already.
    pub(super) fn begin(self: &Arc<Self>, job: &str) -> Option<Hold> {
        let mut state = self.state();
        if state.jobs.contains_key(job) {
            return None;
        }
        let is_over = state.early_stops.iter().any(|early| early == job);
        let (asked, stop) = watch::channel(is_over);
        state.jobs.insert(job.to_owned(), asked);
        Some(Hold {
            held: Arc::clone(self),
            job: job.to_owned(),
            stop: Stop(stop),
        })
    }

    /// Has a job stopped.
    pub(super) fn stop(&self, job: &str) {
        let mut state = self.state();
        if let Some(asked) = state.jobs.get(job) {
            asked.send_replace(true);
            return;
        }
        if state.early_stops.len() == EARLY_STOPS {
            state.early_stops.pop_front();
        }
        state.early_stops.push_back(job.to_owned());
    }

    pub(super) fn stop_all(&self) {
        for asked in self.state().jobs.values() {
            asked.send_replace(true);
        }
    }

    /// Their names.
    pub(super) fn names(&self) -> Vec<String> {
        self.state().jobs.keys().cloned().collect()
    }
}

/// One job in hand, until it is dropped.
pub(super) struct Hold {
    held: Arc<Held>,
    job: String,
    pub(super) stop: Stop,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.state().jobs.remove(&self.job);
        if *self.stop.0.borrow() {
            self.held.let_go.notify_one();
        }
    }
}

/// Tells when a job shall be stopped.
#[derive(Clone)]
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns when it shall, also if that was said before.
    pub(super) async fn asked(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            // Who could ask is gone.
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_are_named_until_they_are_let_go() {
        let held = Arc::new(Held::default());
        let mut first = held.begin("a").unwrap();
        let second = held.begin("b").unwrap();
        assert!(held.begin("a").is_none());
        held.stop("a");
        first.stop.asked().await;
        assert_eq!(held.names().len(), 2);
        drop(first);
        assert_eq!(held.names(), ["b"]);
        held.let_go.notified().await;
        drop(second);
        assert_eq!(held.names(), [""; 0]);
        assert!(held.begin("a").is_some());
    }

    #[tokio::test]
    async fn a_job_that_is_over_before_it_comes_is_stopped_at_once() {
        let held = Arc::new(Held::default());
        for n in 0..=EARLY_STOPS {
            held.stop(&n.to_string());
        }
        let mut last = held.begin(&EARLY_STOPS.to_string()).unwrap();
        last.stop.asked().await;
        let forgotten = held.begin("0").unwrap();
        assert!(!*forgotten.stop.0.borrow());
    }
}
