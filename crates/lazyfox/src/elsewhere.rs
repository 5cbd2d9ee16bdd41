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
    let mut owed = News::default();
    loop {
        let heard = match app.store.news(&watched, &now).await {
            Ok(news) => {
                owed.and(news);
                take_up(app, &mut owed).await
            }
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

/// What it cannot see to now stays owed.
async fn take_up(app: &App, owed: &mut News) -> Result<(), StoreError> {
    // One look at the fleet for all: others may end thousands of jobs a second that nobody here works on.
    let with = app
        .fleet
        .with_any(&owed.jobs.iter().map(|(_, job)| *job).collect());
    wake(app, owed);
    owed.jobs.retain(|(_, job)| with.contains_key(job));
    if owed.settings {
        app.take_up_changes().await?;
        owed.settings = false;
    }
    while let Some((endpoint, job)) = owed.jobs.last().cloned() {
        if let Some(worker) = with.get(&job) {
            let_go(app, &endpoint, job, worker.clone()).await?;
        }
        owed.jobs.pop();
    }
    Ok(())
}

/// Wakes those who wait, which needs no store.
fn wake(app: &App, owed: &mut News) {
    for (_, job) in &owed.jobs {
        app.wakes.job(*job);
    }
    let queues = std::mem::take(&mut owed.queues);
    for (endpoint, count) in &queues {
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
    if std::mem::take(&mut owed.missed) {
        app.wakes.all();
        owed.settings = true;
    }
    if std::mem::take(&mut owed.deadlines) || !queues.is_empty() {
        app.wakes.deadlines.notify_one();
    }
    if std::mem::take(&mut owed.deliveries) {
        app.wakes.outbox.notify_one();
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lazyfox_core::time::Timestamp;

    use super::*;
    use crate::clock::Clock;
    use crate::config::Config;
    use crate::failing::FailingStore;
    use crate::secrets::ServerKey;

    #[tokio::test]
    async fn what_the_store_could_not_answer_stays_owed() {
        let now = Timestamp::from_ms(1_000_000);
        let store = Arc::new(FailingStore::new(now));
        let (key, clock) = (ServerKey::ephemeral(), Clock::manual(now));
        let app = App::new(Config::empty(), store.clone(), key, clock, "");
        let on: EndpointId = "a".parse().unwrap();
        let queue = app.wakes.queue(&on);
        let mut owed = News {
            queues: vec![(on, 1)],
            missed: true,
            ..News::default()
        };
        store.fail_next("overrides");
        take_up(&app, &mut owed).await.unwrap_err();
        // Nobody who waits has to wait for the store.
        queue.notified().await;
        let settings = News {
            settings: true,
            ..News::default()
        };
        assert_eq!(owed, settings);
        take_up(&app, &mut owed).await.unwrap();
        assert_eq!(owed, News::default());
        assert_eq!(store.called("overrides"), 2);
    }
}
