//! What is damaged fails alone: not with it what others want, even in the same commit.

use std::path::Path;

use lazyfox_core::delivery::{Next, State};
use lazyfox_core::id::{DeliveryId, JobId};
use lazyfox_core::job::{Event, Status};
use lazyfox_core::limits;
use lazyfox_core::policy::Terms;
use lazyfox_store::sqlite::SqliteStore;
use lazyfox_store::{
    Access, Answer, Applied, DeliveryQuery, Due, Key, Redelivery, Store as _, StoreError, Submitted,
};
use tempfile::TempDir;

use super::{open, raw, refusal};
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
            answers.push(Box::pin(async {
                Ok(new.await? == (Submitted::Accepted { taken: false }))
            }));
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
        answers.push(Box::pin(async {
            Ok(new.await? == (Submitted::Accepted { taken: false }))
        }));
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

/// Jobs of endpoint `a` that failed, and their deliveries, numbered from 1 as the jobs are.
async fn failed(store: &SqliteStore, n: u8) -> Vec<Due> {
    for n in 1..=n {
        submit(store, webhooked(job(n))).await;
    }
    take(store, "w1", 99, 10).await;
    for n in 1..=n {
        change(store, id(n), fail("w1"), 100).await;
    }
    due(store, 100).await
}

/// Writes into the delivery of a job what the rules of the tables would refuse.
fn damage_delivery(dir: &Path, n: u8, column: &str, value: &str) {
    let connection = raw(dir);
    let unruly = connection.pragma_update(None, "ignore_check_constraints", true);
    unruly.unwrap();
    let sql = format!(
        "UPDATE deliveries SET {column} = ?2
         WHERE seq = (SELECT seq FROM jobs WHERE id = ?1)"
    );
    let written = connection.execute(&sql, (id(n).to_bytes(), value));
    assert_eq!(written, Ok(1));
}

fn first_of(ns: &[u8]) -> Vec<DeliveryId> {
    ns.iter().map(|&n| delivery_id(n, 1)).collect()
}

#[tokio::test]
async fn a_damaged_delivery_fails_nobody_but_those_who_ask_for_it() {
    let dir = TempDir::new().unwrap();
    let store = &open(dir.path());
    let due = failed(store, 4).await;
    settle(store, &due[3], 0, Next::GaveUp, 100).await;
    damage_delivery(dir.path(), 2, "round", "?");
    let on = endpoint("a");
    // In one group.
    for round in 0..3 {
        let settled = |due, next| store.settle(vec![settlement(due, round, next, 110)]);
        let mut answers: Vec<Answer<'_, ()>> = Vec::new();
        for _ in 0..2 {
            let [first, own, third] = [&due[0], &due[1], &due[2]];
            let own = settled(own, Next::Again(at(200)));
            answers.push(Box::pin(async {
                assert_eq!(own.await, Ok(vec![2]), "nothing is kept of it");
                Ok(())
            }));
            let first = settled(first, Next::Again(at(200)));
            answers.push(Box::pin(async {
                first.await.map(|damaged| assert!(damaged.is_empty()))
            }));
            let retried = store.apply(&on, id(2), Event::Retry, None, at(150));
            answers.push(Box::pin(async {
                assert_corrupt(retried.await);
                Ok(())
            }));
            let third = settled(third, Next::Again(at(300)));
            answers.push(Box::pin(async {
                third.await.map(|damaged| assert!(damaged.is_empty()))
            }));
        }
        for result in together(answers).await {
            assert_eq!(result, Ok(()));
        }
    }
    let again = redeliver(store, &first_of(&[4]), 400).await;
    assert_eq!(again, [Redelivery::Due]);
    submit(store, webhooked(job(5))).await;
    assert_eq!(take(store, "w1", 1, 400).await, [id(5)]);
    change(store, id(5), complete("w1"), 500).await;

    // Its own: it is not sent, since a try could not be kept; it is not listed, and not withdrawn.
    assert_corrupt(store.outgoing(&due[1], ALL_PARTS).await);
    assert_corrupt(store.redeliver(&on, first_of(&[2]), at(400)).await);
    assert_eq!(status(store, id(2)).await, Some(Status::Failed));
    assert_corrupt(store.deliveries(DeliveryQuery::of(on.clone())).await);
    // A search that passes it over finds the others.
    for (job, state, expected) in [
        (Some(id(1)), None, 1),
        (None, Some(State::Failed), 0),
        (None, Some(State::Withdrawn), 0),
    ] {
        let query = DeliveryQuery {
            job,
            state,
            ..DeliveryQuery::of(on.clone())
        };
        let page = store.deliveries(query).await.unwrap();
        assert_eq!(page.deliveries.len(), expected);
    }
}

#[tokio::test]
async fn a_damaged_delivery_is_no_other_endpoints_business() {
    let dir = TempDir::new().unwrap();
    let store = &open(dir.path());
    failed(store, 1).await;
    submit(store, webhooked(job_with(id(9), "b", terms()))).await;
    let on = endpoint("b");
    take_on(store, "b", "w2", 1, 10).await;
    let done = store.apply(&on, id(9), complete("w2"), None, at(100));
    assert!(done.await.unwrap().changed().is_some());
    for column in ["created_at", "due_at", "tries", "keep_until", "host"] {
        damage_delivery(dir.path(), 1, column, "?");
        let page = store.deliveries(DeliveryQuery::of(on.clone())).await;
        assert_eq!(page.unwrap().deliveries.len(), 1, "{column}");
    }
}

#[tokio::test]
async fn a_damaged_delivery_keeps_its_job_and_no_other_from_being_forgotten() {
    let dir = TempDir::new().unwrap();
    let store = &open(dir.path());
    let due = failed(store, 5).await;
    for due in &due {
        settle(store, due, 0, Next::Delivered, 110).await;
    }
    damage_delivery(dir.path(), 1, "keep_until", "?");
    damage_delivery(dir.path(), 2, "state", "lost");
    // Nor does a job that cannot be read, as long as its delivery is wanted.
    redeliver(store, &first_of(&[3]), 200).await;
    let worker = raw(dir.path()).execute("UPDATE jobs SET worker = ' ' WHERE seq = 3", []);
    assert_eq!(worker, Ok(1));
    let mut over = 110 + limits::RETENTION_MS;
    assert_eq!(store.prune(at(over), 9).await, Ok(2));
    for _ in 0..3 {
        over += 10 * 60_000;
        assert_eq!(store.prune(at(over), 9).await, Ok(0));
    }
    for n in [1, 2] {
        assert_eq!(status_of(store, id(n)).await, Status::Failed);
    }
}

/// What is open is read at the start, as waiting jobs are. Damage there is for the operator to repair: a
/// webhook that is never sent would be noticed by nobody.
#[tokio::test]
async fn a_damaged_delivery_is_found_at_the_start_if_it_is_open() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let due = failed(&store, 3).await;
    settle(&store, &due[0], 0, Next::Delivered, 110).await;
    drop(store);
    damage_delivery(dir.path(), 1, "state", "lost");
    let store = open(dir.path());
    assert_eq!(names(&store, &due[1..]).await, first_of(&[2, 3]));
    drop(store);
    damage_delivery(dir.path(), 2, "endpoint", "no name");
    assert!(refusal(dir.path()).contains("a delivery's endpoint cannot be read"));
    damage_delivery(dir.path(), 2, "endpoint", "a");
    assert_eq!(first_of(&[2, 3]), due_names(&open(dir.path()), 110).await);
}

#[tokio::test]
async fn nothing_is_sent_again_beside_a_damaged_delivery() {
    let dir = TempDir::new().unwrap();
    let store = &open(dir.path());
    let due = failed(store, 3).await;
    settle(store, &due[0], 0, Next::Delivered, 110).await;
    settle(store, &due[1], 0, Next::Again(at(50_000)), 110).await;
    damage_delivery(dir.path(), 3, "state", "lost");
    let before = (outbox(store, 9_000).await, outbox(store, 90_000).await);
    // One would be due once more and one sooner, were it not for the last one, which is open.
    for _ in 0..2 {
        let ids = first_of(&[1, 2, 3]);
        let again = store.redeliver(&endpoint("a"), ids, at(2_000)).await;
        assert_corrupt(again);
        let after = (outbox(store, 9_000).await, outbox(store, 90_000).await);
        assert_eq!(after, before);
    }
    submit(store, job(4)).await;
    let again = redeliver(store, &first_of(&[1, 2]), 2_000).await;
    assert_eq!(again, [Redelivery::Due; 2]);
}

#[tokio::test]
async fn an_end_that_did_not_happen_has_no_delivery() {
    let dir = TempDir::new().unwrap();
    let store = &open(dir.path());
    let told = Terms {
        webhook_on_cancel: true,
        ..terms()
    };
    failed(store, 1).await;
    for n in 2..=4 {
        submit(store, webhooked(job_with(id(n), "a", told))).await;
    }
    let deleted = raw(dir.path()).execute("DELETE FROM jobs WHERE seq = 3", []);
    assert_eq!(deleted, Ok(1));
    // The one before it ended, in a commit that then failed.
    let on = endpoint("a");
    assert_corrupt(store.sweep(&on, Event::Purge, 9, at(200)).await);
    assert_eq!(due_names(store, 9_000).await, first_of(&[1]));
    assert_eq!(status(store, id(2)).await, Some(Status::InQueue));
    // The lost one is out of the way then.
    let swept = store.sweep(&on, Event::Purge, 9, at(300)).await.unwrap();
    assert_eq!(swept.len(), 2);
    assert_eq!(due_names(store, 9_000).await, first_of(&[1, 2, 4]));
}

/// A try of one that was deleted may still be under way, and must not be taken for another's.
#[tokio::test]
async fn a_commit_that_failed_makes_no_number_new_again() {
    let dir = TempDir::new().unwrap();
    let store = &open(dir.path());
    let told = Terms {
        webhook_on_cancel: true,
        ..terms()
    };
    let due = failed(store, 2).await;
    settle(store, &due[1], 0, Next::Delivered, 110).await;
    assert_eq!(store.prune(at(110 + limits::RETENTION_MS), 9).await, Ok(1));
    for n in [3, 4] {
        submit(store, webhooked(job_with(id(n), "a", told))).await;
    }
    let lost = id(4).to_bytes();
    let deleted = raw(dir.path()).execute("DELETE FROM jobs WHERE id = ?1", [lost]);
    assert_eq!(deleted, Ok(1));
    let on = endpoint("a");
    assert_corrupt(store.sweep(&on, Event::Purge, 9, at(200)).await);
    assert_eq!(
        store
            .sweep(&on, Event::Purge, 9, at(300))
            .await
            .unwrap()
            .len(),
        1
    );
    let newest = due_of(store, delivery_id(3, 1)).await;
    assert!(newest.number > due[1].number);
}
