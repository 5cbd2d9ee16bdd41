//! The one thread that writes. It takes whatever has gathered, runs it in one transaction, commits
//! once, and answers each caller. A group is taken as soon as the thread is free: a lone caller never waits
//! for company.

use std::thread::JoinHandle;

use lazyfox_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::rows::SqlRows;
use crate::engine::{Engine, Result};
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
    work: Box<dyn Work>,
}

/// One caller's operation: run within the transaction, answered after the commit.
trait Work: Send {
    fn run(&mut self, engine: &mut Engine<SqlRows>) -> Result<()>;
    fn answer(self: Box<Self>, committed: Result<()>);
}

struct Pending<F, T> {
    run: Option<F>,
    result: Option<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Work for Pending<F, T>
where
    F: FnOnce(&mut Engine<SqlRows>) -> Result<T> + Send,
    T: Send,
{
    fn run(&mut self, engine: &mut Engine<SqlRows>) -> Result<()> {
        if let Some(run) = self.run.take() {
            self.result = Some(run(engine)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<()>) {
        let unanswered = || StoreError::Unavailable("the operation was not run".to_owned());
        let Self { result, reply, .. } = *self;
        let answer = committed.and_then(|()| result.ok_or_else(unanswered));
        // A caller that went away took its own precautions.
        let _ = reply.send(answer);
    }
}

impl Writer {
    /// Derives the index and starts the thread.
    pub(super) fn start(rows: SqlRows, now: Timestamp, lease_ms: LeaseMs) -> Result<Self> {
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

    /// Runs an operation in the next group. `bytes` is the size of its payload.
    pub(super) fn call<'a, T: Send + 'static>(
        &'a self,
        now: Option<Timestamp>,
        bytes: usize,
        run: impl FnOnce(&mut Engine<SqlRows>) -> Result<T> + Send + 'static,
    ) -> Answer<'a, T> {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Pending {
            run: Some(run),
            result: None,
            reply,
        });
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
fn work(mut engine: Engine<SqlRows>, mut waiting: mpsc::Receiver<Call>, mut now: Timestamp) {
    let mut index_is_true = true;
    while let Some(first) = waiting.blocking_recv() {
        let mut group = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(call) = next {
            now = now.max(call.now.unwrap_or(now));
            bytes += call.bytes;
            group.push(call.work);
            let full = group.len() == GROUP_MAX || bytes >= GROUP_BYTES_MAX;
            next = if full { None } else { waiting.try_recv().ok() };
        }
        let committed = if index_is_true {
            Ok(())
        } else {
            engine.rederive(now)
        }
        .and_then(|()| commit(&mut engine, &mut group));
        index_is_true = committed.is_ok() || recover(&mut engine, now);
        for work in group {
            work.answer(committed.clone());
        }
    }
    engine.rows.close();
}

fn commit(engine: &mut Engine<SqlRows>, group: &mut [Box<dyn Work>]) -> Result<()> {
    for work in group {
        work.run(engine)?;
    }
    engine.flush_counters()?;
    engine.rows.commit()
}

/// Nothing of the group happened; the index must not think it did.
fn recover(engine: &mut Engine<SqlRows>, now: Timestamp) -> bool {
    engine.rows.rollback();
    engine.rederive(now).is_ok()
}
