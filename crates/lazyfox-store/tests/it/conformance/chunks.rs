//! Streams: chunks on their way from a worker to a reader.

use bytes::Bytes;
use lazyfox_core::id::JobId;
use lazyfox_core::job::Status;
use lazyfox_core::limits;
use lazyfox_store::{ChunksKept, Drained, Store};

use crate::world::*;

async fn append(store: &dyn Store, job: JobId, by: &str, chunks: &[&'static str]) -> ChunksKept {
    let chunks = chunks.iter().map(|&text| bytes(text)).collect();
    store
        .append_chunks(&endpoint("a"), job, &worker(by), chunks)
        .await
        .unwrap()
}

async fn drain(store: &dyn Store, job: JobId, bytes_max: usize) -> Drained {
    let drained = store.drain(&endpoint("a"), job, bytes_max).await;
    drained.unwrap().unwrap()
}

fn chunks(drained: &Drained) -> Vec<&str> {
    drained
        .chunks
        .iter()
        .map(|chunk| std::str::from_utf8(chunk).unwrap())
        .collect()
}

/// Job 1, held by `w1`.
async fn running(store: &dyn Store) {
    submit(store, job(1)).await;
    assert_eq!(take(store, "w1", 1, 10).await, [id(1)]);
}

pub(super) async fn chunks_come_out_once_and_in_order(store: &dyn Store) {
    running(store).await;
    submit(store, job(2)).await;
    assert_eq!(take(store, "w1", 1, 10).await, [id(2)]);
    let none = drain(store, id(1), 999).await;
    assert_eq!(none.status, Status::InProgress);
    assert!(none.chunks.is_empty() && !none.more);

    append(store, id(1), "w1", &["1", "2"]).await;
    append(store, id(2), "w1", &["other"]).await;
    append(store, id(1), "w1", &["3"]).await;
    assert_eq!(chunks(&drain(store, id(1), 999).await), ["1", "2", "3"]);
    assert!(drain(store, id(1), 999).await.chunks.is_empty());
    append(store, id(1), "w1", &["4"]).await;
    assert_eq!(chunks(&drain(store, id(1), 999).await), ["4"]);
    assert_eq!(chunks(&drain(store, id(2), 999).await), ["other"]);
}

pub(super) async fn a_drain_stops_at_its_bytes(store: &dyn Store) {
    running(store).await;
    append(store, id(1), "w1", &["aaaa", "bbbb", "cccc", "d"]).await;
    let first = drain(store, id(1), 8).await;
    assert_eq!((chunks(&first), first.more), (vec!["aaaa", "bbbb"], true));
    // One chunk always goes, or a large one would never.
    let second = drain(store, id(1), 1).await;
    assert_eq!((chunks(&second), second.more), (vec!["cccc"], true));
    let third = drain(store, id(1), 1).await;
    assert_eq!((chunks(&third), third.more), (vec!["d"], false));
}

pub(super) async fn only_the_holder_may_stream(store: &dyn Store) {
    submit(store, job(1)).await;
    let kept = append(store, id(1), "w1", &["waiting"]).await;
    assert_eq!(kept, ChunksKept::NotHolder);
    take(store, "w1", 1, 10).await;
    let kept = append(store, id(1), "w2", &["foreign"]).await;
    assert_eq!(kept, ChunksKept::NotHolder);
    assert_eq!(append(store, id(1), "w1", &["1"]).await, ChunksKept::Kept);
    report(store, id(1), complete("w1"), "1").await;
    let kept = append(store, id(1), "w1", &["late"]).await;
    assert_eq!(kept, ChunksKept::NotHolder);
    assert_eq!(chunks(&drain(store, id(1), 999).await), ["1"]);
}

pub(super) async fn a_stream_without_a_reader_gets_full(store: &dyn Store) {
    running(store).await;
    let append = async |bytes: usize| {
        // Zeroed pages that nothing touches: half of the limit costs no memory here.
        let chunk = Bytes::from(vec![0_u8; bytes]);
        store
            .append_chunks(&endpoint("a"), id(1), &worker("w1"), vec![chunk])
            .await
            .unwrap()
    };
    let small = 1_000;
    assert_eq!(append(small).await, ChunksKept::Kept);
    let rest = limits::STREAM_BYTES - small;
    assert_eq!(append(rest + 1).await, ChunksKept::Full);
    // What did not fit left nothing behind: a smaller one still fits, to the last byte.
    assert_eq!(append(small).await, ChunksKept::Kept);
    assert_eq!(append(rest - small + 1).await, ChunksKept::Full);
    // A reader makes room again.
    let drained = drain(store, id(1), small).await;
    assert_eq!((drained.chunks.len(), drained.more), (1, true));
    assert_eq!(append(rest + 1).await, ChunksKept::Full);
    drain(store, id(1), small).await;
    assert_eq!(append(small).await, ChunksKept::Kept);
}

pub(super) async fn chunks_outlive_the_end_of_their_job(store: &dyn Store) {
    running(store).await;
    append(store, id(1), "w1", &["1", "2"]).await;
    report(store, id(1), complete("w1"), "[1,2]").await;
    let drained = drain(store, id(1), 1).await;
    assert_eq!(drained.status, Status::Completed);
    assert_eq!((chunks(&drained), drained.more), (vec!["1"], true));
    assert_eq!(store.prune(at(9 * limits::RETENTION_MS), 9).await, Ok(1));
    assert_eq!(store.drain(&endpoint("a"), id(1), 9).await, Ok(None));
}

pub(super) async fn chunks_of_a_lost_attempt_are_gone(store: &dyn Store) {
    running(store).await;
    append(store, id(1), "w1", &["stale", "stale"]).await;
    assert_eq!(chunks(&drain(store, id(1), 1).await), ["stale"]);
    change(store, id(1), lost("w1"), 20).await;
    assert!(drain(store, id(1), 999).await.chunks.is_empty());
    assert_eq!(take(store, "w2", 1, 30).await, [id(1)]);
    append(store, id(1), "w2", &["fresh"]).await;
    assert_eq!(chunks(&drain(store, id(1), 999).await), ["fresh"]);
}
