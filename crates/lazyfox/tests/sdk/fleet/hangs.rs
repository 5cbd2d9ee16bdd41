//! Workers that live and do not work: no sign of life of theirs is to be believed for ever.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    endpoint, gated, is_listed, lines, main_process, nothing_is_left_of, noting, processes,
    stopped, text,
};
use crate::gate::Gate;
use crate::process;
use crate::sdk::LATEST;
use crate::server::{Endpoint, Server};

/// A lease that outlasts the test: only what the heartbeats leave out tells that a job is lost.
const NO_END_S: u64 = 3600;

/// Its poll for work is open and its heartbeats go on, so it is given the job.
#[test]
fn a_stopped_main_process_does_not_keep_the_job_that_it_was_given() {
    let endpoint = endpoint(LATEST)
        .set("workers_min", 1)
        .set("workers_max", 2)
        .set("lease_s", NO_END_S);
    let server = Server::start(&[endpoint]);
    // The first poll is held for 20 s at least.
    let workers = server.until_workers("fleet", |it| it["summary"]["idle"] == 1);
    let first = text(&workers["workers"][0], "id").to_owned();
    process::signal(main_process(&first), Signal::STOP);
    assert!(
        processes(&first).len() > 1,
        "it has no process for heartbeats"
    );

    let gate = Gate::open();
    let job = server.submit("fleet", &gated(&gate));
    let mut second = gate.accept();
    assert_ne!(second.worker(), first);
    second.release("second");
    let state = server.finished("fleet", &job);
    assert_eq!(state["status"], "COMPLETED", "{state}");
    assert_eq!(state["retries"], 1, "{state}");
    // It gets nothing any more, and goes in its time.
    let workers = server.workers("fleet");
    let all = workers["workers"].as_array().expect("a list");
    let shown = all.iter().find(|it| it["id"] == first.as_str());
    let is_going = shown.is_none_or(|it| it["status"] == "STOPPING");
    assert!(is_going, "{workers}");
}

#[test]
fn a_job_that_no_heartbeat_names_goes_to_another_worker() {
    let endpoint = endpoint(LATEST)
        .set("workers_max", 2)
        .set("lease_s", NO_END_S);
    let server = Server::start(&[endpoint]);
    let gate = Gate::open();
    let job = server.submit("fleet", &json!({"mode": "unnamed", "gate": gate.port()}));
    let mut first = gate.accept();
    let mut second = gate.accept();
    assert_ne!(second.worker(), first.worker());
    second.release("second");
    let state = server.finished("fleet", &job);
    assert_eq!(state["output"], json!({"word": "second"}), "{state}");
    assert_eq!(state["retries"], 1, "{state}");
    // Its result comes too late, and it goes.
    first.release_if_alive("first");
    server.until_workers("fleet", |it| !is_listed(it, first.worker()));
    assert_eq!(server.status("fleet", &job), state);
}

/// The SDK's heartbeats outlive it.
#[test]
fn a_main_process_that_leaves_without_a_word_is_missed_at_once() {
    let server = Server::start(&[endpoint(LATEST)]);
    let file = server.file("fleet", "exits");
    let job = server.submit("fleet", &json!({"mode": "exit_once", "file": file}));
    let state = server.finished("fleet", &job);
    assert_eq!(state["output"], json!({"word": "again"}), "{state}");
    assert_eq!(state["retries"], 1, "{state}");
    let workers = server.workers("fleet");
    let [gone] = stopped(&workers) else {
        panic!("not one worker is gone: {workers}");
    };
    assert_eq!(gone["exitCode"], 3, "{gone}");
    nothing_is_left_of(text(gone, "id"));
}

/// A handler that is not async cannot be stopped, so its worker goes with all that it has started.
#[test]
fn a_handler_that_cannot_be_stopped_gives_its_slot_back_once() {
    let of =
        |id: &'static str| Endpoint::new(id, LATEST, "fleet_handler.py").set("idle_timeout_s", 600);
    let server = Server::start(&[of("cancel"), of("timeout")]);
    let gates = [("cancel", Gate::open()), ("timeout", Gate::open())];
    let mut held = Vec::new();
    for (endpoint, gate) in &gates {
        let file = server.file(endpoint, "child");
        let input = json!({"mode": "stubborn", "gate": gate.port(), "file": file});
        let body = match *endpoint {
            "timeout" => json!({"input": input, "policy": {"executionTimeout": 5000}}),
            _ => json!({"input": input}),
        };
        let job = server.submit_whole(endpoint, &body);
        let next = server.submit(endpoint, &noting(&server.file(endpoint, "runs")));
        held.push((*endpoint, job, next, file));
    }
    let arrivals: Vec<_> = gates.iter().map(|(_, gate)| gate.accept()).collect();
    let answer = server.call(
        "POST",
        &format!("cancel/cancel/{}", held[0].1),
        &Value::Null,
    );
    assert_eq!(answer["status"], "CANCELLED", "{answer}");

    for ((endpoint, job, next, file), arrival) in held.iter().zip(&arrivals) {
        let state = server.finished(endpoint, job);
        let expected = if *endpoint == "cancel" {
            "CANCELLED"
        } else {
            "TIMED_OUT"
        };
        assert_eq!(state["status"], expected, "{state}");
        let after = server.finished(endpoint, next);
        assert_eq!(after["status"], "COMPLETED", "{after}");
        assert_eq!(after.get("retries"), None, "{after}");
        assert_ne!(after["workerId"], arrival.worker(), "{after}");
        assert_eq!(lines(&server.file(endpoint, "runs")), [next.as_str()]);

        let child: i32 = lines(file)[0].parse().expect("the child's number");
        assert!(
            process::ended(child, Duration::from_secs(5)),
            "its child is left"
        );
        nothing_is_left_of(arrival.worker());
        let workers = server.workers(endpoint);
        assert_eq!(workers["summary"]["total"], 1, "{workers}");
        let [gone] = stopped(&workers) else {
            panic!("not one worker is gone: {workers}");
        };
        let why = text(gone, "whyStopped");
        assert!(
            ["did not let go of a job", "was taken", "ran out of time"]
                .iter()
                .any(|reason| why.contains(reason)),
            "{why}"
        );
    }
}
