//! A process of its own that ends what a dead worker leaves running.
//!
//! A worker that is killed cannot end its jobs. The kernel would do it for a child, but not for the
//! child's children; so the worker tells a second process, through a pipe, what it starts. When the pipe
//! ends, the worker is gone, however that came, and the second process ends what is left.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};

use crate::clock;
use crate::providers::process::kernel::{Identity, kill_left_behind};
use crate::signals::Signals;

/// Carried by every process of a job, with a value of its own for each run, so that those are found too
/// that left the job's process group.
const MARKER: &str = "LAZYFOX_RUN";

/// The option by which this program becomes that process.
pub(super) const OPTION: &str = "watchdog";

/// The worker's end of the pipe.
pub(super) struct Watchdog {
    state: Mutex<State>,
}

struct State {
    process: Option<(Child, ChildStdin)>,
    /// Runs, with the process that leads the run's group once it is known.
    runs: BTreeMap<String, Option<u32>>,
}

/// One run of a command: what its processes carry.
#[derive(Clone, Debug)]
pub(super) struct Mark(String);

impl Mark {
    /// For the environment of the run.
    pub(super) fn variable(&self) -> (&'static str, &str) {
        (MARKER, &self.0)
    }

    /// Ends everything that carries it, wherever it may be: looks at every process of this machine.
    pub(super) fn kill_all(&self) -> io::Result<usize> {
        kill_left_behind(None, &format!("{MARKER}={}", self.0))
    }
}

impl Watchdog {
    /// # Errors
    /// When the process cannot be started.
    pub(super) fn start() -> Result<Self> {
        let process = spawn().context("cannot start the process that watches this worker")?;
        let runs = BTreeMap::new();
        let process = Some(process);
        let state = Mutex::new(State { process, runs });
        Ok(Self { state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command is about to be run. It is known before it runs, so that there is no moment in which
    /// the worker's death would leave it.
    pub(super) fn begin(&self) -> Mark {
        let mark = clock::random_name::<24>();
        let mut state = self.state();
        state.runs.insert(mark.clone(), None);
        state.say(&format!("run {mark}"));
        Mark(mark)
    }

    /// It runs, as the leader of a process group.
    pub(super) fn leads(&self, mark: &Mark, pid: u32) {
        let mut state = self.state();
        state.runs.insert(mark.0.clone(), Some(pid));
        state.say(&format!("group {} {pid}", mark.0));
    }

    /// Nothing of it runs any more.
    pub(super) fn end(&self, mark: &Mark) {
        let mut state = self.state();
        state.runs.remove(&mark.0);
        state.say(&format!("end {}", mark.0));
    }
}

impl State {
    /// Tells the other process. Should somebody have ended it, another one is told everything.
    fn say(&mut self, line: &str) {
        if let Some((_, pipe)) = &mut self.process
            && writeln!(pipe, "{line}").is_ok()
        {
            return;
        }
        if let Err(error) = self.replace() {
            tracing::error!(%error, "nothing watches this worker: killed, it would leave jobs running");
        }
    }

    fn replace(&mut self) -> io::Result<()> {
        if let Some((mut gone, pipe)) = self.process.take() {
            drop(pipe);
            gone.wait()?;
        }
        let (process, mut pipe) = spawn()?;
        for (mark, pid) in &self.runs {
            writeln!(pipe, "run {mark}")?;
            if let Some(pid) = pid {
                writeln!(pipe, "group {mark} {pid}")?;
            }
        }
        self.process = Some((process, pipe));
        Ok(())
    }
}

fn spawn() -> io::Result<(Child, ChildStdin)> {
    // Still this program, when its file was replaced meanwhile.
    let mut child = Command::new("/proc/self/exe")
        .arg0("lazyfox")
        .args(["worker", &format!("--{OPTION}")])
        // It stands apart from the worker in every way by which processes are ended together: a
        // terminal's Ctrl-C, the worker's process group, its directory, its environment.
        .process_group(0)
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((child, pipe))
}

/// Is that process: waits for the end of the worker on the other end of standard input.
///
/// # Errors
/// When signals cannot be watched.
pub(super) fn watch() -> Result<()> {
    // A service manager may send its signal to all processes of a service. The worker decides what
    // it means; here it would open the gap that is to be closed.
    let _ignored = Signals::watch()?;
    let mut runs = BTreeMap::new();
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        note(&mut runs, &line);
    }
    for (mark, leader) in runs {
        if let Some(leader) = leader
            && let Err(error) = leader.kill_group()
        {
            eprintln!("cannot end a process group that a worker left: {error}");
        }
        if let Err(error) = Mark(mark).kill_all() {
            eprintln!("cannot look for processes that a worker left: {error}");
        }
    }
    Ok(())
}

fn note(runs: &mut BTreeMap<String, Option<Identity>>, line: &str) {
    let mut words = line.split(' ');
    let (verb, mark) = (words.next(), words.next().unwrap_or_default());
    match verb {
        Some("run") => {
            runs.insert(mark.to_owned(), None);
        }
        Some("group") => {
            let pid = words.next().and_then(|pid| pid.parse().ok());
            // One that has ended already has no identity any more; its children carry the mark.
            let leader = pid.and_then(|pid| Identity::of(pid).ok());
            runs.insert(mark.to_owned(), leader);
        }
        Some("end") => {
            runs.remove(mark);
        }
        Some(_) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_left() {
        let mut runs = BTreeMap::new();
        let me = std::process::id();
        for line in [
            "run a",
            "run b",
            &format!("group b {me}"),
            "run c",
            "end a",
            "x",
            "",
        ] {
            note(&mut runs, line);
        }
        let known: Vec<_> = runs
            .iter()
            .map(|(mark, it)| (&**mark, it.is_some()))
            .collect();
        assert_eq!(known, [("b", true), ("c", false)]);
        assert_eq!(runs["b"], Identity::of(me).ok());
    }
}
