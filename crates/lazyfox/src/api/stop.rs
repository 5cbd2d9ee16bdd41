//! `job-stop`: how a worker hears that a job of its is over.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::limits;

use super::auth;
use super::error::{ApiError, ApiResult, Code};
use crate::app::App;
use crate::json::{self, Object};

/// `GET job-stop/{worker}`: `{"jobsToStop":[…]}` as soon as there are any, else 204 after 55 s. A worker
/// that shall stop gets its 204 at once: its exit waits for this poll.
pub(super) async fn job_stop(
    State(app): State<Arc<App>>,
    Path((endpoint, worker)): Path<(String, String)>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let speaker = auth::worker(&app, &headers, &endpoint, &worker, Code::WorkerRefused)?;
    auth::one_endpoint(&app, &speaker)?;
    // While it waits they would hold the connection's buffer, and hyper takes a second one.
    drop(headers);
    app.fleet.beat(&speaker.worker, None, app.now());
    let until = app.now().plus_ms(limits::STOP_POLL_MS);
    loop {
        let nothing = || Ok(StatusCode::NO_CONTENT.into_response());
        let Some(mut calls) = app.fleet.calls(&speaker.worker) else {
            return nothing();
        };
        let (jobs, again_at) = app.fleet.tell_to_stop(&speaker.worker, app.now());
        if !jobs.is_empty() {
            tracing::info!(worker.id = %speaker.worker, ?jobs, "telling the worker to stop jobs");
            let ids = jobs.iter().map(|job| format!("\"{job}\"").into());
            let mut object = Object::new();
            object.raw("jobsToStop", &json::array(ids));
            return Ok(object.into_response());
        }
        if app.is_closing() {
            let message = "the server is shutting down, ask again in 5 seconds";
            return Err(ApiError::new(Code::WorkerRefused, message));
        }
        // The SDK pauses for a second after this, so it cannot spin.
        if app.fleet.is_retired(&speaker.worker) {
            return nothing();
        }
        tokio::select! {
            _ = calls.changed() => {}
            () = app.closed() => {}
            () = app.clock.sleep_until(until.min(again_at)) => {
                if app.now() >= until {
                    return nothing();
                }
            }
        }
    }
}
