//! Acknowledged is on disk: a process that is killed loses nothing it has answered for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lazyfox_core::id::JobId;
use lazyfox_core::job::Status;
use lazyfox_store::sqlite::SqliteStore;
use lazyfox_store::{NewJob, Store as _};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{child, open};
use crate::world::*;

const TEST: &str = "sqlite::crash::what_was_acknowledged_survives_a_kill";
const CALLERS: u64 = 8;

#[test]
fn what_was_acknowledged_survives_a_kill() {
    if let Some(dir) = child::dir() {
        work_until_killed(&dir);
    }
    let dir = TempDir::new().unwrap();
    let mut acknowledged = Vec::new();
    // Killed early, and again after some groups of commits; the last time over the remains of both.
    for lines in [1, 40, 333] {
        let mut child = child::command(TEST, dir.path(), &[])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut heard = 0;
        for line in output.lines() {
            let line = line.unwrap();
            // What is in the pipe when the kill comes was acknowledged too, but the last line may
            // be half a line.
            if let Some(line) = line.split_once("acknowledged ").map(|(_, line)| line)
                && let Some(line) = line.strip_suffix('.')
            {
                acknowledged.push(line.to_owned());
                heard += 1;
                if heard == lines {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(heard >= lines, "the child ended by itself after {heard}");
        all_is_there(dir.path(), &acknowledged);
    }
    assert!(acknowledged.iter().any(|line| line.starts_with("result")));
}

/// An id with a number in it, and an input of a length of its own.
fn numbered(n: u64) -> NewJob {
    let mut random = [0; 16];
    random[8..].copy_from_slice(&n.to_be_bytes());
    let mut new = job_with(JobId::new(at(n), random, false), "a", terms());
    new.input = payload(new.job.id);
    new
}

fn payload(id: JobId) -> Bytes {
    let length = usize::from(id.to_bytes()[15]) * 40;
    Bytes::from(format!("[\"{id}\", \"{}\"]", "x".repeat(length)))
}

fn work_until_killed(dir: &Path) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Later processes of the test continue where the earlier ones were stopped.
        let first = u64::from(std::process::id()) << 32;
        let numbers = Arc::new(AtomicU64::new(first));
        let store = Arc::new(open(dir));
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (store, numbers) = (Arc::clone(&store), Arc::clone(&numbers));
            callers.spawn(async move {
                loop {
                    let n = numbers.fetch_add(1, Ordering::Relaxed);
                    live(&store, n, &format!("w{caller}")).await;
                }
            });
        }
        // Only a failure ends one of them.
        callers.join_next().await.unwrap().unwrap();
        unreachable!("callers work until the process is killed")
    })
}

/// A submission and, of some job, the whole life.
async fn live(store: &SqliteStore, n: u64, by: &str) {
    let say = |what: &str, id: JobId| writeln!(std::io::stdout(), "acknowledged {what} {id}.");
    let new = numbered(n);
    let id = new.job.id;
    submit(store, new).await;
    say("job", id).unwrap();
    if n.is_multiple_of(3) {
        return;
    }
    for id in take(store, by, 1, 10).await {
        let output = Some(payload(id));
        let applied = store.apply(&endpoint("a"), id, complete(by), output, at(20));
        if applied.await.unwrap().changed().is_some() {
            say("result", id).unwrap();
        }
    }
}

fn all_is_there(dir: &Path, acknowledged: &[String]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = open(dir);
        for line in acknowledged {
            let (what, name) = line.split_once(' ').unwrap();
            let id: JobId = name.parse().unwrap();
            let loaded = load(&store, id).await;
            let loaded = loaded.unwrap_or_else(|| panic!("{id} was acknowledged and is lost"));
            assert_eq!(loaded.input, Some(payload(id)));
            if what == "result" {
                assert_eq!(loaded.job.status(), Status::Completed);
                assert_eq!(loaded.output, Some(payload(id)));
            }
        }
    });
}
