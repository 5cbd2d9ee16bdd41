//! `job-done` and `job-stream`: what workers report.
//!
//! The SDK drops a finished result for ever on any 4xx and after three 5xx. So the answer is 200
//! whenever there is nothing to be gained by sending it again, and 503 when there is.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use lazyfox_core::id::{JobId, WorkerId};

use lazyfox_core::job::{Event, Status};
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Applied, ChunksKept};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::auth;
use super::body::{self, Read};
use super::error::{ApiResult, Code};
use crate::app::App;
use crate::json::{self, Object};

mod chunks;

/// What a result may have around its output: `{"output":…,"error":…}` and escapes.
const ENVELOPE_BYTES: usize = 1024 * 1024;

/// All fields as they came: one of an odd type must not cost the result beside it.
#[derive(Deserialize)]
struct Report<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    output: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow, rename = "stopPod")]
    stop_pod: Option<&'a RawValue>,
}

/// A handler that returns `None` has an output, which is `null`.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(field: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(field).map(Some)
}

impl<'a> Report<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, String> {
        // A list of four would pass for the four fields in their order.
        if body.trim_ascii_start().starts_with(b"[") {
            return Err("a list instead of an object".to_owned());
        }
        serde_json::from_slice(body).map_err(|e| e.to_string())
    }

    fn is_progress(&self) -> bool {
        let status = self.status.map(RawValue::get);
        let status = status.and_then(|text| serde_json::from_str::<String>(text).ok());
        status.as_deref() == Some(Status::InProgress.as_str())
    }
}

/// What a `job-done` means.
enum Meaning {
    Progress(Bytes),
    /// An update that is too large to be shown; the job goes on.
    Skipped,
    End {
        event: fn(WorkerId, String, Option<Timestamp>) -> Event,
        error: String,
        output: Option<Bytes>,
        stop: bool,
    },
}

/// `POST job-done/{worker}/{job}`.
pub(super) async fn job_done(
    State(app): State<Arc<App>>,
    Path((endpoint, worker, job)): Path<(String, String, String)>,
    headers: HeaderMap,
    request: Request,
) -> ApiResult<Response> {
    let speaker = auth::worker(&app, &headers, &endpoint, &worker, Code::Unauthorized)?;
    let body = body::bounded(request, app.config.bounds.result + ENVELOPE_BYTES).await?;
    // An id that no job can have is one that this worker cannot hold.
    let Ok(job) = job.parse::<JobId>() else {
        return Ok(noted());
    };
    let (endpoint, worker) = (speaker.endpoint.clone(), speaker.worker.clone());
    let meaning = match body {
        Read::Whole(body) => meaning(&body, app.config.bounds.result),
        Read::TooLarge { start, .. } if begins_progress(&start) => Meaning::Skipped,
        Read::TooLarge { bytes, .. } => too_large(bytes, app.config.bounds.result),
    };
    match meaning {
        Meaning::Skipped => {}
        Meaning::Progress(output) => {
            app.fleet.begins(&worker, job, app.now());
            let event = Event::Progress { worker };
            app.apply(&endpoint, job, event, Some(output)).await?;
        }
        Meaning::End {
            event,
            error,
            output,
            stop,
        } => {
            if stop {
                app.fleet
                    .retire(&worker, "its handler asked for a fresh worker");
                app.wakes.scale.notify_one();
            }
            let now = app.now();
            let began = app.fleet.reported(&worker, job, now);
            let began_at = began.map(|(began_at, _)| began_at);
            let applied = app
                .apply(
                    &endpoint,
                    job,
                    event(worker.clone(), error, began_at),
                    output,
                )
                .await?;
            if let (Applied::Changed(_), Some((began_at, turn))) = (&applied, began) {
                app.fleet.took_ms(&endpoint, turn, now.ms_since(began_at));
            }
            if let Applied::Refused(refused, _) = applied {
                tracing::info!(job.id = %job, worker.id = %worker, why = %refused, "late result ignored");
            }
            app.wakes.scale.notify_one();
        }
    }
    Ok(noted())
}

fn noted() -> Response {
    Object::new().into_response()
}

fn completed(worker: WorkerId, _: String, began_at: Option<Timestamp>) -> Event {
    Event::Complete { worker, began_at }
}

fn failed(worker: WorkerId, error: String, began_at: Option<Timestamp>) -> Event {
    Event::Fail {
        worker,
        error,
        began_at,
    }
}

fn too_large(bytes: usize, limit: usize) -> Meaning {
    let error = format!("output of {bytes} bytes exceeds the limit of {limit} bytes");
    Meaning::End {
        event: failed,
        error,
        output: None,
        stop: false,
    }
}

/// Whether a body that is not read whole begins like the SDK's progress updates do.
fn begins_progress(start: &[u8]) -> bool {
    let text: Vec<u8> = start
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    text.starts_with(br#"{"status":"IN_PROGRESS""#)
}

fn meaning(body: &Bytes, limit: usize) -> Meaning {
    let why = match Report::parse(body) {
        Ok(report) => return understood(body, &report, limit),
        Err(why) => why,
    };
    // Python writes NaN and Infinity; everything else that is not JSON stays so.
    let clean = json::without_nan(body).map(Bytes::from);
    if let Some(clean) = &clean
        && let Ok(report) = Report::parse(clean)
    {
        return understood(clean, &report, limit);
    }
    Meaning::End {
        event: failed,
        error: format!("the worker's result is not valid JSON: {why}"),
        output: None,
        stop: false,
    }
}

fn understood(body: &Bytes, report: &Report<'_>, limit: usize) -> Meaning {
    let output = report
        .output
        .map(|raw| body.slice_ref(raw.get().as_bytes()));
    if report.is_progress() {
        let output = output.unwrap_or_else(|| Bytes::from_static(b"null"));
        return if output.len() <= limit {
            Meaning::Progress(output)
        } else {
            Meaning::Skipped
        };
    }
    if let Some(output) = &output
        && output.len() > limit
    {
        return too_large(output.len(), limit);
    }
    let stop = report.stop_pod.is_some_and(|raw| raw.get() == "true");
    match report.error {
        None => Meaning::End {
            event: completed,
            error: String::new(),
            output,
            stop,
        },
        Some(raw) => {
            // Clients want a string; anything else becomes its JSON text.
            let error = serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
            Meaning::End {
                event: failed,
                error,
                output,
                stop,
            }
        }
    }
}

/// `POST job-stream/{worker}/{job}`: one chunk.
pub(super) async fn job_stream(
    State(app): State<Arc<App>>,
    Path((endpoint, worker, job)): Path<(String, String, String)>,
    headers: HeaderMap,
    request: Request,
) -> ApiResult<Response> {
    let speaker = auth::worker(&app, &headers, &endpoint, &worker, Code::Unauthorized)?;
    let limit = app.config.bounds.result;
    let body = body::bounded(request, limit + ENVELOPE_BYTES).await?;
    let Ok(job) = job.parse::<JobId>() else {
        return Ok(noted());
    };
    let chunks = match body {
        Read::Whole(body) => chunks::chunks(&body, app.config.bounds.chunk),
        Read::TooLarge { bytes, .. } => Err(format!(
            "a chunk of {bytes} bytes exceeds the limit of {limit} bytes"
        )),
    };
    let failure = match chunks {
        Ok(chunks) => {
            let (endpoint, worker) = (&speaker.endpoint, &speaker.worker);
            if app.fleet.begins(worker, job, app.now()) {
                let worker = worker.clone();
                app.apply(endpoint, job, Event::Begin { worker }, None)
                    .await?;
            }
            match app
                .store
                .append_chunks(endpoint, job, worker, chunks)
                .await?
            {
                ChunksKept::Kept => {
                    app.wakes.job(job);
                    None
                }
                ChunksKept::NotHolder => None,
                ChunksKept::Full => Some(format!(
                    "more than {} bytes of the stream wait for a reader",
                    lazyfox_core::limits::STREAM_BYTES
                )),
            }
        }
        Err(why) => Some(why),
    };
    if let Some(error) = failure {
        let event = Event::Fail {
            worker: speaker.worker,
            error,
            began_at: None,
        };
        app.apply(&speaker.endpoint, job, event, None).await?;
    }
    Ok(noted())
}
