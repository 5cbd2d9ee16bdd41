//! Other processes: signals to them, and waits for their end that are bounded without sleeping.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{self as os, Pid, PidfdFlags, Signal};

/// Waits for the end of a process; `false` when it outlives the wait.
pub(crate) fn ended(pid: u32, at_most: Duration) -> bool {
    let pid = match os::pidfd_open(as_pid(pid), PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(Errno::SRCH) => return true,
        Err(error) => panic!("pidfd_open: {error}"),
    };
    let timeout = Timespec::try_from(at_most).expect("a deadline of minutes fits");
    let mut fds = [PollFd::new(&pid, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// Sends a signal to one process; one that is gone already is no error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    match os::kill_process(as_pid(pid), signal) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => panic!("kill {pid}: {error}"),
    }
}

fn as_pid(pid: u32) -> Pid {
    let pid = i32::try_from(pid).expect("a process id fits");
    Pid::from_raw(pid).expect("a process id is above zero")
}
