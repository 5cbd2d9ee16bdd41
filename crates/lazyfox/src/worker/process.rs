//! A program that this worker runs: in a process group of its own, and ended with all that it started.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::settings::{KEPT_FROM_JOBS, Settings};
use super::watchdog::{Mark, Watchdog};
use crate::providers::Exit;
use crate::providers::process::kernel::Identity;

/// How long a program may take to end when it is asked to. The server gives a worker 10 s to let go of a
/// job, and what remains is for telling it.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// A program with its arguments, as it is run again and again.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) path: std::path::PathBuf,
    pub(super) arguments: Vec<std::ffi::OsString>,
}

impl Program {
    /// How it is started, but for its input and output.
    pub(super) fn command(&self, settings: &Settings) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .env("LAZYFOX_ENDPOINT", &settings.endpoint);
        for name in KEPT_FROM_JOBS {
            command.env_remove(name);
        }
        command
    }
}

/// A running program. Dropped, it is killed.
pub(super) struct Process {
    child: Child,
    /// `None` when it had ended before it could be looked at.
    identity: Option<Identity>,
    mark: Mark,
    watchdog: Arc<Watchdog>,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn start(command: &mut Command, watchdog: &Arc<Watchdog>) -> io::Result<Self> {
        let mark = watchdog.begin();
        let (name, value) = mark.variable();
        let started = command.env(name, value).process_group(0).spawn();
        let child = started.inspect_err(|_| watchdog.end(&mark))?;
        let pid = child.id().unwrap_or_default();
        watchdog.leads(&mark, pid);
        // It has not been waited for, so its entry in /proc is there even if it has ended.
        let identity = Identity::of(pid)
            .inspect_err(|error| tracing::warn!(pid, %error, "cannot look at a process"))
            .ok();
        let watchdog = Arc::clone(watchdog);
        Ok(Self {
            child,
            identity,
            mark,
            watchdog,
        })
    }

    /// Its three pipes, where they were asked for.
    pub(super) fn pipes(
        &mut self,
    ) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        let child = &mut self.child;
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    }

    /// Waits for its end, and ends what is left of its group.
    pub(super) async fn ended(&mut self) -> Exit {
        let exit = match self.child.wait().await {
            Ok(status) => Exit::from(status),
            Err(error) => {
                tracing::error!(%error, "cannot wait for a process");
                Exit::Unknown
            }
        };
        self.kill_group();
        exit
    }

    /// Asks it to end, and ends it with all that it started when it does not.
    pub(super) async fn stop(&mut self) {
        if let Some(identity) = &self.identity
            && let Err(error) = identity.terminate_group()
        {
            tracing::warn!(%error, "a process cannot be asked to end");
        }
        if tokio::time::timeout(GRACE, self.ended()).await.is_err() {
            self.kill_group();
            self.ended().await;
        }
        self.kill_strays().await;
    }

    /// Ends what left its group.
    pub(super) async fn kill_strays(&self) {
        let mark = self.mark.clone();
        let swept = tokio::task::spawn_blocking(move || mark.kill_all()).await;
        match swept.map_err(io::Error::other).flatten() {
            Ok(0) => {}
            Ok(killed) => tracing::info!(killed, "killed processes that a job left"),
            Err(error) => tracing::warn!(%error, "processes that a job left may still run"),
        }
    }

    fn kill_group(&self) {
        let killed = self.identity.as_ref().map(Identity::kill_group);
        if let Some(Err(error)) = killed {
            tracing::warn!(%error, "what a process started cannot be killed");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
        self.watchdog.end(&self.mark);
    }
}

/// Pipes for all three.
pub(super) fn piped(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
}
