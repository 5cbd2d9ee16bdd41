//! Ends of workers: what they held is lost, and a start that came to nothing is noted.

use std::sync::Arc;

use lazyfox_core::id::{EndpointId, WorkerId};
use lazyfox_core::job::Event;
use lazyfox_core::time::Timestamp;
use lazyfox_store::{HolderEvent, StoreError};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::app::App;
use crate::providers::{Ended, Exit, Release};

/// Lines of a worker's output that go into a job's error.
const LINES: usize = 5;
/// Waiting jobs failed in one commit.
const AT_ONCE: usize = 200;

/// Takes note of each end, for as long as there is a provider.
pub async fn ends(app: Arc<App>, mut ended: UnboundedReceiver<Ended>) {
    while let Some(end) = ended.recv().await {
        // The store may be full or away for a moment, and an end is told only once.
        while let Err(e) = end_once(&app, &end).await {
            tracing::error!(worker.id = %end.worker, error = %e, "cannot note the end of a worker yet");
            app.clock.sleep_until(app.now().plus_ms(1_000)).await;
        }
        app.wakes.scale.notify_one();
    }
}

/// Takes note of one end.
///
/// # Errors
/// When the store cannot answer; calling it again does the rest.
pub async fn end_once(app: &App, end: &Ended) -> Result<(), StoreError> {
    let how = how(end);
    let (begun, died) = app.fleet.last_of(&end.worker);
    let event = HolderEvent::Lost {
        how: how.clone(),
        // Of one that ended while nobody looked it is not known what ended it: a power loss, too.
        died: died && end.exit != Exit::Unknown,
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
    app.note(&changes);
    let left = app.fleet.ended(end, app.now());
    tracing::info!(
        worker.id = %end.worker, endpoint.id = %end.endpoint, exit = %end.exit, "worker ended"
    );
    app.logs
        .ended(&end.endpoint, &end.worker, &end.exit.to_string());
    match left {
        // What this server ends because it is being stopped itself is no failure.
        Some(left) if left.never_asked && !app.is_closing() => {
            let why = why_not_ready(end, &how, left.retired);
            start_failed(app, &end.endpoint, left.release, left.started_at, why).await
        }
        Some(_) | None => Ok(()),
    }
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
    match app.fleet.ended(&end, app.now()) {
        Some(left) => start_failed(app, endpoint, left.release, left.started_at, why).await,
        None => Ok(()),
    }
}

fn why_not_ready(end: &Ended, how: &str, retired: Option<String>) -> String {
    if let Exit::NotStarted(why) = &end.exit {
        return why.clone();
    }
    let hint = match (&end.exit, retired) {
        (_, Some(why)) => format!(" ({why})"),
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

/// Notes a start that came to nothing; where the endpoint says so, the jobs that waited for it fail.
///
/// # Errors
/// When the store cannot answer.
pub async fn start_failed(
    app: &App,
    endpoint: &EndpointId,
    release: Release,
    started_at: Timestamp,
    why: String,
) -> Result<(), StoreError> {
    tracing::error!(endpoint.id = %endpoint, %why, "a worker did not start");
    let failures = app
        .fleet
        .start_failed(endpoint, release, started_at, why.clone(), app.now());
    let limit = app
        .endpoint(endpoint)
        .map_or(0, |settings| settings.fail_after_starts);
    // Where a worker serves, the jobs do not wait for this one.
    if limit == 0 || failures < limit || app.fleet.serves(endpoint) {
        return Ok(());
    }
    fail_waiting(app, endpoint, &why).await?;
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
