//! Whether the kernel ended a worker because memory had run out. It does so by SIGKILL, as others may.

use std::path::{Path, PathBuf};

/// Looks between two that are remembered: half a minute, when a worker is looked at ten times a second. A
/// process that held much memory takes its time to be gone, so what counts is older than the last look;
/// what was long before has nothing to do with it.
const LOOKS: u32 = 300;

/// Follows the kernel's count of processes that it ended for want of memory, as far as it tells it: for the
/// worker's own control group, else for the whole machine.
pub(super) struct OomKills {
    file: PathBuf,
    /// The count between half a minute and a minute ago, or when the worker was first seen.
    before: Option<u64>,
    recent: Option<u64>,
    looks: u32,
}

impl OomKills {
    /// From now on, for the worker with this main process.
    pub(super) fn watch(pid: i32) -> Self {
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let file = events(&cgroup, Path::new("/sys/fs/cgroup"));
        Self::of(file.unwrap_or_else(|| "/proc/vmstat".into()))
    }

    fn of(file: PathBuf) -> Self {
        let now = count(&file);
        Self {
            file,
            before: now,
            recent: now,
            looks: 0,
        }
    }

    /// Called ten times a second while the worker lives.
    pub(super) fn look(&mut self) {
        self.looks += 1;
        if self.looks == LOOKS {
            self.looks = 0;
            self.before = self.recent;
            self.recent = count(&self.file);
        }
    }

    /// Whether a process was ended lately.
    pub(super) fn happened(&self) -> bool {
        matches!((self.before, count(&self.file)), (Some(before), Some(now)) if now > before)
    }
}

/// The file of events of a control group, given what the kernel says a process is in.
fn events(cgroup: &str, root: &Path) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let file = root.join(path).join("memory.events");
    file.exists().then_some(file)
}

/// The line `oom_kill 3`, which both files have.
fn count(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    value?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_happened_lately_counts_and_what_was_long_before_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        let set = |n: u32| fs::write(&file, format!("oom 9\noom_kill {n}\nx 1\n")).unwrap();
        set(4);
        let mut kills = OomKills::of(file.clone());
        let minutes_pass = |kills: &mut OomKills| (0..2 * LOOKS).for_each(|_| kills.look());
        assert!(!kills.happened());
        set(5);
        assert!(kills.happened());
        // A process takes its time to be gone.
        (0..LOOKS).for_each(|_| kills.look());
        assert!(kills.happened());
        minutes_pass(&mut kills);
        assert!(!kills.happened());
        set(6);
        assert!(kills.happened());
        fs::remove_file(&file).unwrap();
        assert!(!kills.happened());
    }

    #[test]
    fn the_kernel_says_where_it_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("system.slice/lazyfox.service");
        fs::create_dir_all(&group).unwrap();
        let cgroup = "4:memory:/other\n0::/system.slice/lazyfox.service\n";
        assert_eq!(events(cgroup, root.path()), None);
        fs::write(group.join("memory.events"), "").unwrap();
        let found = events(cgroup, root.path());
        assert_eq!(found, Some(group.join("memory.events")));
        assert_eq!(events("4:memory:/other\n", root.path()), None);
        let here = OomKills::watch(i32::try_from(std::process::id()).unwrap());
        assert!(
            here.before.is_some(),
            "{} has no count",
            here.file.display()
        );
    }
}
