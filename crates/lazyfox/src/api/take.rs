//! `job-take` and `job-take-batch`: a worker asks for work, and waits for it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::limits;
use lazyfox_core::sdk::Runtime;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Ask, Extra, Handout, StoreError};
use tokio::sync::watch;

use super::auth::{self, Speaker};
use super::error::{ApiError, ApiResult, Code};
use super::handout::{self, Handouts};
use super::query::Params;
use crate::app::App;
use crate::clock;
use crate::config::Endpoint;
use crate::fleet::{Asked, Offer};
use crate::json::{self, Object};

/// What was handed out this long ago has reached the worker if it ever will. Older SDK versions
/// poll several times at once, and one poll may overtake the answer to another.
const ON_ITS_WAY_MS: u64 = 5_000;

/// How long a worker that shall stop is held: its exit waits for its open polls, so not long, and it
/// asks again at once, so not short either.
const RETIRED_HOLD_MS: u64 = 1_000;

/// How often a poll that may get nothing now looks whether that has changed.
const LOOK_AGAIN_MS: u64 = 1_000;

/// `GET job-take/{worker}`: one job as an object, or 204 after 20 to 25 s.
pub(super) async fn take_one(
    State(app): State<Arc<App>>,
    Path((endpoint, worker)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let poll = arrive(&app, [&endpoint, &worker], &headers, &uri, Shape::Object)?;
    drop((headers, uri));
    wait_for_work(&app, poll).await
}

/// `GET job-take-batch/{worker}?batch_size=`: jobs as an array, or 204.
pub(super) async fn take_batch(
    State(app): State<Arc<App>>,
    Path((endpoint, worker)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> ApiResult<Response> {
    let poll = arrive(&app, [&endpoint, &worker], &headers, &uri, Shape::Array)?;
    drop((headers, uri));
    wait_for_work(&app, poll).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Object,
    Array,
}

/// A poll for work as far as it was read. What it was read from is dropped while it waits: it would
/// hold the connection's buffer, and hyper then takes a second one.
struct Poll {
    speaker: Speaker,
    settings: Arc<Endpoint>,
    asked: Asked,
    disowns_before: Option<Timestamp>,
    shape: Shape,
}

fn arrive(
    app: &App,
    [endpoint, worker]: [&str; 2],
    headers: &HeaderMap,
    uri: &Uri,
    shape: Shape,
) -> ApiResult<Poll> {
    let speaker = auth::worker(app, headers, endpoint, worker, Code::WorkerRefused)?;
    auth::one_endpoint(app, &speaker)?;
    // Nothing is handed out for an endpoint that is not there any more.
    let settings = app.endpoint(&speaker.endpoint).ok_or_else(|| {
        let why = format!("there is no endpoint {endpoint:?}");
        tracing::warn!(endpoint.id = endpoint, worker.id = worker, %why, "refused a worker");
        ApiError::new(Code::WorkerRefused, why)
    })?;
    let params = Params::of(uri);
    let now = app.now();
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok());
    let runtime = agent.and_then(Runtime::from_user_agent);
    let ready_ms = app
        .fleet
        .polled(&speaker.endpoint, &speaker.worker, runtime, now);
    if let Some(after_ms) = ready_ms {
        let runtime = runtime.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
        tracing::info!(
            worker.id = %speaker.worker, endpoint.id = %speaker.endpoint, sdk = %runtime, after_ms,
            "worker ready"
        );
        say_ready(app, &speaker, &runtime, now);
        app.wakes.scale.notify_one();
    }
    if let Some(server) = app.charge.stranger(&speaker.endpoint, &speaker.worker) {
        tracing::warn!(
            worker.id = %speaker.worker, endpoint.id = %speaker.endpoint,
            server = %server.name, machine = %server.machine,
            "a worker that another server started polls here: that server cannot know what it does, and \
             may end it; its server.worker_url has to lead to itself, not to a load balancer"
        );
    }
    let says_idle = params.get("job_in_progress").as_deref() == Some("0")
        && app.fleet.abilities(&speaker.worker).polls_tell_idle;
    let mut disowns_before = None;
    if says_idle && app.fleet.works_on_nothing(&speaker.worker, now) {
        let ms = i64::try_from(ON_ITS_WAY_MS).unwrap_or_default();
        disowns_before = Some(Timestamp::from_ms(now.as_ms() - ms));
    }
    let count = match shape {
        Shape::Object => 1,
        Shape::Array => params.number("batch_size").ok().flatten().unwrap_or(1),
    };
    let count = usize::try_from(count)
        .unwrap_or(1)
        .clamp(1, limits::BATCH_MAX);
    let asked = Asked {
        count,
        single: shape == Shape::Object,
    };
    Ok(Poll {
        speaker,
        settings,
        asked,
        disowns_before,
        shape,
    })
}

/// A worker's call for work while it is held.
struct Held<'a> {
    app: &'a Arc<App>,
    speaker: &'a Speaker,
    settings: &'a Endpoint,
    shape: Shape,
    until: Timestamp,
}

/// Notes in the worker's log that it is there, and how long that took.
fn say_ready(app: &App, speaker: &Speaker, version: &str, now: Timestamp) {
    let about = app.fleet.about(&speaker.worker);
    let took = about.and_then(|about| Some(now.ms_since(about.started_at?)));
    let after = took.map(|ms| format!(" after {}.{} s", ms / 1000, ms % 1000 / 100));
    let text = format!("ready{}, SDK {version}", after.unwrap_or_default());
    app.logs.system(&speaker.endpoint, &speaker.worker, &text);
}

async fn wait_for_work(app: &Arc<App>, poll: Poll) -> ApiResult<Response> {
    let Poll {
        speaker,
        settings,
        asked,
        mut disowns_before,
        shape,
    } = poll;
    let worker = &speaker.worker;
    let jitter_ms = clock::roll(limits::POLL_MS_MAX - limits::POLL_MS_MIN);
    let held = Held {
        app,
        speaker: &speaker,
        settings: &settings,
        shape,
        until: app.now().plus_ms(limits::POLL_MS_MIN + jitter_ms),
    };
    let queue = app.wakes.queue(&speaker.endpoint);
    let mut woken_up = false;
    let poll = app.fleet.open_poll(&speaker.endpoint, worker, asked.count);
    loop {
        let Some(mut calls) = app.fleet.calls(worker) else {
            queue.notify_one();
            return Ok(nothing());
        };
        if app.fleet.is_retired(worker) {
            // The wake-up that brought us here may have been for a job; another poll shall have it.
            queue.notify_one();
            drop(poll);
            let until = app.now().plus_ms(RETIRED_HOLD_MS);
            Box::pin(held.disown(disowns_before.take())).await?;
            app.clock.sleep_until(until).await;
            return Ok(nothing());
        }
        if app.is_closing() {
            let message = "the server is shutting down, ask again in 5 seconds";
            return Err(ApiError::new(Code::WorkerRefused, message));
        }
        let able = app.fleet.abilities(worker);
        let can_start = !able.starts_beside_running && app.could_start(&speaker.endpoint);
        let Some(offer) = app.fleet.offer(&poll, asked, settings.prefetch, can_start) else {
            // The wake-up that brought us here is for one that may take the job.
            if std::mem::take(&mut woken_up) {
                queue.notify_one();
            }
            if held.kept_back(&mut calls).await {
                continue;
            }
            return Ok(held.ended_empty());
        };
        // Registered before the store is asked, so that a job that comes in between is not missed.
        let mut woken = std::pin::pin!(queue.notified());
        woken.as_mut().enable();
        let ask = held.ask(offer, disowns_before.take());
        // Apart, so that a parked poll does not hold the room that asking takes.
        let handouts = Box::pin(held.lease(ask, woken_up)).await?;
        // It may have been retired meanwhile; dropped jobs go back.
        if !handouts.is_empty() && !app.fleet.is_retired(worker) && !app.is_closing() {
            app.wakes.scale.notify_one();
            return Ok(held.answer(handouts));
        }
        drop(handouts);
        tokio::select! {
            () = woken => woken_up = true,
            _ = calls.changed() => {}
            () = app.closed() => {}
            () = app.clock.sleep_until(held.until) => return Ok(held.ended_empty()),
        }
    }
}

fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

impl Held<'_> {
    /// A worker that gets nothing gives back what it had before it said that it works on nothing.
    async fn disown(&self, before: Option<Timestamp>) -> ApiResult<()> {
        if before.is_some() {
            let nothing = Offer { count: 0, extra: 0 };
            let ask = self.ask(nothing, before);
            handout::lease(self.app, ask).await.map_err(refused)?;
        }
        Ok(())
    }

    /// Waits while the worker may get nothing. Things may change without a word to this poll, so it looks
    /// again soon; false when the time of the call is over.
    async fn kept_back(&self, calls: &mut watch::Receiver<()>) -> bool {
        let look_again = self.app.now().plus_ms(LOOK_AGAIN_MS).min(self.until);
        tokio::select! {
            _ = calls.changed() => true,
            () = self.app.closed() => true,
            () = self.app.clock.sleep_until(look_again) => self.app.now() < self.until,
        }
    }

    async fn lease(&self, ask: Ask, woken_up: bool) -> ApiResult<Handouts> {
        let leased = handout::lease(self.app, ask).await;
        if leased.is_err() && woken_up {
            // The job that this poll was woken for waits for another one, which may fare better.
            self.app.wakes.queue(&self.speaker.endpoint).notify_one();
        }
        leased.map_err(refused)
    }

    fn ended_empty(&self) -> Response {
        self.app.fleet.poll_ended_empty(&self.speaker.worker);
        nothing()
    }

    fn ask(&self, offer: Offer, disowns_before: Option<Timestamp>) -> Ask {
        Ask {
            endpoint: self.speaker.endpoint.clone(),
            worker: self.speaker.worker.clone(),
            count: offer.count,
            extra: Extra {
                count: offer.extra,
                not_expiring_before: self.app.now().plus_ms(limits::PREFETCH_TTL_MS),
            },
            lease_ms: self.settings.lease_ms,
            disowns_before,
        }
    }

    fn answer(&self, handouts: Handouts) -> Response {
        let jobs: Vec<Bytes> = handouts.iter().map(|it| job(self.app, it)).collect();
        let text = match (self.shape, jobs.len()) {
            (Shape::Object, 1) => jobs.into_iter().next().unwrap_or_default(),
            (Shape::Object | Shape::Array, _) => json::array(jobs).into(),
        };
        json::respond(handouts.into_body(text))
    }
}

/// The store cannot answer now. Anything but 429 would be asked again at once, thousands of times a
/// second.
fn refused(e: StoreError) -> ApiError {
    tracing::error!(error = %e, "cannot hand out jobs");
    ApiError::new(Code::WorkerRefused, e.to_string())
}

/// The job as the handler sees it.
fn job(app: &App, handout: &Handout) -> Bytes {
    let Handout {
        job,
        input,
        secrets,
    } = handout;
    let mut object = Object::with_payload(input.len());
    object.string("id", &job.id.to_string());
    object.raw("input", input);
    if let Some(sealed) = secrets {
        match app.key.open(job.id, sealed) {
            Some(secret) => object.raw("s3Config", &secret),
            None => tracing::error!(
                job.id = %job.id,
                "the s3Config was sealed with another server.key and is left out"
            ),
        }
    }
    object.into_bytes()
}

#[cfg(test)]
mod tests;
