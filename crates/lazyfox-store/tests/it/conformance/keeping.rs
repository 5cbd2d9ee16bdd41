//! How long jobs are kept for the sake of their deliveries.

use lazyfox_core::delivery::Next;
use lazyfox_core::job::Status;
use lazyfox_core::limits;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Due, Store};

use super::deliveries::running;
use crate::world::*;

/// When every retention is over.
const OVER: u64 = 9 * limits::RETENTION_MS;
/// An open delivery's record is looked at again so much later, at the latest.
const AGAIN_MS: u64 = 10 * 60_000;

async fn prune(store: &dyn Store, ms: u64, limit: usize) -> usize {
    store.prune(at(ms), limit).await.unwrap()
}

/// Settles with a time of keeping that is its own.
async fn settle_and_keep(store: &dyn Store, due: &Due, next: Next, until: Timestamp) {
    let mut settlement = settlement(due, 0, next, 1_000);
    settlement.keep_until = until;
    store.settle(vec![settlement]).await.unwrap();
}

/// Jobs 1 to n, ended in this order, and their deliveries.
async fn ended(store: &dyn Store, n: u8) -> Vec<Due> {
    running(store, n).await;
    for n in 1..=n {
        change(store, id(n), complete("w1"), 100 + u64::from(n)).await;
    }
    due(store, 1_000).await
}

pub(super) async fn a_job_with_an_open_delivery_is_not_forgotten(store: &dyn Store) {
    let due = ended(store, 3).await;
    assert_eq!(prune(store, OVER, 9).await, 0);
    // However long its tries say that it is kept, it is open.
    let again = Next::Again(at(OVER + 1));
    settle_and_keep(store, &due[2], again, at(1)).await;
    settle(store, &due[1], 0, Next::Delivered, 1_000).await;
    // The open ones are not in the way of others, whatever the limit.
    assert_eq!(prune(store, OVER + AGAIN_MS, 1).await, 1);
    assert_eq!(status(store, id(2)).await, None);
    for round in 2..9 {
        assert_eq!(prune(store, OVER + round * AGAIN_MS, 9).await, 0);
    }
    for n in [1, 3] {
        assert_eq!(status(store, id(n)).await, Some(Status::Completed));
    }
    let later = OVER + 20 * AGAIN_MS;
    assert_eq!(names(store, &due[..1]).await, [delivery_id(1, 1)]);
    settle_and_keep(store, &due[0], Next::Delivered, at(1)).await;
    let mut gave_up = settlement(&due[2], 1, Next::GaveUp, 1_000);
    gave_up.keep_until = at(1);
    store.settle(vec![gave_up]).await.unwrap();
    assert_eq!(prune(store, later, 9).await, 2);
    assert_eq!(deliveries(store).await, []);
}

pub(super) async fn an_open_delivery_is_asked_for_again_within_ten_minutes(store: &dyn Store) {
    let due = ended(store, 1).await;
    assert_eq!(prune(store, OVER, 9).await, 0);
    settle(store, &due[0], 0, Next::Delivered, 1_000).await;
    assert_eq!(prune(store, OVER + AGAIN_MS, 9).await, 1);
    assert_eq!(status(store, id(1)).await, None);
}

pub(super) async fn a_job_is_kept_as_long_as_its_deliveries(store: &dyn Store) {
    let due = ended(store, 3).await;
    settle(store, &due[0], 0, Next::GaveUp, 2_000).await;
    settle(store, &due[1], 0, Next::Delivered, 3_000).await;
    // Kept shorter than the result, it changes nothing.
    settle_and_keep(store, &due[2], Next::GaveUp, at(5_000)).await;

    let result = 103 + limits::RETENTION_MS;
    assert_eq!(prune(store, result - 1, 9).await, 0);
    assert_eq!(prune(store, result, 9).await, 1);
    assert_eq!(status(store, id(3)).await, None);
    let delivered = 3_000 + limits::WEBHOOK_KEEP_MS;
    assert_eq!(prune(store, delivered - 1, 9).await, 0);
    assert_eq!(prune(store, delivered, 9).await, 1);
    assert_eq!(status(store, id(2)).await, None);
    let failed = 2_000 + limits::WEBHOOK_KEEP_FAILED_MS;
    for ms in [delivered + AGAIN_MS, failed - AGAIN_MS, failed - 1] {
        assert_eq!(prune(store, ms, 9).await, 0);
    }
    let kept = load(store, id(1)).await.unwrap();
    assert_eq!(kept.input, Some(input_of(id(1))));
    assert_eq!(prune(store, failed, 9).await, 1);
    assert_eq!(deliveries(store).await, []);
}

pub(super) async fn a_delivery_that_is_sent_again_is_kept_anew(store: &dyn Store) {
    let due = ended(store, 1).await;
    settle_and_keep(store, &due[0], Next::GaveUp, at(5_000)).await;
    redeliver(store, &[delivery_id(1, 1)], 4_000).await;
    assert_eq!(prune(store, OVER, 9).await, 0);
    settle_and_keep(store, &due[0], Next::Delivered, at(2 * OVER)).await;
    assert_eq!(prune(store, 2 * OVER - 1, 9).await, 0);
    assert_eq!(prune(store, 2 * OVER, 9).await, 1);
}

pub(super) async fn what_is_kept_is_in_nobodys_way(store: &dyn Store) {
    let due = ended(store, 30).await;
    for due in &due[..15] {
        settle(store, due, 0, Next::GaveUp, 1_000).await;
    }
    for n in 40..45 {
        submit(store, job(n)).await;
        assert_eq!(take(store, "w1", 9, 1_000).await, [id(n)]);
        change(store, id(n), complete("w1"), 1_000 + u64::from(n)).await;
    }
    // Those that go ended last, and any number finds them behind those that stay.
    let over = 2_000 + limits::RETENTION_MS;
    for (limit, gone) in [(0, 0), (1, 1), (2, 2), (1, 1), (9, 1), (9, 0)] {
        assert_eq!(prune(store, over, limit).await, gone);
    }
    for n in 1..=30 {
        assert_eq!(status(store, id(n)).await, Some(Status::Completed));
    }
}
