//! Receivers can tell that a delivery is ours, with the public library.

use standardwebhooks::Webhook;

use super::{finished, reaches};
use crate::http::Request;
use crate::receiver::{Delivered, Receiver};
use crate::server::{Setup, TestServer, run};

on_each_store!(
    a_delivery_verifies_with_the_endpoints_secret,
    two_secrets_are_valid_while_one_is_changed,
    an_old_secret_ends_at_once_when_that_is_asked_for,
);

/// Makes a new secret and gives its text.
async fn new_secret(s: &TestServer, query: &str) -> String {
    let made = s.post(format!("/v2/ep/webhook-secret{query}"), "").await;
    let secret = made.ok()["secret"].as_str().map(str::to_owned);
    secret.expect("it is shown once")
}

/// What the library checks, but for the time: the test's clock is not that of the machine.
fn verifies(delivered: &Delivered, secret: &str) -> bool {
    let id = delivered.header("webhook-id");
    let timestamp = delivered
        .header("webhook-timestamp")
        .parse()
        .expect("it has its form");
    let library = Webhook::new(secret).expect("a secret");
    let expected = library
        .sign(id, timestamp, &delivered.bytes)
        .expect("it is text");
    let mut signatures = delivered.header("webhook-signature").split(' ');
    signatures.any(|signature| signature == expected)
}

async fn delivered(s: &TestServer, receiver: &Receiver, status: u16) -> Delivered {
    let id = finished(s, &receiver.url(), r#"{"output":"é \u0000"}"#).await;
    let delivered = receiver.take(status).await;
    let state = if status == 200 {
        "delivered"
    } else {
        "pending"
    };
    reaches(s, &id, state, 1).await;
    delivered
}

async fn a_delivery_verifies_with_the_endpoints_secret(s: &TestServer) {
    let receiver = Receiver::start().await;
    let secret = new_secret(s, "").await;
    assert!(secret.starts_with("whsec_"));
    let first = delivered(s, &receiver, 500).await;
    let seconds = s.app().now().as_ms() / 1000;
    assert_eq!(first.header("webhook-timestamp"), seconds.to_string());
    assert!(verifies(&first, &secret));
    // The next try has the same id, its own time, and is signed for it.
    s.advance(10_000).await;
    let second = receiver.take(200).await;
    assert_eq!(second.header("webhook-id"), first.header("webhook-id"));
    let later = (seconds + 10).to_string();
    assert_eq!(second.header("webhook-timestamp"), later);
    assert!(verifies(&second, &secret));
    let job = second.body["id"].as_str().expect("a text");
    reaches(s, job, "delivered", 2).await;
}

async fn two_secrets_are_valid_while_one_is_changed(s: &TestServer) {
    let receiver = Receiver::start().await;
    let first = new_secret(s, "").await;
    let second = new_secret(s, "?overlap=60000").await;
    assert_ne!(first, second);
    let both = delivered(s, &receiver, 200).await;
    assert!(verifies(&both, &first) && verifies(&both, &second));
    let list = s.get("/v2/ep/webhook-secret").await.ok();
    let secrets = list["secrets"].as_array().expect("a list");
    let ends = secrets.iter().map(|it| it["validUntil"].is_i64());
    assert_eq!(ends.collect::<Vec<_>>(), [false, true]);
    assert!(!list.to_string().contains("whsec_"), "shown once: {list}");

    s.advance(60_000).await;
    let one = delivered(s, &receiver, 200).await;
    assert!(!verifies(&one, &first) && verifies(&one, &second));
    // Never more than two: the one before the last ends with the next.
    new_secret(s, "").await;
    let fourth = new_secret(s, "").await;
    let last = delivered(s, &receiver, 200).await;
    assert!(!verifies(&last, &second) && verifies(&last, &fourth));
    let signatures = last.header("webhook-signature").split(' ');
    assert_eq!(signatures.count(), 2);
}

async fn an_old_secret_ends_at_once_when_that_is_asked_for(s: &TestServer) {
    let receiver = Receiver::start().await;
    let old = new_secret(s, "").await;
    let new = new_secret(s, "?overlap=0").await;
    let delivered = delivered(s, &receiver, 200).await;
    assert!(!verifies(&delivered, &old) && verifies(&delivered, &new));
    let refused = s.post("/v2/ep/webhook-secret?overlap=604800001", "").await;
    let message = refused.error(400, "invalid_query");
    assert!(message.contains("0 to 604800000 ms"), "{message}");
}

#[tokio::test]
async fn secrets_outlive_a_restart_and_nobody_sees_them_without_their_key() {
    let receiver = Receiver::start().await;
    let s = Setup::sqlite().start().await;
    let secret = new_secret(&s, "").await;
    let s = s.restart().await;
    let after = delivered(&s, &receiver, 200).await;
    assert!(verifies(&after, &secret));
    // Another server.key opens nothing; what cannot be signed is not sent, and says why.
    let setup = s.stop().await;
    std::fs::remove_file(setup.dir().join("data/server.key")).expect("it can be done");
    let s = setup.start().await;
    let id = finished(&s, &receiver.url(), r#"{"output":1}"#).await;
    let delivery = reaches(&s, &id, "pending", 1).await;
    let error = super::last_error(&delivery);
    assert!(error.contains("webhook secret cannot be opened"), "{error}");
    let secret = new_secret(&s, "").await;
    s.advance(10_000).await;
    assert!(verifies(&receiver.take(200).await, &secret));
    reaches(&s, &id, "delivered", 2).await;
    s.stop().await;
}

#[tokio::test]
async fn only_an_admin_makes_secrets() {
    run(Setup::memory().keys(), async |s| {
        let admin = s.key("admin", lazyfox_store::Access::Admin).await;
        let writer = s.key("writer", lazyfox_store::Access::ReadWrite).await;
        let call = |method: &str, key: &str| {
            let request = Request::new(method, "/v2/ep/webhook-secret");
            s.request(request.header("authorization", key))
        };
        call("POST", &writer).await.error(403, "forbidden");
        call("GET", &writer).await.ok();
        call("POST", &admin).await.ok();
    })
    .await;
}
