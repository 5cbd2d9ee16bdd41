//! Submitting and waiting: what is printed, and the exit codes that scripts rely on.

use serde_json::{Value, json};

use crate::server::{Home, Output};
use crate::worker::work;

const CONFIG: &str = "[server]\nauth = \"none\"\n[endpoints.fox]\n";

#[track_caller]
fn ended(output: &Output, code: i32, stdout: &[&str], stderr: &[&str]) {
    assert_eq!(output.code, Some(code), "{output:?}");
    for part in stdout {
        assert!(
            output.stdout.contains(part),
            "{part:?} is not in {}",
            output.stdout
        );
    }
    for part in stderr {
        assert!(
            output.stderr.contains(part),
            "{part:?} is not in {}",
            output.stderr
        );
    }
}

fn document(output: &Output) -> Value {
    assert_eq!(output.stdout.lines().count(), 1, "{output:?}");
    serde_json::from_str(&output.stdout).expect("a JSON document")
}

fn id(output: &Output) -> String {
    document(output)["id"].as_str().expect("an id").to_owned()
}

/// Runs a command that waits, while a worker does the job.
fn with_worker(home: &Home, worker: &str, end: &Value, arguments: &[&str]) -> (Output, Value) {
    std::thread::scope(|scope| {
        let job = scope.spawn(|| work(home, worker, &[], end));
        let output = home.run(arguments);
        (output, job.join().expect("the worker saw nothing odd"))
    })
}

#[test]
fn runsync_and_run_wait_print_the_result() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let done = json!({"output": {"answer": 42}});
    let (output, job) = with_worker(&home, "w", &done, &["runsync", "fox", "{\"n\": 1.50}"]);
    ended(&output, 0, &["COMPLETED", "\"answer\": 42"], &[]);
    assert_eq!(job["input"], json!({"n": 1.5}));

    let (output, _) = with_worker(
        &home,
        "w",
        &done,
        &["--json", "run", "fox", "[1]", "--wait"],
    );
    ended(&output, 0, &[], &[]);
    let state = document(&output);
    assert_eq!(
        (&state["status"], &state["output"]),
        (&json!("COMPLETED"), &done["output"])
    );

    let failed = json!({"error": "no fox"});
    let (output, _) = with_worker(&home, "w", &failed, &["runsync", "fox", "1"]);
    ended(&output, 1, &["FAILED", "no fox"], &[]);
    let (output, job) = with_worker(&home, "w", &failed, &["runsync", "fox", "1", "--json"]);
    ended(&output, 1, &["\"status\":\"FAILED\""], &[]);
    assert_eq!(json!(id(&output)), job["id"]);
    assert!(server.stop().success());
}

#[test]
fn run_prints_an_id_that_status_and_cancel_take() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let request = "{\"input\": 1, \"policy\": {\"ttl\": 60000}}";
    let submitted = home.run(&["run", "fox", request, "--json"]);
    ended(&submitted, 0, &[], &[]);
    let job = id(&submitted);
    ended(
        &home.run(&["run", "fox", "1"]),
        0,
        &["id ", "IN_QUEUE"],
        &[],
    );

    ended(
        &home.run(&["status", "fox", &job]),
        0,
        &[&job, "IN_QUEUE"],
        &[],
    );
    let waited = home.run(&["runsync", "fox", "1", "--timeout", "1"]);
    ended(
        &waited,
        4,
        &["IN_QUEUE"],
        &["--timeout is over", "lazyfox status fox"],
    );
    ended(&home.run(&["cancel", "fox", &job]), 0, &["CANCELLED"], &[]);
    let state = home.run(&["status", "fox", &job, "--json"]);
    ended(&state, 1, &["\"status\":\"CANCELLED\""], &[]);
    ended(
        &home.run(&["status", "fox", &job, "--wait"]),
        1,
        &["CANCELLED"],
        &[],
    );
    ended(
        &home.run(&["retry", "fox", &job]),
        2,
        &[],
        &["CANCELLED", "HTTP 400"],
    );
    assert!(server.stop().success());
}

#[test]
fn retry_runs_a_failed_job_again() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let failed = json!({"error": "x"});
    let (output, _) = with_worker(&home, "w", &failed, &["runsync", "fox", "1", "--json"]);
    let job = id(&output);
    let done = json!({"output": "second"});
    let (output, again) = with_worker(&home, "w", &done, &["retry", "fox", &job, "--wait"]);
    ended(&output, 0, &["COMPLETED", "second"], &[]);
    assert_eq!(again["id"], json!(job));
    ended(
        &home.run(&["cancel", "fox", &job]),
        0,
        &["COMPLETED"],
        &["too late"],
    );
    assert!(server.stop().success());
}

#[test]
fn stream_prints_chunks_as_they_come() {
    let home = Home::new(CONFIG);
    let mut server = home.serve();
    let chunks = [json!("red\nfox"), json!({"n": 1}), json!(2)];
    let stream = |end: &Value, arguments: &[&str]| {
        let job = id(&home.run(&["run", "fox", "1", "--json"]));
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| work(&home, "w", &chunks, end));
            let output = home.run(&[&["stream", "fox", &job], arguments].concat());
            worker.join().expect("the worker saw nothing odd");
            output
        })
    };
    let output = stream(&json!({"output": []}), &[]);
    ended(&output, 0, &[], &[]);
    assert_eq!(output.stdout, "\"red\\nfox\"\n{\"n\":1}\n2\n");

    let output = stream(&json!({"error": "lost the scent"}), &["--json"]);
    ended(&output, 1, &[], &["FAILED: lost the scent"]);
    let documents = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let documents: Vec<Value> = documents.collect();
    let streamed = documents
        .iter()
        .flat_map(|it| it["stream"].as_array().expect("a list"));
    let outputs: Vec<&Value> = streamed.map(|chunk| &chunk["output"]).collect();
    assert_eq!(outputs, chunks.iter().collect::<Vec<_>>());
    assert_eq!(documents.last().expect("one at least")["status"], "FAILED");
    assert!(server.stop().success());
}

#[test]
fn refusals_and_absence_have_codes_of_their_own() {
    let home = Home::new(CONFIG);
    ended(
        &home.run(&["health", "fox"]),
        3,
        &[],
        &["cannot reach", "LAZYFOX_URL"],
    );
    let mut server = home.serve();
    let unknown = "0199c3b1-7f6e-7c41-9a52-0f2f6d1c8e10";
    let cases: [(&[&str], &str); 7] = [
        (&["health", "hen"], "there is no endpoint \"hen\""),
        (&["health", "hen"], "HTTP 404"),
        (&["status", "fox", unknown], "job_not_found"),
        (&["run", "fox", "{"], "INPUT is not JSON"),
        (&["run", "fox", "1", "--ttl", "5"], "policy.ttl is 5 ms"),
        (&["run", "fox", "@none.json"], "cannot read none.json"),
        (&["run", "a/b", "1"], "only letters, digits"),
    ];
    for (arguments, expected) in cases {
        ended(&home.run(arguments), 2, &[], &[expected]);
    }
    assert!(server.stop().success());

    home.configure("[endpoints.fox]\n");
    let mut server = home.serve();
    ended(
        &home.run(&["health", "fox"]),
        2,
        &[],
        &["HTTP 401", "LAZYFOX_API_KEY"],
    );
    let made = home.run(&["key", "create", "test"]);
    ended(
        &home.run(&["health", "fox", "--key", made.stdout.trim()]),
        0,
        &["jobs"],
        &[],
    );
    assert!(server.stop().success());
}
