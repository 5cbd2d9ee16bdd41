//! Workers' output on a terminal: who said it, and for which job.

use lazyfox_core::id::{EndpointId, WorkerId};
use serde::Deserialize;

use crate::providers::Output;

/// Prints to standard error, so that `--send` leaves standard output to the result.
pub(super) struct Terminal;

/// The SDK's own log lines, as it writes them inside a worker.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "requestId")]
    job: Option<&'a str>,
    message: std::borrow::Cow<'a, str>,
    level: &'a str,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Self
    }
}

impl Output for Terminal {
    fn line(&self, _: &EndpointId, worker: &WorkerId, line: &str) {
        eprintln!("{}", marked(worker, line));
    }
}

fn marked(worker: &WorkerId, line: &str) -> String {
    match serde_json::from_str::<Line<'_>>(line) {
        Ok(Line {
            job,
            message,
            level,
        }) => match job {
            Some(job) => format!("{worker} {job} {level:5} {message}"),
            None => format!("{worker} {level:5} {message}"),
        },
        Err(_) => format!("{worker} {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_marked_with_worker_and_job() {
        let worker: WorkerId = "wk1".parse().unwrap();
        let sdk = "{\"requestId\": \"j1\", \"message\": \"Started. \\u2603\", \"level\": \"INFO\"}";
        assert_eq!(marked(&worker, sdk), "wk1 j1 INFO  Started. ☃");
        let sdk = "{\"requestId\": null, \"message\": \"up\", \"level\": \"DEBUG\"}";
        assert_eq!(marked(&worker, sdk), "wk1 DEBUG up");
        assert_eq!(marked(&worker, "{\"a\": 1}"), "wk1 {\"a\": 1}");
        assert_eq!(marked(&worker, "plain"), "wk1 plain");
    }
}
