//! `ping`: a worker's heartbeat. It renews leases; it proves nothing else, since the SDK sends it from
//! a process of its own that goes on when the worker hangs or is dead.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::id::JobId;
use lazyfox_core::job::Event;
use lazyfox_core::sdk::{Abilities, Runtime};
use lazyfox_store::Heartbeat;

use super::auth::{self, Speaker};
use super::error::{ApiResult, Code};
use super::query::Params;
use crate::app::App;
use crate::fleet::{Heard, Named};
use crate::json::Object;

/// `GET ping/{worker}?job_id=a,b&runpod_version=1.12.0`.
pub(super) async fn ping(
    State(app): State<Arc<App>>,
    Path((endpoint, worker)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let speaker = auth::worker(&app, &headers, &endpoint, &worker, Code::Unauthorized)?;
    if auth::one_endpoint(&app, &speaker).is_err() {
        return Ok(Object::new().into_response());
    }
    let params = Params::of(&uri);
    let now = app.now();
    let runtime = params
        .get("runpod_version")
        .as_deref()
        .and_then(Runtime::from_heartbeat);
    app.fleet.beat(&speaker.worker, runtime, now);
    if params.get("status").as_deref() == Some("unhealthy") {
        let part = |name| params.get(name).unwrap_or_default();
        let reason = format!("{}: {}", part("check"), part("reason"));
        tracing::warn!(worker.id = %speaker.worker, %reason, "worker is unhealthy");
        app.fleet.unhealthy(&speaker.worker, reason);
        app.wakes.scale.notify_one();
    }
    let named: Vec<JobId> = params
        .get("job_id")
        .unwrap_or_default()
        .split(',')
        .filter_map(|id| id.parse().ok())
        .collect();
    let believable = Abilities::of(runtime).heartbeats_name_jobs;
    let beat = Heartbeat {
        worker: speaker.worker.clone(),
        endpoint: speaker.endpoint.clone(),
        jobs: believable.then(|| named.clone()),
        lease_ms: app.lease_ms(&speaker.endpoint),
    };
    let renewed = app.store.renew(beat, now).await?;
    if believable {
        let named = Named {
            all: &named,
            not_held: &renewed.not_held,
            unwritten: &renewed.begun,
        };
        note(
            &app,
            &speaker,
            app.fleet.heard(&speaker.worker, &named, now),
        )
        .await?;
    }
    Ok(Object::new().into_response())
}

/// Writes down what follows from a heartbeat.
async fn note(app: &App, speaker: &Speaker, heard: Heard) -> ApiResult<()> {
    for job in heard.begun {
        let worker = speaker.worker.clone();
        app.apply(&speaker.endpoint, job, Event::Begin { worker }, None)
            .await?;
    }
    for job in heard.lost {
        tracing::warn!(job.id = %job, worker.id = %speaker.worker, "the worker has lost the job");
        let event = Event::Lost {
            worker: speaker.worker.clone(),
            how: "lives and does not work on it any more".to_owned(),
            died: false,
        };
        app.apply(&speaker.endpoint, job, event, None).await?;
    }
    Ok(())
}
