//! `/health` of an endpoint; `/healthz` and `/readyz` of the server.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::job::Counter;
use lazyfox_store::{StoreError, Survey};

use super::error::{ApiError, ApiResult};
use super::{auth, charge};
use crate::app::App;
use crate::json::Object;
use crate::keyring::Need;

/// `GET /health`: jobs and workers in numbers.
pub(super) async fn health(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (endpoint, _) = auth::client(&app, &headers, &endpoint, Need::Read).await?;
    let (survey, holders) = app.survey(&endpoint).await?;
    let count = app.fleet.headcount(&endpoint, &holders);

    let mut workers = Object::new();
    workers.number("idle", count.idle);
    workers.number("initializing", count.initializing);
    // Idle and ready are the same here: up, and asking for jobs.
    workers.number("ready", count.idle);
    workers.number("running", count.running);
    let throttled = app
        .decisions
        .standing(&endpoint)
        .map_or(0, |it| it.throttled);
    workers.number("throttled", throttled);
    workers.number("unhealthy", count.unhealthy);

    let elsewhere = app.charge.elsewhere(&endpoint).len();
    if elsewhere > 0 {
        workers.number("elsewhere", elsewhere);
    }

    let mut object = Object::new();
    object.raw("jobs", &jobs(survey.as_ref()).into_bytes());
    object.raw("workers", &workers.into_bytes());
    if let (_, Some(why)) = app.fleet.starts(&endpoint) {
        object.string("lastStartFailure", &why);
    }
    charge::add(&app, &endpoint, &mut object);
    Ok(object.into_response())
}

fn jobs(survey: Option<&Survey>) -> Object {
    let count = |wanted| {
        let counters = survey.into_iter().flat_map(|survey| &survey.counters);
        counters
            .filter(|(counter, _)| *counter == wanted)
            .map(|(_, n)| *n)
            .sum::<u64>()
    };
    let demand = survey.map(|survey| survey.demand).unwrap_or_default();
    let mut jobs = Object::new();
    jobs.number("completed", count(Counter::Completed));
    // Clients know four numbers of ended jobs; a timed-out one is a failed one to them.
    jobs.number("failed", count(Counter::Failed) + count(Counter::TimedOut));
    jobs.number("inProgress", demand.running);
    jobs.number("inQueue", demand.queued + demand.queued_low);
    jobs.number("retried", count(Counter::Retried));
    jobs.number("cancelled", count(Counter::Cancelled));
    jobs.number("timedOut", count(Counter::TimedOut));
    jobs
}

/// `/healthz`: the process answers.
pub(super) async fn healthz() -> Response {
    let mut object = Object::new();
    object.string("status", "ok");
    object.into_response()
}

/// `/readyz`: the store answers, what this server says of itself is kept, and it is not being stopped.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> ApiResult<Response> {
    if app.is_closing() {
        return Err(ApiError::closing());
    }
    app.store.survey().await?;
    // A database can answer whoever reads while every commit hangs.
    if let Some(unheard) = app.charge.unheard_for() {
        let s = unheard.as_secs();
        let why = format!("the database has kept nothing of this server for {s} s");
        return Err(StoreError::Unavailable(why).into());
    }
    Ok(healthz().await)
}
