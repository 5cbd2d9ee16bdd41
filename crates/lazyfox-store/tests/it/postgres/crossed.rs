//! A worker that polls at one server and says at another that it is there.

use lazyfox_core::id::JobId;
use lazyfox_core::job::Status;
use lazyfox_store::{Heartbeat, Store as _};

use crate::world::*;

const LEASE: u64 = 60_000;

fn beat(jobs: Option<Vec<JobId>>) -> Heartbeat {
    Heartbeat {
        worker: worker("w"),
        endpoint: endpoint("a"),
        jobs,
        lease_ms: LEASE,
    }
}

#[tokio::test]
async fn heartbeats_at_another_server_than_polls_renew_what_the_worker_has() {
    let url = lazyfox_testing::shared().database();
    let (a, b) = (postgres_of(&url, "a").await, postgres_of(&url, "b").await);
    // It is up, and has nothing yet.
    let renewed = a.renew(beat(Some(Vec::new())), START).await.unwrap();
    assert!(!renewed.holds);
    submit(&b, job(1)).await;
    assert_eq!(take(&b, "w", 1, 10).await, [id(1)]);
    for ms in [LEASE / 2, LEASE, 2 * LEASE] {
        let renewed = a.renew(beat(Some(vec![id(1)])), at(ms)).await.unwrap();
        assert_eq!((renewed.holds, renewed.not_held), (true, Vec::new()));
        assert_eq!(b.expire(at(ms + 100), 9).await.unwrap().changes, []);
    }
    assert_eq!(status(&b, id(1)).await, Some(Status::InProgress));
}

#[tokio::test]
async fn the_end_of_a_worker_that_polled_elsewhere_is_that_of_its_jobs() {
    let url = lazyfox_testing::shared().database();
    let (a, b) = (postgres_of(&url, "a").await, postgres_of(&url, "b").await);
    // Asked before there was anything.
    let none = a.apply_to_held(&worker("w"), gone("left", true), START);
    assert_eq!(none.await.unwrap(), []);
    submit(&b, job(1)).await;
    assert_eq!(take(&b, "w", 1, 10).await, [id(1)]);
    let lost = a.apply_to_held(&worker("w"), gone("left", true), at(20));
    assert_eq!(lost.await.unwrap().len(), 1);
    assert_eq!(status(&b, id(1)).await, Some(Status::InQueue));
}
