//! What is known of endpoints beside their jobs: releases, and settings that were changed.

use lazyfox_store::{Release, Store};

use crate::world::*;

async fn release(store: &dyn Store, on: &str, fingerprint: u8, ms: u64) -> (u32, u64) {
    let release = store
        .release(&endpoint(on), [fingerprint; 32], at(ms))
        .await;
    let Release { number, since } = release.unwrap();
    (number, since.ms_since(START))
}

pub(super) async fn a_release_is_the_same_until_another_comes(store: &dyn Store) {
    assert_eq!(release(store, "a", 7, 10).await, (1, 10));
    assert_eq!(release(store, "a", 7, 20).await, (1, 10));
    assert_eq!(release(store, "b", 9, 25).await, (1, 25));
    assert_eq!(release(store, "a", 8, 30).await, (2, 30));
    assert_eq!(release(store, "a", 8, 40).await, (2, 30));
    // To go back is to release once more.
    assert_eq!(release(store, "a", 7, 50).await, (3, 50));
    assert_eq!(release(store, "b", 9, 60).await, (1, 25));
}

pub(super) async fn changed_settings_are_kept_until_they_are_taken_back(store: &dyn Store) {
    assert_eq!(store.overrides().await, Ok(vec![]));
    let set = async |on, text: Option<&str>| {
        let text = text.map(str::to_owned);
        store.set_override(&endpoint(on), text).await.unwrap();
    };
    let kept = async || -> Vec<(String, String)> {
        let all = store.overrides().await.unwrap().into_iter();
        all.map(|(on, text)| (on.to_string(), text)).collect()
    };
    let pair = |on: &str, text: &str| (on.to_owned(), text.to_owned());
    set("b", Some("{\"workers_max\": 4}")).await;
    set("a", Some("{}")).await;
    set("c", None).await;
    assert_eq!(
        kept().await,
        [pair("a", "{}"), pair("b", "{\"workers_max\": 4}")]
    );
    assert_eq!(release(store, "a", 1, 10).await, (1, 10));
    set("a", Some("{ \"workers_min\": 1.0 }")).await;
    set("b", None).await;
    assert_eq!(kept().await, [pair("a", "{ \"workers_min\": 1.0 }")]);
    set("a", None).await;
    assert_eq!(kept().await, []);
    // Neither is at the other's expense.
    assert_eq!(release(store, "a", 1, 20).await, (1, 10));
}
