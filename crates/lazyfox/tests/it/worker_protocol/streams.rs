//! Streams: each call takes what came since the last one.

use bytes::Bytes;
use lazyfox_core::limits;
use lazyfox_store::ChunksKept;
use serde_json::{Value, json};

use crate::http::Request;
use crate::server::{Setup, TestServer};

on_each_store!(
    point_11_chunks_come_in_order_and_once,
    point_11_a_reader_is_woken_by_a_chunk,
    point_11_the_last_chunks_come_with_the_final_status,
    point_11_a_stream_ends_whatever_ended_the_job,
    point_11_only_the_holder_streams,
);

tests!(small: super::small();
    long_strings_are_split_and_other_json_passes_whole,
    more_than_an_answer_holds_comes_in_several,
    a_chunk_that_cannot_be_kept_fails_the_job,
    a_stream_that_nobody_reads_fails_the_job_in_the_end,
);

fn small() -> Setup {
    Setup::memory()
        .server("chunk_bytes = 1024")
        .server("result_bytes = 8192")
}

/// A running job, and its worker's name.
async fn running(s: &TestServer, name: &str) -> String {
    let id = s.run(r#"{"input":1}"#).await;
    s.worker(name).take().await;
    id
}

async fn stream(s: &TestServer, id: &str) -> Value {
    s.get(format!("/v2/ep/stream/{id}?wait=1000")).await.ok()
}

fn outputs(answer: &Value) -> Vec<Value> {
    let items = answer["stream"].as_array().expect("a list, always");
    // An object with one key: strict clients take nothing else.
    items
        .iter()
        .map(|item| {
            assert_eq!(
                item.as_object().map(serde_json::Map::len),
                Some(1),
                "{item}"
            );
            item["output"].clone()
        })
        .collect()
}

async fn point_11_chunks_come_in_order_and_once(s: &TestServer) {
    let id = running(s, "w1").await;
    let worker = s.worker("w1");
    for chunk in [
        "{\"token\": \"Hel\"}",
        "\"lo\"",
        "1e400",
        "null",
        "NaN",
        "[]",
    ] {
        worker.chunk(&id, format!("{{\"output\": {chunk}}}")).await;
    }
    worker.chunk(&id, r#"{"error": {"m": 1}}"#).await;
    worker.chunk(&id, "{}").await;
    let all = concat!(
        r#"{"status":"IN_PROGRESS","stream":[{"output":{"token": "Hel"}},{"output":"lo"},"#,
        r#"{"output":1e400},{"output":null},{"output":null},{"output":[]},"#,
        r#"{"output":{"error":{"m": 1}}},{"output":null}]}"#
    );
    assert_eq!(s.get(format!("/v2/ep/stream/{id}")).await.text(), all);

    worker.chunk(&id, r#"{"output":"next"}"#).await;
    let next = s.post(format!("/v2/ep/stream/{id}"), "").await.ok();
    assert_eq!(
        next,
        json!({"status": "IN_PROGRESS", "stream": [{"output": "next"}]})
    );
}

async fn point_11_a_reader_is_woken_by_a_chunk(s: &TestServer) {
    let id = s.run(r#"{"input":1}"#).await;
    let mut reader = s.open(&Request::get(format!("/v2/ep/stream/{id}"))).await;
    s.watched(&id, 1).await;
    let worker = s.worker("w1");
    worker.take().await;
    // That the job started is no chunk.
    s.get("/healthz").await.ok();
    assert!(reader.is_silent());
    worker.chunk(&id, r#"{"output":1}"#).await;
    let woken = reader.reply().await.ok();
    assert_eq!(
        woken,
        json!({"status": "IN_PROGRESS", "stream": [{"output": 1}]})
    );
}

async fn point_11_the_last_chunks_come_with_the_final_status(s: &TestServer) {
    let id = running(s, "w1").await;
    let worker = s.worker("w1");
    for n in 0..3 {
        worker.chunk(&id, format!("{{\"output\":{n}}}")).await;
    }
    worker.done(&id, r#"{"output": []}"#).await;
    let last = stream(s, &id).await;
    assert_eq!(last["status"], "COMPLETED");
    assert_eq!(outputs(&last), [0, 1, 2]);
    // Afterwards the same status and nothing, at once and for ever.
    for _ in 0..3 {
        assert_eq!(
            stream(s, &id).await,
            json!({"status": "COMPLETED", "stream": []})
        );
    }
    assert_eq!(s.expect(&id, "COMPLETED").await["output"], json!([]));

    // A handler that is no generator streams nothing, and its reader ends with it.
    let id = running(s, "w1").await;
    let mut reader = s.open(&Request::get(format!("/v2/ep/stream/{id}"))).await;
    s.watched(&id, 1).await;
    worker.done(&id, r#"{"output":"whole"}"#).await;
    assert_eq!(
        reader.reply().await.ok(),
        json!({"status": "COMPLETED", "stream": []})
    );
}

async fn point_11_a_stream_ends_whatever_ended_the_job(s: &TestServer) {
    for (status, name) in [("FAILED", "w1"), ("CANCELLED", "w2"), ("TIMED_OUT", "w3")] {
        let id = running(s, name).await;
        let worker = s.worker(name);
        worker.chunk(&id, r#"{"output":1}"#).await;
        match status {
            "FAILED" => worker.done(&id, r#"{"error":"boom"}"#).await,
            "CANCELLED" => drop(s.post(format!("/v2/ep/cancel/{id}"), "").await.ok()),
            _ => {
                s.get(format!("/v2/ep/status/{id}?ttl=1000")).await.ok();
                s.advance(1_000).await;
            }
        }
        let last = stream(s, &id).await;
        assert_eq!(last, json!({"status": status, "stream": [{"output": 1}]}));
        // What comes late is dropped.
        worker.chunk(&id, r#"{"output":"late"}"#).await;
        assert_eq!(
            stream(s, &id).await,
            json!({"status": status, "stream": []})
        );
    }
}

async fn point_11_only_the_holder_streams(s: &TestServer) {
    let id = running(s, "w1").await;
    let foreign = s.worker("w2");
    foreign.introduce().await;
    foreign.chunk(&id, r#"{"output":"foreign"}"#).await;
    foreign.chunk("no-job", r#"{"output":1}"#).await;
    foreign.chunk(&id, "not JSON").await;
    s.worker("w1").chunk(&id, r#"{"output":"own"}"#).await;
    assert_eq!(outputs(&stream(s, &id).await), ["own"]);

    // The chunks of a lost attempt are not those of the next one.
    s.worker("w1").chunk(&id, r#"{"output":"half"}"#).await;
    s.advance(40_000).await;
    let second = s.worker("w3");
    second.take().await;
    s.worker("w1").chunk(&id, r#"{"output":"late"}"#).await;
    second.chunk(&id, r#"{"output":"again"}"#).await;
    assert_eq!(outputs(&stream(s, &id).await), ["again"]);
}

async fn long_strings_are_split_and_other_json_passes_whole(s: &TestServer) {
    let id = running(s, "w1").await;
    let worker = s.worker("w1");
    // Characters of all lengths, so that a cut in the middle of one would show.
    let long: String = "aé☃😀\"\n".chars().cycle().take(3_000).collect();
    worker.chunk(&id, json!({"output": long}).to_string()).await;
    let answer = stream(s, &id).await;
    let pieces = outputs(&answer);
    assert!(pieces.len() > 1, "{} pieces", pieces.len());
    let whole: String = pieces.iter().filter_map(Value::as_str).collect();
    assert!(whole == long, "the pieces are another text");
    assert!(
        pieces
            .iter()
            .all(|piece| piece.as_str().is_some_and(|text| text.len() < 1_100))
    );

    let list: Vec<u32> = (0..1_000).collect();
    worker.chunk(&id, json!({"output": list}).to_string()).await;
    assert_eq!(outputs(&stream(s, &id).await), [json!(list)]);
}

async fn more_than_an_answer_holds_comes_in_several(s: &TestServer) {
    let id = running(s, "w1").await;
    let worker = s.worker("w1");
    let text = "x".repeat(1_000);
    for n in 0..30 {
        worker
            .chunk(&id, format!("{{\"output\":\"{n} {text}\"}}"))
            .await;
    }
    worker.done(&id, r#"{"output":[]}"#).await;
    let mut seen = 0;
    loop {
        let answer = stream(s, &id).await;
        for output in outputs(&answer) {
            assert_eq!(output, format!("{seen} {text}"));
            seen += 1;
        }
        // A client stops at the first final status, so none is shown before the last chunk.
        if answer["status"] == "COMPLETED" {
            break;
        }
        assert_eq!(answer["status"], "IN_PROGRESS");
    }
    assert_eq!(seen, 30);
}

async fn a_chunk_that_cannot_be_kept_fails_the_job(s: &TestServer) {
    let huge = format!("{{\"output\":[\"{}\"]}}", "x".repeat(2 * 1024 * 1024));
    for (name, chunk, why) in [
        (
            "w1",
            "{\"output\":",
            "a chunk of the stream is not valid JSON",
        ),
        ("w2", "tok", "a chunk of the stream is not valid JSON"),
        ("w3", &huge, "exceeds the limit of 8192 bytes"),
    ] {
        let id = running(s, name).await;
        let worker = s.worker(name);
        worker.chunk(&id, r#"{"output":1}"#).await;
        worker.chunk(&id, chunk).await;
        let error = s.expect(&id, "FAILED").await["error"].clone();
        let error = error.as_str().expect("a string");
        assert!(error.contains(why), "{error}");
        // What was kept can still be read.
        assert_eq!(outputs(&stream(s, &id).await), [1]);
        worker.done(&id, r#"{"output":[]}"#).await;
        s.expect(&id, "FAILED").await;
    }
}

async fn a_stream_that_nobody_reads_fails_the_job_in_the_end(s: &TestServer) {
    let id = running(s, "w1").await;
    let worker = s.worker("w1");
    // All the room but three bytes. It is taken behind HTTP's back, so that no memory is really used.
    let (endpoint, name) = ("ep".parse().expect("a name"), "w1".parse().expect("a name"));
    let job = id.parse().expect("the server made it");
    let filling = Bytes::from(vec![0; limits::STREAM_BYTES - 3]);
    let kept = s
        .app()
        .store
        .append_chunks(&endpoint, job, &name, vec![filling])
        .await;
    assert_eq!(kept, Ok(ChunksKept::Kept));

    worker.chunk(&id, r#"{"output":123}"#).await;
    s.expect(&id, "IN_PROGRESS").await;
    worker.chunk(&id, r#"{"output":4}"#).await;
    let error = s.expect(&id, "FAILED").await["error"].clone();
    assert_eq!(
        error,
        "more than 268435456 bytes of the stream wait for a reader"
    );
}
