//! `simulate` needs no server: a trace goes in, a table or documents come out.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Runs the command with this on its standard input.
fn simulate(arguments: &[&str], trace: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lazyfox"));
    command.arg("simulate").args(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    // One that refuses its arguments does not read.
    let _ = stdin.write_all(trace.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

#[test]
fn a_trace_from_standard_input_is_run_with_all_settings() {
    let arguments = [
        "--trace",
        "-",
        "--run-time",
        "2",
        "--start-time",
        "3",
        "--json",
    ];
    let compare = [
        "--compare",
        "workers-min=1",
        "--compare",
        "slots=2,run-time=4",
    ];
    let output = simulate(&[&arguments[..], &compare].concat(), "at\n0\n0\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let document = |line: &str| serde_json::from_str(line).expect("a document");
    let documents: Vec<serde_json::Value> = text.lines().map(document).collect();
    let seen = |n: usize| {
        let document = &documents[n];
        let name = document["name"].as_str().expect("a name");
        (
            name,
            document["wait"]["max_ms"].as_u64(),
            document["busy_ms"].as_u64(),
        )
    };
    assert_eq!(documents.len(), 3);
    assert_eq!(seen(0), ("as given", Some(5_000), Some(4_000)));
    assert_eq!(seen(1), ("workers-min=1", Some(2_000), Some(4_000)));
    assert_eq!(seen(2), ("slots=2,run-time=4", Some(3_000), Some(4_000)));

    let output = simulate(&arguments[..6], "at\n0\n0\n");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.starts_with("SETTINGS") && text.contains("as given: QUEUE_DELAY"),
        "{text}"
    );
}

#[test]
fn a_mistake_names_the_file_and_ends_with_2() {
    let refused = |arguments: &[&str], trace: &str, expected: &str| {
        let output = simulate(arguments, trace);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            (output.status.code(), output.stdout.len()),
            (Some(2), 0),
            "{text}"
        );
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    };
    let stdin = ["--trace", "-"];
    refused(
        &stdin,
        "at\nx\n",
        "in the trace standard input: line 2, column at:",
    );
    refused(
        &stdin,
        "at\n",
        "in the trace standard input: there are no jobs",
    );
    refused(&["--trace", "none.csv"], "", "cannot read none.csv");
    refused(&[], "", "--trace <FILE>");
    let compare = [&stdin[..], &["--compare", "slots=x"]].concat();
    refused(&compare, "at\n1\n", "--compare slots=x: invalid value 'x'");
}
