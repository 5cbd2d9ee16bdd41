//! A container engine of the tests' own: `dockerd` with everything of it in a temporary directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use lazyfox::providers::docker::Places;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::{Mutex, OnceCell};

use crate::{image, process};

/// How long an engine may take to answer, and to end.
const ENGINE_DEADLINE: Duration = Duration::from_secs(60);

/// The time between two looks whether it answers: nothing signals that.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the client waits for an answer, in seconds.
const ANSWER_S: u64 = 120;

/// A running engine; dropping it ends it and what it runs.
pub(crate) struct Engine {
    child: Option<Child>,
    flags: &'static [&'static str],
    socket: PathBuf,
    /// Whether the image with Python is on it.
    pub(crate) has_python: OnceCell<()>,
    dir: TempDir,
}

/// The engine that tests share, for as long as one of them uses it.
static SHARED: Mutex<Weak<Engine>> = Mutex::const_new(Weak::new());

/// The engine that tests share: one of their own, or that of `LAZYFOX_TEST_ENGINE`, a socket.
pub(crate) async fn shared() -> Arc<Engine> {
    let mut shared = SHARED.lock().await;
    if let Some(engine) = shared.upgrade() {
        return engine;
    }
    let engine = Arc::new(match std::env::var_os("LAZYFOX_TEST_ENGINE") {
        Some(socket) => Engine::given(socket.into()).await,
        None => Engine::start(&[]).await,
    });
    *shared = Arc::downgrade(&engine);
    engine
}

impl Engine {
    /// Starts an engine that has the small image.
    pub(crate) async fn start(flags: &'static [&'static str]) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let mut engine = Self {
            child: None,
            flags,
            socket: dir.path().join("engine.sock"),
            has_python: OnceCell::new(),
            dir,
        };
        engine.run().await;
        image::load_small(&engine.docker().await).await;
        engine
    }

    /// An engine that is not there.
    pub(crate) fn nowhere() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        Self {
            child: None,
            flags: &[],
            socket: dir.path().join("engine.sock"),
            has_python: OnceCell::new(),
            dir,
        }
    }

    async fn given(socket: PathBuf) -> Self {
        let engine = Self {
            child: None,
            flags: &[],
            socket,
            has_python: OnceCell::new(),
            dir: TempDir::new().expect("a temporary directory"),
        };
        image::load_small(&engine.docker().await).await;
        engine
    }

    /// Starts it, or starts it again, and returns when it answers.
    pub(crate) async fn run(&mut self) {
        let log = self.log();
        let log = fs::File::options().create(true).append(true).open(log);
        let log = log.expect("the engine's log");
        let dir = self.dir.path().display();
        let child = Command::new("dockerd")
            .arg(format!("--data-root={dir}/data"))
            .arg(format!("--exec-root={dir}/exec"))
            .arg(format!("--pidfile={dir}/pid"))
            .arg(format!("--host=unix://{}", self.socket.display()))
            // Nothing of this machine's network is touched.
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .args(self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the engine's log"))
            .stderr(log)
            .spawn()
            .expect("dockerd starts; `cargo xtask test` installs it");
        let pid = child.id();
        self.child = Some(child);
        let begun = std::time::Instant::now();
        while !self.answers().await {
            let ended = process::ended(pid, LOOK_EVERY);
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            assert!(!ended, "dockerd ended (it needs root):\n{log}");
            assert!(
                begun.elapsed() < ENGINE_DEADLINE,
                "dockerd does not answer:\n{log}"
            );
        }
    }

    /// Ends it; containers go on when it was started with `--live-restore`.
    pub(crate) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            process::signal(child.id(), Signal::TERM);
            if !process::ended(child.id(), ENGINE_DEADLINE) {
                process::signal(child.id(), Signal::KILL);
            }
            let _ = child.wait();
        }
    }

    async fn answers(&self) -> bool {
        let path = self.socket.display().to_string();
        let docker = Docker::connect_with_unix(&path, ANSWER_S, API_DEFAULT_VERSION);
        match docker {
            Ok(docker) => docker.ping().await.is_ok(),
            Err(_) => false,
        }
    }

    /// A client.
    pub(crate) async fn docker(&self) -> Docker {
        let path = self.socket.display().to_string();
        let docker = Docker::connect_with_unix(&path, ANSWER_S, API_DEFAULT_VERSION);
        let docker = docker
            .expect("the engine's socket")
            .negotiate_version()
            .await;
        docker.expect("the engine answers")
    }

    /// Where it is, as the provider is told.
    pub(crate) fn places(&self) -> Places {
        Places::of(Some(&self.host()), |_| None)
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// All containers with a label, `NAME=VALUE`.
    pub(crate) async fn containers(&self, label: &str) -> Vec<ContainerSummary> {
        let filters = std::collections::HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let found = self.docker().await.list_containers(Some(options)).await;
        found.expect("the engine lists its containers")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("engine.log")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.end();
        unmount(self.dir.path());
    }
}

/// Takes away what the engine left mounted, or its directory could not be removed.
fn unmount(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut own: Vec<&str> = points
        .filter(|point| Path::new(point).starts_with(dir))
        .collect();
    own.sort_by_key(|point| std::cmp::Reverse(point.len()));
    for point in own {
        let _ = Command::new("umount").arg(point).status();
    }
}
