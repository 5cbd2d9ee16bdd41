//! Why does my job wait?

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::id::EndpointId;
use lazyfox_core::job::{Job, Status};
use lazyfox_core::scale::hold_off_ms;
use lazyfox_core::why::{self, Elsewhere, Facts, Failing};
use lazyfox_store::{Parts, Place};

use super::error::{ApiError, ApiResult};
use super::{auth, charge};
use crate::app::App;
use crate::charge::Who;
use crate::config::Endpoint;
use crate::json::Object;
use crate::keyring::Need;

/// `GET /why/{job}`: a code for programs, a sentence for people, its place in the queue and an estimate.
pub(super) async fn why(
    State(app): State<Arc<App>>,
    Path((endpoint, job)): Path<(String, String)>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (endpoint, settings) = auth::client(&app, &headers, &endpoint, Need::Read).await?;
    let id = auth::job(&job)?;
    let loaded = app.store.load(&endpoint, id, Parts::default()).await?;
    let job = loaded.ok_or_else(ApiError::no_job)?.job;
    let place = app.store.place(&endpoint, id).await?;
    let mut object = Object::new();
    object.string("id", &job.id.to_string());
    object.string("status", job.status().as_str());
    let Some(place) = place else {
        let (code, text) = settled(&job);
        object.string("code", code);
        object.string("text", &text);
        return Ok(object.into_response());
    };
    let facts = facts(&app, &endpoint, &settings, &job, &place).await?;
    let answer = why::why(&facts, app.now());
    object.string("code", answer.cause.as_str());
    object.string("text", &answer.text);
    object.number("ahead", place.ahead);
    if place.at_least {
        object.bool("aheadAtLeast", true);
    }
    object.number("waitedMs", app.now().ms_since(job.queued_at));
    if let Some(estimate_ms) = answer.estimate_ms {
        object.number("estimateMs", estimate_ms);
    }
    Ok(object.into_response())
}

/// A job that does not wait.
fn settled(job: &Job) -> (&'static str, String) {
    let worker = || {
        let attempt = job.state.last_attempt();
        attempt.map_or_else(|| "a worker".to_owned(), |(worker, _)| worker.to_string())
    };
    match job.status() {
        // It was taken between two looks.
        Status::InQueue => ("next", "a worker takes it in this moment".to_owned()),
        Status::InProgress => ("running", format!("it does not wait: {} has it", worker())),
        Status::Completed | Status::Failed | Status::Cancelled | Status::TimedOut => (
            "ended",
            format!("it does not wait: it has ended {}", job.status()),
        ),
    }
}

async fn facts(
    app: &App,
    endpoint: &EndpointId,
    settings: &Endpoint,
    job: &Job,
    place: &Place,
) -> ApiResult<Facts> {
    let (_, holders) = app.survey(endpoint).await?;
    let outlook = app.fleet.outlook(endpoint, &holders);
    let standing = app.decisions.standing(endpoint);
    let (starts, last) = app.fleet.starts(endpoint);
    let failing = last.map(|last| {
        let give_up_after = settings.scale.give_up_after;
        let given_up = give_up_after > 0 && starts.failed_in_a_row >= give_up_after;
        let hold_ms = hold_off_ms(starts.failed_in_a_row);
        Failing {
            in_a_row: starts.failed_in_a_row,
            last,
            next_at: starts
                .last_failed_at
                .filter(|_| !given_up)
                .map(|at| at.plus_ms(hold_ms)),
        }
    });
    let elsewhere = match app.charge.who(endpoint) {
        Who::Here => None,
        who @ (Who::There(_) | Who::Nobody) => Some(Elsewhere {
            who: charge::text(&who),
            workers: u32::try_from(app.charge.elsewhere(endpoint).len()).unwrap_or(u32::MAX),
        }),
    };
    Ok(Facts {
        elsewhere,
        ahead: place.ahead,
        low: place.low,
        managed: settings.run.is_some(),
        workers_max: settings.scale.workers_max,
        starting: outlook.starting,
        starting_since: outlook.starting_since,
        starting_step: outlook.step,
        idle: outlook.idle,
        busy: outlook.busy,
        barred: app.fleet.fit_of(&job.barred),
        no_room: standing.map_or(0, |it| it.throttled),
        gpus: settings.gpus,
        failing,
        next_step_at: standing
            .map(|it| it.again_at)
            .filter(|&at| at != lazyfox_core::time::Timestamp::NEVER),
        run_ms: outlook.run_ms,
        start_ms: outlook.start_ms,
        slots: outlook.slots,
    })
}
