//! Every call through another server than the one before.

use lazyfox_testing::shared;
use serde_json::{Value, json};

use crate::http::{Answer, request};
use crate::server::Server;
use crate::team::Team;

/// A worker's poll.
fn take(port: u16, worker: &str) -> Answer {
    let target = format!("/v2/kept/job-take/{worker}?&job_in_progress=0");
    request(port, "GET", &target, &[], "").expect("an answer")
}

fn post(port: u16, target: &str, body: &Value) -> Answer {
    let target = format!("/v2/kept/{target}");
    request(port, "POST", &target, &[], &body.to_string()).expect("an answer")
}

fn submitted(server: &Server<'_>, body: &Value) -> String {
    let answer = server.json("POST", "kept/run", &body.to_string());
    answer["id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_job_goes_through_three_servers() {
    let team = Team::of(3, shared());
    let [one, two, three] = &mut *team.serve() else {
        panic!("there are three");
    };
    let [_, at_two, at_three] = [0, 1, 2].map(|n| team.homes[n].port());
    std::thread::scope(|scope| {
        // The worker waits before the job is there, and is told by another server.
        let taken = scope.spawn(move || take(at_two, "w1"));
        let waits = scope.spawn(|| {
            let answer = one.json("POST", "kept/runsync?wait=60000", "{\"input\":{\"n\":1.0}}");
            answer["output"].clone()
        });
        let job = taken.join().expect("a poll").json();
        assert_eq!(job["input"], json!({"n": 1.0}));
        let id = job["id"].as_str().expect("an id");
        let seen = three.json("GET", &format!("kept/status/{id}"), "");
        assert_eq!(
            (&seen["status"], &seen["workerId"]),
            (&json!("IN_PROGRESS"), &json!("w1"))
        );
        // The result comes to a third one, and who waits at the first has it.
        let done = post(
            at_three,
            &format!("job-done/w1/{id}?&isStream=false"),
            &json!({"output": 7}),
        );
        assert_eq!(done.status, 200);
        assert_eq!(waits.join().expect("a caller"), json!(7));
    });
    let health = two.json("GET", "kept/health", "");
    assert_eq!(health["jobs"]["completed"], json!(1), "{health}");
    for server in [one, two, three] {
        assert!(server.stop().success());
    }
}

#[test]
fn a_job_is_streamed_cancelled_and_retried_from_anywhere() {
    let team = Team::of(2, shared());
    let [one, two] = &mut *team.serve() else {
        panic!("there are two");
    };
    let [at_one, at_two] = [0, 1].map(|n| team.homes[n].port());
    let streamed = submitted(one, &json!({"input": 1}));
    assert_eq!(take(at_two, "w1").json()["id"], json!(streamed));
    std::thread::scope(|scope| {
        let waits =
            scope.spawn(|| one.json("GET", &format!("kept/stream/{streamed}?wait=60000"), ""));
        let chunk = post(
            at_two,
            &format!("job-stream/w1/{streamed}?&isStream=true"),
            &json!({"output": "a"}),
        );
        assert_eq!(chunk.status, 200);
        let stream = waits.join().expect("a caller");
        assert_eq!(stream["stream"][0]["output"], json!("a"), "{stream}");
    });
    // The worker that is known to one server loses its job through the other.
    let cancelled = two.json("POST", &format!("kept/cancel/{streamed}"), "");
    assert_eq!(cancelled["status"], json!("CANCELLED"));
    let late = post(
        at_two,
        &format!("job-done/w1/{streamed}?&isStream=false"),
        &json!({"output": 1}),
    );
    assert_eq!(late.status, 200);
    let status = one.json("GET", &format!("kept/status/{streamed}"), "");
    assert_eq!(status["status"], json!("CANCELLED"));

    let failed = submitted(two, &json!({"input": 2}));
    assert_eq!(take(at_one, "w2").json()["id"], json!(failed));
    let error = post(
        at_two,
        &format!("job-done/w2/{failed}?&isStream=false"),
        &json!({"error": "no"}),
    );
    assert_eq!(error.status, 200);
    let again = one.json("POST", &format!("kept/retry/{failed}"), "");
    assert_eq!(again["status"], json!("IN_QUEUE"));
    assert_eq!(take(at_two, "w3").json()["id"], json!(failed));
    for server in [one, two] {
        assert!(server.stop().success());
    }
}

#[test]
fn a_request_that_is_repeated_elsewhere_is_the_same_job() {
    let team = Team::of(2, shared());
    let mut servers = team.serve();
    let run = |n: usize| {
        let port = team.homes[n].port();
        let headers = [("idempotency-key", "once")];
        request(port, "POST", "/v2/kept/run", &headers, "{\"input\":1}")
            .expect("an answer")
            .json()
    };
    let first = run(0);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|n| scope.spawn(move || run(n % 2))).collect();
        for one in all {
            assert_eq!(one.join().expect("a caller")["id"], first["id"]);
        }
    });
    for server in &mut servers {
        assert!(server.stop().success());
    }
}
