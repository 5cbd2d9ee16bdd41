//! What a handler does is what the client sees, for a worker of any version.

use serde_json::{Value, json};

use crate::gate::Gate;
use crate::server::{DEADLINE, Endpoint, Server, is_final};

fn sync_worker(version: &str) -> Server {
    Server::start(&[Endpoint::new("sync", version, "sync_handler.py")])
}

pub(crate) fn results_arrive_as_returned(version: &str) {
    let server = Server::start(&[
        Endpoint::new("sync", version, "sync_handler.py"),
        Endpoint::new("async", version, "async_handler.py"),
    ]);
    let values = [
        json!({"text": "héllo ☃ 😀 \u{0} \"quoted\"", "nested": {"list": [1, -2.5, true, null]}}),
        json!(["a", 1, {"b": []}]),
        json!("héllo ☃ 😀"),
        json!(false),
        json!(0),
        json!(9_007_199_254_740_993_u64),
        Value::Null,
    ];
    // All at once, because most versions take no more than one job a second.
    let jobs = values.map(|value| {
        let input = json!({"mode": "return", "value": value});
        (server.submit("sync", &input), value)
    });
    let empty = server.submit("sync", &json!({"mode": "return", "value": {}}));
    let nan = server.submit("sync", &json!({"mode": "nan"}));
    let from_async = server.submit("async", &json!({"mode": "return", "value": [1]}));

    for (job, value) in jobs {
        let state = server.finished("sync", &job);
        assert_eq!(state["status"], "COMPLETED", "{state}");
        assert_eq!(state["output"], value, "{state}");
        assert_eq!(state["id"], job, "{state}");
        // Go reads these into integers, and an `error` of any kind as a failure.
        assert!(
            state["delayTime"].is_u64() && state["executionTime"].is_u64(),
            "{state}"
        );
        assert!(
            state["workerId"].is_string() && state.get("error").is_none(),
            "{state}"
        );
    }

    let state = server.finished("sync", &empty);
    assert_eq!(state["status"], "COMPLETED", "{state}");
    assert_eq!(
        state.get("output"),
        None,
        "the SDK sends no output for an empty dict: {state}"
    );

    // The worker posts the words NaN and Infinity, which no client could read.
    let state = server.finished("sync", &nan);
    assert_eq!(state["status"], "COMPLETED", "{state}");
    assert_eq!(
        state["output"],
        json!({"nan": null, "infinity": null, "one": 1}),
        "{state}"
    );

    let state = server.finished("async", &from_async);
    assert_eq!(state["status"], "COMPLETED", "{state}");
    assert_eq!(state["output"], json!([1]), "{state}");
}

pub(crate) fn handler_errors_fail_the_job(version: &str) {
    let server = sync_worker(version);
    let raised = server.submit("sync", &json!({"mode": "raise"}));
    let soft = server.submit("sync", &json!({"mode": "soft_error"}));

    let state = server.finished("sync", &raised);
    assert_eq!(state["status"], "FAILED", "{state}");
    assert_eq!(
        state.get("retries"),
        None,
        "a handler's error is not tried again: {state}"
    );
    let error = state["error"].as_str().expect("the error is a string");
    let error: Value = serde_json::from_str(error).expect("the SDK puts JSON into the string");
    assert_eq!(error["error_type"], "<class 'ValueError'>", "{error}");
    assert_eq!(error["error_message"], "boom \"quoted\" é", "{error}");
    assert_eq!(error["runpod_version"], version, "{error}");
    assert_eq!(error["worker_id"], state["workerId"], "{error}");
    let traceback = error["error_traceback"].as_str().expect("a traceback");
    assert!(traceback.contains("sync_handler.py"), "{traceback}");

    let state = server.finished("sync", &soft);
    assert_eq!(state["status"], "FAILED", "{state}");
    assert_eq!(state["error"], "soft error", "{state}");
    assert_eq!(state["output"], json!({"partial": 1}), "{state}");
}

pub(crate) fn s3_config_reaches_the_handler_only(version: &str) {
    let server = sync_worker(version);
    let s3 = json!({
        "accessId": "id",
        "accessSecret": "secret ☃",
        "bucketName": "bucket",
        "endpointUrl": "http://127.0.0.1:9",
        "objectPath": "a/b",
    });
    let body = json!({"input": {"mode": "job"}, "s3Config": s3, "unknown": 1});
    let with = server.submit_whole("sync", &body);
    let without = server.submit("sync", &json!({"mode": "job"}));

    let state = server.finished("sync", &with);
    assert_eq!(state["output"]["s3Config"], s3, "{state}");
    assert_eq!(state.get("s3Config"), None, "{state}");
    let keys = state["output"]["keys"]
        .as_array()
        .expect("the keys of the job");
    assert!(
        keys.contains(&json!("id")) && keys.contains(&json!("input")),
        "{state}"
    );
    assert!(!keys.contains(&json!("unknown")), "{state}");

    let state = server.finished("sync", &without);
    assert_eq!(state["output"]["s3Config"], Value::Null, "{state}");
}

pub(crate) fn progress_is_seen_while_the_job_runs(version: &str) {
    let server = sync_worker(version);
    let gate = Gate::open();
    let progress = json!({"step": 3, "of": 20});
    let input = json!({"mode": "progress", "progress": progress, "gate": gate.port()});
    let job = server.submit("sync", &input);
    let mut handler = gate.accept();

    let state = server.wait_until("sync", &job, |state| state["output"] == progress);
    assert_eq!(state["status"], "IN_PROGRESS", "{state}");
    assert_eq!(state["workerId"], handler.worker(), "{state}");

    handler.release("on");
    let state = server.finished("sync", &job);
    assert_eq!(state["status"], "COMPLETED", "{state}");
    assert_eq!(state["output"], json!({"word": "on"}), "{state}");
}

pub(crate) fn refreshed_worker_gets_no_further_job(version: &str) {
    let server = sync_worker(version);
    let refreshed = server.run("sync", &json!({"mode": "refresh"}));
    assert_eq!(refreshed["status"], "COMPLETED", "{refreshed}");
    assert_eq!(refreshed["output"], json!({"x": 1}), "{refreshed}");

    let next = server.run("sync", &json!({"mode": "return", "value": 2}));
    assert_eq!(next["status"], "COMPLETED", "{next}");
    assert_eq!(next.get("retries"), None, "{next}");
    assert!(next["workerId"].is_string(), "{next}");
    assert_ne!(next["workerId"], refreshed["workerId"], "{next}");
}

pub(crate) fn four_slots_run_four_jobs_at_once(version: &str) {
    let endpoint = Endpoint::new("async", version, "async_handler.py").env("SLOTS", "4");
    let server = Server::start(&[endpoint]);
    let gate = Gate::open();
    // All four before the worker is up, so that it can take them in one batch: 1.7.2 to 1.9.0 begin
    // nothing new while a job runs.
    let input = json!({"mode": "gate", "gate": gate.port()});
    let jobs: Vec<String> = (0..4).map(|_| server.submit("async", &input)).collect();

    // None is let go before all have come.
    let mut handlers: Vec<_> = (0..4).map(|_| gate.accept()).collect();
    for handler in &handlers {
        assert_eq!(handler.worker(), handlers[0].worker());
        assert_eq!(handler.pid(), handlers[0].pid());
    }
    for handler in &mut handlers {
        handler.release("go");
    }
    for job in &jobs {
        let state = server.finished("async", job);
        assert_eq!(state["status"], "COMPLETED", "{state}");
        assert_eq!(state["output"], json!({"word": "go"}), "{state}");
    }
}

pub(crate) fn chunks_stream_in_order(version: &str) {
    let server = Server::start(&[Endpoint::new("stream", version, "stream_handler.py")]);
    let gate = Gate::open();
    let before = [json!({"n": 0}), json!("héllo ☃")];
    let after = [json!([2]), json!(3), json!({"n": 4})];
    let input = json!({"before": before, "gate": gate.port(), "after": after});
    let job = server.submit("stream", &input);

    // The SDK posts a chunk before it asks for the next one: both are there when the gate is met.
    let mut handler = gate.accept();
    let (status, chunks) = read_stream(&server, &job, |chunks| chunks.len() >= before.len());
    assert_eq!((status.as_str(), chunks), ("IN_PROGRESS", before.to_vec()));

    handler.release("on");
    let (status, chunks) = read_stream(&server, &job, |_| false);
    assert_eq!((status.as_str(), chunks), ("COMPLETED", after.to_vec()));

    // The Python client stops only here.
    let answer = server.call("GET", &format!("stream/stream/{job}"), &Value::Null);
    assert_eq!(answer["status"], "COMPLETED", "{answer}");
    assert_eq!(answer["stream"], json!([]), "{answer}");
    let output = server.status("stream", &job)["output"].clone();
    assert!(
        output.is_null() || output == json!([]),
        "chunks are not the output: {output}"
    );

    let failing = json!({"before": before, "raise": true, "after": after});
    let job = server.submit("stream", &failing);
    let (status, chunks) = read_stream(&server, &job, |_| false);
    assert_eq!((status.as_str(), chunks), ("FAILED", before.to_vec()));
    let state = server.status("stream", &job);
    let error = state["error"].as_str().expect("the error is a string");
    assert!(error.contains("boom in the middle"), "{error}");
}

pub(crate) fn aggregated_chunks_are_the_output(version: &str) {
    let server = Server::start(&[Endpoint::new("aggregate", version, "aggregate_handler.py")]);
    let chunks = json!([{"n": 0}, "héllo ☃", [2], null]);
    let job = server.submit("aggregate", &json!({"chunks": chunks}));
    let state = server.finished("aggregate", &job);
    assert_eq!(state["status"], "COMPLETED", "{state}");
    assert_eq!(state["output"], chunks, "{state}");

    // The first answer with a final status holds all that is left: JavaScript and Go stop there.
    let answer = server.call("GET", &format!("aggregate/stream/{job}"), &Value::Null);
    assert_eq!(answer["status"], "COMPLETED", "{answer}");
    assert_eq!(json!(outputs(&answer)), chunks, "{answer}");
}

/// Reads the stream until it is final or enough; the status is that of the last answer.
fn read_stream(
    server: &Server,
    job: &str,
    enough: impl Fn(&[Value]) -> bool,
) -> (String, Vec<Value>) {
    let started = std::time::Instant::now();
    let mut chunks = Vec::new();
    loop {
        let target = format!("stream/stream/{job}?wait=5000");
        let answer = server.call("GET", &target, &Value::Null);
        chunks.extend(outputs(&answer));
        if is_final(&answer) || enough(&chunks) {
            let status = answer["status"].as_str().expect("a status").to_owned();
            return (status, chunks);
        }
        assert!(
            started.elapsed() < DEADLINE,
            "the stream did not get there: {answer}"
        );
    }
}

fn outputs(answer: &Value) -> Vec<Value> {
    let items = answer["stream"]
        .as_array()
        .expect("the stream is always a list");
    items.iter().map(|item| item["output"].clone()).collect()
}
