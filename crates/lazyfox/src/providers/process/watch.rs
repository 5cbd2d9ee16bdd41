//! Follows each worker to its end: hands on its output, sweeps what it leaves, reports how it ended.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::time::Timestamp;
use tokio::process::Child;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use super::environment::MARKER;
use super::home::Home;
use super::kernel::{Identity, kill_left_behind};
use super::limits;
use super::oom::OomKills;
use super::tail::Tail;
use crate::providers::{Ended, Exit, Output, Release, Source};

/// How often a worker's log is looked at. Fast enough to read along, and some microseconds of work;
/// inotify would save them, for a file that mostly changes whenever one looks. It is done only while
/// the worker lives, so that a server without workers does nothing.
const LOG_EVERY: Duration = Duration::from_millis(100);

/// How often a worker that is not our child is looked at: only parents are told of an end.
const ALIVE_EVERY: Duration = Duration::from_millis(250);

const SIGKILL: i32 = 9;

/// How often a directory is tried to be removed while killed processes may still write to it, and
/// how long between two tries.
const REMOVE_TRIES: u32 = 10;
const REMOVE_EVERY: Duration = Duration::from_millis(20);

/// What the provider shares with the tasks that watch its workers.
pub(super) struct Shared {
    pub(super) live: Mutex<BTreeMap<WorkerId, Live>>,
    pub(super) output: Arc<dyn Output>,
    pub(super) ended: UnboundedSender<Ended>,
}

/// A worker that is alive.
pub(super) struct Live {
    pub(super) endpoint: EndpointId,
    pub(super) started_at: Timestamp,
    pub(super) release: Release,
    pub(super) gpus: Vec<String>,
    pub(super) identity: Identity,
    /// Whether it was killed because somebody asked for it.
    pub(super) stopped: Arc<AtomicBool>,
    pub(super) watch: AbortHandle,
}

impl Shared {
    pub(super) fn live(&self) -> MutexGuard<'_, BTreeMap<WorkerId, Live>> {
        // Nothing is done under the lock that could leave the map half changed.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody listens any more only when the server is about to end.
    pub(super) fn report(&self, ended: Ended) {
        let _ = self.ended.send(ended);
    }
}

/// The main process of a worker: the one whose end is the worker's.
pub(super) enum Main {
    /// Started by this run of the server.
    Child(Child),
    /// Started by an earlier one, so that nobody tells us of its end.
    Adopted(Identity),
}

impl Main {
    async fn ended(self) -> Exit {
        match self {
            Self::Child(mut child) => match child.wait().await {
                Ok(status) => Exit::from(status),
                Err(error) => {
                    tracing::error!(%error, "cannot wait for a worker");
                    Exit::Unknown
                }
            },
            Self::Adopted(identity) => {
                while identity.is_alive() {
                    tokio::time::sleep(ALIVE_EVERY).await;
                }
                Exit::Unknown
            }
        }
    }
}

/// Follows one worker to its end.
pub(super) struct Watch {
    pub(super) worker: WorkerId,
    pub(super) endpoint: EndpointId,
    pub(super) home: Home,
    pub(super) identity: Identity,
    pub(super) memory_bytes: Option<u64>,
    pub(super) stopped: Arc<AtomicBool>,
    pub(super) tail: Option<Tail>,
}

impl Watch {
    /// Returns when the worker has ended and nothing of it is left.
    pub(super) async fn run(mut self, shared: Arc<Shared>, main: Main) {
        let (endpoint, worker) = (self.endpoint.clone(), self.worker.clone());
        let say = |line: &str| shared.output.line(&endpoint, &worker, Source::Worker, line);
        let exit = self.until_ended(main, &say).await;
        self.sweep().await;
        if let Some(following) = &mut self.tail
            && let Err(error) = following.catch_up(&say).await
        {
            tracing::warn!(worker.id = %worker, %error, "the last output of a worker is lost");
        }
        let last_lines = self.tail.map(|tail| tail.finish(&say)).unwrap_or_default();
        // Before the report: a server that ends after the last one should leave nothing that its
        // next run would report once more.
        remove(&self.home, &worker).await;
        shared.live().remove(&worker);
        shared.report(Ended {
            worker: self.worker,
            endpoint: self.endpoint,
            exit,
            last_lines,
        });
    }

    /// Follows its output until its main process has ended.
    async fn until_ended(&mut self, main: Main, say: &(dyn Fn(&str) + Sync)) -> Exit {
        let mut kills = OomKills::watch(self.identity.pid());
        let mut ended = std::pin::pin!(main.ended());
        let exceeded = limits::exceeded(&self.home, self.identity.pid(), self.memory_bytes);
        let mut exceeded = std::pin::pin!(exceeded);
        let mut over = None;
        let exit = loop {
            tokio::select! {
                exit = &mut ended => break exit,
                () = &mut exceeded, if over.is_none() => {
                    over = self.memory_bytes;
                    self.kill_for_memory();
                }
                () = tokio::time::sleep(LOG_EVERY) => kills.look(),
            }
            if let Some(following) = &mut self.tail
                && let Err(error) = following.catch_up(say).await
            {
                tracing::warn!(worker.id = %self.worker, %error, "a worker's output is lost from here");
                self.tail = None;
            }
        };
        let stopped = self.stopped.load(Ordering::SeqCst);
        meaning(exit, over, stopped, || kills.happened())
    }

    fn kill_for_memory(&self) {
        let limit_mib = self.memory_bytes.unwrap_or_default() / (1024 * 1024);
        tracing::warn!(worker.id = %self.worker, limit_mib, "killing a worker that holds too much memory");
        self.kill_group();
    }

    fn kill_group(&self) {
        if let Err(error) = self.identity.kill_group() {
            tracing::warn!(worker.id = %self.worker, %error, "processes of a worker cannot be killed");
        }
    }

    /// Ends what its main process left.
    async fn sweep(&self) {
        // The SDK pings from a process of its own, which outlives its parent and would go on saying
        // that all is well.
        self.kill_group();
        // Some made a session of their own (`setsid`, `start_new_session`) and are in the group no more.
        let (left, of) = (self.home.clone(), self.worker.clone());
        let swept = tokio::task::spawn_blocking(move || kill_strays(&left, &of));
        if let Err(error) = swept.await {
            tracing::error!(
                worker.id = %self.worker, %error, "processes that a worker left may still run"
            );
        }
    }
}

/// What an end means: SIGKILL leaves no word of who sent it. `over` is the limit that the worker exceeded,
/// `stopped` says that it was to be killed anyway, and `happened` whether the kernel ended somebody.
fn meaning(exit: Exit, over: Option<u64>, stopped: bool, happened: impl FnOnce() -> bool) -> Exit {
    match exit {
        Exit::Signal(SIGKILL) | Exit::Unknown if !stopped && over.is_some() => {
            Exit::OutOfMemory { limit: over }
        }
        Exit::Signal(SIGKILL) if !stopped && happened() => Exit::OutOfMemory { limit: None },
        exit => exit,
    }
}

/// Removes a worker's directory, trying again while the last of its processes may still be dying.
async fn remove(home: &Home, worker: &WorkerId) {
    let mut tries = 1;
    while let Err(error) = home.remove() {
        if tries == REMOVE_TRIES {
            tracing::warn!(worker.id = %worker, %error, "a worker's directory was left");
            return;
        }
        tries += 1;
        tokio::time::sleep(REMOVE_EVERY).await;
    }
}

/// Ends what a worker of an earlier run left running, and removes its directory.
pub(super) fn clear_away(home: &Home, worker: &WorkerId) {
    kill_strays(home, worker);
    if let Err(error) = home.remove() {
        tracing::warn!(worker.id = %worker, %error, "a worker's directory was left");
    }
}

/// Ends what a worker left running wherever it may be: looks at every process of this machine.
pub(super) fn kill_strays(home: &Home, worker: &WorkerId) {
    let marker = format!("{MARKER}={}", home.path().display());
    match kill_left_behind(Some(home.path()), &marker) {
        Ok(0) => {}
        Ok(killed) => {
            tracing::info!(worker.id = %worker, killed, "killed processes that a worker left");
        }
        Err(error) => {
            tracing::warn!(worker.id = %worker, %error, "processes that a worker left may still run");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_called_out_of_memory_only_when_it_was_that() {
        let killed = Exit::Signal(9);
        let of_kernel = Exit::OutOfMemory { limit: None };
        let of_limit = Exit::OutOfMemory { limit: Some(7) };
        for (exit, over, stopped, happened, expected) in [
            (&killed, None, false, true, &of_kernel),
            (&killed, None, false, false, &killed),
            (&killed, None, true, true, &killed),
            (&killed, Some(7), false, true, &of_limit),
            (&killed, Some(7), true, false, &killed),
            // Found again, it is nobody's child.
            (&Exit::Unknown, Some(7), false, false, &of_limit),
            (&Exit::Unknown, None, false, true, &Exit::Unknown),
            (&Exit::Code(1), Some(7), false, true, &Exit::Code(1)),
            (&Exit::Signal(15), None, false, true, &Exit::Signal(15)),
        ] {
            let found = meaning(exit.clone(), over, stopped, || happened);
            assert_eq!(&found, expected, "{exit:?} {over:?} {stopped} {happened}");
        }
    }
}
