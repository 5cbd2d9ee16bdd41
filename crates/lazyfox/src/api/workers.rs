//! The workers of an endpoint: what each does, and why those that are gone went.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use lazyfox_core::time::Timestamp;

use super::error::ApiResult;
use super::{auth, charge};
use crate::app::App;
use crate::config::Endpoint;
use crate::fleet::{Gone, Seen, WorkerState};
use crate::json::{self, Object};
use crate::keyring::Need;
use crate::providers::{Exit, Run};

/// `GET /workers`: those that are there, the oldest first, and those that are gone, the last first.
pub(super) async fn workers(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (endpoint, settings) = auth::client(&app, &headers, &endpoint, Need::Read).await?;
    let (_, holders) = app.survey(&endpoint).await?;
    let seen = app.fleet.seen(&endpoint, &holders);
    let gone = app.fleet.gone(&endpoint);
    let mut elsewhere = app.charge.elsewhere(&endpoint);
    // One that is this server's now may still be noted as another's.
    elsewhere.retain(|it| !seen.iter().any(|own| own.worker == it.worker));
    let throttled = app
        .decisions
        .standing(&endpoint)
        .map_or(0, |it| it.throttled);
    let now = app.now();

    let mut object = Object::new();
    if settings.run.is_some() && app.charge.term(&endpoint).is_some() {
        object.number("endpointVersion", app.fleet.release_of(&endpoint).0);
    }
    object.raw(
        "summary",
        &summary(&seen, elsewhere.len(), throttled).into_bytes(),
    );
    if let (_, Some(why)) = app.fleet.starts(&endpoint) {
        object.string("lastStartFailure", &why);
    }
    charge::add(&app, &endpoint, &mut object);
    let own = seen.iter().map(|it| worker(it, &settings, now));
    let others = elsewhere.iter().map(|it| charge::elsewhere(it, now));
    let workers = own.chain(others);
    object.raw("workers", &json::array(workers));
    object.raw("stopped", &json::array(gone.iter().map(stopped)));
    Ok(object.into_response())
}

fn summary(seen: &[Seen], elsewhere: usize, throttled: u32) -> Object {
    let mut summary = Object::new();
    for (name, state) in [
        ("running", WorkerState::Running),
        ("idle", WorkerState::Idle),
        ("initializing", WorkerState::Initializing),
        ("outdated", WorkerState::Outdated),
        ("unhealthy", WorkerState::Unhealthy),
        ("stopping", WorkerState::Stopping),
    ] {
        let count = seen.iter().filter(|it| it.state == state).count();
        summary.number(name, count);
    }
    summary.number("throttled", throttled);
    if elsewhere > 0 {
        summary.number("elsewhere", elsewhere);
    }
    summary.number("total", seen.len() + elsewhere);
    summary
}

fn worker(seen: &Seen, settings: &Endpoint, now: Timestamp) -> Bytes {
    let mut object = Object::new();
    object.string("id", seen.worker.as_str());
    object.string("status", seen.state.as_str());
    object.bool("isStale", seen.outdated);
    object.bool("isExternal", !seen.managed);
    if seen.managed {
        object.number("version", seen.release.0);
    }
    if let Some(runtime) = &seen.runtime {
        object.string("sdk", runtime);
    }
    match &settings.run {
        Some(Run::Container(run)) if !seen.outdated && seen.managed => {
            object.string("image", &run.image);
        }
        Some(Run::Process(run)) if !seen.outdated && seen.managed => {
            object.raw("command", &strings(&run.command));
        }
        Some(_) | None => {}
    }
    object.number("gpuCount", seen.gpus.len());
    object.raw("gpus", &strings(&seen.gpus));
    object.number("slots", seen.slots);
    let jobs: Vec<String> = seen.jobs.iter().map(ToString::to_string).collect();
    object.raw("jobs", &strings(&jobs));
    object.number("jobsWaitingInside", seen.waiting);
    object.number("startedAt", seen.started_at.as_ms());
    object.number("uptimeSeconds", now.ms_since(seen.started_at) / 1000);
    if let Some(ready_ms) = seen.ready_ms {
        object.number("readyAfterMs", ready_ms);
    }
    if !seen.why_started.is_empty() {
        object.string("whyStarted", &seen.why_started);
    }
    if let Some(step) = &seen.step {
        object.string("step", step);
    }
    if let Some(note) = &seen.note {
        object.string("note", note);
    }
    object.into_bytes()
}

fn stopped(gone: &Gone) -> Bytes {
    let mut object = Object::new();
    object.string("id", gone.worker.as_str());
    let fine = gone.ready_ms.is_some() && gone.why_stopped.is_some();
    object.string("status", if fine { "STOPPED" } else { "UNHEALTHY" });
    object.number("version", gone.release.0);
    object.number("startedAt", gone.started_at.as_ms());
    object.number("endedAt", gone.ended_at.as_ms());
    if let Some(ready_ms) = gone.ready_ms {
        object.number("readyAfterMs", ready_ms);
    }
    if !gone.why_started.is_empty() {
        object.string("whyStarted", &gone.why_started);
    }
    let exit = gone.exit.to_string();
    let why = match &gone.why_stopped {
        Some(why) => format!("{why}; it {exit}"),
        None => format!("it {exit}"),
    };
    object.string("whyStopped", &why);
    match &gone.exit {
        Exit::Code(code) => object.number("exitCode", i64::from(*code)),
        Exit::Signal(signal) => object.number("signal", i64::from(*signal)),
        Exit::OutOfMemory { .. } => object.bool("outOfMemory", true),
        Exit::NotStarted(_) | Exit::Unknown => {}
    }
    object.raw("lastLines", &strings(&gone.last_lines));
    object.into_bytes()
}

fn strings(texts: &[String]) -> Vec<u8> {
    serde_json::to_vec(texts).expect("strings can be written to memory")
}
