//! Receivers as they are: well, ill, slow, hostile. Each try is kept with what came of it.

use serde_json::{Value, json};

use super::{finished, is_quiet, last_error, reaches};
use crate::receiver::Receiver;
use crate::server::{START_MS, TestServer};

on_each_store!(
    answers_are_judged_by_their_status,
    a_receiver_can_ask_for_time,
    a_receiver_that_is_gone_is_not_called_again,
    connections_that_end_too_early_are_failed_tries,
    a_receiver_that_never_answers_costs_the_length_of_a_try,
    what_comes_after_the_status_changes_nothing,
    nobody_there_is_a_failed_try,
);

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

async fn answers_are_judged_by_their_status(s: &TestServer) {
    for (raw, status, error) in [
        (answer("200 OK", "", "thanks"), 200, None),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), 204, None),
        (
            answer("302 Found", "location: http://127.0.0.1:1/\r\n", "moved"),
            302,
            Some("answered 302; redirects are not followed"),
        ),
        (
            answer("308 X", "location: http://[::1]/\r\n", "moved"),
            308,
            Some("answered 308; redirects are not followed"),
        ),
        (answer("400 Bad", "", "what?"), 400, Some("answered 400")),
        (answer("404 Not", "", ""), 404, Some("answered 404")),
        (answer("500 Oh", "", "b\u{7}oom"), 500, Some("answered 500")),
    ] {
        let receiver = Receiver::start().await;
        let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
        receiver.answer(&raw).await;
        let state = if error.is_none() {
            "delivered"
        } else {
            "pending"
        };
        let delivery = reaches(s, &id, state, 1).await;
        let made = &delivery["tries"][0];
        assert_eq!(made["status"], status, "{made}");
        let body = raw.split("\r\n\r\n").nth(1).expect("a head and a body");
        let expected = match body {
            "" => Value::Null,
            text => json!(text.replace('\u{7}', " ")),
        };
        assert_eq!(made["answer"], expected);
        match error {
            None => assert_eq!(made["error"], Value::Null),
            Some(error) => assert!(last_error(&delivery).starts_with(error), "{made}"),
        }
    }
}

async fn a_receiver_can_ask_for_time(s: &TestServer) {
    for (asked, pause_ms) in [
        ("3600", 3_600_000),
        // The test's time is 2027-01-15 08:00:00; a date has whole seconds and time has passed.
        ("Fri, 15 Jan 2027 09:00:00 GMT", 3_600_000 - 100),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 10_000),
        ("5", 10_000),
        ("999999999999999999999999", 86_400_000),
        ("soon", 10_000),
    ] {
        let receiver = Receiver::start().await;
        let before = s.app().now();
        let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
        let header = format!("retry-after: {asked}\r\n");
        receiver.answer(&answer("429 Slow", &header, "")).await;
        let delivery = reaches(s, &id, "pending", 1).await;
        let now = before.as_ms() + 100;
        let expected = match asked.strip_suffix("09:00:00 GMT") {
            Some(_) => START_MS + 3_600_000,
            None => now + pause_ms,
        };
        assert_eq!(delivery["nextTryAt"], expected, "{asked}");
    }
}

async fn a_receiver_that_is_gone_is_not_called_again(s: &TestServer) {
    let receiver = Receiver::start().await;
    let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
    receiver.take(410).await;
    let delivery = reaches(s, &id, "failed", 1).await;
    assert!(last_error(&delivery).contains("wants this no more"));
    assert_eq!(delivery["nextTryAt"], Value::Null);
    s.advance(60_000).await;
    assert!(is_quiet(s).await);
    s.expect(&id, "COMPLETED").await;
}

async fn connections_that_end_too_early_are_failed_tries(s: &TestServer) {
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1_000_000));
    for raw in [
        "",
        "HTTP/1.1 200 OK\r\nx-half",
        "SSH-2.0-OpenSSH\r\n",
        &huge,
    ] {
        let receiver = Receiver::start().await;
        let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
        let (_, mut answering) = receiver.accept().await;
        if raw.len() < 1_000 {
            answering.write(raw).await;
        } else {
            // It does not read to the end of this.
            answering.write("HTTP/1.1 200 OK\r\nx: ").await;
            answering.write_without_end().await;
        }
        drop(answering);
        let delivery = reaches(s, &id, "pending", 1).await;
        let error = last_error(&delivery);
        assert!(error.starts_with("no answer: "), "{error}");
        assert_eq!(delivery["tries"][0]["status"], Value::Null);
    }
    let receiver = Receiver::start().await;
    let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
    receiver.accept().await.1.reset();
    let delivery = reaches(s, &id, "pending", 1).await;
    let error = last_error(&delivery);
    assert!(error.contains("reset by peer"), "{error}");
}

/// The connection stands and nothing comes, or half an answer comes.
async fn a_receiver_that_never_answers_costs_the_length_of_a_try(s: &TestServer) {
    for half in ["", "HTTP/1.1 200 OK\r\nx-slow: "] {
        let receiver = Receiver::start().await;
        let id = finished(s, &receiver.url(), r#"{"output":1}"#).await;
        let (_, mut answering) = receiver.accept().await;
        answering.write(half).await;
        s.advance(9_999).await;
        let waiting = super::deliveries(s, &id).await;
        assert_eq!(waiting[0]["tries"], json!([]), "there is time left");
        s.advance(1).await;
        let delivery = reaches(s, &id, "pending", 1).await;
        assert_eq!(last_error(&delivery), "no answer within 10 s");
        assert_eq!(delivery["tries"][0]["durationMs"], 10_000);
        answering.is_let_go().await;
    }
}

async fn what_comes_after_the_status_changes_nothing(s: &TestServer) {
    let receiver = Receiver::start().await;
    let slow = finished(s, &receiver.url(), r#"{"output":1}"#).await;
    let (_, mut answering) = receiver.accept().await;
    let begun = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc";
    answering.write(begun).await;
    guarded_advance(s, 10_000).await;
    let delivery = reaches(s, &slow, "delivered", 1).await;
    assert_eq!(delivery["tries"][0]["answer"], "abc");
    answering.is_let_go().await;

    // An end to an endless body comes without waiting for the time-out.
    let endless = finished(s, &receiver.url(), r#"{"output":1}"#).await;
    let (_, mut answering) = receiver.accept().await;
    answering.write("HTTP/1.1 200 OK\r\n\r\n").await;
    answering.write_without_end().await;
    let delivery = reaches(s, &endless, "delivered", 1).await;
    let answer = delivery["tries"][0]["answer"].as_str().expect("a text");
    assert_eq!(answer, "x".repeat(512));
    assert_eq!(delivery["tries"][0]["durationMs"], 0);
}

/// Moves the clock when the sender has read all that there is: until then its time has not begun to
/// matter, and a status that is still on its way would count as missing.
async fn guarded_advance(s: &TestServer, ms: u64) {
    // Nothing outside shows what the sender has read; the loopback has delivered it by the time that
    // another request has gone through the server.
    for _ in 0..20 {
        s.get("/healthz").await;
    }
    s.advance(ms).await;
}

async fn nobody_there_is_a_failed_try(s: &TestServer) {
    let gone = Receiver::start().await;
    let url = gone.url();
    drop(gone);
    let id = finished(s, &url, r#"{"output":1}"#).await;
    let delivery = reaches(s, &id, "pending", 1).await;
    let error = last_error(&delivery);
    assert!(
        error.starts_with("cannot connect: Connection refused"),
        "{error}"
    );
    assert!(!error.contains("token"), "{error}");
}
