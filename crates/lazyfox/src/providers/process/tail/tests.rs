use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::providers::lines::{LAST_LINES, LINE_BYTES_MAX};

struct Log {
    _dir: tempfile::TempDir,
    path: PathBuf,
    writer: File,
}

fn log() -> Log {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("output.log");
    let writer = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .unwrap();
    Log {
        _dir: dir,
        path,
        writer,
    }
}

async fn caught_up(tail: &mut Tail) -> Vec<String> {
    let lines = Mutex::new(Vec::new());
    tail.catch_up(&|line| lines.lock().unwrap().push(line.to_owned()))
        .await
        .unwrap();
    lines.into_inner().unwrap()
}

#[tokio::test]
async fn lines_come_when_they_are_whole() {
    let mut log = log();
    let mut tail = Tail::from_start(&log.path).unwrap();
    log.writer.write_all(b"one\r\ntw").unwrap();
    assert_eq!(caught_up(&mut tail).await, ["one"]);
    log.writer.write_all(b"o\n\n\xff!\nend").unwrap();
    assert_eq!(caught_up(&mut tail).await, ["two", "", "\u{fffd}!"]);
    assert_eq!(tail.finish(&|_| ()), ["one", "two", "", "\u{fffd}!", "end"]);
}

#[tokio::test]
async fn endless_lines_come_in_pieces() {
    let mut log = log();
    let mut tail = Tail::from_start(&log.path).unwrap();
    log.writer
        .write_all(&vec![b'x'; 3 * LINE_BYTES_MAX + 5])
        .unwrap();
    log.writer.write_all(b"\n").unwrap();
    let lengths: Vec<_> = caught_up(&mut tail).await.iter().map(String::len).collect();
    assert_eq!(lengths, [LINE_BYTES_MAX, LINE_BYTES_MAX, LINE_BYTES_MAX, 5]);
}

#[tokio::test]
async fn a_log_that_was_read_is_cut_when_it_is_too_long() {
    let mut log = log();
    let mut tail = Tail::from_start(&log.path).unwrap();
    tail.log_bytes_max = 10;
    log.writer.write_all(b"12345\n").unwrap();
    assert_eq!(caught_up(&mut tail).await, ["12345"]);
    log.writer.write_all(b"67890\n").unwrap();
    assert_eq!(caught_up(&mut tail).await, ["67890"]);
    assert_eq!(log.path.metadata().unwrap().len(), 0);
    log.writer.write_all(b"more\n").unwrap();
    assert_eq!(log.path.metadata().unwrap().len(), 5);
    assert_eq!(caught_up(&mut tail).await, ["more"]);
}

#[tokio::test]
async fn a_worker_that_writes_faster_than_it_is_read_loses_lines_not_the_disk() {
    let mut log = log();
    let mut tail = Tail::from_start(&log.path).unwrap();
    tail.log_bytes_max = 10;
    log.writer.write_all(&[b'x'; 11]).unwrap();
    let lines = caught_up(&mut tail).await;
    assert_eq!(
        lines,
        ["[11 bytes of output were dropped: written faster than read]"]
    );
    assert_eq!(log.path.metadata().unwrap().len(), 0);
}

#[tokio::test]
async fn from_the_end_old_lines_are_remembered_but_not_said() {
    let mut log = log();
    log.writer.write_all(&vec![b'x'; CHUNK_BYTES]).unwrap();
    log.writer.write_all(b"\nold\nbeg").unwrap();
    let mut tail = Tail::from_end(&log.path).unwrap();
    log.writer.write_all(b"un\nnew\n").unwrap();
    assert_eq!(caught_up(&mut tail).await, ["begun", "new"]);
    assert_eq!(tail.finish(&|_| ()), ["old", "begun", "new"]);
}

#[tokio::test]
async fn only_the_last_lines_are_kept() {
    let mut log = log();
    for number in 0..30 {
        writeln!(log.writer, "{number}").unwrap();
    }
    let mut tail = Tail::from_start(&log.path).unwrap();
    assert_eq!(caught_up(&mut tail).await.len(), 30);
    let last = tail.finish(&|_| ());
    assert_eq!(last.len(), LAST_LINES);
    assert_eq!(last.first().map(String::as_str), Some("10"));
}
