//! Workers that somebody else runs, and the death of the server: their leases go on.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::http::{Answer, request};
use crate::process;
use crate::server::{Home, Server};

/// How the public SDK names itself: what it says of its jobs can be believed.
const SDK: [(&str, &str); 1] = [("user-agent", "RunPod-Python-SDK/1.12.0 (Linux; test)")];

fn home(lease_s: u32) -> Home {
    let config = format!("[server]\nauth = \"none\"\n[endpoints.e]\nlease_s = {lease_s}\n");
    Home::new(&config)
}

fn take(home: &Home, worker: &str) -> Answer {
    let target = format!("/v2/e/job-take/{worker}?&job_in_progress=0");
    request(home.port(), "GET", &target, &SDK, "").expect("an answer")
}

/// As the SDK: three tries, of which only a 5xx leads to the next. Its pauses are left out.
fn post(home: &Home, worker: &str, job: &str, output: &Value) -> Result<(), String> {
    let target = format!("/v2/e/job-done/{worker}/{job}?&isStream=false");
    for _ in 0..3 {
        let answer = request(
            home.port(),
            "POST",
            &target,
            &SDK,
            &json!({"output": output}).to_string(),
        );
        match answer {
            Ok(answer) if answer.status < 400 => return Ok(()),
            Ok(answer) if answer.status >= 500 => {}
            Ok(answer) => return Err(answer.body),
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("three times 5xx".to_owned())
}

/// Submits a job, lets a worker take it, and kills the server.
fn taken_and_killed(home: &Home) -> String {
    let mut server = home.serve();
    let answer = server.json("POST", "e/run", "{\"input\":1}");
    let job = answer["id"].as_str().expect("an id").to_owned();
    assert_eq!(take(home, "w1").json()["id"], job);
    process::signal(server.pid(), Signal::KILL);
    server.gone();
    job
}

fn state(server: &Server<'_>, job: &str) -> Value {
    server.json("GET", &format!("e/status/{job}"), "")
}

#[test]
fn result_of_a_job_taken_before_the_kill_is_accepted() {
    let home = home(30);
    let job = taken_and_killed(&home);
    post(&home, "w1", &job, &json!("lost on the way")).expect_err("nobody is there");

    let mut server = home.serve();
    let running = state(&server, &job);
    assert_eq!(
        (&running["status"], &running["workerId"]),
        (&json!("IN_PROGRESS"), &json!("w1"))
    );
    post(&home, "w1", &job, &json!("arrived")).expect("the result is accepted");
    let ended = state(&server, &job);
    assert_eq!(
        (&ended["status"], &ended["output"]),
        (&json!("COMPLETED"), &json!("arrived"))
    );
    assert_eq!(ended.get("retries"), None, "{ended}");
    assert!(server.stop().success());
}

#[test]
fn job_of_a_worker_that_is_gone_waits_again_after_its_lease() {
    let home = home(4);
    let job = taken_and_killed(&home);
    let mut server = home.serve();
    let started = Instant::now();
    // The poll is held for 20 s at least, and answered as soon as the lease has run out.
    let answer = take(&home, "w2");
    assert_eq!(answer.status, 200, "no job after {:?}", started.elapsed());
    assert_eq!(answer.json()["id"], job);

    post(&home, "w1", &job, &json!("late")).expect("a late result is answered well");
    let running = state(&server, &job);
    assert_eq!(
        (&running["status"], &running["workerId"]),
        (&json!("IN_PROGRESS"), &json!("w2"))
    );
    post(&home, "w2", &job, &json!("in time")).expect("the result is accepted");
    let ended = state(&server, &job);
    assert_eq!(
        (&ended["status"], &ended["output"]),
        (&json!("COMPLETED"), &json!("in time"))
    );
    assert_eq!(ended["retries"], 1, "{ended}");
    assert!(server.stop().success());
}
