//! Webhooks to be delivered.

use lazyfox_core::delivery::{Next, Outcome};
use lazyfox_core::job::{Event, Status};
use lazyfox_core::limits;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Delivery, Store};

use crate::world::*;

const ANSWERED: Outcome = Outcome::Answered(200);

async fn due(store: &dyn Store, ms: u64) -> Vec<Delivery> {
    store.outbox(at(ms), 99).await.unwrap().deliveries
}

async fn next(store: &dyn Store, ms: u64) -> Timestamp {
    store.outbox(at(ms), 99).await.unwrap().next
}

/// Jobs 1 to n with webhooks, held by `w1`.
async fn running(store: &dyn Store, n: u8) {
    for n in 1..=n {
        submit(store, webhooked(job(n))).await;
    }
    take(store, "w1", 99, 10).await;
}

pub(super) async fn an_end_and_its_delivery_come_together(store: &dyn Store) {
    running(store, 4).await;
    submit(store, job(9)).await;
    take(store, "w1", 9, 10).await;
    assert!(due(store, 900).await.is_empty());
    report(store, id(1), progress("w1"), "1").await;
    assert!(due(store, 2_000).await.is_empty());

    report(store, id(1), complete("w1"), "[1]").await;
    report(store, id(2), fail("w1"), "\"trace\"").await;
    // The owner cancelled it and knows; and without a webhook there is nobody to tell.
    change(store, id(3), Event::Cancel, 1_000).await;
    report(store, id(9), complete("w1"), "9").await;

    let deliveries = due(store, 1_000).await;
    let [first, second] = &deliveries[..] else {
        panic!("two jobs ended by themselves: {deliveries:?}")
    };
    for (delivery, n) in [(first, 1), (second, 2)] {
        assert_eq!(delivery.tries, 0);
        assert_eq!(delivery.url, format!("https://hook.example/{}", id(n)));
        let loaded = load(store, id(n)).await;
        assert_eq!(Some(&delivery.job), loaded.as_ref().map(|it| &it.job));
    }
    assert_eq!(first.job.status(), Status::Completed);
    assert_ne!(first.id, second.id);
    // Nothing is taken out by looking.
    assert_eq!(due(store, 1_000).await, deliveries);
}

pub(super) async fn deliveries_are_due_in_order(store: &dyn Store) {
    running(store, 3).await;
    for (n, ms) in [(2, 300), (1, 400), (3, 300)] {
        change(store, id(n), complete("w1"), ms).await;
    }
    let ids = |deliveries: &[Delivery]| {
        let jobs = deliveries.iter().map(|delivery| delivery.job.id);
        jobs.collect::<Vec<_>>()
    };
    assert_eq!(next(store, 299).await, at(300));
    assert_eq!(ids(&due(store, 300).await), [id(2), id(3)]);
    assert_eq!(next(store, 300).await, at(400));
    assert_eq!(ids(&due(store, 400).await), [id(2), id(3), id(1)]);
    assert_eq!(next(store, 400).await, Timestamp::NEVER);
    // With a limit, what is left over is due at once.
    let some = store.outbox(at(400), 2).await.unwrap();
    assert_eq!(ids(&some.deliveries), [id(2), id(3)]);
    assert_eq!(some.next, at(400));
}

pub(super) async fn a_failed_try_comes_again_later(store: &dyn Store) {
    running(store, 1).await;
    change(store, id(1), complete("w1"), 100).await;
    let first = due(store, 100).await.remove(0);
    let refused = Outcome::Failed("connection refused".to_owned());
    let again = Next::Again(at(10_100));
    store.settle(first.id, refused, again).await.unwrap();
    assert!(due(store, 10_099).await.is_empty());
    assert_eq!(next(store, 10_099).await, at(10_100));
    let second = due(store, 10_100).await.remove(0);
    assert_eq!((second.id, second.tries), (first.id, 1));
    assert_eq!(second.job, first.job);

    let gone = Outcome::Answered(500);
    store.settle(first.id, gone, Next::GaveUp).await.unwrap();
    assert!(due(store, 99_999).await.is_empty());
    assert_eq!(next(store, 99_999).await, Timestamp::NEVER);
}

pub(super) async fn a_settled_delivery_stays_settled(store: &dyn Store) {
    running(store, 1).await;
    change(store, id(1), complete("w1"), 100).await;
    let delivery = due(store, 100).await.remove(0);
    let settle = async |id, next| store.settle(id, ANSWERED, next).await;
    settle(delivery.id, Next::Delivered).await.unwrap();
    assert!(due(store, 99_999).await.is_empty());
    // A try whose answer came late must not send it once more, and an unknown one is nothing.
    settle(delivery.id, Next::Again(at(200))).await.unwrap();
    settle(77, Next::Again(at(200))).await.unwrap();
    assert!(due(store, 99_999).await.is_empty());
    assert_eq!(store.prune(at(9 * limits::RETENTION_MS), 9).await, Ok(1));
}

pub(super) async fn a_job_with_an_open_delivery_is_not_forgotten(store: &dyn Store) {
    running(store, 3).await;
    for (n, ms) in [(1, 100), (2, 200), (3, 300)] {
        change(store, id(n), complete("w1"), ms).await;
    }
    let over = at(9 * limits::RETENTION_MS);
    let [_, second, third] = &due(store, 1_000).await[..] else {
        panic!("three jobs ended")
    };
    assert_eq!(store.prune(over, 9).await, Ok(0));
    let again = Next::Again(over.plus_ms(1));
    store.settle(third.id, ANSWERED, again).await.unwrap();
    let delivered = Next::Delivered;
    store.settle(second.id, ANSWERED, delivered).await.unwrap();
    // The open ones are not in the way of others, whatever the limit.
    assert_eq!(store.prune(over, 1).await, Ok(1));
    assert_eq!(status(store, id(2)).await, None);
    assert_eq!(store.prune(over, 9).await, Ok(0));
    assert_eq!(status(store, id(1)).await, Some(Status::Completed));
    store
        .settle(third.id, ANSWERED, Next::GaveUp)
        .await
        .unwrap();
    assert_eq!(store.prune(over, 9).await, Ok(1));
    assert_eq!(status(store, id(3)).await, None);
}

pub(super) async fn a_retry_withdraws_the_delivery_of_the_earlier_end(store: &dyn Store) {
    running(store, 1).await;
    change(store, id(1), fail("w1"), 100).await;
    let failed = due(store, 100).await.remove(0);
    change(store, id(1), Event::Retry, 200).await;
    // It would carry a job that has not ended.
    assert!(due(store, 99_999).await.is_empty());
    assert_eq!(next(store, 99_999).await, Timestamp::NEVER);
    // Nor does a try that was on its way bring it back.
    let again = Next::Again(at(300));
    store.settle(failed.id, ANSWERED, again).await.unwrap();
    assert!(due(store, 99_999).await.is_empty());

    assert_eq!(take(store, "w1", 1, 210).await, [id(1)]);
    change(store, id(1), complete("w1"), 300).await;
    let completed = due(store, 300).await;
    assert_eq!(completed.len(), 1);
    assert_ne!(completed[0].id, failed.id);
    assert_eq!(completed[0].job.status(), Status::Completed);
}
