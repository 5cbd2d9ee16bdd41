//! What a worker may use: open files, which the kernel counts, and memory, which is counted here.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::environment::MARKER;
use super::home::Home;
use super::kernel::{self, Stat};
use crate::providers::StartError;

/// How often the memory of a worker with a limit is looked at. Faster than a program that reads what it
/// allocates fills a machine, and some tens of microseconds of work.
const MEMORY_EVERY: Duration = Duration::from_millis(250);

/// The share of one core that counting shared memory exactly may take: one part in so many.
const EXACT_SHARE: u32 = 20;

/// Limits the open files of a worker that was started a moment ago, and of whatever it may have started
/// since. (Before its start only the server itself could be limited, or another program in between.)
pub(super) fn limit_open_files(leader: Pid, files: u64) -> Result<(), StartError> {
    let limit = Rlimit {
        current: Some(files),
        maximum: Some(files),
    };
    let failed = |error: rustix::io::Errno| {
        let most = getrlimit(Resource::Nofile).maximum;
        let most = most.map(|most| format!(" (this server may give up to {most})"));
        let most = most.unwrap_or_default();
        StartError::new(format!("open_files cannot be {files}{most}: {error}"))
    };
    prlimit(Some(leader), Resource::Nofile, limit).map_err(failed)?;
    // A process inherits the limit from the one that starts it. So only those that were started before
    // are without, and what these started; in the last round there is none.
    loop {
        let mut late = false;
        let pids = kernel::pids().map_err(|error| StartError::new(format!("/proc: {error}")))?;
        for pid in pids {
            let of_group =
                Stat::read(pid).is_ok_and(|stat| stat.group == leader.as_raw_nonzero().get());
            if let Some(pid) = Pid::from_raw(pid)
                && of_group
            {
                match prlimit(Some(pid), Resource::Nofile, limit) {
                    Ok(before) => late |= before != limit,
                    Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        if !late {
            return Ok(());
        }
    }
}

/// Waits until the processes of a worker hold more memory than this. Never, where they cannot be
/// looked at.
pub(super) async fn exceeded(home: &Home, main: i32, limit: Option<u64>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let mut meter = Meter::new(home, main, limit);
    loop {
        tokio::time::sleep(MEMORY_EVERY).await;
        let look = tokio::task::spawn_blocking(move || {
            let exceeds = meter.exceeds();
            (meter, exceeds)
        });
        let Ok((again, exceeds)) = look.await else {
            tracing::error!("the memory of a worker cannot be counted any more");
            return std::future::pending().await;
        };
        meter = again;
        match exceeds {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the memory of a worker cannot be counted"),
        }
    }
}

/// Counts the memory of one worker: that of its process group, of what its processes started, and of what
/// carries its marker.
///
/// Counted is what is resident and could not be given back: pages of files that are only mapped do not
/// count, or a worker that maps a large model would be ended for what the kernel drops at need.
struct Meter {
    limit: u64,
    main: i32,
    home: PathBuf,
    marker: String,
    members: BTreeSet<i32>,
    /// Processes that were looked at once and are none of it. A number is not given to another process
    /// within one interval: they go round.
    strangers: BTreeSet<i32>,
    /// Not before then may shared memory be counted exactly once more.
    exact_from: Instant,
}

impl Meter {
    fn new(home: &Home, main: i32, limit: u64) -> Self {
        Self {
            limit,
            main,
            home: home.path().to_owned(),
            marker: format!("{MARKER}={}", home.path().display()),
            members: BTreeSet::from([main]),
            strangers: BTreeSet::new(),
            exact_from: Instant::now(),
        }
    }

    fn exceeds(&mut self) -> io::Result<bool> {
        self.find_members()?;
        let sum = |count: fn(i32) -> u64| self.members.iter().map(|&pid| count(pid)).sum::<u64>();
        // Cheap, and never too little: what processes share is in it once for each.
        if sum(resident) <= self.limit {
            return Ok(false);
        }
        // The kernel walks through all pages for it, which takes milliseconds for each gigabyte.
        let begun = Instant::now();
        if begun < self.exact_from {
            return Ok(false);
        }
        let exceeds = sum(proportional) > self.limit;
        self.exact_from = begun + begun.elapsed() * EXACT_SHARE;
        Ok(exceeds)
    }

    fn find_members(&mut self) -> io::Result<()> {
        let present = kernel::pids()?;
        self.members.retain(|pid| present.contains(pid));
        self.strangers.retain(|pid| present.contains(pid));
        for pid in present {
            if self.members.contains(&pid) || self.strangers.contains(&pid) {
                continue;
            }
            match self.is_member(pid) {
                Some(true) => self.members.insert(pid),
                Some(false) => self.strangers.insert(pid),
                None => false,
            };
        }
        Ok(())
    }

    fn is_member(&self, pid: i32) -> Option<bool> {
        let stat = Stat::read(pid).ok()?;
        if stat.is_kernel_thread() {
            return Some(false);
        }
        if stat.group == self.main || self.members.contains(&stat.parent) {
            return Some(true);
        }
        kernel::of_worker(pid, Some(&self.home), &self.marker)
    }
}

/// What a process has resident and could not give back, in bytes; 0 when it is gone.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kibibytes(&status, "RssAnon:").unwrap_or_default()
        + kibibytes(&status, "RssShmem:").unwrap_or_default()
}

/// The same, where pages that several processes share count in parts that add up to one.
fn proportional(pid: i32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    match kibibytes(&pages, "Pss_Anon:") {
        Some(anonymous) => anonymous + kibibytes(&pages, "Pss_Shmem:").unwrap_or_default(),
        // Older kernels do not tell, and neither does a process that another user runs.
        None => resident(pid),
    }
}

/// The value of a line such as `RssAnon:     1234 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let value: u64 = value.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(value * 1024)
}

#[cfg(test)]
mod tests;
