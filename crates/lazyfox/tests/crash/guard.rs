//! A server that is killed and not started again: its workers do not stay.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::gate::{self, Gate};
use crate::process;
use crate::server::{DEADLINE, Home, Server};

/// A server that grants its workers so many seconds without one.
fn home(abandoned_s: u64) -> Home {
    let endpoint = gate::endpoint("hands");
    let home = Home::new(&format!(
        "[server]\nauth = \"none\"\nabandoned_s = {abandoned_s}\n[defaults]\nlease_s = 3600\n\
         workers_max = 2\nscaler = \"REQUEST_COUNT\"\nscaler_value = 1\nidle_timeout_s = 600\n{endpoint}"
    ));
    fs::create_dir(home.path().join("files")).expect("a folder for the worker");
    home
}

/// The guards of this server's workers.
fn guards(home: &Home) -> Vec<i32> {
    let dir = home.path().join("lazyfox-data/workers");
    let dir = dir.to_str().expect("the path is UTF-8");
    let entries = fs::read_dir("/proc").expect("/proc can be read");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.get(1..3) == Some(&[b"guard", dir.as_bytes()])
    })
    .collect()
}

/// The one guard.
fn guard(home: &Home) -> i32 {
    let guards = guards(home);
    assert_eq!(guards.len(), 1, "{guards:?}");
    guards[0]
}

fn submit(server: &Server<'_>, gate: &Gate) -> String {
    let answer = server.json("POST", "hands/run", &gate.job());
    answer["id"].as_str().expect("an id").to_owned()
}

fn kill(server: &mut Server<'_>) {
    process::signal(server.pid(), Signal::KILL);
    server.gone();
}

#[test]
fn workers_of_a_server_that_does_not_come_back_are_ended() {
    let home = home(1);
    let gate = Gate::open();
    let mut server = home.serve();
    let job = submit(&server, &gate);
    submit(&server, &gate);
    let arrivals = [gate.accept(), gate.accept()];
    let guard = guard(&home);
    kill(&mut server);
    for arrival in &arrivals {
        assert!(process::ended(arrival.pid, DEADLINE), "a worker is left");
    }
    assert!(process::ended(guard, DEADLINE), "the guard is left");
    assert_eq!(home.workers(), Vec::<i32>::new());

    // The next server knows what became of them.
    drop(arrivals);
    let mut server = home.serve();
    let again = gate.accept();
    let log = fs::read_to_string(home.path().join("server.log")).expect("a log");
    assert!(
        log.contains("ended: its server had died, and for 1 s there was no other one"),
        "{log}"
    );
    drop(again);
    let state = server.json("GET", &format!("hands/status/{job}"), "");
    assert_eq!(state["retries"], 1, "{state}");
    assert!(server.stop().success());
    assert_eq!(guards(&home), Vec::<i32>::new());
}

#[test]
fn workers_whose_server_came_back_go_on() {
    let home = home(2);
    let gate = Gate::open();
    let mut server = home.serve();
    let job = submit(&server, &gate);
    let arrival = gate.accept();
    let first = guard(&home);
    for _ in 0..3 {
        kill(&mut server);
        server = home.serve();
    }
    // The guards of the dead ones have seen the new one, and had nothing to do.
    assert!(process::ended(first, DEADLINE), "the guard is left");
    assert!(
        !process::ended(arrival.pid, Duration::ZERO),
        "the guard ended a worker of a server that came back"
    );
    arrival.release("over the gap");
    let state = server.json("GET", &format!("hands/status-sync/{job}?wait=50000"), "");
    assert_eq!(state["output"], json!({"word": "over the gap"}), "{state}");
    assert_eq!(state.get("retries"), None, "{state}");
    assert!(server.stop().success());
}

#[test]
fn a_guard_that_is_ended_by_somebody_is_replaced() {
    let home = home(1);
    let gate = Gate::open();
    let mut server = home.serve();
    submit(&server, &gate);
    let arrival = gate.accept();
    let first = guard(&home);
    process::signal(first, Signal::KILL);
    let deadline = Instant::now() + DEADLINE;
    let second = loop {
        assert!(Instant::now() < deadline, "there is no other guard");
        if let Some(&pid) = guards(&home).iter().find(|pid| **pid != first) {
            break pid;
        }
        std::thread::yield_now();
    };
    kill(&mut server);
    assert!(process::ended(arrival.pid, DEADLINE), "a worker is left");
    assert!(process::ended(second, DEADLINE), "the guard is left");
}

#[test]
fn workers_wait_for_ever_where_that_is_configured() {
    let home = home(0);
    let server = home.serve();
    assert_eq!(guards(&home), Vec::<i32>::new());
    drop(server);
}
