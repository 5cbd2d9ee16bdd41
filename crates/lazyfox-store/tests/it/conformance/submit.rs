//! Submission and idempotency.

use lazyfox_core::job::Status;
use lazyfox_core::limits;
use lazyfox_store::{Parts, Store, Submitted};

use crate::world::*;

pub(super) async fn a_job_is_kept_byte_for_byte(store: &dyn Store) {
    let new = webhooked(job(1));
    submit(store, new.clone()).await;
    let kept = load(store, id(1)).await.unwrap();
    assert_eq!(kept.job, new.job);
    assert_eq!(kept.input, Some(input_of(id(1))));
    assert_eq!(kept.output, None);

    // Every field of the terms, none at its default.
    let mut odd = terms();
    odd.execution_timeout_ms = None;
    odd.ttl_ms += 1;
    odd.ttl_given = true;
    odd.low_priority = true;
    odd.retries_max = limits::RETRIES_MAX;
    odd.retention_ms += 1;
    odd.retention_sync_ms += 1;
    odd.ttl_expiry_forgets = true;
    odd.webhook_on_cancel = true;
    let new = job_with(sync_id(2), "a", odd);
    submit(store, new.clone()).await;
    let kept = load(store, sync_id(2)).await.unwrap();
    assert_eq!(kept.job, new.job);
    assert!(kept.job.awaited);
}

pub(super) async fn the_same_request_again_is_the_same_job(store: &dyn Store) {
    submit(store, keyed(job(1), "order-7", 1)).await;

    let again = store.submit(keyed(job(2), "order-7", 1), at(5)).await;
    assert_eq!(again, Ok(Submitted::Known(id(1), Status::InQueue)));
    let other = store.submit(keyed(job(3), "order-7", 2), at(5)).await;
    assert_eq!(other, Ok(Submitted::Conflict(id(1))));
    assert_eq!(load(store, id(2)).await, None);
    assert_eq!(load(store, id(3)).await, None);

    assert_eq!(take(store, "w1", 9, 10).await, [id(1)]);
    report(store, id(1), complete("w1"), "1").await;
    let again = store.submit(keyed(job(2), "order-7", 1), at(2_000)).await;
    assert_eq!(again, Ok(Submitted::Known(id(1), Status::Completed)));
}

pub(super) async fn an_idempotency_key_is_an_endpoints_own(store: &dyn Store) {
    submit(store, keyed(job(1), "order-7", 1)).await;
    submit(store, keyed(job_with(id(2), "b", terms()), "order-7", 2)).await;
    let there = store
        .load(&endpoint("b"), id(2), Parts::default())
        .await
        .unwrap();
    assert!(there.is_some());
    // No key is not a key.
    submit(store, job(3)).await;
    submit(store, job(4)).await;
}

pub(super) async fn an_idempotency_key_is_free_again_when_its_job_is_forgotten(store: &dyn Store) {
    submit(store, keyed(job(1), "order-7", 1)).await;
    take(store, "w1", 1, 10).await;
    report(store, id(1), complete("w1"), "1").await;
    let later = at(1_000 + limits::RETENTION_MS);
    assert_eq!(store.prune(later, 10).await, Ok(1));
    submit(store, keyed(job(2), "order-7", 2)).await;
}
