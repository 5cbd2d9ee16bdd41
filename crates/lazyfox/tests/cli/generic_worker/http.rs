//! What an HTTP server beside the worker makes of a job.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};

use super::{CONFIG, Gate, Worker, completed, failed, line, run, state, submit};
use crate::process;
use crate::server::{DEADLINE, Home};

const SERVER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/cli/generic_worker/server.py"
);

/// A port that stays free: between those that servers of these tests get and those that the kernel gives
/// to outgoing connections.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() * 11;
    loop {
        let offset = start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 30_000 + u16::try_from(offset % 2_700).expect("it is below 2700");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A server that the test runs itself.
struct Beside(Child);

impl Beside {
    fn start(port: &str) -> Self {
        let mut command = Command::new("python3");
        command.args([SERVER, port]).stderr(Stdio::null());
        Self(command.spawn().expect("Python starts"))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A worker that runs the server itself.
fn start(home: &Home, name: &str, options: &[&str]) -> Worker {
    let port = free_port().to_string();
    let url = format!("http://127.0.0.1:{port}/predict");
    let http = ["--http", &url];
    let server = ["--start", "python3", SERVER, &port];
    Worker::start(home, name, &[&http[..], options, &server].concat())
}

#[test]
fn the_input_is_posted_and_the_answer_is_the_output() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let worker = start(
        &home,
        "w",
        &["--health", "/health", "--output-limit", "100000"],
    );
    let state = run(&server, &json!({"n": 1.5}));
    let seen = &state["output"];
    assert_eq!(
        (&seen["path"], &seen["text"]),
        (&json!("/predict"), &json!("{\"n\":1.5}"))
    );
    let headers = json!({"Content-Type": "application/json", "X-Job-Id": state["id"]});
    assert_eq!(seen["headers"], headers);
    assert_eq!(seen["env"]["LAZYFOX_ENDPOINT"], "fox");
    assert_eq!(seen["env"].get("RUNPOD_AI_API_KEY"), None);

    let run = |input: Value| run(&server, &input);
    completed(
        &run(json!({"body": "text, no JSON"})),
        &json!("text, no JSON"),
    );
    completed(&run(json!({"body": "[1]", "status": 201})), &json!([1]));
    completed(&run(json!({"body": ""})), &Value::Null);
    failed(
        &run(json!({"body": "no such model", "status": 422})),
        &["/predict answered HTTP 422", ": no such model"],
    );
    failed(
        &run(json!({"body": "", "status": 302})),
        &["answered HTTP 302"],
    );
    let long = "x".repeat(100_001);
    failed(
        &run(json!({"body": long})),
        &["answered more than 100000 bytes"],
    );
    worker.stop();
    assert!(server.stop().success());
}

#[test]
fn a_cancelled_job_loses_its_connection() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let worker = start(&home, "w", &[]);
    let gate = Gate::open();
    let id = submit(&server, &gate.input());
    let mut arrival = gate.accept();
    server.json("POST", &format!("fox/cancel/{id}"), "");
    assert_eq!(line(&mut arrival.stream), "closed\n");
    completed(&run(&server, &json!({"body": "1"})), &json!(1));
    worker.stop();
    assert!(server.stop().success());
}

#[test]
fn the_end_of_the_server_is_the_end_of_its_worker_and_not_of_the_job() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let mut worker = start(&home, "w", &["--health", "/health"]);
    let id = submit(&server, &json!({"exit": 3}));
    worker.says("exited with code 3");
    assert_eq!(worker.ended().code(), Some(2));
    let state = server.json("GET", &format!("fox/status/{id}"), "");
    assert_eq!(state["status"], "IN_PROGRESS", "{state}");
    assert!(server.stop().success());
}

#[test]
fn a_worker_whose_server_is_never_ready_takes_no_job_and_says_why() {
    let home = Home::new(&CONFIG.replace("lease_s", "init_timeout_s = 1\nlease_s"));
    let mut server = home.serve();
    let id = submit(&server, &json!(1));
    let mut worker = start(&home, "w", &["--health", "/elsewhere"]);
    let said = worker.says("did not answer 2xx within 0.9 s");
    assert!(said.contains("RUNPOD_INIT_TIMEOUT"), "{said}");
    assert_eq!(worker.ended().code(), Some(2));
    let url = format!("http://127.0.0.1:{}/predict", free_port());
    let mut worker = Worker::start(&home, "x", &["--http", &url]);
    worker.says("took no connection within 0.9 s");
    assert_eq!(worker.ended().code(), Some(2));
    let state = server.json("GET", &format!("fox/status/{id}"), "");
    assert_eq!(state["status"], "IN_QUEUE", "{state}");
    assert!(server.stop().success());
}

#[test]
fn a_killed_worker_takes_its_server_along() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let mut worker = start(&home, "w", &[]);
    let gate = Gate::open();
    submit(&server, &gate.input());
    let arrival = gate.accept();
    worker.signal(rustix::process::Signal::KILL);
    worker.ended();
    let pid = arrival.pid("pid");
    assert!(process::ended(pid, DEADLINE), "{pid} is left");
    assert!(server.stop().success());
}

#[test]
fn jobs_wait_for_a_server_that_is_away_for_a_moment() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let port = free_port().to_string();
    let first = Beside::start(&port);
    let url = format!("http://127.0.0.1:{port}/predict");
    let worker = Worker::start(&home, "w", &["--http", &url]);
    completed(&run(&server, &json!({"body": "1"})), &json!(1));
    drop(first);
    let id = submit(&server, &json!({"body": "2"}));
    worker.says("takes no connection");
    let _second = Beside::start(&port);
    completed(&state(&server, &id), &json!(2));
    worker.stop();
    assert!(server.stop().success());
}
