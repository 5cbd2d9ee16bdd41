//! Short jobs that are given ahead: how many go out, and what holds for those that wait inside a worker.

use serde_json::Value;

use crate::server::{Setup, TestServer, id_of};
use crate::worker::Worker;

on_each_store!(
    short_jobs_go_out_many_at_once_and_in_order,
    a_poll_for_one_job_gets_all_free_slots,
    a_job_with_little_time_left_is_not_given_ahead,
    times_of_jobs_given_ahead_are_their_own,
    waiting_inside_costs_no_execution_time,
    a_job_cancelled_while_it_waits_inside_costs_no_worker,
    jobs_that_wait_inside_live_by_the_heartbeats_of_those_that_run,
    a_lost_worker_costs_only_the_running_job_a_retry,
    an_idle_poll_gives_back_what_waited_inside,
    a_job_that_two_heartbeats_leave_out_is_lost,
    what_a_heartbeat_names_beyond_the_slots_waits_inside,
    heartbeats_that_name_a_cancelled_job_inside_cost_no_worker,
    a_cancelled_job_is_stopped_behind_one_that_is_known_to_run,
    a_cancelled_job_is_stopped_behind_one_that_is_not_known_to_run,
);

tests!(off: super::Setup::memory().endpoint("prefetch = \"off\"");
    nothing_goes_ahead_where_it_is_off,
);
tests!(three: super::Setup::memory().endpoint("prefetch = 3");
    no_more_go_ahead_than_configured,
);

/// Lets the server see that jobs take a millisecond.
async fn short_jobs(s: &TestServer, worker: &Worker<'_>) {
    for _ in 0..60 {
        let id = s.run(r#"{"input":0}"#).await;
        let taken = worker.take_saying("job_in_progress=0").await.ok();
        assert_eq!(id_of(&taken), id);
        s.advance(1).await;
        worker.done(&id, r#"{"output":1}"#).await;
    }
}

async fn submit(s: &TestServer, jobs: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..jobs {
        ids.push(s.run(r#"{"input":1}"#).await);
    }
    ids
}

fn ids_of(jobs: &Value) -> Vec<String> {
    let jobs = jobs.as_array().expect("an array");
    jobs.iter().map(id_of).collect()
}

/// A worker to whose poll for one job three were given: the first runs.
async fn three_inside<'a>(s: &'a TestServer) -> (Worker<'a>, Vec<String>) {
    let worker = s.worker("w1");
    short_jobs(s, &worker).await;
    let ids = submit(s, 3).await;
    let given = worker.take_saying("job_in_progress=0").await.ok();
    assert_eq!(ids_of(&given), ids);
    (worker, ids)
}

async fn short_jobs_go_out_many_at_once_and_in_order(s: &TestServer) {
    let worker = s.worker("w1");
    short_jobs(s, &worker).await;
    let ids = submit(s, 200).await;
    let given = worker.take_saying("job_in_progress=0").await.ok();
    assert_eq!(ids_of(&given), ids);
    for version in ["2.0.0rc2", "1.7.0", "1.6.2"] {
        let ids = submit(s, 3).await;
        let name = format!("other-{}", version.replace('.', "-"));
        let other = s.worker(&name).version(Some(version));
        assert_eq!(id_of(&other.take().await), ids[0], "{version}");
        s.post("/v2/ep/purge-queue", "").await.ok();
    }
}

async fn nothing_goes_ahead_where_it_is_off(s: &TestServer) {
    let worker = s.worker("w1");
    short_jobs(s, &worker).await;
    let ids = submit(s, 3).await;
    assert_eq!(id_of(&worker.take().await), ids[0]);
}

async fn no_more_go_ahead_than_configured(s: &TestServer) {
    let worker = s.worker("w1");
    short_jobs(s, &worker).await;
    let ids = submit(s, 5).await;
    assert_eq!(ids_of(&worker.take().await), ids[..3]);
}

async fn a_poll_for_one_job_gets_all_free_slots(s: &TestServer) {
    let worker = s.worker("w1");
    let first = submit(s, 4).await;
    assert_eq!(worker.batch(4).await.len(), 4);
    // These are no short jobs.
    s.advance(10_000).await;
    let mut poll = worker.park().await;
    for id in &first[..3] {
        worker.done(id, r#"{"output":1}"#).await;
    }
    // Two come in one commit; the poll asked when one slot was free.
    let (a, b) = tokio::join!(s.run(r#"{"input":1}"#), s.run(r#"{"input":2}"#));
    let given = poll.reply().await.ok();
    let more = match given.as_array() {
        Some(jobs) => jobs.iter().map(id_of).collect(),
        None => vec![id_of(&given), id_of(&worker.take().await)],
    };
    let mut expected = [a, b];
    expected.sort();
    let mut more = more;
    more.sort();
    assert_eq!(more, expected);
}

async fn a_job_with_little_time_left_is_not_given_ahead(s: &TestServer) {
    let worker = s.worker("w1");
    short_jobs(s, &worker).await;
    let plain = submit(s, 2).await;
    let hasty = s.run(r#"{"input":1,"policy":{"ttl":20000}}"#).await;
    let behind = submit(s, 1).await;
    let given = worker.take_saying("job_in_progress=0").await.ok();
    assert_eq!(ids_of(&given), plain);
    s.expect(&hasty, "IN_QUEUE").await;
    s.expect(&behind[0], "IN_QUEUE").await;
    for id in &plain {
        worker.done(id, r#"{"output":1}"#).await;
    }
    // Asked for, it goes out like any other.
    let given = worker.take_saying("job_in_progress=0").await.ok();
    assert_eq!(ids_of(&given), [hasty, behind[0].clone()]);
}

async fn times_of_jobs_given_ahead_are_their_own(s: &TestServer) {
    let (worker, ids) = three_inside(s).await;
    for (n, id) in ids.iter().enumerate() {
        s.advance(300).await;
        worker.done(id, r#"{"output":1}"#).await;
        let job = s.expect(id, "COMPLETED").await;
        assert_eq!(job["executionTime"], 300, "{job}");
        assert_eq!(job["delayTime"], 300 * n, "{job}");
    }
}

async fn waiting_inside_costs_no_execution_time(s: &TestServer) {
    let worker = s.worker("w1");
    short_jobs(s, &worker).await;
    let slow = s.run(r#"{"input":1}"#).await;
    let limited = s
        .run(r#"{"input":1,"policy":{"executionTimeout":5000}}"#)
        .await;
    worker.take_saying("job_in_progress=0").await.ok();
    for _ in 0..4 {
        s.advance(9_000).await;
        worker.ping(&[&slow]).await;
    }
    s.expect(&limited, "IN_PROGRESS").await;
    worker.done(&slow, r#"{"output":1}"#).await;
    // It begins, and says so itself.
    worker.ping(&[&limited]).await;
    s.advance(4_999).await;
    s.expect(&limited, "IN_PROGRESS").await;
    s.advance(1).await;
    s.expect(&limited, "TIMED_OUT").await;
}

async fn a_job_cancelled_while_it_waits_inside_costs_no_worker(s: &TestServer) {
    let (worker, ids) = three_inside(s).await;
    s.post(format!("/v2/ep/cancel/{}", ids[1]), "").await.ok();
    let mut stops = worker.park_for_stops().await;
    worker.done(&ids[0], r#"{"output":1}"#).await;
    // Only now it is in the way, and the worker is told when it may have begun with it.
    s.advance(499).await;
    s.get("/healthz").await.ok();
    assert!(stops.is_silent(), "the SDK would not know the job yet");
    s.advance(1).await;
    let told = stops.reply().await.ok();
    assert_eq!(told["jobsToStop"], serde_json::json!([ids[1]]));
    worker.done(&ids[1], r#"{"output":"late"}"#).await;
    s.expect(&ids[1], "CANCELLED").await;
    worker.done(&ids[2], r#"{"output":1}"#).await;
    s.expect(&ids[2], "COMPLETED").await;
    let again = submit(s, 1).await;
    assert_eq!(id_of(&worker.take().await), again[0]);
}

async fn jobs_that_wait_inside_live_by_the_heartbeats_of_those_that_run(s: &TestServer) {
    let (worker, ids) = three_inside(s).await;
    for _ in 0..10 {
        s.advance(20_000).await;
        worker.ping(&[&ids[0]]).await;
    }
    for id in &ids {
        s.expect(id, "IN_PROGRESS").await;
    }
    // One that names nothing runs nothing.
    worker.ping(&[]).await;
    s.advance(40_000).await;
    for id in &ids {
        s.expect(id, "IN_QUEUE").await;
    }
}

async fn a_lost_worker_costs_only_the_running_job_a_retry(s: &TestServer) {
    let (_, ids) = three_inside(s).await;
    s.advance(40_000).await;
    let retries = async |id| s.expect(id, "IN_QUEUE").await.get("retries").cloned();
    assert_eq!(retries(&ids[0]).await, Some(1.into()));
    assert_eq!(retries(&ids[1]).await, None);
    assert_eq!(retries(&ids[2]).await, None);
}

async fn an_idle_poll_gives_back_what_waited_inside(s: &TestServer) {
    let (worker, ids) = three_inside(s).await;
    s.advance(6_000).await;
    let _poll = worker.park_saying("job_in_progress=0").await;
    for id in &ids {
        s.reaches(id, "IN_QUEUE").await;
    }
}

async fn a_job_that_two_heartbeats_leave_out_is_lost(s: &TestServer) {
    let worker = s.worker("w1");
    let ids = submit(s, 2).await;
    worker.batch(2).await;
    // The first may have been under way when the job came.
    worker.ping(&[]).await;
    s.advance(5_000).await;
    worker.ping(&[&ids[0]]).await;
    s.expect(&ids[1], "IN_PROGRESS").await;
    s.advance(5_000).await;
    worker.ping(&[&ids[0]]).await;
    let lost = s.expect(&ids[1], "IN_QUEUE").await;
    assert_eq!(lost["retries"], 1);
    s.expect(&ids[0], "IN_PROGRESS").await;
}

/// The SDK names as many jobs that wait in its own queue as it has slots, beside those that run.
async fn what_a_heartbeat_names_beyond_the_slots_waits_inside(s: &TestServer) {
    let worker = s.worker("w1");
    short_jobs(s, &worker).await;
    let slow = s.run(r#"{"input":1}"#).await;
    let next = r#"{"input":1,"policy":{"executionTimeout":5000}}"#;
    let next = s.run(next).await;
    let last = s.run(r#"{"input":1}"#).await;
    worker.take_saying("job_in_progress=0").await.ok();
    for _ in 0..4 {
        s.advance(9_000).await;
        worker.ping(&[&next, &slow]).await;
    }
    s.expect(&next, "IN_PROGRESS").await;
    worker.done(&slow, r#"{"output":1}"#).await;
    // Now it runs, and the one behind it is named with it.
    worker.ping(&[&next, &last]).await;
    s.advance(5_000).await;
    s.expect(&next, "TIMED_OUT").await;
    s.advance(36_000).await;
    let waited = s.expect(&last, "IN_QUEUE").await;
    assert_eq!(waited.get("retries"), None, "{waited}");
}

async fn heartbeats_that_name_a_cancelled_job_inside_cost_no_worker(s: &TestServer) {
    let (worker, ids) = three_inside(s).await;
    s.post(format!("/v2/ep/cancel/{}", ids[1]), "").await.ok();
    let mut stops = worker.park_for_stops().await;
    for _ in 0..4 {
        s.advance(5_000).await;
        worker.ping(&[&ids[0], &ids[1]]).await;
    }
    // The SDK would cancel nothing yet, and forget that it was told.
    assert!(stops.is_silent());
    worker.done(&ids[0], r#"{"output":1}"#).await;
    s.advance(500).await;
    let told = stops.reply().await.ok();
    assert_eq!(told["jobsToStop"], serde_json::json!([ids[1]]));
}

async fn a_cancelled_job_is_stopped_behind_one_that_is_known_to_run(s: &TestServer) {
    two_of_five_are_stopped(s, true).await;
}

async fn a_cancelled_job_is_stopped_behind_one_that_is_not_known_to_run(s: &TestServer) {
    two_of_five_are_stopped(s, false).await;
}

/// The SDK reports nothing of a job that it stopped, so its end is not known to be the start of the next.
async fn two_of_five_are_stopped(s: &TestServer, hears_of_the_third: bool) {
    let worker = s.worker("w1");
    short_jobs(s, &worker).await;
    let ids = submit(s, 5).await;
    let given = worker.take_saying("job_in_progress=0").await.ok();
    assert_eq!(ids_of(&given), ids);
    for id in [&ids[1], &ids[3]] {
        s.post(format!("/v2/ep/cancel/{id}"), "").await.ok();
    }
    worker.done(&ids[0], r#"{"output":1}"#).await;
    s.advance(500).await;
    let told = s.request(worker.stop_poll()).await.ok();
    assert_eq!(told["jobsToStop"], serde_json::json!([ids[1]]));
    if hears_of_the_third {
        worker.ping(&[&ids[3], &ids[2]]).await;
    }
    worker.done(&ids[2], r#"{"output":1}"#).await;
    worker.ping(&[&ids[3], &ids[4]]).await;
    s.advance(500).await;
    let told = s.request(worker.stop_poll()).await.ok();
    assert_eq!(told["jobsToStop"], serde_json::json!([ids[3]]));
    // None of this is held against it.
    for _ in 0..3 {
        s.advance(5_000).await;
        worker.ping(&[&ids[4]]).await;
    }
    worker.done(&ids[4], r#"{"output":1}"#).await;
    s.expect(&ids[4], "COMPLETED").await;
    let workers = s.get("/v2/ep/workers").await.ok();
    assert_eq!(
        workers["workers"][0]["jobs"],
        serde_json::json!([]),
        "{workers}"
    );
}
