//! What is refused at the start, with a text that says what to do.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use lazyfox_core::limits;
use lazyfox_store::Store as _;
use lazyfox_store::sqlite::{DATABASE, KeyFile};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{child, open, raw, refusal};
use crate::world::*;

/// Bytes in a page of the database.
const PAGE: usize = 4096;

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
}

/// Everything in a directory, by name.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .filter(|(name, _)| name != "lazyfox.lock")
        .collect();
    files.sort();
    files
}

#[test]
fn a_second_server_is_refused_and_told_who_has_it() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path());
    let who = format!("the process {} is serving", std::process::id());
    assert_says(&refusal(dir.path()), &[&who, "stop that server", "--data"]);
    drop(first);
    open(dir.path());
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let connection = raw(dir.path());
    connection.pragma_update(None, "user_version", 99).unwrap();
    connection
        .pragma_update(None, "journal_mode", "delete")
        .unwrap();
    drop(connection);
    let before = files(dir.path());
    assert_says(
        &refusal(dir.path()),
        &["format is number 99", "up to 3", "newer release", "backup"],
    );
    assert!(KeyFile::open(dir.path()).is_err());
    assert!(files(dir.path()) == before, "the database was touched");
}

#[test]
fn another_programs_database_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    raw(dir.path())
        .execute_batch("CREATE TABLE jobs (id INTEGER PRIMARY KEY)")
        .unwrap();
    let before = files(dir.path());
    assert_says(&refusal(dir.path()), &["another program", "--data"]);
    assert!(KeyFile::open(dir.path()).is_err());
    assert!(files(dir.path()) == before, "the database was touched");
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for n in 1..=50 {
        submit(&store, job(n)).await;
    }
    drop(store);
    let path = dir.path().join(DATABASE);
    let whole = fs::read(&path).unwrap();

    let mut header = whole.clone();
    header[..100].fill(b'?');
    fs::write(&path, &header).unwrap();
    assert_says(&refusal(dir.path()), &["damaged", "keep a copy", "backup"]);

    // The header and the schema are whole, and everything else is not.
    let mut pages = whole.clone();
    pages[PAGE..].fill(0xa5);
    fs::write(&path, &pages).unwrap();
    assert_says(&refusal(dir.path()), &["damaged", "keep a copy", "backup"]);

    // Only the jobs are damaged: found by the first scan.
    let connection = raw(dir.path());
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'";
    fs::write(&path, &whole).unwrap();
    let root: u32 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    let root = usize::try_from(root).unwrap();
    drop(connection);
    let mut page = whole.clone();
    page[(root - 1) * PAGE..root * PAGE].fill(0xa5);
    fs::write(&path, &page).unwrap();
    assert_says(&refusal(dir.path()), &["damaged", "keep a copy", "backup"]);

    fs::write(&path, &whole).unwrap();
    assert!(load(&open(dir.path()), id(50)).await.is_some());
}

#[test]
fn a_file_in_the_place_of_the_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("data");
    File::create(&file).unwrap();
    for data in [&file, &file.join("deeper")] {
        let text = refusal(data);
        assert_says(&text, &["data directory cannot be made"]);
        assert_says(&text, &[&data.display().to_string()]);
    }
}

#[test]
fn a_directory_in_the_place_of_the_database_is_refused() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join(DATABASE)).unwrap();
    assert_says(&refusal(dir.path()), &["unable to open", "owner and mode"]);
}

/// Modes do not bind root, so root runs this again as nobody.
#[test]
fn what_may_not_be_written_is_refused() {
    const TEST: &str = "sqlite::opening::what_may_not_be_written_is_refused";
    if let Some(dir) = child::dir() {
        return refused_as_read_only(&dir);
    }
    let dir = TempDir::new().unwrap();
    let database = dir.path().join("database");
    drop(open(&database));
    fs::remove_file(database.join("lazyfox.lock")).unwrap();
    let directory = dir.path().join("directory");
    fs::create_dir(&directory).unwrap();
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    mode(dir.path(), 0o755);
    mode(&database, 0o777);
    mode(&database.join(DATABASE), 0o444);
    mode(&directory, 0o555);

    if File::create(directory.join("probe")).is_err() {
        return refused_as_read_only(dir.path());
    }
    fs::remove_file(directory.join("probe")).unwrap();
    match child::command(TEST, dir.path(), &[])
        .uid(65_534)
        .gid(65_534)
        .output()
    {
        Ok(output) => child::assert_passed(&output),
        // The way to this binary may be closed to others.
        Err(e) => child::not_run(TEST, &format!("as another user: {e}")),
    }
}

fn refused_as_read_only(dir: &Path) {
    let advice = ["owner and mode", "read-only"];
    assert_says(&refusal(&dir.join("directory")), &advice);
    assert_says(&refusal(&dir.join("database")), &advice);
}

/// As when the server and `lazyfox key` are started together for the first time.
#[test]
fn the_first_opening_can_happen_twice_at_once() {
    for _ in 0..10 {
        let dir = TempDir::new().unwrap();
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            let openings: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        KeyFile::open(dir.path()).and_then(|mut file| file.keys())
                    })
                })
                .collect();
            for opening in openings {
                assert_eq!(opening.join().unwrap(), Ok(vec![]));
            }
        });
    }
}

#[tokio::test]
async fn a_restart_keeps_the_order_and_gives_leases_anew() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for n in 1..=3 {
        submit(&store, job(n)).await;
    }
    submit(&store, job_with(sync_id(4), "a", terms())).await;
    assert_eq!(take(&store, "w1", 1, 10).await, [id(1)]);
    change(&store, id(2), lazyfox_core::job::Event::Cancel, 20).await;
    let surveys = store.survey().await;
    drop(store);

    let restart = 10 * limits::LEASE_MS;
    let store = lazyfox_store::sqlite::SqliteStore::open(dir.path(), at(restart)).unwrap();
    assert_eq!(store.survey().await, surveys);
    // The worker of job 1 has a whole lease to show that it lives, and it may report.
    let expired = store.expire(at(restart + limits::LEASE_MS - 1), 9).await;
    let expired = expired.unwrap();
    assert!(expired.changes.is_empty());
    assert_eq!(expired.next, at(restart + limits::LEASE_MS));
    change(&store, id(1), complete("w1"), restart + 5).await;
    // Whoever waited for job 4 waits no more.
    let job = load(&store, sync_id(4)).await.unwrap().job;
    assert!(!job.awaited);
    assert_eq!(take(&store, "w2", 9, restart).await, [id(3), sync_id(4)]);
}

#[test]
fn the_mark_of_the_file_is_ours() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let pragma = |connection: &Connection, name| -> i64 {
        connection
            .pragma_query_value(None, name, |row| row.get(0))
            .unwrap()
    };
    let connection = raw(dir.path());
    let mark = i64::from(u32::from_be_bytes(*b"lzfx"));
    assert_eq!(pragma(&connection, "application_id"), mark);
    assert_eq!(pragma(&connection, "user_version"), 3);
}
