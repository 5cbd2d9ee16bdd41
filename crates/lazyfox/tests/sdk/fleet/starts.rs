//! Workers that do not come up, or take their time.

use serde_json::{Value, json};

use super::{completes, endpoint, lines, noting, stopped, text};
use crate::gate::Gate;
use crate::sdk::LATEST;
use crate::server::{Endpoint, Server, pause};

fn why(server: &Server, endpoint: &str, job: &str) -> Value {
    server.call("GET", &format!("{endpoint}/why/{job}"), &Value::Null)
}

#[test]
fn starts_that_fail_are_few_and_the_reason_is_told_everywhere() {
    let script = "echo there is no model here; exit 1";
    let exits = Endpoint::program("exits", &["/bin/sh", "-c", script]);
    let raises = Endpoint::new("raises", LATEST, "fleet_handler.py").env("IMPORT", "raises");
    let server = Server::start(&[
        exits.set("fail_after_starts", 2),
        raises.set("fail_after_starts", 2),
    ]);
    for (endpoint, reason) in [
        ("exits", "there is no model here"),
        ("raises", "RuntimeError: the model is not there"),
    ] {
        let job = server.submit(endpoint, &json!({"mode": "note"}));
        server.until_workers(endpoint, |it| it["lastStartFailure"].is_string());
        let told = why(&server, endpoint, &job);
        assert_eq!(told["code"], "unhealthy", "{told}");
        assert!(text(&told, "text").contains(reason), "{told}");

        let state = server.finished(endpoint, &job);
        assert_eq!(state["status"], "FAILED", "{state}");
        let error = text(&state, "error");
        assert!(error.starts_with("no worker could be started: "), "{error}");
        assert!(
            error.contains("exited with code 1") && error.contains(reason),
            "{error}"
        );

        // Two starts, and the second not before it was time.
        let workers = server.workers(endpoint);
        let [second, first] = stopped(&workers) else {
            panic!("not two workers are gone: {workers}");
        };
        for gone in [first, second] {
            assert_eq!(gone["exitCode"], 1, "{gone}");
            assert!(gone["lastLines"].to_string().contains(reason), "{gone}");
        }
        let at = |gone: &Value, field: &str| gone[field].as_i64().expect("a time");
        let pause_ms = at(second, "startedAt") - at(first, "endedAt");
        assert!(pause_ms >= 5_000, "{workers}");
    }
}

#[test]
fn a_program_that_never_asks_for_a_job_is_ended_and_says_so() {
    let endpoint = Endpoint::program("sleeps", &["sleep", "600"])
        .set("init_timeout_s", 2)
        .set("fail_after_starts", 1);
    let server = Server::start(&[endpoint]);
    let job = server.submit("sleeps", &json!(1));
    let state = server.finished("sleeps", &job);
    assert_eq!(state["status"], "FAILED", "{state}");
    let error = text(&state, "error");
    assert!(
        error.contains("it did not ask for a job within its init timeout"),
        "{error}"
    );
    let workers = server.workers("sleeps");
    assert_eq!(workers["summary"]["total"], 0, "{workers}");
    assert_eq!(stopped(&workers)[0]["signal"], 9, "{workers}");
}

/// The delay of the scaler passes several times while it starts.
#[test]
fn a_worker_that_starts_slowly_is_not_doubled() {
    let import = Gate::open();
    let endpoint = endpoint(LATEST)
        .set("workers_max", 3)
        .set("scaler_value", 1)
        .env("IMPORT", &import.port().to_string());
    let server = Server::start(&[endpoint]);
    let job = server.submit("fleet", &noting(&server.file("fleet", "runs")));
    let mut starting = import.accept();
    loop {
        let told = why(&server, "fleet", &job);
        assert_eq!(told["code"], "starting", "{told}");
        if told["waitedMs"].as_u64().expect("a number") >= 4_000 {
            break;
        }
        pause();
    }
    let workers = server.workers("fleet");
    assert_eq!(workers["summary"]["total"], 1, "{workers}");
    starting.release("go");
    let state = completes(&server, &job);
    assert_eq!(state["workerId"], starting.worker(), "{state}");
    let workers = server.workers("fleet");
    assert_eq!(workers["summary"]["total"], 1, "{workers}");
    assert_eq!(stopped(&workers).len(), 0, "{workers}");
}

/// The SDK's own checks dial an address in the internet, and end the worker where there is none. Whether
/// they are made shows by one of them that no machine would pass.
#[test]
fn a_worker_starts_without_the_internet_and_knows_how_long_it_may_take() {
    let endpoint = endpoint(LATEST)
        .checked()
        .env("RUNPOD_MIN_MEMORY_GB", "1000000")
        .set("init_timeout_s", 77)
        .set("fail_after_starts", 1);
    let server = Server::start(&[endpoint]);
    let file = server.file("fleet", "runs");
    let names = ["RUNPOD_INIT_TIMEOUT", "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS"];
    let input = json!({"mode": "note", "file": file, "names": names});
    let job = server.submit("fleet", &input);
    let state = completes(&server, &job);
    let expected = json!({
        "RUNPOD_INIT_TIMEOUT": "77",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
    });
    assert_eq!(state["output"], expected, "{state}");
    assert_eq!(lines(&file), [job]);
}
