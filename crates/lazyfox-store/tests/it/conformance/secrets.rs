//! What an endpoint's deliveries are signed with.

use lazyfox_core::time::Timestamp;
use lazyfox_store::{Store, WebhookSecret};

use crate::world::*;

fn secret(n: u8, valid_until: Option<Timestamp>) -> WebhookSecret {
    WebhookSecret {
        id: format!("secret{n}"),
        sealed: vec![0, n, 255],
        created_at: at(u64::from(n)),
        valid_until,
    }
}

async fn secrets(store: &dyn Store, on: &str) -> Vec<WebhookSecret> {
    store.webhook_secrets(&endpoint(on)).await.unwrap()
}

async fn add(store: &dyn Store, on: &str, n: u8, previous_until: u64) {
    let (on, new) = (endpoint(on), secret(n, None));
    let added = store.add_webhook_secret(&on, new, at(previous_until));
    added.await.unwrap();
}

pub(super) async fn the_newest_secret_is_first_and_the_one_before_ends(store: &dyn Store) {
    assert_eq!(secrets(store, "a").await, []);
    add(store, "a", 1, 500).await;
    assert_eq!(secrets(store, "a").await, [secret(1, None)]);
    add(store, "a", 2, 600).await;
    let two = [secret(2, None), secret(1, Some(at(600)))];
    assert_eq!(secrets(store, "a").await, two);
    // There is never a third, whether or not the second is over.
    add(store, "a", 3, 400).await;
    let two = [secret(3, None), secret(2, Some(at(400)))];
    assert_eq!(secrets(store, "a").await, two);
    add(store, "a", 4, 900).await;
    let two = [secret(4, None), secret(3, Some(at(900)))];
    assert_eq!(secrets(store, "a").await, two);
}

pub(super) async fn secrets_made_in_one_moment_are_told_apart(store: &dyn Store) {
    let same = |n, valid_until| WebhookSecret {
        created_at: at(7),
        ..secret(n, valid_until)
    };
    // The clock may even go back.
    for (n, created_at) in [(9, 7), (5, 7), (7, 6)] {
        let new = WebhookSecret {
            created_at: at(created_at),
            ..secret(n, None)
        };
        let on = endpoint("a");
        store.add_webhook_secret(&on, new, at(8)).await.unwrap();
    }
    let newest = WebhookSecret {
        created_at: at(6),
        ..secret(7, None)
    };
    assert_eq!(secrets(store, "a").await, [newest, same(5, Some(at(8)))]);
}

pub(super) async fn endpoints_have_secrets_of_their_own(store: &dyn Store) {
    add(store, "a", 1, 500).await;
    add(store, "b", 2, 600).await;
    add(store, "b", 3, 600).await;
    assert_eq!(secrets(store, "a").await, [secret(1, None)]);
    let two = [secret(3, None), secret(2, Some(at(600)))];
    assert_eq!(secrets(store, "b").await, two);
    assert_eq!(secrets(store, "c").await, []);
}
