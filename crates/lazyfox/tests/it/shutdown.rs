//! A server that stops answers everybody first, and one that starts goes on where it stopped.

use serde_json::json;

use crate::http::Request;
use crate::receiver::Receiver;
use crate::server::{Setup, id_of};

#[tokio::test]
async fn callers_that_wait_get_the_present_state() {
    let s = Setup::sqlite().start().await;
    let running = s.run(r#"{"input":1}"#).await;
    let worker = s.worker("w1");
    worker.take().await;
    worker
        .done(&running, r#"{"status":"IN_PROGRESS","output":"half"}"#)
        .await;
    let mut state = s
        .open(&Request::get(format!("/v2/ep/status-sync/{running}")))
        .await;
    let mut stream = s
        .open(&Request::get(format!("/v2/ep/stream/{running}")))
        .await;
    s.watched(&running, 2).await;
    let mut stops = worker.park_for_stops().await;
    let mut poll = s.worker("w2").park().await;
    let mut runsync = s
        .open(&Request::post("/v2/ep/runsync", r#"{"input":2}"#))
        .await;
    let sync = id_of(&poll.reply().await.ok());
    s.watched(&sync, 1).await;
    let mut poll = s.worker("w3").park().await;

    let setup = s.stop().await;
    let shown = state.reply().await.ok();
    assert_eq!(
        (&shown["status"], &shown["output"]),
        (&json!("IN_PROGRESS"), &json!("half"))
    );
    assert_eq!(
        stream.reply().await.ok(),
        json!({"status": "IN_PROGRESS", "stream": []})
    );
    let shown = runsync.reply().await;
    assert_eq!(shown.ok()["status"], "IN_PROGRESS");
    assert_eq!(shown.header("x-job-id"), Some(sync.as_str()));
    for refused in [stops.reply().await, poll.reply().await] {
        // The SDK pauses after this and after nothing else; it comes back to the next server.
        refused.error(429, "worker_refused");
        assert_eq!(refused.header("retry-after"), Some("5"));
    }

    // The caller of runsync was sent away without its result, so that is kept for it.
    let s = setup.start().await;
    s.worker("w2").done(&sync, r#"{"output":2}"#).await;
    s.advance(29 * 60_000).await;
    s.expect(&sync, "COMPLETED").await;
    s.stop().await;
}

#[tokio::test]
async fn a_stopping_server_takes_results_and_nothing_new() {
    let s = Setup::memory().start().await;
    let running = s.run(r#"{"input":1}"#).await;
    let failed = s.run(r#"{"input":1}"#).await;
    let worker = s.worker("w1");
    worker.batch(2).await;
    worker.done(&failed, r#"{"error":"e"}"#).await;
    let waiting = s.run(r#"{"input":1}"#).await;
    // What stop() does first; it goes on when running jobs are done.
    s.app().closing.send_replace(true);

    for refused in [
        s.post("/v2/ep/run", r#"{"input":1}"#).await,
        s.post("/v2/ep/runsync", r#"{"input":1}"#).await,
        s.post(format!("/v2/ep/retry/{failed}"), "").await,
        s.get("/readyz").await,
    ] {
        refused.error(503, "shutting_down");
        assert_eq!(refused.header("retry-after"), Some("2"));
    }
    worker
        .take_saying("job_in_progress=0")
        .await
        .error(429, "worker_refused");
    worker
        .take_saying("batch_size=2")
        .await
        .error(429, "worker_refused");
    s.request(worker.stop_poll())
        .await
        .error(429, "worker_refused");

    worker.ping(&[&running]).await;
    worker.chunk(&running, r#"{"output":"c"}"#).await;
    worker.done(&running, r#"{"output":"r"}"#).await;
    s.get("/healthz").await.ok();
    for call in ["status", "status-sync", "stream"] {
        assert_eq!(
            s.get(format!("/v2/ep/{call}/{waiting}")).await.ok()["status"],
            "IN_QUEUE"
        );
        let ended = s.get(format!("/v2/ep/{call}/{running}")).await.ok();
        assert_eq!(ended["status"], "COMPLETED");
    }
    s.post(format!("/v2/ep/cancel/{waiting}"), "").await.ok();
    s.stop().await;
}

#[tokio::test]
async fn no_answer_is_cut_off() {
    let s = Setup::sqlite().start().await;
    let big = s.run(r#"{"input":1}"#).await;
    let worker = s.worker("w1");
    worker.take().await;
    let output = "x".repeat(15 * 1024 * 1024);
    worker
        .done(&big, format!("{{\"output\":\"{output}\"}}"))
        .await;
    // More than the sockets hold, so the rest waits for its reader.
    let mut reader = s.open(&Request::get(format!("/v2/ep/status/{big}"))).await;
    reader.answer_begins().await;
    // A submission whose body the server has asked for.
    let mut writer = s.connect().await;
    let head = "POST /v2/ep/run HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n";
    writer.write(head.as_bytes()).await;
    assert_eq!(writer.reply().await.status, 100);

    let clients = async {
        writer.write(br#"{"input":7}"#).await;
        let accepted = id_of(&writer.reply().await.ok());
        let read = reader.reply().await;
        assert_eq!(
            read.json()["output"].as_str().map(str::len),
            Some(output.len())
        );
        accepted
    };
    let (setup, accepted) = tokio::join!(s.stop(), clients);
    let s = setup.start().await;
    s.expect(&accepted, "IN_QUEUE").await;
    s.stop().await;
}

#[tokio::test]
async fn a_restarted_server_goes_on_where_it_stopped() {
    let s = Setup::sqlite().start().await;
    let receiver = Receiver::start().await;
    let s3 = r#"{"accessId":"i","accessSecret":"s","bucketName":"b","endpointUrl":"u"}"#;
    let worker = s.worker("w1");
    let running = s.run(r#"{"input":"running"}"#).await;
    let silent = s.run(r#"{"input":"silent"}"#).await;
    worker.take().await;
    s.worker("w2").take().await;
    worker.chunk(&running, r#"{"output":"before"}"#).await;
    let body = format!(
        r#"{{"input":{{ "a" : 1.0 }},"s3Config":{s3},"webhook":"{}"}}"#,
        receiver.url()
    );
    let keyed = Request::post("/v2/ep/run", &body).header("idempotency-key", "k");
    let first = id_of(&s.request(keyed.clone()).await.ok());
    let second = s.run(r#"{"input":2}"#).await;
    let cancelled = s.run(r#"{"input":3}"#).await;
    s.post(format!("/v2/ep/cancel/{cancelled}"), "").await.ok();
    let before = s.status(&cancelled).await;

    let s = s.restart().await;
    assert_eq!(s.status(&cancelled).await, before);
    assert_eq!(
        id_of(&s.request(keyed).await.ok()),
        first,
        "an idempotency key is remembered"
    );
    let jobs = s.get("/v2/ep/health").await.ok()["jobs"].clone();
    let counts = [&jobs["inProgress"], &jobs["inQueue"], &jobs["cancelled"]];
    assert_eq!(counts, [&json!(2), &json!(2), &json!(1)]);

    // The worker went on meanwhile; its lease is new.
    let worker = s.worker("w1");
    s.advance(39_999).await;
    worker.chunk(&running, r#"{"output":"after"}"#).await;
    worker.done(&running, r#"{"output":[]}"#).await;
    let stream = s.get(format!("/v2/ep/stream/{running}")).await.ok();
    let chunks = json!([{"output": "before"}, {"output": "after"}]);
    assert_eq!(stream, json!({"status": "COMPLETED", "stream": chunks}));
    // The other one did not, and its job comes first.
    s.advance(1).await;
    assert_eq!(id_of(&worker.take().await), silent);
    let taken = worker.take_saying("").await;
    assert_eq!(
        taken.text(),
        format!(r#"{{"id":"{first}","input":{{ "a" : 1.0 }},"s3Config":{s3}}}"#)
    );
    assert_eq!(id_of(&worker.take().await), second);
    worker.done(&first, r#"{"error":"e"}"#).await;
    receiver.take(500).await;

    // A delivery that is due while no server runs is made up for by the next one.
    let s = s.restart().await;
    s.advance(10_000).await;
    assert_eq!(receiver.take(200).await.body["id"], first);
    s.stop().await;
}

#[tokio::test]
async fn keys_and_tokens_outlive_the_server() {
    let s = Setup::sqlite().keys().start().await;
    let key = lazyfox::server::first_key(s.app())
        .await
        .expect("the store answers");
    let key = key.expect("the first start makes one");
    let submit = Request::post("/v2/ep/run", r#"{"input":1}"#).header("authorization", &key);
    let id = id_of(&s.request(submit.clone()).await.ok());
    let (endpoint, name) = ("ep".parse().expect("a name"), "w1".parse().expect("a name"));
    let token = s.app().key.worker_token(&endpoint, &name);
    s.worker("w1").token(&token).take().await;

    let s = s.restart().await;
    let again = lazyfox::server::first_key(s.app())
        .await
        .expect("the store answers");
    assert_eq!(again, None, "only the first start makes one");
    s.request(submit).await.ok();
    s.worker("w1")
        .token(&token)
        .done(&id, r#"{"output":1}"#)
        .await;
    let status = Request::get(format!("/v2/ep/status/{id}")).header("authorization", &key);
    assert_eq!(s.request(status).await.ok()["output"], 1);
    s.stop().await;
}
