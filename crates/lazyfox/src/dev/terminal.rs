//! Workers' output on a terminal: who said it, and for which job.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use lazyfox_core::id::{EndpointId, WorkerId};
use serde::Deserialize;

use crate::providers::{Output, Source};

/// Prints to standard error, so that `--send` leaves standard output to the result.
#[derive(Default)]
pub(super) struct Terminal {
    /// What each worker says that it works on.
    jobs: Mutex<HashMap<WorkerId, BTreeSet<String>>>,
}

/// The SDK's own log lines, as it writes them inside a worker.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "requestId")]
    job: Option<&'a str>,
    message: Cow<'a, str>,
    level: &'a str,
}

impl Output for Terminal {
    fn line(&self, _: &EndpointId, worker: &WorkerId, _: Source, line: &str) {
        // A terminal that was closed takes nothing, and that must not keep the server from ending.
        let _ = writeln!(std::io::stderr(), "{}", self.marked(worker, line));
    }
}

impl Terminal {
    fn marked(&self, worker: &WorkerId, line: &str) -> String {
        let Ok(Line {
            job,
            message,
            level,
        }) = serde_json::from_str(line)
        else {
            return match self.only_job(worker) {
                Some(job) => format!("{worker} {job} {line}"),
                None => format!("{worker} {line}"),
            };
        };
        let Some(job) = job else {
            return format!("{worker} {level:5} {message}");
        };
        self.note(worker, job, &message);
        format!("{worker} {job} {level:5} {message}")
    }

    /// What every SDK version says first and last of a job.
    fn note(&self, worker: &WorkerId, job: &str, message: &str) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            "Started." => {
                jobs.entry(worker.clone())
                    .or_default()
                    .insert(job.to_owned());
            }
            "Finished." => {
                if let Some(of_worker) = jobs.get_mut(worker) {
                    of_worker.remove(job);
                    if of_worker.is_empty() {
                        jobs.remove(worker);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whose line it is that a handler prints, where it can be only one job's.
    fn only_job(&self, worker: &WorkerId) -> Option<String> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let of_worker = jobs.get(worker)?;
        (of_worker.len() == 1)
            .then(|| of_worker.first().cloned())
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sdk(job: &str, message: &str) -> String {
        format!("{{\"requestId\": \"{job}\", \"message\": \"{message}\", \"level\": \"INFO\"}}")
    }

    #[test]
    fn lines_are_marked_with_worker_and_job() {
        let terminal = Terminal::default();
        let worker: WorkerId = "wk1".parse().unwrap();
        let marked = |line: &str| terminal.marked(&worker, line);
        assert_eq!(
            marked(&sdk("j1", "Loading \\u2603")),
            "wk1 j1 INFO  Loading ☃"
        );
        let no_job = "{\"requestId\": null, \"message\": \"up\", \"level\": \"DEBUG\"}";
        assert_eq!(marked(no_job), "wk1 DEBUG up");
        assert_eq!(marked("{\"a\": 1}"), "wk1 {\"a\": 1}");
        assert_eq!(marked("plain"), "wk1 plain");
    }

    #[test]
    fn what_a_handler_prints_is_its_jobs_where_only_one_runs() {
        let terminal = Terminal::default();
        let (worker, other): (WorkerId, WorkerId) =
            ("wk1".parse().unwrap(), "wk2".parse().unwrap());
        let marked = |line: &str| terminal.marked(&worker, line);
        marked(&sdk("j1", "Started."));
        assert_eq!(marked("plain"), "wk1 j1 plain");
        assert_eq!(terminal.marked(&other, "plain"), "wk2 plain");
        marked(&sdk("j2", "Started."));
        assert_eq!(marked("plain"), "wk1 plain");
        marked(&sdk("j1", "Finished."));
        assert_eq!(marked("plain"), "wk1 j2 plain");
        marked(&sdk("j2", "Finished."));
        assert_eq!(marked("plain"), "wk1 plain");
    }
}
