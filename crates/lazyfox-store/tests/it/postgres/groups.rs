//! What operations that are asked for at the same time do for each other.

use lazyfox_core::job::Status;
use lazyfox_store::{Store as _, Submitted};

use crate::world::*;

#[tokio::test]
async fn a_worker_gets_a_job_in_the_commit_that_brings_it() {
    let store = postgres_at(&lazyfox_testing::shared().database()).await;
    let (submitted, leased) = tokio::join!(
        store.submit(job(1), START),
        store.lease(ask("a", "w", 1), START)
    );
    assert_eq!(submitted, Ok(Submitted::Accepted { taken: true }));
    let given = leased.unwrap().handouts;
    assert_eq!(given[0].job.id, id(1));
    assert_eq!(given[0].input, input_of(id(1)));
    assert_eq!(status(&store, id(1)).await, Some(Status::InProgress));
}

#[tokio::test]
async fn older_jobs_go_first_all_the_same() {
    let store = postgres_at(&lazyfox_testing::shared().database()).await;
    submit(&store, job(1)).await;
    let (submitted, leased) = tokio::join!(
        store.submit(job(2), START),
        store.lease(ask("a", "w", 1), START)
    );
    assert_eq!(submitted, Ok(Submitted::Accepted { taken: false }));
    assert_eq!(leased.unwrap().handouts[0].job.id, id(1));
}
