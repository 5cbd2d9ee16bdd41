//! What is damaged fails alone: not with it what others want, even in the same commit.

use std::path::Path;

use lazyfox_core::id::JobId;
use lazyfox_core::job::{Event, Status};
use lazyfox_store::sqlite::SqliteStore;
use lazyfox_store::{Access, Answer, Applied, Key, Store as _, StoreError, Submitted};
use tempfile::TempDir;

use super::{open, raw};
use crate::world::*;

fn lose_input(dir: &Path, job: JobId) {
    let deleted = raw(dir).execute(
        "DELETE FROM inputs WHERE seq = (SELECT seq FROM jobs WHERE id = ?1)",
        [job.to_bytes()],
    );
    assert_eq!(deleted, Ok(1));
}

fn on_b(n: u8) -> lazyfox_store::NewJob {
    job_with(id(n), "b", terms())
}

fn assert_corrupt<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Corrupt(_))), "{result:?}");
}

fn assert_refused<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(
        matches!(&result, Err(StoreError::Unavailable(text)) if text.contains("UNIQUE")),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_damaged_job_fails_nobody_but_those_who_ask_for_it() {
    let dir = TempDir::new().unwrap();
    let store = &open(dir.path());
    submit(store, job(1)).await;
    lose_input(dir.path(), id(1));
    for n in 100..120 {
        submit(store, on_b(n)).await;
    }
    let held = take_on(store, "b", "w1", 10, 10).await;
    for round in 0..5 {
        let polls = (0..10).map(|_| store.lease(ask("a", "w2", 1), at(20)));
        // In one group with the polls, before and after them.
        let mut answers: Vec<Answer<'_, bool>> = Vec::new();
        for (n, poll) in (0..10).zip(polls) {
            let new = store.submit(on_b(round * 10 + n + 2), at(20));
            answers.push(Box::pin(async { Ok(new.await? == Submitted::Accepted) }));
            answers.push(Box::pin(async move {
                assert_corrupt(poll.await);
                Ok(true)
            }));
        }
        for job in held.iter().skip(usize::from(round) * 2).take(2) {
            let on = endpoint("b");
            answers.push(Box::pin(async move {
                let output = Some(bytes("1"));
                let applied = store.apply(&on, *job, complete("w1"), output, at(30));
                Ok(matches!(applied.await?, Applied::Changed(_)))
            }));
        }
        let lease = store.lease(ask("b", "w3", 1), at(30));
        answers.push(Box::pin(async { Ok(lease.await?.handouts.len() == 1) }));
        for result in together(answers).await {
            assert_eq!(result, Ok(true));
        }
    }
    let survey = store.survey().await.unwrap();
    let demand = |at: usize| (survey[at].demand.queued, survey[at].demand.running);
    assert_eq!((demand(0), demand(1)), ((1, 0), (20 + 50 - 10 - 5, 5)));

    // Whoever sees the error can do something about it.
    assert_eq!(status_of(store, id(1)).await, Status::InQueue);
    change(store, id(1), Event::Cancel, 40).await;
    assert_eq!(status_of(store, id(1)).await, Status::Cancelled);
    assert!(take(store, "w2", 1, 50).await.is_empty());
}

async fn status_of(store: &SqliteStore, job: JobId) -> Status {
    let parts = lazyfox_store::Parts::default();
    let loaded = store.load(&endpoint("a"), job, parts).await.unwrap();
    loaded.unwrap().job.status()
}

#[tokio::test]
async fn an_operation_that_fails_halfway_is_undone_alone() {
    let dir = TempDir::new().unwrap();
    let store = &open(dir.path());
    let key = Key {
        id: "k1".to_owned(),
        label: "one".to_owned(),
        hash: [1; 32],
        access: Access::Admin,
        endpoints: None,
        created_at: START,
        revoked_at: None,
    };
    store.add_key(key.clone()).await.unwrap();
    submit(store, job(1)).await;
    assert_eq!(take(store, "w1", 1, 10).await, [id(1)]);

    let mut answers: Vec<Answer<'_, bool>> = Vec::new();
    for n in 2..40 {
        let new = store.submit(job(n), at(20));
        answers.push(Box::pin(async { Ok(new.await? == Submitted::Accepted) }));
        // Refused by the rows: an id is there once, a job's as well as a key's.
        let twice = store.add_key(key.clone());
        answers.push(Box::pin(async {
            assert_refused(twice.await);
            Ok(true)
        }));
        let again = store.submit(job(1), at(20));
        answers.push(Box::pin(async {
            assert_refused(again.await);
            Ok(true)
        }));
    }
    let done = store.apply(
        &endpoint("a"),
        id(1),
        complete("w1"),
        Some(bytes("1")),
        at(20),
    );
    answers.push(Box::pin(async {
        Ok(matches!(done.await?, Applied::Changed(_)))
    }));
    for result in together(answers).await {
        assert_eq!(result, Ok(true));
    }
    assert_eq!(output(store, id(1)).await, Some(bytes("1")));
    let waiting: Vec<JobId> = (2..40).map(id).collect();
    assert_eq!(take(store, "w2", 99, 30).await, waiting);
    let survey = store.survey().await.unwrap().remove(0);
    assert_eq!(survey.demand.queued, 0);
    assert_eq!(survey.counters.len(), 1);
    assert_eq!(survey.counters[0].1, 1, "a completion counts once");
}

#[tokio::test]
async fn a_damaged_job_does_not_stand_in_the_way_of_those_behind_it() {
    let dir = TempDir::new().unwrap();
    let store = &open(dir.path());
    for n in 1..=4 {
        submit(store, job(n)).await;
    }
    lose_input(dir.path(), id(1));
    lose_input(dir.path(), id(3));
    assert_eq!(take(store, "w1", 1, 10).await, [id(2)]);
    assert_eq!(take(store, "w1", 9, 20).await, [id(4)]);
    assert_corrupt(store.lease(ask("a", "w1", 9), at(30)).await);
    // It waits as before, for the operator or the end of its ttl.
    assert_eq!(status_of(store, id(1)).await, Status::InQueue);
    let survey = store.survey().await.unwrap().remove(0);
    assert_eq!((survey.demand.queued, survey.demand.running), (2, 2));
    change(store, id(1), Event::Cancel, 40).await;
    change(store, id(3), Event::Cancel, 40).await;
    assert!(take(store, "w1", 9, 50).await.is_empty());
}
