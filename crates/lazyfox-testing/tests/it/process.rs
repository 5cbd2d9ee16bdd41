//! Other processes: waits for their end that are bounded without sleeping.

use std::fs;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::client::GUARD;

/// A process that was there when this was made; its id may go to another one later.
pub(crate) struct Process(OwnedFd);

impl Process {
    /// None when there is no such process.
    pub(crate) fn find(id: u32) -> Option<Self> {
        let id = i32::try_from(id).expect("a process id fits");
        let id = Pid::from_raw(id).expect("a process id is above zero");
        match pidfd_open(id, PidfdFlags::empty()) {
            Ok(fd) => Some(Self(fd)),
            Err(Errno::SRCH) => None,
            Err(error) => panic!("pidfd_open: {error}"),
        }
    }

    /// The processes that the main thread of this one has started.
    pub(crate) fn children_of(id: u32) -> Vec<Self> {
        let path = format!("/proc/{id}/task/{id}/children");
        let ids = fs::read_to_string(path).expect("the process is there");
        ids.split_whitespace()
            .filter_map(|id| Self::find(id.parse().expect("they are numbers")))
            .collect()
    }

    /// Waits for its end.
    pub(crate) fn until_ended(&self, what: &str) {
        let timeout = Timespec::try_from(GUARD).expect("a minute fits");
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => panic!("waited {GUARD:?} in vain for the end of {what}"),
                Ok(_) => return,
                Err(Errno::INTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        }
    }
}
