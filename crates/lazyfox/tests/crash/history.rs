//! What clients and workers did and saw, in an order that can be relied on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// What somebody did or saw. It happened at some moment between `from` and `to`, which count calls: a
/// call that began after another had ended has a `from` above the other's `to`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) job: String,
    pub(crate) what: What,
}

/// Calls without an answer are entered too: they may have done something before the server died.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// The server acknowledged it; the tag stands in its input.
    Submitted { tag: String },
    /// An answer showed the job like this.
    Saw(Seen),
    /// An answer named only its status.
    SawStatus(String),
    /// A worker got it, with this input.
    Took { worker: String, input: String },
    /// A worker reported an end.
    Posted {
        worker: String,
        result: PostedResult,
        acknowledged: bool,
    },
    /// A client asked to cancel it.
    Cancelled,
    /// A client asked to retry it and was not refused.
    Retried,
    /// A client asked to purge the queue it may have stood in; the entry names no job.
    Purged { endpoint: &'static str },
}

/// A job as an answer shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) status: String,
    pub(crate) output: Option<Value>,
    pub(crate) error: Option<String>,
    pub(crate) worker: Option<String>,
}

/// What a worker reports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PostedResult {
    Output(Value),
    Error(String),
    /// Another result after the first one was acknowledged: it must have no effect.
    TooLate,
}

impl Seen {
    pub(crate) fn of(answer: &Value) -> Self {
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        Self {
            status: text("status").unwrap_or_else(|| panic!("no status: {answer}")),
            output: answer.get("output").cloned(),
            error: text("error"),
            worker: text("workerId"),
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        match self.status.as_str() {
            "IN_QUEUE" | "IN_PROGRESS" => false,
            "COMPLETED" | "FAILED" | "CANCELLED" | "TIMED_OUT" => true,
            other => panic!("not a status: {other}"),
        }
    }
}

/// The log that all threads write.
#[derive(Default)]
pub(crate) struct History {
    clock: AtomicU64,
    entries: Mutex<Vec<Entry>>,
}

impl History {
    /// The next number.
    pub(crate) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Enters what happened since `from` and before now.
    pub(crate) fn enter(&self, from: u64, job: &str, what: What) {
        let entry = Entry {
            from,
            to: self.tick(),
            job: job.to_owned(),
            what,
        };
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(entry);
    }

    /// Everything so far.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
