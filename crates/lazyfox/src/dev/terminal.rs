//! Workers' output on a terminal: who said it, and for which job.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use lazyfox_core::id::{EndpointId, WorkerId};

use crate::logs::Jobs;
use crate::logs::sdk::Said;
use crate::providers::{Output, Source};

/// Prints to standard error, so that `--send` leaves standard output to the result.
#[derive(Default)]
pub(super) struct Terminal {
    jobs: Mutex<Jobs>,
}

impl Output for Terminal {
    fn line(&self, _: &EndpointId, worker: &WorkerId, source: Source, line: &str) {
        // A terminal that was closed takes nothing, and that must not keep the server from ending.
        let _ = writeln!(std::io::stderr(), "{}", self.marked(worker, source, line));
    }
}

impl Terminal {
    fn marked(&self, worker: &WorkerId, source: Source, line: &str) -> String {
        let job = match source {
            Source::Worker => {
                let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
                jobs.job_of(worker, line)
            }
            Source::System => None,
        };
        let job = job.map(|job| format!(" {job}")).unwrap_or_default();
        match Said::parse(line) {
            Some(Said { message, level, .. }) => format!("{worker}{job} {level:5} {message}"),
            None => format!("{worker}{job} {line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use lazyfox_core::id::JobId;
    use lazyfox_core::time::Timestamp;

    use super::*;

    #[test]
    fn lines_are_marked_with_worker_and_job() {
        let terminal = Terminal::default();
        let worker: WorkerId = "wk1".parse().unwrap();
        let marked = |line: &str| terminal.marked(&worker, Source::Worker, line);
        let job = JobId::new(Timestamp::from_ms(1), [1; 16], false);
        let sdk = |message: &str| {
            format!("{{\"requestId\": \"{job}\", \"message\": \"{message}\", \"level\": \"INFO\"}}")
        };
        assert_eq!(
            marked(&sdk("Loading \\u2603")),
            format!("wk1 {job} INFO  Loading ☃")
        );
        let no_job = "{\"requestId\": null, \"message\": \"up\", \"level\": \"DEBUG\"}";
        assert_eq!(marked(no_job), "wk1 DEBUG up");
        assert_eq!(marked("{\"a\": 1}"), "wk1 {\"a\": 1}");
        assert_eq!(marked("plain"), "wk1 plain");
        marked(&sdk("Started."));
        assert_eq!(marked("plain"), format!("wk1 {job} plain"));
        let pulling = terminal.marked(&worker, Source::System, "pulling img");
        assert_eq!(pulling, "wk1 pulling img");
    }
}
