//! Workers that die or stand still in the middle of a job.

use rustix::io::Errno;
use rustix::process::{self as os, Signal};
use serde_json::{Value, json};

use crate::gate::Gate;
use crate::process;
use crate::sdk::LATEST;
use crate::server::{Endpoint, Server};

fn gated(gate: &Gate) -> Value {
    json!({"mode": "gate", "gate": gate.port()})
}

/// The new worker starts in the folder of the dead one, where 1.7.12 to 1.10.0 keep a list of jobs
/// that makes it wait for ever unless the server takes that file away.
pub(crate) fn killed_once_completes(version: &str) {
    let server = Server::start(&[Endpoint::new("async", version, "async_handler.py")]);
    let gate = Gate::open();
    let job = server.submit("async", &gated(&gate));
    let first = gate.accept();
    process::signal(first.pid(), Signal::KILL);

    let mut second = gate.accept();
    assert_ne!(second.worker(), first.worker());
    second.release("second");
    let state = server.finished("async", &job);
    assert_eq!(state["status"], "COMPLETED", "{state}");
    assert_eq!(state["output"], json!({"word": "second"}), "{state}");
    assert_eq!(state["retries"], 1, "{state}");
    assert_eq!(state["workerId"], second.worker(), "{state}");

    let health = server.call("GET", "async/health", &Value::Null);
    assert_eq!(health["jobs"]["retried"], 1, "{health}");
    assert_eq!(health["jobs"]["completed"], 1, "{health}");
}

#[test]
fn job_whose_worker_is_killed_twice_fails_and_says_why() {
    let server =
        Server::start(&[Endpoint::new("async", LATEST, "async_handler.py").set("retries_max", 1)]);
    let gate = Gate::open();
    let job = server.submit("async", &gated(&gate));
    let first = gate.accept();
    process::signal(first.pid(), Signal::KILL);
    let second = gate.accept();
    assert_ne!(second.worker(), first.worker());
    process::signal(second.pid(), Signal::KILL);

    let state = server.finished("async", &job);
    assert_eq!(state["status"], "FAILED", "{state}");
    assert_eq!(state["retries"], 1, "{state}");
    let error = state["error"]
        .as_str()
        .expect("the error is a string")
        .to_lowercase();
    let named = [
        "signal", "killed", "exited", "died", "ended", "gone", "lost",
    ];
    assert!(
        error.contains("worker") && named.iter().any(|word| error.contains(word)),
        "the error does not name what happened: {error}"
    );
}

#[test]
fn late_result_of_a_stopped_worker_changes_nothing() {
    // Two workers, because the first one stands still but is not gone.
    let endpoint = Endpoint::new("async", LATEST, "async_handler.py");
    let server = Server::start(&[endpoint.set("workers_max", 2).set("lease_s", 5)]);
    let gate = Gate::open();
    let job = server.submit("async", &gated(&gate));
    let mut first = gate.accept();
    // The whole group: the SDK's heartbeats come from a process of their own.
    signal_group(first.process_group(), Signal::STOP);

    let mut second = gate.accept();
    assert_ne!(second.worker(), first.worker());
    second.release("second");
    let settled = server.finished("async", &job);
    assert_eq!(settled["status"], "COMPLETED", "{settled}");
    assert_eq!(settled["output"], json!({"word": "second"}), "{settled}");
    assert_eq!(settled["retries"], 1, "{settled}");
    assert_eq!(settled["workerId"], second.worker(), "{settled}");

    // The server may have killed the worker by now; if it lives, its result comes late.
    first.release_if_alive("first");
    signal_group(first.process_group(), Signal::CONT);
    let end = first.end();
    assert!(["posted", "cancelled", ""].contains(&end.as_str()), "{end}");
    assert_eq!(server.status("async", &job), settled);

    // Whatever became of the worker, this is what it would have sent.
    let (template, key) = first.post_output();
    for late in [
        json!({"output": {"word": "first"}}),
        json!({"error": "late"}),
        json!({"status": "IN_PROGRESS", "output": "late"}),
    ] {
        let answer = server.post_result(template, key, first.worker(), &job, &late);
        assert_eq!(
            answer.status, 200,
            "a worker would lose a result over this: {answer:?}"
        );
        assert_eq!(server.status("async", &job), settled);
    }
}

/// Sends a signal to a whole process group, which must not be the one of this test.
fn signal_group(group: i32, signal: Signal) {
    let group = process::as_pid(group);
    assert_ne!(
        group,
        os::getpgrp(),
        "the worker shares the process group of the test"
    );
    match os::kill_process_group(group, signal) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => panic!("kill group {group:?}: {error}"),
    }
}
