//! `lazyfox dev`: what a stranger sees who runs a handler for the first time.

use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::{Value, json};

use self::run::{Dev, Place};
use crate::gate::Gate;
use crate::process;
use crate::sdk;

mod run;

/// A handler of the SDK tests: what it does is chosen by the input.
fn chosen() -> String {
    sdk::file("handlers/sync_handler.py")
}

fn input(value: &Value) -> String {
    json!({ "input": value }).to_string()
}

#[test]
fn send_prints_one_document_and_nothing_else() {
    let place = Place::new();
    let hello = sdk::file("../../../../examples/hello/handler.py");
    let file = format!(
        "@{}",
        sdk::file("../../../../examples/hello/test_input.json")
    );
    let sent = place.send(&hello, &file, &[]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let document = sent.document();
    assert_eq!(document["status"], "COMPLETED", "{document}");
    let greeting = document["output"]["greeting"].as_str().expect("a greeting");

    // What the worker says stands on the other stream, marked with worker and job.
    let (job, worker) = (document["id"].as_str(), document["workerId"].as_str());
    let mark = format!("{} {} ", worker.expect("a worker"), job.expect("an id"));
    let name = greeting.trim_start_matches("Hello, ").trim_end_matches('!');
    for said in [
        format!("{mark}greeting {name}"),
        format!("{mark}INFO  Started."),
    ] {
        assert!(
            sent.stderr.lines().any(|line| line == said),
            "{said:?} is not in\n{}",
            sent.stderr
        );
    }
    assert_eq!(place.data_mode(), 0o700, "others can look into the data");
    assert!(
        !sent.stderr.contains('\u{1b}'),
        "colours in a file:\n{}",
        sent.stderr
    );
}

#[test]
fn failing_handler_fails_the_command_and_says_why() {
    let place = Place::new();
    let sent = place.send(&chosen(), &input(&json!({"mode": "raise"})), &[]);
    assert_eq!(sent.code, Some(1), "{sent:?}");
    let document = sent.document();
    assert_eq!(document["status"], "FAILED", "{document}");
    assert_eq!(
        document["errorDetail"]["error_message"], "boom \"quoted\" é",
        "{document}"
    );
}

#[test]
fn handler_that_cannot_start_says_so_at_once() {
    let place = Place::new();
    let cases = [
        (
            "import no_such_package\n",
            "ModuleNotFoundError: No module named 'no_such_package'",
            true,
        ),
        (
            "def handler(job):\n    return 1\n",
            "does the handler call runpod.serverless.start?",
            false,
        ),
        (
            "import runpod\nraise SystemExit(7)\n",
            "exited with code 7",
            false,
        ),
    ];
    for (text, reason, is_output) in cases {
        let handler = place.handler(text);
        let sent = place.send(&handler, &input(&json!(1)), &[]);
        assert_eq!(sent.code, Some(1), "{sent:?}");
        let document = sent.document();
        assert_eq!(document["status"], "FAILED", "{document}");
        let error = document["error"].as_str().expect("an error");
        assert!(error.contains(reason), "{reason:?} is not in {error}");
        assert!(
            sent.stderr.contains(reason),
            "{reason:?} is not in\n{}",
            sent.stderr
        );
        let printed = sent
            .stderr
            .lines()
            .any(|line| line.starts_with("wk") && line.ends_with(reason));
        assert_eq!(printed, is_output, "{}", sent.stderr);
    }
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let place = Place::new();
    let handler = place.handler("");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = listener.local_addr().expect("its address").to_string();
    let missing = format!("{handler}x");
    let folder = place.folder();
    let cases: [(&str, &[&str], &str); 7] = [
        (&missing, &[], "there is no handler"),
        (&folder, &[], "is a directory; name the Python file in it"),
        (&handler, &["--endpoint", "a b"], "--endpoint \"a b\""),
        (&handler, &["--env", "NOVALUE"], "KEY=VALUE"),
        (&handler, &["--workers-max", "0"], "0 is not in 1.."),
        (
            &handler,
            &["--python", "no-such-python"],
            "there is no Python interpreter \"no-such-python\"",
        ),
        (
            &handler,
            &["--listen", &taken],
            &format!("cannot listen on {taken}"),
        ),
    ];
    for (handler, arguments, expected) in cases {
        let sent = place.send(handler, "{\"input\":1}", arguments);
        assert_eq!((sent.code, sent.stdout.as_str()), (Some(2), ""), "{sent:?}");
        assert!(
            sent.stderr.contains(expected),
            "{expected:?} is not in {}",
            sent.stderr
        );
    }
}

#[test]
fn worker_comes_with_the_first_job_and_goes_when_idle() {
    let place = Place::new();
    let arguments = [
        "--idle-timeout",
        "1",
        "--env",
        "FOX=red = quick",
        "--endpoint",
        "den",
    ];
    let mut dev = place.dev(&chosen(), &arguments);
    assert_eq!(dev.endpoint(), "den");
    assert_eq!(
        place.workers(),
        Vec::<i32>::new(),
        "a worker before the first job"
    );

    let job = json!({"mode": "env", "names": ["FOX", "RUNPOD_ENDPOINT_ID"]});
    let state = dev.runsync(&input(&job));
    assert_eq!(
        state["output"],
        json!({"FOX": "red = quick", "RUNPOD_ENDPOINT_ID": "den"}),
        "{state}"
    );
    let worker = state["workerId"].as_str().expect("a worker").to_owned();
    let line = dev.until(&format!("worker ended {worker}"));
    assert!(
        line.contains("den") && !line.contains("worker.id"),
        "{line}"
    );
    assert_eq!(
        place.workers(),
        Vec::<i32>::new(),
        "the worker is still there"
    );

    // The next job starts another one.
    let state = dev.runsync(&input(&json!({"mode": "return", "value": 2})));
    assert_eq!(state["output"], 2, "{state}");
    assert_ne!(state["workerId"], worker.as_str());
    dev.signal(Signal::INT);
    assert_eq!(dev.code(), Some(0));
    assert_eq!(place.workers(), Vec::<i32>::new());
}

#[test]
fn an_edited_handler_takes_effect_at_once() {
    let saying = |word: &str| {
        format!(
            "import runpod\ndef handler(job):\n    return {word:?}\n\
             runpod.serverless.start({{'handler': handler}})\n"
        )
    };
    let place = Place::new();
    let mut dev = place.dev(&place.handler(&saying("before")), &[]);
    let before = dev.runsync(&input(&json!(1)));
    assert_eq!(before["output"], "before", "{before}");
    place.handler(&saying("after"));
    dev.until("the handler changed; the next job gets a new worker");
    let after = dev.runsync(&input(&json!(1)));
    assert_eq!(after["output"], "after", "{after}");
    assert_ne!(after["workerId"], before["workerId"]);

    std::fs::write(format!("{}/requirements.txt", place.folder()), "runpod\n")
        .expect("it is written");
    dev.until("requirements.txt changed");
    dev.signal(Signal::INT);
    assert_eq!(dev.code(), Some(0));
}

#[test]
fn first_ctrl_c_lets_the_running_job_finish() {
    let place = Place::new();
    let gate = Gate::open();
    let mut dev = place.dev(&chosen(), &[]);
    // The name of the folder that the handler is in.
    assert_eq!(dev.endpoint(), "handlers");
    let job = dev.run(&input(&json!({"mode": "gate", "gate": gate.port()})));
    let mut arrival = gate.accept();
    dev.signal(Signal::INT);
    dev.until("Stopping: running jobs may finish");
    arrival.release("finished");
    dev.until(&format!("job ended {job} handlers status=COMPLETED"));
    assert_eq!(dev.code(), Some(0));
    assert_eq!(place.workers(), Vec::<i32>::new());
}

#[test]
fn second_ctrl_c_ends_the_running_job() {
    let place = Place::new();
    let gate = Gate::open();
    let mut dev = place.dev(&chosen(), &[]);
    dev.run(&input(&json!({"mode": "gate", "gate": gate.port()})));
    let arrival = gate.accept();
    dev.signal(Signal::INT);
    dev.until("Stopping: running jobs may finish");
    dev.signal(Signal::INT);
    assert_eq!(dev.code(), Some(0));
    assert!(
        process::ended(arrival.pid(), run::MOMENT),
        "the worker was left"
    );
    assert_eq!(place.workers(), Vec::<i32>::new());
}

#[test]
fn a_closed_terminal_stops_it_and_leaves_no_worker() {
    let place = Place::new();
    let gate = Gate::open();
    let mut dev = place.dev(&chosen(), &[]);
    let job = dev.run(&input(&json!({"mode": "gate", "gate": gate.port()})));
    let mut arrival = gate.accept();
    dev.signal(Signal::HUP);
    dev.until("Stopping: running jobs have 20 s to finish");
    arrival.release("finished");
    dev.until(&format!("job ended {job} handlers status=COMPLETED"));
    assert_eq!(dev.code(), Some(0));
    assert_eq!(place.workers(), Vec::<i32>::new());
}

#[test]
fn port_8000_is_the_usual_one() {
    if TcpListener::bind("127.0.0.1:8000").is_err() {
        eprintln!("skipped: somebody uses port 8000");
        return;
    }
    let place = Place::new();
    let mut dev = Dev::start(&place, &chosen(), &[]);
    assert_eq!(
        dev.until("Endpoint"),
        "  Endpoint  http://127.0.0.1:8000/v2/handlers"
    );
    dev.until("curl -s http://127.0.0.1:8000/v2/handlers/runsync");
    dev.signal(Signal::TERM);
    assert_eq!(dev.code(), Some(0));
}
