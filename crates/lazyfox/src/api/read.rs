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
use crate::wake::JobWatch;

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
    let wait = Wait {
        endpoint: &endpoint,
        job: auth::job(&job)?,
        ms: wait_ms,
        watch: None,
    };
    when_ended(&app, wait, None).await
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

/// What a caller waits for.
pub(super) struct Wait<'a> {
    pub(super) endpoint: &'a EndpointId,
    pub(super) job: JobId,
    /// The longest.
    pub(super) ms: u64,
    /// A watch from before there was such a job, of which nothing has to be read then.
    pub(super) watch: Option<JobWatch<'a>>,
}

/// The job when it has ended, or as it is when the wait is over or the server stops.
pub(super) async fn when_ended(
    app: &App,
    wait: Wait<'_>,
    awaited: Option<Awaited<'_>>,
) -> ApiResult<Response> {
    let (endpoint, job) = (wait.endpoint, wait.job);
    // One wait for the whole call, and its end is believed: the clock may be set back meanwhile.
    let mut sleep = pin!(app.clock.sleep_until(app.now().plus_ms(wait.ms)));
    let mut over = false;
    let (mut watch, mut is_new) = match wait.watch {
        Some(watch) => (watch, true),
        None => (app.wakes.watch(endpoint, job), false),
    };
    let mut ended = None;
    let loaded = loop {
        if !std::mem::take(&mut is_new) {
            let loaded = match ended.take() {
                Some(ended) => ended,
                None => Arc::new(load(app, endpoint, job).await?),
            };
            if loaded.job.status().is_terminal() || over || app.is_closing() {
                break loaded;
            }
        }
        tokio::select! {
            told = watch.changed() => ended = told,
            () = &mut sleep => over = true,
            () = app.closed() => {}
        }
    };
    if let Some(awaited) = awaited
        && loaded.job.status().is_terminal()
    {
        awaited.answered();
    }
    Ok(views::job(&loaded).into_response())
}

#[cfg(test)]
mod tests;
