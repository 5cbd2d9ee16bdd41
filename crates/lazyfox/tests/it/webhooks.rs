//! Webhooks: the end of a job is delivered once, and again when it did not arrive.

use serde_json::{Value, json};

use crate::http::guarded;
use crate::receiver::Receiver;
use crate::server::TestServer;

on_each_store!(
    the_end_is_delivered_once,
    a_delivery_that_failed_is_tried_again_twice,
    only_ends_by_themselves_are_delivered,
    an_undelivered_end_outlives_its_retention,
);

/// Submits a job that a worker finishes with this report.
async fn finished(s: &TestServer, url: &str, report: &str) -> String {
    let id = s
        .run(format!(r#"{{"input":{{"a": 1}},"webhook":"{url}"}}"#))
        .await;
    let worker = s.worker("w1");
    worker.take().await;
    s.advance(100).await;
    worker.done(&id, report).await;
    id
}

/// What the store still has to deliver: due now, and later.
async fn open(s: &TestServer) -> (usize, bool) {
    let outbox = s.app().store.outbox(s.app().now(), 9).await;
    let outbox = outbox.expect("the store answers");
    let later = outbox.next != lazyfox_core::time::Timestamp::NEVER;
    (outbox.deliveries.len(), later)
}

async fn settled(s: &TestServer, later: bool) {
    guarded("a try is noted", async {
        while open(s).await != (0, later) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn the_end_is_delivered_once(s: &TestServer) {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    for report in [r#"{"output":{"x":[1.0]}}"#, r#"{"error":"no","output":1}"#] {
        let id = finished(s, &url, report).await;
        let delivered = receiver.take(204).await;
        assert_eq!(delivered.first_line, "POST /hook?token=t HTTP/1.1");
        let json_type = ("content-type".to_owned(), "application/json".to_owned());
        assert!(delivered.headers.contains(&json_type));
        // What /status says, with what was asked.
        let mut expected = s.status(&id).await;
        expected["input"] = json!({"a": 1});
        expected["webhook"] = Value::String(url.clone());
        assert_eq!(delivered.body, expected);
        settled(s, false).await;
    }
}

async fn a_delivery_that_failed_is_tried_again_twice(s: &TestServer) {
    let receiver = Receiver::start().await;
    let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
    let first = receiver.take(500).await;
    settled(s, true).await;
    s.advance(9_999).await;
    assert_eq!(open(s).await, (0, true), "not due yet");
    s.advance(1).await;
    let second = receiver.take(200).await;
    assert_eq!(second.body, first.body);
    settled(s, false).await;

    let other = finished(s, &receiver.url(), r#"{"output":2}"#).await;
    for again in [true, true, false] {
        // A redirect is no success, and is not followed.
        let delivered = receiver.take(307).await;
        assert_eq!(delivered.body["id"], other);
        settled(s, again).await;
        s.advance(10_000).await;
    }
    s.expect(&other, "COMPLETED").await;
    s.expect(&id, "COMPLETED").await;
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
    assert_eq!(
        open(s).await,
        (0, false),
        "who ends a job knows that it ended"
    );

    let expired = s.run(&body).await;
    s.advance(10_000).await;
    let delivered = receiver.take(200).await;
    assert_eq!(delivered.body["id"], expired);
    assert_eq!(delivered.body["status"], "TIMED_OUT");
    settled(s, false).await;
}

async fn an_undelivered_end_outlives_its_retention(s: &TestServer) {
    let receiver = Receiver::start().await;
    let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
    receiver.take(500).await;
    settled(s, true).await;
    s.advance(31 * 60_000).await;
    assert_eq!(receiver.take(200).await.body["id"], id);
    settled(s, false).await;
    s.advance(1).await;
    s.expect_gone(&id).await;
}
