//! A job's life as its client sees it: submitted, awaited, kept for a while, gone.

use serde_json::json;

use crate::http::Request;
use crate::server::{START_MS, TestServer, id_of};

on_each_store!(
    a_job_runs_from_submit_to_result,
    runsync_answers_when_the_job_ends,
    runsync_answers_with_the_present_state_when_its_wait_is_over,
    waits_end_although_the_clock_is_set_back,
    waits_are_clamped_and_have_defaults,
    status_sync_wakes_when_the_job_ends,
    every_end_wakes_its_waiters,
    results_are_kept_as_long_as_their_caller_needs,
    an_ended_job_can_be_forgotten_earlier_but_not_later,
    a_ttl_set_later_ends_what_is_unfinished,
);

const MINUTE: u64 = 60_000;

async fn a_job_runs_from_submit_to_result(s: &TestServer) {
    let accepted = s.post("/v2/ep/run", r#"{"input":{"n":1}}"#).await;
    let id = id_of(&accepted.ok());
    assert_eq!(accepted.ok(), json!({"id": id, "status": "IN_QUEUE"}));
    assert_eq!(accepted.header("x-job-id"), Some(id.as_str()));
    assert_eq!(
        s.status(&id).await,
        json!({"id": id, "status": "IN_QUEUE", "createdAt": START_MS})
    );

    s.advance(1_500).await;
    let worker = s.worker("w1");
    assert_eq!(worker.take().await, json!({"id": id, "input": {"n": 1}}));
    let running = json!({
        "id": id, "status": "IN_PROGRESS", "delayTime": 1_500, "workerId": "w1",
        "createdAt": START_MS, "startedAt": START_MS + 1_500,
    });
    assert_eq!(s.status(&id).await, running);

    s.advance(250).await;
    worker.done(&id, r#"{"output": {"ok": true}}"#).await;
    let completed = json!({
        "id": id, "status": "COMPLETED", "delayTime": 1_500, "executionTime": 250,
        "output": {"ok": true}, "workerId": "w1", "createdAt": START_MS,
        "startedAt": START_MS + 1_500, "completedAt": START_MS + 1_750,
    });
    assert_eq!(s.status(&id).await, completed);
}

async fn runsync_answers_when_the_job_ends(s: &TestServer) {
    let mut caller = s
        .open(&Request::post("/v2/ep/runsync", r#"{"input":1}"#))
        .await;
    let worker = s.worker("w1");
    let id = id_of(&worker.take().await);
    assert!(id.starts_with("sync-"), "{id}");
    s.watched(&id, 1).await;
    assert!(caller.is_silent());
    worker.done(&id, r#"{"output":"x"}"#).await;
    let reply = caller.reply().await;
    assert_eq!(reply.ok(), s.status(&id).await);
    assert_eq!(reply.ok()["output"], "x");
    assert_eq!(reply.header("x-job-id"), Some(id.as_str()));
}

async fn runsync_answers_with_the_present_state_when_its_wait_is_over(s: &TestServer) {
    let request = Request::post("/v2/ep/runsync?wait=5000", r#"{"input":1}"#);
    let mut caller = s.open(&request).await;
    let worker = s.worker("w1");
    let id = id_of(&worker.take().await);
    s.watched(&id, 1).await;
    worker
        .done(&id, r#"{"status":"IN_PROGRESS","output":"half"}"#)
        .await;
    s.advance(4_999).await;
    s.status(&id).await;
    assert!(caller.is_silent());
    s.advance(1).await;
    let state = caller.reply().await.ok();
    assert_eq!(state["status"], "IN_PROGRESS");
    assert_eq!(state["id"], id);
    assert_eq!(state["output"], "half");
}

async fn waits_end_although_the_clock_is_set_back(s: &TestServer) {
    let id = s.run(r#"{"input":1}"#).await;
    for call in ["status-sync", "stream"] {
        let request = Request::get(format!("/v2/ep/{call}/{id}?wait=1000"));
        let mut caller = s.open(&request).await;
        s.while_time_stands(&caller).await;
        assert_eq!(caller.reply().await.ok()["status"], "IN_QUEUE");
    }
}

async fn waits_are_clamped_and_have_defaults(s: &TestServer) {
    let id = s.run(r#"{"input":1}"#).await;
    for (call, query, wait_ms) in [
        ("status-sync", "", 90_000),
        ("status-sync", "?wait=1", 1_000),
        ("status-sync", "?wait=-3", 1_000),
        ("status-sync", "?wait=2500.9", 2_500),
        ("status-sync", "?wait=99999999", 300_000),
        ("stream", "", 8_000),
        ("stream", "?wait=1", 1_000),
        ("stream", "?wait=99999999", 300_000),
    ] {
        let mut caller = s
            .open(&Request::get(format!("/v2/ep/{call}/{id}{query}")))
            .await;
        s.watched(&id, 1).await;
        s.advance(wait_ms - 1).await;
        s.status(&id).await;
        assert!(caller.is_silent(), "{call}{query} is answered too early");
        s.advance(1).await;
        assert_eq!(
            caller.reply().await.ok()["status"],
            "IN_QUEUE",
            "{call}{query}"
        );
        s.watched(&id, 0).await;
    }
}

async fn status_sync_wakes_when_the_job_ends(s: &TestServer) {
    let id = s.run(r#"{"input":1}"#).await;
    let target = format!("/v2/ep/status-sync/{id}?wait=60000");
    let mut get = s.open(&Request::get(target.clone())).await;
    let mut post = s.open(&Request::post(target.clone(), "")).await;
    s.watched(&id, 2).await;
    let worker = s.worker("w1");
    worker.take().await;
    worker.done(&id, r#"{"output":[1,2]}"#).await;
    let ended = s.expect(&id, "COMPLETED").await;
    assert_eq!(get.reply().await.ok(), ended);
    assert_eq!(post.reply().await.ok(), ended);
    // There is nothing to wait for any more.
    assert_eq!(s.get(target).await.ok(), ended);
}

async fn every_end_wakes_its_waiters(s: &TestServer) {
    let worker = s.worker("w1");
    for (status, ends) in [
        ("FAILED", "error"),
        ("CANCELLED", "cancel"),
        ("CANCELLED", "purge"),
        ("TIMED_OUT", "timeout"),
    ] {
        let body = r#"{"input":1,"policy":{"executionTimeout":5000}}"#;
        let id = s.run(body).await;
        let mut waiter = s
            .open(&Request::get(format!("/v2/ep/status-sync/{id}")))
            .await;
        s.watched(&id, 1).await;
        match ends {
            "purge" => {
                s.post("/v2/ep/purge-queue", "").await.ok();
            }
            "cancel" => {
                s.post(format!("/v2/ep/cancel/{id}"), "").await.ok();
            }
            "error" => {
                worker.take().await;
                worker.done(&id, r#"{"error":"no"}"#).await;
            }
            _ => {
                worker.take().await;
                s.advance(5_000).await;
            }
        }
        assert_eq!(waiter.reply().await.ok()["status"], status, "{ends}");
    }
}

/// Checks that a job that ends now is answered for just so long.
async fn is_kept_for(s: &TestServer, id: &str, ms: u64) {
    s.advance(ms - 1).await;
    s.status(id).await;
    s.advance(1).await;
    s.expect_gone(id).await;
}

async fn results_are_kept_as_long_as_their_caller_needs(s: &TestServer) {
    let worker = s.worker("w1");
    let id = s.run(r#"{"input":1}"#).await;
    worker.take().await;
    worker.done(&id, "{}").await;
    is_kept_for(s, &id, 30 * MINUTE).await;

    // A runsync that was answered with the result has done its duty.
    let runsync = Request::post("/v2/ep/runsync?wait=10000", r#"{"input":1}"#);
    let mut caller = s.open(&runsync).await;
    let id = id_of(&worker.take().await);
    worker.done(&id, "{}").await;
    caller.reply().await.ok();
    is_kept_for(s, &id, MINUTE).await;

    // Answered without it, the client comes again for it.
    let mut caller = s.open(&runsync).await;
    let id = id_of(&worker.take().await);
    s.watched(&id, 1).await;
    s.advance(10_000).await;
    assert_eq!(caller.reply().await.ok()["status"], "IN_PROGRESS");
    worker.done(&id, "{}").await;
    is_kept_for(s, &id, 30 * MINUTE).await;

    // So it does when its connection broke, before or after the end.
    let caller = s.open(&runsync).await;
    let id = id_of(&worker.take().await);
    s.watched(&id, 1).await;
    drop(caller);
    s.watched(&id, 0).await;
    worker.done(&id, "{}").await;
    is_kept_for(s, &id, 30 * MINUTE).await;
}

async fn an_ended_job_can_be_forgotten_earlier_but_not_later(s: &TestServer) {
    let worker = s.worker("w1");
    for (ttl_ms, kept_ms) in [(6_000, 6_000), (40 * MINUTE, 30 * MINUTE)] {
        let id = s.run(r#"{"input":1}"#).await;
        worker.take().await;
        worker.done(&id, "{}").await;
        let target = format!("/v2/ep/status/{id}?ttl={ttl_ms}");
        assert_eq!(s.get(target).await.ok()["status"], "COMPLETED");
        is_kept_for(s, &id, kept_ms).await;
    }
}

async fn a_ttl_set_later_ends_what_is_unfinished(s: &TestServer) {
    let queued = s.run(r#"{"input":1}"#).await;
    s.advance(1_000).await;
    let target = format!("/v2/ep/status/{queued}?ttl=6000");
    assert_eq!(s.get(target).await.ok()["status"], "IN_QUEUE");
    s.advance(5_999).await;
    s.expect(&queued, "IN_QUEUE").await;
    s.advance(1).await;
    let ended = s.expect(&queued, "TIMED_OUT").await;
    assert_eq!(ended["error"], "ttl of 7000 ms ran out");

    let running = s.run(r#"{"input":1}"#).await;
    let worker = s.worker("w1");
    worker.take().await;
    s.get(format!("/v2/ep/status/{running}?ttl=6000"))
        .await
        .ok();
    s.advance(6_000).await;
    s.expect(&running, "TIMED_OUT").await;
    let told = s.request(worker.stop_poll()).await.ok();
    assert_eq!(told, json!({"jobsToStop": [running]}));
}
