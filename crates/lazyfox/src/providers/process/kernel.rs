//! What the kernel says about a process: which one it is, whether it lives, and how to end it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};

/// How often the processes of this machine are looked through for those of one worker, at most: the
/// killed ones may be seen once more while they die.
const LEFT_BEHIND_PASSES: usize = 10;

/// A process that no other can be mistaken for: numbers are used again, but not together with the
/// same start time in the same boot. The leader of a process group in all uses here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The process id, which is the id of the process group as well.
    pid: i32,
    /// Clock ticks from boot to the start of the process: field 22 of `/proc/<pid>/stat`.
    started_ticks: u64,
    /// The boot that the ticks count from: machines come up alike, so a pid and its start time can
    /// well return after a power loss.
    boot: String,
}

/// What `/proc/<pid>/stat` says, as far as anyone asks here.
pub(super) struct Stat {
    state: char,
    /// The process that started it, or that inherited it.
    pub(super) parent: i32,
    /// Its process group.
    pub(super) group: i32,
    flags: u64,
    started_ticks: u64,
}

/// In [`Stat::flags`]: a thread of the kernel, which has neither memory nor environment of its own.
const KERNEL_THREAD: u64 = 0x0020_0000;

impl Stat {
    pub(super) fn read(pid: i32) -> io::Result<Self> {
        let text = std::fs::read(format!("/proc/{pid}/stat"))?;
        let text = String::from_utf8_lossy(&text);
        Self::parse(&text).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/{pid}/stat is not understood"),
            )
        })
    }

    /// The second field is the program's name in parentheses and may hold spaces and parentheses
    /// itself, so counting begins behind the last one.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        Some(Self {
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            flags: fields.nth(3)?.parse().ok()?,
            started_ticks: fields.nth(12)?.parse().ok()?,
        })
    }

    pub(super) fn is_kernel_thread(&self) -> bool {
        self.flags & KERNEL_THREAD != 0
    }
}

impl Identity {
    /// The process that has this number now.
    ///
    /// # Errors
    /// When there is none, or `/proc` cannot be read.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        let started_ticks = Stat::read(pid)?.started_ticks;
        Ok(Self {
            pid,
            started_ticks,
            boot: boot(),
        })
    }

    /// The process's number.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether the process still runs. A zombie does not: who inherits the workers of a dead server
    /// may never collect them, as the first process of many containers.
    pub(super) fn is_alive(&self) -> bool {
        boot() == self.boot
            && Stat::read(self.pid).is_ok_and(|stat| {
                stat.started_ticks == self.started_ticks && !matches!(stat.state, 'Z' | 'X')
            })
    }

    /// SIGTERM to the process alone.
    pub(super) fn terminate(&self) -> io::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        gone_is_fine(kill_process(self.raw()?, Signal::TERM))
    }

    /// SIGTERM to all of the process group, while its leader runs.
    pub(crate) fn terminate_group(&self) -> io::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        gone_is_fine(kill_process_group(self.raw()?, Signal::TERM))
    }

    /// SIGKILL to all of the process group, also when its leader has ended already.
    ///
    /// The kernel gives a number to nobody else while a group still bears it. So if another process
    /// has it now, the group is gone, and the signal would hit a stranger.
    pub(crate) fn kill_group(&self) -> io::Result<()> {
        if Stat::read(self.pid).is_ok_and(|stat| stat.started_ticks != self.started_ticks) {
            return Ok(());
        }
        gone_is_fine(kill_process_group(self.raw()?, Signal::KILL))
    }

    /// Numbers below 2 are refused: to `kill`, 0 is the group of this server, 1 as a group is every
    /// process there is, and the file they come from may be damaged.
    pub(super) fn raw(&self) -> io::Result<Pid> {
        Pid::from_raw(self.pid)
            .filter(|_| self.pid > 1)
            .ok_or_else(|| io::Error::other(format!("{} is not the pid of a worker", self.pid)))
    }
}

/// Ends every process that stands in `dir` or below, if one is given, or whose environment contains
/// `marker`, such as `NAME=value`. Says how many there were.
///
/// This finds what a worker left behind while no server was there to see it end, and what made a process
/// group of its own. The worker's is not enough to go by: when its leader is long gone, the number may have
/// gone round. Neither sign is
/// enough alone: a process may move elsewhere, and its environment looks empty for a moment while it
/// turns into another program.
pub(crate) fn kill_left_behind(dir: Option<&Path>, marker: &str) -> io::Result<usize> {
    let mut killed = BTreeSet::new();
    // A process that was forked while the list was read may be missing in it.
    for _ in 0..LEFT_BEHIND_PASSES {
        let found = left_behind(dir, marker)?;
        if found.is_empty() {
            break;
        }
        for pid in found {
            gone_is_fine(kill_process(pid, Signal::KILL))?;
            killed.insert(pid.as_raw_nonzero());
        }
    }
    Ok(killed.len())
}

fn left_behind(dir: Option<&Path>, marker: &str) -> io::Result<Vec<Pid>> {
    let belongs = |pid: &i32| of_worker(*pid, dir, marker) == Some(true);
    let found = pids()?.into_iter().filter(belongs);
    Ok(found.filter_map(Pid::from_raw).collect())
}

/// The processes of this machine, as far as this one sees them.
pub(super) fn pids() -> io::Result<BTreeSet<i32>> {
    let entries = Path::new("/proc").read_dir()?.flatten();
    Ok(entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

/// Whether a process belongs to the worker in `dir`, whose processes carry `marker`. `None` when that
/// cannot be told now: it is gone, is just turning into another program, or threw its environment away.
pub(super) fn of_worker(pid: i32, dir: Option<&Path>, marker: &str) -> Option<bool> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let stands_in =
        |dir| std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    if dir.is_some_and(stands_in) {
        return Some(true);
    }
    match std::fs::read(proc.join("environ")) {
        Ok(environ) if !environ.is_empty() => Some(
            environ
                .split(|&byte| byte == 0)
                .any(|one| one == marker.as_bytes()),
        ),
        // Processes of other users cannot be looked into, and none of them is ours.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(false),
        Ok(_) | Err(_) => None,
    }
}

/// Empty where the kernel does not tell, as in some sandboxes: the ticks must do alone then.
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|boot| boot.trim().to_owned())
        .unwrap_or_default()
}

fn gone_is_fine(result: Result<(), rustix::io::Errno>) -> io::Result<()> {
    match result {
        Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_names_with_spaces_and_parentheses_do_not_shift_the_fields() {
        let stat = "17 (a b) c) S 1 17 17 0 -1 4194304 97 0 0 0 1 2 3 4 20 0 1 0 93088 3133440 382";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!((stat.state, stat.started_ticks), ('S', 93_088));
        assert_eq!((stat.parent, stat.group, stat.flags), (1, 17, 4_194_304));
    }

    #[test]
    fn a_process_is_itself_and_alive() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(
            !Identity {
                started_ticks: me.started_ticks + 1,
                ..me.clone()
            }
            .is_alive()
        );
        assert!(
            !Identity {
                boot: "another".to_owned(),
                ..me
            }
            .is_alive()
        );
    }
}
