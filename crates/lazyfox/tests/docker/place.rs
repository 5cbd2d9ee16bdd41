//! One test's data directory, and runs of a provider on it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lazyfox::providers::docker::DockerProvider;
use lazyfox::providers::{
    ContainerRun, Ended, Found, Output, Provider as _, Pull, Release, Run, Source, WorkerSpec,
};
use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::time::Timestamp;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::engine::Engine;
use crate::image;

/// Far longer than anything here takes; a test that gets here has failed.
const GUARD: Duration = Duration::from_secs(120);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(GUARD, future).await;
    done.expect("nothing happened for too long")
}

/// What a provider says of its workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Line(WorkerId, String),
    System(WorkerId, String),
    Runs(WorkerId),
}

struct Listener(UnboundedSender<Said>);

impl Output for Listener {
    fn line(&self, endpoint: &EndpointId, worker: &WorkerId, source: Source, line: &str) {
        assert_eq!(endpoint.as_str(), "ep");
        let said = match source {
            Source::Worker => Said::Line(worker.clone(), line.to_owned()),
            Source::System => Said::System(worker.clone(), line.to_owned()),
        };
        let _ = self.0.send(said);
    }

    fn runs(&self, worker: &WorkerId) {
        let _ = self.0.send(Said::Runs(worker.clone()));
    }
}

/// One run of a server: its provider, and what that reports.
pub(crate) struct Served {
    pub(crate) provider: DockerProvider,
    pub(crate) said: UnboundedReceiver<Said>,
    pub(crate) ends: UnboundedReceiver<Ended>,
    pub(crate) late: UnboundedReceiver<Found>,
}

impl Served {
    /// The next line that a worker wrote.
    pub(crate) async fn line(&mut self) -> String {
        loop {
            match within(self.said.recv()).await.expect("the provider lives") {
                Said::Line(_, line) => return line,
                Said::System(..) | Said::Runs(_) => {}
            }
        }
    }

    /// The next system line with these words.
    pub(crate) async fn system(&mut self, words: &str) -> String {
        loop {
            match within(self.said.recv()).await.expect("the provider lives") {
                Said::System(_, line) if line.contains(words) => return line,
                Said::System(..) | Said::Line(..) | Said::Runs(_) => {}
            }
        }
    }

    pub(crate) async fn end(&mut self) -> Ended {
        within(self.ends.recv()).await.expect("the provider lives")
    }

    /// Everything that was said up to now.
    pub(crate) fn all_said(&mut self) -> Vec<Said> {
        std::iter::from_fn(|| self.said.try_recv().ok()).collect()
    }

    /// Runs a worker to its end; returns that and the lines that it wrote.
    pub(crate) async fn run_out(&mut self, spec: WorkerSpec) -> (Ended, Vec<String>) {
        self.provider.start(spec).expect("it is taken on");
        let ended = self.end().await;
        let lines = self.all_said().into_iter().filter_map(|said| match said {
            Said::Line(_, line) => Some(line),
            Said::System(..) | Said::Runs(_) => None,
        });
        (ended, lines.collect())
    }
}

/// A data directory and a directory that workers see as `/shared`.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        fs::create_dir(dir.path().join("shared")).expect("a directory for workers");
        Self { dir }
    }

    /// A worker of this test: tests share an engine, and its containers have names.
    pub(crate) fn name(&self, name: &str) -> WorkerId {
        let own = self.dir.path().file_name().expect("a directory has a name");
        let own = own.to_string_lossy().replace('.', "");
        format!("{own}-{name}").parse().expect("a name")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("containers")
    }

    pub(crate) fn shared(&self) -> PathBuf {
        self.dir.path().join("shared")
    }

    /// The label that all containers of this data directory have.
    pub(crate) fn label(&self) -> String {
        let id = fs::read_to_string(self.data().join("server-id")).expect("an id was made");
        format!("dev.lazyfox.server={id}")
    }

    /// The files that are kept of workers.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(self.data().join("read"))
            .expect("a directory of marks")
            .count()
    }

    /// A pipe with a name in `/shared`: a worker that waits on it waits for the test.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let path = self.shared().join(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo runs").success());
        path
    }

    pub(crate) async fn open(&self, engine: &Engine) -> Served {
        let (listener, said) = unbounded_channel();
        let (ended, ends) = unbounded_channel();
        let (found, late) = unbounded_channel();
        let now = || Timestamp::from_ms(1_000);
        let output = Arc::new(Listener(listener));
        let (data, places) = (self.data(), engine.places());
        let provider = DockerProvider::open(data, places, output, ended, found, now).await;
        Served {
            provider: provider.expect("the directory can be read"),
            said,
            ends,
            late,
        }
    }

    /// A worker that runs a shell script in the small image.
    pub(crate) fn script(&self, script: &str) -> WorkerSpec {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        self.worker(
            "w-1",
            ContainerRun {
                image: image::SMALL.to_owned(),
                command: Some(command.to_vec()),
                mounts: vec![self.mount(false)],
                pull: Pull::Never,
                ..ContainerRun::default()
            },
        )
    }

    pub(crate) fn mount(&self, read_only: bool) -> lazyfox::providers::Mount {
        lazyfox::providers::Mount {
            from: self.shared(),
            to: "/shared".into(),
            read_only,
        }
    }

    pub(crate) fn worker(&self, name: &str, run: ContainerRun) -> WorkerSpec {
        WorkerSpec {
            endpoint: "ep".parse().expect("a name"),
            worker: self.name(name),
            run: Run::Container(run),
            gpus: Vec::new(),
            release: Release(7),
            env: vec![("PROMISED".to_owned(), "yes and no".to_owned())],
            server_host: "127.0.0.1".to_owned(),
        }
    }
}

/// What a specification says about its container.
pub(crate) fn run_of(spec: &mut WorkerSpec) -> &mut ContainerRun {
    match &mut spec.run {
        Run::Container(run) => run,
        Run::Process(_) => panic!("a container"),
    }
}

/// Runs something that blocks, on a thread that a failed test does not wait for.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(work()).ok());
    within(result).await.expect("the work does not panic")
}

/// Writes to a named pipe as soon as somebody reads it.
pub(crate) async fn write(fifo: PathBuf, text: &'static str) {
    blocking(move || fs::write(fifo, text))
        .await
        .expect("the pipe is written");
}
