//! When tries are made: to the millisecond, on a moved clock, and across restarts.

use serde_json::Value;

use super::{finished, is_quiet, reaches};
use crate::receiver::Receiver;
use crate::server::{Setup, TestServer, run};

/// The pauses between the tries of a delivery whose receiver always answers 500, in milliseconds.
async fn pauses(s: &TestServer) -> Vec<u64> {
    let receiver = Receiver::start().await;
    let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
    let mut pauses = Vec::new();
    loop {
        let delivered = receiver.take(500).await;
        assert_eq!(delivered.header("webhook-id"), format!("{id}_1"));
        let tries = pauses.len() + 1;
        let delivery = crate::http::guarded("the try is noted", async {
            loop {
                let delivery = super::deliveries(s, &id).await.remove(0);
                if delivery["tries"].as_array().expect("a list").len() == tries {
                    break delivery;
                }
            }
        })
        .await;
        let Some(next) = delivery["nextTryAt"].as_i64() else {
            assert_eq!(delivery["state"], "failed");
            break;
        };
        let pause = u64::try_from(next - s.app().now().as_ms()).expect("it can be done");
        s.advance(pause - 1).await;
        assert!(is_quiet(s).await, "not before its time");
        s.advance(1).await;
        pauses.push(pause);
    }
    s.advance(7 * 86_400_000).await;
    assert!(is_quiet(s).await, "given up is given up");
    pauses
}

#[tokio::test]
async fn the_default_is_two_more_tries_ten_seconds_apart() {
    run(Setup::memory(), async |s| {
        assert_eq!(pauses(s).await, [10_000, 10_000]);
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_can_have_none() {
    run(Setup::memory().endpoint("webhook.tries = 1"), async |s| {
        assert_eq!(pauses(s).await, [0; 0]);
    })
    .await;
}

#[tokio::test]
async fn pauses_can_grow_to_hours() {
    let schedule = "webhook = { tries = 6, pause_s = 60, growth = 10.0, pause_max_s = 14400 }";
    run(Setup::sqlite().endpoint(schedule), async |s| {
        let expected = [60_000, 600_000, 6_000_000, 14_400_000, 14_400_000];
        assert_eq!(pauses(s).await, expected);
    })
    .await;
}

#[tokio::test]
async fn jitter_stays_within_its_share() {
    let schedule = "webhook = { tries = 4, jitter = 0.5 }";
    run(Setup::memory().endpoint(schedule), async |s| {
        let pauses = pauses(s).await;
        assert!(
            pauses.iter().all(|ms| (10_000..15_000).contains(ms)),
            "{pauses:?}"
        );
        // Three times the same thousandth of a second would be no dice.
        assert!(pauses.windows(2).any(|two| two[0] != two[1]), "{pauses:?}");
    })
    .await;
}

#[tokio::test]
async fn a_restart_goes_on_where_the_schedule_was() {
    let receiver = Receiver::start().await;
    let s = Setup::sqlite().start().await;
    let id = finished(&s, &receiver.url(), r#"{"output":1}"#).await;
    let first = receiver.take(500).await;
    let before = reaches(&s, &id, "pending", 1).await;
    let s = s.restart().await;
    let after = reaches(&s, &id, "pending", 1).await;
    assert_eq!(after, before);
    assert!(is_quiet(&s).await, "not before its time");
    s.advance(10_000).await;
    let second = receiver.take(500).await;
    assert_eq!(second.body, first.body);
    assert_eq!(second.header("webhook-id"), first.header("webhook-id"));
    reaches(&s, &id, "pending", 2).await;
    let s = s.restart().await;
    s.advance(10_000).await;
    receiver.take(500).await;
    let last = reaches(&s, &id, "failed", 3).await;
    assert_eq!(last["nextTryAt"], Value::Null);
    s.stop().await;
}
