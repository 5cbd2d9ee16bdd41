//! Polls beside a store that fails, which no store does from outside.

use std::time::Duration;

use axum::http::HeaderValue;
use lazyfox_core::id::JobId;
use lazyfox_core::job::Job;
use lazyfox_core::policy::Terms;
use lazyfox_store::NewJob;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::Clock;
use crate::config::Config;
use crate::failing::FailingStore;
use crate::secrets::ServerKey;

const NOW: Timestamp = Timestamp::from_ms(1_000_000);

/// A poll that waits, and has asked the store.
async fn parked(
    app: &Arc<App>,
    store: &FailingStore,
    worker: &str,
) -> JoinHandle<ApiResult<Response>> {
    let asked = store.called("lease");
    let (endpoint, name) = ("ep".parse().unwrap(), worker.parse().unwrap());
    let token = app.key.worker_token(&endpoint, &name);
    let token = HeaderValue::from_str(&token).unwrap();
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, token)]);
    let uri = Uri::from_static("/?job_in_progress=1");
    let poll = arrive(app, ["ep", worker], &headers, &uri, Shape::Object);
    let (app, poll) = (Arc::clone(app), poll.ok().unwrap());
    let waits = tokio::spawn(async move { wait_for_work(&app, poll).await });
    while store.called("lease") == asked {
        tokio::task::yield_now().await;
    }
    waits
}

#[tokio::test]
async fn a_poll_that_the_store_fails_passes_its_wake_up_on() {
    let store = Arc::new(FailingStore::new(NOW));
    let config = Config {
        endpoints: [("ep".parse().unwrap(), Endpoint::shipped())].into(),
        ..Config::empty()
    };
    let (key, clock) = (ServerKey::ephemeral(), Clock::manual(NOW));
    let app = Arc::new(App::new(config, store.clone(), key, clock, ""));
    let first = parked(&app, &store, "w1").await;
    let second = parked(&app, &store, "w2").await;

    let id = JobId::new(NOW, [7; 16], false);
    let endpoint = "ep".parse().unwrap();
    let terms = Terms::agree(Default::default(), &Default::default()).unwrap();
    let new = NewJob {
        job: Job::submitted(id, endpoint, terms, false, NOW),
        input: Bytes::from_static(b"1"),
        webhook: None,
        secrets: None,
        idempotency: None,
    };
    app.store.submit(new, NOW).await.unwrap();
    store.fail_next("lease");
    app.wakes.queue(&"ep".parse().unwrap()).notify_one();

    let refused = first.await.unwrap().unwrap_err().into_response();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let taken = tokio::time::timeout(Duration::from_secs(10), second).await;
    let taken = taken.expect("nobody woke it").unwrap().unwrap();
    assert_eq!(taken.status(), StatusCode::OK);
}
