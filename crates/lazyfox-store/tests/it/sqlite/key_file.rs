//! `lazyfox key` beside a running server.

use lazyfox_store::sqlite::KeyFile;
use lazyfox_store::{Access, Key, Store as _, StoreError};
use tempfile::TempDir;

use super::{format_1, open, raw};
use crate::world::*;

fn key(id: &str, hash: u8) -> Key {
    Key {
        id: id.to_owned(),
        label: "ci".to_owned(),
        hash: [hash; 32],
        access: Access::Admin,
        endpoints: None,
        created_at: START,
        revoked_at: None,
    }
}

#[tokio::test]
async fn keys_made_beside_a_running_server_are_seen_by_it() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    submit(&store, job(1)).await;
    let mut file = KeyFile::open(dir.path()).unwrap();
    file.add(&key("k1", 1)).unwrap();
    assert_eq!(store.keys().await, Ok(vec![key("k1", 1)]));
    store.add_key(key("k2", 2)).await.unwrap();
    assert_eq!(file.keys(), Ok(vec![key("k1", 1), key("k2", 2)]));
    assert_eq!(file.revoke("k2", at(5)), Ok(true));
    assert_eq!(file.revoke("k3", at(5)), Ok(false));
    let revoked = store.keys().await.unwrap();
    assert_eq!(revoked[1].revoked_at, Some(at(5)));
    submit(&store, job(2)).await;
}

#[test]
fn the_first_key_can_be_made_before_the_first_start() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("new").join("data");
    KeyFile::open(&data).unwrap().add(&key("k1", 1)).unwrap();
    drop(open(&data));
    let mut file = KeyFile::open(&data).unwrap();
    assert_eq!(file.keys(), Ok(vec![key("k1", 1)]));
}

#[tokio::test]
async fn a_key_that_cannot_be_kept_does_not_hold_up_the_server() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let mut file = KeyFile::open(dir.path()).unwrap();
    file.add(&key("k1", 1)).unwrap();
    let twice = file.add(&key("k1", 2));
    assert!(
        matches!(twice, Err(StoreError::Unavailable(_))),
        "{twice:?}"
    );
    submit(&store, job(1)).await;
    file.add(&key("k2", 2)).unwrap();
    assert_eq!(store.keys().await.unwrap().len(), 2);
}

/// A server of the release that wrote it may be running on it, and would not know a newer format.
#[tokio::test]
async fn an_older_format_stays_as_it_is() {
    let dir = TempDir::new().unwrap();
    format_1(dir.path());
    let version = || -> i64 {
        let connection = raw(dir.path());
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0));
        version.unwrap()
    };
    let mut file = KeyFile::open(dir.path()).unwrap();
    let ids = |keys: Vec<Key>| keys.into_iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(ids(file.keys().unwrap()), ["key1", "key2", "key3"]);
    file.add(&key("key4", 4)).unwrap();
    assert_eq!(file.revoke("key3", at(5)), Ok(true));
    drop(file);
    let mut file = KeyFile::open(dir.path()).unwrap();
    let kept = file.keys().unwrap();
    assert_eq!(kept[0], key("key4", 4));
    assert_eq!((&*kept[3].id, kept[3].revoked_at), ("key3", Some(at(5))));
    assert_eq!(version(), 1);

    // The server is the one that migrates, and finds the same keys.
    let store = open(dir.path());
    assert_eq!(version(), 3);
    assert_eq!(store.keys().await.unwrap(), kept);
    assert_eq!(file.keys().unwrap(), kept);
}
