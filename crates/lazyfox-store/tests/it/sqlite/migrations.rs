//! What becomes of older formats, beyond what the fixtures show.

use lazyfox_core::delivery::{Next, State, Try};
use lazyfox_core::id::DeliveryId;
use lazyfox_core::limits;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{DeliveryQuery, Redelivery, Store as _};
use tempfile::TempDir;

use super::{format_1, open, raw};
use crate::world::*;

fn made(status: Option<u16>, error: Option<&str>) -> Try {
    Try {
        at: Timestamp::from_ms(0),
        duration_ms: 0,
        status,
        answer: None,
        error: error.map(str::to_owned),
    }
}

/// In the fixture, job 1 has a delivery that arrived, 2 one that was not tried yet, and 3 one that is to be
/// tried again.
#[tokio::test]
async fn what_the_first_format_knew_of_deliveries_is_kept() {
    let dir = TempDir::new().unwrap();
    format_1(dir.path());
    // Job 3 was retried twice and is at its third end; there was once a job 1000.
    let sql = "INSERT INTO deliveries (id, seq, due_at, tries, delivered, last) VALUES
        (4, 3, NULL, 1, 0, 'withdrawn: the job was retried'),
        (5, 3, NULL, 3, 0, 'connection refused'),
        (6, 3, NULL, 3, 0, 'answered 500'),
        (7, 1000, 1800000002500, 0, 0, NULL),
        (8, 3, 1800000050000, 2, 0, 'answered like nobody before');
        UPDATE deliveries SET due_at = NULL, last = 'withdrawn: the job was retried' WHERE id = 3";
    raw(dir.path()).execute_batch(sql).unwrap();
    let store = open(dir.path());
    let listed = deliveries(&store).await.into_iter().rev();
    let listed: Vec<_> = listed.map(|it| (it.id, it.state, it.tries)).collect();
    let busy = Some("answered 500");
    let odd = Some("answered like nobody before");
    let expected = [
        (
            delivery_id(1, 1),
            State::Delivered,
            vec![made(Some(204), None)],
        ),
        (delivery_id(2, 1), State::Pending, vec![]),
        // Why its tries failed was written over.
        (delivery_id(3, 1), State::Withdrawn, vec![]),
        (delivery_id(3, 2), State::Withdrawn, vec![]),
        (
            delivery_id(3, 3),
            State::Failed,
            vec![made(None, Some("connection refused"))],
        ),
        (
            delivery_id(3, 4),
            State::Failed,
            vec![made(Some(500), busy)],
        ),
        (delivery_id(3, 5), State::Pending, vec![made(None, odd)]),
    ];
    assert_eq!(listed, expected);

    // What is open goes on where it was, in its own time.
    let due = due(&store, 60_000).await;
    let sent = outgoing(&store, &due[1]).await.unwrap();
    assert_eq!((sent.id, sent.round), (delivery_id(3, 5), 2));
    assert_eq!(outbox(&store, 49_999).await.next, at(50_000));
    settle(&store, &due[1], 2, Next::GaveUp, 60_000).await;
    let last = delivery(&store, delivery_id(3, 5)).await;
    assert_eq!((last.state, last.tries.len()), (State::Failed, 2));
}

#[tokio::test]
async fn deliveries_of_the_first_format_can_be_sent_again() {
    let dir = TempDir::new().unwrap();
    format_1(dir.path());
    let sql = "UPDATE deliveries SET due_at = NULL, tries = 3 WHERE id = 3;
        INSERT INTO deliveries (id, seq, tries, last) VALUES (4, 3, 3, 'answered 503')";
    raw(dir.path()).execute_batch(sql).unwrap();
    let store = open(dir.path());
    let ids = [(1, 1), (3, 2), (3, 1)].map(|(n, number)| delivery_id(n, number));
    // The earlier end of job 3 is none any more, and nobody knows when it was.
    let expected = [Redelivery::Due, Redelivery::Due, Redelivery::Outdated];
    assert_eq!(redeliver(&store, &ids, 60_000).await, expected);
    let mut names = due_names(&store, 60_000).await;
    names.sort_unstable();
    assert_eq!(
        names,
        [1, 2, 3].map(|n| delivery_id(n, if n == 3 { 2 } else { 1 }))
    );
}

#[tokio::test]
async fn settled_deliveries_of_the_first_format_keep_no_record() {
    let dir = TempDir::new().unwrap();
    format_1(dir.path());
    let store = open(dir.path());
    let over = at(limits::RETENTION_MS + 90_000);
    // Jobs 4 and 7 had no delivery, that of 1 was settled; 2 and 3 have open ones.
    assert_eq!(store.prune(over, 9).await, Ok(3));
    let page = store.deliveries(DeliveryQuery::of(endpoint("a"))).await;
    let left = page.unwrap().deliveries;
    let left: Vec<DeliveryId> = left.iter().map(|it| it.id).collect();
    assert_eq!(left, [delivery_id(3, 1), delivery_id(2, 1)]);
}
