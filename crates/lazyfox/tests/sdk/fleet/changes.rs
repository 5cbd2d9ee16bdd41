//! Workers that outlive their server, finish before they go, or make way for a newer release.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{completes, endpoint, gated, lines, nothing_is_left_of, noting, stopped, text};
use crate::gate::Gate;
use crate::process;
use crate::sdk::LATEST;
use crate::server::{Endpoint, Server, pause};

#[test]
fn busy_workers_of_every_version_finish_for_the_next_server() {
    let versions = [
        ("a", "1.6.2"),
        ("b", "1.7.13"),
        ("c", "1.10.1"),
        ("d", "1.12.0"),
        ("e", "2.0.0rc2"),
    ];
    let endpoints = versions.map(|(id, version)| {
        Endpoint::new(id, version, "async_handler.py").set("idle_timeout_s", 600)
    });
    let mut server = Server::start(&endpoints);
    let gate = Gate::open();
    let jobs = versions.map(|(id, _)| (id, server.submit(id, &gated(&gate))));
    let mut arrivals: Vec<_> = versions.iter().map(|_| gate.accept()).collect();
    server.kill();
    server.start_again(&endpoints);
    for arrival in &mut arrivals {
        arrival.release("over the gap");
    }
    for (endpoint, job) in &jobs {
        let state = server.finished(endpoint, job);
        assert_eq!(state["status"], "COMPLETED", "{state}");
        assert_eq!(state["output"], json!({"word": "over the gap"}), "{state}");
        assert_eq!(state.get("retries"), None, "{state}");
        let arrival = arrivals.iter().find(|it| it.job() == job).expect("it came");
        assert_eq!(state["workerId"], arrival.worker(), "{state}");
        // It goes on, and nobody was started beside it.
        let next = server.run(endpoint, &json!({"mode": "return", "value": 2}));
        assert_eq!(next["workerId"], arrival.worker(), "{next}");
        let workers = server.workers(endpoint);
        assert_eq!(workers["summary"]["total"], 1, "{workers}");
        assert_eq!(stopped(&workers).len(), 0, "{workers}");
    }
}

#[test]
fn a_server_that_is_stopped_lets_the_running_job_finish() {
    let endpoints = [endpoint(LATEST)];
    let mut server = Server::start(&endpoints);
    let gate = Gate::open();
    let job = server.submit("fleet", &gated(&gate));
    let mut arrival = gate.accept();
    let target = format!("fleet/status-sync/{job}?wait=50000");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| server.call("GET", &target, &Value::Null));
        server.ask_to_stop();
        let state = waiter.join().expect("no panic");
        // Nothing but the stop ends this wait, so it has begun.
        assert_eq!(state["status"], "IN_PROGRESS", "{state}");
    });
    arrival.release("in time");
    server.stopped();
    nothing_is_left_of(arrival.worker());
    server.start_again(&endpoints);
    let state = completes(&server, &job);
    assert_eq!(state["output"], json!({"word": "in time"}), "{state}");
}

/// SIGTERM from somebody else. From 1.10.0 on a worker then stays for up to a minute, until its poll for
/// cancelled jobs is answered.
#[test]
fn a_worker_that_somebody_asks_to_stop_finishes_its_job() {
    let server = Server::start(&[endpoint("1.7.13")]);
    let gate = Gate::open();
    let job = server.submit("fleet", &gated(&gate));
    let mut first = gate.accept();
    process::signal(first.pid(), Signal::TERM);
    first.release("finished");
    let state = completes(&server, &job);
    assert_eq!(state["output"], json!({"word": "finished"}), "{state}");
    nothing_is_left_of(first.worker());
    let next = completes(
        &server,
        &server.submit("fleet", &noting(&server.file("fleet", "runs"))),
    );
    assert_ne!(next["workerId"], first.worker(), "{next}");
    let workers = server.workers("fleet");
    assert_eq!(stopped(&workers)[0]["exitCode"], 0, "{workers}");
}

/// Workers that take jobs and are not asked to go.
fn ready(workers: &Value) -> usize {
    let takes = |it: &&Value| {
        let status = text(it, "status");
        it["note"].is_null() && ["IDLE", "RUNNING", "OUTDATED"].contains(&status)
    };
    let all = workers["workers"].as_array().expect("a list");
    all.iter().filter(takes).count()
}

#[test]
fn a_newer_release_rolls_out_while_jobs_flow() {
    let of = |release: &str| {
        endpoint(LATEST)
            .set("workers_min", 2)
            .set("workers_max", 2)
            .env("RELEASE", release)
    };
    let server = Server::start(&[of("1")]);
    server.until_workers("fleet", |it| it["summary"]["idle"] == 2);
    let file = server.file("fleet", "runs");
    let input = json!({"mode": "note", "file": file, "names": ["RELEASE"]});
    let mut jobs = Vec::new();
    server.reload(&[of("2")]);
    loop {
        jobs.push(server.submit("fleet", &input));
        let workers = server.workers("fleet");
        assert!(ready(&workers) >= 1, "nobody takes jobs: {workers}");
        let total = workers["summary"]["total"].as_u64();
        assert!(
            total <= Some(3),
            "more than one beyond the maximum: {workers}"
        );
        let all = workers["workers"].as_array().expect("a list");
        let is_new = |it: &Value| it["version"] == 2 && it["readyAfterMs"].is_u64();
        if total == Some(2) && all.iter().all(is_new) {
            break;
        }
        pause();
    }
    let mut releases = BTreeSet::new();
    for job in &jobs {
        let state = completes(&server, job);
        releases.insert(text(&state["output"], "RELEASE").to_owned());
    }
    assert_eq!(releases.into_iter().collect::<Vec<_>>(), ["1", "2"]);
    let mut ran = lines(&file);
    ran.sort();
    jobs.sort();
    assert_eq!(ran, jobs, "not each job ran once");
    let workers = server.workers("fleet");
    assert_eq!(stopped(&workers).len(), 2, "{workers}");
    for gone in stopped(&workers) {
        assert_eq!(gone["exitCode"], 0, "it did not go by itself: {gone}");
    }
}
