//! `lazyfox key` beside a running server.

use lazyfox_store::sqlite::KeyFile;
use lazyfox_store::{Access, Key, Store as _, StoreError};
use tempfile::TempDir;

use super::open;
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
