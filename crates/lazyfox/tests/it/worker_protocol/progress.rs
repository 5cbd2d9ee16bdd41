//! What else comes the way of results: progress, and the wish to be replaced.

use serde_json::json;

use super::results::{running, small};
use crate::server::{TestServer, id_of};

on_each_store!(
    point_06_progress_is_the_output_until_the_end,
    point_06_stop_pod_retires_the_worker,
);

tests!(limited: super::small();
    point_06_progress_that_is_too_large_is_skipped,
);

async fn point_06_progress_is_the_output_until_the_end(s: &TestServer) {
    let id = running(s, "w1").await;
    let worker = s.worker("w1");
    for progress in [json!({"pct": 10}), json!("half"), json!(null), json!([1])] {
        let report = json!({"status": "IN_PROGRESS", "output": progress});
        worker.done(&id, report.to_string()).await;
        assert_eq!(s.expect(&id, "IN_PROGRESS").await["output"], progress);
    }
    s.worker("w2")
        .done(&id, r#"{"status":"IN_PROGRESS","output":"foreign"}"#)
        .await;
    assert_eq!(s.status(&id).await["output"], json!([1]));

    // A result without output leaves none of the progress behind.
    worker.done(&id, "{}").await;
    let ended = s.expect(&id, "COMPLETED").await;
    assert_eq!(ended.get("output"), None);
    worker
        .done(&id, r#"{"status":"IN_PROGRESS","output":"late"}"#)
        .await;
    assert_eq!(s.status(&id).await, ended);
}

async fn point_06_progress_that_is_too_large_is_skipped(s: &TestServer) {
    let id = running(s, "w1").await;
    let worker = s.worker("w1");
    worker
        .done(&id, r#"{"status":"IN_PROGRESS","output":"shown"}"#)
        .await;
    for bytes in [65_537, 3 * 1024 * 1024] {
        let output = "x".repeat(bytes);
        let report = format!(r#"{{"status": "IN_PROGRESS", "output": "{output}"}}"#);
        worker.done(&id, report).await;
        assert_eq!(s.expect(&id, "IN_PROGRESS").await["output"], "shown");
    }
    worker.done(&id, r#"{"output":"small"}"#).await;
    assert_eq!(s.expect(&id, "COMPLETED").await["output"], "small");
}

async fn point_06_stop_pod_retires_the_worker(s: &TestServer) {
    let id = running(s, "w1").await;
    let worker = s.worker("w1");
    let mut poll = worker.park().await;
    worker
        .done(&id, r#"{"output": {"x": 1}, "stopPod": true}"#)
        .await;
    assert_eq!(s.expect(&id, "COMPLETED").await["output"], json!({"x": 1}));

    // Its polls are held for a second, the open one and any other, and come back empty.
    let next = s.run(r#"{"input":1}"#).await;
    let mut second = s.open(&worker.poll("job_in_progress=0")).await;
    s.expect(&next, "IN_QUEUE").await;
    assert!(
        poll.is_silent() && second.is_silent(),
        "an SDK asks again at once"
    );
    s.advance(1_000).await;
    assert_eq!(poll.reply().await.status, 204);
    s.advance(1_000).await;
    assert_eq!(second.reply().await.status, 204);
    assert_eq!(id_of(&s.worker("w2").take().await), next);
}
