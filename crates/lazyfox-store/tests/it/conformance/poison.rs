//! Jobs that kill the workers that run them.

use lazyfox_core::job::{Counter, Death, Event, Job, Status};
use lazyfox_core::limits;
use lazyfox_core::policy::Terms;
use lazyfox_store::Store;

use crate::world::*;

fn patient() -> Terms {
    Terms {
        retries_max: limits::RETRIES_MAX,
        ..terms()
    }
}

/// The job after a worker took it and died.
async fn killed(store: &dyn Store, by: &str, how: &str, ms: u64) -> Job {
    assert_eq!(take(store, by, 1, ms).await, [id(1)]);
    let gone = store.apply_to_held(&worker(by), gone(how, true), at(ms));
    let changes = gone.await.unwrap();
    assert_eq!(load(store, id(1)).await.unwrap().job, changes[0].job);
    changes[0].job.clone()
}

pub(super) async fn a_job_that_kills_its_workers_fails_with_the_evidence(store: &dyn Store) {
    submit(store, job_with(id(1), "a", patient())).await;
    // What a worker says is kept as it is.
    let words = "exited with code 1; its last output: C:\\new\r\n\n  \\n é\n";
    let first = killed(store, "w1", words, 10).await;
    assert_eq!(first.status(), Status::InQueue);
    let death = Death {
        worker: worker("w1"),
        how: words.to_owned(),
    };
    assert_eq!(first.deaths, [death]);
    let second = killed(store, "w2", "was killed", 20).await;
    assert_eq!(second.status(), Status::Failed);
    assert_eq!(
        second.state.end().unwrap().error.as_deref().unwrap(),
        format!(
            "poison: 2 workers died in a row while they ran this job; 1: worker w1 {words}; 2: worker w2 \
             was killed"
        )
    );
    assert_eq!((second.retries, second.deaths.len()), (1, 2));
    let survey = store.survey().await.unwrap().remove(0);
    let counters = [(Counter::Failed, 1), (Counter::Retried, 1)];
    assert_eq!(survey.counters, counters);
}

pub(super) async fn a_quiet_loss_ends_the_row(store: &dyn Store) {
    submit(store, job_with(id(1), "a", patient())).await;
    killed(store, "w1", "was killed", 10).await;
    assert_eq!(take(store, "w2", 1, 20).await, [id(1)]);
    let quiet = change(store, id(1), lost("w2"), 30).await;
    assert_eq!((quiet.job.deaths.len(), quiet.job.retries), (0, 2));
    let again = killed(store, "w3", "was killed", 40).await;
    assert_eq!((again.status(), again.deaths.len()), (Status::InQueue, 1));
}

pub(super) async fn a_retry_begins_a_new_row_of_deaths(store: &dyn Store) {
    submit(store, job_with(id(1), "a", patient())).await;
    for by in ["w1", "w2"] {
        killed(store, by, "was killed", 10).await;
    }
    change(store, id(1), Event::Retry, 20).await;
    let again = killed(store, "w3", "was killed", 30).await;
    assert_eq!((again.status(), again.deaths.len()), (Status::InQueue, 1));
}
