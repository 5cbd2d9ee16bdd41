//! The directory of one worker: who it is, what it wrote, and where it stands.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileExt as _, symlink};
use std::path::{Path, PathBuf};

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::kernel::Identity;
use crate::providers::Release;

/// Names that do not appear in a worker's working directory: what the SDK keeps there, and the
/// server's own files.
const HIDDEN_PREFIXES: [&str; 2] = [".runpod_jobs.pkl", ".lazyfox"];

/// `<provider's directory>/<worker id>`.
#[derive(Clone)]
pub(super) struct Home {
    path: PathBuf,
}

/// What is needed to know a worker again after a restart of the server.
pub(super) struct Record {
    pub(super) identity: Identity,
    pub(super) endpoint: EndpointId,
    pub(super) started_at: Timestamp,
    pub(super) release: Release,
    pub(super) gpus: Vec<String>,
    /// Memory that all its processes may hold together, in bytes.
    pub(super) memory_bytes: Option<u64>,
}

/// The form of [`Record`] on disk: fields are only ever added.
#[derive(Serialize, Deserialize)]
struct RecordFile {
    process: Identity,
    endpoint: String,
    started_at_ms: i64,
    #[serde(default)]
    release: Release,
    #[serde(default)]
    gpus: Vec<String>,
    #[serde(default)]
    memory_bytes: Option<u64>,
}

/// The worker whose directory this is, in the directory of all. What cannot be the name of a worker was
/// not made here.
pub(super) fn worker_of(entry: &fs::DirEntry) -> Option<WorkerId> {
    entry.file_name().to_str()?.parse().ok()
}

impl Home {
    /// Where this worker's directory is or would be.
    pub(super) fn of(dir: &Path, worker: &WorkerId) -> Self {
        Self {
            path: dir.join(worker.as_str()),
        }
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the worker writes, to stdout and stderr alike.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("output.log")
    }

    /// The worker's working directory.
    pub(super) fn cwd(&self) -> PathBuf {
        self.path.join("cwd")
    }

    /// Makes the directory, for the server's user only: inputs of jobs end up in logs.
    ///
    /// # Errors
    /// Also when it exists: no worker id is used twice.
    pub(super) fn create(&self) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.path)?;
        fs::create_dir(self.cwd())
    }

    /// Opens the log for the worker itself. Appending, so that it can be cut while it is written.
    pub(super) fn open_log(&self) -> io::Result<File> {
        File::options().create(true).append(true).open(self.log())
    }

    /// Makes the worker's working directory look like `working_dir`.
    ///
    /// Every start has a working directory of its own, because version 1.7.12 to 1.10.0 of the SDK
    /// keep the jobs they work on in `.runpod_jobs.pkl` in the current directory: a new worker would
    /// take over those of a dead one, report them as running for ever and never ask for another, and
    /// two workers would overwrite each other's. Links to the handler's files keep relative reads
    /// working. The links are the files themselves: what a handler writes to an existing file stays,
    /// only files it makes anew in the top directory go away with the worker.
    pub(super) fn link_files(&self, working_dir: &Path) -> io::Result<()> {
        for entry in working_dir.read_dir()? {
            let entry = entry?;
            let name = entry.file_name();
            let hidden = HIDDEN_PREFIXES
                .iter()
                .any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()));
            // The server may keep its files under another name inside the working directory; a
            // handler that walks its own tree would walk in circles.
            if hidden || self.path.starts_with(entry.path()) {
                continue;
            }
            symlink(entry.path(), self.cwd().join(name))?;
        }
        Ok(())
    }

    /// Writes down who the worker is. Whole or not at all, but not synced: a power loss ends the
    /// worker too.
    pub(super) fn write_record(&self, record: &Record) -> io::Result<()> {
        let file = RecordFile {
            process: record.identity.clone(),
            endpoint: record.endpoint.to_string(),
            started_at_ms: record.started_at.as_ms(),
            release: record.release,
            gpus: record.gpus.clone(),
            memory_bytes: record.memory_bytes,
        };
        let unfinished = self.path.join("pid.new");
        fs::write(&unfinished, serde_json::to_vec(&file)?)?;
        fs::rename(unfinished, self.path.join("pid"))
    }

    /// Reads who the worker is.
    ///
    /// # Errors
    /// When the file is missing, because the server died while it started the worker, or damaged.
    pub(super) fn read_record(&self) -> io::Result<Record> {
        let file: RecordFile = serde_json::from_slice(&fs::read(self.path.join("pid"))?)?;
        Ok(Record {
            identity: file.process,
            endpoint: file
                .endpoint
                .parse()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
            started_at: Timestamp::from_ms(file.started_at_ms),
            release: file.release,
            gpus: file.gpus,
            memory_bytes: file.memory_bytes,
        })
    }

    /// Adds a line to what the worker wrote, for whoever reads how it ended.
    pub(super) fn note(&self, line: &str) -> io::Result<()> {
        let mut log = File::options().read(true).append(true).open(self.log())?;
        let length = log.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            log.read_exact_at(&mut last, length - 1)?;
        }
        let begin = if last == [b'\n'] { "" } else { "\n" };
        log.write_all(format!("{begin}{line}\n").as_bytes())
    }

    /// Removes the directory and all in it; links are removed, not what they lead to.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}
