//! Workers that the server started itself, and its death.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::gate::{self, Gate};
use crate::process;
use crate::server::{Home, Server};

/// The lease is longer than the test: nothing here is found out by waiting for it.
fn home() -> Home {
    let endpoint = gate::endpoint("hands");
    let config = format!(
        "[server]\nauth = \"none\"\n[defaults]\nlease_s = 3600\nworkers_max = 1\nidle_timeout_s = 600\n{endpoint}"
    );
    let home = Home::new(&config);
    fs::create_dir(home.path().join("files")).expect("a folder for the worker");
    home
}

fn submit(server: &Server<'_>, gate: &Gate) -> String {
    let answer = server.json("POST", "hands/run", &gate.job());
    answer["id"].as_str().expect("an id").to_owned()
}

fn ended(server: &Server<'_>, job: &str) -> Value {
    server.json("GET", &format!("hands/status-sync/{job}?wait=50000"), "")
}

fn kill(server: &mut Server<'_>) {
    process::signal(server.pid(), Signal::KILL);
    server.gone();
}

#[test]
fn worker_survives_its_server_and_works_for_the_next_one() {
    let home = home();
    let gate = Gate::open();
    let mut server = home.serve();
    let job = submit(&server, &gate);
    let arrival = gate.accept();
    let (pid, worker) = (arrival.pid, arrival.worker.clone());
    kill(&mut server);
    assert!(
        !process::ended(pid, Duration::ZERO),
        "the worker died with its server"
    );

    let mut server = home.serve();
    let health = server.json("GET", "hands/health", "");
    assert_eq!(health["workers"]["running"], 1, "{health}");
    arrival.release("over the gap");
    let state = ended(&server, &job);
    assert_eq!(state["status"], "COMPLETED", "{state}");
    assert_eq!(state["output"], json!({"word": "over the gap"}), "{state}");
    assert_eq!(
        (&state["workerId"], state.get("retries")),
        (&json!(worker), None),
        "{state}"
    );

    // It is this server's own: it gets the next job, and no second one is started for it.
    let next = submit(&server, &gate);
    let arrival = gate.accept();
    assert_eq!((arrival.pid, &arrival.worker), (pid, &worker));
    arrival.release("again");
    assert_eq!(ended(&server, &next)["status"], "COMPLETED");

    // Killed while the worker waits for work: it asks the next server.
    kill(&mut server);
    let mut server = home.serve();
    let last = submit(&server, &gate);
    let arrival = gate.accept();
    assert_eq!(arrival.pid, pid);
    arrival.release("and again");
    assert_eq!(ended(&server, &last)["status"], "COMPLETED");
    assert_eq!(home.workers().len(), 1);
    assert!(server.stop().success());
    assert_eq!(home.workers(), Vec::<i32>::new());
}

#[test]
fn worker_that_died_while_there_was_no_server_is_noticed() {
    let home = home();
    let gate = Gate::open();
    let mut server = home.serve();
    let job = submit(&server, &gate);
    let first = gate.accept();
    kill(&mut server);
    process::signal(first.pid, Signal::KILL);
    assert!(process::ended(first.pid, Duration::from_secs(10)));

    let mut server = home.serve();
    let second = gate.accept();
    assert_eq!(second.job, job);
    assert_ne!(second.worker, first.worker);
    let (pid, worker) = (second.pid, second.worker.clone());
    second.release("second");
    let state = ended(&server, &job);
    assert_eq!(state["output"], json!({"word": "second"}), "{state}");
    assert_eq!(
        (&state["workerId"], &state["retries"]),
        (&json!(worker), &json!(1)),
        "{state}"
    );

    // Found dead and found alive in one: the second one ends with its server.
    assert!(server.stop().success());
    assert!(
        process::ended(pid, Duration::ZERO),
        "the server left its worker"
    );
}
