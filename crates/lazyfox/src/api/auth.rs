//! Who is calling, and may they?

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_store::{Access, Key};

use super::error::{ApiError, ApiResult, Code};
use super::site;
use crate::app::App;
use crate::config::{Auth, Endpoint};
use crate::keyring::{self, Need};

/// The credential of a call: `Authorization: Bearer KEY`, or the bare key, as workers and many
/// published examples send it.
fn credential(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let key = match value.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer ") => key.trim(),
        _ => value,
    };
    (!key.is_empty()).then_some(key)
}

/// Lets pass who has any valid key; without keys, who is no page of another site.
pub(super) async fn any_key(app: &App, headers: &HeaderMap) -> ApiResult<Option<Key>> {
    if app.config.auth == Auth::None {
        return match site::foreign(app, headers) {
            Some(why) => Err(ApiError::new(Code::Forbidden, why)),
            None => Ok(None),
        };
    }
    let refused = || ApiError::new(Code::Unauthorized, "invalid or missing API key");
    let text = credential(headers).ok_or_else(refused)?;
    let key = app.keys.find(&*app.store, text, app.now()).await?;
    key.map(Some).ok_or_else(refused)
}

/// Lets a client pass to an endpoint.
pub(super) async fn client(
    app: &App,
    headers: &HeaderMap,
    endpoint: &str,
    need: Need,
) -> ApiResult<(EndpointId, Arc<Endpoint>)> {
    let key = any_key(app, headers).await?;
    let missing = || {
        let message = format!("there is no endpoint {endpoint:?}");
        ApiError::new(Code::EndpointNotFound, message)
    };
    let id: EndpointId = endpoint.parse().map_err(|_| missing())?;
    let settings = app.endpoint(&id).ok_or_else(missing)?;
    if let Some(key) = key
        && !keyring::allows(&key, &id, need)
    {
        let verb = match need {
            Need::Read => "read",
            Need::Write => "change",
            Need::Admin => {
                let message = format!("the key {} is not an admin key", key.id);
                return Err(ApiError::new(Code::Forbidden, message));
            }
        };
        let message = format!("the key {} may not {verb} jobs of {id}", key.id);
        return Err(ApiError::new(Code::Forbidden, message));
    }
    Ok((id, settings))
}

/// Lets pass who may do everything.
pub(super) async fn admin(app: &App, headers: &HeaderMap) -> ApiResult<()> {
    match any_key(app, headers).await? {
        Some(key) if key.access != Access::Admin => {
            let message = format!("the key {} is not an admin key", key.id);
            Err(ApiError::new(Code::Forbidden, message))
        }
        Some(_) | None => Ok(()),
    }
}

/// A job's id; a text that cannot be one is a job that does not exist.
pub(super) fn job(text: &str) -> ApiResult<JobId> {
    text.parse().map_err(|_| ApiError::no_job())
}

/// A worker that speaks for itself.
pub(super) struct Speaker {
    pub(super) endpoint: EndpointId,
    pub(super) worker: WorkerId,
}

/// Lets a worker pass: its own token, for its endpoint and itself, or without keys, who is no page of
/// another site. That the endpoint is there is not asked for: what a worker has to say of its jobs counts
/// after the configuration has forgotten the endpoint, too. A worker's SDK asks again at once after any
/// refusal but 429, so that is what polls get (`otherwise`).
pub(super) fn worker(
    app: &App,
    headers: &HeaderMap,
    endpoint: &str,
    worker: &str,
    otherwise: Code,
) -> ApiResult<Speaker> {
    let refused_as = |code, why: String| {
        tracing::warn!(endpoint.id = endpoint, worker.id = worker, %why, "refused a worker");
        ApiError::new(code, why)
    };
    if app.config.auth == Auth::None
        && let Some(why) = site::foreign(app, headers)
    {
        let polls = otherwise == Code::WorkerRefused;
        let code = if polls { otherwise } else { Code::Forbidden };
        return Err(refused_as(code, why));
    }
    let refused = |why| refused_as(otherwise, why);
    let id: EndpointId = endpoint
        .parse()
        .map_err(|_| refused(format!("there is no endpoint {endpoint:?}")))?;
    let name: WorkerId = worker
        .parse()
        .map_err(|e| refused(format!("the worker id {worker:?} {e}")))?;
    if app.config.auth == Auth::Keys {
        let token = credential(headers).unwrap_or_default();
        if !app.key.is_worker_token(&id, &name, token) {
            return Err(refused(
                "the token is not this worker's; RUNPOD_AI_API_KEY must be passed on as it was \
                 given, and a ~/.runpod/config.toml in the worker's home overrides it"
                    .to_owned(),
            ));
        }
    }
    Ok(Speaker {
        endpoint: id,
        worker: name,
    })
}

/// Refuses a poll under a name that a worker of another endpoint has: what either says of its jobs would be
/// taken for the other's word.
pub(super) fn one_endpoint(app: &App, speaker: &Speaker) -> ApiResult<()> {
    let Some(other) = app.fleet.elsewhere(&speaker.endpoint, &speaker.worker) else {
        return Ok(());
    };
    let (worker, endpoint) = (&speaker.worker, &speaker.endpoint);
    let why = format!("a worker of {other} is called {worker}; one of {endpoint} needs another id");
    tracing::warn!(endpoint.id = %endpoint, worker.id = %worker, %why, "refused a worker");
    Err(ApiError::new(Code::WorkerRefused, why))
}
