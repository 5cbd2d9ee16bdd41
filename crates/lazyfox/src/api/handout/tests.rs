//! What becomes of a job between the store and the wire. From outside nobody can hold it just there.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use lazyfox_core::id::{EndpointId, JobId};
use lazyfox_core::job::{Job, Status};
use lazyfox_core::policy::{Asked, Defaults, Terms};
use lazyfox_core::time::Timestamp;
use lazyfox_store::memory::MemoryStore;
use lazyfox_store::{Extra, NewJob, Parts};

use super::*;
use crate::clock::Clock;
use crate::config::Config;
use crate::secrets::ServerKey;

const NOW: Timestamp = Timestamp::from_ms(1_000);

fn endpoint() -> EndpointId {
    "ep".parse().unwrap()
}

fn app() -> Arc<App> {
    let store = Arc::new(MemoryStore::new(NOW));
    let (key, clock) = (ServerKey::ephemeral(), Clock::manual(NOW));
    Arc::new(App::new(Config::empty(), store, key, clock, ""))
}

async fn submitted(app: &App) -> JobId {
    let id = JobId::new(NOW, [7; 16], false);
    let terms = Terms::agree(Asked::default(), &Defaults::default()).unwrap();
    let new = NewJob {
        job: Job::submitted(id, endpoint(), terms, false, NOW),
        input: Bytes::from_static(b"1"),
        webhook: None,
        secrets: None,
        idempotency: None,
    };
    app.store.submit(new, NOW).await.unwrap();
    id
}

async fn leased(app: &Arc<App>) -> Handouts {
    let ask = Ask {
        endpoint: endpoint(),
        worker: "w1".parse().unwrap(),
        count: 1,
        extra: Extra::default(),
        lease_ms: 1_000,
        disowns_before: None,
    };
    let handouts = lease(app, ask).await.unwrap();
    assert_eq!(handouts.iter().count(), 1);
    handouts
}

async fn job(app: &App, id: JobId) -> Job {
    // A job that goes back does so in a task of its own, which is first in line here.
    tokio::task::yield_now().await;
    let loaded = app.store.load(&endpoint(), id, Parts::default()).await;
    loaded.unwrap().unwrap().job
}

#[tokio::test]
async fn what_was_not_written_goes_back_at_once_and_is_no_attempt() {
    let app = app();
    let id = submitted(&app).await;
    drop(leased(&app).await);
    assert_eq!(job(&app, id).await.status(), Status::InQueue);

    drop(leased(&app).await.into_body(Bytes::from_static(b"{}")));
    let job = job(&app, id).await;
    assert_eq!((job.status(), job.retries), (Status::InQueue, 0));
    // So the same worker may have it.
    assert!(job.barred.is_empty());
}

#[tokio::test]
async fn what_was_written_stays_with_its_worker() {
    let app = app();
    let id = submitted(&app).await;
    let body = leased(&app).await.into_body(Bytes::from_static(b"{}"));
    let written = body.collect().await.unwrap().to_bytes();
    assert_eq!(written, "{}");
    assert_eq!(job(&app, id).await.status(), Status::InProgress);
}
