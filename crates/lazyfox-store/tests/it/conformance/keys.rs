//! API keys.

use lazyfox_store::{Access, Key, Store};

use crate::world::*;

fn key(id: &str, n: u8) -> Key {
    Key {
        id: id.to_owned(),
        label: format!("key \"{id}\" of the Übermut team"),
        hash: [n; 32],
        access: Access::ReadWrite,
        endpoints: None,
        created_at: at(u64::from(n)),
        revoked_at: None,
    }
}

async fn add(store: &dyn Store, key: &Key) {
    store.add_key(key.clone()).await.unwrap();
}

pub(super) async fn keys_are_kept_and_listed_by_age(store: &dyn Store) {
    assert_eq!(store.keys().await, Ok(vec![]));
    let young = Key {
        access: Access::Admin,
        ..key("k1", 9)
    };
    let old = Key {
        access: Access::ReadOnly,
        endpoints: Some(vec![endpoint("a"), endpoint("b-2")]),
        ..key("k2", 3)
    };
    let nowhere = Key {
        endpoints: Some(vec![]),
        ..key("k3", 5)
    };
    for key in [&young, &old, &nowhere] {
        add(store, key).await;
    }
    assert_eq!(store.keys().await, Ok(vec![old, nowhere, young]));
}

pub(super) async fn a_key_is_revoked_once(store: &dyn Store) {
    add(store, &key("k1", 1)).await;
    add(store, &key("k2", 2)).await;
    assert_eq!(store.revoke_key("k1", at(50)).await, Ok(true));
    assert_eq!(store.revoke_key("k1", at(60)).await, Ok(true));
    let revoked: Vec<_> = store
        .keys()
        .await
        .unwrap()
        .into_iter()
        .map(|key| key.revoked_at)
        .collect();
    assert_eq!(revoked, [Some(at(50)), None]);
}

pub(super) async fn an_unknown_key_cannot_be_revoked(store: &dyn Store) {
    add(store, &key("k1", 1)).await;
    assert_eq!(store.revoke_key("k", at(50)).await, Ok(false));
    assert_eq!(store.keys().await, Ok(vec![key("k1", 1)]));
}
