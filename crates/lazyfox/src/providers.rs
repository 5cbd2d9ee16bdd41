//! How workers come to be: what can start them, end them and say which ones are alive.
//!
//! A provider knows nothing of jobs, leases or the store. It reports what it sees, and whoever
//! called it decides what that means.

use std::fmt;
use std::path::PathBuf;

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::time::Timestamp;

pub mod process;

/// Everything a provider needs to start one worker.
#[derive(Clone)]
pub struct WorkerSpec {
    /// The endpoint whose jobs the worker takes.
    pub endpoint: EndpointId,
    /// The name of this one life; it was never used before.
    pub worker: WorkerId,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where the handler's files are.
    pub working_dir: PathBuf,
    /// The whole environment that the worker is promised; it wins over what is inherited.
    pub env: Vec<(String, String)>,
    /// Where its server is: a host that it reaches without a proxy, whatever the environment says.
    pub server_host: String,
}

/// A worker that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The worker.
    pub worker: WorkerId,
    /// The endpoint it was started for.
    pub endpoint: EndpointId,
    /// When it was started, also when that was by an earlier run of this server.
    pub started_at: Timestamp,
}

/// How a worker's main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited by itself with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is gone, but nobody who could be told how was watching.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match signal_name(signal) {
                Some(name) => write!(f, "was killed by signal {signal} ({name})"),
                None => write!(f, "was killed by signal {signal}"),
            },
            Self::Unknown => write!(f, "ended, it is not known how"),
        }
    }
}

/// The signals that end workers in practice; numbers as on every architecture Linux still ships on
/// but MIPS and SPARC.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// The end of a worker, and what it said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The worker.
    pub worker: WorkerId,
    /// The endpoint it was started for.
    pub endpoint: EndpointId,
    /// How it ended.
    pub exit: Exit,
    /// The last lines of its output, oldest first: mostly they hold the reason.
    pub last_lines: Vec<String>,
}

/// How a worker is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM to the main process only: it may finish the job it has.
    Gently,
    /// SIGKILL to the whole process group.
    Now,
}

/// Why a worker was not started, naming the program or path and the reason.
///
/// It is one text and not a list of cases because callers show it and try again later; none of them
/// does something else for a missing program than for a missing directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(String);

impl StartError {
    /// An error with this text: a lower-case fragment without a full stop.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// Starts and stops workers, and knows which are alive.
///
/// Ends are reported on the channel handed to the provider when it was made: a worker that was
/// started is reported exactly once per run of the server, whoever ended it.
pub trait Provider: Send + Sync {
    /// The workers that are alive, those that an earlier run of this server started included.
    fn list(&self) -> Vec<Found>;

    /// Starts a worker. It counts as alive when this returns.
    ///
    /// # Errors
    /// When the worker could not be started; nothing of it is left behind then.
    fn start(&self, spec: WorkerSpec) -> Result<(), StartError>;

    /// Asks a worker to end and does not wait for it. A worker that is not alive is no error: its
    /// end was or will be reported.
    fn stop(&self, worker: &WorkerId, how: Stop);
}

/// Where the lines go that workers write.
pub trait Output: Send + Sync {
    /// One line of a worker's output, without its line end. Called in the order of writing, and
    /// expected to return at once: the end of the worker is reported only after its last line.
    fn line(&self, endpoint: &EndpointId, worker: &WorkerId, line: &str);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_say_what_happened() {
        assert_eq!(Exit::Code(1).to_string(), "exited with code 1");
        assert_eq!(
            Exit::Signal(9).to_string(),
            "was killed by signal 9 (SIGKILL)"
        );
        assert_eq!(Exit::Signal(40).to_string(), "was killed by signal 40");
    }
}
