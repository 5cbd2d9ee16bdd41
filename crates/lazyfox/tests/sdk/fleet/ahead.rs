//! Short jobs that a worker is given ahead, and what becomes of those that wait inside it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{completes, endpoint, gated, kill_idle, lines, noting, stopped};
use crate::gate::Gate;
use crate::process;
use crate::server::{Endpoint, Server, pause};

/// A lease so short that heartbeats come every second.
const LEASE_S: u64 = 4;

/// How many jobs the worker found in each of its polls that were not empty, as it says itself.
fn takes(server: &Server) -> Vec<u32> {
    let workers = server.workers("fleet");
    let worker = super::text(&workers["workers"][0], "id");
    let log = server.log_of(worker);
    let counts = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once("Jobs in queue: ")?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    counts.collect()
}

/// Runs so many jobs that do nothing. Each runs once and is good at the first try. Gives their ids in
/// the order of submission, and in that in which they ran.
fn run_short_jobs(server: &Server, jobs: usize) -> (Vec<String>, Vec<String>) {
    let file = server.file("fleet", "runs");
    let ids: Vec<String> = (0..jobs)
        .map(|_| server.submit("fleet", &noting(&file)))
        .collect();
    for id in &ids {
        completes(server, id);
    }
    let ran = lines(&file);
    let once: BTreeSet<&String> = ran.iter().collect();
    assert_eq!((ran.len(), once.len()), (jobs, jobs), "{ran:?}");
    (ids, ran)
}

#[test]
fn v1_12_0_with_one_slot_does_short_jobs_many_at_a_time_and_in_order() {
    let server = Server::start(&[endpoint("1.12.0")]);
    let (submitted, ran) = run_short_jobs(&server, 300);
    assert_eq!(ran, submitted);
    // By itself it would ask 300 times, once a second.
    let takes = takes(&server);
    assert!(takes.len() <= 30, "{takes:?}");
}

#[test]
fn v1_7_13_with_one_slot_does_short_jobs_many_at_a_time_and_in_order() {
    let server = Server::start(&[endpoint("1.7.13")]);
    let (submitted, ran) = run_short_jobs(&server, 200);
    assert_eq!(ran, submitted);
    let takes = takes(&server);
    assert!(takes.len() <= 30, "{takes:?}");
}

/// It comes to a standstill with more jobs than slots.
#[test]
fn v2_0_0rc2_is_never_given_more_than_its_slots() {
    let server = Server::start(&[endpoint("2.0.0rc2").env("SLOTS", "4")]);
    run_short_jobs(&server, 22);
    let takes = takes(&server);
    // Its queue is filled before it begins, so what it says is what it got.
    assert!(
        takes.contains(&4) && takes.iter().all(|jobs| *jobs <= 4),
        "{takes:?}"
    );
}

/// It loses a list, and needs none: it asks as fast as it works.
#[test]
fn v1_6_2_is_given_one_job_at_a_time() {
    let server = Server::start(&[endpoint("1.6.2")]);
    let (submitted, ran) = run_short_jobs(&server, 100);
    assert_eq!(ran, submitted);
}

/// A server that has seen short jobs and has no worker now, so that the next one gets whatever waits by
/// its first poll.
fn seen_short_jobs() -> Server {
    let endpoint = Endpoint::new("fleet", "1.12.0", "async_handler.py")
        .set("idle_timeout_s", 600)
        .set("lease_s", LEASE_S);
    let server = Server::start(&[endpoint]);
    let short = json!({"mode": "return", "value": 1});
    let short: Vec<String> = (0..20).map(|_| server.submit("fleet", &short)).collect();
    let ends: Vec<Value> = short.iter().map(|id| completes(&server, id)).collect();
    kill_idle(&server, super::text(&ends[0], "workerId"));
    server
}

/// Jobs of which the first waits at the gate and the others inside its worker.
fn inside(server: &Server, gate: &Gate, jobs: usize) -> (Vec<String>, crate::gate::Arrival) {
    let ids: Vec<String> = (0..jobs)
        .map(|_| server.submit("fleet", &gated(gate)))
        .collect();
    let first = gate.accept();
    let workers = server.workers("fleet");
    let shown = &workers["workers"][0];
    assert_eq!(shown["jobs"], json!([ids[0]]), "{workers}");
    assert_eq!(shown["jobsWaitingInside"], jobs - 1, "{workers}");
    (ids, first)
}

#[test]
fn jobs_cancelled_inside_a_worker_do_not_run_and_cost_it_nothing() {
    let server = seen_short_jobs();
    let gate = Gate::open();
    let (ids, mut first) = inside(&server, &gate, 5);
    let cancelled = [&ids[1], &ids[3]];
    for id in cancelled {
        let answer = server.call("POST", &format!("fleet/cancel/{id}"), &Value::Null);
        assert_eq!(answer["status"], "CANCELLED", "{answer}");
    }
    first.release("first");
    for id in [&ids[2], &ids[4]] {
        // One that is stopped may have begun, for an instant.
        let mut arrival = gate.accept();
        while arrival.job() != id {
            assert!(cancelled.iter().any(|it| *it == arrival.job()));
            assert_eq!(arrival.end(), "cancelled");
            arrival = gate.accept();
        }
        assert_eq!(arrival.worker(), first.worker());
        arrival.release("go");
    }
    for (at, id) in ids.iter().enumerate() {
        if at % 2 == 0 {
            completes(&server, id);
        } else {
            let state = server.status("fleet", id);
            assert_eq!(state["status"], "CANCELLED", "{state}");
        }
    }
    let next = server.run("fleet", &json!({"mode": "return", "value": 1}));
    assert_eq!(next["workerId"], first.worker(), "{next}");
}

#[test]
fn only_the_job_that_ran_pays_for_the_death_of_its_worker() {
    let server = seen_short_jobs();
    let gate = Gate::open();
    let (ids, first) = inside(&server, &gate, 4);
    // The SDK names the next one too, in a heartbeat each second.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        let workers = server.workers("fleet");
        assert_eq!(workers["workers"][0]["jobs"], json!([ids[0]]), "{workers}");
        pause();
    }
    process::signal(first.pid(), Signal::KILL);
    for id in &ids {
        let mut arrival = gate.accept();
        assert_eq!(arrival.job(), id, "not in order");
        assert_ne!(arrival.worker(), first.worker());
        arrival.release("again");
    }
    let paid = server.finished("fleet", &ids[0]);
    assert_eq!(paid["status"], "COMPLETED", "{paid}");
    assert_eq!(paid["retries"], 1, "{paid}");
    for id in &ids[1..] {
        completes(&server, id);
    }
    let workers = server.workers("fleet");
    assert_eq!(stopped(&workers).len(), 2, "{workers}");
}
