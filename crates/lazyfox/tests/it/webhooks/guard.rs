//! Where webhooks may not go.

use serde_json::Value;

use super::{finished, last_error, reaches};
use crate::receiver::Receiver;
use crate::server::{Setup, TestServer, run};

/// Refused at submission, with this in the message.
const REFUSED: [(&str, &str); 24] = [
    ("ftp://example.org/x", "http or https"),
    ("gopher://127.0.0.1:6379/_INFO", "http or https"),
    ("example.org/x", "http or https"),
    ("http://user@example.org/", "user name"),
    ("http://127.0.0.1@example.org/", "user name"),
    ("http://:secret@example.org/", "password"),
    ("http://example.org:22/", "port 22 is for another protocol"),
    ("http://example.org:6379/", "port 6379 is for another"),
    ("http://127.0.0.1:8080/", "127.0.0.1 is a loopback address"),
    ("http://127.1/", "127.0.0.1 is a loopback address"),
    ("http://2130706433/", "127.0.0.1 is a loopback address"),
    ("http://0x7f000001/", "127.0.0.1 is a loopback address"),
    ("http://0177.0.0.1/", "127.0.0.1 is a loopback address"),
    ("http://0x7f.0.0.01/", "127.0.0.1 is a loopback address"),
    ("http://[::1]/", "::1 is a loopback address"),
    ("http://[::ffff:127.0.0.1]/", "loopback"),
    ("http://[64:ff9b::7f00:1]/", "loopback"),
    ("http://[2002:7f00:1::]/", "loopback"),
    ("http://localhost:3000/", "localhost is this machine"),
    ("http://10.0.0.7/", "10.0.0.7 is a private address"),
    ("http://169.254.169.254/latest/", "metadata"),
    ("http://100.64.0.1/", "shared"),
    ("http://0/", "0.0.0.0 is"),
    ("http://224.0.0.1/", "multicast"),
];

#[tokio::test]
async fn what_can_be_told_from_the_url_is_refused_at_once() {
    run(Setup::strict(), async |s| {
        for (url, why) in REFUSED {
            for key in ["webhook", "webhookV2"] {
                let body = format!(r#"{{"input":1,"{key}":"{url}"}}"#);
                let message = s
                    .post("/v2/ep/run", body)
                    .await
                    .error(400, "invalid_webhook");
                assert!(message.contains(why), "{url}: {message}");
            }
        }
        let health = s.get("/v2/ep/health").await.ok();
        assert_eq!(health["jobs"]["inQueue"], 0, "nothing was kept");
    })
    .await;
}

/// Names are looked up when the delivery is due, and what they lead to is judged then.
#[tokio::test]
async fn what_shows_at_delivery_is_the_reason_of_the_try() {
    // A listed name may be used at submission, so that the list can be taken away afterwards.
    let s = Setup::sqlite().start().await;
    let receiver = Receiver::start().await;
    let port = receiver.address().port();
    let addressed = finished(&s, &receiver.url(), r#"{"output":1}"#).await;
    receiver.take(500).await;
    reaches(&s, &addressed, "pending", 1).await;
    let url = format!("http://localhost:{port}/hook");
    let named = finished(&s, &url, r#"{"output":1}"#).await;
    receiver.take(500).await;
    reaches(&s, &named, "pending", 1).await;

    let s = s.stop().await.with_allowed("[]").start().await;
    s.advance(10_000).await;
    let delivery = reaches(&s, &addressed, "pending", 2).await;
    let error = last_error(&delivery);
    assert!(error.contains("127.0.0.1 is a loopback address"), "{error}");
    assert!(error.contains("server.webhook_allow"), "{error}");
    assert_eq!(delivery["tries"][1]["status"], Value::Null);
    let delivery = reaches(&s, &named, "pending", 2).await;
    let error = last_error(&delivery);
    assert!(error.contains("localhost is this machine"), "{error}");

    // Back on the list, by name.
    let s = s.stop().await.with_allowed("[\"localhost\"]").start().await;
    s.advance(10_000).await;
    assert_eq!(receiver.take(200).await.body["id"], named);
    reaches(&s, &named, "delivered", 3).await;
    reaches(&s, &addressed, "failed", 3).await;
    s.stop().await;
}

on_each_store!(a_name_that_does_not_exist_is_a_failed_try);

async fn a_name_that_does_not_exist_is_a_failed_try(s: &TestServer) {
    let url = "http://no-such-host.invalid/hook?token=t";
    let id = finished(s, url, r#"{"output":1}"#).await;
    let delivery = reaches(s, &id, "pending", 1).await;
    let error = last_error(&delivery);
    assert!(error.starts_with("cannot connect: "), "{error}");
    assert!(!error.contains("token"), "{error}");
    s.expect(&id, "COMPLETED").await;
}
