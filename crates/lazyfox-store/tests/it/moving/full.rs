//! A store with something of every kind, and all that a server can see of it.

use bytes::Bytes;
use lazyfox_core::delivery::{Next, Try};
use lazyfox_core::id::JobId;
use lazyfox_core::job::{Event, Job};
use lazyfox_core::policy::Terms;
use lazyfox_store::{
    Access, Ask, DeliveryQuery, Extra, Key, NewJob, Query, Settlement, Store, WebhookSecret,
};

use crate::world::*;

fn sealed(mut new: NewJob, secrets: &[u8]) -> NewJob {
    new.secrets = Some(secrets.to_vec());
    new
}

/// Something of every kind.
pub(super) async fn fill(store: &dyn Store) {
    waiting(store).await;
    running(store).await;
    ended(store).await;
    sent(store).await;
    beside(store).await;
}

/// On `a`, in the order in which they are to go out: 3 (which was lost once), 1, 5, 6; in the low lane 2.
async fn waiting(store: &dyn Store) {
    submit(store, webhooked(job(3))).await;
    let third = take(store, "w3", 1, 1).await;
    assert_eq!(third, [id(3)]);
    let dies = Event::Lost {
        worker: worker("w3"),
        how: "was killed\nby a\0null and a \u{e9}\\".to_owned(),
        died: true,
    };
    change(store, id(3), dies, 2).await;
    submit(
        store,
        sealed(webhooked(keyed(job(1), "once", 7)), b"\0\xff"),
    )
    .await;
    submit(store, job_with(id(2), "a", low())).await;
    let terms = Terms {
        execution_timeout_ms: None,
        ttl_ms: 90_000_000,
        ttl_given: true,
        retries_max: 9,
        poison_after: 0,
        retention_ms: 11_000_000,
        retention_sync_ms: 22_000,
        ttl_expiry_forgets: true,
        webhook_on_cancel: true,
        ..terms()
    };
    let mut binary = job_with(id(5), "a", terms);
    binary.input = Bytes::from_static(b"\xff\x00{");
    submit(store, binary).await;
    // Nobody waits for it any more after a restart, and so after a move.
    let mut new = job(6);
    new.job = Job::submitted(id(6), endpoint("a"), new.job.terms, true, START);
    submit(store, new).await;
}

/// On `b`: 31 works and has chunks, 32 waits inside its worker.
async fn running(store: &dyn Store) {
    for n in [31, 32] {
        submit(
            store,
            sealed(
                keyed(job_with(id(n), "b", terms()), &format!("k{n}"), n),
                b"s3",
            ),
        )
        .await;
    }
    let ask = Ask {
        lease_ms: 7_000,
        extra: Extra {
            count: 1,
            ..Extra::default()
        },
        ..ask("b", "w31", 1)
    };
    store.lease(ask, at(10)).await.unwrap();
    let on = endpoint("b");
    for chunks in [&["1", "22"][..], &["\"z\" ", "{}"]] {
        let chunks = chunks.iter().map(|it| bytes(it)).collect();
        let kept = store.append_chunks(&on, id(31), &worker("w31"), chunks);
        kept.await.unwrap();
    }
    assert!(store.drain(&on, id(31), 1).await.unwrap().unwrap().more);
}

/// On `c`: ends of several kinds, and 47 that runs.
async fn ended(store: &dyn Store) {
    let on = endpoint("c");
    for n in 41..=45 {
        submit(store, webhooked(job_with(id(n), "c", terms()))).await;
    }
    let mut awaited = webhooked(job_with(sync_id(46), "c", terms()));
    awaited.job = Job {
        has_webhook: true,
        ..Job::submitted(sync_id(46), on.clone(), terms(), true, START)
    };
    submit(store, awaited).await;
    submit(store, job_with(id(47), "c", terms())).await;
    assert_eq!(take_on(store, "c", "w4", 4, 20).await.len(), 4);
    assert_eq!(take_on(store, "c", "w5", 3, 20).await.len(), 3);
    let apply = async |job, event, output: Option<&'static [u8]>| {
        let output = output.map(Bytes::from_static);
        let applied = store.apply(&on, job, event, output, at(30)).await.unwrap();
        assert!(applied.changed().is_some(), "{job}");
    };
    apply(id(41), complete("w4"), Some(b"{\"z\": 1.0e2}")).await;
    apply(id(42), complete("w4"), Some(b"\xfe\xff")).await;
    let fails = Event::Fail {
        worker: worker("w4"),
        error: "no\0 \u{1f98a}".to_owned(),
        began_at: None,
    };
    apply(id(43), fails, None).await;
    apply(id(44), Event::Cancel, None).await;
    apply(sync_id(46), complete("w5"), Some(b"null")).await;
    apply(id(45), progress("w5"), Some(b"[1]")).await;
}

/// Deliveries: one that arrived, one that was given up, one that was withdrawn after a try, two not tried.
async fn sent(store: &dyn Store) {
    let due = due(store, 30).await;
    assert_eq!(due.len(), 4);
    settle(store, &due[0], 0, Next::Delivered, 40).await;
    let settlement = |made| Settlement {
        made,
        ..settlement(&due[2], 0, Next::Again(at(9_000_000)), 50)
    };
    let made = Try {
        at: at(50),
        duration_ms: 10_000,
        status: None,
        answer: Some("a\0b".to_owned()),
        error: Some("no answer\0".to_owned()),
    };
    store.settle(vec![settlement(made)]).await.unwrap();
    settle(store, &due[1], 0, Next::Again(at(70)), 60).await;
    settle(
        store,
        &due_again(store, due[1].number).await,
        1,
        Next::GaveUp,
        70,
    )
    .await;
    let on = endpoint("c");
    let ended = store.apply(&on, id(45), complete("w5"), None, at(80));
    assert!(ended.await.unwrap().changed().is_some());
    let again = store.apply(&on, id(43), Event::Retry, None, at(90)).await;
    assert!(again.unwrap().changed().is_some());
}

async fn due_again(store: &dyn Store, number: u64) -> lazyfox_store::Due {
    let due = due(store, 70).await;
    due.into_iter().find(|due| due.number == number).unwrap()
}

/// Secrets, releases, settings, keys.
async fn beside(store: &dyn Store) {
    for (on, id, ms) in [("a", "s1", 1), ("a", "s2", 2), ("c", "s3", 3)] {
        let secret = WebhookSecret {
            id: id.to_owned(),
            sealed: vec![0, 255, 1],
            created_at: at(ms),
            valid_until: None,
        };
        let added = store.add_webhook_secret(&endpoint(on), secret, at(86_400_000));
        added.await.unwrap();
    }
    for fingerprint in [1, 2] {
        let released = store.release(&endpoint("a"), [fingerprint; 32], at(5));
        released.await.unwrap();
    }
    let settings = Some("{\"workers_max\": 4}".to_owned());
    store
        .set_override(&endpoint("a"), settings.clone())
        .await
        .unwrap();
    store.set_override(&endpoint("b"), settings).await.unwrap();
    store.set_override(&endpoint("c"), None).await.unwrap();
    for (n, access) in [
        (1, Access::Admin),
        (2, Access::ReadWrite),
        (3, Access::ReadOnly),
    ] {
        let key = Key {
            id: format!("k{n}"),
            label: format!("für {n}\0"),
            hash: [n; 32],
            access,
            endpoints: (n > 1).then(|| vec![endpoint("b"), endpoint("a")]),
            created_at: at(100 - u64::from(n)),
            revoked_at: None,
        };
        store.add_key(key).await.unwrap();
    }
    assert!(store.revoke_key("k3", at(200)).await.unwrap());
}

/// All that a server can read of it, without its lease and its place in the store.
pub(super) async fn seen(store: &dyn Store) -> Vec<String> {
    let mut seen = Vec::new();
    for on in ["a", "b", "c"].map(endpoint) {
        let query = Query {
            endpoint: on.clone(),
            status: None,
            limit: 100,
            before: None,
        };
        for job in store.list(query).await.unwrap().jobs {
            let id: JobId = job.id;
            let mut loaded = store.load(&on, id, ALL_PARTS).await.unwrap().unwrap();
            loaded.job = without_lease(loaded.job);
            // Whether somebody still waits is between them and their server.
            loaded.job.awaited &= loaded.job.state.end().is_some();
            let place = store.place(&on, id).await.unwrap();
            seen.push(format!("{loaded:?} {place:?}"));
        }
        let deliveries = store.deliveries(DeliveryQuery::of(on.clone())).await;
        seen.push(format!("{:?}", deliveries.unwrap()));
        let secrets = store.webhook_secrets(&on).await.unwrap();
        seen.push(format!("{secrets:?}"));
    }
    let release = store.release(&endpoint("a"), [2; 32], at(999)).await;
    seen.push(format!("{:?}", release.unwrap()));
    seen.push(format!("{:?}", store.overrides().await.unwrap()));
    seen.push(format!("{:?}", store.keys().await.unwrap()));
    let mut survey = store.survey().await.unwrap();
    survey.sort_by(|one, other| one.endpoint.cmp(&other.endpoint));
    for mut of in survey {
        of.holders.sort();
        of.counters.retain(|(_, value)| *value > 0);
        seen.push(format!("{of:?}"));
    }
    seen.push(format!("{:?}", due_names(store, 10_000_000).await));
    seen
}
