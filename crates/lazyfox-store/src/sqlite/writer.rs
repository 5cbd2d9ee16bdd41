//! The one thread that writes. It takes whatever has gathered, runs it in one transaction, commits
//! once, and answers each caller. A group is taken as soon as the thread is free: a lone caller never waits
//! for company. And nobody suffers for the company they had: when an operation fails for a reason of its own,
//! the others of its group are run again without it.

use std::thread::JoinHandle;

use lazyfox_core::time::Timestamp;
use tokio::sync::mpsc;

use super::rows::SqlRows;
use crate::engine::Engine;
use crate::work::{self, Asked, Work};
use crate::{Answer, LeaseMs, StoreError};

/// Most operations in one commit.
const GROUP_MAX: usize = 1024;
/// Payload bytes after which a group is closed: one huge body should not keep many small ones waiting.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Operations that wait for the writer; more callers wait for a place.
const WAITING_MAX: usize = 4096;

pub(super) struct Writer {
    calls: Option<mpsc::Sender<Call>>,
    thread: Option<JoinHandle<()>>,
}

struct Call {
    now: Option<Timestamp>,
    bytes: usize,
    work: Box<dyn Work<SqlRows>>,
}

impl Writer {
    /// Derives the index and starts the thread.
    pub(super) fn start(
        rows: SqlRows,
        now: Timestamp,
        lease_ms: LeaseMs,
    ) -> Result<Self, StoreError> {
        let engine = Engine::open(rows, now, lease_ms)?;
        let (calls, waiting) = mpsc::channel(WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || work(engine, waiting, now))
            .map_err(|e| StoreError::Open(format!("cannot start the store's thread: {e}")))?;
        Ok(Self {
            calls: Some(calls),
            thread: Some(thread),
        })
    }

    /// Runs an operation in the next group. `bytes` is the size of its payload. It may run more than once,
    /// each time on a state to which nothing of the run before has happened.
    pub(super) fn call<'a, T: Send + 'static>(
        &'a self,
        now: Option<Timestamp>,
        bytes: usize,
        run: impl Fn(&mut Engine<SqlRows>) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'a, T> {
        self.ask(now, bytes, work::work(run))
    }

    pub(super) fn ask<T: Send + 'static>(
        &self,
        now: Option<Timestamp>,
        bytes: usize,
        (work, answer): Asked<SqlRows, T>,
    ) -> Answer<'_, T> {
        Box::pin(async move {
            let stopped = || StoreError::Unavailable("the store is shut down".to_owned());
            let calls = self.calls.as_ref().ok_or_else(stopped)?;
            calls
                .send(Call { now, bytes, work })
                .await
                .map_err(|_| stopped())?;
            answer.await.map_err(|_| stopped())?
        })
    }
}

impl Drop for Writer {
    /// Lets the thread finish what it was given, so that the lock is let go after the last write.
    fn drop(&mut self) {
        self.calls = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `now` is the latest time that any caller named: a rederived index needs one for its leases.
fn work(engine: Engine<SqlRows>, mut waiting: mpsc::Receiver<Call>, now: Timestamp) {
    let mut committer = Committer {
        engine,
        now,
        index_is_true: true,
    };
    while let Some(first) = waiting.blocking_recv() {
        let mut group = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(call) = next {
            committer.now = committer.now.max(call.now.unwrap_or(committer.now));
            bytes += call.bytes;
            group.push(call.work);
            let full = group.len() == GROUP_MAX || bytes >= GROUP_BYTES_MAX;
            next = if full { None } else { waiting.try_recv().ok() };
        }
        committer.carry_out(group);
    }
    committer.engine.rows.close();
}

struct Committer {
    engine: Engine<SqlRows>,
    now: Timestamp,
    index_is_true: bool,
}

/// Why nothing of a group happened.
#[derive(Clone)]
struct Failed {
    error: StoreError,
    whose: Whose,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// One operation's own: without it the others would have happened.
    OneOperations,
    /// The disk's, which fails all alike. To try it once for each would only make them wait.
    Everybodys,
}

impl Committer {
    /// All in one commit; where that fails by the fault of one, each in a commit of its own.
    fn carry_out(&mut self, mut group: Vec<Box<dyn Work<SqlRows>>>) {
        let committed = self.commit(&mut group);
        let whose = committed.as_ref().err().map(|failed| failed.whose);
        if group.len() == 1 || whose != Some(Whose::OneOperations) {
            return answer(group, &committed);
        }
        let mut disk = Ok(());
        for work in group {
            let mut alone = vec![work];
            let committed = disk.clone().and_then(|()| self.commit(&mut alone));
            if let Err(failed) = &committed
                && failed.whose == Whose::Everybodys
            {
                disk = committed.clone();
            }
            answer(alone, &committed);
        }
    }

    /// Either all of the group happened, or nothing of it, and the index does not think that it did.
    fn commit(&mut self, group: &mut [Box<dyn Work<SqlRows>>]) -> Result<(), Failed> {
        if !self.index_is_true {
            let derived = self.engine.rederive(self.now);
            derived.map_err(|error| Failed {
                error,
                whose: Whose::Everybodys,
            })?;
            self.index_is_true = true;
        }
        let before = self.engine.index_changes();
        self.try_commit(group).map_err(|error| {
            let own = matches!(error, StoreError::Corrupt(_)) || self.engine.rows.refused();
            self.engine.rows.rollback();
            // Every change of the index is counted, so one that was not touched is as true as it was
            // after the last commit; to derive it anew takes seconds with a million jobs.
            self.index_is_true =
                self.engine.index_changes() == before || self.engine.rederive(self.now).is_ok();
            let whose = if own {
                Whose::OneOperations
            } else {
                Whose::Everybodys
            };
            Failed { error, whose }
        })
    }

    fn try_commit(&mut self, group: &mut [Box<dyn Work<SqlRows>>]) -> Result<(), StoreError> {
        for work in &mut *group {
            let before = self.changes();
            match work.run(&mut self.engine) {
                // What found damage before it changed anything keeps its error to itself: the others
                // need not be run again.
                Err(StoreError::Corrupt(_)) if self.changes() == before => {}
                outcome => outcome?,
            }
        }
        self.engine.flush_counters()?;
        self.engine.rows.commit()?;
        for work in group {
            work.look(&self.engine);
        }
        Ok(())
    }

    fn changes(&self) -> (u64, u64) {
        (self.engine.index_changes(), self.engine.rows.writes())
    }
}

fn answer(group: Vec<Box<dyn Work<SqlRows>>>, committed: &Result<(), Failed>) {
    for work in group {
        work.answer(committed.clone().map_err(|failed| failed.error));
    }
}
