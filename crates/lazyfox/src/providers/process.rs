//! Workers that are processes on this machine. Linux only, for it reads `/proc`.
//!
//! A worker outlives the server: it writes to a file and not to a pipe, so that it neither blocks nor
//! dies of SIGPIPE while there is no server, finishes its job, and is found again by the next run.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use lazyfox_core::id::WorkerId;
use lazyfox_core::time::Timestamp;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedSender;

use super::{Ended, Exit, Found, Output, Provider, Run, StartError, Stop, WorkerSpec};
use environment::{compose, find_program};
use home::{Home, Record};
use kernel::Identity;
use tail::Tail;
use watch::{Live, Main, Shared, Watch, clear_away};

mod environment;
mod home;
mod kernel;
mod tail;
mod watch;

/// Starts workers as processes, each in a process group and a directory of its own.
///
/// Dropping it ends no worker, it only stops watching: the next [`ProcessProvider::open`] of the same
/// directory finds them.
pub struct ProcessProvider {
    dir: PathBuf,
    inherited: Vec<(OsString, OsString)>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    shared: Arc<Shared>,
}

impl ProcessProvider {
    /// Takes charge of `dir`: workers of an earlier run that are alive are watched again, and those
    /// that ended in between are reported and cleared away.
    ///
    /// `inherited` is the environment from which workers are given an allow-listed part. Must be
    /// called within a tokio runtime, and by one server at a time for one directory.
    ///
    /// # Errors
    /// When `dir` cannot be made or read.
    pub fn open(
        dir: PathBuf,
        inherited: Vec<(OsString, OsString)>,
        output: Arc<dyn Output>,
        ended: UnboundedSender<Ended>,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        // Workers stand elsewhere, so no path that they get may be relative.
        let dir = std::path::absolute(&dir)
            .and_then(|dir| std::fs::create_dir_all(&dir).map(|()| dir))
            .with_context(|| format!("cannot make the directory of workers {}", dir.display()))?;
        let live = Mutex::default();
        let shared = Arc::new(Shared {
            live,
            output,
            ended,
        });
        let provider = Self {
            dir,
            inherited,
            now: Box::new(now),
            shared,
        };
        let context = || {
            format!(
                "cannot read the directory of workers {}",
                provider.dir.display()
            )
        };
        for entry in provider.dir.read_dir().with_context(context)? {
            let entry = entry.with_context(context)?;
            // What cannot be the name of a worker was not made here.
            if let Some(worker) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            {
                provider.find_again(worker);
            }
        }
        Ok(provider)
    }

    fn find_again(&self, worker: WorkerId) {
        let home = Home::of(&self.dir, &worker);
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
            self.watch(
                Watch {
                    worker,
                    home,
                    main,
                    tail,
                },
                record,
            );
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

    fn watch(&self, watch: Watch, record: Record) {
        let Record {
            identity,
            endpoint,
            started_at,
            release,
            gpus,
        } = record;
        let worker = watch.worker.clone();
        // Locked before the task begins, or a worker that ends at once would be taken off the list
        // before it is on it.
        let mut live = self.shared.live();
        let task = watch.run(Arc::clone(&self.shared), identity.clone(), endpoint.clone());
        let watch = tokio::spawn(task).abort_handle();
        live.insert(
            worker,
            Live {
                endpoint,
                started_at,
                release,
                gpus,
                identity,
                watch,
            },
        );
    }

    /// Runs the command and writes down who it is.
    fn spawn(&self, home: &Home, spec: WorkerSpec) -> Result<(Child, Record), StartError> {
        let Run::Process(run) = spec.run else {
            return Err(StartError::new("an image cannot be run as a process"));
        };
        let (program, arguments) = run
            .command
            .split_first()
            .ok_or_else(|| StartError::new("the command is empty"))?;
        let working_dir = absolute_dir(&run.working_dir)?;
        let env = compose(&self.inherited, spec.env, &spec.server_host, home.path());
        let program = find_program(program, &working_dir, &env)?;
        let at_home = |error: io::Error| {
            let path = home.path().display();
            StartError::new(format!(
                "cannot prepare the worker's directory {path}: {error}"
            ))
        };
        home.link_files(&working_dir).map_err(at_home)?;
        let log = home.open_log().map_err(at_home)?;
        let mut child = Command::new(&program)
            .args(arguments)
            .current_dir(home.cwd())
            .env_clear()
            .envs(env)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(at_home)?)
            .stderr(log)
            // A Ctrl-C in the server's terminal is for the server, which stops workers in its own
            // way; and the group is what is ended when the worker is.
            .process_group(0)
            .spawn()
            .map_err(|error| {
                StartError::new(format!("cannot run {}: {error}", program.display()))
            })?;
        // The child has not been waited for, so its entry in /proc is there even if it has ended.
        let started_at = (self.now)();
        let written = Identity::of(child.id().unwrap_or_default()).and_then(|identity| {
            let record = Record {
                identity,
                endpoint: spec.endpoint,
                started_at,
                release: spec.release,
                gpus: spec.gpus,
            };
            home.write_record(&record).map(|()| record)
        });
        match written {
            Ok(record) => Ok((child, record)),
            Err(error) => {
                // Better no worker than one that a restarted server would not know.
                let _ = child.start_kill();
                Err(at_home(error))
            }
        }
    }
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
        let home = Home::of(&self.dir, &worker);
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
                let main = Main::Child(child);
                self.watch(
                    Watch {
                        worker,
                        home,
                        main,
                        tail: Some(tail),
                    },
                    record,
                );
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
        let Some(identity) = self
            .shared
            .live()
            .get(worker)
            .map(|live| live.identity.clone())
        else {
            return;
        };
        let sent = match how {
            Stop::Gently => identity.terminate(),
            Stop::Now => identity.kill_group(),
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
