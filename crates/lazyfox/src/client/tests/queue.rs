//! Looking at the queue and emptying it.

use super::client;
use super::scripted::json;

#[tokio::test]
async fn requests_are_a_table_over_pages() {
    let first = r#"{"requests":[
        {"id":"a","status":"FAILED","createdAt":1777636984999,"delayTime":12,"executionTime":70000,
         "workerId":"w1","error":"{\"error_message\":\"no\\nmore\",\"error_type\":\"E\"}"}],
        "next":"c 1"}"#;
    let second = r#"{"requests":[{"id":"bb","status":"IN_QUEUE"}]}"#;
    let answers = vec![json(first), json(second)];
    let ran = client(answers, &["requests", "ep", "--all", "--status", "FAILED"]).await;
    assert_eq!(
        ran.server.requests()[1].line,
        "GET /v2/ep/requests?limit=100&status=FAILED&cursor=c+1 HTTP/1.1"
    );
    insta::assert_snapshot!(ran.out, @r"
    ID  STATUS       CREATED (UTC)        DELAY       EXECUTION   WORKER  ERROR
    a   FAILED       2026-05-01 12:03:04  12 ms       1 min 10 s  w1      E: no
    bb  IN_QUEUE
    ");

    let ran = client(vec![json(first)], &["requests", "ep", "--limit", "1"]).await;
    assert_eq!(ran.server.requests().len(), 1);
    assert_eq!(
        ran.server.requests()[0].line,
        "GET /v2/ep/requests?limit=1 HTTP/1.1"
    );
}

#[tokio::test]
async fn purging_needs_a_yes() {
    let ran = client(vec![], &["purge-queue", "ep"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("--yes"), "{}", ran.err);
    assert_eq!(ran.server.requests().len(), 0);

    let answer = json(r#"{"removed":7,"status":"completed"}"#);
    let ran = client(vec![answer], &["purge-queue", "ep", "-y"]).await;
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "removed 7 waiting jobs\n")
    );
}

#[tokio::test]
async fn health_lists_every_count() {
    let body = r#"{"jobs":{"inQueue":5,"failed":0},"workers":{"ready":12}}"#;
    let ran = client(vec![json(body)], &["health", "ep"]).await;
    insta::assert_snapshot!(ran.out, @r"
    jobs
      failed                0
      inQueue               5
    workers
      ready                12
    ");
}
