//! A server by itself, whatever the store: it is in charge of all that it asks for.

use lazyfox_store::{Charges, Holder, Store};

use crate::world::*;

/// In which terms this server is in charge of these endpoints.
async fn terms(store: &dyn Store, endpoints: &[&str]) -> Vec<Option<u64>> {
    let charges = store.charge(bid(endpoints)).await.unwrap();
    let term = |name: &&str| match &charges {
        Charges::Alone => Some(0),
        Charges::Shared(shared) => match shared.of[&endpoint(name)].holder {
            Holder::Here { term } => Some(term),
            Holder::There(_) | Holder::Nobody => None,
        },
    };
    endpoints.iter().map(term).collect()
}

pub(super) async fn a_server_by_itself_is_in_charge_of_everything(store: &dyn Store) {
    let first = terms(store, &["a", "b"]).await;
    assert!(first.iter().all(Option::is_some), "{first:?}");
    assert_eq!(terms(store, &["a", "b"]).await, first);
    let more = terms(store, &["a", "c"]).await;
    assert_eq!(more[0], first[0]);
    assert!(more[1].is_some());
    // It may ask again for what it gave back.
    assert!(terms(store, &["b"]).await[0].is_some());
}

pub(super) async fn who_is_in_charge_may_start_workers(store: &dyn Store) {
    let (on, one, two) = (endpoint("a"), worker("w1"), worker("w2"));
    let term = terms(store, &["a"]).await[0];
    assert_eq!(store.enlist(&on, &one, term).await, Ok(true));
    assert_eq!(store.enlist(&on, &one, term).await, Ok(true));
    assert_eq!(store.enlist(&on, &two, None).await, Ok(true));
    for worker in [&one, &one, &two] {
        assert_eq!(store.unlist(&on, worker).await, Ok(()));
    }
    assert_eq!(store.leave().await, Ok(()));
    let term = terms(store, &["a"]).await[0];
    assert_eq!(store.enlist(&on, &one, term).await, Ok(true));
}
