use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use lazyfox_core::id::EndpointId;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::providers::{Release, Source};

mod limited;

/// Far longer than anything here takes; a test that gets here has failed.
const GUARD: Duration = Duration::from_secs(60);

/// Passes lines on as `endpoint worker line`.
struct Lines(UnboundedSender<String>);

impl Output for Lines {
    fn line(&self, endpoint: &EndpointId, worker: &WorkerId, _: Source, line: &str) {
        let _ = self.0.send(format!("{endpoint} {worker} {line}"));
    }
}

/// One run of a server: its provider, and what that reports.
struct Served {
    provider: ProcessProvider,
    lines: UnboundedReceiver<String>,
    ends: UnboundedReceiver<Ended>,
}

impl Served {
    async fn open(place: &Place) -> Self {
        Self::open_with(place, Inventory::new(None)).await
    }

    async fn open_with(place: &Place, gpus: Inventory) -> Self {
        let (line, lines) = unbounded_channel();
        let (end, ends) = unbounded_channel();
        let inherited = vec![
            ("PATH".into(), std::env::var_os("PATH").unwrap()),
            ("LAZYFOX_SECRET".into(), "hidden".into()),
        ];
        let now = || Timestamp::from_ms(1_000);
        let hold = Hold::take(&place.workers()).await.unwrap();
        let output = Arc::new(Lines(line));
        let gpus = Arc::new(gpus);
        let provider = ProcessProvider::open(hold, inherited, gpus, output, end, now);
        let provider = provider.unwrap();
        Self {
            provider,
            lines,
            ends,
        }
    }

    async fn line(&mut self) -> String {
        within(self.lines.recv()).await.unwrap()
    }

    async fn end(&mut self) -> Ended {
        within(self.ends.recv()).await.unwrap()
    }

    /// Runs a shell script to its end; returns that and all it wrote.
    async fn run_out(&mut self, spec: WorkerSpec) -> (Ended, Vec<String>) {
        self.provider.start(spec).unwrap();
        let ended = self.end().await;
        let mut lines = Vec::new();
        while let Ok(line) = self.lines.try_recv() {
            lines.push(line.strip_prefix("ep w-1 ").unwrap().to_owned());
        }
        (ended, lines)
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future)
        .await
        .expect("nothing happened for too long")
}

/// Directories of one test.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.files()).unwrap();
        place
    }

    fn workers(&self) -> PathBuf {
        self.0.path().join("workers")
    }

    fn files(&self) -> PathBuf {
        self.0.path().join("files")
    }

    /// A pipe with a name: what waits on it, waits for the test or the worker to act.
    fn fifo(&self) -> PathBuf {
        let path = self.0.path().join("fifo");
        let made = std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap();
        assert!(made.success());
        path
    }

    fn command(&self, command: &[&str]) -> WorkerSpec {
        self.command_in(command, self.files())
    }

    fn command_in(&self, command: &[&str], working_dir: PathBuf) -> WorkerSpec {
        WorkerSpec {
            endpoint: "ep".parse().unwrap(),
            worker: worker("w-1"),
            run: Run::Process(ProcessRun {
                command: command.iter().map(|&word| word.to_owned()).collect(),
                working_dir,
                ..ProcessRun::default()
            }),
            gpus: vec!["0".to_owned()],
            release: Release(7),
            env: vec![(
                "FIFO".to_owned(),
                self.0.path().join("fifo").display().to_string(),
            )],
            server_host: "127.0.0.1".to_owned(),
        }
    }

    fn script(&self, script: &str) -> WorkerSpec {
        self.command(&["/bin/sh", "-c", script])
    }
}

fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

/// Runs something that blocks, on a thread that a failed test does not wait for.
fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> tokio::sync::oneshot::Receiver<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(work()).ok());
    result
}

/// Writes to a named pipe as soon as somebody reads it.
async fn write(fifo: PathBuf, text: &'static str) {
    within(blocking(move || fs::write(fifo, text)))
        .await
        .unwrap()
        .unwrap();
}

/// Returns when no process has the pipe open for writing any more.
async fn read_to_end(fifo: PathBuf) -> String {
    within(blocking(move || fs::read_to_string(fifo)))
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn lines_arrive_while_the_worker_runs_and_say_whose_they_are() {
    let place = Place::new();
    let fifo = place.fifo();
    let mut run = Served::open(&place).await;
    run.provider
        .start(place.script("echo out; echo err >&2; read x < $FIFO; exit 3"))
        .unwrap();
    assert_eq!(run.line().await, "ep w-1 out");
    assert_eq!(run.line().await, "ep w-1 err");
    let found = Found {
        worker: worker("w-1"),
        endpoint: "ep".parse().unwrap(),
        started_at: Timestamp::from_ms(1_000),
        release: Release(7),
        gpus: vec!["0".to_owned()],
    };
    assert_eq!(run.provider.list(), [found]);
    write(fifo, "go\n").await;
    let expected = Ended {
        worker: worker("w-1"),
        endpoint: "ep".parse().unwrap(),
        exit: Exit::Code(3),
        last_lines: vec!["out".to_owned(), "err".to_owned()],
    };
    assert_eq!(run.end().await, expected);
    assert_eq!(run.provider.list(), []);
    assert!(!place.workers().join("w-1").exists());
}

#[tokio::test]
async fn the_last_words_are_heard_before_the_end() {
    let place = Place::new();
    let mut run = Served::open(&place).await;
    let (ended, lines) = run
        .run_out(place.script("printf 'Traceback\\nno end'; kill -9 $$"))
        .await;
    assert_eq!(ended.exit, Exit::Signal(9));
    assert_eq!(ended.last_lines, ["Traceback", "no end"]);
    assert_eq!(lines, ended.last_lines);
}

#[tokio::test]
async fn children_of_a_worker_end_with_it() {
    let place = Place::new();
    let fifo = place.fifo();
    let mut run = Served::open(&place).await;
    // The child inherits the open pipe, which is at its end only when the child is.
    let script = "exec 3> $FIFO; echo here >&3; sleep 1000 & exit 0";
    run.provider.start(place.script(script)).unwrap();
    assert_eq!(read_to_end(fifo).await, "here\n");
    assert_eq!(run.end().await.exit, Exit::Code(0));
}

#[tokio::test]
async fn children_that_left_the_process_group_end_with_it_too() {
    let place = Place::new();
    let fifo = place.fifo();
    let mut run = Served::open(&place).await;
    // One that went elsewhere, one that threw its environment away. Both are there before the end.
    let script = "mkfifo ready; exec 4<> ready
        there='exec 3> $FIFO; echo here >&3; echo > $READY; sleep 1000'
        export READY=$PWD/ready
        (cd /; setsid sh -c \"$there\") &
        setsid env -i PATH=\"$PATH\" FIFO=$FIFO READY=$READY sh -c \"$there\" &
        read x <&4; read x <&4; exit 0";
    run.provider.start(place.script(script)).unwrap();
    assert_eq!(read_to_end(fifo).await, "here\nhere\n");
    assert_eq!(run.end().await.exit, Exit::Code(0));
    assert!(!place.workers().join("w-1").exists());
}

#[tokio::test]
async fn a_worker_asked_gently_may_go_on_and_is_killed_when_told() {
    let place = Place::new();
    let mut run = Served::open(&place).await;
    let script = "trap 'echo asked' TERM; echo ready; while :; do sleep 1000 & wait; done";
    run.provider.start(place.script(script)).unwrap();
    assert_eq!(run.line().await, "ep w-1 ready");
    run.provider.stop(&worker("w-1"), Stop::Gently);
    assert_eq!(run.line().await, "ep w-1 asked");
    run.provider.stop(&worker("w-2"), Stop::Now);
    run.provider.stop(&worker("w-1"), Stop::Now);
    assert_eq!(run.end().await.exit, Exit::Signal(9));
}

#[tokio::test]
async fn the_servers_secrets_stay_with_the_server() {
    let place = Place::new();
    let mut run = Served::open(&place).await;
    let (_, lines) = run.run_out(place.script("env")).await;
    let has = |name: &str| lines.iter().any(|line| line.starts_with(name));
    assert!(has("PATH="), "{lines:?}");
    assert!(has("FIFO="), "{lines:?}");
    assert!(has("PYTHONUNBUFFERED=1"), "{lines:?}");
    assert!(!has("LAZYFOX_SECRET"), "{lines:?}");
    // Set by cargo in the environment of this test itself, which was not handed to the provider.
    assert!(!has("CARGO_"), "{lines:?}");
}

#[tokio::test]
async fn a_worker_stands_in_a_fresh_directory_with_the_handlers_files() {
    let place = Place::new();
    for name in ["data.txt", ".runpod_jobs.pkl", ".runpod_jobs.pkl.lock"] {
        fs::write(place.files().join(name), "data\n").unwrap();
    }
    fs::create_dir(place.files().join(".lazyfox")).unwrap();
    let mut run = Served::open(&place).await;
    let script = "ls -A; cat data.txt; echo new > .runpod_jobs.pkl";
    let (ended, lines) = run.run_out(place.script(script)).await;
    assert_eq!(ended.exit, Exit::Code(0));
    assert_eq!(lines, ["data.txt", "data"]);
    assert_eq!(
        fs::read_to_string(place.files().join(".runpod_jobs.pkl")).unwrap(),
        "data\n"
    );
}

#[tokio::test]
async fn the_servers_directory_may_lie_among_the_handlers_files() {
    let place = Place::new();
    let mut run = Served::open(&place).await;
    fs::write(place.0.path().join("data.txt"), "").unwrap();
    let spec = place.command_in(&["/bin/sh", "-c", "ls -A"], place.0.path().to_owned());
    let (_, lines) = run.run_out(spec).await;
    assert_eq!(lines, ["data.txt", "files"]);
}

#[tokio::test]
async fn a_failed_start_names_what_failed_and_leaves_nothing() {
    let place = Place::new();
    let run = Served::open(&place).await;
    fs::write(place.files().join("plain"), "").unwrap();
    fs::write(place.files().join("not-a-dir"), "").unwrap();
    let path = place.files().display().to_string();
    let not_a_dir = format!("{path}/not-a-dir");
    let elsewhere = |dir: &str| place.command_in(&["/bin/sh", "-c", "exit 0"], dir.into());
    for (spec, parts) in [
        (
            place.command(&["no-such-program"]),
            ["program \"no-such-program\"", "not found in PATH"],
        ),
        (
            place.command(&["./missing"]),
            [&*format!("{path}/./missing"), "No such file"],
        ),
        (
            place.command(&["./plain"]),
            [&*format!("{path}/./plain"), "not executable"],
        ),
        (place.command(&[]), ["command", "empty"]),
        (
            elsewhere("/no/such/dir"),
            ["working directory /no/such/dir", "No such file"],
        ),
        (elsewhere(&not_a_dir), [&*not_a_dir, "not a directory"]),
    ] {
        let error = run.provider.start(spec).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert_eq!(run.provider.list(), []);
        assert!(!place.workers().join("w-1").exists());
    }
}

#[tokio::test]
async fn a_worker_id_is_not_used_twice() {
    let place = Place::new();
    let run = Served::open(&place).await;
    run.provider.start(place.script("sleep 1000")).unwrap();
    let error = run
        .provider
        .start(place.script("exit 0"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("w-1") && error.contains("File exists"),
        "{error}"
    );
    assert_eq!(run.provider.list().len(), 1);
    run.provider.stop(&worker("w-1"), Stop::Now);
}

#[tokio::test]
async fn a_worker_outlives_the_server_and_is_found_again() {
    let place = Place::new();
    let fifo = place.fifo();
    let mut before = Served::open(&place).await;
    before
        .provider
        .start(place.script("echo ready; read x < $FIFO; echo done"))
        .unwrap();
    assert_eq!(before.line().await, "ep w-1 ready");
    let listed = before.provider.list();
    let Served {
        provider,
        ends: mut ends_before,
        ..
    } = before;
    drop(provider);

    let mut after = Served::open(&place).await;
    assert_eq!(after.provider.list(), listed);
    write(fifo, "go\n").await;
    assert_eq!(after.line().await, "ep w-1 done");
    let ended = after.end().await;
    assert_eq!(ended.exit, Exit::Unknown);
    assert_eq!(ended.last_lines, ["ready", "done"]);
    assert_eq!(within(ends_before.recv()).await, None);
    assert!(!place.workers().join("w-1").exists());
}

#[tokio::test]
async fn a_worker_found_again_can_be_stopped() {
    let place = Place::new();
    let mut before = Served::open(&place).await;
    before
        .provider
        .start(place.script("echo ready; sleep 1000"))
        .unwrap();
    before.line().await;
    drop(before);
    let mut after = Served::open(&place).await;
    after.provider.stop(&worker("w-1"), Stop::Now);
    assert_eq!(after.end().await.worker, worker("w-1"));
}

#[tokio::test]
async fn a_process_that_only_has_the_number_of_a_worker_is_left_alone() {
    let place = Place::new();
    let home = place.workers().join("w-1");
    fs::create_dir_all(&home).unwrap();
    // The process is this test's own. If it were taken for the worker, the test would not end.
    let mut process = serde_json::to_value(Identity::of(std::process::id()).unwrap()).unwrap();
    process["started_ticks"] = 1.into();
    let record = serde_json::json!({"process": process, "endpoint": "ep", "started_at_ms": 5});
    fs::write(home.join("pid"), record.to_string()).unwrap();
    fs::write(home.join("output.log"), "one\ntwo").unwrap();

    let mut run = Served::open(&place).await;
    assert_eq!(run.provider.list(), []);
    let expected = Ended {
        worker: worker("w-1"),
        endpoint: "ep".parse().unwrap(),
        exit: Exit::Unknown,
        last_lines: vec!["one".to_owned(), "two".to_owned()],
    };
    assert_eq!(run.end().await, expected);
    assert!(!home.exists());
}

/// A shell that no provider knows of.
fn shell(script: &str, fifo: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script])
        .env("FIFO", fifo)
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn what_a_dead_server_had_only_half_started_is_ended() {
    let place = Place::new();
    let fifo = place.fifo();
    let home = place.workers().join("w-1");
    fs::create_dir_all(home.join("cwd")).unwrap();
    // One that stands where a worker does, with a child, and one that has gone elsewhere.
    let script = "exec 3> $FIFO; echo here >&3; sleep 1000 & wait";
    let mut here = shell(script, &fifo)
        .current_dir(home.join("cwd"))
        .spawn()
        .unwrap();
    let script = "exec 3> $FIFO; echo here >&3; read x";
    let mut elsewhere = shell(script, &fifo)
        .env("LAZYFOX_WORKER_DIR", &home)
        .spawn()
        .unwrap();
    let (tell, ready) = tokio::sync::oneshot::channel();
    let read = blocking(move || {
        let mut lines = BufReader::new(fs::File::open(fifo).unwrap())
            .lines()
            .map(Result::unwrap);
        tell.send([lines.next(), lines.next()]).unwrap();
        // To the end: when the child is gone as well.
        lines.count()
    });
    assert_eq!(
        within(ready).await.unwrap(),
        [Some("here".to_owned()), Some("here".to_owned())]
    );

    let run = Served::open(&place).await;
    for process in [&mut here, &mut elsewhere] {
        let status = within(process.wait()).await.unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
    }
    assert_eq!(within(read).await.unwrap(), 0);
    assert_eq!(run.provider.list(), []);
    assert!(!home.exists());
}
