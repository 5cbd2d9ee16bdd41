//! `/worker-env`: the environment with which a worker that somebody else starts serves an endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::id::WorkerId;
use serde::Deserialize;

use super::error::{ApiError, ApiResult, Code};
use super::{auth, body};
use crate::app::App;
use crate::json::Object;
use crate::keyring::Need;
use crate::{config, worker_env};

/// Largest request body, in bytes: a name and a URL.
const BODY_BYTES: usize = 16 * 1024;

/// What may be asked for; an empty body asks for nothing.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wish {
    worker: Option<String>,
    worker_url: Option<String>,
}

/// `POST`: makes the environment of one worker, its token included.
pub(super) async fn make(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> ApiResult<Response> {
    // Who has the token gets to see inputs and says how jobs end, so this is no client's business.
    let (endpoint, settings) = auth::client(&app, &headers, &endpoint, Need::Admin).await?;
    let wish = wish(&body::whole(request, BODY_BYTES).await?)?;
    let worker = match wish.worker {
        Some(name) => named(&app, &name)?,
        None => worker_env::new_worker(),
    };
    let url = match wish.worker_url {
        Some(url) => config::http_url("workerUrl", &url).map_err(invalid)?,
        None => app.worker_url.clone(),
    };
    let variables = worker_env::variables_at(&url, &app, &endpoint, &settings, &worker);
    // Each name once: what comes later wins, as it does when a provider starts a worker.
    let variables: BTreeMap<String, String> = variables.into_iter().collect();
    let env = serde_json::to_vec(&variables).expect("texts can be written to memory");
    tracing::info!(
        endpoint.id = %endpoint, worker.id = %worker, "made the environment of a worker"
    );
    let mut object = Object::new();
    object.string("worker", worker.as_str());
    object.raw("env", &env);
    Ok(object.into_response())
}

fn invalid(why: impl std::fmt::Display) -> ApiError {
    ApiError::new(Code::InvalidWorker, why.to_string())
}

fn wish(body: &[u8]) -> ApiResult<Wish> {
    if body.trim_ascii().is_empty() {
        return Ok(Wish::default());
    }
    // A list of two would pass for the two fields in their order.
    if body.trim_ascii_start().starts_with(b"[") {
        let message = "the body is a list, it should be a JSON object or empty";
        return Err(ApiError::new(Code::InvalidJson, message));
    }
    serde_json::from_slice(body).map_err(|e| {
        let message = format!("the body may have \"worker\" and \"workerUrl\", both texts: {e}");
        ApiError::new(Code::InvalidJson, message)
    })
}

fn named(app: &App, name: &str) -> ApiResult<WorkerId> {
    let worker: WorkerId = name
        .parse()
        .map_err(|e| invalid(format!("worker is {name:?}: it {e}")))?;
    // Two that speak under one name would end each other's jobs.
    if app.fleet.all_managed().contains(&worker) {
        return Err(invalid(format!(
            "worker is {name:?}, and a worker of that name was started by this server"
        )));
    }
    Ok(worker)
}
