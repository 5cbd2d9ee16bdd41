//! Listening to deliveries as they happen.

use serde_json::{Value, json};

use super::{finished, finished_on, reaches};
use crate::http::Request;
use crate::receiver::Receiver;
use crate::server::{Setup, TestServer, run};

on_each_store!(
    a_listener_hears_every_try_and_what_came_of_it,
    a_listener_hears_its_own_endpoint_only,
);

async fn a_listener_hears_every_try_and_what_came_of_it(s: &TestServer) {
    let receiver = Receiver::start().await;
    let mut events = s.listen("ep").await;
    let id = finished(s, &receiver.url(), r#"{"output":"é"}"#).await;
    let delivered = receiver.take(500).await;
    let (name, begun) = events.next().await;
    assert_eq!(name, "try");
    // What is posted again with these headers and this body verifies.
    assert_eq!(
        begun["body"].as_str().expect("a text").as_bytes(),
        delivered.bytes
    );
    let headers = begun["headers"].as_object().expect("an object");
    assert_eq!(headers.len(), 5);
    for (name, value) in headers {
        assert_eq!(value, delivered.header(name));
    }
    let (shown, _) = delivered.body["webhook"]
        .as_str()
        .expect("it can be done")
        .split_once('?')
        .expect("it can be done");
    assert_eq!(begun["url"], format!("{shown}?…"));
    let at = s.app().now().as_ms();
    let (name, ended) = events.next().await;
    let expected = json!({
        "id": format!("{id}_1"), "job": id, "try": 1, "at": at, "durationMs": 0, "status": 500,
        "error": "answered 500", "state": "pending", "nextTryAt": at + 10_000,
    });
    assert_eq!((name.as_str(), ended), ("result", expected));

    s.advance(10_000).await;
    receiver.take(200).await;
    assert_eq!(events.next().await.1["try"], 2);
    let (_, ended) = events.next().await;
    assert_eq!(
        (&ended["state"], &ended["nextTryAt"]),
        (&json!("delivered"), &Value::Null)
    );
    // A redelivery is a new round.
    reaches(s, &id, "delivered", 2).await;
    let again = format!("/v2/ep/deliveries/{id}_1/redeliver");
    s.post(again, "").await.ok();
    receiver.take(200).await;
    assert_eq!(events.next().await.1["try"], 1);
    assert_eq!(events.next().await.1["try"], 1);
}

async fn a_listener_hears_its_own_endpoint_only(s: &TestServer) {
    let receiver = Receiver::start().await;
    let mut events = s.listen("other").await;
    finished(s, &receiver.url(), r#"{"output":1}"#).await;
    receiver.take(200).await;
    let id = finished_on(s, "other", &receiver.url(), r#"{"output":1}"#).await;
    receiver.take(200).await;
    assert_eq!(events.next().await.1["job"], id);
}

#[tokio::test]
async fn a_stopping_server_ends_its_listeners() {
    let s = Setup::memory().start().await;
    let mut events = s.listen("ep").await;
    s.stop().await;
    events.end().await;
}

#[tokio::test]
async fn who_may_only_read_cannot_listen() {
    run(Setup::memory().keys(), async |s| {
        let reader = s.key("reader", lazyfox_store::Access::ReadOnly).await;
        let request = Request::get("/v2/ep/deliveries/listen");
        let reply = s.request(request.header("authorization", &reader)).await;
        reply.error(403, "forbidden");
        let unknown = Request::get("/v2/ep/deliveries/listen");
        s.request(unknown).await.error(401, "unauthorized");
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_listens_no_longer() {
    run(Setup::memory().keys(), async |s| {
        let writer = s.key("writer", lazyfox_store::Access::ReadWrite).await;
        let request = Request::get("/v2/ep/deliveries/listen");
        let mut events = s
            .listen_with(request.header("authorization", &writer))
            .await;
        let store = &s.app().store;
        let keys = store.keys().await.expect("the store answers");
        let key = keys
            .iter()
            .find(|key| key.label == "writer")
            .expect("it is kept");
        let revoked = store.revoke_key(&key.id, s.app().now()).await;
        assert!(revoked.expect("the store answers"));
        s.advance(3_000).await;
        events.end().await;
    })
    .await;
}

#[tokio::test]
async fn the_65th_listener_is_refused() {
    let s = Setup::memory().start().await;
    let mut listeners = Vec::new();
    for _ in 0..64 {
        listeners.push(s.listen("ep").await);
    }
    let request = Request::get("/v2/ep/deliveries/listen");
    let refused = s.request(request).await;
    refused.error(429, "too_many_listeners");
    s.listen("other").await;
    s.stop().await;
}
