//! A bound on the servers that run at the same time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A cold Python worker takes a whole core for seconds: more servers than this on a small machine
/// would only wait for each other.
const SERVERS_AT_ONCE: usize = 2;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to run one server.
pub(crate) struct Permit(());

/// Waits until another server may run.
pub(crate) fn take() -> Permit {
    let mut running = lock();
    while *running >= SERVERS_AT_ONCE {
        running = ENDED.wait(running).unwrap_or_else(PoisonError::into_inner);
    }
    *running += 1;
    Permit(())
}

impl Drop for Permit {
    fn drop(&mut self) {
        *lock() -= 1;
        ENDED.notify_one();
    }
}

fn lock() -> MutexGuard<'static, usize> {
    // A test that failed is no reason for the others not to run.
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
