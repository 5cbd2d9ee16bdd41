//! Whose line it is that a handler prints.
//!
//! It is told from the log itself and not from what the server knows of the worker: the log is read up to a
//! tenth of a second after it was written, and by then a short job is over and another one has begun. What
//! the SDK says first and last of each job stands among the lines in the right places.

use std::collections::{BTreeSet, HashMap};

use lazyfox_core::id::{JobId, WorkerId};

use super::sdk::Said;

/// Jobs that one worker can be said to work on: as many as it can be given at once, and a bound for one
/// that says anything.
const JOBS_MAX: usize = 2_000;

/// What workers say that they work on.
#[derive(Default)]
pub(crate) struct Jobs(HashMap<WorkerId, BTreeSet<JobId>>);

impl Jobs {
    /// The job of a worker's next line: the one that it names, or else the only one that the worker works
    /// on. Where there are several it is nobody's.
    pub(crate) fn job_of(&mut self, worker: &WorkerId, line: &str) -> Option<JobId> {
        let Some(said) = Said::parse(line) else {
            // The generic worker has the job in front of what a command says.
            let named = line.split_once(": ").map(|(name, _)| name.parse());
            if let Some(Ok(job)) = named {
                return Some(job);
            }
            let jobs = self.0.get(worker)?;
            return jobs.first().copied().filter(|_| jobs.len() == 1);
        };
        let job: JobId = said.job?.parse().ok()?;
        match &*said.message {
            "Started." => {
                let jobs = self.0.entry(worker.clone()).or_default();
                if jobs.len() < JOBS_MAX {
                    jobs.insert(job);
                }
            }
            "Finished." => {
                if let Some(jobs) = self.0.get_mut(worker) {
                    jobs.remove(&job);
                    if jobs.is_empty() {
                        self.0.remove(worker);
                    }
                }
            }
            _ => {}
        }
        Some(job)
    }

    /// The worker has ended.
    pub(crate) fn forget(&mut self, worker: &WorkerId) {
        self.0.remove(worker);
    }
}

#[cfg(test)]
mod tests {
    use lazyfox_core::time::Timestamp;

    use super::*;

    fn job(n: u8) -> JobId {
        JobId::new(Timestamp::from_ms(1), [n; 16], false)
    }

    fn sdk(job: JobId, message: &str) -> String {
        format!("{{\"requestId\": \"{job}\", \"message\": \"{message}\", \"level\": \"INFO\"}}")
    }

    #[test]
    fn what_the_generic_worker_passes_on_is_of_the_job_in_front() {
        let mut jobs = Jobs::default();
        let worker: WorkerId = "wk1".parse().unwrap();
        let line = format!("{}: half done: yes", job(1));
        assert_eq!(jobs.job_of(&worker, &line), Some(job(1)));
        assert_eq!(jobs.job_of(&worker, "nothing: of it"), None);
    }

    #[test]
    fn what_a_handler_prints_is_its_jobs_where_only_one_runs() {
        let mut jobs = Jobs::default();
        let [worker, other]: [WorkerId; 2] = ["wk1", "wk2"].map(|name| name.parse().unwrap());
        assert_eq!(jobs.job_of(&worker, "plain"), None);
        assert_eq!(jobs.job_of(&worker, &sdk(job(1), "Started.")), Some(job(1)));
        assert_eq!(jobs.job_of(&worker, "plain"), Some(job(1)));
        assert_eq!(jobs.job_of(&other, "plain"), None);
        // A line of the SDK without a job is of none, though one runs.
        let none = r#"{"requestId": null, "message": "up", "level": "DEBUG"}"#;
        assert_eq!(jobs.job_of(&worker, none), None);
        jobs.job_of(&worker, &sdk(job(2), "Started."));
        assert_eq!(jobs.job_of(&worker, "plain"), None);
        assert_eq!(jobs.job_of(&worker, &sdk(job(2), "at work")), Some(job(2)));
        assert_eq!(
            jobs.job_of(&worker, &sdk(job(1), "Finished.")),
            Some(job(1))
        );
        assert_eq!(jobs.job_of(&worker, "plain"), Some(job(2)));
        jobs.job_of(&worker, &sdk(job(2), "Finished."));
        assert_eq!(jobs.job_of(&worker, "plain"), None);
        assert!(jobs.0.is_empty());
    }

    #[test]
    fn a_worker_that_died_or_talks_nonsense_takes_no_room() {
        let mut jobs = Jobs::default();
        let worker: WorkerId = "wk1".parse().unwrap();
        for n in 0..=JOBS_MAX {
            let id = JobId::new(
                Timestamp::from_ms(i64::try_from(n).unwrap()),
                [1; 16],
                false,
            );
            jobs.job_of(&worker, &sdk(id, "Started."));
        }
        assert_eq!(jobs.0[&worker].len(), JOBS_MAX);
        let nonsense = r#"{"requestId": "x", "message": "Started.", "level": "INFO"}"#;
        assert_eq!(jobs.job_of(&worker, nonsense), None);
        jobs.forget(&worker);
        assert!(jobs.0.is_empty());
    }
}
