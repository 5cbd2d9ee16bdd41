//! What waits to be written: bounded, and given to the writer in one piece.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::time::Timestamp;
use tokio::sync::{oneshot, watch};

use super::Line;
use super::segments::Head;

/// Bytes of one endpoint's lines that may wait: a fast disk takes them within a tenth of a second, and a
/// worker that writes more than that cannot be read anyway.
pub(super) const WAITING_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that may wait of all of them together.
const WAITING_BYTES_ALL: usize = 16 * WAITING_BYTES;

/// What a line weighs beside its text.
const LINE_BYTES: usize = 128;

/// How long the writer waits for more after a first line. Workers' output is looked at ten times a second
/// and comes in heaps; each heap should be one write.
const GATHER: Duration = Duration::from_millis(10);

/// So much is worth a write at once.
const ENOUGH_BYTES: usize = 256 * 1024;

/// The queue.
pub(super) struct Queue {
    state: Mutex<State>,
    /// Something came that the writer should look at.
    ready: Condvar,
}

#[derive(Default)]
struct State {
    batch: Batch,
    bytes: usize,
    closed: bool,
}

/// What the writer has to do.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) lines: HashMap<EndpointId, Waiting>,
    /// To be answered after the lines are written.
    pub(super) requests: Vec<(EndpointId, Answer)>,
    /// Nothing comes after it.
    pub(super) is_last: bool,
}

/// Who asked for it gets the endpoint's directory, and what there is in it from now on.
pub(super) type Answer = oneshot::Sender<(PathBuf, watch::Receiver<Head>)>;

/// Lines of an endpoint in the order of their coming.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) lines: Vec<Line>,
    bytes: usize,
    /// How many of each worker there was no room for, after all of `lines`.
    pub(super) dropped: BTreeMap<WorkerId, Gap>,
}

/// Lines of a worker that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// How many.
    pub(super) lines: u64,
    /// When the last of them was seen.
    pub(super) at: Timestamp,
}

impl Default for Gap {
    fn default() -> Self {
        Self {
            lines: 0,
            at: Timestamp::from_ms(0),
        }
    }
}

impl Gap {
    pub(super) fn add(&mut self, line: &Line) {
        self.lines += 1;
        self.at = line.at;
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            ready: Condvar::new(),
        }
    }
}

impl Queue {
    /// One that takes nothing.
    pub(super) fn closed() -> Self {
        let queue = Self::default();
        queue.close();
        queue
    }

    pub(super) fn append(&self, line: Line) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        let (bytes, all) = (line.text.len() + LINE_BYTES, state.bytes);
        let of_endpoint = state.batch.lines.entry(line.endpoint.clone()).or_default();
        // Once one is left out all are, until there is room for many again: else the lines that happen to
        // be short would go on and nobody could say where the gap is.
        let full = !of_endpoint.dropped.is_empty()
            || (of_endpoint.bytes > 0 && of_endpoint.bytes + bytes > WAITING_BYTES)
            || (all > 0 && all + bytes > WAITING_BYTES_ALL);
        if full {
            let gap = of_endpoint.dropped.entry(line.worker.clone()).or_default();
            gap.add(&line);
        } else {
            of_endpoint.bytes += bytes;
            of_endpoint.lines.push(line);
            state.bytes += bytes;
        }
        let (before, after) = (all, state.bytes);
        drop(state);
        if before == 0 || (before < ENOUGH_BYTES && after >= ENOUGH_BYTES) {
            self.ready.notify_one();
        }
    }

    /// Asks the writer for an endpoint's log. When it is closed, the answer is dropped.
    pub(super) fn request(&self, endpoint: EndpointId, answer: Answer) {
        let mut state = self.state();
        if !state.closed {
            state.batch.requests.push((endpoint, answer));
            self.ready.notify_one();
        }
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.ready.notify_one();
    }

    /// Puts lines in as if they had gathered, and does not wake the writer.
    #[cfg(test)]
    pub(super) fn hold(&self, endpoint: EndpointId, waiting: Waiting) {
        self.state().batch.lines.insert(endpoint, waiting);
    }

    /// Waits for something to do.
    pub(super) fn take(&self) -> Batch {
        let wait = |state, until: fn(&State) -> bool| {
            let woken = self.ready.wait_while(state, |state| !until(state));
            woken.unwrap_or_else(PoisonError::into_inner)
        };
        let mut state = wait(self.state(), |state| state.bytes > 0 || state.is_urgent());
        if !state.is_urgent() {
            let gathered = self
                .ready
                .wait_timeout_while(state, GATHER, |state| !state.is_urgent());
            (state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes = 0;
        Batch {
            is_last: state.closed,
            ..mem::take(&mut state.batch)
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_urgent(&self) -> bool {
        self.closed || !self.batch.requests.is_empty() || self.bytes >= ENOUGH_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::Source;

    fn line(endpoint: &str, worker: &str, bytes: usize) -> Line {
        Line {
            at: Timestamp::from_ms(0),
            endpoint: endpoint.parse().unwrap(),
            worker: worker.parse().unwrap(),
            job: None,
            source: Source::Worker,
            text: "x".repeat(bytes),
        }
    }

    #[test]
    fn what_waits_is_bounded_and_counted() {
        let queue = Queue::default();
        let quarter = WAITING_BYTES / 4 - LINE_BYTES;
        for _ in 0..4 {
            queue.append(line("a", "w1", quarter));
        }
        // There is no room left, and a short line does not slip in before the gap is told.
        queue.append(line("a", "w1", 0));
        queue.append(line("a", "w2", 0));
        queue.append(line("a", "w2", quarter));
        queue.append(line("b", "w3", 0));
        let batch = queue.take();
        let [a, b] = ["a", "b"].map(|name| &batch.lines[&name.parse::<EndpointId>().unwrap()]);
        assert_eq!((a.lines.len(), b.lines.len()), (4, 1));
        let dropped: Vec<(&str, u64)> = a
            .dropped
            .iter()
            .map(|(w, gap)| (w.as_str(), gap.lines))
            .collect();
        assert_eq!(dropped, [("w1", 1), ("w2", 2)]);
        assert!(b.dropped.is_empty());
        // Then there is room again.
        queue.append(line("a", "w1", 0));
        assert_eq!(queue.take().lines.len(), 1);
    }

    #[test]
    fn what_waits_of_all_endpoints_is_bounded_too() {
        let queue = Queue::default();
        for n in 0..20 {
            queue.append(line(&format!("e{n}"), "w", WAITING_BYTES - LINE_BYTES));
        }
        let batch = queue.take();
        let (lines, dropped): (Vec<_>, Vec<_>) = batch
            .lines
            .values()
            .map(|it| (it.lines.len(), it.dropped.len()))
            .unzip();
        assert_eq!(lines.iter().sum::<usize>(), 16);
        assert_eq!(dropped.iter().sum::<usize>(), 4);
    }

    #[test]
    fn a_closed_queue_hands_out_what_it_has_and_takes_nothing() {
        let queue = Queue::default();
        queue.append(line("a", "w", 1));
        queue.close();
        queue.append(line("a", "w", 1));
        let (answer, mut opened) = oneshot::channel();
        queue.request("a".parse().unwrap(), answer);
        assert!(opened.try_recv().is_err());
        let batch = queue.take();
        assert!(batch.is_last);
        assert_eq!(batch.lines.values().next().unwrap().lines.len(), 1);
    }
}
