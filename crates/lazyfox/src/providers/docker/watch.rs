//! Brings each worker's container up, follows it to its end, removes it, and reports how it ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lazyfox_core::id::WorkerId;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::container;
use super::engine::{Engine, State, Trouble};
use super::home::{Home, Mark};
use super::log::Log;
use super::pull::Pulls;
use crate::providers::{ContainerRun, Ended, Exit, Found, Output, Pull, Source, WorkerSpec};

/// Pauses before an engine that is away is asked again: from the first, each twice as long, up to the last.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What went on for so long was no failure from the start, and the pauses begin anew.
const STEADY: Duration = Duration::from_secs(30);

/// How long the engine may take to note an end after the output is over.
const END_AFTER_OUTPUT: Duration = Duration::from_secs(2);

/// How often it is tried to remove a container before its end is reported all the same.
const REMOVE_TRIES: u32 = 6;

/// Letters of a container's id that people are shown.
const SHORT_ID: usize = 12;

const STOPPED: &str = "it was stopped before its container ran";

/// What the provider shares with the tasks of its workers.
pub(super) struct Shared {
    pub(super) engine: Arc<Engine>,
    pub(super) pulls: Pulls,
    pub(super) home: Home,
    pub(super) live: Mutex<BTreeMap<WorkerId, Live>>,
    pub(super) output: Arc<dyn Output>,
    pub(super) ended: UnboundedSender<Ended>,
}

/// What is to become of a worker. It is asked for more and never for less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wanted {
    Alive,
    Gently,
    Dead,
}

/// A worker that has a task.
pub(super) struct Live {
    pub(super) found: Found,
    /// Whether it counts as alive: not while only its container is left to be removed.
    pub(super) is_alive: bool,
    pub(super) wanted: watch::Sender<Wanted>,
    pub(super) task: AbortHandle,
}

impl Shared {
    pub(super) fn live(&self) -> MutexGuard<'_, BTreeMap<WorkerId, Live>> {
        // Nothing is done under the lock that could leave the map half changed.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hide(&self, worker: &WorkerId) {
        if let Some(live) = self.live().get_mut(worker) {
            live.is_alive = false;
        }
    }
}

/// One worker, from the first step of its start to the last of its end.
pub(super) struct Life {
    pub(super) found: Found,
    pub(super) shared: Arc<Shared>,
    pub(super) wanted: watch::Receiver<Wanted>,
    /// The id of the data directory.
    pub(super) server: String,
    pub(super) container: Container,
}

/// What is known of a worker's container.
pub(super) enum Container {
    /// None was made.
    None,
    /// The engine was asked to make one and did not answer.
    Maybe,
    /// Its id.
    Made(String),
}

/// Growing pauses.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(PAUSE_MIN)
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }
}

impl Life {
    /// Starts a worker and follows it to its end.
    pub(super) async fn begin(mut self, spec: WorkerSpec, run: ContainerRun) {
        match self.bring_up(spec, &run).await {
            Ok(()) => {
                self.shared.output.runs(&self.found.worker);
                self.follow(Mark::default()).await;
            }
            Err(why) => {
                self.say(Source::System, &why);
                self.finish(Exit::NotStarted(why), Vec::new()).await;
            }
        }
    }

    /// Follows a worker of an earlier run to its end.
    pub(super) async fn go_on(self) {
        let mark = self.shared.home.mark(&self.found.worker);
        self.follow(mark).await;
    }

    fn say(&self, source: Source, line: &str) {
        let Found {
            worker, endpoint, ..
        } = &self.found;
        self.shared.output.line(endpoint, worker, source, line);
    }

    /// Errors say which image and why.
    async fn bring_up(&mut self, spec: WorkerSpec, run: &ContainerRun) -> Result<(), String> {
        let why = |trouble: Trouble| match &trouble {
            Trouble::Away(_) => trouble.to_string(),
            Trouble::Refused { .. } => format!("image {}: {trouble}", run.image),
        };
        let mut wanted = self.wanted.clone();
        let stopped = wanted.wait_for(|wanted| *wanted > Wanted::Alive);
        let of_image = tokio::select! {
            biased;
            _ = stopped => return Err(STOPPED.to_owned()),
            of_image = self.image(run) => of_image.map_err(why)?,
        };
        self.say(Source::System, "creating container");
        let url = container::server_url(&spec.env)
            .unwrap_or(&spec.server_host)
            .to_owned();
        let env = container::environment(spec.env, &of_image, &spec.server_host, &spec.gpus);
        let body = container::body(&self.server, &self.found, run, env);
        let name = container::name(&self.found.worker);
        // From here on nothing is cut short: the engine would go on with it.
        let id = match self.shared.engine.create(&name, body).await {
            Ok((id, remarks)) => {
                self.container = Container::Made(id.clone());
                for remark in remarks {
                    self.say(Source::System, &format!("the engine remarks: {remark}"));
                }
                id
            }
            Err(trouble) => {
                if let Trouble::Away(_) = trouble {
                    self.container = Container::Maybe;
                }
                return Err(why(trouble));
            }
        };
        if *self.wanted.borrow() > Wanted::Alive {
            return Err(STOPPED.to_owned());
        }
        self.shared.engine.start(&id).await.map_err(why)?;
        let short = id.get(..SHORT_ID).unwrap_or(&id);
        let network = run.network.as_deref().unwrap_or("host");
        self.say(
            Source::System,
            &format!("started container {short} (network {network}, server {url})"),
        );
        Ok(())
    }

    /// Sees to it that the image is here; returns the environment that it brings.
    async fn image(&self, run: &ContainerRun) -> Result<Vec<String>, Trouble> {
        let engine = &self.shared.engine;
        let pull = match run.pull {
            Pull::Always => true,
            Pull::Missing | Pull::Never => match engine.image(&run.image).await? {
                Some(env) => return Ok(env),
                None => run.pull == Pull::Missing,
            },
        };
        let not_here = |reason: &str| Trouble::Refused {
            status: 404,
            reason: reason.to_owned(),
        };
        if !pull {
            return Err(not_here(
                "it is not on this engine, and pull is \"never\": load it, or set pull = \"missing\"",
            ));
        }
        let say = |line: &str| self.say(Source::System, line);
        let login = run.registry.as_ref();
        self.shared
            .pulls
            .pull(engine, &run.image, login, &say)
            .await?;
        let env = engine.image(&run.image).await?;
        env.ok_or_else(|| not_here("it was pulled and is not there"))
    }

    /// Follows a container to its end.
    async fn follow(mut self, mark: Mark) {
        let Container::Made(id) = &self.container else {
            return self.finish(Exit::Unknown, Vec::new()).await;
        };
        let id = id.clone();
        let mut log = Log::from(mark, self.keeper());
        let exit = self.until_ended(&id, &mut log).await;
        let last_lines = log.finish(&|line| self.say(Source::Worker, line));
        self.finish(exit, last_lines).await;
    }

    /// Returns when the engine said how the container ended, however often it was away meanwhile.
    async fn until_ended(&mut self, id: &str, log: &mut Log) -> Exit {
        let mut told = Wanted::Alive;
        let mut pause = Pause::new();
        let mut is_away = false;
        let mut again = false;
        loop {
            let looked = match self.shared.engine.state(id).await {
                Ok(State::Runs) => {
                    if std::mem::take(&mut is_away) {
                        self.say(Source::System, "the container engine is back");
                    }
                    if again {
                        pause.wait().await;
                    }
                    let begun = Instant::now();
                    let attended = self.attend(id, log, &mut told).await;
                    if begun.elapsed() >= STEADY {
                        pause = Pause::new();
                    }
                    again = attended.is_ok();
                    attended
                }
                Ok(State::Gone | State::Made) => return Exit::Unknown,
                Ok(ended @ State::Ended { .. }) => match self.read_rest(id, log).await {
                    Err(trouble @ Trouble::Away(_)) => Err(trouble),
                    Ok(()) | Err(Trouble::Refused { .. }) => {
                        return container::exit(&ended, told == Wanted::Dead);
                    }
                },
                Err(trouble) => Err(trouble),
            };
            if let Err(trouble) = looked {
                if !std::mem::replace(&mut is_away, true) {
                    tracing::warn!(worker.id = %self.found.worker, error = %trouble, "waiting");
                    self.say(Source::System, &trouble.to_string());
                }
                pause.wait().await;
            }
        }
    }

    /// Reads along and passes signals on until the container may have ended.
    async fn attend(&mut self, id: &str, log: &mut Log, told: &mut Wanted) -> Result<(), Trouble> {
        self.tell(id, told).await?;
        let shared = Arc::clone(&self.shared);
        let docker = shared.engine.docker().await?;
        let mut ended = std::pin::pin!(shared.engine.ended(&docker, id));
        let mut pieces = shared.engine.logs(id, true, log.resume()).await?;
        loop {
            tokio::select! {
                () = &mut ended => return Ok(()),
                piece = pieces.next() => match piece {
                    Some(piece) => self.read(log, &piece?),
                    None => break,
                },
                Ok(()) = self.wanted.changed() => self.tell(id, told).await?,
            }
        }
        let _ = tokio::time::timeout(END_AFTER_OUTPUT, ended).await;
        Ok(())
    }

    /// Reads what a container that has ended wrote.
    async fn read_rest(&self, id: &str, log: &mut Log) -> Result<(), Trouble> {
        let mut pieces = self.shared.engine.logs(id, false, log.resume()).await?;
        while let Some(piece) = pieces.next().await {
            self.read(log, &piece?);
        }
        Ok(())
    }

    fn read(&self, log: &mut Log, piece: &bollard::container::LogOutput) {
        log.take(piece, &|line| self.say(Source::Worker, line));
    }

    /// Writes down how far the output was read.
    fn keeper(&self) -> impl Fn(&Mark) + Send + 'static {
        let (shared, worker) = (Arc::clone(&self.shared), self.found.worker.clone());
        move |mark| {
            if let Err(error) = shared.home.set_mark(&worker, mark) {
                tracing::warn!(
                    worker.id = %worker, %error,
                    "cannot note how far the output was read; a restart would say it again"
                );
            }
        }
    }

    /// Passes on what is wanted, once.
    async fn tell(&mut self, id: &str, told: &mut Wanted) -> Result<(), Trouble> {
        let wanted = *self.wanted.borrow_and_update();
        if wanted > *told {
            let signal = match wanted {
                Wanted::Alive => return Ok(()),
                Wanted::Gently => "SIGTERM",
                Wanted::Dead => "SIGKILL",
            };
            self.shared.engine.kill(id, signal).await?;
            *told = wanted;
        }
        Ok(())
    }

    /// Removes what is left and reports the end. An engine that is away then does not hold the report up:
    /// the container is removed when it is back.
    async fn finish(self, exit: Exit, last_lines: Vec<String>) {
        let mut pause = Pause::new();
        let mut tries = 1;
        let mut removed = self.remove().await;
        while removed.is_err() && tries < REMOVE_TRIES {
            pause.wait().await;
            tries += 1;
            removed = self.remove().await;
        }
        let Found {
            worker, endpoint, ..
        } = &self.found;
        if removed.is_ok() {
            self.shared.home.forget(worker);
            self.shared.live().remove(worker);
        } else {
            self.shared.hide(worker);
        }
        // Nobody listens any more only when the server is about to end.
        let _ = self.shared.ended.send(Ended {
            worker: worker.clone(),
            endpoint: endpoint.clone(),
            exit,
            last_lines,
        });
        if let Err(trouble) = &removed {
            let container = container::name(worker);
            tracing::warn!(container, error = %trouble, "a container cannot be removed yet");
        }
        while removed.is_err() {
            pause.wait().await;
            removed = self.remove().await;
            if removed.is_ok() {
                self.shared.home.forget(worker);
                self.shared.live().remove(worker);
            }
        }
    }

    async fn remove(&self) -> Result<(), Trouble> {
        let engine = &self.shared.engine;
        match &self.container {
            Container::None => Ok(()),
            Container::Made(id) => engine.remove(id).await,
            Container::Maybe => {
                let server = container::label("server", &self.server);
                let worker = container::label("worker", self.found.worker.as_str());
                for listed in engine.list(vec![server, worker]).await? {
                    engine.remove(&listed.id).await?;
                }
                Ok(())
            }
        }
    }
}
