//! How a worker hears that a job of its is over.

use serde_json::json;

use crate::server::TestServer;

on_each_store!(
    point_03_an_empty_stop_poll_is_held_55_s_and_then_204,
    point_03_a_stop_poll_wakes_whatever_ended_the_job,
    point_03_a_job_is_told_when_the_worker_may_have_begun_with_it,
    point_03_what_ended_between_two_stop_polls_is_told_by_the_next,
    point_03_each_job_is_told_once_and_to_its_worker_only,
    point_03_a_worker_that_shall_stop_is_let_go_at_once,
    point_03_work_that_ended_unseen_is_told_at_the_second_heartbeat,
);

async fn point_03_an_empty_stop_poll_is_held_55_s_and_then_204(s: &TestServer) {
    let worker = s.worker("w1");
    worker.introduce().await;
    let mut stops = worker.park_for_stops().await;
    s.advance(54_999).await;
    s.get("/healthz").await.ok();
    assert!(stops.is_silent());
    s.advance(1).await;
    let reply = stops.reply().await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
}

async fn point_03_a_stop_poll_wakes_whatever_ended_the_job(s: &TestServer) {
    for (how, policy, ms) in [
        ("cancel", "{}", 0),
        ("execution timeout", r#"{"executionTimeout":5000}"#, 5_000),
        ("ttl", r#"{"ttl":10000}"#, 10_000),
        ("lease", "{}", 40_000),
    ] {
        let worker = s.worker(&format!("w-{}", &how[..2]));
        let id = s.run(format!(r#"{{"input":1,"policy":{policy}}}"#)).await;
        worker.take().await;
        let mut stops = worker.park_for_stops().await;
        if how == "cancel" {
            s.post(format!("/v2/ep/cancel/{id}"), "").await.ok();
            s.advance(500).await;
        } else {
            s.advance(ms - 1).await;
            s.get("/healthz").await.ok();
            assert!(stops.is_silent(), "{how}");
            s.advance(1).await;
        }
        let told = stops.reply().await;
        assert_eq!(told.ok(), json!({"jobsToStop": [id]}), "{how}");
        s.post(format!("/v2/ep/cancel/{id}"), "").await.ok();
    }
}

/// The SDK does not know a job before its own task for it runs, and forgets what it was told then.
async fn point_03_a_job_is_told_when_the_worker_may_have_begun_with_it(s: &TestServer) {
    let worker = s.worker("w1");
    let id = s.run(r#"{"input":1}"#).await;
    worker.take().await;
    let mut stops = worker.park_for_stops().await;
    s.post(format!("/v2/ep/cancel/{id}"), "").await.ok();
    s.advance(499).await;
    s.get("/healthz").await.ok();
    assert!(stops.is_silent());
    s.advance(1).await;
    assert_eq!(stops.reply().await.ok(), json!({"jobsToStop": [id]}));
}

async fn point_03_what_ended_between_two_stop_polls_is_told_by_the_next(s: &TestServer) {
    let worker = s.worker("w1");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(s.run(r#"{"input":1}"#).await);
    }
    worker.batch(3).await;
    for id in &ids[..2] {
        s.post(format!("/v2/ep/cancel/{id}"), "").await.ok();
    }
    s.advance(500).await;
    let told = s.request(worker.stop_poll()).await.ok();
    let mut stopped = ids[..2].to_vec();
    stopped.sort();
    assert_eq!(told, json!({"jobsToStop": stopped}));
    let stops = worker.park_for_stops().await;
    assert!(stops.is_silent(), "they are not told again");
    s.expect(&ids[2], "IN_PROGRESS").await;
}

async fn point_03_each_job_is_told_once_and_to_its_worker_only(s: &TestServer) {
    let (first, second) = (s.worker("w1"), s.worker("w2"));
    let id = s.run(r#"{"input":1}"#).await;
    first.take().await;
    second.introduce().await;
    let others = second.park_for_stops().await;
    s.post(format!("/v2/ep/cancel/{id}"), "").await.ok();
    s.advance(500).await;
    assert_eq!(
        s.request(first.stop_poll()).await.ok()["jobsToStop"],
        json!([id])
    );
    let again = first.park_for_stops().await;
    // A second cancel and the worker's own late report change nothing.
    s.post(format!("/v2/ep/cancel/{id}"), "").await.ok();
    first.done(&id, r#"{"output":1}"#).await;
    assert!(again.is_silent() && others.is_silent());

    // A job that ended with a result is nothing to stop, nor is one that never ran.
    let done = s.run(r#"{"input":1}"#).await;
    first.take().await;
    first.done(&done, "{}").await;
    s.post(format!("/v2/ep/cancel/{done}"), "").await.ok();
    assert!(again.is_silent() && others.is_silent());
}

async fn point_03_a_worker_that_shall_stop_is_let_go_at_once(s: &TestServer) {
    let worker = s.worker("w1");
    let id = s.run(r#"{"input":1}"#).await;
    worker.take().await;
    let mut stops = worker.park_for_stops().await;
    worker.done(&id, r#"{"output":1,"stopPod":true}"#).await;
    // Its exit waits for this poll, and the clock stands still.
    assert_eq!(stops.reply().await.status, 204);
    assert_eq!(s.request(worker.stop_poll()).await.status, 204);
}

async fn point_03_work_that_ended_unseen_is_told_at_the_second_heartbeat(s: &TestServer) {
    let worker = s.worker("w1");
    worker.introduce().await;
    let mut stops = worker.park_for_stops().await;
    // Nobody here knows this job: it may have been forgotten while its worker went on.
    let unknown = "00000000-0000-7000-8000-000000000000";
    worker.ping(&[unknown]).await;
    assert!(stops.is_silent(), "its result may just be on its way");
    worker.ping(&[unknown, "no-job-id"]).await;
    assert_eq!(stops.reply().await.ok(), json!({"jobsToStop": [unknown]}));
}
