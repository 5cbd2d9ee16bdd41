//! Jobs as clients see them. `s3Config`, the policy and keys are in none of these.

use axum::response::Response;
use bytes::Bytes;
use lazyfox_core::delivery::Try;
use lazyfox_core::id::JobId;
use lazyfox_core::job::{Job, Status};
use lazyfox_store::{Delivery, Loaded, Outgoing};
use serde_json::value::RawValue;

use crate::json::{self, Object};
use crate::webhooks::target;

/// The job object of `/status`, `/runsync` and `/status-sync`.
pub(crate) fn job(loaded: &Loaded) -> Object {
    let output = loaded.output.as_deref();
    let mut object = Object::with_payload(output.map_or(0, <[u8]>::len));
    fields(&mut object, &loaded.job, output);
    object
}

/// What a webhook receives: the job object with its input and the webhook's own URL. What is too large is
/// left out, and a link says where it is.
pub(crate) fn webhook(outgoing: &Outgoing, status_url: Option<&str>) -> Bytes {
    let loaded = &outgoing.loaded;
    let payloads = [&loaded.output, &loaded.input].into_iter().flatten();
    let mut object = Object::with_payload(payloads.map(Bytes::len).sum());
    fields(&mut object, &loaded.job, loaded.output.as_deref());
    if let Some(url) = status_url {
        object.string("statusUrl", url);
    }
    if let Some(input) = &loaded.input {
        object.raw("input", input);
    }
    object.string("webhook", &outgoing.url);
    object.into_bytes()
}

/// The same for a list: without the output.
pub(crate) fn listed(job: &Job) -> Object {
    let mut object = Object::new();
    fields(&mut object, job, None);
    object
}

fn fields(object: &mut Object, job: &Job, output: Option<&[u8]>) {
    let attempt = job.state.last_attempt();
    let end = job.state.end();
    if let Some((_, started_at)) = attempt {
        object.number("delayTime", started_at.ms_since(job.queued_at));
        if let Some(end) = end {
            object.number("executionTime", end.at.ms_since(started_at));
        }
    }
    object.string("id", &job.id.to_string());
    if let Some(output) = output {
        object.raw("output", output);
    }
    object.string("status", job.status().as_str());
    if let Some(error) = end.and_then(|end| end.error.as_deref()) {
        object.string("error", error);
        if let Some(detail) = detail(error) {
            object.raw("errorDetail", detail.get().as_bytes());
        }
    }
    if job.retries > 0 {
        object.number("retries", job.retries);
    }
    if let Some((worker, started_at)) = attempt {
        object.string("workerId", worker.as_str());
        object.number("startedAt", started_at.as_ms());
    }
    object.number("createdAt", job.created_at.as_ms());
    if let Some(end) = end {
        object.number("completedAt", end.at.as_ms());
    }
}

/// A try of a delivery, within whatever object it stands in.
pub(crate) fn try_fields(object: &mut Object, made: &Try) {
    object.number("durationMs", made.duration_ms);
    if let Some(status) = made.status {
        object.number("status", u32::from(status));
    }
    if let Some(answer) = made.answer.as_deref().filter(|it| !it.is_empty()) {
        object.string("answer", answer);
    }
    if let Some(error) = &made.error {
        object.string("error", error);
    }
}

/// A delivery for a list. `hold` says why it waits though it is due.
pub(crate) fn delivery(delivery: &Delivery, hold: Option<&str>) -> Object {
    let mut object = Object::new();
    object.string("id", &delivery.id.to_string());
    object.string("job", &delivery.id.job.to_string());
    object.string("state", delivery.state.as_str());
    object.string("url", &target::shown(&delivery.webhook.url));
    object.number("bytes", delivery.bytes);
    object.number("createdAt", delivery.created_at.as_ms());
    if let Some(due_at) = delivery.due_at {
        object.number("nextTryAt", due_at.as_ms());
        if let Some(hold) = hold {
            object.string("hold", hold);
        }
    }
    let tries = json::array(delivery.tries.iter().map(|made| {
        let mut object = Object::new();
        object.number("at", made.at.as_ms());
        try_fields(&mut object, made);
        object.into_bytes()
    }));
    object.raw("tries", &tries);
    object
}

/// A page of a list, and where the next one begins.
pub(crate) fn page(name: &str, entries: impl Iterator<Item = Object>, next: Option<u64>) -> Object {
    let entries = json::array(entries.map(Object::into_bytes));
    let mut object = Object::with_payload(entries.len());
    object.raw(name, &entries);
    if let Some(next) = next {
        object.string("next", &next.to_string());
    }
    object
}

/// The worker SDK packs the traceback of a handler as a JSON object in a string.
fn detail(error: &str) -> Option<&RawValue> {
    if !error.starts_with('{') {
        return None;
    }
    serde_json::from_str(error).ok()
}

/// `{"id","status"}`: the answer to what changes a job.
pub(crate) fn brief(job: JobId, status: Status) -> Object {
    let mut object = Object::new();
    object.string("id", &job.to_string());
    object.string("status", status.as_str());
    object
}

/// A response that names its job in a header too, for callers that lose the body.
pub(crate) fn with_job_id(mut response: Response, job: JobId) -> Response {
    if let Ok(value) = job.to_string().parse() {
        response.headers_mut().insert("x-job-id", value);
    }
    response
}
