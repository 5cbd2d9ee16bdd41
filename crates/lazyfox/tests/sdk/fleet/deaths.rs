//! Workers that die of a job, and what is left of them.

use rustix::process::Signal;
use serde_json::json;

use super::{completes, endpoint, gated, noting, stopped, text};
use crate::gate::Gate;
use crate::process;
use crate::sdk::LATEST;
use crate::server::Server;

#[test]
fn a_job_that_kills_its_workers_is_given_up_and_the_others_go_on() {
    let endpoint = endpoint(LATEST)
        .set("retries_max", 5)
        .set("poison_after", 2);
    let server = Server::start(&[endpoint]);
    let file = server.file("fleet", "runs");
    let before = server.submit("fleet", &noting(&file));
    let poison = server.submit("fleet", &json!({"mode": "kill"}));
    let after: Vec<String> = (0..3)
        .map(|_| server.submit("fleet", &noting(&file)))
        .collect();

    let state = server.finished("fleet", &poison);
    assert_eq!(state["status"], "FAILED", "{state}");
    assert_eq!(state["retries"], 1, "{state}");
    completes(&server, &before);
    for job in &after {
        completes(&server, job);
    }
    let workers = server.workers("fleet");
    let [second, first] = stopped(&workers) else {
        panic!("not two workers are gone: {workers}");
    };
    let error = text(&state, "error");
    let begin = "poison: 2 workers died in a row while they ran this job; 1: worker ";
    assert!(error.starts_with(begin), "{error}");
    for gone in [first, second] {
        assert_eq!(gone["signal"], 9, "{gone}");
        assert!(error.contains(text(gone, "id")), "{error}");
    }
    assert_eq!(
        error.matches("was killed by signal 9").count(),
        2,
        "{error}"
    );
}

#[test]
fn a_job_that_takes_too_much_memory_fails_and_says_so() {
    let endpoint = endpoint(LATEST)
        .set("memory_mib", 400)
        .set("retries_max", 0);
    let server = Server::start(&[endpoint]);
    let file = server.file("fleet", "runs");
    completes(&server, &server.submit("fleet", &noting(&file)));
    let job = server.submit("fleet", &json!({"mode": "allocate", "mib": 500}));
    let state = server.finished("fleet", &job);
    assert_eq!(state["status"], "FAILED", "{state}");
    let error = text(&state, "error");
    assert!(
        error.contains("out of memory") && error.contains("400 MiB"),
        "{error}"
    );
    // The job is told of the end before the list is.
    let mut workers = std::iter::repeat_with(|| server.workers("fleet"));
    let workers = workers.find(|it| !stopped(it).is_empty());
    let workers = workers.expect("it is repeated for ever");
    let gone = &stopped(&workers)[0];
    assert_eq!(gone["outOfMemory"], true, "{gone}");
    assert!(text(gone, "whyStopped").contains("out of memory"), "{gone}");
    completes(&server, &server.submit("fleet", &noting(&file)));
}

/// 1.7.12 to 1.10.0 write their jobs into the directory that they run in, and one that finds another's there
/// never asks for a job.
#[test]
fn the_job_file_of_a_dead_worker_is_not_found_by_the_next_one() {
    let server = Server::start(&[endpoint("1.7.13")]);
    let gate = Gate::open();
    let job = server.submit("fleet", &gated(&gate));
    let first = gate.accept();
    let cwd = format!("/proc/{}/cwd/.runpod_jobs.pkl", first.pid());
    assert!(std::path::Path::new(&cwd).exists(), "it has no such file");
    process::signal(first.pid(), Signal::KILL);
    let mut second = gate.accept();
    assert_ne!(second.worker(), first.worker());
    second.release("second");
    let state = server.finished("fleet", &job);
    assert_eq!(state["status"], "COMPLETED", "{state}");
    let next = completes(
        &server,
        &server.submit("fleet", &noting(&server.file("fleet", "runs"))),
    );
    assert_eq!(next["workerId"], second.worker(), "{next}");
    assert!(!server.file("fleet", ".runpod_jobs.pkl").exists());
}
