//! Logs as they grow.

use std::sync::Arc;

use lazyfox_store::Access;

use super::{next, say, stream, written};
use crate::events::Events;
use crate::http::{Request, guarded, until};
use crate::server::{Setup, TestServer, run};

on_each_store!(
    what_was_comes_first_and_then_what_comes,
    streams_may_end_where_the_log_does,
);

async fn what_was_comes_first_and_then_what_comes(s: &TestServer) {
    say(s, "w1", "long ago");
    say(s, "w1", "before");
    let mut all = stream(s, "tail=1").await;
    let mut one = stream(s, "worker=w2&follow=true").await;
    let mut live = stream(s, "tail=0").await;
    assert_eq!(next(&mut all).await, "before");
    say(s, "w1", "now");
    say(s, "w2", "of another");
    assert_eq!(next(&mut all).await, "now");
    assert_eq!(next(&mut all).await, "of another");
    assert_eq!(next(&mut one).await, "of another");
    assert_eq!(next(&mut live).await, "now");
    // Who asks for it gets events without saying what they accept.
    let request = Request::get("/v2/ep/workers/w2/logs?follow=true");
    let mut plain = s.listen_with(request).await;
    assert_eq!(next(&mut plain).await, "of another");
}

async fn streams_may_end_where_the_log_does(s: &TestServer) {
    for n in 0..3_000 {
        say(s, "w", &n.to_string());
    }
    let mut events = stream(s, "tail=2500&follow=false").await;
    for n in 500..3_000 {
        assert_eq!(next(&mut events).await, n.to_string());
    }
    events.end().await;
    let mut nothing = stream(s, "worker=nobody&follow=false").await;
    nothing.end().await;
}

#[tokio::test]
async fn streams_say_what_they_are() {
    let s = Setup::memory().start().await;
    let request =
        Request::get("/v2/ep/logs").header("accept", "text/html, text/event-stream;q=0.5");
    let (_, headers) = s.open(&request).await.head().await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
    ] {
        let found = headers.iter().find(|(known, _)| known == name);
        assert_eq!(
            found.map(|(_, value)| value.as_str()),
            Some(value),
            "{name}"
        );
    }
    s.stop().await;
}

/// Opens a stream that goes on after the event of this id.
async fn back(s: &TestServer, query: &str, id: &str) -> Events {
    let request = Request::get(format!("/v2/ep/logs?follow=true&{query}"));
    s.listen_with(request.header("last-event-id", id)).await
}

#[tokio::test]
async fn who_comes_back_goes_on_where_it_was() {
    run(Setup::memory(), async |s| {
        let mut events = stream(s, "tail=0").await;
        // The place is known before there is any line.
        let place = events.id.clone().expect("an id");
        for text in ["a", "b", "c"] {
            say(s, "w", text);
        }
        assert_eq!(next(&mut events).await, "a");
        let id = events.id.clone().expect("an id");
        drop(events);
        // It beats since, which beats tail.
        let mut events = back(s, "since=1h&tail=1", &id).await;
        assert_eq!(next(&mut events).await, "b");
        assert_eq!(next(&mut events).await, "c");
        let mut events = back(s, "tail=1", &place).await;
        assert_eq!(next(&mut events).await, "a");
    })
    .await;
}

#[tokio::test]
async fn a_place_in_the_log_is_exact_for_who_asked_since_when() {
    run(Setup::memory(), async |s| {
        say(s, "w", "old");
        s.advance(60_000).await;
        say(s, "w", "new");
        let events = stream(s, "since=30s").await;
        let place = events.id.clone().expect("an id");
        drop(events);
        let mut events = back(s, "", &place).await;
        assert_eq!(next(&mut events).await, "new");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_while_many_lines_come() {
    let lines = 3_000;
    let s = Setup::memory().start().await;
    let app = Arc::clone(s.app());
    let writing = std::thread::spawn(move || {
        let worker = "w".parse().expect("a name");
        for n in 0..lines {
            let source = lazyfox::providers::Source::Worker;
            app.logs.say(&super::ep(), &worker, source, &n.to_string());
        }
    });
    // Followers that come at any time, and go and come back.
    let mut followers = Vec::new();
    for _ in 0..4 {
        followers.push(stream(&s, "tail=5000").await);
    }
    for (at, mut events) in followers.into_iter().enumerate() {
        let mut n = 0;
        while n < lines {
            assert_eq!(next(&mut events).await, n.to_string());
            n += 1;
            if n % 500 == at * 100 {
                let id = events.id.clone().expect("an id");
                events = back(&s, "", &id).await;
            }
        }
    }
    writing.join().expect("it only writes");
    s.stop().await;
}

#[tokio::test]
async fn who_reads_too_slowly_is_told_what_is_missing_and_costs_no_memory() {
    let s = Setup::memory().server("logs_mib = 1").start().await;
    say(&s, "w", "first");
    let mut events = stream(&s, "tail=1").await;
    // Far more than the log holds and than fits on the way.
    let text = "x".repeat(10_000);
    for _ in 0..40 {
        for _ in 0..100 {
            say(&s, "w", &text);
        }
        written(&s).await;
    }
    say(&s, "w", "last");
    let (mut lines, mut missed) = (0, 0);
    loop {
        let (name, data) = events.next().await;
        match name.as_str() {
            "message" if data["line"] == "last" => break,
            "message" => lines += 1,
            _ => {
                assert_eq!(name, "missed");
                for end in ["from", "to"] {
                    let time = data[end].as_str().expect("a time");
                    assert!(time.starts_with("2027-01-15T08:00:00.00"), "{data}");
                }
                missed += 1;
            }
        }
    }
    assert!(missed > 0 && lines < 4_000, "{missed} gaps, {lines} lines");
    s.stop().await;
}

#[tokio::test]
async fn the_65th_follower_is_refused() {
    let s = Setup::memory().start().await;
    let mut followers = Vec::new();
    for _ in 0..64 {
        followers.push(stream(&s, "").await);
    }
    let request = || Request::get("/v2/ep/logs?follow=true");
    let refused = s.request(request()).await;
    refused.error(429, "too_many_listeners");
    // Those who only read are not followers.
    s.get("/v2/ep/logs").await.ok();
    stream(&s, "follow=false").await.end().await;
    s.listen_with(Request::get("/v2/other/logs?follow=true"))
        .await;
    followers.pop();
    let place = || s.app().logs.follow(&super::ep());
    until("the place is free", || place().is_some()).await;
    s.listen_with(request()).await;
    s.stop().await;
}

#[tokio::test]
async fn a_stopping_server_tells_the_last_line_and_ends_its_streams() {
    let s = Setup::memory().start().await;
    let mut events = stream(&s, "").await;
    // What stop() does first.
    s.app().closing.send_replace(true);
    let request = Request::get("/v2/ep/logs?follow=true");
    s.request(request).await.error(503, "shutting_down");
    say(&s, "w", "last words");
    s.stop().await;
    assert_eq!(next(&mut events).await, "last words");
    events.end().await;
}

#[tokio::test]
async fn a_revoked_key_follows_no_longer() {
    run(Setup::memory().keys(), async |s| {
        let reader = s.key("reader", Access::ReadOnly).await;
        let request = Request::get("/v2/ep/logs?follow=true");
        let mut events = s
            .listen_with(request.header("authorization", &reader))
            .await;
        let store = &s.app().store;
        let keys = store.keys().await.expect("the store answers");
        let key = keys.iter().find(|key| key.label == "reader");
        let id = &key.expect("it is kept").id;
        let revoked = store.revoke_key(id, s.app().now()).await;
        assert!(revoked.expect("the store answers"));
        s.advance(3_000).await;
        guarded("the stream ends", events.end()).await;
    })
    .await;
}
