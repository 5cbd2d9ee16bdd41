//! When the server is killed, and how everybody learns that it is back.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use crate::process;
use crate::server::DEADLINE;

/// Counts acknowledgements; the one that reaches the chosen number kills the server on the spot, while
/// the requests of all other threads are under way.
pub(crate) struct Moments {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    acknowledged: u64,
    /// The server that runs, and at which count it is killed.
    up: Option<(i32, u64)>,
    phase: Phase,
}

/// How far the test is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Clients submit.
    Load,
    /// Clients go, workers finish what is left.
    Drain,
    /// Workers go.
    Over,
}

impl Moments {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                acknowledged: 0,
                up: None,
                phase: Phase::Load,
            }),
            changed: Condvar::new(),
        }
    }

    /// A server runs; it is killed after so many further acknowledgements.
    pub(crate) fn is_up(&self, pid: i32, lives_for: Option<u64>) {
        let mut state = self.state();
        let until = lives_for.map_or(u64::MAX, |count| state.acknowledged + count);
        state.up = Some((pid, until));
        self.changed.notify_all();
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state().phase
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.state().phase = phase;
        self.changed.notify_all();
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.state().acknowledged
    }

    /// Something was acknowledged.
    pub(crate) fn acknowledge(&self) {
        let mut state = self.state();
        state.acknowledged += 1;
        self.changed.notify_all();
        if let Some((pid, until)) = state.up
            && state.acknowledged >= until
        {
            process::signal(pid, Signal::KILL);
            state.up = None;
            self.changed.notify_all();
        }
    }

    /// Waits for so many further acknowledgements.
    pub(crate) fn until_further(&self, count: u64) {
        let target = self.acknowledged() + count;
        self.until(|state| state.acknowledged >= target);
    }

    /// Waits until the server has been killed.
    pub(crate) fn until_down(&self) {
        self.until(|state| state.up.is_none());
    }

    /// Waits until a server runs, which a caller does that found none.
    pub(crate) fn until_up(&self) {
        self.until(|state| state.up.is_some() || state.phase == Phase::Over);
    }

    fn until(&self, reached: impl Fn(&State) -> bool) {
        let waited = self
            .changed
            .wait_timeout_while(self.state(), DEADLINE, |state| !reached(state));
        let timed_out = waited.unwrap_or_else(PoisonError::into_inner).1.timed_out();
        assert!(!timed_out, "nothing happened for {DEADLINE:?}");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
