//! Follows each worker to its end: hands on its output, sweeps what it leaves, reports how it ended.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
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
use super::tail::Tail;
use crate::providers::{Ended, Exit, Output, Release, Source};

/// How often a worker's log is looked at. Fast enough to read along, and some microseconds of work;
/// inotify would save them, for a file that mostly changes whenever one looks. It is done only while
/// the worker lives, so that a server without workers does nothing.
const LOG_EVERY: Duration = Duration::from_millis(100);

/// How often a worker that is not our child is looked at: only parents are told of an end.
const ALIVE_EVERY: Duration = Duration::from_millis(250);

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
                Ok(status) => match (status.code(), status.signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::Unknown,
                },
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
    pub(super) home: Home,
    pub(super) main: Main,
    pub(super) tail: Option<Tail>,
}

impl Watch {
    /// Returns when the worker has ended and nothing of it is left.
    pub(super) async fn run(self, shared: Arc<Shared>, identity: Identity, endpoint: EndpointId) {
        let Self {
            worker,
            home,
            main,
            mut tail,
        } = self;
        let say = |line: &str| shared.output.line(&endpoint, &worker, Source::Worker, line);
        let mut ended = std::pin::pin!(main.ended());
        let exit = loop {
            tokio::select! {
                exit = &mut ended => break exit,
                () = tokio::time::sleep(LOG_EVERY) => {}
            }
            if let Some(following) = &mut tail
                && let Err(error) = following.catch_up(&say).await
            {
                tracing::warn!(worker.id = %worker, %error, "a worker's output is lost from here");
                tail = None;
            }
        };
        // The SDK pings from a process of its own, which outlives its parent and would go on saying
        // that all is well.
        if let Err(error) = identity.kill_group() {
            tracing::warn!(worker.id = %worker, %error, "children of a worker cannot be killed");
        }
        // Some made a session of their own (`setsid`, `start_new_session`) and are in the group no more.
        let (left, of) = (home.clone(), worker.clone());
        let swept = tokio::task::spawn_blocking(move || kill_strays(&left, &of));
        if let Err(error) = swept.await {
            tracing::error!(worker.id = %worker, %error, "processes that a worker left may still run");
        }
        if let Some(following) = &mut tail
            && let Err(error) = following.catch_up(&say).await
        {
            tracing::warn!(worker.id = %worker, %error, "the last output of a worker is lost");
        }
        let last_lines = tail.map(|tail| tail.finish(&say)).unwrap_or_default();
        // Before the report: a server that ends after the last one should leave nothing that its
        // next run would report once more.
        remove(&home, &worker).await;
        shared.live().remove(&worker);
        shared.report(Ended {
            worker: worker.clone(),
            endpoint: endpoint.clone(),
            exit,
            last_lines,
        });
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
fn kill_strays(home: &Home, worker: &WorkerId) {
    match kill_left_behind(home.path(), &format!("{MARKER}={}", home.path().display())) {
        Ok(0) => {}
        Ok(killed) => {
            tracing::info!(worker.id = %worker, killed, "killed processes that a worker left");
        }
        Err(error) => {
            tracing::warn!(worker.id = %worker, %error, "processes that a worker left may still run");
        }
    }
}
