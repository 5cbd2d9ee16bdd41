//! SIGTERM, as service managers send it: what runs may finish, what does not waits again.

use std::fs;

use rustix::process::Signal;
use serde_json::json;

use crate::gate::{self, Gate};
use crate::http::request;
use crate::process;
use crate::server::Home;

const SERVER: &str = "[server]\nauth = \"none\"\nshutdown_s = 3\n";

#[test]
fn running_jobs_may_finish_and_the_others_wait_at_the_front() {
    let hands = gate::endpoint("hands");
    let two = "workers_max = 2\nscaler = \"REQUEST_COUNT\"\nscaler_value = 1\n";
    let home = Home::new(&format!("{SERVER}{hands}{two}"));
    fs::create_dir(home.path().join("files")).expect("a folder for the worker");
    let gate = Gate::open();
    let mut server = home.serve();
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let answer = server.json("POST", "hands/run", &gate.job());
        jobs.push(answer["id"].as_str().expect("an id").to_owned());
    }
    let (finishes, stays) = (gate.accept(), gate.accept());
    let (finished, unfinished) = (finishes.job.clone(), stays.job.clone());
    let waiting = jobs.pop().expect("three were submitted");
    assert!(
        jobs.contains(&finished) && jobs.contains(&unfinished),
        "not in order"
    );

    std::thread::scope(|scope| {
        let port = home.port();
        let target = format!("/v2/hands/status-sync/{waiting}?wait=50000");
        let waiter = scope.spawn(move || request(port, "GET", &target, &[], ""));
        process::signal(server.pid(), Signal::TERM);
        let answer = waiter.join().expect("no panic").expect("an answer");
        // Nothing but the stop ends this wait, so it has begun.
        assert_eq!(answer.json()["status"], "IN_QUEUE");
    });
    finishes.release("in time");
    assert_eq!(server.stopped().code(), Some(0));
    assert_eq!(home.workers(), Vec::<i32>::new());
    drop(stays);

    // Workers of our own now, so that the order can be seen.
    home.configure(&format!("{SERVER}[endpoints.hands]\n"));
    let mut server = home.serve();
    let state = |job: &str| server.json("GET", &format!("hands/status/{job}"), "");
    assert_eq!(
        state(&finished)["output"],
        json!({"word": "in time"}),
        "{}",
        state(&finished)
    );
    let again = state(&unfinished);
    assert_eq!(
        (&again["status"], again.get("retries")),
        (&json!("IN_QUEUE"), None),
        "{again}"
    );
    for (worker, job) in [("x1", &unfinished), ("x2", &waiting)] {
        let taken = server.json("GET", &format!("hands/job-take/{worker}?"), "");
        assert_eq!(taken["id"], json!(job));
    }
    assert!(server.stop().success());
}
