//! What happens to a job after it was handed out, and who may say so.

use lazyfox_core::job::{Event, Refused, State, Status};
use lazyfox_core::limits;
use lazyfox_store::{Applied, HolderEvent, Parts, Store};

use crate::world::*;

/// Job 1, held by `w1` since 10.
async fn running(store: &dyn Store) {
    submit(store, job(1)).await;
    assert_eq!(take(store, "w1", 1, 10).await, [id(1)]);
}

pub(super) async fn a_result_is_kept_with_its_output(store: &dyn Store) {
    running(store).await;
    let change = store
        .apply(
            &endpoint("a"),
            id(1),
            complete("w1"),
            Some(bytes("[1.0]")),
            at(20),
        )
        .await
        .unwrap()
        .changed()
        .unwrap();
    assert_eq!(change.before, Status::InProgress);
    assert_eq!(change.holder, Some(worker("w1")));
    let State::Completed(end) = &change.job.state else {
        panic!("{:?}", change.job)
    };
    assert_eq!((end.at, &end.error), (at(20), &None));
    assert_eq!(end.attempt, Some((worker("w1"), at(10))));

    let kept = load(store, id(1)).await.unwrap();
    assert_eq!(kept.job, change.job);
    assert_eq!(kept.output, Some(bytes("[1.0]")));
    assert_eq!(kept.input, Some(input_of(id(1))));
}

pub(super) async fn a_result_without_output_clears_the_progress(store: &dyn Store) {
    running(store).await;
    report(store, id(1), progress("w1"), "\"half\"").await;
    change(store, id(1), fail("w1"), 2_000).await;
    let kept = load(store, id(1)).await.unwrap();
    assert_eq!(kept.output, None);
    assert_eq!(
        kept.job.state.end().unwrap().error.as_deref(),
        Some("out of memory")
    );
}

pub(super) async fn progress_replaces_progress(store: &dyn Store) {
    running(store).await;
    report(store, id(1), progress("w1"), "\"half\"").await;
    assert_eq!(output(store, id(1)).await, Some(bytes("\"half\"")));
    report(store, id(1), progress("w1"), "\"most\"").await;
    assert_eq!(output(store, id(1)).await, Some(bytes("\"most\"")));
    assert_eq!(status(store, id(1)).await, Some(Status::InProgress));
    report(store, id(1), complete("w1"), "\"all\"").await;
    assert_eq!(output(store, id(1)).await, Some(bytes("\"all\"")));
}

pub(super) async fn late_duplicate_and_foreign_reports_change_nothing(store: &dyn Store) {
    running(store).await;
    let report_again = async |by: &str, event: Event, refused| {
        let before = load(store, id(1)).await.unwrap();
        let answer = store
            .apply(&endpoint("a"), id(1), event, Some(bytes("\"no\"")), at(99))
            .await;
        match answer {
            Ok(Applied::Refused(why, job)) => {
                assert_eq!(why, refused, "{by}");
                assert_eq!(without_lease(job), without_lease(before.job.clone()));
            }
            other => panic!("{by}: {other:?}"),
        }
        assert_eq!(load(store, id(1)).await, Some(before), "{by}");
    };
    report(store, id(1), progress("w1"), "\"half\"").await;
    report_again("foreign", complete("w2"), Refused::NotHolder).await;
    report_again("foreign", progress("w2"), Refused::NotHolder).await;

    change(store, id(1), lost("w1"), 20).await;
    report_again("lost, waiting", complete("w1"), Refused::NotHolder).await;
    assert_eq!(take(store, "w2", 1, 30).await, [id(1)]);
    report_again("lost, taken", complete("w1"), Refused::NotHolder).await;
    report_again("lost, taken", fail("w1"), Refused::NotHolder).await;

    report(store, id(1), complete("w2"), "\"yes\"").await;
    let ended = Refused::Ended(Status::Completed);
    for event in [complete("w2"), fail("w2"), progress("w2"), complete("w1")] {
        report_again("duplicate", event, ended).await;
    }
    report_again("cancel", Event::Cancel, ended).await;
    assert_eq!(output(store, id(1)).await, Some(bytes("\"yes\"")));
}

pub(super) async fn waiting_and_running_jobs_can_be_cancelled(store: &dyn Store) {
    running(store).await;
    submit(store, job(2)).await;
    let queued = change(store, id(2), Event::Cancel, 20).await;
    assert_eq!((queued.before, queued.holder), (Status::InQueue, None));
    let held = change(store, id(1), Event::Cancel, 20).await;
    assert_eq!(
        (held.before, held.holder),
        (Status::InProgress, Some(worker("w1")))
    );
    for n in [1, 2] {
        assert_eq!(status(store, id(n)).await, Some(Status::Cancelled));
    }
    assert!(take(store, "w2", 9, 30).await.is_empty());
    assert!(matches!(
        apply(store, id(1), complete("w1"), 40).await,
        Applied::Refused(Refused::Ended(Status::Cancelled), _)
    ));
}

pub(super) async fn a_retry_starts_from_nothing(store: &dyn Store) {
    running(store).await;
    submit(store, job(2)).await;
    let kept = store
        .append_chunks(&endpoint("a"), id(1), &worker("w1"), vec![bytes("1")])
        .await;
    assert_eq!(kept, Ok(lazyfox_store::ChunksKept::Kept));
    report(store, id(1), fail("w1"), "\"trace\"").await;
    assert_eq!(output(store, id(1)).await, Some(bytes("\"trace\"")));

    let retried = change(store, id(1), Event::Retry, 2_000).await;
    assert_eq!(retried.before, Status::Failed);
    let kept = load(store, id(1)).await.unwrap();
    assert_eq!(kept.job, retried.job);
    assert_eq!(kept.job.state, State::Queued);
    assert_eq!(
        (kept.job.queued_at, kept.job.created_at),
        (at(2_000), at(0))
    );
    assert_eq!(kept.job.expires_at, at(2_000 + limits::TTL_MS));
    assert_eq!(kept.output, None);
    assert_eq!(kept.input, Some(input_of(id(1))));
    let drained = store.drain(&endpoint("a"), id(1), 999).await.unwrap();
    assert!(drained.unwrap().chunks.is_empty());
    // The worker reported its failure, so it may try again; and the job keeps its old place.
    assert_eq!(take(store, "w1", 9, 2_010).await, [id(1), id(2)]);
}

pub(super) async fn only_failed_and_timed_out_jobs_can_be_retried(store: &dyn Store) {
    for n in 1..=4 {
        submit(store, job(n)).await;
    }
    take(store, "w1", 3, 10).await;
    report(store, id(1), complete("w1"), "1").await;
    change(store, id(2), Event::Cancel, 20).await;
    for (n, status) in [
        (1, Status::Completed),
        (2, Status::Cancelled),
        (3, Status::InProgress),
        (4, Status::InQueue),
    ] {
        match apply(store, id(n), Event::Retry, 30).await {
            Applied::Refused(why, _) => assert_eq!(why, Refused::NotRetryable(status)),
            other => panic!("{status}: {other:?}"),
        }
    }
    let expired = store.expire(at(limits::EXECUTION_TIMEOUT_MS), 9).await;
    assert!(!expired.unwrap().changes.is_empty());
    assert_eq!(status(store, id(4)).await, Some(Status::TimedOut));
    change(store, id(4), Event::Retry, limits::EXECUTION_TIMEOUT_MS).await;
}

pub(super) async fn a_job_is_unknown_on_another_endpoint(store: &dyn Store) {
    running(store).await;
    submit(store, job(2)).await;
    for (job, there) in [(id(1), "b"), (id(2), "b"), (id(3), "a"), (sync_id(1), "a")] {
        let there = endpoint(there);
        for event in [Event::Cancel, complete("w1"), Event::WaitEnded] {
            let answer = store.apply(&there, job, event, None, at(20)).await;
            assert_eq!(answer, Ok(Applied::Unknown));
        }
        let loaded = store.load(&there, job, Parts::default()).await;
        assert_eq!(loaded, Ok(None));
        assert_eq!(store.drain(&there, job, 9).await, Ok(None));
        let chunks = store
            .append_chunks(&there, job, &worker("w1"), vec![bytes("1")])
            .await;
        assert_eq!(chunks, Ok(lazyfox_store::ChunksKept::NotHolder));
    }
    assert_eq!(status(store, id(1)).await, Some(Status::InProgress));
    assert_eq!(status(store, id(2)).await, Some(Status::InQueue));
}

pub(super) async fn a_lost_worker_gives_back_all_its_jobs(store: &dyn Store) {
    let mut once = terms();
    once.retries_max = 0;
    submit(store, job(1)).await;
    submit(store, job_with(id(2), "a", once)).await;
    submit(store, job(3)).await;
    assert_eq!(take(store, "w1", 2, 10).await, [id(1), id(2)]);
    assert_eq!(take(store, "w2", 1, 10).await, [id(3)]);

    let gone = gone("exited with code 137", false);
    let changes = store
        .apply_to_held(&worker("w1"), gone.clone(), at(20))
        .await
        .unwrap();
    let [requeued, failed] = &changes[..] else {
        panic!("w1 held two jobs: {changes:?}")
    };
    assert_eq!(requeued.job.status(), Status::InQueue);
    assert_eq!(requeued.job.barred, [worker("w1")]);
    assert_eq!(requeued.holder, Some(worker("w1")));
    assert_eq!(
        failed.job.state.end().unwrap().error.as_deref(),
        Some("worker w1 exited with code 137; automatic retries are off")
    );
    assert_eq!(status(store, id(3)).await, Some(Status::InProgress));

    let again = store.apply_to_held(&worker("w1"), gone, at(30)).await;
    assert_eq!(again, Ok(Vec::new()));
    // What was written is what was said.
    for change in changes {
        let kept = load(store, change.job.id).await.unwrap().job;
        assert_eq!(kept, change.job);
    }
}

pub(super) async fn an_evicted_job_is_not_blamed(store: &dyn Store) {
    running(store).await;
    report(store, id(1), progress("w1"), "\"half\"").await;
    let evict = store
        .apply_to_held(&worker("w1"), HolderEvent::Evict, at(20))
        .await
        .unwrap();
    assert_eq!(evict.len(), 1);
    assert_eq!(evict[0].job.retries, 0);
    assert_eq!(evict[0].job.status(), Status::InQueue);
    assert_eq!(output(store, id(1)).await, None);
    assert!(take(store, "w1", 1, 30).await.is_empty());
    assert_eq!(take(store, "w2", 1, 30).await, [id(1)]);
}

pub(super) async fn a_dead_worker_changes_nothing_of_others(store: &dyn Store) {
    running(store).await;
    for event in [HolderEvent::Evict, gone("left", true)] {
        let changes = store.apply_to_held(&worker("w2"), event, at(20)).await;
        assert_eq!(changes, Ok(Vec::new()));
    }
    assert_eq!(status(store, id(1)).await, Some(Status::InProgress));
}
