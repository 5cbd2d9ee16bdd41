//! `/cancel`, `/retry` and `/purge-queue`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::job::{Event, Refused};
use lazyfox_store::Applied;

use super::auth;
use super::error::{ApiError, ApiResult, Code};
use crate::app::App;
use crate::json::Object;
use crate::keyring::Need;
use crate::views;

/// Jobs purged in one commit.
const PURGE_AT_ONCE: usize = 1000;

/// `POST /cancel/{job}`: a job that has ended already is answered with its true status.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Path((endpoint, job)): Path<(String, String)>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Write).await?;
    match app
        .apply(&endpoint, auth::job(&job)?, Event::Cancel, None)
        .await?
    {
        Applied::Changed(change) => {
            Ok(views::brief(change.job.id, change.job.status()).into_response())
        }
        Applied::Refused(_, job) => Ok(views::brief(job.id, job.status()).into_response()),
        Applied::Unknown => Err(ApiError::no_job()),
    }
}

/// `POST /retry/{job}`: FAILED and TIMED_OUT jobs, as long as their result is kept.
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    Path((endpoint, job)): Path<(String, String)>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Write).await?;
    if app.is_closing() {
        return Err(ApiError::closing());
    }
    match app
        .apply(&endpoint, auth::job(&job)?, Event::Retry, None)
        .await?
    {
        Applied::Changed(change) => {
            Ok(views::brief(change.job.id, change.job.status()).into_response())
        }
        Applied::Refused(refused, job) => {
            let refused = match refused {
                Refused::NotRetryable(_) => refused,
                Refused::Ended(_)
                | Refused::NotQueued
                | Refused::NotHolder
                | Refused::Begun
                | Refused::Barred
                | Refused::NotDue => Refused::NotRetryable(job.status()),
            };
            Err(ApiError::new(Code::NotRetryable, refused.to_string()))
        }
        Applied::Unknown => Err(ApiError::no_job()),
    }
}

/// `POST /purge-queue`: cancels what waits now, and leaves what runs.
pub(super) async fn purge_queue(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Write).await?;
    // Jobs that come meanwhile are not meant: the first step says how far the others may go.
    let (mut removed, mut through) = (0, None);
    loop {
        let purged = app
            .store
            .purge(&endpoint, through, PURGE_AT_ONCE, app.now())
            .await?;
        removed += purged.changes.len();
        app.note(&purged.changes);
        if purged.changes.len() < PURGE_AT_ONCE {
            break;
        }
        through = Some(purged.through);
    }
    let mut object = Object::new();
    object.number("removed", removed);
    object.string("status", "completed");
    Ok(object.into_response())
}
