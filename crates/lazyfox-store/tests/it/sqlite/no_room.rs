//! A disk that takes no more at run time: refused with a clear text, nothing lost, and as before when
//! there is room again, without a restart.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use lazyfox_core::delivery::Next;
use lazyfox_core::job::{Counter, Event, Status};
use lazyfox_store::sqlite::SqliteStore;
use lazyfox_store::{Applied, Due, Store as _, StoreError};
use tempfile::TempDir;

use super::{child, open};
use crate::world::*;

/// On a small file system of its own, mounted where only the child sees it.
#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    const TEST: &str = "sqlite::no_room::a_full_disk_refuses_and_loses_nothing";
    if let Some(dir) = child::dir() {
        let ballast = dir.join("ballast");
        return refuses_and_recovers(
            &dir,
            || fill(&ballast),
            || fs::remove_file(&ballast).unwrap(),
            "disk is full",
        );
    }
    let dir = TempDir::new().unwrap();
    let mount =
        "mount -t tmpfs -o size=3m none \"$LAZYFOX_TEST_CHILD_DIR\" || exit 77; exec \"$@\"";
    // A user may do that in a namespace where it is root, if the system lets it.
    for namespaces in ["-Urm", "-m"] {
        let before = ["unshare", namespaces, "sh", "-c", mount, "sh"];
        match child::command(TEST, dir.path(), &before).output() {
            Ok(output) if output.status.code() == Some(77) || nothing_ran(&output.stdout) => {}
            Ok(output) => return child::assert_passed(&output),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => panic!("{e}"),
        }
    }
    child::not_run(TEST, "no small file system can be mounted here");
}

fn nothing_ran(stdout: &[u8]) -> bool {
    !String::from_utf8_lossy(stdout).contains("running 1 test")
}

fn fill(ballast: &Path) {
    let mut file = File::create(ballast).unwrap();
    let full = loop {
        if let Err(e) = file.write_all(&[7; 4096]) {
            break e;
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
}

/// The same for any other error of writing: no file may grow beyond what the log has now.
#[test]
fn a_failing_write_refuses_and_loses_nothing() {
    const TEST: &str = "sqlite::no_room::a_failing_write_refuses_and_loses_nothing";
    if let Some(dir) = child::dir() {
        let wal = dir.join("lazyfox.db-wal");
        return refuses_and_recovers(
            &dir,
            || limit_files(&fs::metadata(&wal).unwrap().len().to_string()),
            || limit_files("unlimited"),
            "I/O error",
        );
    }
    let dir = TempDir::new().unwrap();
    // Past the limit comes a signal that ends the process, unless it is ignored.
    let before = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    match Command::new("prlimit").arg("--version").output() {
        Ok(_) => {
            let output = child::command(TEST, dir.path(), &before).output().unwrap();
            child::assert_passed(&output);
        }
        Err(_) => child::not_run(TEST, "there is no prlimit(1) here"),
    }
}

/// The soft limit on the size of this process's files: any user may raise it again.
fn limit_files(bytes: &str) {
    let pid = std::process::id().to_string();
    let fsize = format!("--fsize={bytes}:");
    let set = Command::new("prlimit")
        .args(["--pid", &pid, &fsize])
        .status();
    assert!(set.unwrap().success());
}

fn refuses_and_recovers(dir: &Path, fill: impl Fn(), make_room: impl Fn(), says: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = open(dir);
        let [open, settled] = two_deliveries(&store).await;
        // A /runsync caller waits all the while.
        submit(&store, job_with(sync_id(9), "a", terms())).await;
        for n in 1..=5 {
            submit(&store, job(n)).await;
        }
        assert_eq!(take(&store, "w1", 2, 10).await, [sync_id(9), id(1)]);
        let before = (store.survey().await, outbox(&store, 99_999).await);

        // Twice: what was refused must not stand in the way of what is refused later.
        for _ in 0..2 {
            fill();
            nothing_is_taken(&store, says).await;
            nothing_becomes_of_deliveries(&store, &open, says).await;
            make_room();
        }
        let after = (store.survey().await, outbox(&store, 99_999).await);
        assert_eq!(after, before);
        assert_eq!(load(&store, id(6)).await, None);
        assert!(load(&store, sync_id(9)).await.unwrap().job.awaited);

        submit(&store, job(7)).await;
        change(&store, id(1), complete("w1"), 40).await;
        change(&store, sync_id(9), complete("w1"), 40).await;
        let waiting = [id(2), id(3), id(4), id(5), id(7)];
        assert_eq!(take(&store, "w2", 9, 50).await, waiting);
        let survey = store.survey().await.unwrap().remove(0);
        let counted = [(Counter::Completed, 2), (Counter::Failed, 2)];
        assert_eq!(survey.counters, counted, "nothing refused is counted");
        settle(&store, &open, 0, Next::Delivered, 40).await;
        redeliver(&store, &[delivery_id(11, 1)], 40).await;
        assert_eq!(numbers(&due(&store, 99_999).await), [settled.number]);
    });
}

/// Of jobs 10 and 11, which failed: the first one is open, the second one arrived.
async fn two_deliveries(store: &SqliteStore) -> [Due; 2] {
    for n in [10, 11] {
        submit(store, webhooked(job(n))).await;
    }
    take(store, "w3", 9, 5).await;
    for n in [10, 11] {
        change(store, id(n), fail("w3"), 6).await;
    }
    let both = due(store, 6).await;
    settle(store, &both[1], 0, Next::Delivered, 7).await;
    both.try_into().unwrap()
}

fn assert_refused<T: std::fmt::Debug>(result: Result<T, StoreError>, says: &str) {
    match result {
        Err(StoreError::Unavailable(text)) => assert!(text.contains(says), "{text}"),
        other => panic!("{other:?}"),
    }
}

/// Each of these would change what is to be sent.
async fn nothing_becomes_of_deliveries(store: &SqliteStore, open: &Due, says: &str) {
    let on = endpoint("a");
    for next in [Next::Delivered, Next::Again(at(90_000))] {
        assert_refused(
            store.settle(vec![settlement(open, 0, next, 20)]).await,
            says,
        );
    }
    for n in [10, 11] {
        let ids = vec![delivery_id(n, 1)];
        assert_refused(store.redeliver(&on, ids, at(20)).await, says);
    }
    let withdrawn = store.apply(&on, id(10), Event::Retry, None, at(20));
    assert_refused(withdrawn.await, says);
    let sent = outgoing(store, open).await.unwrap();
    assert_eq!((sent.id, sent.round), (delivery_id(10, 1), 0));
}

async fn nothing_is_taken(store: &SqliteStore, says: &str) {
    assert_refused(store.submit(job(6), at(20)).await, says);
    assert_refused(store.lease(ask("a", "w2", 9), at(20)).await, says);
    let on = endpoint("a");
    for event in [complete("w1"), lost("w1"), Event::Cancel] {
        let output = Some(bytes("1"));
        let applied = store.apply(&on, id(1), event, output, at(20)).await;
        assert_refused(applied, says);
    }
    // What needs no room goes on: reading, and refusing.
    assert_eq!(status(store, id(1)).await, Some(Status::InProgress));
    assert_eq!(status(store, id(2)).await, Some(Status::InQueue));
    let foreign = store.apply(&on, id(1), complete("w2"), None, at(20)).await;
    assert!(matches!(foreign, Ok(Applied::Refused(..))), "{foreign:?}");
}
