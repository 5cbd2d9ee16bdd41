//! Jobs that are done by running a command for each of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::held::Stop;
use super::job::Job;
use super::lines::pass_on;
use super::output::{Outcome, output};
use super::process::{Process, Program, piped};
use super::settings::Settings;
use super::watchdog::Watchdog;
use crate::providers::Exit;

/// How long the pipes of a command that has ended may stay open: some process that left the group holds
/// them then, and is ended.
const PIPES_OPEN: Duration = Duration::from_secs(1);
/// How much is read of the output at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// Runs a command for each job.
pub(super) struct Exec {
    pub(super) program: Program,
    pub(super) output_bytes_max: usize,
    pub(super) watchdog: Arc<Watchdog>,
}

/// What comes first.
enum End {
    Exited(Exit),
    Stopped,
    /// The output is larger than it may be.
    TooLarge,
}

impl Exec {
    /// Runs the command: the job on its input, the output on its output, its log on its standard error.
    pub(super) async fn run(&self, job: &Job, settings: &Settings, stop: &mut Stop) -> Outcome {
        let mut command = self.program.command(settings);
        piped(&mut command).env("LAZYFOX_JOB_ID", &job.id);
        let mut process = match Process::start(&mut command, &self.watchdog) {
            Ok(process) => process,
            Err(e) => {
                let path = self.program.path.display();
                return Outcome::Failed(format!("cannot run {path}: {e}"));
            }
        };
        let (stdin, stdout, stderr) = process.pipes();
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Outcome::Failed("the command has no pipes".to_owned());
        };
        // All three at once: each end waits for the other when a pipe is full.
        let document = job.document.clone();
        // A command that does not read its input to the end is free to do so.
        let feed = tokio::spawn(async move { stdin.write_all(&document).await.ok() });
        let (overflow, overflows) = oneshot::channel();
        let read = tokio::spawn(read(stdout, self.output_bytes_max, overflow));
        let log = tokio::spawn(pass_on(stderr, job.id.clone()));
        let end = tokio::select! {
            exit = process.ended() => End::Exited(exit),
            () = stop.asked() => End::Stopped,
            Ok(()) = overflows => End::TooLarge,
        };
        if !matches!(end, End::Exited(_)) {
            process.stop().await;
        }
        feed.abort();
        let (output, last_lines) = tokio::join!(drained(read, &process), drained(log, &process),);
        self.outcome(&end, output, &last_lines.unwrap_or_default())
    }

    fn outcome(&self, end: &End, read: Option<io::Result<Vec<u8>>>, last: &str) -> Outcome {
        let limit = self.output_bytes_max;
        let is_too_large = matches!(&read, Some(Ok(bytes)) if bytes.len() > limit);
        match end {
            End::Stopped => Outcome::Stopped,
            End::TooLarge => Outcome::Failed(too_large(limit)),
            // The signal by which a broken pipe ends a program says less than this.
            End::Exited(_) if is_too_large => Outcome::Failed(too_large(limit)),
            End::Exited(Exit::Code(0)) => match read {
                Some(Ok(bytes)) => output(bytes.into()),
                Some(Err(e)) => {
                    Outcome::Failed(format!("the output of the command cannot be read: {e}"))
                }
                None => Outcome::Failed(
                    "the command ended, and what it left running holds its output open".to_owned(),
                ),
            },
            End::Exited(exit) if last.is_empty() => Outcome::Failed(format!("the command {exit}")),
            End::Exited(exit) => {
                Outcome::Failed(format!("the command {exit}; its last output: {last}"))
            }
        }
    }
}

fn too_large(limit: usize) -> String {
    format!("the command wrote more than {limit} bytes to its output; --output-limit allows more")
}

/// Reads up to one byte more than allowed, and says at once when there is that one.
async fn read(
    mut from: impl AsyncRead + Unpin,
    limit: usize,
    overflow: oneshot::Sender<()>,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        bytes.reserve(CHUNK_BYTES);
        if from.read_buf(&mut bytes).await? == 0 {
            return Ok(bytes);
        }
        if bytes.len() > limit {
            // Nobody waits for it only when the command has ended.
            overflow.send(()).ok();
            // Its end of the pipe breaks here, so that it does not block.
            return Ok(bytes);
        }
    }
}

/// The result of reading a pipe whose command has ended; `None` when the pipe does not end.
async fn drained<T>(mut task: JoinHandle<T>, process: &Process) -> Option<T> {
    if let Ok(ended) = tokio::time::timeout(PIPES_OPEN, &mut task).await {
        return ended.ok();
    }
    process.kill_strays().await;
    match tokio::time::timeout(PIPES_OPEN, &mut task).await {
        Ok(ended) => ended.ok(),
        Err(_) => {
            task.abort();
            None
        }
    }
}
