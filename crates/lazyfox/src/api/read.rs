//! `/status` and `/status-sync`, and how a caller waits for a job.

use std::pin::pin;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::id::{EndpointId, JobId};
use lazyfox_core::job::Event;
use lazyfox_core::limits;
use lazyfox_store::{Loaded, Parts};

use super::auth;
use super::error::{ApiError, ApiResult, Code};
use super::query::Params;
use super::submit::Awaited;
use crate::app::App;
use crate::keyring::Need;
use crate::views;

/// `GET|POST /status/{job}`, with `?ttl=` to set the job's remaining life.
pub(super) async fn status(
    State(app): State<Arc<App>>,
    Path((endpoint, job)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let params = Params::of(&uri);
    let ttl_ms = params.number("ttl")?;
    let need = if ttl_ms.is_some() {
        Need::Write
    } else {
        Need::Read
    };
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, need).await?;
    let job = auth::job(&job)?;
    if let Some(ms) = ttl_ms {
        if ms == 0 || ms > limits::TTL_MS_MAX {
            let message = format!("ttl is {ms} ms, allowed are 1 to {}", limits::TTL_MS_MAX);
            return Err(ApiError::new(Code::InvalidQuery, message));
        }
        app.apply(&endpoint, job, Event::SetTtl { ms }, None)
            .await?;
        app.wakes.deadlines.notify_one();
    }
    Ok(views::job(&load(&app, &endpoint, job).await?).into_response())
}

/// `GET|POST /status-sync/{job}?wait=`: the same, when the job has ended or the wait is over.
pub(super) async fn status_sync(
    State(app): State<Arc<App>>,
    Path((endpoint, job)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Read).await?;
    let wait_ms = Params::of(&uri).wait_ms(limits::WAIT_MS)?;
    when_ended(&app, &endpoint, auth::job(&job)?, wait_ms, None).await
}

async fn load(app: &App, endpoint: &EndpointId, job: JobId) -> ApiResult<Loaded> {
    let parts = Parts {
        output: true,
        input: false,
    };
    app.store
        .load(endpoint, job, parts)
        .await?
        .ok_or_else(ApiError::no_job)
}

/// The job when it has ended, or as it is when the wait is over or the server stops.
pub(super) async fn when_ended<'a>(
    app: &App,
    endpoint: &EndpointId,
    job: JobId,
    wait_ms: u64,
    awaited: impl Into<Option<Awaited<'a>>>,
) -> ApiResult<Response> {
    let awaited = awaited.into();
    // One wait for the whole call, and its end is believed: the clock may be set back meanwhile.
    let mut wait = pin!(app.clock.sleep_until(app.now().plus_ms(wait_ms)));
    let mut over = false;
    let mut watch = app.wakes.watch(endpoint, job);
    loop {
        let loaded = load(app, endpoint, job).await?;
        if loaded.job.status().is_terminal() {
            if let Some(awaited) = awaited {
                awaited.answered();
            }
            return Ok(views::job(&loaded).into_response());
        }
        if over || app.is_closing() {
            return Ok(views::job(&loaded).into_response());
        }
        tokio::select! {
            () = watch.changed() => {}
            () = &mut wait => over = true,
            () = app.closed() => {}
        }
    }
}
