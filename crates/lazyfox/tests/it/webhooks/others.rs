//! What one receiver does harms no other, and nothing else.

use serde_json::{Value, json};

use super::{finished, finished_on, is_quiet, last_error, reaches};
use crate::http::until;
use crate::receiver::Receiver;
use crate::server::{Setup, TestServer, run};

/// A host where nobody listens.
async fn dead_url() -> String {
    Receiver::start().await.url()
}

#[tokio::test]
async fn a_receiver_that_is_down_for_a_day_delays_nobody() {
    run(Setup::sqlite().endpoint("webhook.tries = 50"), async |s| {
        let (dead, well) = (dead_url().await, Receiver::start().await);
        let mut waiting = Vec::new();
        for hour in 0..24 {
            for _ in 0..5 {
                waiting.push(finished(s, &dead, r#"{"output":1}"#).await);
            }
            let id = finished(s, &well.url(), r#"{"output":1}"#).await;
            assert_eq!(well.take(200).await.body["id"], id, "hour {hour}");
            let delivery = reaches(s, &id, "delivered", 1).await;
            assert_eq!(delivery["tries"][0]["durationMs"], 0);
            s.advance(3_600_000).await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_dead_host_is_told_and_given_up_after_an_hour() {
    run(Setup::sqlite(), async |s| {
        let dead = dead_url().await;
        // The first five are tried and show that nobody is there.
        for _ in 0..5 {
            let id = finished(s, &dead, r#"{"output":1}"#).await;
            reaches(s, &id, "pending", 1).await;
        }
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(finished(s, &dead, r#"{"output":1}"#).await);
        }
        let [first, second, id] = &waiting[..] else {
            panic!("three wait")
        };
        let delivery = reaches(s, id, "pending", 0).await;
        let hold = delivery["hold"].as_str().expect("a text");
        assert!(hold.contains("has not answered 5 tries in a row"), "{hold}");
        assert!(is_quiet(s).await);

        // One try at a time finds out, that of who waits longest; the others lose none of theirs.
        s.advance(1_000).await;
        reaches(s, first, "pending", 1).await;
        reaches(s, second, "pending", 0).await;
        s.advance(3_600_000).await;
        reaches(s, second, "pending", 1).await;
        let delivery = reaches(s, id, "failed", 1).await;
        let error = last_error(&delivery);
        assert!(
            error.starts_with("not sent for 60 minutes and given up"),
            "{error}"
        );
        s.expect(id, "COMPLETED").await;
    })
    .await;
}

#[tokio::test]
async fn a_host_that_comes_back_gets_what_waited_with_all_tries_left() {
    run(Setup::memory(), async |s| {
        let receiver = Receiver::start().await;
        let url = receiver.url();
        for _ in 0..5 {
            let id = finished(s, &url, r#"{"output":1}"#).await;
            drop(receiver.accept().await);
            reaches(s, &id, "pending", 1).await;
        }
        let id = finished(s, &url, r#"{"output":1}"#).await;
        s.advance(1_000).await;
        let delivered = receiver.take(200).await;
        assert_eq!(delivered.body["id"], id, "the one that was due");
        let delivery = reaches(s, &id, "delivered", 1).await;
        assert_eq!(delivery["hold"], Value::Null);
    })
    .await;
}

/// Whoever answers slowly has its places, and no more.
#[tokio::test]
async fn a_slow_receiver_has_its_places_and_others_have_theirs() {
    let bounds = "webhooks_at_once = 8\nwebhooks_per_host = 2";
    run(Setup::sqlite().server(bounds), async |s| {
        let (slow, well) = (Receiver::start().await, Receiver::start().await);
        for _ in 0..10 {
            finished(s, &slow.url(), r#"{"output":1}"#).await;
        }
        let held = [slow.accept().await, slow.accept().await];
        assert_eq!(s.app().traffic().under_way(), 2);
        let id = finished(s, &well.url(), r#"{"output":1}"#).await;
        well.take(200).await;
        reaches(s, &id, "delivered", 1).await;
        // In the order in which the jobs ended, two at a time.
        let jobs = held
            .iter()
            .map(|(delivered, _)| delivered.body["id"].clone());
        let jobs: Vec<Value> = jobs.collect();
        assert_ne!(jobs[0], jobs[1]);
        drop(held);
        slow.accept().await;
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_with_many_slow_hosts_leaves_places_to_others() {
    let bounds = "webhooks_at_once = 8\nwebhooks_per_host = 2";
    run(Setup::memory().server(bounds), async |s| {
        let mut slow = Vec::new();
        for _ in 0..5 {
            let receiver = Receiver::start().await;
            for _ in 0..2 {
                finished(s, &receiver.url(), r#"{"output":1}"#).await;
            }
            slow.push(receiver);
        }
        // Connections wait in the receivers' backlogs, unanswered.
        let all_sent = || s.app().traffic().under_way() == 6;
        until("three quarters of the places are taken", all_sent).await;
        let well = Receiver::start().await;
        let id = finished_on(s, "other", &well.url(), r#"{"output":1}"#).await;
        assert_eq!(well.take(200).await.body["id"], id);
    })
    .await;
}

on_each_store!(a_webhook_changes_nothing_of_its_job);

async fn a_webhook_changes_nothing_of_its_job(s: &TestServer) {
    let receiver = Receiver::start().await;
    let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
    let (_, mut answering) = receiver.accept().await;
    let before = s.status(&id).await;
    assert_eq!(before["status"], "COMPLETED");
    answering
        .write("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n")
        .await;
    reaches(s, &id, "pending", 1).await;
    assert_eq!(s.status(&id).await, before);
    assert_eq!(before["output"], json!(1));
}
