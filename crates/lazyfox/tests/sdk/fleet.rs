//! Real workers against their faults: those that die, hang, never start, start slowly, kill themselves
//! with a job, or wait for their turn inside another. Each is a process that the real server started.

use std::fs;
use std::path::Path;

use rustix::process::{self as os, Signal};
use serde_json::{Value, json};

use crate::gate::Gate;
use crate::process;
use crate::server::{DEADLINE, Endpoint, Server, pause};

mod ahead;
mod changes;
mod deaf;
mod deaths;
mod hangs;
mod starts;

/// The endpoint of these tests; its workers stay.
fn endpoint(version: &str) -> Endpoint {
    Endpoint::new("fleet", version, "fleet_handler.py").set("idle_timeout_s", 600)
}

fn gated(gate: &Gate) -> Value {
    json!({"mode": "gate", "gate": gate.port()})
}

/// The input of a job that writes its id into a file.
fn noting(file: &Path) -> Value {
    json!({"mode": "note", "file": file})
}

fn lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The end of a job that must be good at the first try.
#[track_caller]
fn completes(server: &Server, job: &str) -> Value {
    let state = server.finished("fleet", job);
    assert_eq!(state["status"], "COMPLETED", "{state}");
    assert_eq!(state.get("retries"), None, "{state}");
    state
}

/// All processes of a worker.
fn processes(worker: &str) -> Vec<i32> {
    process::with_variable(&format!("RUNPOD_POD_ID={worker}"))
}

/// The process whose end is the worker's.
fn main_process(worker: &str) -> i32 {
    let leads = |pid: &i32| {
        let pid = process::as_pid(*pid);
        os::getpgid(Some(pid)) == Ok(pid)
    };
    let pid = processes(worker).into_iter().find(leads);
    pid.expect("the worker runs")
}

/// Kills a worker that has no job, and waits until the server knows.
fn kill_idle(server: &Server, worker: &str) {
    process::signal(main_process(worker), Signal::KILL);
    server.until_workers("fleet", |workers| !is_listed(workers, worker));
}

fn is_listed(workers: &Value, worker: &str) -> bool {
    let all = workers["workers"].as_array().expect("a list");
    all.iter().any(|it| it["id"] == worker)
}

fn stopped(workers: &Value) -> &[Value] {
    workers["stopped"].as_array().expect("a list")
}

/// Waits until a worker has left nothing running.
#[track_caller]
fn nothing_is_left_of(worker: &str) {
    let started = std::time::Instant::now();
    while !processes(worker).is_empty() {
        assert!(started.elapsed() < DEADLINE, "{:?}", processes(worker));
        pause();
    }
}

#[track_caller]
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    let text = value[field].as_str();
    text.unwrap_or_else(|| panic!("no {field} in {value}"))
}
