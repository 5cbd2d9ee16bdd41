//! Workers that are containers, by the API of a container engine: Docker's, or Podman's, which is the same.
//!
//! A container outlives the server. It carries labels that say whose it is, so that the next run finds it
//! again, watches one that runs, and reports and removes one that has ended meanwhile.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use lazyfox_core::id::WorkerId;
use lazyfox_core::time::Timestamp;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch as wanted;
use tokio::task::AbortHandle;

use super::{Ended, Found, Output, Provider, Run, StartError, Stop, WorkerSpec};
use engine::{Engine, Trouble};
use home::Home;
pub use places::{Address, Places};
use pull::Pulls;
use watch::{Container, Life, Live, Shared, Wanted};

mod container;
mod engine;
mod home;
mod log;
mod places;
mod pull;
mod watch;

/// How long a server waits at its start for the engine to say which containers there are.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Pauses between further looks: from the first, each twice as long, up to the last.
const LOOK_MIN: Duration = Duration::from_millis(500);
const LOOK_MAX: Duration = Duration::from_secs(30);

/// Starts workers as containers.
///
/// Dropping it ends no worker, it only stops watching: the next [`DockerProvider::open`] of the same
/// directory finds them.
pub struct DockerProvider {
    shared: Arc<Shared>,
    /// The id of the directory, once there was a container.
    server: OnceLock<String>,
    making: Mutex<()>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    looking: Option<AbortHandle>,
}

impl DockerProvider {
    /// Takes charge of the containers that were started for `dir`. Where there never was one, no engine
    /// is looked for.
    ///
    /// If the engine does not answer now, it is asked again until it does, and workers that are found
    /// then are said on `late`. Must be called within a tokio runtime, and by one server at a time for
    /// one directory.
    ///
    /// # Errors
    /// When `dir` cannot be read.
    pub async fn open(
        dir: PathBuf,
        places: Places,
        output: Arc<dyn Output>,
        ended: UnboundedSender<Ended>,
        late: UnboundedSender<Found>,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let home = Home::at(dir);
        let server = home.server()?;
        let shared = Arc::new(Shared {
            engine: Arc::new(Engine::at(places)),
            pulls: Pulls::default(),
            home,
            live: Mutex::default(),
            output,
            ended,
        });
        let mut looking = None;
        if let Some(server) = &server {
            let looked = tokio::time::timeout(FIRST_LOOK, look(&shared, server)).await;
            let trouble = match looked {
                Ok(Ok(_)) => None,
                Ok(Err(trouble)) => Some(trouble),
                Err(_) => Some(Trouble::Away(
                    "the container engine takes long to answer".to_owned(),
                )),
            };
            if let Some(trouble) = trouble {
                tracing::warn!(
                    error = %trouble,
                    "containers of an earlier run are not found yet; asking again"
                );
                let task = look_again(Arc::clone(&shared), server.clone(), late);
                looking = Some(tokio::spawn(task).abort_handle());
            }
        }
        Ok(Self {
            shared,
            server: server.map(OnceLock::from).unwrap_or_default(),
            making: Mutex::default(),
            now: Box::new(now),
            looking,
        })
    }

    fn server(&self) -> Result<String, StartError> {
        if let Some(server) = self.server.get() {
            return Ok(server.clone());
        }
        let _making = self
            .making
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(server) = self.server.get() {
            return Ok(server.clone());
        }
        let made = self.shared.home.make_server().map_err(|error| {
            StartError::new(format!(
                "cannot keep this server's id for containers: {error}"
            ))
        })?;
        Ok(self.server.get_or_init(|| made).clone())
    }
}

/// Looks which containers there are; returns those that are alive and were not known.
async fn look(shared: &Arc<Shared>, server: &str) -> Result<Vec<Found>, Trouble> {
    let mut alive = Vec::new();
    let listed = shared
        .engine
        .list(vec![container::label("server", server)])
        .await?;
    for listed in listed {
        let Some(found) = container::found(&listed.labels) else {
            tracing::warn!(
                container = listed.id,
                "a container has labels that were changed"
            );
            continue;
        };
        let is_known = shared.live().contains_key(&found.worker);
        if is_known {
            continue;
        }
        if listed.is_made {
            // The server died while it started this worker. Whoever asked for it never heard that it
            // started, so there is no end to report either.
            tracing::warn!(worker.id = %found.worker, "removing a container that never started");
            shared.engine.remove(&listed.id).await?;
            continue;
        }
        if listed.is_alive {
            tracing::info!(
                worker.id = %found.worker, endpoint.id = %found.endpoint, "worker found again"
            );
            alive.push(found.clone());
        }
        let container = Container::Made(listed.id);
        spawn(
            shared,
            server,
            found,
            listed.is_alive,
            container,
            Life::go_on,
        );
    }
    shared
        .home
        .keep_only(|worker| shared.live().contains_key(worker));
    Ok(alive)
}

async fn look_again(shared: Arc<Shared>, server: String, late: UnboundedSender<Found>) {
    let mut pause = LOOK_MIN;
    loop {
        tokio::time::sleep(pause).await;
        match look(&shared, &server).await {
            Ok(alive) => {
                for found in alive {
                    let _ = late.send(found);
                }
                return;
            }
            Err(trouble) => tracing::debug!(error = %trouble, "no containers are found yet"),
        }
        pause = (pause * 2).min(LOOK_MAX);
    }
}

/// Gives a worker its task.
fn spawn<F: Future<Output = ()> + Send + 'static>(
    shared: &Arc<Shared>,
    server: &str,
    found: Found,
    is_alive: bool,
    container: Container,
    run: impl FnOnce(Life) -> F,
) {
    let (wanted, wish) = wanted::channel(Wanted::Alive);
    let life = Life {
        found: found.clone(),
        shared: Arc::clone(shared),
        wanted: wish,
        server: server.to_owned(),
        container,
    };
    // Locked before the task begins, or a worker that ends at once would be taken off the list before
    // it is on it.
    let mut live = shared.live();
    let task = tokio::spawn(run(life)).abort_handle();
    live.insert(
        found.worker.clone(),
        Live {
            found,
            is_alive,
            wanted,
            task,
        },
    );
}

impl Provider for DockerProvider {
    fn list(&self) -> Vec<Found> {
        let live = self.shared.live();
        let alive = live.values().filter(|live| live.is_alive);
        alive.map(|live| live.found.clone()).collect()
    }

    /// Returns before the container runs, for an image may have to be pulled. A start that comes to
    /// nothing is reported as [`Exit::NotStarted`](super::Exit::NotStarted).
    fn start(&self, spec: WorkerSpec) -> Result<(), StartError> {
        let Run::Container(run) = spec.run.clone() else {
            return Err(StartError::new("a command cannot be run as a container"));
        };
        container::check_reach(run.network.as_deref(), &spec.server_host)?;
        let server = self.server()?;
        let found = Found {
            worker: spec.worker.clone(),
            endpoint: spec.endpoint.clone(),
            started_at: (self.now)(),
            release: spec.release,
            gpus: spec.gpus.clone(),
        };
        let begin = |life: Life| life.begin(spec, run);
        spawn(&self.shared, &server, found, true, Container::None, begin);
        Ok(())
    }

    fn stop(&self, worker: &WorkerId, how: Stop) {
        let wanted = match how {
            Stop::Gently => Wanted::Gently,
            Stop::Now => Wanted::Dead,
        };
        if let Some(live) = self.shared.live().get(worker) {
            live.wanted.send_if_modified(|now| {
                let is_more = wanted > *now;
                *now = wanted.max(*now);
                is_more
            });
        }
    }
}

impl Drop for DockerProvider {
    fn drop(&mut self) {
        for live in self.shared.live().values() {
            live.task.abort();
        }
        if let Some(looking) = &self.looking {
            looking.abort();
        }
    }
}
