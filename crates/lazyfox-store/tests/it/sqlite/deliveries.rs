//! Deliveries over a restart.

use lazyfox_core::delivery::{Next, State};
use lazyfox_core::job::Event;
use lazyfox_core::limits;
use lazyfox_core::policy::Terms;
use lazyfox_store::{Due, Outbox, Outgoing, Store, WebhookSecret};
use tempfile::TempDir;

use super::open;
use crate::world::*;

const OTHER: &str = "other.example:8443";

/// Jobs of endpoint `a` that ended one after the other from 100 on, and their deliveries.
async fn ended(store: &dyn Store, ns: std::ops::RangeInclusive<u8>) -> Vec<Due> {
    for n in ns.clone() {
        let host = if n % 2 == 0 { OTHER } else { HOST };
        submit(store, webhooked_at(job(n), host)).await;
    }
    take(store, "w1", 99, 10).await;
    for n in ns {
        change(store, id(n), fail("w1"), 100 + u64::from(n)).await;
    }
    let mut due = due(store, 1_000).await;
    due.sort_by_key(|due| due.number);
    due
}

/// What is to be sent at three times, with all that is sent.
async fn outboxes(store: &dyn Store) -> Vec<(Outbox, Vec<Option<Outgoing>>)> {
    let mut all = Vec::new();
    for ms in [1_000, 3_000, 99_999] {
        let outbox = outbox(store, ms).await;
        let mut sent = Vec::new();
        for due in &outbox.due {
            sent.push(outgoing(store, due).await);
        }
        all.push((outbox, sent));
    }
    all
}

#[tokio::test]
async fn a_restart_keeps_deliveries_as_they_were() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let due = ended(&store, 1..=6).await;
    // 1 was never tried, 2 waits for its third try, 3 arrived, 4 was given up, 5 is sent again, and 6 was
    // withdrawn.
    settle(&store, &due[1], 0, Next::Again(at(900)), 800).await;
    settle(&store, &due[1], 1, Next::Again(at(3_000)), 900).await;
    settle(&store, &due[2], 0, Next::Delivered, 800).await;
    settle(&store, &due[3], 0, Next::GaveUp, 800).await;
    settle(&store, &due[4], 0, Next::GaveUp, 800).await;
    settle(&store, &due[5], 0, Next::Again(at(5_000)), 800).await;
    redeliver(&store, &[delivery_id(5, 1)], 2_000).await;
    settle(&store, &due[4], 0, Next::Again(at(2_500)), 2_000).await;
    change(&store, id(6), Event::Retry, 2_000).await;
    let before = (deliveries(&store).await, outboxes(&store).await);
    drop(store);

    let store = open(dir.path());
    let after = (deliveries(&store).await, outboxes(&store).await);
    assert_eq!(after, before);
    // Rounds count on.
    settle(&store, &due[1], 2, Next::Delivered, 3_000).await;
    settle(&store, &due[4], 1, Next::GaveUp, 3_000).await;
    let states = deliveries(&store).await.into_iter().rev();
    let states: Vec<_> = states.map(|it| (it.state, it.tries.len())).collect();
    let expected = [
        (State::Pending, 0),
        (State::Delivered, 3),
        (State::Delivered, 1),
        (State::Failed, 1),
        (State::Failed, 3),
        (State::Withdrawn, 1),
    ];
    assert_eq!(states, expected);
    // So do the numbers, and the ids of a job.
    assert_eq!(take(&store, "w2", 9, 3_000).await, [id(6)]);
    change(&store, id(6), complete("w2"), 4_000).await;
    let newest = due_of(&store, delivery_id(6, 2)).await;
    assert!(due.iter().all(|due| due.number < newest.number));
    assert_eq!(&*newest.host, OTHER);
    drop(store);

    // And each is kept as long as it would have been.
    let store = open(dir.path());
    let result = 4_000 + limits::RETENTION_MS;
    assert_eq!(store.prune(at(result), 9).await, Ok(2));
    let failed = 800 + limits::WEBHOOK_KEEP_FAILED_MS;
    assert_eq!(store.prune(at(failed - 1), 9).await, Ok(0));
    assert_eq!(store.prune(at(failed), 9).await, Ok(1));
    let left: Vec<_> = deliveries(&store).await.iter().map(|it| it.id).collect();
    let expected = [(6, 2), (6, 1), (5, 1), (1, 1)].map(|(n, number)| delivery_id(n, number));
    assert_eq!(left, expected);
}

#[tokio::test]
async fn a_restart_keeps_what_was_agreed_and_what_is_signed_with() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let told = Terms {
        webhook_on_cancel: true,
        ..terms()
    };
    submit(&store, webhooked(job_with(id(1), "a", told))).await;
    for n in 1..=3 {
        let secret = WebhookSecret {
            id: format!("secret{n}"),
            sealed: vec![n, 0, 255],
            created_at: at(n.into()),
            valid_until: None,
        };
        let added = store.add_webhook_secret(&endpoint("a"), secret, at(70));
        added.await.unwrap();
    }
    let secrets = store.webhook_secrets(&endpoint("a")).await.unwrap();
    let until: Vec<_> = secrets.iter().map(|it| it.valid_until).collect();
    assert_eq!(until, [None, Some(at(70))]);
    drop(store);

    let store = open(dir.path());
    assert_eq!(store.webhook_secrets(&endpoint("a")).await, Ok(secrets));
    change(&store, id(1), Event::Cancel, 100).await;
    let listed = delivery(&store, delivery_id(1, 1)).await;
    assert_eq!(listed.webhook.host, HOST);
    assert_eq!(due_names(&store, 100).await, [delivery_id(1, 1)]);
}
