//! How workers come to be: what can start them, end them and say which ones are alive.
//!
//! A provider knows nothing of jobs, leases or the store. It reports what it sees, and whoever
//! called it decides what that means.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use self::docker::DockerProvider;
use self::gpus::Inventory;
use self::process::{Hold, ProcessProvider};

pub mod docker;
pub mod gpus;
mod lines;
pub mod process;

/// Everything a provider needs to start one worker.
#[derive(Clone)]
pub struct WorkerSpec {
    /// The endpoint whose jobs the worker takes.
    pub endpoint: EndpointId,
    /// The name of this one life; it was never used before.
    pub worker: WorkerId,
    /// What it runs.
    pub run: Run,
    /// The GPUs that are its own, by the names that the machine gives them; none is a worker without.
    pub gpus: Vec<String>,
    /// Which release of the endpoint it runs; given back by [`Provider::list`].
    pub release: Release,
    /// The whole environment that the worker is promised; it wins over what is inherited.
    pub env: Vec<(String, String)>,
    /// Where its server is: a host that it reaches without a proxy, whatever the environment says.
    pub server_host: String,
}

/// What a worker runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// A program on this machine.
    Process(ProcessRun),
    /// An image, by a container engine.
    Container(ContainerRun),
}

/// A worker that is a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessRun {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where the handler's files are.
    pub working_dir: PathBuf,
    /// Memory that all its processes may hold together, in bytes; `None` is as much as there is.
    pub memory_bytes: Option<u64>,
    /// Files that each of its processes may have open; `None` is as the server itself.
    pub open_files: Option<u64>,
}

/// A worker that is a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerRun {
    /// The image, as `docker run` takes it.
    pub image: String,
    /// Overrules the image's entry point.
    pub entrypoint: Option<Vec<String>>,
    /// Overrules the image's command.
    pub command: Option<Vec<String>>,
    /// Directories and files of this machine that it sees.
    pub mounts: Vec<Mount>,
    /// Memory, in bytes; `None` is as much as there is.
    pub memory_bytes: Option<u64>,
    /// Size of `/dev/shm`, in bytes; `None` is the engine's default.
    pub shm_bytes: Option<u64>,
    /// Open files of each process; `None` is the engine's default.
    pub open_files: Option<u64>,
    /// When the image is pulled.
    pub pull: Pull,
    /// The engine's network; `None` is the host's.
    pub network: Option<String>,
    /// The account of the image's registry.
    pub registry: Option<RegistryLogin>,
}

/// A directory or file of this machine inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The path on this machine, absolute.
    pub from: PathBuf,
    /// The path inside, absolute.
    pub to: PathBuf,
    /// Whether it cannot be changed from inside.
    pub read_only: bool,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// When it is not here.
    #[default]
    Missing,
    /// Before every start, so that a tag that moved is noticed.
    Always,
    /// Never: it was loaded by hand.
    Never,
}

/// An account of a registry. The password shows nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// The registry's host.
    pub server: String,
    /// Who.
    pub username: String,
    /// The password or token.
    pub password: String,
}

impl fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.username, self.server)
    }
}

/// Which release of its endpoint a worker runs: a new one for each change of what workers run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Release(pub u32);

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
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
    /// The release that it was started with.
    pub release: Release,
    /// The GPUs that are its own.
    pub gpus: Vec<String>,
}

/// How a worker's main process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited by itself with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It, or a process of its, held more memory than there was for it.
    OutOfMemory {
        /// The limit in bytes, where it was one of the configuration.
        limit: Option<u64>,
    },
    /// It never ran, for this reason: its image could not be pulled, its container not be made.
    NotStarted(String),
    /// It is gone, but nobody who could be told how was watching.
    Unknown,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "was killed by signal {signal} ({name})"),
                None => write!(f, "was killed by signal {signal}"),
            },
            Self::OutOfMemory { limit: Some(limit) } => {
                write!(f, "ran out of memory (limit {} MiB)", limit / (1024 * 1024))
            }
            Self::OutOfMemory { limit: None } => write!(f, "ran out of memory"),
            Self::NotStarted(why) => write!(f, "did not start: {why}"),
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

/// All providers as one: what a worker runs says which of them starts it.
pub struct Providers {
    process: ProcessProvider,
    docker: DockerProvider,
}

/// Where providers say what they see.
pub struct Reports {
    /// The lines that workers write.
    pub output: Arc<dyn Output>,
    /// The ends of workers.
    pub ended: UnboundedSender<Ended>,
    /// Workers of an earlier run that were found after [`Providers::open`], because their engine did
    /// not answer then.
    pub late: UnboundedSender<Found>,
}

impl Providers {
    /// Takes charge of the workers of a data directory, those of an earlier run included.
    ///
    /// # Errors
    /// When the directories of the providers cannot be made or read.
    pub async fn open(
        hold: Hold,
        data: &Path,
        gpus: Arc<Inventory>,
        engine: docker::Places,
        reports: Reports,
        now: impl Fn() -> Timestamp + Clone + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let Reports {
            output,
            ended,
            late,
        } = reports;
        let process = ProcessProvider::open(
            hold,
            std::env::vars_os().collect(),
            gpus,
            Arc::clone(&output),
            ended.clone(),
            now.clone(),
        )?;
        let containers = data.join("containers");
        let docker = DockerProvider::open(containers, engine, output, ended, late, now).await?;
        Ok(Self { process, docker })
    }
}

impl Provider for Providers {
    fn list(&self) -> Vec<Found> {
        let mut found = self.process.list();
        found.extend(self.docker.list());
        found
    }

    fn start(&self, spec: WorkerSpec) -> Result<(), StartError> {
        match spec.run {
            Run::Process(_) => self.process.start(spec),
            Run::Container(_) => self.docker.start(spec),
        }
    }

    fn stop(&self, worker: &WorkerId, how: Stop) {
        // No two workers share a name, and who does not know it does nothing.
        self.process.stop(worker, how);
        self.docker.stop(worker, how);
    }
}

/// Where a line of a worker's log comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The worker wrote it, to stdout or stderr.
    Worker,
    /// Its provider says what happens to it: the image is pulled, the container is made.
    System,
}

/// Where the lines go that workers write.
pub trait Output: Send + Sync {
    /// One line of a worker's output, without its line end. Called in the order of writing, and
    /// expected to return at once: the end of the worker is reported only after its last line.
    fn line(&self, endpoint: &EndpointId, worker: &WorkerId, source: Source, line: &str);

    /// The worker's program runs since now. Said by providers whose starts take their time (an image
    /// is pulled), so that what is allowed to a start is not used up by it.
    fn runs(&self, _worker: &WorkerId) {}
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
