//! `POST /run` and `POST /runsync`.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use lazyfox_core::id::{EndpointId, JobId};
use lazyfox_core::job::{Event, Job, Status};
use lazyfox_core::limits;
use lazyfox_core::policy::Terms;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{Idempotency, NewJob, StoreError, Submitted};
use tokio::sync::Notify;

use super::error::{ApiError, ApiResult, Code};
use super::input::Submission;
use super::query::Params;
use super::read::Wait;
use super::{auth, body, read};
use crate::app::{App, JOBS};
use crate::config::Endpoint;
use crate::keyring::Need;
use crate::views;
use crate::wake::JobWatch;
use crate::{clock, secrets};

/// `POST /run`: answered when the job is on disk.
pub(super) async fn run(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> ApiResult<Response> {
    let (endpoint, settings) = auth::client(&app, &headers, &endpoint, Need::Write).await?;
    let kept = submit(&app, &endpoint, &settings, &headers, request, Mode::Run).await?;
    let response = views::brief(kept.job, kept.status).into_response();
    Ok(views::with_job_id(response, kept.job))
}

/// `POST /runsync`: answered when the job has ended, or with its state when the wait is over.
pub(super) async fn runsync(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> ApiResult<Response> {
    let (endpoint, settings) = auth::client(&app, &headers, &endpoint, Need::Write).await?;
    let wait_ms = Params::of(request.uri()).wait_ms(limits::WAIT_MS)?;
    let kept = submit(&app, &endpoint, &settings, &headers, request, Mode::Runsync).await?;
    let awaited = Awaited {
        app: &app,
        endpoint: &endpoint,
        job: kept.job,
        answered: false,
    };
    let wait = Wait {
        endpoint: &endpoint,
        job: kept.job,
        ms: wait_ms,
        watch: kept.watch,
    };
    let response = read::when_ended(&app, wait, Some(awaited)).await?;
    Ok(views::with_job_id(response, kept.job))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Run,
    Runsync,
}

struct Kept<'a> {
    job: JobId,
    status: Status,
    /// Of a new job that is waited for, from before it was there.
    watch: Option<JobWatch<'a>>,
}

async fn submit<'a>(
    app: &'a App,
    endpoint: &EndpointId,
    settings: &Endpoint,
    headers: &HeaderMap,
    request: Request,
    mode: Mode,
) -> ApiResult<Kept<'a>> {
    if app.is_closing() {
        return Err(ApiError::closing());
    }
    let limit = match mode {
        Mode::Run => app.config.bounds.run_body,
        Mode::Runsync => app.config.bounds.runsync_body,
    };
    let body = body::whole(request, limit).await?;
    let submission = Submission::parse(&body, &app.config.webhook_rules)?;
    let terms = Terms::agree(submission.asked, &settings.defaults)
        .map_err(|e| ApiError::new(Code::InvalidPolicy, e.to_string()))?;
    let idempotency = idempotency(headers, &body)?;
    let now = app.now();
    let id = JobId::new(now, clock::random(), mode == Mode::Runsync);
    let job = Job::submitted(
        id,
        endpoint.clone(),
        terms,
        submission.webhook.is_some(),
        now,
    );
    let new = NewJob {
        job,
        input: submission.input,
        webhook: submission.webhook,
        secrets: submission.s3_config.map(|secret| app.key.seal(id, &secret)),
        idempotency,
    };
    let watch = (mode == Mode::Runsync).then(|| app.wakes.watch(endpoint, id));
    let queue = app.wakes.queue(endpoint);
    match keep(app, &queue, new, now).await? {
        Submitted::Accepted { taken } => {
            tracing::info!(target: JOBS, { job.id = %id, endpoint.id = %endpoint }, "job accepted");
            if !taken {
                queue.notify_one();
            }
            app.wakes.scale.notify_one();
            app.wakes.deadlines.notify_one();
            Ok(Kept {
                job: id,
                status: Status::InQueue,
                watch,
            })
        }
        Submitted::Known(job, status) => Ok(Kept {
            job,
            status,
            watch: None,
        }),
        Submitted::Conflict(job) => Err(ApiError::new(
            Code::IdempotencyConflict,
            format!("this Idempotency-Key was used for another request, the job {job}"),
        )),
    }
}

/// Keeps a job. Where operations gather, somebody is woken for it as soon as it is on its way.
async fn keep(
    app: &App,
    queue: &Notify,
    new: NewJob,
    now: Timestamp,
) -> Result<Submitted, StoreError> {
    let mut submitting = app.store.submit(new, now);
    if !app.store.gathers() {
        return submitting.await;
    }
    match poll_fn(|context| Poll::Ready(submitting.as_mut().poll(context))).await {
        Poll::Ready(submitted) => submitted,
        Poll::Pending => {
            queue.notify_one();
            submitting.await
        }
    }
}

/// The header `Idempotency-Key`: two requests with the same key and body are one job.
fn idempotency(headers: &HeaderMap, body: &[u8]) -> ApiResult<Option<Idempotency>> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().ok().filter(|key| !key.is_empty());
    match key.filter(|key| key.len() <= limits::IDEMPOTENCY_KEY_BYTES) {
        Some(key) => Ok(Some(Idempotency {
            key: key.to_owned(),
            fingerprint: secrets::digest(body),
        })),
        None => Err(ApiError::new(
            Code::InvalidIdempotencyKey,
            format!(
                "Idempotency-Key should be 1 to {} visible ASCII characters",
                limits::IDEMPOTENCY_KEY_BYTES
            ),
        )),
    }
}

/// A `/runsync` caller. When it goes away, or is answered without the result, the result is
/// kept as long as that of a `/run`: the caller has still to fetch it.
pub(super) struct Awaited<'a> {
    app: &'a Arc<App>,
    endpoint: &'a EndpointId,
    job: JobId,
    answered: bool,
}

impl Awaited<'_> {
    /// The caller gets the result.
    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let (app, endpoint, job) = (Arc::clone(self.app), self.endpoint.clone(), self.job);
        tokio::spawn(async move {
            if let Err(e) = app.apply(&endpoint, job, Event::WaitEnded, None).await {
                tracing::warn!(job.id = %job, error = %e, "the result may be kept too short");
            }
        });
    }
}
