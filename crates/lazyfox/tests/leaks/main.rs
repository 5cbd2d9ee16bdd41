//! Workers that come and go leave nothing: a process of its own, so that what is left can be counted.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lazyfox::providers::gpus::Inventory;
use lazyfox::providers::process::{Hold, ProcessProvider};
use lazyfox::providers::{
    Ended, Exit, Output, ProcessRun, Provider, Release, Run, Source, Stop, WorkerSpec,
};
use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::time::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Rounds of four workers.
const ROUNDS: usize = 50;

/// Far longer than anything here takes; a test that gets here has failed.
const GUARD: Duration = Duration::from_secs(60);

/// Passes on which worker wrote a line.
struct Lines(UnboundedSender<WorkerId>);

impl Output for Lines {
    fn line(&self, _: &EndpointId, worker: &WorkerId, _: Source, _: &str) {
        let _ = self.0.send(worker.clone());
    }
}

async fn next<T>(channel: &mut UnboundedReceiver<T>) -> T {
    let next = tokio::time::timeout(GUARD, channel.recv()).await;
    next.expect("nothing happened for too long")
        .expect("the provider is there")
}

fn descriptors() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").expect("/proc can be read");
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let mut links: Vec<String> = links.map(|link| link.display().to_string()).collect();
    links.sort();
    links
}

/// The processes that carry the marker of a worker in this directory.
fn processes(dir: &Path) -> BTreeSet<i32> {
    let marker = format!("LAZYFOX_WORKER_DIR={}", dir.display());
    let entries = fs::read_dir("/proc").expect("/proc can be read");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|it| it.starts_with(marker.as_bytes()))
    })
    .collect()
}

/// One with a child in its group and one in a session of its own.
fn spec(n: usize, files: &Path, script: &str) -> WorkerSpec {
    WorkerSpec {
        endpoint: "ep".parse().expect("a name"),
        worker: format!("w-{n}").parse().expect("a name"),
        run: Run::Process(ProcessRun {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            working_dir: files.to_owned(),
            memory_bytes: Some(1 << 40),
            open_files: Some(200),
        }),
        gpus: vec![],
        release: Release::default(),
        env: vec![],
        server_host: "127.0.0.1".to_owned(),
    }
}

#[tokio::test]
async fn two_hundred_workers_leave_nothing() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (files, workers) = (place.path().join("files"), place.path().join("workers"));
    fs::create_dir(&files).expect("it is new");
    fs::write(files.join("handler.py"), "").expect("it can be written");
    let (line, mut lines) = unbounded_channel();
    let (end, mut ends) = unbounded_channel::<Ended>();
    let inherited = vec![("PATH".into(), std::env::var_os("PATH").expect("a PATH"))];
    let gpus = Arc::new(Inventory::new(None));
    let now = || Timestamp::from_ms(0);
    let output = Arc::new(Lines(line));
    let hold = Hold::take(&workers).await.expect("nobody else has it");
    let provider = ProcessProvider::open(hold, inherited, gpus, output, end, now);
    let provider = provider.expect("the directory can be read");
    let script = "sleep 1000 & (cd /; exec setsid sleep 1000) & echo here; wait";
    // Four at once: killed, asked, gone by itself, never there.
    let mut round = async |n: usize| {
        let leaves = script.replace("wait", "exit 3");
        for (it, script) in [script, script, &leaves].into_iter().enumerate() {
            let spec = spec(4 * n + it, &files, script);
            provider.start(spec).expect("it starts");
        }
        let failed = provider.start(spec(4 * n + 3, &files.join("gone"), script));
        assert!(failed.is_err());
        for _ in 0..3 {
            next(&mut lines).await;
        }
        for (it, how) in [Stop::Now, Stop::Gently].into_iter().enumerate() {
            let worker = format!("w-{}", 4 * n + it).parse().expect("a name");
            provider.stop(&worker, how);
        }
        let mut exits = Vec::new();
        for _ in 0..3 {
            let ended = next(&mut ends).await;
            exits.push((ended.worker.to_string(), ended.exit));
        }
        exits.sort_by(|a, b| a.0.cmp(&b.0));
        let exits = exits.into_iter().map(|(_, exit)| exit);
        let expected = [Exit::Signal(9), Exit::Signal(15), Exit::Code(3)];
        assert_eq!(exits.collect::<Vec<_>>(), expected);
    };
    // What is made once is made in the first rounds.
    for n in 100..102 {
        round(n).await;
    }
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = (descriptors(), tasks());
    for n in 102..102 + ROUNDS {
        round(n).await;
    }
    // A task that has reported the end is over a moment later.
    let over = async {
        while tasks() > before.1 {
            tokio::task::yield_now().await;
        }
    };
    let over = tokio::time::timeout(GUARD, over).await;
    assert!(over.is_ok(), "{} tasks, before {}", tasks(), before.1);
    assert_eq!(descriptors(), before.0);
    assert_eq!(provider.list(), []);
    assert_eq!(processes(&workers), BTreeSet::new());
    let left = fs::read_dir(&workers).expect("it is there");
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, [".lock"]);
    assert_eq!(fs::read_dir(&files).expect("it is there").count(), 1);
}
