//! Ends the workers of a server that died when no other one comes.
//!
//! Workers outlive their server on purpose, and the public SDK asks on without a pause where nobody
//! listens. So beside every server there is a guard: this very program as a process of its own, in a
//! session of its own, which does nothing but read from a pipe that only the server can write to. When
//! that ends without a word, the server is dead, however it died.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::providers::process::abandoned::end_all;
use crate::providers::process::hold::{Hold, Holder, holder};

/// The hidden command: `lazyfox guard DIRECTORY MILLISECONDS SERVER`, the last one its process id.
const COMMAND: &str = "guard";
/// What the server says when it was stopped and has ended its workers itself.
const DONE: &[u8] = b"done";
/// How often the guard of a dead server looks for another one.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a guard may take to go when it is told to.
const END_MAX: Duration = Duration::from_secs(1);
/// Pause before another guard, when one was ended by somebody else.
const AGAIN: Duration = Duration::from_secs(1);

const NO_GUARD: &str =
    "cannot start the guard of the workers (with server.abandoned_s = 0 there is none)";

/// The server's end of it. Dropped without [`Guard::end`], the guard takes the server for dead.
pub struct Guard(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

impl Guard {
    /// Starts the guard of this server's workers, if there is to be one. To be called before
    /// the server takes charge of them: the guard of its predecessor leaves when it does.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(config: &Config) -> Result<Self> {
        if config.abandoned_ms == 0 {
            return Ok(Self(None));
        }
        let (dir, ms) = (config.workers_dir()?, config.abandoned_ms);
        let child = spawn(&dir, ms).context(NO_GUARD)?;
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(keep(child, dir, ms, ended));
        Ok(Self(Some((end, task))))
    }

    /// Tells it that there is nothing to guard any more.
    pub async fn end(self) {
        if let Some((end, task)) = self.0 {
            let _ = end.send(());
            let _ = task.await;
        }
    }
}

/// A guard, and what keeps it waiting. It is taken out of the child, which would close it to wait itself.
fn spawn(dir: &Path, ms: u64) -> std::io::Result<(Child, Option<ChildStdin>)> {
    // The file may have been replaced since, or be gone.
    let mut child = Command::new("/proc/self/exe")
        .arg0("lazyfox")
        .arg(COMMAND)
        .arg(dir)
        .arg(ms.to_string())
        .arg(std::process::id().to_string())
        // Neither secrets nor a place: it may outlive the server by a day.
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pipe = child.stdin.take();
    Ok((child, pipe))
}

/// Sees to it that there is a guard until the server ends.
async fn keep(
    (mut guard, mut pipe): (Child, Option<ChildStdin>),
    dir: PathBuf,
    ms: u64,
    mut end: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            told = &mut end => {
                if told.is_ok() {
                    dismiss(guard, pipe).await;
                }
                return;
            }
            status = guard.wait() => {
                let status = status.map(|it| it.to_string()).unwrap_or_default();
                tracing::warn!(%status, "the guard of the workers was ended; starting another one");
            }
        }
        (guard, pipe) = loop {
            tokio::select! {
                _ = &mut end => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
            match spawn(&dir, ms) {
                Ok(guard) => break guard,
                Err(error) => tracing::error!(%error, "the workers have no guard"),
            }
        };
    }
}

async fn dismiss(mut guard: Child, pipe: Option<ChildStdin>) {
    if let Some(mut pipe) = pipe
        && let Err(error) = pipe.write_all(DONE).await
    {
        tracing::debug!(%error, "the guard was gone before");
    }
    if tokio::time::timeout(END_MAX, guard.wait()).await.is_err() {
        tracing::warn!("the guard of the workers does not end");
    }
}

/// The guard itself, when the arguments of this process ask for it.
#[must_use]
pub fn main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != COMMAND {
        return None;
    }
    let arguments: Vec<OsString> = arguments.collect();
    let number = |text: &OsString| text.to_str()?.parse::<u32>().ok();
    Some(match &arguments[..] {
        [dir, ms, server] => match (number(ms), number(server)) {
            (Some(ms), Some(server)) => {
                let patience = Duration::from_millis(ms.into());
                watch(Path::new(dir), server, patience)
            }
            _ => misused(),
        },
        _ => misused(),
    })
}

fn misused() -> ExitCode {
    eprintln!("error: `lazyfox guard` is started by the server, nobody else needs it");
    ExitCode::from(2)
}

fn watch(dir: &Path, server: u32, patience: Duration) -> ExitCode {
    // What a terminal sends to the server (Ctrl-C, its end) is not for the guard. It fails only for who
    // leads a process group, as an interactive shell's child does, and then it is so already.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"lazyfox-guard");
    let mut said = Vec::new();
    // An error of the pipe is its end too.
    let _ = std::io::stdin().lock().take(64).read_to_end(&mut said);
    if said == DONE {
        return ExitCode::SUCCESS;
    }
    match wait_and_end(dir, server, patience) {
        Ok(()) => ExitCode::SUCCESS,
        // There is nobody to tell: the next server finds what is left.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Waits for another server, and ends the workers when none came.
fn wait_and_end(dir: &Path, dead: u32, patience: Duration) -> std::io::Result<()> {
    let died_at = Instant::now();
    loop {
        let left = patience.saturating_sub(died_at.elapsed());
        match holder(dir)? {
            Holder::NoDirectory => return Ok(()),
            // Another server has taken over the workers, and has a guard of its own. Or another guard is
            // ending them.
            Holder::Process(Some(pid)) if pid != dead => return Ok(()),
            // The dead one may not be gone wholly: the kernel closes one file after the other. And a new
            // one may not have said yet who it is.
            Holder::Process(_) => {}
            Holder::Nobody if left.is_zero() => {
                // A server that comes now waits until this is done, so that no worker of its own is hit.
                if let Some(hold) = Hold::try_take(dir)? {
                    return end_all(&hold, &reason(patience));
                }
            }
            Holder::Nobody => {}
        }
        std::thread::sleep(match left.is_zero() {
            true => LOOK_EVERY,
            false => left.min(LOOK_EVERY),
        });
    }
}

/// The last line of what a worker wrote that was ended.
fn reason(patience: Duration) -> String {
    let s = patience.as_secs();
    format!("[ended: its server had died, and for {s} s there was no other one]")
}
