//! Reading deliveries page by page.

use lazyfox_core::delivery::{Next, State};
use lazyfox_core::id::{DeliveryId, JobId};
use lazyfox_core::job::Event;
use lazyfox_core::policy::Terms;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{DeliveryQuery, LIST_VISITS_MAX, Store, Submitted};

use super::deliveries::running;
use crate::world::*;

fn on(name: &str) -> DeliveryQuery {
    DeliveryQuery::of(endpoint(name))
}

async fn page(store: &dyn Store, query: DeliveryQuery) -> (Vec<DeliveryId>, Option<u64>) {
    let page = store.deliveries(query).await.unwrap();
    let ids = page.deliveries.iter().map(|it| it.id).collect();
    (ids, page.next)
}

/// A job with a webhook that hears of everything.
fn told(id: JobId, on: &str) -> lazyfox_store::NewJob {
    let told = Terms {
        webhook_on_cancel: true,
        ..terms()
    };
    webhooked(job_with(id, on, told))
}

/// A job with a delivery, without a worker.
async fn cancelled(store: &dyn Store, n: u8, name: &str, ms: u64) {
    submit(store, told(id(n), name)).await;
    let on = endpoint(name);
    let applied = store.apply(&on, id(n), Event::Cancel, None, at(ms));
    assert!(applied.await.unwrap().changed().is_some());
}

pub(super) async fn deliveries_are_paged_newest_first(store: &dyn Store) {
    // The order is that of the ends, whatever the clock says.
    for (n, ms) in [(5, 100), (3, 400), (9, 300), (1, 300)] {
        cancelled(store, n, "a", ms).await;
        if n > 3 {
            cancelled(store, 100 + n, "b", ms).await;
        }
    }
    let some = |limit, before| DeliveryQuery {
        limit,
        before,
        ..on("a")
    };
    let first = |ns: &[u8]| -> Vec<_> { ns.iter().map(|&n| first(n)).collect() };
    let (newest, next) = page(store, some(2, None)).await;
    assert_eq!(newest, first(&[1, 9]));
    // What comes in between does not move the pages.
    cancelled(store, 2, "a", 500).await;
    let (oldest, end) = page(store, some(2, next)).await;
    assert_eq!((oldest, end), (first(&[3, 5]), None));
    let all = first(&[2, 1, 9, 3, 5]);
    assert_eq!(page(store, some(5, None)).await, (all.clone(), None));
    let far = Some(u64::MAX);
    assert_eq!(page(store, some(99, far)).await, (all.clone(), None));
    assert_eq!(page(store, some(0, None)).await, (vec![], None));
    // In pages of any size they are the same, with nothing left out or twice.
    for limit in 1..=6 {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let (ids, next) = page(store, some(limit, before)).await;
            assert!(ids.len() == limit || next.is_none());
            found.extend(ids);
            before = next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(found, all);
    }
}

/// Jobs 1 to 4 failed at 100 to 400: one delivery arrived, one was given up, one was withdrawn and
/// followed by another at 600, and one was not tried yet. Job 11 is another endpoint's.
async fn one_of_each(store: &dyn Store) {
    running(store, 4).await;
    for n in 1..=4 {
        change(store, id(n), fail("w1"), u64::from(n) * 100).await;
    }
    cancelled(store, 11, "b", 250).await;
    let arrived = due_of(store, delivery_id(1, 1)).await;
    settle(store, &arrived, 0, Next::Delivered, 410).await;
    let given_up = due_of(store, delivery_id(2, 1)).await;
    settle(store, &given_up, 0, Next::GaveUp, 410).await;
    change(store, id(3), Event::Retry, 500).await;
    assert_eq!(take(store, "w1", 9, 510).await, [id(3)]);
    change(store, id(3), complete("w1"), 600).await;
}

fn first(n: u8) -> DeliveryId {
    delivery_id(n, 1)
}

pub(super) async fn deliveries_are_found_by_their_state_and_job(store: &dyn Store) {
    one_of_each(store).await;
    let ids = async |query| page(store, query).await.0;
    let of_state = |state| DeliveryQuery {
        state: Some(state),
        ..on("a")
    };
    let second = delivery_id(3, 2);
    assert_eq!(ids(of_state(State::Delivered)).await, [first(1)]);
    assert_eq!(ids(of_state(State::Failed)).await, [first(2)]);
    assert_eq!(ids(of_state(State::Withdrawn)).await, [first(3)]);
    assert_eq!(ids(of_state(State::Pending)).await, [second, first(4)]);

    let of_job = |n| DeliveryQuery {
        job: Some(id(n)),
        ..on("a")
    };
    assert_eq!(ids(of_job(3)).await, [second, first(3)]);
    let one = DeliveryQuery {
        limit: 1,
        ..of_job(3)
    };
    let (newest, before) = page(store, one.clone()).await;
    assert_eq!(newest, [second]);
    let oldest = page(store, DeliveryQuery { before, ..one }).await;
    assert_eq!(oldest, (vec![first(3)], None));
    for n in [11, 99] {
        assert_eq!(ids(of_job(n)).await, [], "it is none of this endpoint");
    }
    assert_eq!(ids(on("b")).await, [first(11)]);
    assert_eq!(ids(on("c")).await, []);
}

pub(super) async fn deliveries_are_found_by_when_their_job_ended(store: &dyn Store) {
    one_of_each(store).await;
    let ids = async |query| page(store, query).await.0;
    // The first moment belongs to it, the last does not.
    let created = |from, to| DeliveryQuery {
        created: at(from)..at(to),
        ..on("a")
    };
    assert_eq!(ids(created(200, 400)).await, [first(3), first(2)]);
    assert_eq!(ids(created(201, 401)).await, [first(4), first(3)]);
    assert_eq!(ids(created(300, 300)).await, []);
    let all = DeliveryQuery {
        created: Timestamp::from_ms(0)..Timestamp::NEVER,
        ..on("a")
    };
    assert_eq!(ids(all).await.len(), 5);
    // All of it together.
    let query = DeliveryQuery {
        job: Some(id(3)),
        state: Some(State::Withdrawn),
        ..created(300, 301)
    };
    assert_eq!(ids(query.clone()).await, [first(3)]);
    let other = DeliveryQuery {
        state: Some(State::Pending),
        ..query
    };
    assert_eq!(ids(other).await, []);
}

pub(super) async fn a_search_for_rare_deliveries_goes_step_by_step(store: &dyn Store) {
    // The one that is searched for is the oldest, and as many others as one call looks at are newer.
    submit(store, told(nth_id(0), "a")).await;
    change(store, nth_id(0), Event::Cancel, 10).await;
    let rare = due(store, 10).await.remove(0);
    settle(store, &rare, 0, Next::GaveUp, 20).await;
    let newer: Vec<usize> = (1..LIST_VISITS_MAX).collect();
    for some in newer.chunks(1_000) {
        let submits = some
            .iter()
            .map(|&n| told(nth_id(n), "a"))
            .map(|new| store.submit(new, START));
        for submitted in together(submits.collect()).await {
            assert_eq!(submitted, Ok(Submitted::Accepted { taken: false }));
        }
        let on = endpoint("a");
        store.sweep(&on, Event::Purge, 1_000, at(30)).await.unwrap();
    }
    submit(store, told(nth_id(LIST_VISITS_MAX), "a")).await;
    change(store, nth_id(LIST_VISITS_MAX), Event::Cancel, 40).await;
    let first = |n| DeliveryId {
        job: nth_id(n),
        number: 1,
    };
    let failed = |before| DeliveryQuery {
        state: Some(State::Failed),
        limit: 9,
        before,
        ..on("a")
    };
    let (none, next) = page(store, failed(None)).await;
    assert_eq!(none, []);
    assert!(next.is_some());
    let (found, end) = page(store, failed(next)).await;
    assert_eq!((found, end), (vec![first(0)], None));
    // All that was asked for is one page, however many were passed over.
    let early = DeliveryQuery {
        created: at(40)..at(41),
        ..on("a")
    };
    let (found, next) = page(store, early.clone()).await;
    assert_eq!(found, [first(LIST_VISITS_MAX)]);
    let rest = page(
        store,
        DeliveryQuery {
            before: next,
            ..early
        },
    )
    .await;
    assert_eq!(rest, (vec![], None));
    // A job's own are found at once.
    let of_job = DeliveryQuery {
        job: Some(nth_id(0)),
        ..on("a")
    };
    assert_eq!(page(store, of_job).await, (vec![first(0)], None));
}
