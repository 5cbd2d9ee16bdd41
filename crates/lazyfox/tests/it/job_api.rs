//! What is the same for all calls of clients: methods, paths, keys, types of fields.

use serde_json::{Value, json};

use crate::http::Request;
use crate::server::TestServer;

tests!(memory: crate::server::Setup::memory();
    get_and_post_do_the_same_where_clients_send_either,
    changes_take_an_empty_body_and_an_empty_object,
    slashes_too_many_are_tolerated,
    fields_have_the_types_that_strict_clients_demand,
    unknown_keys_never_reach_the_worker,
    jobs_are_only_known_on_their_own_endpoint,
    wrong_methods_and_routes_are_told_apart,
    health_and_readiness_answer,
);

async fn get_and_post_do_the_same_where_clients_send_either(s: &TestServer) {
    let id = s.run(r#"{"input":1}"#).await;
    let worker = s.worker("w1");
    worker.take().await;
    worker.done(&id, r#"{"output":7}"#).await;
    for call in ["status", "status-sync", "stream", "cancel"] {
        let target = format!("/v2/ep/{call}/{id}");
        let get = s.get(&target).await;
        assert_eq!(get.ok()["status"], "COMPLETED", "{call}");
        for body in ["", "{}"] {
            assert_eq!(s.post(&target, body).await.body, get.body, "{call} {body}");
        }
    }
    let health = s.get("/v2/ep/health").await;
    assert_eq!(health.ok()["jobs"]["completed"], 1);
    assert_eq!(s.post("/v2/ep/health", "").await.body, health.body);
}

async fn changes_take_an_empty_body_and_an_empty_object(s: &TestServer) {
    for body in ["", "{}"] {
        let id = s.run(r#"{"input":1}"#).await;
        let request = Request::post(format!("/v2/ep/cancel/{id}"), body);
        let cancelled = s
            .request(request.header("content-type", "application/json"))
            .await;
        assert_eq!(cancelled.ok(), json!({"id": id, "status": "CANCELLED"}));

        let id = s.run(r#"{"input":1}"#).await;
        s.worker("w1").take().await;
        s.worker("w1").done(&id, r#"{"error":"no"}"#).await;
        let retried = s.post(format!("/v2/ep/retry/{id}"), body).await.ok();
        assert_eq!(retried, json!({"id": id, "status": "IN_QUEUE"}));

        let purged = s.post("/v2/ep/purge-queue", body).await.ok();
        assert_eq!(purged, json!({"removed": 1, "status": "completed"}));
    }
}

async fn slashes_too_many_are_tolerated(s: &TestServer) {
    for target in [
        "/v2//ep/run",
        "//v2/ep//run",
        "/v2/ep/run/",
        "//v2//ep//run//?x=1",
    ] {
        let accepted = s.post(target, r#"{"input":1}"#).await;
        assert_eq!(accepted.ok()["status"], "IN_QUEUE", "{target}");
    }
    let id = s.run(r#"{"input":1}"#).await;
    // The query is no path.
    let target = format!("//v2/ep//status/{id}/?ttl=60000&x=a//b/");
    assert_eq!(s.get(target).await.ok()["id"], id);
    assert_eq!(s.get("/healthz/").await.ok()["status"], "ok");
}

async fn fields_have_the_types_that_strict_clients_demand(s: &TestServer) {
    let id = s.run(r#"{"input":1}"#).await;
    s.worker("w1").take().await;
    s.advance(40_000).await;
    let worker = s.worker("w2");
    worker.take().await;
    s.advance(3).await;
    let packed = json!({
        "error_type": "<class 'ValueError'>", "error_message": "boom \"q\" é",
        "error_traceback": "Traceback …", "hostname": "h", "worker_id": "w2",
        "runpod_version": "1.12.0",
    });
    let report = json!({"error": packed.to_string(), "output": {"partial": 1}});
    worker.done(&id, report.to_string()).await;

    let job = s.expect(&id, "FAILED").await;
    assert_eq!(job["error"], Value::String(packed.to_string()));
    assert_eq!(job["errorDetail"], packed);
    assert_eq!(job["output"], json!({"partial": 1}));
    assert_eq!(job["workerId"], "w2");
    for (field, value) in [("delayTime", 40_000), ("executionTime", 3), ("retries", 1)] {
        assert_eq!(job[field].as_i64(), Some(value), "{field} in {job}");
        assert!(job[field].is_u64(), "{field} is a whole number in {job}");
    }
    // What has no value is left out; null is not for everybody.
    let fields = job.as_object().expect("an object");
    assert!(fields.values().all(|value| !value.is_null()), "{job}");
}

async fn unknown_keys_never_reach_the_worker(s: &TestServer) {
    let id = s
        .run(
            r#"{"id":"mine","input":{"a":1},"extra":{"input":2},"status":"COMPLETED",
                "webhook":"http://127.0.0.1:2/","policy":{"ttl":60000,"unknown":1},
                "batchId":"b","__proto__":{}}"#,
        )
        .await;
    let taken = s.worker("w1").take_saying("job_in_progress=1").await;
    assert_eq!(
        taken.text(),
        format!(r#"{{"id":"{id}","input":{{"a":1}}}}"#)
    );
    // Without an end nothing is delivered to the port that discards.
    s.post(format!("/v2/ep/cancel/{id}"), "").await.ok();
}

async fn jobs_are_only_known_on_their_own_endpoint(s: &TestServer) {
    let id = s.run(r#"{"input":1}"#).await;
    for call in ["status", "status-sync", "stream", "cancel", "retry"] {
        let reply = s.post(format!("/v2/other/{call}/{id}"), "").await;
        reply.error(404, "job_not_found");
    }
    s.expect(&id, "IN_QUEUE").await;
}

async fn wrong_methods_and_routes_are_told_apart(s: &TestServer) {
    for (method, target, allow) in [
        ("GET", "/v2/ep/run", "POST"),
        ("PUT", "/v2/ep/runsync", "POST"),
        ("DELETE", "/v2/ep/status/x", "GET,HEAD,POST"),
        ("GET", "/v2/ep/purge-queue", "POST"),
        ("POST", "/v2/ep/requests", "GET,HEAD"),
        ("POST", "/v2/ep/job-take/w1", "GET,HEAD"),
        ("GET", "/v2/ep/job-done/w1/x", "POST"),
    ] {
        let reply = s.request(Request::new(method, target)).await;
        reply.error(405, "method_not_allowed");
        assert_eq!(reply.header("allow"), Some(allow), "{method} {target}");
    }
    for target in [
        "/",
        "/v2",
        "/v2/ep",
        "/v2/ep/nothing",
        "/v2/ep/status",
        "/v3/ep/run",
    ] {
        s.get(target).await.error(404, "route_not_found");
    }
}

async fn health_and_readiness_answer(s: &TestServer) {
    for target in ["/healthz", "/readyz"] {
        assert_eq!(s.get(target).await.ok(), json!({"status": "ok"}));
    }
}
