//! What is left behind.

use std::fs;

use lazyfox_core::delivery::Next;
use lazyfox_core::job::Event;
use lazyfox_core::time::Timestamp;
use lazyfox_store::Store as _;
use tempfile::TempDir;

use super::{open, raw};
use crate::world::*;

#[tokio::test]
async fn a_closed_store_is_one_file() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    submit(&store, job(1)).await;
    assert!(load(&store, id(1)).await.is_some());
    assert!(dir.path().join("lazyfox.db-wal").exists());
    drop(store);
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["lazyfox.db", "lazyfox.lock"]);
}

#[tokio::test]
async fn secrets_are_wiped_from_the_rows_when_a_job_can_never_run_again() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for n in 1..=4 {
        let mut new = job(n);
        new.secrets = Some(vec![n; 3]);
        submit(&store, new).await;
    }
    take(&store, "w1", 3, 10).await;
    report(&store, id(1), complete("w1"), "1").await;
    report(&store, id(2), fail("w1"), "2").await;
    change(&store, id(3), Event::Cancel, 20).await;
    let connection = raw(dir.path());
    let mut statement = connection
        .prepare("SELECT seq FROM inputs WHERE secrets IS NOT NULL ORDER BY seq")
        .unwrap();
    let left = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    let left: Vec<i64> = left.map(Result::unwrap).collect();
    // The failed one can be retried, the last one has yet to run.
    assert_eq!(left, [2, 4]);
}

#[tokio::test]
async fn a_forgotten_job_leaves_nothing_in_any_table() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    submit(&store, webhooked(job(1))).await;
    take(&store, "w1", 1, 10).await;
    let chunks = vec![bytes("1"), bytes("2")];
    let on = endpoint("a");
    store
        .append_chunks(&on, id(1), &worker("w1"), chunks)
        .await
        .unwrap();
    report(&store, id(1), complete("w1"), "1").await;
    let due = due(&store, 1_000).await;
    settle(&store, &due[0], 0, Next::Again(at(1_100)), 1_050).await;
    settle(&store, &due[0], 1, Next::Delivered, 1_150).await;
    let rows = |table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        raw(dir.path())
            .query_row(&sql, [], |row| row.get(0))
            .unwrap()
    };
    let tables = ["jobs", "inputs", "outputs", "chunks", "deliveries", "tries"];
    assert_eq!(tables.map(rows), [1, 1, 1, 2, 1, 2]);
    assert_eq!(store.prune(Timestamp::NEVER, 9).await, Ok(1));
    assert_eq!(tables.map(rows), [0; 6]);
}
