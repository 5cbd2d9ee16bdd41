//! The queue: idempotency, order, retry, purge, cancel, numbers.

use serde_json::json;

use crate::http::{Reply, Request};
use crate::server::{TestServer, id_of};

on_each_store!(
    two_requests_with_one_idempotency_key_are_one_job,
    an_idempotency_key_of_another_request_is_a_conflict,
    jobs_start_in_order_and_low_priority_ones_last,
    failed_and_timed_out_jobs_can_be_retried,
    other_jobs_cannot_be_retried,
    a_purge_removes_what_waits_and_leaves_what_runs,
    cancel_in_each_state,
    health_counts,
);

async fn submit_with_key(s: &TestServer, call: &str, key: &str, body: &str) -> Reply {
    let request = Request::post(format!("/v2/{call}"), body);
    s.request(request.header("Idempotency-Key", key)).await
}

async fn two_requests_with_one_idempotency_key_are_one_job(s: &TestServer) {
    let body = r#"{"input":1}"#;
    let first = submit_with_key(s, "ep/run", "k1", body).await;
    let id = id_of(&first.ok());
    assert_eq!(
        submit_with_key(s, "ep/run", "k1", body).await.ok(),
        first.ok()
    );
    assert_eq!(s.get("/v2/ep/health").await.ok()["jobs"]["inQueue"], 1);

    let worker = s.worker("w1");
    worker.take().await;
    worker.done(&id, "{}").await;
    // The second request hears how the first one ended.
    let again = submit_with_key(s, "ep/run", "k1", body).await.ok();
    assert_eq!(again, json!({"id": id, "status": "COMPLETED"}));
    let again = submit_with_key(s, "ep/runsync", "k1", body).await.ok();
    assert_eq!(again, s.status(&id).await);

    // Another key, another endpoint, or after the job is forgotten: another job.
    let mut others = Vec::new();
    for (call, key) in [("ep/run", "k2"), ("other/run", "k1")] {
        others.push(id_of(&submit_with_key(s, call, key, body).await.ok()));
    }
    s.advance(30 * 60_000).await;
    others.push(id_of(&submit_with_key(s, "ep/run", "k1", body).await.ok()));
    others.push(id);
    others.sort();
    others.dedup();
    assert_eq!(others.len(), 4, "{others:?}");
}

async fn an_idempotency_key_of_another_request_is_a_conflict(s: &TestServer) {
    let id = id_of(
        &submit_with_key(s, "ep/run", "k", r#"{"input":1}"#)
            .await
            .ok(),
    );
    let reply = submit_with_key(s, "ep/run", "k", r#"{"input":2}"#).await;
    let message = reply.error(409, "idempotency_conflict");
    assert!(message.contains(&id), "{message}");

    submit_with_key(s, "ep/run", &"k".repeat(255), r#"{"input":1}"#)
        .await
        .ok();
    for key in ["", "é", &"k".repeat(256)] {
        let reply = submit_with_key(s, "ep/run", key, r#"{"input":1}"#).await;
        let message = reply.error(400, "invalid_idempotency_key");
        assert!(message.contains("1 to 255"), "{message}");
    }
    assert_eq!(s.get("/v2/ep/health").await.ok()["jobs"]["inQueue"], 2);
}

async fn jobs_start_in_order_and_low_priority_ones_last(s: &TestServer) {
    let low = |n: u32| format!(r#"{{"input":{n},"policy":{{"lowPriority":true}}}}"#);
    let normal = |n: u32| format!(r#"{{"input":{n},"policy":{{"lowPriority":false}}}}"#);
    for body in [low(5), normal(1), low(6), normal(2), normal(3)] {
        s.run(body).await;
    }
    let (first, second) = (s.worker("w1"), s.worker("w2"));
    assert_eq!(first.take().await["input"], 1);
    assert_eq!(first.take().await["input"], 2);
    s.run(normal(4)).await;
    // Both are lost; they come back before all that still wait, in their old order.
    s.advance(40_000).await;
    let jobs = second.batch(9).await;
    let inputs: Vec<_> = jobs.iter().map(|job| job["input"].clone()).collect();
    assert_eq!(inputs, [1, 2, 3, 4, 5, 6]);
}

async fn failed_and_timed_out_jobs_can_be_retried(s: &TestServer) {
    let body = r#"{"input":{"a": 1},"policy":{"executionTimeout":5000,"ttl":100000}}"#;
    let id = s.run(body).await;
    let first = s.worker("w1");
    first.take().await;
    first.chunk(&id, r#"{"output":"old"}"#).await;
    first.done(&id, r#"{"error":"no","output":1}"#).await;
    s.expect(&id, "FAILED").await;
    s.advance(7_000).await;
    let retried = s.post(format!("/v2/ep/retry/{id}"), "").await.ok();
    assert_eq!(retried, json!({"id": id, "status": "IN_QUEUE"}));
    let fresh = s.status(&id).await;
    assert_eq!(
        fresh,
        json!({"id": id, "status": "IN_QUEUE", "createdAt": fresh["createdAt"]})
    );

    s.advance(2_000).await;
    assert_eq!(first.take().await, json!({"id": id, "input": {"a": 1}}));
    // Chunks of the first try are gone with it.
    let waiting = async {
        s.watched(&id, 1).await;
        s.advance(1_000).await;
    };
    let (reply, ()) = tokio::join!(s.get(format!("/v2/ep/stream/{id}?wait=1000")), waiting);
    assert_eq!(reply.ok(), json!({"status": "IN_PROGRESS", "stream": []}));
    assert_eq!(s.status(&id).await["delayTime"], 2_000);

    s.advance(4_000).await;
    let ended = s.expect(&id, "TIMED_OUT").await;
    assert_eq!(ended["error"], "execution timeout after 5000 ms");
    s.post(format!("/v2/ep/retry/{id}"), "").await.ok();
    // Not by the worker that may still be at it.
    let second = s.worker("w2");
    assert_eq!(id_of(&second.take().await), id);
    second.done(&id, r#"{"output":2}"#).await;
    assert_eq!(s.expect(&id, "COMPLETED").await["output"], 2);
}

async fn other_jobs_cannot_be_retried(s: &TestServer) {
    let worker = s.worker("w1");
    let id = s.run(r#"{"input":1}"#).await;
    for status in ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"] {
        let reply = s.post(format!("/v2/ep/retry/{id}"), "").await;
        let message = reply.error(400, "not_retryable");
        assert!(message.contains(status), "{message}");
        s.expect(&id, status).await;
        match status {
            "IN_QUEUE" => drop(worker.take().await),
            _ => worker.done(&id, r#"{"output":1}"#).await,
        }
    }
    let id = s.run(r#"{"input":1}"#).await;
    s.post(format!("/v2/ep/cancel/{id}"), "").await.ok();
    let message = s
        .post(format!("/v2/ep/retry/{id}"), "")
        .await
        .error(400, "not_retryable");
    assert!(message.contains("CANCELLED"), "{message}");
    s.advance(30 * 60_000).await;
    s.post(format!("/v2/ep/retry/{id}"), "")
        .await
        .error(404, "job_not_found");
}

async fn a_purge_removes_what_waits_and_leaves_what_runs(s: &TestServer) {
    let running = s.run(r#"{"input":0}"#).await;
    let worker = s.worker("w1");
    worker.take().await;
    let mut waiting = Vec::new();
    for policy in ["{}", r#"{"lowPriority":true}"#, "{}"] {
        waiting.push(s.run(format!(r#"{{"input":1,"policy":{policy}}}"#)).await);
    }
    let elsewhere = id_of(&s.post("/v2/other/run", r#"{"input":1}"#).await.ok());

    let purged = s.post("/v2/ep/purge-queue", "").await.ok();
    assert_eq!(purged, json!({"removed": 3, "status": "completed"}));
    let purged = s.post("/v2/ep/purge-queue", "{}").await.ok();
    assert_eq!(purged, json!({"removed": 0, "status": "completed"}));
    for id in &waiting {
        s.expect(id, "CANCELLED").await;
    }
    s.expect(&running, "IN_PROGRESS").await;
    let other = s.get(format!("/v2/other/status/{elsewhere}")).await.ok();
    assert_eq!(other["status"], "IN_QUEUE");
    worker.done(&running, r#"{"output":1}"#).await;
    s.expect(&running, "COMPLETED").await;
}

async fn cancel_in_each_state(s: &TestServer) {
    let cancel = async |id: &str| s.post(format!("/v2/ep/cancel/{id}"), "").await.ok();
    let worker = s.worker("w1");

    let queued = s.run(r#"{"input":"never"}"#).await;
    let cancelled = json!({"id": queued, "status": "CANCELLED"});
    assert_eq!(cancel(&queued).await, cancelled);
    assert_eq!(
        cancel(&queued).await,
        cancelled,
        "a second time changes nothing"
    );

    let running = s.run(r#"{"input":1}"#).await;
    assert_eq!(
        id_of(&worker.take().await),
        running,
        "the cancelled one is never handed out"
    );
    assert_eq!(cancel(&running).await["status"], "CANCELLED");
    worker.done(&running, r#"{"output":"late"}"#).await;
    let job = s.expect(&running, "CANCELLED").await;
    assert_eq!(job.get("output"), None, "{job}");

    for (report, status) in [
        (r#"{"output":1}"#, "COMPLETED"),
        (r#"{"error":"e"}"#, "FAILED"),
    ] {
        let id = s.run(r#"{"input":1}"#).await;
        worker.take().await;
        worker.done(&id, report).await;
        let before = s.status(&id).await;
        assert_eq!(cancel(&id).await, json!({"id": id, "status": status}));
        assert_eq!(s.status(&id).await, before);
    }
    let id = s.run(r#"{"input":1,"policy":{"ttl":10000}}"#).await;
    s.advance(10_000).await;
    assert_eq!(cancel(&id).await["status"], "TIMED_OUT");

    let unknown = "00000000-0000-7000-8000-000000000000";
    let reply = s.post(format!("/v2/ep/cancel/{unknown}"), "").await;
    reply.error(404, "job_not_found");
}

async fn health_counts(s: &TestServer) {
    let idle = json!({
        "jobs": {"completed": 0, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0,
            "cancelled": 0, "timedOut": 0},
        "workers": {"idle": 0, "initializing": 0, "ready": 0, "running": 0, "throttled": 0,
            "unhealthy": 0},
    });
    assert_eq!(s.get("/v2/ep/health").await.ok(), idle);

    let worker = s.worker("w1");
    for report in [r#"{"output":1}"#, r#"{"error":1}"#] {
        let id = s.run(r#"{"input":1}"#).await;
        worker.take().await;
        worker.done(&id, report).await;
    }
    s.run(r#"{"input":1,"policy":{"ttl":10000}}"#).await;
    s.advance(10_000).await;
    let lost = s.run(r#"{"input":1}"#).await;
    s.worker("w0").take().await;
    s.advance(40_000).await;
    s.expect(&lost, "IN_QUEUE").await;
    s.post(format!("/v2/ep/cancel/{lost}"), "").await.ok();
    s.run(r#"{"input":1}"#).await;
    worker.take().await;
    s.run(r#"{"input":1}"#).await;
    s.run(r#"{"input":1,"policy":{"lowPriority":true}}"#).await;
    // Heartbeats outlive their workers, so they alone make none.
    s.worker("w2").ping(&[]).await;

    let health = s.get("/v2/ep/health").await.ok();
    let jobs = json!({"completed": 1, "failed": 2, "inProgress": 1, "inQueue": 2, "retried": 1,
        "cancelled": 1, "timedOut": 1});
    assert_eq!(health["jobs"], jobs);
    // The one that lost its job may still be at it.
    let workers = json!({"idle": 0, "initializing": 0, "ready": 0, "running": 2, "throttled": 0,
        "unhealthy": 0});
    assert_eq!(health["workers"], workers);
    worker
        .ping_saying("status=unhealthy&check=c&reason=r")
        .await;
    let workers = s.get("/v2/ep/health").await.ok()["workers"].clone();
    assert_eq!(
        (&workers["running"], &workers["unhealthy"]),
        (&json!(1), &json!(1))
    );

    assert_eq!(s.get("/v2/other/health").await.ok(), idle);
    let poll = s.worker("w9").on("other").park().await;
    let workers = s.get("/v2/other/health").await.ok()["workers"].clone();
    assert_eq!(
        (&workers["idle"], &workers["ready"]),
        (&json!(1), &json!(1))
    );
    drop(poll);
}
