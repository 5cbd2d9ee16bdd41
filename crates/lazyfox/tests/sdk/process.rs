//! Other processes: signals to them, and waits for their end that are bounded without sleeping.

use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{self as os, Pid, PidfdFlags, Signal};

/// Waits until the descriptor can be read from (a listener, or the end of a process).
pub(crate) fn readable(fd: impl AsFd, at_most: Duration) -> bool {
    let timeout = Timespec::try_from(at_most).expect("a deadline of minutes fits");
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Waits for the end of a process; `false` when it outlives the wait.
pub(crate) fn ended(pid: i32, at_most: Duration) -> bool {
    match os::pidfd_open(as_pid(pid), PidfdFlags::empty()) {
        Ok(fd) => readable(fd, at_most),
        Err(Errno::SRCH) => true,
        Err(error) => panic!("pidfd_open: {error}"),
    }
}

/// Sends a signal to one process; one that is gone already is no error.
pub(crate) fn signal(pid: i32, signal: Signal) {
    match os::kill_process(as_pid(pid), signal) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => panic!("kill {pid}: {error}"),
    }
}

/// The processes whose environment holds this `NAME=value`.
pub(crate) fn with_variable(variable: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc can be read");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        // A process that ended in the meantime, or is of another user, is none of ours.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == variable.as_bytes())
    })
    .collect()
}

pub(crate) fn as_pid(pid: i32) -> Pid {
    Pid::from_raw(pid).expect("a process id is above zero")
}
