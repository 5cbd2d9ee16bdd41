//! `/stream`: each call takes what came since the last one.

use std::pin::pin;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use lazyfox_core::job::Status;
use lazyfox_core::limits;

use super::auth;
use super::error::{ApiError, ApiResult};
use super::query::Params;
use crate::app::App;
use crate::json::{self, Object};
use crate::keyring::Need;

/// `GET|POST /stream/{job}?wait=`: chunks as soon as there are any; nothing when the wait is over.
///
/// SDKs stop at the first terminal status they see, so it is only shown with the last chunks.
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    Path((endpoint, job)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Read).await?;
    let job = auth::job(&job)?;
    let wait_ms = Params::of(&uri).wait_ms(limits::STREAM_WAIT_MS)?;
    // One wait for the whole call, and its end is believed: the clock may be set back meanwhile.
    let mut wait = pin!(app.clock.sleep_until(app.now().plus_ms(wait_ms)));
    let mut over = false;
    let mut watch = app.wakes.watch(&endpoint, job);
    loop {
        let drained = app
            .store
            .drain(&endpoint, job, app.config.bounds.result)
            .await?;
        let drained = drained.ok_or_else(ApiError::no_job)?;
        let answers = !drained.chunks.is_empty() || drained.status.is_terminal();
        if answers || over || app.is_closing() {
            let status = if drained.more {
                Status::InProgress
            } else {
                drained.status
            };
            return Ok(answer(status, &drained.chunks));
        }
        tokio::select! {
            _ = watch.changed() => {}
            () = &mut wait => over = true,
            () = app.closed() => {}
        }
    }
}

fn answer(status: Status, chunks: &[Bytes]) -> Response {
    let items = chunks.iter().map(|chunk| {
        let mut item = Object::with_payload(chunk.len());
        item.raw("output", chunk);
        item.into_bytes()
    });
    let stream = json::array(items);
    let mut object = Object::with_payload(stream.len());
    object.string("status", status.as_str());
    object.raw("stream", &stream);
    object.into_response()
}
