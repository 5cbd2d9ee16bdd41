//! What the file says of workers: read again after a restart, and what the tables refuse.

use lazyfox_core::job::{Event, State};
use lazyfox_store::{Ask, Extra, Store as _};
use tempfile::TempDir;

use super::{open, raw};
use crate::world::*;

#[tokio::test]
async fn whether_a_job_has_begun_is_as_it_was_written() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    for n in 1..=3 {
        submit(&store, job(n)).await;
    }
    let ask = Ask {
        extra: Extra {
            count: 2,
            ..Extra::default()
        },
        ..ask("a", "w1", 1)
    };
    assert_eq!(store.lease(ask, at(10)).await.unwrap().handouts.len(), 3);
    let begin = Event::Begin {
        worker: worker("w1"),
    };
    change(&store, id(2), begin, 700).await;
    drop(store);
    let store = open(dir.path());
    for (n, begun, since) in [(1, true, 10), (2, true, 700), (3, false, 10)] {
        // What the index knows: a change tells it.
        let job = change(&store, id(n), Event::WaitEnded, 800).await.job;
        let State::Running(attempt) = job.state else {
            panic!("{job:?}")
        };
        assert_eq!((attempt.begun, attempt.started_at), (begun, at(since)));
    }
}

#[tokio::test]
async fn releases_and_changed_settings_outlive_a_restart() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let on = endpoint("a");
    let first = store.release(&on, [1; 32], at(10)).await.unwrap();
    let settings = "{\"workers_max\": 1e0}".to_owned();
    let set = store.set_override(&on, Some(settings.clone()));
    set.await.unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.release(&on, [1; 32], at(20)).await, Ok(first));
    let next = store.release(&on, [2; 32], at(30)).await.unwrap();
    assert_eq!((next.number, next.since), (2, at(30)));
    let kept = store.overrides().await.unwrap();
    assert_eq!(kept, [(on, settings)]);
}

#[tokio::test]
async fn the_tables_refuse_what_cannot_be() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    submit(&store, job(1)).await;
    let connection = raw(dir.path());
    let with = |columns: &str, values: &str| {
        format!("INSERT INTO endpoints (endpoint, {columns}) VALUES ('a', {values})")
    };
    for sql in [
        // Only a job that a worker holds can wait inside it.
        "UPDATE jobs SET begun = 0".to_owned(),
        "UPDATE jobs SET begun = 2".to_owned(),
        "UPDATE jobs SET deaths = ''".to_owned(),
        "UPDATE jobs SET poison_after = 11".to_owned(),
        with("number, released_at", "1, 5"),
        with("number, fingerprint", "1, zeroblob(32)"),
        with("number, fingerprint, released_at", "1, zeroblob(31), 5"),
        with("number, fingerprint, released_at", "0, zeroblob(32), 5"),
        with(
            "number, fingerprint, released_at",
            "4294967296, zeroblob(32), 5",
        ),
    ] {
        let refused = connection.execute(&sql, []).unwrap_err();
        assert!(refused.to_string().contains("CHECK"), "{sql}: {refused}");
    }
    let sql = with(
        "number, fingerprint, released_at",
        "4294967295, zeroblob(32), 5",
    );
    assert_eq!(connection.execute(&sql, []), Ok(1));
    let last = store.release(&endpoint("a"), [1; 32], at(10)).await;
    assert_eq!(
        last.unwrap().number,
        u32::MAX,
        "there is no number after it"
    );
}
