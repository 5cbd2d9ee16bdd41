//! The list of deliveries, and sending them again.

use serde_json::{Value, json};

use super::{deliveries, finished, finished_on, is_quiet, last_error, reaches};
use crate::receiver::Receiver;
use crate::server::{START_MS, TestServer};

on_each_store!(
    every_try_is_listed_with_its_reason,
    a_list_has_pages_and_filters,
    a_delivery_can_be_sent_again,
    a_time_range_can_be_sent_again,
    what_cannot_be_sent_again_says_why,
);

async fn every_try_is_listed_with_its_reason(s: &TestServer) {
    let receiver = Receiver::start().await;
    let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
    receiver
        .answer("HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nbusy")
        .await;
    reaches(s, &id, "pending", 1).await;
    s.advance(10_000).await;
    receiver.take(200).await;
    let delivery = reaches(s, &id, "delivered", 2).await;
    let url = receiver.url();
    let (shown, _) = url.split_once('?').expect("a query");
    let ended_at = START_MS + 100;
    let expected = json!({
        "id": format!("{id}_1"),
        "job": id,
        "state": "delivered",
        "url": format!("{shown}?…"),
        "bytes": r#"{"a": 1}1"#.len(),
        "createdAt": ended_at,
        "tries": [
            {"at": ended_at, "durationMs": 0, "status": 503, "answer": "busy", "error": "answered 503"},
            {"at": ended_at + 10_000, "durationMs": 0, "status": 200},
        ],
    });
    assert_eq!(delivery, expected);
}

async fn a_list_has_pages_and_filters(s: &TestServer) {
    let receiver = Receiver::start().await;
    let mut ids = Vec::new();
    for status in [200, 410, 200, 500] {
        let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
        receiver.take(status).await;
        let state = match status {
            200 => "delivered",
            410 => "failed",
            _ => "pending",
        };
        reaches(s, &id, state, 1).await;
        ids.push(id);
    }
    finished_on(s, "other", &receiver.url(), r#"{"output":1}"#).await;
    receiver.take(200).await;

    let list = async |query: &str| {
        let list = s.get(format!("/v2/ep/deliveries?{query}")).await.ok();
        let jobs = list["deliveries"].as_array().expect("a list").iter();
        let jobs: Vec<Value> = jobs.map(|it| it["job"].clone()).collect();
        (jobs, list["next"].as_str().map(str::to_owned))
    };
    let [first, second, third, fourth] = &ids[..] else {
        panic!("four jobs ended")
    };
    let all = json!([fourth, third, second, first]);
    assert_eq!(json!(list("").await.0), all);
    assert_eq!(
        json!(list("state=delivered").await.0),
        json!([third, first])
    );
    assert_eq!(json!(list("state=failed").await.0), json!([second]));
    let of_one = list(&format!("state=pending&job={first}")).await;
    assert_eq!(of_one, (vec![], None));

    let (page, next) = list("limit=3").await;
    assert_eq!(json!(page), json!([fourth, third, second]));
    let (page, next) = list(&format!("limit=3&cursor={}", next.expect("there is more"))).await;
    assert_eq!((json!(page), next), (json!([first]), None));

    for (query, message) in [
        (
            "state=sent",
            "state is \"sent\", it should be one of pending, delivered, failed, withdrawn",
        ),
        ("limit=0", "limit is 0, allowed are 1 to 100"),
        ("limit=101", "limit is 101, allowed are 1 to 100"),
        ("cursor=x", "cursor is \"x\", it should be a whole number"),
    ] {
        let reply = s.get(format!("/v2/ep/deliveries?{query}")).await;
        assert_eq!(reply.error(400, "invalid_query"), message);
    }
    let reply = s.get("/v2/ep/deliveries?job=x").await;
    reply.error(404, "job_not_found");
}

async fn redeliver(s: &TestServer, delivery: &str) -> Value {
    let target = format!("/v2/ep/deliveries/{delivery}/redeliver");
    s.post(target, "").await.ok()
}

async fn a_delivery_can_be_sent_again(s: &TestServer) {
    let receiver = Receiver::start().await;
    let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
    let name = format!("{id}_1");
    let first = receiver.take(200).await;
    reaches(s, &id, "delivered", 1).await;
    // Once more, with a round of three tries of its own.
    let answer = redeliver(s, &name).await;
    assert_eq!(answer, json!({"id": name, "state": "pending"}));
    for n in 2..=4 {
        let again = receiver.take(500).await;
        assert_eq!(again.bytes, first.bytes);
        assert_eq!(again.header("webhook-id"), name);
        reaches(s, &id, if n < 4 { "pending" } else { "failed" }, n).await;
        s.advance(10_000).await;
    }
    assert!(is_quiet(s).await);
    redeliver(s, &name).await;
    receiver.take(200).await;
    let delivery = reaches(s, &id, "delivered", 5).await;
    assert_eq!(delivery["tries"][3]["error"], "answered 500");
    s.expect(&id, "COMPLETED").await;
}

async fn a_time_range_can_be_sent_again(s: &TestServer) {
    let receiver = Receiver::start().await;
    let mut ends = Vec::new();
    for status in [410, 410, 200, 410] {
        s.advance(60_000).await;
        let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
        receiver.take(status).await;
        let state = if status == 200 { "delivered" } else { "failed" };
        let delivery = reaches(s, &id, state, 1).await;
        ends.push((id, delivery["createdAt"].as_i64().expect("a number")));
    }
    let again = async |query: String| {
        let target = format!("/v2/ep/deliveries/redeliver?{query}");
        s.post(target, "").await.ok()["redelivered"].clone()
    };
    let (second, third, fourth) = (&ends[1], &ends[2], &ends[3]);
    // The first is before, the third arrived, the fourth is not within.
    let range = format!("from={}&to={}", second.1, fourth.1);
    assert_eq!(again(range.clone()).await, 1);
    assert_eq!(receiver.take(200).await.body["id"], second.0);
    reaches(s, &second.0, "delivered", 2).await;
    assert_eq!(again(range.clone()).await, 0, "it has arrived");
    assert_eq!(again(format!("{range}&state=delivered")).await, 2);
    let mut came = [
        receiver.take(200).await.body["id"].clone(),
        receiver.take(200).await.body["id"].clone(),
    ];
    came.sort_by_key(Value::to_string);
    assert_eq!(json!(came), json!([second.0, third.0]));
    reaches(s, &second.0, "delivered", 3).await;
    reaches(s, &third.0, "delivered", 2).await;
    assert_eq!(again(format!("from={}&state=all", fourth.1)).await, 1);
    receiver.take(200).await;
    reaches(s, &fourth.0, "delivered", 2).await;

    let target = "/v2/ep/deliveries/redeliver";
    let message = s.post(target, "").await.error(400, "invalid_query");
    assert!(message.starts_with("from is missing"), "{message}");
    let wrong = s.post(format!("{target}?from=yesterday"), "").await;
    wrong.error(400, "invalid_query");
    let wrong = s.post(format!("{target}?from=1&state=new"), "").await;
    wrong.error(400, "invalid_query");
}

async fn what_cannot_be_sent_again_says_why(s: &TestServer) {
    let receiver = Receiver::start().await;
    let id = finished(s, &receiver.url(), r#"{"error":"no"}"#).await;
    receiver.take(200).await;
    reaches(s, &id, "delivered", 1).await;
    for unknown in [
        format!("{id}_2"),
        format!("{id}_x"),
        id.clone(),
        "x".to_owned(),
    ] {
        let target = format!("/v2/ep/deliveries/{unknown}/redeliver");
        s.post(target, "").await.error(404, "delivery_not_found");
    }
    let elsewhere = format!("/v2/other/deliveries/{id}_1/redeliver");
    let reply = s.post(elsewhere, "").await;
    reply.error(404, "delivery_not_found");

    s.post(format!("/v2/ep/retry/{id}"), "").await.ok();
    let target = format!("/v2/ep/deliveries/{id}_1/redeliver");
    let message = s
        .post(target.clone(), "")
        .await
        .error(409, "not_redeliverable");
    assert!(message.contains("was retried"), "{message}");
    // Nor when it has ended anew: that end has a delivery of its own.
    let worker = s.worker("w2");
    worker.take().await;
    worker.done(&id, r#"{"output":1}"#).await;
    receiver.take(410).await;
    let newest = reaches(s, &id, "failed", 1).await;
    assert!(last_error(&newest).starts_with("answered 410"));
    s.post(target, "").await.error(409, "not_redeliverable");
    assert_eq!(deliveries(s, &id).await.len(), 2);
}
