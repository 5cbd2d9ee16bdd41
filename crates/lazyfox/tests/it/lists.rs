//! `/requests`: an endpoint's jobs, page by page.

use serde_json::Value;

use crate::server::{TestServer, id_of};

on_each_store!(
    pages_are_newest_first_and_lose_nothing,
    a_status_filters,
    listed_jobs_have_everything_but_payloads,
    bad_queries_are_refused_by_name,
);

async fn list(s: &TestServer, query: &str) -> (Vec<Value>, Option<String>) {
    let page = s.get(format!("/v2/ep/requests{query}")).await.ok();
    let jobs = page["requests"].as_array().expect("a list").clone();
    (jobs, page["next"].as_str().map(str::to_owned))
}

async fn pages_are_newest_first_and_lose_nothing(s: &TestServer) {
    assert_eq!(list(s, "").await, (vec![], None));
    let mut submitted = Vec::new();
    for n in 0..5 {
        submitted.push(s.run(format!("{{\"input\":{n}}}")).await);
        s.post("/v2/other/run", r#"{"input":1}"#).await.ok();
    }
    submitted.reverse();
    let mut seen = Vec::new();
    let mut query = "?limit=2".to_owned();
    let mut sizes = Vec::new();
    loop {
        let (jobs, next) = list(s, &query).await;
        sizes.push(jobs.len());
        seen.extend(jobs.iter().map(id_of));
        let Some(next) = next else { break };
        // What comes meanwhile belongs to the first page, not to a later one.
        s.run(r#"{"input":"new"}"#).await;
        query = format!("?limit=2&cursor={next}");
    }
    assert_eq!(seen, submitted);
    assert_eq!(sizes, [2, 2, 1]);
    for _ in 0..50 {
        s.run(r#"{"input":1}"#).await;
    }
    assert_eq!(list(s, "").await.0.len(), 50, "the default limit");
    assert_eq!(list(s, "?limit=100").await.0.len(), 57);
}

async fn a_status_filters(s: &TestServer) {
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(s.run(format!("{{\"input\":{n}}}")).await);
    }
    let worker = s.worker("w1");
    worker.batch(3).await;
    worker.done(&ids[0], "{}").await;
    worker.done(&ids[1], r#"{"error":"e"}"#).await;
    for (status, id) in [
        ("COMPLETED", &ids[0]),
        ("FAILED", &ids[1]),
        ("IN_PROGRESS", &ids[2]),
        ("RUNNING", &ids[2]),
        ("IN_QUEUE", &ids[3]),
    ] {
        let (jobs, next) = list(s, &format!("?status={status}")).await;
        let found: Vec<String> = jobs.iter().map(id_of).collect();
        assert_eq!((found, next), (vec![id.clone()], None), "{status}");
    }
    assert_eq!(list(s, "?status=TIMED_OUT").await, (vec![], None));
}

async fn listed_jobs_have_everything_but_payloads(s: &TestServer) {
    let id = s.run(r#"{"input":"secret in"}"#).await;
    let worker = s.worker("w1");
    worker.take().await;
    worker
        .done(&id, r#"{"output":"secret out","error":"why"}"#)
        .await;
    let mut job = s.status(&id).await;
    assert_eq!(job["output"], "secret out");
    job.as_object_mut().expect("an object").remove("output");
    assert_eq!(list(s, "").await.0, [job]);
}

async fn bad_queries_are_refused_by_name(s: &TestServer) {
    for (query, named) in [
        (
            "status=DONE",
            vec!["status", "DONE", "IN_QUEUE", "TIMED_OUT"],
        ),
        ("status=in_queue", vec!["status", "in_queue"]),
        ("limit=0", vec!["limit", "0", "1 to 100"]),
        ("limit=101", vec!["limit", "101", "1 to 100"]),
        ("limit=ten", vec!["limit", "ten"]),
        ("limit=-1", vec!["limit", "-1"]),
        ("cursor=x", vec!["cursor", "x"]),
        ("cursor=99999999999999999999", vec!["cursor"]),
    ] {
        let reply = s.get(format!("/v2/ep/requests?{query}")).await;
        let message = reply.error(400, "invalid_query");
        for part in named {
            assert!(message.contains(part), "{query}: {message}");
        }
    }
    // The largest number that a cursor can be is past every job.
    s.run(r#"{"input":1}"#).await;
    for cursor in [u64::MAX, i64::MAX as u64] {
        assert_eq!(
            list(s, &format!("?cursor={cursor}")).await.0.len(),
            1,
            "{cursor}"
        );
    }
}
