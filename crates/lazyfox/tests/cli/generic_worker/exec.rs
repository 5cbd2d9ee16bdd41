//! What a command makes of a job.

use serde_json::{Value, json};

use super::{CONFIG, Gate, JOB, Worker, completed, failed, run, state, submit};
use crate::server::Home;

/// Does what the input says: it is a shell script.
const SHELL: [&str; 4] = [
    "--exec",
    "python3",
    "-c",
    "import json, subprocess, sys; \
     sys.exit(subprocess.call(['sh', '-c', json.load(sys.stdin)['input']]))",
];

#[test]
fn what_a_command_prints_is_the_output_and_its_exit_code_the_end() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let worker = Worker::start(&home, "w", &SHELL);
    let run = |script: &str| run(&server, &json!(script));
    completed(
        &run("echo '{\"fox\": [1, 2.50]}'"),
        &json!({"fox": [1, 2.5]}),
    );
    completed(&run("echo hello; echo fox"), &json!("hello\nfox"));
    completed(&run("exit 0"), &Value::Null);
    completed(&run("exec 0<&-; echo 7"), &json!(7));
    let state = run("echo one >&2; echo two >&2; echo '{}'; exit 3");
    failed(
        &state,
        &[
            "the command exited with code 3",
            "its last output: one\ntwo",
        ],
    );
    assert_eq!(state.get("output"), None, "{state}");
    failed(&run("exit 4"), &["the command exited with code 4"]);
    failed(&run("printf '\\377'"), &["neither JSON nor UTF-8"]);
    let id = submit(&server, &json!("echo a word for the log >&2"));
    let line = worker.says("a word for the log");
    assert_eq!(line, format!("{id}: a word for the log"));
    worker.stop();
    assert!(server.stop().success());
}

#[test]
fn a_command_that_a_signal_ends_says_which() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let worker = Worker::start(
        &home,
        "w",
        &["--exec", "sh", "-c", "echo last >&2; kill -SEGV $$"],
    );
    let state = run(&server, &json!(1));
    failed(
        &state,
        &["was killed by signal 11 (SIGSEGV)", "its last output: last"],
    );
    worker.stop();
    assert!(server.stop().success());
}

#[test]
fn five_megabytes_go_in_and_out() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    // It writes before it has read everything, so neither side may wait for the other.
    let worker = Worker::start(&home, "w", &["--exec", "cat"]);
    let text = "fox ".repeat(5 * 1024 * 1024 / 4);
    let state = run(&server, &json!(text));
    assert_eq!(state["status"], "COMPLETED");
    let output = &state["output"];
    assert!(output["input"] == json!(text), "another text came back");
    assert_eq!(output["id"], state["id"]);
    worker.stop();

    // A command that writes much and reads nothing.
    let much = ["--exec", "sh", "-c", "yes fox | head -c 5000000"];
    let worker = Worker::start(&home, "x", &much);
    let state = run(&server, &json!(text));
    // Without the last line break.
    assert_eq!(state["output"].as_str().map(str::len), Some(4_999_999));
    worker.stop();
    assert!(server.stop().success());
}

#[test]
fn an_output_over_the_limit_ends_the_command() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let worker = Worker::start(&home, "w", &["--output-limit", "1000", "--exec", "yes"]);
    let expected = "the command wrote more than 1000 bytes to its output; --output-limit";
    failed(&run(&server, &json!(1)), &[expected]);
    worker.stop();
    let worker = Worker::start(
        &home,
        "x",
        &["--output-limit", "3", "--exec", "echo", "abc"],
    );
    failed(&run(&server, &json!(1)), &["more than 3 bytes"]);
    worker.stop();
    let worker = Worker::start(
        &home,
        "y",
        &["--output-limit", "4", "--exec", "echo", "abc"],
    );
    completed(&run(&server, &json!(1)), &json!("abc"));
    worker.stop();
    assert!(server.stop().success());
}

#[test]
fn a_job_knows_itself_and_not_the_secrets_of_its_worker() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let worker = Worker::start(&home, "w", &["--exec", "python3", JOB]);
    let gate = Gate::open();
    let id = submit(&server, &gate.input());
    let mut arrival = gate.accept();
    let env = &arrival.hello["env"];
    assert_eq!(env["LAZYFOX_JOB_ID"], json!(id));
    assert_eq!(
        (&env["LAZYFOX_ENDPOINT"], &env["RUNPOD_POD_ID"]),
        (&json!("fox"), &json!("w"))
    );
    let env = env.as_object().expect("an object");
    let kept = [
        "RUNPOD_AI_API_KEY",
        "RUNPOD_WEBHOOK_GET_JOB",
        "RUNPOD_WEBHOOK_POST_OUTPUT",
        "LAZYFOX_API_KEY",
    ];
    assert!(kept.iter().all(|name| !env.contains_key(*name)), "{env:?}");
    arrival.release("go");
    let state = state(&server, &id);
    assert_eq!(
        state["output"]["job"],
        json!({"id": id, "input": gate.input()})
    );
    worker.stop();
    assert!(server.stop().success());
}

#[test]
fn what_a_command_leaves_running_does_not_hold_its_job() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let worker = Worker::start(&home, "w", &SHELL);
    // One in the group, and one that left it; both hold the pipes.
    completed(&run(&server, &json!("sleep 600 & echo 1")), &json!(1));
    completed(
        &run(&server, &json!("setsid sleep 600 & echo 2")),
        &json!(2),
    );
    worker.stop();
    assert!(server.stop().success());
}

#[test]
fn a_command_that_cannot_be_run_takes_no_job() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    for (command, expected) in [
        ("no-such-program", "cannot run the command of --exec: "),
        ("cat file", "its words are given one by one"),
    ] {
        let mut worker = Worker::start(&home, "w", &["--exec", command]);
        worker.says(expected);
        assert_eq!(worker.ended().code(), Some(2));
    }
    let bare = home.run(&["worker", "--exec", "cat"]);
    assert_eq!(bare.code, Some(2), "{bare:?}");
    assert!(
        bare.stderr.contains("RUNPOD_WEBHOOK_GET_JOB is not set"),
        "{bare:?}"
    );
    assert!(server.stop().success());
}
