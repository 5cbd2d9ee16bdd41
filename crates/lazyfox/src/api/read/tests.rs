//! What is read for a caller that waits.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header;
use lazyfox_core::id::WorkerId;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Ask, Extra, Handout};

use super::super::submit::runsync;
use super::*;
use crate::clock::Clock;
use crate::config::{Auth, Config, Endpoint};
use crate::failing::FailingStore;
use crate::secrets::ServerKey;

const NOW: Timestamp = Timestamp::from_ms(1_000_000);

fn app() -> (Arc<App>, Arc<FailingStore>) {
    let store = Arc::new(FailingStore::new(NOW));
    let config = Config {
        endpoints: [("ep".parse().unwrap(), Endpoint::shipped())].into(),
        auth: Auth::None,
        ..Config::empty()
    };
    let (key, clock) = (ServerKey::ephemeral(), Clock::manual(NOW));
    let app = Arc::new(App::new(config, store.clone(), key, clock, ""));
    (app, store)
}

fn worker() -> WorkerId {
    "w1".parse().unwrap()
}

/// The one job that waits.
async fn taken(app: &App) -> Handout {
    let ask = Ask {
        endpoint: "ep".parse().unwrap(),
        worker: worker(),
        count: 1,
        extra: Extra::default(),
        lease_ms: 60_000,
        disowns_before: None,
    };
    let leased = app.store.lease(ask, NOW).await;
    leased.unwrap().handouts.pop().unwrap()
}

fn complete() -> Event {
    Event::Complete {
        worker: worker(),
        began_at: None,
    }
}

/// A caller that waits for a job, which has been submitted.
async fn caller(app: &Arc<App>, store: &FailingStore) -> tokio::task::JoinHandle<String> {
    let app = Arc::clone(app);
    let caller = tokio::spawn(async move {
        let request = Request::builder().header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(r#"{"input":1}"#)).unwrap();
        let path = Path("ep".to_owned());
        let response = runsync(State(app), path, HeaderMap::new(), request).await;
        let body = response.unwrap_or_else(|e| e.into_response()).into_body();
        String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().into()).unwrap()
    });
    while store.called("submit") == 0 {
        assert!(!caller.is_finished(), "it was refused");
        tokio::task::yield_now().await;
    }
    caller
}

#[tokio::test]
async fn a_result_that_comes_to_this_server_is_not_read_for_its_caller() {
    let (app, store) = app();
    let caller = caller(&app, &store).await;
    let job = taken(&app).await.job;
    let output = Some(Bytes::from_static(b"42"));
    app.apply(&job.endpoint, job.id, complete(), output)
        .await
        .unwrap();
    let answer = caller.await.unwrap();
    assert!(answer.contains(r#""status":"COMPLETED""#), "{answer}");
    assert!(answer.contains(r#""output":42"#), "{answer}");
    assert_eq!(store.called("load"), 0);
}

#[tokio::test]
async fn a_result_that_came_to_another_server_is_read() {
    let (app, store) = app();
    let caller = caller(&app, &store).await;
    let job = taken(&app).await.job;
    let output = Some(Bytes::from_static(b"42"));
    let applied = app
        .store
        .apply(&job.endpoint, job.id, complete(), output, NOW);
    applied.await.unwrap();
    app.wakes.job(job.id);
    let answer = caller.await.unwrap();
    assert!(answer.contains(r#""output":42"#), "{answer}");
    assert_eq!(store.called("load"), 1);
}
