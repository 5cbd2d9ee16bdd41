//! Ends of workers: what they held is lost, and a start that came to nothing is noted.

use std::sync::Arc;

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::job::Event;
use lazyfox_store::{HolderEvent, StoreError};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::app::App;
use crate::charge;
use crate::fleet::Left;
use crate::providers::{Ended, Exit};

/// Lines of a worker's output that go into a job's error.
const LINES: usize = 5;
/// Waiting jobs failed in one commit.
const AT_ONCE: usize = 200;

/// An end of a worker, and how far it is noted.
pub struct End {
    ended: Ended,
    /// It is noted but for this: no worker can be started, so the jobs that wait fail, and this is why.
    unservable: Option<String>,
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        Self {
            ended,
            unservable: None,
        }
    }
}

/// Takes note of each end, for as long as there is a provider.
pub async fn ends(app: Arc<App>, mut ended: UnboundedReceiver<Ended>) {
    while let Some(ended) = ended.recv().await {
        let mut end = End::from(ended);
        // The store may be full or away for a moment, and an end is told only once.
        while let Err(e) = end_once(&app, &mut end).await {
            tracing::error!(worker.id = %end.ended.worker, error = %e, "cannot note the end of a worker yet");
            app.clock.sleep_until(app.now().plus_ms(1_000)).await;
        }
        app.wakes.scale.notify_one();
    }
}

/// Takes note of one end.
///
/// # Errors
/// When the store cannot answer; calling it again does the rest.
pub async fn end_once(app: &App, end: &mut End) -> Result<(), StoreError> {
    if end.unservable.is_none() {
        end.unservable = note(app, &end.ended).await?;
    }
    match &end.unservable {
        Some(why) => fail_unservable(app, &end.ended.endpoint, why).await,
        None => Ok(()),
    }
}

/// What the worker held is lost, and it is there no more. Gives a reason where the waiting jobs are to fail.
async fn note(app: &App, end: &Ended) -> Result<Option<String>, StoreError> {
    let how = how(end);
    let (begun, died) = app.fleet.last_of(&end.worker);
    let event = HolderEvent::Lost {
        how: how.clone(),
        // Of one that ended while nobody looked it is not known what ended it: a power loss, too. And who
        // stops this server, or the machine, may end its workers as well.
        died: died && end.exit != Exit::Unknown && !app.is_closing(),
        begun,
    };
    let changes = app
        .store
        .apply_to_held(&end.worker, event, app.now())
        .await?;
    for change in &changes {
        tracing::warn!(
            job.id = %change.job.id, worker.id = %end.worker, status = %change.job.status(),
            why = %how, "a job lost its worker"
        );
    }
    // Before the changes are made known, which would ask it to go: nobody asked.
    let left = app.fleet.ended(end, app.now());
    app.note(&changes);
    charge::unlist(app, &end.endpoint, &end.worker).await;
    tracing::info!(
        worker.id = %end.worker, endpoint.id = %end.endpoint, exit = %end.exit, "worker ended"
    );
    app.logs
        .ended(&end.endpoint, &end.worker, &end.exit.to_string());
    // What this server ends because it is being stopped itself, or because another one starts the
    // workers now, is no failure.
    let starts = !app.is_closing() && app.charge.term(&end.endpoint).is_some();
    let Some(left) = left.filter(|it| it.never_asked && starts) else {
        return Ok(None);
    };
    let why = why_not_ready(app, end, &how, left.retired.clone());
    let is_unservable = start_failed(app, &end.endpoint, &left, &why);
    Ok(is_unservable.then_some(why))
}

/// Takes note of a start that the provider refused.
///
/// # Errors
/// When the store cannot answer.
pub async fn not_started(
    app: &App,
    endpoint: &EndpointId,
    worker: &WorkerId,
    why: String,
) -> Result<(), StoreError> {
    let end = Ended {
        worker: worker.clone(),
        endpoint: endpoint.clone(),
        exit: Exit::NotStarted(why.clone()),
        last_lines: Vec::new(),
    };
    let left = app.fleet.ended(&end, app.now());
    charge::unlist(app, endpoint, worker).await;
    match left {
        Some(left) if start_failed(app, endpoint, &left, &why) => {
            fail_unservable(app, endpoint, &why).await
        }
        Some(_) | None => Ok(()),
    }
}

fn why_not_ready(app: &App, end: &Ended, how: &str, retired: Option<String>) -> String {
    if let Exit::NotStarted(why) = &end.exit {
        return why.clone();
    }
    let hint = match (&end.exit, retired) {
        (_, Some(why)) => format!(
            " ({why}; it is told to ask at {}, see --worker-url)",
            app.worker_url
        ),
        (Exit::Code(0), None) => " (does the handler call runpod.serverless.start?)".to_owned(),
        (
            Exit::Code(_)
            | Exit::Signal(_)
            | Exit::OutOfMemory { .. }
            | Exit::NotStarted(_)
            | Exit::Unknown,
            None,
        ) => String::new(),
    };
    format!("the worker {how}, before it asked for a job{hint}")
}

/// Notes a start that came to nothing. True where the endpoint has it that the jobs that waited for it fail.
fn start_failed(app: &App, endpoint: &EndpointId, left: &Left, why: &str) -> bool {
    tracing::error!(endpoint.id = %endpoint, %why, "a worker did not start");
    let failures = app.fleet.start_failed(
        endpoint,
        left.release,
        left.started_at,
        why.to_owned(),
        app.now(),
    );
    let limit = app
        .endpoint(endpoint)
        .map_or(0, |settings| settings.fail_after_starts);
    limit > 0 && failures >= limit
}

/// Fails the jobs that waited for a start that came to nothing.
async fn fail_unservable(app: &App, endpoint: &EndpointId, why: &str) -> Result<(), StoreError> {
    // Where a worker serves, the jobs do not wait for this one.
    if app.fleet.serves(endpoint) {
        return Ok(());
    }
    fail_waiting(app, endpoint, why).await?;
    // The next job may try at once. Workers that are always kept are held off, or they would be started
    // and fail without a pause.
    if app
        .endpoint(endpoint)
        .is_some_and(|settings| settings.scale.workers_min == 0)
    {
        app.fleet.forget_failures(endpoint);
    }
    Ok(())
}

/// Fails all jobs that wait, because no worker can be started.
///
/// # Errors
/// When the store cannot answer.
pub async fn fail_waiting(app: &App, endpoint: &EndpointId, why: &str) -> Result<(), StoreError> {
    let reason = format!("no worker could be started: {why}");
    loop {
        let event = Event::Unservable {
            reason: reason.clone(),
        };
        let changes = app.store.sweep(endpoint, event, AT_ONCE, app.now()).await?;
        app.note(&changes);
        if changes.len() < AT_ONCE {
            break;
        }
    }
    Ok(())
}

/// What is known of the end, as a fragment of a sentence.
fn how(end: &Ended) -> String {
    let lines = &end.last_lines;
    let last = lines
        .get(lines.len().saturating_sub(LINES)..)
        .unwrap_or_default();
    if last.is_empty() {
        return end.exit.to_string();
    }
    format!("{}; its last output: {}", end.exit, last.join("\n"))
}
