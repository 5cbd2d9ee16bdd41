//! What other servers do to the jobs that this one's callers, polls and workers wait for or work on.

use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::job::Status;
use lazyfox_store::{Change, News, Parts, StoreError, Watched};

use crate::app::App;

/// Polls that are woken for jobs that came: more would find nothing.
const WOKEN_MAX: u64 = 256;
/// Pause after the store could not answer.
const AFTER_ERROR_MS: u64 = 500;

/// Listens for ever. With a store that this server has for itself there is never anything.
pub async fn listen(app: &App) {
    let watched = || watched(app);
    let now = || app.now();
    loop {
        let heard = match app.store.news(&watched, &now).await {
            Ok(news) => take_up(app, news).await,
            Err(error) => Err(error),
        };
        if let Err(error) = heard {
            tracing::warn!(%error, "what other servers do is not known at the moment");
            app.clock
                .sleep_until(app.now().plus_ms(AFTER_ERROR_MS))
                .await;
        }
    }
}

fn watched(app: &App) -> Watched {
    let mut queues = app.wakes.queues();
    let jobs = app.wakes.watched();
    let someone = !queues.is_empty() || !jobs.is_empty();
    queues.extend(app.endpoints.all().keys().cloned());
    queues.sort();
    queues.dedup();
    Watched {
        jobs,
        queues,
        someone,
    }
}

async fn take_up(app: &App, news: News) -> Result<(), StoreError> {
    // One look at the fleet for all: others may end thousands of jobs a second that nobody here works on.
    let with = app
        .fleet
        .with_any(&news.jobs.iter().map(|(_, job)| *job).collect());
    for (endpoint, job) in &news.jobs {
        app.wakes.job(*job);
        if let Some(worker) = with.get(job) {
            let_go(app, endpoint, *job, worker.clone()).await?;
        }
    }
    for (endpoint, count) in &news.queues {
        let queue = app.wakes.queue(endpoint);
        if *count > WOKEN_MAX {
            queue.notify_waiters();
        } else {
            for _ in 0..*count {
                queue.notify_one();
            }
        }
        app.wakes.scale.notify_one();
    }
    if news.missed {
        app.wakes.all();
    }
    if news.deadlines || !news.queues.is_empty() {
        app.wakes.deadlines.notify_one();
    }
    if news.deliveries {
        app.wakes.outbox.notify_one();
    }
    if news.settings || news.missed {
        app.take_up_changes().await?;
    }
    Ok(())
}

/// A worker of this server may work on a job that another server ended or queued again.
async fn let_go(
    app: &App,
    endpoint: &EndpointId,
    job: JobId,
    worker: WorkerId,
) -> Result<(), StoreError> {
    let loaded = app.store.load(endpoint, job, Parts::default()).await?;
    let Some(loaded) = loaded else {
        app.fleet.handed_back(&worker, job);
        return Ok(());
    };
    let is_held = loaded.job.status() == Status::InProgress
        && loaded
            .job
            .state
            .last_attempt()
            .is_some_and(|(holder, _)| *holder == worker);
    if is_held {
        return Ok(());
    }
    if !loaded.job.barred.contains(&worker) {
        // It was the worker's own report that ended it.
        app.fleet.handed_back(&worker, job);
    }
    app.note(&[Change {
        before: Status::InProgress,
        holder: Some(worker),
        job: loaded.job,
    }]);
    Ok(())
}
