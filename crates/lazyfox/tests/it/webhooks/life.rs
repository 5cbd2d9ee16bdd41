//! Which ends are delivered, and what their deliveries say.

use serde_json::{Value, json};

use super::{deliveries, finished, is_quiet, reaches};
use crate::receiver::Receiver;
use crate::server::{Setup, TestServer, run};

on_each_store!(
    the_end_is_delivered_once,
    only_ends_by_themselves_are_delivered,
    an_undelivered_end_outlives_its_retention,
    a_retried_job_has_a_delivery_for_each_end,
    a_job_that_is_retried_takes_its_delivery_back,
);

async fn the_end_is_delivered_once(s: &TestServer) {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    for report in [r#"{"output":{"x":[1.0]}}"#, r#"{"error":"no","output":1}"#] {
        let id = finished(s, &url, report).await;
        let delivered = receiver.take(204).await;
        assert_eq!(delivered.first_line, "POST /hook?token=t HTTP/1.1");
        assert_eq!(delivered.header("content-type"), "application/json");
        let agent = concat!("Lazyfox/", env!("CARGO_PKG_VERSION"));
        assert_eq!(delivered.header("user-agent"), agent);
        // What /status says, with what was asked.
        let mut expected = s.status(&id).await;
        expected["input"] = json!({"a": 1});
        expected["webhook"] = Value::String(url.clone());
        assert_eq!(delivered.body, expected);
        reaches(s, &id, "delivered", 1).await;
    }
}

async fn only_ends_by_themselves_are_delivered(s: &TestServer) {
    let receiver = Receiver::start().await;
    let body = format!(
        r#"{{"input":1,"webhookV2":"{}","policy":{{"ttl":10000}}}}"#,
        receiver.url()
    );
    let cancelled = s.run(&body).await;
    s.post(format!("/v2/ep/cancel/{cancelled}"), "").await.ok();
    s.run(&body).await;
    s.post("/v2/ep/purge-queue", "").await.ok();
    let list = s.get("/v2/ep/deliveries").await.ok();
    assert_eq!(list, json!({"deliveries": []}), "who ends a job knows it");

    let expired = s.run(&body).await;
    s.advance(10_000).await;
    let delivered = receiver.take(200).await;
    assert_eq!(delivered.body["id"], expired);
    assert_eq!(delivered.body["status"], "TIMED_OUT");
    reaches(s, &expired, "delivered", 1).await;
}

#[tokio::test]
async fn an_endpoint_can_have_cancelled_and_purged_jobs_delivered() {
    let setup = Setup::sqlite().endpoint("webhook.on_cancel = true");
    run(setup, async |s| {
        let receiver = Receiver::start().await;
        let body = format!(r#"{{"input":1,"webhook":"{}"}}"#, receiver.url());
        let cancelled = s.run(&body).await;
        s.post(format!("/v2/ep/cancel/{cancelled}"), "").await.ok();
        let delivered = receiver.take(200).await;
        let end = (&delivered.body["id"], &delivered.body["status"]);
        assert_eq!(end, (&json!(cancelled), &json!("CANCELLED")));
        let purged = s.run(&body).await;
        s.post("/v2/ep/purge-queue", "").await.ok();
        assert_eq!(receiver.take(200).await.body["id"], purged);
        reaches(s, &purged, "delivered", 1).await;
    })
    .await;
}

async fn an_undelivered_end_outlives_its_retention(s: &TestServer) {
    let receiver = Receiver::start().await;
    let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
    for n in 1..=3 {
        receiver.take(500).await;
        reaches(s, &id, if n < 3 { "pending" } else { "failed" }, n).await;
        s.advance(10_000).await;
    }
    // The result's retention is half an hour, and what was given up is kept for a day.
    s.advance(23 * 3_600_000).await;
    assert_eq!(s.status(&id).await["output"], 1);
    s.advance(3_600_000).await;
    s.expect_gone(&id).await;
    assert!(deliveries(s, &id).await.is_empty());
}

async fn a_retried_job_has_a_delivery_for_each_end(s: &TestServer) {
    let receiver = Receiver::start().await;
    let id = finished(s, &receiver.url(), r#"{"error":"no"}"#).await;
    let first = receiver.take(200).await;
    reaches(s, &id, "delivered", 1).await;
    s.post(format!("/v2/ep/retry/{id}"), "").await.ok();
    let worker = s.worker("w2");
    worker.take().await;
    worker.done(&id, r#"{"output":2}"#).await;
    let second = receiver.take(200).await;
    assert_eq!(second.body["status"], "COMPLETED");
    reaches(s, &id, "delivered", 1).await;
    assert_eq!(first.header("webhook-id"), format!("{id}_1"));
    assert_eq!(second.header("webhook-id"), format!("{id}_2"));
    assert_eq!(deliveries(s, &id).await.len(), 2);
}

async fn a_job_that_is_retried_takes_its_delivery_back(s: &TestServer) {
    let receiver = Receiver::start().await;
    let id = finished(s, &receiver.url(), r#"{"error":"no"}"#).await;
    receiver.take(500).await;
    reaches(s, &id, "pending", 1).await;
    s.post(format!("/v2/ep/retry/{id}"), "").await.ok();
    reaches(s, &id, "withdrawn", 1).await;
    s.advance(60_000).await;
    assert!(is_quiet(s).await, "it has not ended any more");
}

#[tokio::test]
async fn above_its_bound_a_body_has_a_link_instead_of_the_output() {
    let setup = Setup::sqlite()
        .server("public_url = \"https://fox.example\"")
        .endpoint("webhook.body_bytes = 20");
    run(setup, async |s| {
        let receiver = Receiver::start().await;
        // Eight bytes of input with it.
        let fits = finished(s, &receiver.url(), r#"{"output":"3456789012"}"#).await;
        let body = receiver.take(200).await.body;
        assert_eq!(
            (&body["output"], &body["statusUrl"]),
            (&json!("3456789012"), &Value::Null)
        );
        reaches(s, &fits, "delivered", 1).await;

        let id = finished(s, &receiver.url(), r#"{"output":"34567890123"}"#).await;
        let body = receiver.take(200).await.body;
        let mut expected = s.status(&id).await;
        let status = expected.as_object_mut().expect("an object");
        status.remove("output");
        expected["statusUrl"] = json!(format!("https://fox.example/v2/ep/status/{id}"));
        expected["input"] = json!({"a": 1});
        expected["webhook"] = json!(receiver.url());
        assert_eq!(body, expected);

        let text = "x".repeat(19);
        let request = format!(r#"{{"input":"{text}","webhook":"{}"}}"#, receiver.url());
        let large = s.run(request).await;
        let worker = s.worker("w1");
        worker.take().await;
        worker.done(&large, r#"{"output":1}"#).await;
        let body = receiver.take(200).await.body;
        assert_eq!(
            (&body["input"], &body["output"]),
            (&Value::Null, &Value::Null)
        );
        assert!(body["statusUrl"].is_string());
        reaches(s, &large, "delivered", 1).await;
    })
    .await;
}
