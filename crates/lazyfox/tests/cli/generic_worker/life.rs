//! How a worker starts and ends, and what becomes of its jobs.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{CONFIG, Gate, JOB, Worker, completed, environment, run, state, submit};
use crate::process;
use crate::server::Home;

const GATED: [&str; 3] = ["--exec", "python3", JOB];

#[test]
fn a_cancelled_job_is_ended_with_all_that_it_started() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let worker = Worker::start(&home, "w", &GATED);
    let gate = Gate::open();
    let id = submit(&server, &gate.input());
    let arrival = gate.accept();
    server.json("POST", &format!("fox/cancel/{id}"), "");
    // They ignore SIGTERM, and one has left the group.
    arrival.gone();
    worker.says("job stopped");
    // The worker itself goes on.
    let next = submit(&server, &gate.input());
    gate.accept().release("next");
    assert_eq!(state(&server, &next)["output"]["word"], "next");
    assert_eq!(state(&server, &id)["status"], "CANCELLED");
    worker.stop();
    assert!(server.stop().success());
}

#[test]
fn a_killed_worker_leaves_no_process() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let mut worker = Worker::start(&home, "w", &GATED);
    let gate = Gate::open();
    submit(&server, &gate.input());
    let arrival = gate.accept();
    worker.signal(Signal::KILL);
    worker.ended();
    arrival.gone();
    assert_eq!(home.workers(), Vec::<i32>::new());
    assert!(server.stop().success());
}

#[test]
fn the_watchdog_is_replaced_when_somebody_ends_it() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let mut worker = Worker::start(
        &home,
        "w",
        &["--concurrency", "2", "--exec", "python3", JOB],
    );
    let gate = Gate::open();
    submit(&server, &gate.input());
    let first = gate.accept();
    let children = format!("/proc/{0}/task/{0}/children", worker.pid());
    let children = std::fs::read_to_string(children).expect("the worker runs");
    let pids = children
        .split_whitespace()
        .map(|pid| pid.parse().expect("a number"));
    let others: Vec<i32> = pids.filter(|pid| *pid != first.pid("pid")).collect();
    let &[watchdog] = &*others else {
        panic!("one of {others:?} should be the watchdog");
    };
    process::signal(watchdog, Signal::KILL);
    assert!(process::ended(watchdog, Duration::from_secs(10)));
    submit(&server, &gate.input());
    let second = gate.accept();
    worker.signal(Signal::KILL);
    worker.ended();
    first.gone();
    second.gone();
    assert!(server.stop().success());
}

#[test]
fn four_jobs_run_at_a_time() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let worker = Worker::start(
        &home,
        "w",
        &["--concurrency", "4", "--exec", "python3", JOB],
    );
    let gate = Gate::open();
    let ids: Vec<String> = (0..6).map(|_| submit(&server, &gate.input())).collect();
    let mut arrivals: Vec<_> = (0..4).map(|_| gate.accept()).collect();
    let health = server.json("GET", "fox/health", "");
    let counts = ["inProgress", "inQueue"].map(|name| health["jobs"][name].as_u64());
    assert_eq!(counts, [Some(4), Some(2)], "{health}");
    // Each that ends makes room for one.
    arrivals.remove(0).release("first");
    arrivals.push(gate.accept());
    for arrival in &mut arrivals {
        arrival.release("go");
    }
    gate.accept().release("last");
    for id in ids {
        assert_eq!(state(&server, &id)["status"], "COMPLETED");
    }
    worker.stop();
    assert!(server.stop().success());
}

#[test]
fn a_result_outlives_a_server_that_is_away() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let worker = Worker::start(&home, "w", &GATED);
    let gate = Gate::open();
    let id = submit(&server, &gate.input());
    let mut arrival = gate.accept();
    process::signal(server.pid(), Signal::KILL);
    server.gone();
    arrival.release("kept");
    worker.says("cannot hand in a result");
    let mut server = home.serve();
    let state = state(&server, &id);
    assert_eq!(state["output"]["word"], "kept", "{state}");
    assert_eq!(state.get("retries"), None, "{state}");
    worker.says("the server has the result now");
    worker.stop();
    assert!(server.stop().success());
}

#[test]
fn a_signal_lets_a_worker_finish_and_take_no_more() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let mut worker = Worker::start(
        &home,
        "w",
        &["--concurrency", "2", "--exec", "python3", JOB],
    );
    let gate = Gate::open();
    let first = submit(&server, &gate.input());
    let mut arrival = gate.accept();
    worker.signal(Signal::TERM);
    worker.says("taking no more jobs");
    let second = submit(&server, &gate.input());
    arrival.release("finished");
    assert_eq!(worker.ended().code(), Some(0));
    assert_eq!(state(&server, &first)["output"]["word"], "finished");
    let second = server.json("GET", &format!("fox/status/{second}"), "");
    assert_eq!(second["status"], "IN_QUEUE");
    server.json("POST", "fox/purge-queue", "");
    assert!(server.stop().success());
}

#[test]
fn a_second_signal_stops_what_runs() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let mut worker = Worker::start(&home, "w", &GATED);
    let gate = Gate::open();
    submit(&server, &gate.input());
    let arrival = gate.accept();
    worker.signal(Signal::INT);
    worker.says("taking no more jobs");
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().code(), Some(128 + 15));
    arrival.gone();
    assert!(server.stop().success());
}

#[test]
fn a_result_that_asks_for_a_fresh_worker_ends_this_one() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let command = ["--exec", "echo", "{\"n\": 1, \"refresh_worker\": true}"];
    let mut worker = Worker::start(&home, "w", &command);
    completed(&run(&server, &json!(1)), &json!({"n": 1}));
    assert_eq!(worker.ended().code(), Some(0));
    // Under the same name, as a service manager starts it.
    let worker = Worker::start(&home, "w", &["--exec", "echo", "2"]);
    completed(&run(&server, &json!(1)), &json!(2));
    worker.stop();
    assert!(server.stop().success());
}

#[test]
fn the_server_starts_and_stops_it_like_any_worker() {
    let lazyfox = env!("CARGO_BIN_EXE_lazyfox");
    let home = Home::new(&format!(
        "[endpoints.fox]\ncommand = [{lazyfox:?}, \"worker\", \"--exec\", \"cat\"]\n\
         env = {{ MARK }}\nidle_timeout_s = 0\n"
    ));
    let mut server = home.serve();
    let key = home.run(&["key", "create", "test"]).stdout;
    let key = key.trim();
    for n in 0..2 {
        let ended = home.run(&["runsync", "fox", &format!("{n}"), "--json", "--key", key]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let state: Value = serde_json::from_str(&ended.stdout).expect("a document");
        assert_eq!(state["output"]["input"], json!(n), "{state}");
        // Idle, it is asked to stop, and does so at once.
        for pid in home.workers() {
            assert!(
                process::ended(pid, Duration::from_secs(20)),
                "{pid} is left"
            );
        }
    }
    assert!(server.stop().success());
    let log = std::fs::read_to_string(home.path().join("server.log")).expect("a log");
    assert!(log.contains("sdk=lazyfox-"), "{log}");
    assert!(!log.contains("killing a worker"), "{log}");
}

#[test]
fn an_environment_is_for_a_shell_docker_or_a_program() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let variables = environment(&home, "attic-1");
    assert_eq!(variables["RUNPOD_POD_ID"], "attic-1");
    let done = &variables["RUNPOD_WEBHOOK_POST_OUTPUT"];
    let docker = home.run(&[
        "worker-env",
        "fox",
        "--worker",
        "attic-1",
        "--format",
        "docker",
    ]);
    let line = format!("RUNPOD_WEBHOOK_POST_OUTPUT={done}");
    assert!(docker.stdout.lines().any(|it| it == line), "{docker:?}");
    assert!(
        docker.stderr.contains("only this machine can reach"),
        "{docker:?}"
    );

    let url = [
        "worker-env",
        "fox",
        "--worker-url",
        "http://10.0.0.5:80/",
        "--json",
    ];
    let elsewhere = home.run(&url);
    assert_eq!(elsewhere.stderr, "", "{elsewhere:?}");
    let elsewhere: Value = serde_json::from_str(&elsewhere.stdout).expect("a document");
    let take = elsewhere["env"]["RUNPOD_WEBHOOK_GET_JOB"]
        .as_str()
        .expect("a text");
    assert!(
        take.starts_with("http://10.0.0.5:80/v2/fox/job-take/wk"),
        "{take}"
    );

    let shell = |script: &str| {
        let lazyfox = env!("CARGO_BIN_EXE_lazyfox");
        let output = std::process::Command::new("sh")
            .args(["-c", script, lazyfox])
            .current_dir(home.path())
            .env("LAZYFOX_URL", format!("http://127.0.0.1:{}", home.port()))
            .output()
            .expect("a shell");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let evaluated = "eval \"$(\"$0\" worker-env fox --worker attic-1)\"; \
                     printenv RUNPOD_WEBHOOK_POST_OUTPUT";
    assert_eq!(shell(evaluated).trim_end(), done);
    let words = "env $(\"$0\" worker-env fox --worker attic-1 --format docker) \
                 printenv RUNPOD_WEBHOOK_POST_OUTPUT";
    assert_eq!(shell(words).trim_end(), done);
    assert!(server.stop().success());
}
