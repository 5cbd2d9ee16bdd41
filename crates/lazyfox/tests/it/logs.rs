//! Logs of workers: read, followed, filtered, and there after everything that may happen.

mod following;

use lazyfox::fleet::Enlisted;
use lazyfox::logs::{Filter, Line};
use lazyfox::providers::{Ended, Exit, Release, Source};
use lazyfox_core::id::{EndpointId, JobId, WorkerId};
use lazyfox_core::time::Timestamp;
use lazyfox_store::Access;
use serde_json::{Value, json};

use crate::events::Events;
use crate::http::Request;
use crate::server::{START_MS, Setup, TestServer, run};

on_each_store!(
    a_document_has_the_last_lines_and_where_to_go_on,
    lines_are_found_by_worker_job_and_source,
);

tests!(managed: crate::server::Setup::memory().endpoint("command = [\"sleep\", \"600\"]");
    what_is_done_with_a_worker_stands_among_its_lines,
);

pub(crate) fn ep() -> EndpointId {
    "ep".parse().expect("a name")
}

/// A worker of `ep` writes a line.
pub(crate) fn say(s: &TestServer, worker: &str, text: &str) {
    let worker: WorkerId = worker.parse().expect("a name");
    s.app().logs.say(&ep(), &worker, Source::Worker, text);
}

/// Waits until everything that was said is written.
pub(crate) async fn written(s: &TestServer) {
    let reader = s.app().logs.read(&ep(), Filter::default()).await;
    assert!(reader.is_some(), "the log is open");
}

fn sdk(job: &str, message: &str, level: &str) -> String {
    json!({"requestId": job, "message": message, "level": level}).to_string()
}

fn job(n: u8) -> String {
    JobId::new(Timestamp::from_ms(START_MS), [n; 16], false).to_string()
}

async fn document(s: &TestServer, query: &str) -> Value {
    s.get(format!("/v2/ep/logs?{query}")).await.ok()
}

/// The texts of a document's lines.
async fn texts(s: &TestServer, query: &str) -> Vec<String> {
    let document = document(s, query).await;
    let lines = document["lines"].as_array().expect("a list");
    let texts = lines
        .iter()
        .map(|it| it["line"].as_str().expect("a text").to_owned());
    texts.collect()
}

/// Opens a stream of lines.
pub(crate) async fn stream(s: &TestServer, query: &str) -> Events {
    let request = Request::get(format!("/v2/ep/logs?{query}"));
    s.listen_with(request.header("accept", "text/event-stream"))
        .await
}

/// The text of the next line of a stream.
pub(crate) async fn next(events: &mut Events) -> String {
    let (name, data) = events.next().await;
    assert_eq!(name, "message", "{data}");
    data["line"].as_str().expect("a text").to_owned()
}

async fn a_document_has_the_last_lines_and_where_to_go_on(s: &TestServer) {
    let empty = document(s, "").await;
    assert_eq!(empty, json!({"lines": [], "next": "0"}));
    let of = job(1);
    let started = sdk(&of, "Started.", "INFO");
    for text in ["first", &started, "of a job"] {
        say(s, "w1", text);
    }
    let shown = document(s, "").await;
    let ts = "2027-01-15T08:00:00.000Z";
    let expected = json!([
        {"ts": ts, "source": "worker", "worker": "w1", "line": "first"},
        {"ts": ts, "source": "worker", "worker": "w1", "job": of, "level": "INFO", "line": started},
        {"ts": ts, "source": "worker", "worker": "w1", "job": of, "line": "of a job"},
    ]);
    assert_eq!(shown["lines"], expected);
    assert_eq!(texts(s, "tail=1").await, ["of a job"]);
    assert_eq!(texts(s, "tail=0").await, [""; 0]);

    // From there on there is nothing, and then the next line, and no other.
    let place = shown["next"].as_str().expect("a text").to_owned();
    let nothing = document(s, &format!("cursor={place}")).await;
    assert_eq!(nothing, json!({"lines": [], "next": place}));
    say(s, "w1", "next");
    assert_eq!(texts(s, &format!("cursor={place}")).await, ["next"]);

    // More than fits into one document comes in several.
    for n in 0..5_010 {
        say(s, "w2", &n.to_string());
    }
    let first = document(s, &format!("cursor={place}")).await;
    assert_eq!(first["lines"].as_array().map(Vec::len), Some(5_000));
    let place = first["next"].as_str().expect("a text");
    let rest = texts(s, &format!("cursor={place}")).await;
    assert_eq!((rest.len(), rest[10].as_str()), (11, "5009"));
    let large = "x".repeat(16_000);
    for _ in 0..1_000 {
        say(s, "w3", &large);
        written(s).await;
    }
    let shown = document(s, "tail=1000").await;
    let lines = shown["lines"].as_array().map_or(0, Vec::len);
    assert!((250..300).contains(&lines), "{lines} of 16 kB each");
    let place = shown["next"].as_str().expect("a text");
    let more = texts(s, &format!("cursor={place}")).await;
    assert!(!more.is_empty(), "it goes on there");
    // However much there is of others in between.
    say(s, "w1", "at last");
    let of_one = texts(s, "worker=w1&since=1h").await;
    assert_eq!(of_one.last().map(String::as_str), Some("at last"));
    assert_eq!(of_one.len(), 5);
}

async fn lines_are_found_by_worker_job_and_source(s: &TestServer) {
    let (one, two) = (job(1), job(2));
    say(s, "w1", "loading");
    say(s, "w1", &sdk(&one, "Started.", "INFO"));
    say(s, "w2", &sdk(&two, "Started.", "INFO"));
    say(s, "w1", "of one");
    say(s, "w2", "of two");
    let logs = &s.app().logs;
    logs.system(&ep(), &"w1".parse().expect("a name"), "stopping: idle");
    logs.append(Line {
        at: s.app().now(),
        endpoint: "other".parse().expect("a name"),
        worker: "w1".parse().expect("a name"),
        job: None,
        source: Source::Worker,
        text: "of another endpoint".to_owned(),
    });
    let of_one = [sdk(&one, "Started.", "INFO"), "of one".to_owned()];
    assert_eq!(texts(s, &format!("job={one}")).await, of_one);
    let of_two = format!("worker=w2&job={two}&tail=1");
    assert_eq!(texts(s, &of_two).await, ["of two"]);
    assert_eq!(texts(s, "source=system").await, ["stopping: idle"]);
    let by_worker = texts(s, "worker=w1&source=worker").await;
    assert_eq!(by_worker.len(), 3, "{by_worker:?}");
    assert_eq!(texts(s, "worker=w1&source=container").await, by_worker);
    // The same by its path, in which the worker stands that counts.
    let path = "/v2/ep/workers/w1/logs?source=worker&worker=w2";
    let by_path = s.get(path).await.ok();
    assert_eq!(by_path["lines"].as_array().map(Vec::len), Some(3));
    // Who does not exist has said nothing.
    let unknown = job(9);
    for query in [
        "worker=nobody",
        "worker=no%20name",
        "job=none",
        &format!("job={unknown}"),
    ] {
        assert_eq!(texts(s, query).await, [""; 0], "{query}");
    }
    let other = s.get("/v2/other/logs").await.ok();
    assert_eq!(other["lines"][0]["line"], "of another endpoint");
}

async fn what_is_done_with_a_worker_stands_among_its_lines(s: &TestServer) {
    s.worker("w1").introduce().await;
    s.worker("w1").introduce().await;
    let worker: WorkerId = "w2".parse().expect("a name");
    s.app().fleet.enlist(Enlisted {
        worker: worker.clone(),
        endpoint: ep(),
        release: Release::default(),
        gpus: Vec::new(),
        started_at: s.app().now(),
        why: String::new(),
        preparing: false,
    });
    s.advance(1_250).await;
    s.worker("w2").version(None).introduce().await;
    let lines = texts(s, "source=system").await;
    assert_eq!(
        lines,
        ["ready, SDK 1.12.0", "ready after 1.2 s, SDK unknown"]
    );
    let end = Ended {
        worker,
        endpoint: ep(),
        exit: Exit::Code(0),
        last_lines: Vec::new(),
    };
    s.app().fleet.ended(&end, s.app().now());
}

#[tokio::test]
async fn since_is_a_duration_or_a_point_in_time() {
    run(Setup::memory(), async |s| {
        for text in ["early", "late", "now"] {
            say(s, "w", text);
            if text != "now" {
                s.advance(60_000).await;
            }
        }
        for (since, expected) in [
            ("1h", &["early", "late", "now"][..]),
            ("2m", &["early", "late", "now"]),
            ("90s", &["late", "now"]),
            ("0s", &["now"]),
            ("2027-01-15T08:01:00Z", &["late", "now"]),
            ("2027-01-15T08:01:00.001Z", &["now"]),
            ("2027-01-15%2008:01:00Z", &["late", "now"]),
            ("2027-01-15T09:01:00%2B01:00", &["late", "now"]),
            // Nobody remembers to escape it.
            ("2027-01-15T09:01:00+01:00", &["late", "now"]),
            ("9999999-01-01T00:00:00Z", &[]),
        ] {
            assert_eq!(
                texts(s, &format!("since={since}")).await,
                expected,
                "{since}"
            );
            // It beats tail.
            let query = format!("tail=1&since={since}");
            assert_eq!(texts(s, &query).await, expected, "{since}");
        }
    })
    .await;
}

#[tokio::test]
async fn wrong_parameters_are_named_with_their_limits() {
    run(Setup::memory(), async |s| {
        for (query, said) in [
            ("tail=5001", "tail is 5001, allowed are 0 to 5000"),
            ("tail=-1", "tail is \"-1\", it should be a whole number"),
            (
                "since=soon",
                "since is \"soon\", it should be how long ago (90s",
            ),
            ("since=10m&tail=x", "tail is \"x\""),
            ("cursor=x", "cursor is \"x\", it should be a whole number"),
            (
                "follow=1",
                "follow is \"1\", it should be one of true, false",
            ),
            (
                "source=both",
                "source is \"both\", it should be one of worker, system",
            ),
        ] {
            for path in ["/v2/ep/logs", "/v2/ep/workers/w1/logs"] {
                let reply = s.get(format!("{path}?{query}")).await;
                let text = reply.error(400, "invalid_query");
                assert!(text.contains(said), "{text}");
            }
        }
        let request = Request::get("/v2/ep/logs").header("last-event-id", "x");
        let text = s.request(request).await.error(400, "invalid_query");
        assert!(text.contains("Last-Event-ID is \"x\""), "{text}");
        s.get("/v2/none/logs")
            .await
            .error(404, "endpoint_not_found");
    })
    .await;
}

#[tokio::test]
async fn who_may_read_the_endpoint_may_read_its_logs() {
    run(Setup::memory().keys(), async |s| {
        say(s, "w", "x");
        let reader = s.key("reader", Access::ReadOnly).await;
        let (text, key) = lazyfox::keyring::make(
            "of another",
            Access::ReadOnly,
            Some(vec!["other".parse().expect("a name")]),
            s.app().now(),
        );
        s.app().store.add_key(key).await.expect("the store answers");
        for path in ["/v2/ep/logs", "/v2/ep/workers/w/logs"] {
            let with = |key: &str| Request::get(path).header("authorization", key);
            let shown = s.request(with(&reader)).await.ok();
            assert_eq!(shown["lines"][0]["line"], "x");
            s.request(with(&text)).await.error(403, "forbidden");
            s.get(path).await.error(401, "unauthorized");
        }
    })
    .await;
}

#[tokio::test]
async fn lines_outlive_the_server() {
    for setup in [Setup::memory(), Setup::sqlite()] {
        let s = setup.start().await;
        say(&s, "w", "before");
        let place = document(&s, "").await["next"].clone();
        let s = s.restart().await;
        say(&s, "w", "after");
        assert_eq!(texts(&s, "").await, ["before", "after"]);
        let place = place.as_str().expect("a text");
        assert_eq!(texts(&s, &format!("cursor={place}")).await, ["after"]);
        s.stop().await;
    }
}
