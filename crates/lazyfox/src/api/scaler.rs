//! The scaler of an endpoint: what it decided lately and from what, and changes of its numbers.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use lazyfox_core::scale::Leave;
use lazyfox_core::time::Timestamp;
use serde_json::{Map, Value};

use super::error::{ApiError, ApiResult, Code};
use super::query::Params;
use super::{auth, body, charge};
use crate::app::App;
use crate::changes::{Changes, scaler_of};
use crate::config::Endpoint;
use crate::decisions::{Decision, Inputs};
use crate::json::{self, Object};
use crate::keyring::Need;

/// Largest body of a change: five numbers.
const BODY_BYTES: usize = 16 * 1024;

/// `GET /scaler?limit=`: the settings, and the last decisions, the newest first.
pub(super) async fn scaler(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let (endpoint, settings) = auth::client(&app, &headers, &endpoint, Need::Read).await?;
    let limit = Params::of(&uri).page()?;
    let now = app.now();
    let mut object = Object::new();
    object.raw("settings", &numbers(&settings).into_bytes());
    object.raw("changed", &text(&app.endpoints.changes(&endpoint)));
    if let Some(standing) = app.decisions.standing(&endpoint) {
        object.string("code", standing.reason.as_str());
        object.string("text", &standing.reason.to_string());
        object.number("throttled", standing.throttled);
        if standing.again_at != Timestamp::NEVER {
            object.number("againInMs", standing.again_at.ms_since(now));
        }
    }
    charge::add(&app, &endpoint, &mut object);
    let decisions = app.decisions.last(&endpoint, limit);
    object.raw("decisions", &json::array(decisions.iter().map(decision)));
    Ok(object.into_response())
}

/// `PATCH /scaler`: changes numbers; `null` takes a change back.
pub(super) async fn change(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Admin).await?;
    let body = body::whole(request, BODY_BYTES).await?;
    let document: Map<String, Value> = serde_json::from_slice(&body).map_err(|e| {
        let message = format!("the body is not a JSON object: {e}");
        ApiError::new(Code::InvalidJson, message)
    })?;
    let refused = |why: String| ApiError::new(Code::InvalidSettings, why);
    let alone = app.endpoints.alone().await;
    let changes = app
        .endpoints
        .changes(&endpoint)
        .then(&document)
        .map_err(refused)?;
    let mut changed = app
        .endpoints
        .configured(&endpoint)
        .ok_or_else(|| refused(format!("there is no endpoint {endpoint} any more")))?;
    changes.apply(&mut changed);
    changes.check(&changed).map_err(refused)?;
    let kept = (!changes.is_none()).then(|| String::from_utf8_lossy(&text(&changes)).into_owned());
    app.store.set_override(&endpoint, kept).await?;
    let asked = Value::Object(document);
    tracing::info!({ endpoint.id = %endpoint, %asked }, "the scaler's numbers were changed");
    app.endpoints.change(&endpoint, changes.clone());
    drop(alone);
    try_again(&app, &endpoint);
    let mut object = Object::new();
    object.raw("settings", &numbers(&changed).into_bytes());
    object.raw("changed", &text(&changes));
    charge::add(&app, &endpoint, &mut object);
    Ok(object.into_response())
}

/// `POST /scaler/reset`: forgets the starts that failed, so that the next one is tried at once.
pub(super) async fn reset(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Admin).await?;
    let (starts, _) = app.fleet.starts(&endpoint);
    try_again(&app, &endpoint);
    let mut object = Object::new();
    object.number("forgotten", starts.failed_in_a_row);
    charge::add(&app, &endpoint, &mut object);
    Ok(object.into_response())
}

fn try_again(app: &App, endpoint: &lazyfox_core::id::EndpointId) {
    app.fleet.forget_failures(endpoint);
    app.wakes.scale.notify_one();
}

fn text(changes: &Changes) -> Vec<u8> {
    serde_json::to_vec(changes).expect("numbers can be written to memory")
}

fn numbers(settings: &Endpoint) -> Object {
    let scale = &settings.scale;
    let (scaler_type, scaler_value) = scaler_of(scale);
    let mut object = Object::new();
    object.number("workersMin", scale.workers_min);
    object.number("workersMax", scale.workers_max);
    object.string("scalerType", scaler_type.as_str());
    object.number("scalerValue", scaler_value);
    object.number("idleTimeout", scale.idle_timeout_ms / 1000);
    object
}

fn decision(decision: &Decision) -> Bytes {
    let Decision { at, plan, inputs } = decision;
    let mut object = Object::new();
    object.number("at", at.as_ms());
    object.string("code", plan.reason.as_str());
    object.string("text", &plan.reason.to_string());
    object.number("want", plan.want);
    object.number("start", plan.start);
    object.raw("stop", &json::array(plan.stop.iter().map(leave)));
    object.number("throttled", plan.throttled);
    object.raw("inputs", &seen(inputs, *at).into_bytes());
    object.into_bytes()
}

fn leave(leave: &Leave) -> Bytes {
    let mut object = Object::new();
    object.string("worker", leave.worker.as_str());
    object.string("code", leave.why.as_str());
    object.string("text", &leave.why.to_string());
    object.into_bytes()
}

fn seen(inputs: &Inputs, at: Timestamp) -> Object {
    let demand = &inputs.demand;
    let mut object = Object::new();
    object.number("queued", demand.queued);
    object.number("queuedLow", demand.queued_low);
    object.number("running", demand.running);
    if let Some(oldest) = demand.oldest_queued_at {
        object.number("oldestWaitedMs", at.ms_since(oldest));
    }
    object.number("starting", inputs.starting);
    object.number("idle", inputs.idle);
    object.number("busy", inputs.busy);
    object.number("stopping", inputs.stopping);
    object.number("outdated", inputs.outdated);
    if inputs.elsewhere > 0 {
        object.number("elsewhere", inputs.elsewhere);
    }
    object.number("failedStarts", inputs.starts.failed_in_a_row);
    if let Some(room) = inputs.room {
        object.number("room", room);
    }
    object
}
