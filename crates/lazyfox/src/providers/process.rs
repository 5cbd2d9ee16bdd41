//! Workers that are processes on this machine. Linux only, for it reads `/proc`.
//!
//! A worker outlives the server: it writes to a file and not to a pipe, so that it neither blocks nor
//! dies of SIGPIPE while there is no server, finishes its job, and is found again by the next run.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use lazyfox_core::id::WorkerId;
use lazyfox_core::time::Timestamp;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedSender;

use super::gpus::Inventory;
use super::{Ended, Exit, Found, Output, ProcessRun, Provider, Run, StartError, Stop, WorkerSpec};
use environment::{Gpus, compose, find_program};
use home::{Home, Record};
use kernel::Identity;
use tail::Tail;
use watch::{Live, Main, Shared, Watch, clear_away};

pub(crate) mod abandoned;
pub(crate) mod environment;
pub(crate) mod hold;
pub(crate) mod kernel;

mod home;
mod limits;
mod oom;
mod tail;
mod watch;

pub use hold::Hold;

/// Starts workers as processes, each in a process group and a directory of its own.
///
/// Dropping it ends no worker, it only stops watching: the next [`ProcessProvider::open`] of the same
/// directory finds them.
pub struct ProcessProvider {
    hold: Hold,
    inherited: Vec<(OsString, OsString)>,
    gpus: Arc<Inventory>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    shared: Arc<Shared>,
}

impl ProcessProvider {
    /// Opens the directory that is held: workers of an earlier run that are alive are watched again, and
    /// those that ended in between are reported and cleared away.
    ///
    /// `inherited` is the environment from which workers are given an allow-listed part. `gpus` says
    /// whether a worker that was given none may see any. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn open(
        hold: Hold,
        inherited: Vec<(OsString, OsString)>,
        gpus: Arc<Inventory>,
        output: Arc<dyn Output>,
        ended: UnboundedSender<Ended>,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let live = Mutex::default();
        let shared = Arc::new(Shared {
            live,
            output,
            ended,
        });
        let provider = Self {
            hold,
            inherited,
            gpus,
            now: Box::new(now),
            shared,
        };
        let context = || {
            format!(
                "cannot read the directory of workers {}",
                provider.hold.dir().display()
            )
        };
        for entry in provider.hold.dir().read_dir().with_context(context)? {
            let entry = entry.with_context(context)?;
            if let Some(worker) = home::worker_of(&entry) {
                provider.find_again(worker);
            }
        }
        Ok(provider)
    }

    fn find_again(&self, worker: WorkerId) {
        let home = Home::of(self.hold.dir(), &worker);
        let record = match home.read_record() {
            Ok(record) => record,
            Err(error) => {
                // The server died while it started this worker. Whoever asked for it never heard
                // that it started, so there is no end to report either.
                tracing::warn!(worker.id = %worker, %error, "clearing away a half-started worker");
                clear_away(&home, &worker);
                return;
            }
        };
        let tail = Tail::from_end(&home.log())
            .inspect_err(|error| {
                tracing::warn!(worker.id = %worker, %error, "the output of a worker is lost");
            })
            .ok();
        if record.identity.is_alive() {
            tracing::info!(worker.id = %worker, endpoint.id = %record.endpoint, "worker found again");
            let main = Main::Adopted(record.identity.clone());
            self.watch(worker, home, main, tail, record);
            return;
        }
        clear_away(&home, &worker);
        let last_lines = tail.map(|tail| tail.finish(&|_| ())).unwrap_or_default();
        let endpoint = record.endpoint;
        self.shared.report(Ended {
            worker,
            endpoint,
            exit: Exit::Unknown,
            last_lines,
        });
    }

    fn watch(&self, worker: WorkerId, home: Home, main: Main, tail: Option<Tail>, record: Record) {
        let stopped = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            worker: worker.clone(),
            endpoint: record.endpoint.clone(),
            home,
            identity: record.identity.clone(),
            memory_bytes: record.memory_bytes,
            stopped: Arc::clone(&stopped),
            tail,
        };
        // Locked before the task begins, or a worker that ends at once would be taken off the list
        // before it is on it.
        let mut live = self.shared.live();
        let task = watch.run(Arc::clone(&self.shared), main);
        let watch = tokio::spawn(task).abort_handle();
        live.insert(
            worker,
            Live {
                endpoint: record.endpoint,
                started_at: record.started_at,
                release: record.release,
                gpus: record.gpus,
                identity: record.identity,
                stopped,
                watch,
            },
        );
    }

    /// Runs the command and writes down who it is.
    fn spawn(&self, home: &Home, mut spec: WorkerSpec) -> Result<(Child, Record), StartError> {
        let Run::Process(run) = &spec.run else {
            return Err(StartError::new("an image cannot be run as a process"));
        };
        let (memory_bytes, open_files) = (run.memory_bytes, run.open_files);
        let env = std::mem::take(&mut spec.env);
        let mut command = self.command(home, run, env, &spec)?;
        let mut child = command.spawn().map_err(|error| {
            let program = command.as_std().get_program().display();
            StartError::new(format!("cannot run {program}: {error}"))
        })?;
        // The child has not been waited for, so its entry in /proc is there even if it has ended.
        let started_at = (self.now)();
        let written = Identity::of(child.id().unwrap_or_default())
            .map_err(|error| at_home(home, &error))
            .and_then(|identity| {
                let record = Record {
                    identity,
                    endpoint: spec.endpoint,
                    started_at,
                    release: spec.release,
                    gpus: spec.gpus,
                    memory_bytes,
                };
                note(home, &record, open_files)
                    // It may have started others by now.
                    .inspect_err(|_| drop(record.identity.kill_group()))
                    .map(|()| record)
            });
        match written {
            Ok(record) => Ok((child, record)),
            Err(error) => {
                // Better no worker than one that a restarted server would not know.
                let _ = child.start_kill();
                Err(error)
            }
        }
    }

    /// What is to be run, in a directory that has been made ready for it.
    fn command(
        &self,
        home: &Home,
        run: &ProcessRun,
        env: Vec<(String, String)>,
        spec: &WorkerSpec,
    ) -> Result<Command, StartError> {
        let (program, arguments) = run
            .command
            .split_first()
            .ok_or_else(|| StartError::new("the command is empty"))?;
        let working_dir = absolute_dir(&run.working_dir)?;
        let gpus = match &spec.gpus[..] {
            [] if !self.gpus.is_managed() => Gpus::Any,
            given => Gpus::Given(given),
        };
        let host = &spec.server_host;
        let env = compose(&self.inherited, env, host, home.path(), gpus);
        let program = find_program(program, &working_dir, &env)?;
        let failed = |error| at_home(home, &error);
        home.link_files(&working_dir).map_err(failed)?;
        let log = home.open_log().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(home.cwd())
            .env_clear()
            .envs(env)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // A Ctrl-C in the server's terminal is for the server, which stops workers in its own
            // way; and the group is what is ended when the worker is.
            .process_group(0);
        Ok(command)
    }
}

/// Limits a worker that was just started, and writes down who it is.
fn note(home: &Home, record: &Record, open_files: Option<u64>) -> Result<(), StartError> {
    if let Some(files) = open_files {
        let leader = record.identity.raw();
        limits::limit_open_files(leader.map_err(|error| at_home(home, &error))?, files)?;
    }
    let written = home.write_record(record);
    written.map_err(|error| at_home(home, &error))
}

fn at_home(home: &Home, error: &io::Error) -> StartError {
    let path = home.path().display();
    StartError::new(format!(
        "cannot prepare the worker's directory {path}: {error}"
    ))
}

impl Provider for ProcessProvider {
    fn list(&self) -> Vec<Found> {
        let found = |(worker, live): (&WorkerId, &Live)| Found {
            worker: worker.clone(),
            endpoint: live.endpoint.clone(),
            started_at: live.started_at,
            release: live.release,
            gpus: live.gpus.clone(),
        };
        self.shared.live().iter().map(found).collect()
    }

    fn start(&self, spec: WorkerSpec) -> Result<(), StartError> {
        let worker = spec.worker.clone();
        let home = Home::of(self.hold.dir(), &worker);
        home.create().map_err(|error| {
            let path = home.path().display();
            StartError::new(format!(
                "cannot make the worker's directory {path}: {error}"
            ))
        })?;
        let started = self.spawn(&home, spec).and_then(|(child, record)| {
            let tail = Tail::from_start(&home.log()).map_err(|error| {
                let _ = record.identity.kill_group();
                StartError::new(format!("cannot read {}: {error}", home.log().display()))
            })?;
            Ok((child, record, tail))
        });
        match started {
            Ok((child, record, tail)) => {
                self.watch(worker, home, Main::Child(child), Some(tail), record);
                Ok(())
            }
            Err(error) => {
                if let Err(error) = home.remove() {
                    tracing::warn!(worker.id = %worker, %error, "a worker's directory was left");
                }
                Err(error)
            }
        }
    }

    fn stop(&self, worker: &WorkerId, how: Stop) {
        let found = {
            let live = self.shared.live();
            let live = live.get(worker);
            live.map(|live| (live.identity.clone(), Arc::clone(&live.stopped)))
        };
        let Some((identity, stopped)) = found else {
            return;
        };
        let sent = match how {
            Stop::Gently => identity.terminate(),
            Stop::Now => {
                // Before the signal, or its end could be taken for the kernel's doing.
                stopped.store(true, Ordering::SeqCst);
                identity.kill_group()
            }
        };
        if let Err(error) = sent {
            tracing::error!(worker.id = %worker, %error, "a worker cannot be stopped");
        }
    }
}

impl Drop for ProcessProvider {
    fn drop(&mut self) {
        for live in self.shared.live().values() {
            live.watch.abort();
        }
    }
}

fn absolute_dir(path: &Path) -> Result<PathBuf, StartError> {
    let failed =
        |reason: String| StartError::new(format!("working directory {}: {reason}", path.display()));
    let absolute = std::path::absolute(path).map_err(|error| failed(error.to_string()))?;
    match absolute.metadata() {
        Ok(meta) if meta.is_dir() => Ok(absolute),
        Ok(_) => Err(failed("not a directory".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
