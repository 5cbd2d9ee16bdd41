//! The file: a line that says what it is, a line for each record, and one with counts and a checksum of all
//! lines before it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lazyfox_core::job::Status;
use lazyfox_store::moving::Record;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::line::Line;

/// The form that this program writes and reads.
const FORM: u32 = 1;

/// Longest line, in bytes: some times the largest job, whose bytes become six at the most.
const LINE_MAX: u64 = 4 * 1024 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    lazyfox_export: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    end: End,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    counts: Counts,
    sha256: String,
}

/// How much there is of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Counts {
    jobs_waiting: u64,
    jobs_running: u64,
    jobs_ended: u64,
    chunks: u64,
    deliveries: u64,
    tries: u64,
    counters: u64,
    endpoints: u64,
    webhook_secrets: u64,
    keys: u64,
}

impl Counts {
    pub(super) fn count(&mut self, record: &Record) {
        match record {
            Record::Job(record) => {
                match record.kept.job.status() {
                    Status::InQueue => self.jobs_waiting += 1,
                    Status::InProgress => self.jobs_running += 1,
                    Status::Completed | Status::Failed | Status::Cancelled | Status::TimedOut => {
                        self.jobs_ended += 1
                    }
                }
                self.chunks += record.chunks.len() as u64;
            }
            Record::Delivery(record) => {
                self.deliveries += 1;
                self.tries += record.made.len() as u64;
            }
            Record::Counters(_) => self.counters += 1,
            Record::Endpoint(_) => self.endpoints += 1,
            Record::Secret(..) => self.webhook_secrets += 1,
            Record::Key(_) => self.keys += 1,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = self.jobs_waiting + self.jobs_running + self.jobs_ended;
        write!(
            f,
            "jobs: {jobs} ({} waiting, {} running, {} ended), chunks: {}, deliveries: {}, tries: {}, \
             counters: {}, endpoints: {}, webhook secrets: {}, API keys: {}",
            self.jobs_waiting,
            self.jobs_running,
            self.jobs_ended,
            self.chunks,
            self.deliveries,
            self.tries,
            self.counters,
            self.endpoints,
            self.webhook_secrets,
            self.keys
        )
    }
}

fn written(line: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The checksum of a file with these records.
pub(super) struct Digest(Sha256);

impl Digest {
    pub(super) fn new() -> Self {
        let head = written(&Head {
            lazyfox_export: FORM,
        });
        let head = head.expect("a number can be written");
        Self(Sha256::new_with_prefix(head))
    }

    pub(super) fn record(&mut self, record: Record) -> Result<()> {
        self.0.update(written(&Line::of(record))?);
        Ok(())
    }

    pub(super) fn text(&self) -> String {
        hex(self.0.clone())
    }
}

fn hex(hash: Sha256) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A file that is being made.
pub(super) struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    counts: Counts,
}

impl Writer {
    /// Makes a file that nobody else can read; one that is there already stays.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let file = made.with_context(|| format!("cannot make {}", path.display()))?;
        let mut writer = Self {
            path: path.to_path_buf(),
            file: BufWriter::with_capacity(1 << 20, file),
            hash: Sha256::new(),
            counts: Counts::default(),
        };
        writer.line(&Head {
            lazyfox_export: FORM,
        })?;
        Ok(writer)
    }

    pub(super) fn write(&mut self, record: Record) -> Result<()> {
        self.counts.count(&record);
        self.line(&Line::of(record))
    }

    /// Writes the last line, and all to the disk.
    pub(super) fn finish(mut self) -> Result<Counts> {
        let end = End {
            counts: self.counts.clone(),
            sha256: hex(self.hash.clone()),
        };
        self.line(&Tail { end })?;
        let context = || format!("cannot write {}", self.path.display());
        self.file.flush().with_context(context)?;
        self.file.get_ref().sync_all().with_context(context)?;
        Ok(self.counts)
    }

    fn line(&mut self, line: &impl Serialize) -> Result<()> {
        let bytes = written(line)?;
        self.hash.update(&bytes);
        let put = self.file.write_all(&bytes);
        put.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// A file that is being read.
pub(super) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    hash: Sha256,
    counts: Counts,
    /// Lines read so far.
    lines: u64,
    end: Option<End>,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut reader = Self {
            path: path.to_path_buf(),
            file: BufReader::with_capacity(1 << 20, file),
            hash: Sha256::new(),
            counts: Counts::default(),
            lines: 0,
            end: None,
        };
        let name = path.display();
        let first = reader.line(1024)?.unwrap_or_default();
        let Ok(head) = serde_json::from_slice::<Head>(&first) else {
            bail!("{name} is no file of `lazyfox export`");
        };
        let form = head.lazyfox_export;
        ensure!(
            form == FORM,
            "{name} is of form {form}, and this program knows form {FORM}; use the release that \
             wrote it"
        );
        reader.hash.update(&first);
        Ok(reader)
    }

    /// The next record; `None` behind the last one.
    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        let name = self.path.display().to_string();
        let Some(bytes) = self.line(LINE_MAX)? else {
            bail!(
                "{name} is cut off after {} lines: its last one, with the counts, is missing; \
                 export again",
                self.lines
            );
        };
        // A line that is cut off is no line at all.
        ensure!(
            bytes.ends_with(b"\n"),
            "{name} is cut off in line {}; export again",
            self.lines
        );
        if bytes.starts_with(b"{\"end\":") {
            let tail: Tail = serde_json::from_slice(&bytes).map_err(|e| self.damaged(&e))?;
            self.end = Some(tail.end);
            ensure!(
                self.line(1)?.is_none(),
                "{name} goes on behind its last line; export again"
            );
            return Ok(None);
        }
        self.hash.update(&bytes);
        let line: Line = serde_json::from_slice(&bytes).map_err(|e| self.damaged(&e))?;
        let record = line.record().with_context(|| self.unreadable())?;
        self.counts.count(&record);
        Ok(Some(record))
    }

    /// What was in it, when all is read, and the checksum of its records.
    pub(super) fn ended(&self) -> Result<(Counts, String)> {
        let name = self.path.display();
        let end = self
            .end
            .as_ref()
            .context("the file was not read to its end")?;
        let digest = hex(self.hash.clone());
        ensure!(
            digest == end.sha256,
            "{name} is damaged: its checksum is {digest}, and its last line says {}; export again",
            end.sha256
        );
        ensure!(
            self.counts == end.counts,
            "{name} is damaged: it has {}; and its last line says {}; export again",
            self.counts,
            end.counts
        );
        Ok((self.counts.clone(), digest))
    }

    fn unreadable(&self) -> String {
        let name = self.path.display();
        format!(
            "{name} is damaged: its line {} cannot be read; export again",
            self.lines
        )
    }

    /// Without the words of the parser, which may quote what is in the line.
    fn damaged(&self, error: &serde_json::Error) -> anyhow::Error {
        anyhow!("{} (column {})", self.unreadable(), error.column())
    }

    /// The next line with its end; `None` behind the last one.
    fn line(&mut self, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let read = self
            .file
            .by_ref()
            .take(bytes_max)
            .read_until(b'\n', &mut bytes);
        read.with_context(|| format!("cannot read {}", self.path.display()))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.lines += 1;
        Ok(Some(bytes))
    }
}
